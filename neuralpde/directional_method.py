"""What a row of the table of directional derivatives is, and the rows that follow from formulas."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from neuralpde.directional import DirectionalTask, Split
from operators import DomainError, PointCloud
from operators.consistent import ConsistentGradient
from operators.consistent_moments import Moments
from operators.mesh_difference import MeshDifference
from operators.neighbours import InverseDistance

Told = Callable[[int, int, str], None]


class Estimator(ABC):
    """A method that has learned."""

    @property
    def parameters(self) -> int:
        """The number of learned numbers."""
        return 0

    @abstractmethod
    def estimate(self, task: DirectionalTask) -> Tensor:
        """The slopes along the edges, (E,), from the points, the graph and the values alone; at any placement."""


@dataclass(frozen=True)
class DirectionalMethod(ABC):
    """A row of the table. It is a value: equal settings are equal methods, and `repr` identifies what was trained."""

    name: ClassVar[str]
    """In the table's rows, for example "sdl"."""

    @abstractmethod
    def fit(self, task: DirectionalTask, split: Split, seed: int, checkpoint: Path, told: Told) -> Estimator:
        """Learn from the slopes of the training edges; settings and the moment to stop may be chosen on the validation edges.

        Args:
            checkpoint: a file that training may write atomically and continue from.
            told: called with (step, steps, note) meanwhile.
        """


@dataclass(frozen=True)
class FiniteGradient(DirectionalMethod):
    """(f_j − f_i) / |x_j − x_i|."""

    name: ClassVar[str] = "fin-grad"

    def fit(self, task: DirectionalTask, split: Split, seed: int, checkpoint: Path, told: Told) -> Estimator:
        return _Scaled(1.0, divided=True)


@dataclass(frozen=True)
class StandardOperator(DirectionalMethod):
    """The plain difference of the graph, f_j − f_i, which knows no length, times one factor fitted to the training edges."""

    name: ClassVar[str] = "standard-op"

    def fit(self, task: DirectionalTask, split: Split, seed: int, checkpoint: Path, told: Told) -> Estimator:
        jumps = _jumps(task)[split.train]
        return _Scaled(float((jumps @ task.slopes[split.train]) / (jumps @ jumps)), divided=False)


class _Scaled(Estimator):
    def __init__(self, factor: float, divided: bool) -> None:
        self.factor, self.divided = factor, divided

    @property
    def parameters(self) -> int:
        return 0 if self.divided else 1

    def estimate(self, task: DirectionalTask) -> Tensor:
        jumps = _jumps(task)
        return self.factor * (jumps / task.lengths if self.divided else jumps)


@dataclass(frozen=True)
class MeshOperator(DirectionalMethod):
    """The mean of the face gradients of the Delaunay triangulation by area, along the edge."""

    name: ClassVar[str] = "mesh-op"

    def fit(self, task: DirectionalTask, split: Split, seed: int, checkpoint: Path, told: Told) -> Estimator:
        return _OfMesh()


class _OfMesh(Estimator):
    def estimate(self, task: DirectionalTask) -> Tensor:
        return task.along(MeshDifference(task.cloud).node_gradient(task.values[:, None])[..., 0])


@dataclass(frozen=True)
class LeastSquares(DirectionalMethod):
    """The gradient of the polynomial that fits the neighbours best, each residual weighted by 1/distance; nothing is learned.

    Args:
        order: of the polynomial.
        hops: neighbours are what so many edges reach, and more where they cannot carry the polynomial; the nearest points, where
            the graph falls into parts that cannot.
    """

    order: int = 2
    hops: int = 2
    name: ClassVar[str] = "least-squares"

    def fit(self, task: DirectionalTask, split: Split, seed: int, checkpoint: Path, told: Told) -> Estimator:
        return _OfPolynomials(self.order, self.hops)


class _OfPolynomials(Estimator):
    def __init__(self, order: int, hops: int) -> None:
        self.order, self.hops = order, hops

    def estimate(self, task: DirectionalTask) -> Tensor:
        # A residual times 1/r is its square times 1/r².
        weight = InverseDistance(2.0)
        try:
            moments = Moments(task.cloud, task.graph, self.order, self.hops, weight)
        except DomainError:
            # A cluster whose nearest neighbours are all its own: no number of hops leads out of it.
            moments = Moments(task.cloud, None, self.order, weight=weight)
        return task.along(node_gradient(ConsistentGradient(moments), task))


def node_gradient(stencil: ConsistentGradient, task: DirectionalTask) -> Tensor:
    """∇f at the nodes, (n, 2)."""
    vectors: Tensor = stencil.vectors(task.values[:, None].to(stencil.dtype))
    return vectors[..., 0]


def nearest_count(cloud: PointCloud, wanted: int) -> int:
    """So many neighbours, or all other points where there are fewer."""
    return min(wanted, cloud.num_nodes - 1)


def _jumps(task: DirectionalTask) -> Tensor:
    sender, receiver = task.graph.edge_index
    return task.values[receiver] - task.values[sender]


def squared_error(estimator: Estimator, task: DirectionalTask, edges: Tensor | None = None) -> float:
    """The mean squared error of the slopes, of these edges or of all."""
    with torch.no_grad():
        error = estimator.estimate(task).double() - task.slopes
    return float((error if edges is None else error[edges]).square().mean())
