"""Which points of the Poincaré ball are neighbours, exactly, by Euclidean searches: hyperbolic balls are Euclidean balls.

With δ(u, v) = |u − v|² / ((1 − |u|²)(1 − |v|²)), of which the distance arccosh(1 + 2δ) is an increasing function,

    δ(u, v) ≤ δ   ⟺   |v − u / (1 + δ s)| ≤ s √(δ (1 + δ)) / (1 + δ s),   s = 1 − |u|².
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy.spatial import cKDTree

from operators.checks import DomainError, is_integer
from operators.mesh_repair import first_of_equal_rows
from operators.neighbours import MOST_EDGES, Floats, Ints, both_ways, nearest_neighbours, positive

# Numbers held at once while candidates are looked at.
_BLOCK = 8_000_000
# Searches that tighten the bound of the k-th distance before all points within it are fetched.
_ROUNDS = 4
# Dimensions up to which a tree finds the nearest sooner than comparing all pairs does.
_TREE = 5
# Above the δ of any two different points that float64 keeps inside the ball.
_FARTHEST = 1e40


def hyperbolic_nearest(points: Floats, k: int) -> Ints:
    """Pairs (2, E), both ways, of every point of the unit ball with its k hyperbolically nearest others.

    Of equally near ones, any. Raises DomainError as `nearest_neighbours` does.
    """
    n = len(points)
    if not is_integer(k) or not 1 <= k < n:
        raise DomainError(f"k must be an integer from 1 to {n - 1} (one less than the {n} points), not {k!r}")
    if n * k > MOST_EDGES:
        raise DomainError(f"{k} neighbours of {n} points are {n * k} edges, over the limit of {MOST_EDGES}: take a smaller k")
    pairs = []
    rank, count = _copies(points)
    # More than k copies of one place are each other's neighbours, whatever the distance; a few of them serve all others.
    crowded = np.flatnonzero(count > k)
    if len(crowded):
        pairs.append(crowded[nearest_neighbours(points[crowded], k)])
    kept = np.flatnonzero(rank <= k)
    ball, asking = _Ball(points[kept]), np.flatnonzero(count[kept] <= k)
    if points.shape[1] <= _TREE:
        chunks = _chunks(np.full(len(asking), (k + 1) * points.shape[1]))
        found = [block for chunk in chunks for block in ball.within(asking[chunk], ball.reach(asking[chunk], k), k)]
    else:
        found = [ball.nearest(asking[chunk], k) for chunk in _chunks(np.full(len(asking), len(kept)))]
    return both_ways(np.concatenate([*pairs, *(kept[block] for block in found)], axis=1), n)


def hyperbolic_within(points: Floats, radius: float, most_edges: int = MOST_EDGES) -> Ints:
    """Pairs (2, E), both ways, of different points of the unit ball at most `radius` apart; counted before any is stored."""
    positive(radius, "radius")
    ball, everyone = _Ball(points), np.arange(len(points))
    delta = min(math.sinh(min(radius, 200.0) / 2) ** 2, _FARTHEST)
    found, count = [np.zeros((2, 0), dtype=np.int64)], 0
    if points.shape[1] <= _TREE:
        reach = np.full(len(points), delta)
        _check_count(int(ball.counts(everyone, reach).sum()) - len(points), radius, most_edges)
        found += ball.within(everyone, reach)
    else:
        for chunk in _chunks(np.full(len(points), len(points))):
            found.append(ball.closer(chunk, delta))
            count += found[-1].shape[1]
            _check_count(count, radius, most_edges)
    return both_ways(np.concatenate(found, axis=1), len(points))


def _check_count(count: int, radius: float, most_edges: int) -> None:
    if count > most_edges:
        raise DomainError(
            f"a radius of {radius} joins at least {count} pairs, over the limit of {most_edges}: make it smaller, or raise "
            "most_edges"
        )


class _Ball:
    """Points of the ball, in a Euclidean tree."""

    def __init__(self, points: Floats) -> None:
        self.points, self.tree = points, cKDTree(points)
        size = np.linalg.norm(points, axis=1)
        self.room = (1 - size) * (1 + size)

    def delta(self, i: Ints, j: Ints) -> Floats:
        """δ(u_i, u_j)."""
        square = ((self.points[i] - self.points[j]) ** 2).sum(axis=-1)
        ratio: Floats = square / (self.room[i] * self.room[j])
        return ratio

    def centre(self, i: Ints, delta: Floats) -> Floats:
        """The Euclidean centre of the hyperbolic ball around u_i."""
        centre: Floats = self.points[i] / (1 + delta * self.room[i])[:, None]
        return centre

    def radius(self, i: Ints, delta: Floats) -> Floats:
        """Its Euclidean radius, and a little more: what rounding may have moved."""
        grown = delta * self.room[i]
        square = self.room[i] * grown * (1 + delta) / (1 + grown) ** 2
        slack: Floats = np.sqrt(square + 4e-15 * grown / (1 + grown)) * (1 + 1e-12) + 1e-15
        return slack

    def reach(self, i: Ints, k: int) -> Floats:
        """An upper bound of the δ from u_i to its k-th nearest other; where the ball is populated evenly, nearly that δ."""
        bound, centre = np.full(len(i), np.inf), self.points[i]
        for _ in range(_ROUNDS):
            # Of the hyperbolic ball within the bound, the k points nearest to its centre lie within it too: the bound shrinks.
            found = np.asarray(self.tree.query(centre, k=k + 1)[1])
            delta = self.delta(i[:, None], found)
            delta[found == i[:, None]] = np.inf
            bound = np.minimum(bound, np.partition(delta, k - 1, axis=1)[:, k - 1])
            centre = self.centre(i, bound)
        return bound

    def counts(self, i: Ints, delta: Floats) -> Ints:
        """How many points lie within δ of each u_i, itself among them."""
        found: Ints = self.tree.query_ball_point(self.centre(i, delta), self.radius(i, delta), return_length=True)
        return found

    def within(self, i: Ints, delta: Floats, most: int | None = None) -> Iterator[Ints]:
        """Blocks of pairs (2, E) of the points within δ of each u_i with it; of each at most so many, the nearest."""
        for part in _chunks(self.counts(i, delta) * (2 + self.points.shape[1])):
            found = self.tree.query_ball_point(self.centre(i[part], delta[part]), self.radius(i[part], delta[part]))
            target = np.repeat(i[part], [len(others) for others in found])
            limit = np.repeat(delta[part], [len(others) for others in found])
            source = np.concatenate([np.asarray(others, dtype=np.int64) for others in found])
            far = self.delta(source, target)
            keep = (source != target) & (far <= limit)
            pairs, far = np.stack([source[keep], target[keep]]), far[keep]
            yield pairs if most is None else _nearest(pairs, far, most)

    def nearest(self, i: Ints, k: int) -> Ints:
        """Pairs (2, E) of the k nearest others of each u_i with it, by comparing with all: in many dimensions the quicker way."""
        apart, error = self._apart(i)
        bound = np.partition((apart + error) / self.room, k - 1, axis=1)[:, k - 1]
        row, source = np.nonzero((apart - error) / self.room <= bound[:, None])
        return _nearest(np.stack([source, i[row]]), self._exactly(source, i[row]), k)

    def closer(self, i: Ints, delta: float) -> Ints:
        """Pairs (2, E) of the points within δ of each u_i with it, in the same way."""
        apart, error = self._apart(i)
        row, source = np.nonzero(apart - error <= delta * self.room[i, None] * self.room * (1 + 1e-9))
        pairs: Ints = np.stack([source, i[row]])[:, self._exactly(source, i[row]) <= delta]
        return pairs

    def _apart(self, i: Ints) -> tuple[Floats, float]:
        """|u_i − v|² to all others, infinite to itself, and how wrong it may be."""
        # By |u|² + |v|² − 2 u·v, which rounding spoils where u and v are near: what may count is then looked at exactly.
        square = (self.points**2).sum(axis=1)
        apart: Floats = square[i, None] + square - 2 * self.points[i] @ self.points.T
        apart[np.arange(len(i)), i] = np.inf
        return apart, 1e-15 * (8 + self.points.shape[1])

    def _exactly(self, source: Ints, target: Ints) -> Floats:
        """δ of many pairs, whose coordinates are gathered a part at a time: next to the rim all may count."""
        parts = _chunks(np.full(len(source), self.points.shape[1]))
        return np.concatenate([np.zeros(0), *(self.delta(source[part], target[part]) for part in parts)])


def _nearest(pairs: Ints, far: Floats, most: int) -> Ints:
    """Of the pairs with each target so many, the nearest."""
    order = np.lexsort((far, pairs[1]))
    pairs = pairs[:, order]
    _, start, count = np.unique(pairs[1], return_index=True, return_counts=True)
    found: Ints = pairs[:, np.arange(pairs.shape[1]) - np.repeat(start, count) < most]
    return found


def _chunks(sizes: Ints) -> list[Ints]:
    """Runs of indices whose sizes add up to about a block."""
    edges = np.flatnonzero(np.diff(np.cumsum(sizes) // _BLOCK)) + 1
    return np.split(np.arange(len(sizes)), edges) if len(sizes) else []


def _copies(points: Floats) -> tuple[Ints, Ints]:
    """The rank of each point among the copies of its place, and how many copies there are."""
    first = first_of_equal_rows(points)
    order = np.argsort(first, kind="stable")
    _, start, place, count = np.unique(first[order], return_index=True, return_inverse=True, return_counts=True)
    rank, copies = np.empty(len(points), dtype=np.int64), np.empty(len(points), dtype=np.int64)
    rank[order] = np.arange(len(points)) - start[place.reshape(-1)]
    copies[order] = count[place.reshape(-1)]
    return rank, copies
