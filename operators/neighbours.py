"""Which scattered points are neighbours: the nearest k, those within a radius, those that share a Delaunay cell."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import Delaunay, QhullError, cKDTree
from torch import Tensor

from operators.checks import DomainError, is_integer
from operators.mesh_repair import FLATNESS, first_of_equal_rows, flat_faces

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_EDGES = 50_000_000
# Cells that meet at a point of a random cloud in 1, 2, … dimensions, over its corners: the size of a Delaunay complex.
_CELLS_PER_POINT = (1, 2, 7, 32, 190, 1300, 10_000, 80_000)


@dataclass(frozen=True)
class Gaussian:
    """The edge weight w(r) = exp(−r²/2σ²)."""

    width: float

    def __post_init__(self) -> None:
        positive(self.width, "width")

    def __call__(self, distance: Tensor) -> Tensor:
        return torch.exp(-((distance / self.width) ** 2) / 2)


@dataclass(frozen=True)
class InverseDistance:
    """The edge weight w(r) = r⁻ᵖ."""

    power: float = 1.0

    def __post_init__(self) -> None:
        positive(self.power, "power")

    def __call__(self, distance: Tensor) -> Tensor:
        if bool((distance == 0).any()):
            raise DomainError("coincident points have no inverse distance: remove the copies, or take Gaussian weights")
        return distance**-self.power


def nearest_neighbours(points: Floats, k: int) -> Ints:
    """Pairs (2, E), both ways, of every point with its k nearest others (among equally near ones, any)."""
    n = len(points)
    if not is_integer(k) or not 1 <= k < n:
        raise DomainError(f"k must be an integer from 1 to {n - 1} (one less than the {n} points), not {k!r}")
    if n * k > MOST_EDGES:
        raise DomainError(f"{k} neighbours of {n} points are {n * k} edges, over the limit of {MOST_EDGES}: take a smaller k")
    # A tree of more than k + 1 copies of one place would be searched copy by copy. Those have neighbours enough: the next copies.
    order, rank, count = _copies(points)
    crowded = count > k
    pairs = []
    if crowded.any():
        inside = order[crowded[order]]
        start = np.arange(len(inside)) - rank[inside]
        for step in range(1, k + 1):
            pairs.append(np.stack([inside[start + (rank[inside] + step) % count[inside]], inside]))
    rest = np.flatnonzero(~crowded)
    if len(rest):
        kept = np.flatnonzero(rank <= k)
        _, found = cKDTree(points[kept]).query(points[rest], k=k + 1)
        source, target = kept[found.reshape(-1)], np.repeat(rest, k + 1)
        # With coincident points the tree may return the point itself anywhere, or not at all.
        keep = source != target
        extra = keep.reshape(-1, k + 1).all(axis=1)
        keep.reshape(-1, k + 1)[extra, -1] = False
        pairs.append(np.stack([source[keep], target[keep]]))
    return both_ways(np.concatenate(pairs, axis=1), n)


def within_radius(points: Floats, radius: float, most_edges: int = MOST_EDGES) -> Ints:
    """Pairs (2, E), both ways, of different points at most `radius` apart; counted before any is stored."""
    positive(radius, "radius")
    tree = cKDTree(points)
    count = int(tree.count_neighbors(tree, radius)) - len(points)
    if count > most_edges:
        raise DomainError(
            f"a radius of {radius} joins {count / len(points):.0f} neighbours to every point, {count} edges in all, over "
            f"the limit of {most_edges}: make it smaller, or raise most_edges"
        )
    pairs: Ints = tree.query_pairs(radius, output_type="ndarray").astype(np.int64).reshape(-1, 2).T
    return both_ways(pairs, len(points))


def delaunay_neighbours(points: Floats) -> Ints:
    """Pairs (2, E), both ways, of points that share a Delaunay cell; every copy of a point is joined to the first.

    Points on a line, in a plane or another flat of fewer dimensions are triangulated within it.
    """
    first = first_of_equal_rows(points)
    places = np.unique(first)
    copies = np.flatnonzero(first != np.arange(len(points)))
    pairs = [np.stack([first[copies], copies])]
    flat = flattened(points[places])
    if flat.shape[1] == 1:
        line = places[np.argsort(flat[:, 0])]
        pairs.append(np.stack([line[:-1], line[1:]]))
    elif flat.shape[1] > 1:
        cells, missed = delaunay_cells(flat)
        corners = itertools.combinations(range(cells.shape[1]), 2)
        pairs += [places[both_ways(cells[:, list(pair)].T, len(places))] for pair in corners]
        pairs.append(places[missed.T])
    return both_ways(np.concatenate(pairs, axis=1), len(points))


def delaunay_triangles(points: Floats) -> Ints:
    """Delaunay triangles (m, 3) of points in a plane, all of them corners; counter-clockwise, in space all alike.

    Raises:
        DomainError: points that coincide, lie on a line or in no plane.
    """
    coincident = int((first_of_equal_rows(points) != np.arange(len(points))).sum())
    if coincident:
        raise DomainError(f"{coincident} points coincide with an earlier one: remove them with torch.unique(points, dim=0)")
    rank = affine_rank(points)
    if rank != 2:
        where = "lie on a line" if rank < 2 else "do not lie in a plane"
        raise DomainError(f"{len(points)} points in {points.shape[1]} dimensions {where}: there are no triangles between them")
    flat = flattened(points)
    cells, missed = delaunay_cells(flat)
    a, b, c = (flat[cells[:, k]] for k in range(3))
    clockwise = (b - a)[:, 0] * (c - a)[:, 1] < (b - a)[:, 1] * (c - a)[:, 0]
    cells[clockwise] = cells[clockwise, ::-1]
    # Nearly collinear points on the hull give needles without area.
    cells = cells[~flat_faces(np.column_stack([flat, np.zeros(len(flat))]), cells)]
    if len(missed) or len(np.unique(cells)) < len(points):
        raise DomainError("some points lie so close to others that no triangle has them as a corner: remove near copies")
    return cells


def delaunay_cells(points: Floats) -> tuple[Ints, Ints]:
    """Delaunay cells (m, d + 1) of distinct points, and (missed point, nearest corner) pairs that rounding left out."""
    n, d = points.shape
    expected = n * _CELLS_PER_POINT[d - 1] * d * (d + 1) if d <= len(_CELLS_PER_POINT) else math.inf
    if expected > 10 * MOST_EDGES:
        raise DomainError(
            f"the Delaunay cells of {n} points in {d} dimensions are too many to store: join them with .knn_graph(k) instead"
        )
    try:
        found = Delaunay(points)
    except QhullError as error:
        raise DomainError(f"Qhull finds no Delaunay cells: {str(error).splitlines()[0]}; join with .knn_graph(k)") from None
    return found.simplices.astype(np.int64), found.coplanar[:, [0, 2]].astype(np.int64).reshape(-1, 2)


def affine_rank(points: Floats) -> int:
    """The dimension of the flat through the points: 0 for one place, 1 on a line, 2 in a plane."""
    rank: int = flattened(points).shape[1]
    return rank


def flattened(points: Floats) -> Floats:
    """The points around their centroid, in units of their size, in orthonormal axes of their flat, (n, rank)."""
    centred = points - points.mean(axis=0)
    size = float(np.abs(centred).max())
    # What the coordinates of a point far from the origin have been rounded by is no dimension.
    rounding = 16 * np.finfo(np.float64).eps * float(np.abs(points).max())
    if size <= rounding:
        return np.zeros((len(points), 0))
    _, _, basis = np.linalg.svd(centred / size, full_matrices=False)
    turned = centred @ basis.T / size
    reach = np.abs(turned).max(axis=0)
    kept = reach > max(FLATNESS, rounding / size)
    # In their own axes where those suffice: a singular basis may be a reflection, which turns triangles over.
    return centred / size if kept.sum() == points.shape[1] else np.ascontiguousarray(turned[:, kept])


def nearest_distances(points: Floats) -> Floats:
    """From every one of distinct points to the nearest other, (n,); empty for a single point."""
    if len(points) < 2:
        return np.zeros(0)
    distance, _ = cKDTree(points).query(points, k=[2])
    return np.asarray(distance).reshape(-1)


def both_ways(pairs: Ints, n: int) -> Ints:
    """Every pair once in each direction, sorted, (2, E)."""
    keys = np.unique(np.concatenate([pairs[0] * n + pairs[1], pairs[1] * n + pairs[0]]))
    return np.stack([keys // n, keys % n])


def positive(value: float, name: str) -> None:
    """Raise unless the value is a positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not (0 < value < math.inf):
        raise DomainError(f"{name} must be a positive, finite number, not {value!r}")


def _copies(points: Floats) -> tuple[Ints, Ints, Ints]:
    """Points ordered place by place, the rank of each among the copies of its place, and how many copies there are."""
    first = first_of_equal_rows(points)
    order = np.argsort(first, kind="stable")
    _, start, inverse, count = np.unique(first[order], return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(points), dtype=np.int64)
    rank[order] = np.arange(len(points)) - start[inverse.reshape(-1)]
    copies = np.empty(len(points), dtype=np.int64)
    copies[order] = count[inverse.reshape(-1)]
    return order, rank, copies
