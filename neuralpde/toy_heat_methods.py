"""What a method of the toy experiment is, and the rows that need no training: trivial, and fitted by least squares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from neuralpde.toy_heat import STEP, TRAINED_STEPS, GridHeat, Predictor, pairs, toy_laplacian
from operators import Graph, Laplacian, Operator, combinatorial_laplacian, symmetric_laplacian

Told = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Schedule:
    """How long networks train.

    Args:
        steps: of Adam, on batches of 64 fields; some methods take a multiple.
        published: the published learning rate 1e-4, and no multiples.
    """

    steps: int
    published: bool = False


@dataclass(frozen=True)
class Learned:
    """A method that has learned: x(t) ↦ x(t + ½), and how many numbers it learned."""

    predict: Predictor
    parameters: int = 0


@dataclass(frozen=True)
class ToyMethod(ABC):
    """A row of the table; `repr` identifies what was trained."""

    name: ClassVar[str]
    random: ClassVar[bool] = False

    @abstractmethod
    def fit(self, items: Sequence[GridHeat], schedule: Schedule, seed: int, checkpoint: Path, told: Told) -> Learned:
        """Learn x(t) ↦ x(t + ½) from the first three steps on the graphs to train on.

        Args:
            checkpoint: a file that training may write atomically and continue from.
            told: called with (step, steps, loss).
        """


@dataclass(frozen=True)
class Persistence(ToyMethod):
    """x(t + ½) = x(t)."""

    name: ClassVar[str] = "persistence"

    def fit(self, items: Sequence[GridHeat], schedule: Schedule, seed: int, checkpoint: Path, told: Told) -> Learned:
        return Learned(lambda item, x: x)


@dataclass(frozen=True)
class ImplicitEuler(ToyMethod):
    """x(t + ½) = (I + ½ L / λ_max)⁻¹ x(t): one step, told the operator and the rate."""

    name: ClassVar[str] = "implicit-euler"

    def fit(self, items: Sequence[GridHeat], schedule: Schedule, seed: int, checkpoint: Path, told: Told) -> Learned:
        return Learned(lambda item, x: toy_laplacian(item.graph).solve(STEP, x))


@dataclass(frozen=True)
class Stencil(ToyMethod):
    """x(t + ½) = a x(t) + b Ã x(t) with Ã = D^-½ W D^-½, a and b by least squares on the training steps."""

    name: ClassVar[str] = "stencil"

    def fit(self, items: Sequence[GridHeat], schedule: Schedule, seed: int, checkpoint: Path, told: Told) -> Learned:
        gram, right = torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
        for item in items:
            x, y = (part.double() for part in pairs(item, range(TRAINED_STEPS)))
            columns = torch.stack([x, adjacency(item.graph).to(torch.float64) @ x]).flatten(1)
            gram, right = gram + columns @ columns.T, right + columns @ y.flatten()
        a, b = torch.linalg.solve(gram, right).tolist()
        return Learned(lambda item, x: a * x + b * (adjacency(item.graph) @ x), parameters=2)


class Dense(Operator):
    """The complement I − L of a Laplacian of norm at most 2 and unit mass, as a dense matrix: the faster product on small graphs.

    Args:
        laplacian: with a recipe, so that it can move to other graphs.
    """

    values: Tensor

    def __init__(self, laplacian: Laplacian) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.shape = laplacian.shape
        self.register_buffer("values", laplacian.complement().matrix(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.view_as_real(x).flatten(-2) if x.is_complex() else x
        # One product for the whole batch, not one for each of its fields.
        product = torch.tensordot(parts, self.values, dims=([-2], [1])).mT
        return torch.view_as_complex(product.contiguous().view(*x.shape, 2)) if x.is_complex() else product

    def adjoint(self) -> Dense:
        """Itself."""
        return self

    def norm_bound(self) -> float:
        """1."""
        return 1.0

    def on(self, domain: Graph) -> Dense:
        """The same on another graph."""
        return _moved(self.laplacian, domain)


@lru_cache(maxsize=64)
def _moved(laplacian: Laplacian, graph: Graph) -> Dense:
    # Twelve layers on one operator move to one operator.
    return Dense(laplacian.on(graph))


def adjacency(graph: Graph) -> Dense:
    """Ã = D^-½ W D^-½, which can move to other graphs."""
    return Dense(symmetric_laplacian(graph))


def self_looped(graph: Graph) -> Laplacian:
    """I − D̂^-½ (W + I) D̂^-½ with D̂ = D + I, whose complement is the operator of a GCN (Kipf and Welling 2017)."""
    laplacian = combinatorial_laplacian(graph)
    root = (laplacian.diagonal() + 1).rsqrt()
    return Laplacian(laplacian.stiffness.scaled(root, root), laplacian.mass, self_looped)
