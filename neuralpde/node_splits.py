"""Which nodes are trained on, selected on and tested on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from operators import DomainError

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Three sets of nodes, no two of which overlap.

    Args:
        train, validation, test: masks (n,), bool.

    Raises:
        DomainError: masks of another kind or of different lengths, an empty set, or a node in two sets.
    """

    train: Tensor
    validation: Tensor
    test: Tensor

    def __post_init__(self) -> None:
        masks = {name: getattr(self, name) for name in PARTS}
        for name, mask in masks.items():
            if not isinstance(mask, Tensor) or mask.dtype is not torch.bool or mask.ndim != 1:
                shown = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
                raise DomainError(f"the {name} mask must be bool of shape (n,), not {shown}: for lists of nodes use from_nodes")
        lengths = {name: len(mask) for name, mask in masks.items()}
        if len(set(lengths.values())) > 1:
            raise DomainError(f"masks must be of one length, not {lengths}: they belong to different graphs")
        for name, mask in masks.items():
            if not bool(mask.any()):
                raise DomainError(f"the {name} set is empty: a split needs nodes in each of {', '.join(PARTS)}")
        for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
            shared = int((masks[one] & masks[other]).sum())
            if shared:
                raise DomainError(f"{shared} nodes are in both {one} and {other}: a node may be in one set only")

    @classmethod
    def from_nodes(cls, nodes: int, train: Tensor, validation: Tensor, test: Tensor) -> Split:
        """The split of a graph of so many nodes, from the indices of each set."""
        masks = []
        for name, index in zip(PARTS, (train, validation, test), strict=True):
            if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < nodes:
                raise DomainError(f"the {name} set names nodes {int(index.min())} to {int(index.max())} of a graph with {nodes}")
            masks.append(torch.zeros(nodes, dtype=torch.bool).index_fill_(0, index, True))
        return cls(*masks)

    def check(self, labels: Tensor) -> Split:
        """Return itself. Raises DomainError if it is of another length than the labels, or if a class has no training node."""
        if len(labels) != len(self.train):
            raise DomainError(f"the masks have {len(self.train)} nodes, labels {len(labels)}: they belong to different graphs")
        missing = sorted(set(labels.tolist()) - set(labels[self.train].tolist()))
        if missing:
            raise DomainError(f"no training node is of class {missing}: it could never be predicted; use another split or seed")
        return self

    def __repr__(self) -> str:
        return "Split(" + ", ".join(f"{name}={int(getattr(self, name).sum())}" for name in PARTS) + ")"


def random_split(labels: Tensor, seed: int, development: int = 1500, each: int = 20) -> Split:
    """Shchur et al.'s protocol (2018, arXiv:1811.05868): so many a class to train on, the rest of a development set to select on.

    Args:
        labels: (n,).
        seed: of the split.
        development: the nodes of training and validation together, drawn uniformly; all else is the test set.
        each: training nodes a class; fewer where the development set has no more of a class.

    Raises:
        DomainError: a development set that is not smaller than the graph, or that lacks a class.
    """
    if not each >= 1:
        raise DomainError(f"each must be at least 1 training node a class, not {each}")
    if not 0 < development < len(labels):
        raise DomainError(f"a development set of {development} nodes leaves no test set of {len(labels)}: make it smaller")
    order = torch.from_numpy(np.random.RandomState(seed).permutation(len(labels)))
    inner, test = order[:development], order[development:]
    taken = torch.zeros(development, dtype=torch.bool)
    for c in sorted(set(labels.tolist())):
        # One of each class at least is left to select on, where there are two.
        of_class = (labels[inner] == c).nonzero().squeeze(1)
        taken[of_class[: min(each, max(1, len(of_class) - 1))]] = True
    return Split.from_nodes(len(labels), inner[taken], inner[~taken], test).check(labels)
