"""Directional derivatives along the edges of a graph, from values at scattered points: what PA-DGN's operators are tested on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from neuralpde.files import RunFolderError
from neuralpde.training import generator
from operators import Graph, PointCloud

SIDE, HALF_WIDTH = 50, 5.0
NEIGHBOURS = 4
TRAINED, VALIDATED = 0.7, 0.1


class PlaneFunction(ABC):
    """A function of the plane whose gradient is known."""

    name: ClassVar[str]

    @abstractmethod
    def value(self, points: Tensor) -> Tensor:
        """f at (..., 2); (...)."""

    @abstractmethod
    def gradient(self, points: Tensor) -> Tensor:
        """∇f at (..., 2); (..., 2)."""


class Bowl(PlaneFunction):
    """f₁(x, y) = 0.1 x² + 0.5 y²."""

    name = "f1"

    def value(self, points: Tensor) -> Tensor:
        return 0.1 * points[..., 0] ** 2 + 0.5 * points[..., 1] ** 2

    def gradient(self, points: Tensor) -> Tensor:
        return points * points.new_tensor([0.2, 1.0])


class Ripples(PlaneFunction):
    """f₂(x, y) = sin x + cos y."""

    name = "f2"

    def value(self, points: Tensor) -> Tensor:
        return torch.sin(points[..., 0]) + torch.cos(points[..., 1])

    def gradient(self, points: Tensor) -> Tensor:
        return torch.stack([torch.cos(points[..., 0]), -torch.sin(points[..., 1])], dim=-1)


FUNCTIONS: tuple[PlaneFunction, ...] = (Bowl(), Ripples())
"""Those of the paper's Table 1."""


@dataclass(frozen=True, eq=False)
class DirectionalTask:
    """Values of a function at points joined with their nearest neighbours; what is asked is its slope along each edge.

    The slope along the edge from the sender i to the receiver j is ∇f(x_i)·(x_j − x_i)/|x_j − x_i|.

    Args:
        cloud: n points in the plane, float64.
        graph: edges from sender to receiver, both ways.
        values: f, (n,).
        slopes: of the edges, (E,).
    """

    cloud: PointCloud
    graph: Graph
    values: Tensor
    slopes: Tensor

    @cached_property
    def offsets(self) -> Tensor:
        """x_j − x_i, (E, 2)."""
        sender, receiver = self.graph.edge_index
        return self.cloud.points[receiver] - self.cloud.points[sender]

    @cached_property
    def lengths(self) -> Tensor:
        """|x_j − x_i|, (E,)."""
        lengths: Tensor = torch.linalg.vector_norm(self.offsets, dim=1)
        return lengths

    @cached_property
    def directions(self) -> Tensor:
        """Unit vectors (E, 2)."""
        return self.offsets / self.lengths[:, None]

    def along(self, gradient: Tensor) -> Tensor:
        """The slopes (E,) that a gradient (n, 2) at the nodes gives, in that gradient's precision."""
        slopes: Tensor = (gradient[self.graph.edge_index[0]] * self.directions.to(gradient)).sum(1)
        return slopes


def grid_points() -> Tensor:
    """The 50 × 50 points of [−5, 5]², (2500, 2), that nodes are drawn from."""
    axis = torch.linspace(-HALF_WIDTH, HALF_WIDTH, SIDE, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis)


def drawn_points(nodes: int, seed: int, of: Tensor | None = None) -> Tensor:
    """So many of the points, of the grid if absent, without replacement; (nodes, 2)."""
    points = grid_points() if of is None else of
    if not 2 * NEIGHBOURS <= nodes <= len(points):
        raise RunFolderError(f"{nodes} nodes cannot be drawn: give from {2 * NEIGHBOURS} to {len(points)}")
    return points[torch.randperm(len(points), generator=generator(seed, nodes))[:nodes]]


def directional_task(function: PlaneFunction, points: Tensor) -> DirectionalTask:
    """The function at the points (n, 2), each joined with its four nearest, both ways."""
    cloud = PointCloud(points.double())
    graph = cloud.knn_graph(NEIGHBOURS)
    sender, receiver = graph.edge_index
    offsets = cloud.points[receiver] - cloud.points[sender]
    directions = offsets / torch.linalg.vector_norm(offsets, dim=1, keepdim=True)
    slopes = (function.gradient(cloud.points)[sender] * directions).sum(1)
    return DirectionalTask(cloud, graph, function.value(cloud.points), slopes)


@dataclass(frozen=True, eq=False)
class Split:
    """Which edges are learned from, chosen on, and scored; three index tensors."""

    train: Tensor
    validation: Tensor
    test: Tensor


def published_split(task: DirectionalTask, seed: int) -> Split:
    """70, 10 and 20 % of the directed edges at random: the reverse of a test edge is usually trained on."""
    count = task.graph.edge_index.shape[1]
    return _cut(torch.randperm(count, generator=generator(seed, count, 1)), torch.arange(count))


def leak_free_split(task: DirectionalTask, seed: int) -> Split:
    """The same shares of the undirected edges: both directions of an edge are on one side.

    Free of the leak through reverse edges, not of every leak: other edges of a test edge's sender are usually trained on, and of
    nodes on a grid some lie on one line, whose slopes are then equal but for the sign. Only other placements are free of that.
    """
    sender, receiver = task.graph.edge_index
    key = torch.minimum(sender, receiver) * task.graph.nodes + torch.maximum(sender, receiver)
    pairs, pair = torch.unique(key, return_inverse=True)
    return _cut(torch.randperm(len(pairs), generator=generator(seed, len(pairs), 2)), pair)


def _cut(order: Tensor, group: Tensor) -> Split:
    """Groups in this order, cut into three; `group` (E,) says which one each edge belongs to."""
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    # Rounded, since 0.7 + 0.1 falls just short of 0.8.
    first, second = round(TRAINED * len(order)), round((TRAINED + VALIDATED) * len(order))
    at = place[group]
    return Split((at < first).nonzero()[:, 0], ((at >= first) & (at < second)).nonzero()[:, 0], (at >= second).nonzero()[:, 0])
