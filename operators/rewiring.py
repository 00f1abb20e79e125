"""Rewiring: the edges along which a flow mixes, made from positions or from another graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from operators.checks import DomainError, as_points, is_integer
from operators.domains import Graph
from operators.hyperbolic_neighbours import hyperbolic_nearest, hyperbolic_within
from operators.neighbours import MOST_EDGES, Ints, both_ways, nearest_neighbours, positive, within_radius
from operators.page_rank import page_rank, sparse_page_rank
from operators.position_space import Euclidean, PoincareBall, PositionSpace, check_space

EUCLIDEAN = Euclidean()
Weight = Callable[[Tensor], Tensor]
# Coordinates of pairs held at once in a space that only tells distances, and paths of two edges.
_BLOCK = 4_000_000


class Rewiring(ABC):
    """u ↦ E(u): the undirected graph of some positions (n, d), without self-loops.

    A new rewiring writes `pairs`, and has a `space` and a `weight`. Positions live on any device and in float32 or float64; pairs
    are sought in float64. The choice of edges is discrete and has no gradient; weights have that of the distances.
    """

    space: PositionSpace
    weight: Weight | None

    @abstractmethod
    def pairs(self, points: Tensor) -> Ints:
        """Pairs (2, E), both ways, of valid points (n, d), float64, on the CPU."""

    def __call__(self, positions: Tensor) -> Graph:
        """The graph of positions (n, d).

        Raises:
            DomainError: positions of a batch, which have no common graph; not finite, or outside the space.
        """
        if isinstance(positions, Tensor) and positions.ndim > 2:
            raise DomainError(
                f"positions of shape {tuple(positions.shape)} are those of a batch, whose members have no common graph: rewire "
                "each on its own, or join them as one domain"
            )
        points = as_points(positions, "positions")
        exact = points.double()
        self.space.check(exact)
        index = torch.from_numpy(self.pairs(exact.detach().cpu())).to(points.device)
        if self.weight is None:
            return Graph(index, len(points), points.new_ones(index.shape[1]))
        distance = self.space.distance(exact[index[0]], exact[index[1]])
        return Graph(index, len(points), self.weight(distance).to(points.dtype))


@dataclass(frozen=True)
class NearestNeighbours(Rewiring):
    """E(u) joins every point to its k nearest others, d(u_i, u_j) among the k smallest (among equally near ones, any).

    BLEND-kNN and DGCNN (Chamberlain et al. 2021, § 3.1 and Table 1). By a k-d tree on Euclidean positions, and through balls that
    are Euclidean too on the Poincaré ball; in another space by comparing all pairs, block by block.

    Args:
        k: from 1 to n − 1. Good values: 8 to 64.
        space: where the positions live.
        weight: of the distances (E,), such as `Gaussian(width)`; ones if absent.
    """

    k: int
    space: PositionSpace = EUCLIDEAN
    weight: Weight | None = None

    def __post_init__(self) -> None:
        if not is_integer(self.k) or self.k < 1:
            raise DomainError(f"k must be a positive integer, not {self.k!r}")
        check_space(self.space)

    def pairs(self, points: Tensor) -> Ints:
        n, k = len(points), int(self.k)
        if k >= n:
            raise DomainError(f"{k} nearest others of {n} points do not exist: take k from 1 to {n - 1}, or more points")
        if isinstance(self.space, Euclidean):
            return nearest_neighbours(points.numpy(), k)
        if isinstance(self.space, PoincareBall):
            return hyperbolic_nearest(points.numpy(), k)
        found = [np.zeros((2, 0), dtype=np.int64)]
        for first, distance in _distances(points, self.space):
            source = distance.topk(k, largest=False).indices.numpy()
            target = np.arange(first, first + len(source)).repeat(k)
            found.append(np.stack([source.reshape(-1), target]))
        return both_ways(np.concatenate(found, axis=1), n)


@dataclass(frozen=True)
class Radius(Rewiring):
    """E(u) = {(i, j): d(u_i, u_j) ≤ r, i ≠ j} (Chamberlain et al. 2021, § 3.1). A point on its own stays isolated.

    Args:
        radius: r > 0, in the units of the positions.
        space, weight: as in `NearestNeighbours`.
        most_edges: beyond, it is refused before it is stored.
    """

    radius: float
    space: PositionSpace = EUCLIDEAN
    weight: Weight | None = None
    most_edges: int = MOST_EDGES

    def __post_init__(self) -> None:
        positive(self.radius, "radius")
        check_space(self.space)

    def pairs(self, points: Tensor) -> Ints:
        if isinstance(self.space, Euclidean):
            return within_radius(points.numpy(), self.radius, self.most_edges)
        if isinstance(self.space, PoincareBall):
            return hyperbolic_within(points.numpy(), self.radius, self.most_edges)
        found, count = [np.zeros((2, 0), dtype=np.int64)], 0
        for first, distance in _distances(points, self.space):
            near = (distance <= self.radius).nonzero().numpy().T
            count += near.shape[1]
            if count > self.most_edges:
                raise DomainError(
                    f"a radius of {self.radius} joins over {self.most_edges} pairs: make it smaller, or raise most_edges"
                )
            found.append(near + np.array([[first], [0]]))
        return both_ways(np.concatenate(found, axis=1), len(points))


def _distances(points: Tensor, space: PositionSpace) -> Iterator[tuple[int, Tensor]]:
    """(first row, rows of the distances), with infinity from every point to itself."""
    n, d = points.shape
    rows = max(1, _BLOCK // (n * d))
    for first in range(0, n, rows):
        block = points[first : first + rows]
        distance = space.distance(block[:, None, :], points[None])
        if not bool(torch.isfinite(distance).all()):
            raise DomainError(
                f"{type(space).__name__}.distance is not finite between some of the positions: check them against it"
            )
        own = torch.arange(len(block))
        yield first, distance.detach().index_put((own, first + own), distance.new_tensor(torch.inf))


@dataclass(frozen=True)
class PageRankTopK:
    """E' joins every node to the k others of largest personalised PageRank s_ij (GDC; DIGL).

    Pages are reached along edges alone: a node of a small component gets fewer. Ties are broken in any way.

    Args:
        k: from 1 to n − 1. Good values: 32 to 128.
        restart: α in [1e-6, 1], the probability of going home. Good values: 0.05 to 0.15.
        weighted: whether edges carry s_ij, as GDC's do; else ones.
        tolerance: ε of `sparse_page_rank`, which scales past n × n; None for the exact matrix. Pages with s_ij < ε √d_j may be
            overlooked, hubs first: choose ε well below 1/√d of the greatest degree. These ranks have no gradient.

    Raises:
        DomainError: k ≥ n, a directed graph, or one too large for n × n without a tolerance.

    Source: J. Gasteiger, S. Weißenberger, S. Günnemann, Diffusion improves graph learning, NeurIPS 2019, § 3.
    """

    k: int
    restart: float = 0.05
    weighted: bool = False
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if not is_integer(self.k) or self.k < 1:
            raise DomainError(f"k must be a positive integer, not {self.k!r}")

    def __call__(self, graph: Graph) -> Graph:
        """The rewired graph, on the same nodes."""
        n, k = graph.nodes, int(self.k)
        if k >= n:
            raise DomainError(f"{k} others of {n} nodes do not exist: take k from 1 to {n - 1}")
        if self.tolerance is not None:
            # The node itself may be among its largest.
            ranks = sparse_page_rank(graph, self.restart, self.tolerance, keep=k + 1, progress=False).to_scipy()
            coo = sp.coo_array(ranks)
            row, col = (np.asarray(index, dtype=np.int64) for index in coo.coords)
            order = np.lexsort((-coo.data, row == col, row))
            row, col = row[order], col[order]
            _, start, count = np.unique(row, return_index=True, return_counts=True)
            keep = (np.arange(len(row)) - np.repeat(start, count) < k) & (row != col)
            return _joined(np.stack([row[keep], col[keep]]), graph, ranks if self.weighted else None)
        exact, reached = _exact(graph, self.restart)
        found = torch.where(reached, exact.detach(), -1.0).topk(k)
        row = np.arange(n).repeat(k)
        keep = (found.values >= 0).cpu().numpy().reshape(-1)
        pairs = np.stack([row, found.indices.cpu().numpy().reshape(-1)])[:, keep]
        return _joined(pairs, graph, exact if self.weighted else None)


@dataclass(frozen=True)
class PageRankThreshold:
    """E' = {(i, j): s_ij ≥ ϑ, i ≠ j}, by personalised PageRank (GDC; DIGL). Nodes may become isolated.

    Args:
        threshold: ϑ > 0. Good values: 1e-3 to 1e-2; s_ij falls as degrees grow.
        restart, weighted: as in `PageRankTopK`.
        tolerance: as there, without a gradient; s is then found too small by at most ε √min(d_i, d_j), so that pairs just above
            ϑ may be missed.
    """

    threshold: float
    restart: float = 0.05
    weighted: bool = False
    tolerance: float | None = None

    def __post_init__(self) -> None:
        positive(self.threshold, "threshold")

    def __call__(self, graph: Graph) -> Graph:
        """The rewired graph, on the same nodes."""
        if self.tolerance is not None:
            ranks = sparse_page_rank(graph, self.restart, self.tolerance, progress=False).to_scipy()
            coo = sp.coo_array(ranks)
            row, col = (np.asarray(index, dtype=np.int64) for index in coo.coords)
            keep = (coo.data >= self.threshold) & (row != col)
            return _joined(np.stack([row, col])[:, keep], graph, ranks if self.weighted else None)
        exact, reached = _exact(graph, self.restart)
        pairs = (reached & (exact.detach() >= self.threshold)).nonzero().cpu().numpy().T
        return _joined(pairs, graph, exact if self.weighted else None)


@dataclass(frozen=True)
class TwoHop:
    """E' joins nodes at one or two edges from each other, (A + A²)_ij > 0 and i ≠ j, with unit weights.

    Edges are taken both ways; those of weight zero are none.

    Args:
        most_edges: beyond, it is refused before it is stored; so are ten times as many paths of two edges, before they are
            walked: one hub joins all its neighbours.
    """

    most_edges: int = MOST_EDGES

    def __call__(self, graph: Graph) -> Graph:
        """The rewired graph, on the same nodes."""
        n = graph.nodes
        index = graph.edge_index[:, graph.edge_weight != 0].cpu().numpy()
        index = both_ways(index[:, index[0] != index[1]], n)
        degree = np.bincount(index[0], minlength=n)
        paths = int((degree**2).sum())
        if paths > 10 * self.most_edges:
            raise DomainError(
                f"this graph has {paths} paths of two edges, over ten times the limit of {self.most_edges} edges: drop its hubs, "
                "take PageRankTopK(k, tolerance=1e-3), or raise most_edges"
            )
        A: Any = sp.csr_array((np.ones(index.shape[1], dtype=np.int32), (index[0], index[1])), shape=(n, n))
        found, count = [np.zeros((2, 0), dtype=np.int64)], 0
        for rows in np.split(np.arange(n), np.flatnonzero(np.diff(np.cumsum(A @ degree) // _BLOCK)) + 1):
            near = A[rows]
            source, target = (near + near @ A).nonzero()
            pairs = np.stack([rows[source], target])[:, rows[source] != target]
            count += pairs.shape[1]
            if count > self.most_edges:
                raise DomainError(
                    f"more than {self.most_edges} pairs are one or two edges apart: take PageRankTopK(k, tolerance=1e-3), or "
                    "raise most_edges"
                )
            found.append(pairs)
        return _joined(np.concatenate(found, axis=1), graph, None)


def _exact(graph: Graph, restart: float) -> tuple[Tensor, Tensor]:
    """S (n, n), and which pairs of different nodes are joined by a path."""
    exact = page_rank(graph, restart)
    index = graph.edge_index[:, graph.edge_weight > 0].cpu().numpy()
    joined = sp.coo_array((np.ones(index.shape[1]), (index[0], index[1])), shape=(graph.nodes, graph.nodes))
    label = torch.from_numpy(connected_components(joined, directed=False)[1]).to(exact.device)
    reached = label[:, None] == label
    return exact, reached.fill_diagonal_(False)


def _joined(pairs: Ints, graph: Graph, ranks: Any) -> Graph:
    """The undirected graph of some pairs; weights are the ranks, of the two ways the larger."""
    index = both_ways(pairs, graph.nodes)
    edges = torch.from_numpy(index).to(graph.device)
    if ranks is None or not edges.numel():  # SciPy would give an empty matrix, not an empty array
        weight = graph.edge_weight.new_ones(edges.shape[1])
    elif isinstance(ranks, Tensor):
        weight = torch.maximum(ranks[edges[0], edges[1]], ranks[edges[1], edges[0]])
    else:
        larger = ranks.maximum(ranks.T).tocsr()
        weight = torch.from_numpy(np.asarray(larger[index[0], index[1]]).reshape(-1)).to(graph.edge_weight)
    return Graph(edges, graph.nodes, weight)
