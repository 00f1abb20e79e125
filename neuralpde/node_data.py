"""Graphs whose nodes are to be classified: frozen and validated."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from hashlib import sha256

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from neuralpde.node_splits import Split
from operators import DomainError, Graph, SparseOperator

Features = Tensor | SparseOperator
"""(n, d): a dense tensor, or a sparse matrix of words."""


class Dataset(Enum):
    """The published graphs."""

    CORA = "cora"
    CITESEER = "citeseer"
    CS = "cs"
    COMPUTERS = "computers"
    PHOTO = "photo"
    PUBMED = "pubmed"
    OGBN_ARXIV = "ogbn-arxiv"


@dataclass(frozen=True, eq=False)
class NodeData:
    """A graph with features and a class for every node.

    Args:
        name: for tables and messages.
        graph: undirected, without self-loops. Isolated nodes are welcome.
        features: (n, d), floating point and finite; dense or sparse.
        labels: (n,) int64, classes 0 to c − 1.
        split: the published split, if there is one.

    Raises:
        DomainError: parts that do not belong together.
    """

    name: str
    graph: Graph
    features: Features
    labels: Tensor
    split: Split | None = None

    def __post_init__(self) -> None:
        n = self.graph.nodes
        values = self.features.values if isinstance(self.features, SparseOperator) else self.features
        if len(self.features.shape) != 2 or self.features.shape[0] != n:
            raise DomainError(f"the features of {self.name} have shape {tuple(self.features.shape)}, not ({n}, d): a row a node")
        if not values.is_floating_point() or not bool(torch.isfinite(values).all()):
            raise DomainError(f"the features of {self.name} must be finite floating point numbers ({values.dtype} given)")
        if self.labels.shape != (n,) or self.labels.dtype != torch.int64:
            raise DomainError(
                f"the labels of {self.name} must be int64 of shape ({n},), one for each node, "
                f"not {self.labels.dtype} {tuple(self.labels.shape)}"
            )
        if int(self.labels.min()) < 0:
            raise DomainError(f"the labels of {self.name} must be classes from 0 on, not {int(self.labels.min())}")
        if self.split is not None:
            self.split.check(self.labels)

    @property
    def nodes(self) -> int:
        """n."""
        return self.graph.nodes

    @property
    def classes(self) -> int:
        """The number of classes c."""
        return int(self.labels.max()) + 1

    @property
    def isolated(self) -> int:
        """How many nodes have no neighbour; they keep what they are, whatever flows elsewhere."""
        return self.nodes - len(torch.unique(self.graph.edge_index))

    def fingerprint(self) -> str:
        """A digest of the content, by which a run knows its data again."""
        features = self.features
        parts = [features] if isinstance(features, Tensor) else [features.values, features.pattern.row, features.pattern.col]
        parts += [self.graph.edge_index, self.graph.edge_weight, self.labels]
        parts += [] if self.split is None else [self.split.train, self.split.validation, self.split.test]
        digest = sha256()
        for part in parts:
            digest.update(f"{part.dtype} {tuple(part.shape)}".encode())
            digest.update(part.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def largest_component(self) -> NodeData:
        """The largest connected component with its features and labels; it has no published split."""
        source, target = self.graph.edge_index.numpy()
        edges = sp.coo_matrix((np.ones(len(source)), (source, target)), (self.nodes, self.nodes))
        _, part = connected_components(edges, directed=False)
        keep = np.flatnonzero(part == np.bincount(part).argmax())
        place = np.full(self.nodes, -1)
        place[keep] = np.arange(len(keep))
        inside = place[source] >= 0
        index = torch.from_numpy(np.stack([place[source[inside]], place[target[inside]]]))
        nodes = torch.from_numpy(keep)
        return NodeData(self.name, Graph(index, len(keep)), rows_of(self.features, nodes), self.labels[nodes])

    def __repr__(self) -> str:
        edges = self.graph.edge_index.shape[1] // 2
        return f"{self.name}: {self.nodes:,} nodes, {edges:,} edges, {self.features.shape[1]:,} features, {self.classes} classes"


def rows_of(features: Features, nodes: Tensor) -> Features:
    """Some rows of the features."""
    if isinstance(features, Tensor):
        return features[nodes]
    place = torch.full((features.shape[0],), -1, dtype=torch.int64)
    place[nodes] = torch.arange(len(nodes))
    rows = place[features.pattern.row]
    kept = rows >= 0
    return SparseOperator.from_entries(
        rows[kept], features.pattern.col[kept], features.values[kept], (len(nodes), features.shape[1])
    )


def row_normalised(features: Features) -> Features:
    """Rows that sum to one; a row of zeros stays."""
    if isinstance(features, Tensor):
        return features / features.sum(1, keepdim=True).clamp(min=1e-12)
    total = features.row_sums().clamp(min=1e-12)
    return SparseOperator(features.pattern, features.values / total[features.pattern.row])
