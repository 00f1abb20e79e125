"""Hypothesis strategies for point clouds, scattered in the plane, in space or over a surface."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Protocol

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.domains import PointCloud
from operators.neighbours import nearest_distances

__all__ = ["Scatter", "point_clouds", "scatter_of", "surface_samples"]

Floats = NDArray[np.float64]


class Scatter(Enum):
    """What makes a point cloud hard; `scatter_of` tells which of it a cloud has."""

    CLUSTERED = "a third of the points, and three at least, within 1/40 of the extent of one of them"
    TWINS = "two points closer than 1/100 of the median spacing; drawn ones come as close as 1e-5"
    LINE = "an extent across below 1/100 of the one along; drawn ones go down to 1e-5"
    SCALED = "an extent below 1e-3 or above 1e4; drawn ones are scaled by 2^±20"
    OFFSET = "more than 100 extents away from the origin"


S = Scatter


def scatter_of(cloud: PointCloud) -> set[Scatter]:
    """Which kinds of scatter this cloud has."""
    report = cloud.report()
    return _shape_of(cloud.array) | {
        scatter
        for scatter, present in {
            S.SCALED: not 1e-3 <= report.extent <= 1e4,
            S.OFFSET: report.distance_from_origin > 100 * report.extent,
        }.items()
        if present
    }


def _shape_of(points: Floats) -> set[Scatter]:
    if len(points) < 3:
        return set()
    centred = points - points.mean(axis=0)
    extent = float(np.ptp(points, axis=0).max())
    near = (np.abs(points[:, None] - points).max(axis=2) <= extent / 40).sum(axis=1)
    spacing = nearest_distances(points)
    spread = np.linalg.svd(centred, compute_uv=False)
    told = {
        S.CLUSTERED: near.max() >= max(3, len(points) / 3),
        S.TWINS: spacing.min() < np.median(spacing) / 100,
        S.LINE: spread[1:].max(initial=0.0) < spread[0] / 100,
    }
    return {scatter for scatter, present in told.items() if present}


class _Edit(Protocol):
    """A change of points on a lattice of spacing 1; its numbers count points modulo how many there are."""

    def __call__(self, points: Floats) -> Floats: ...


@dataclass(frozen=True)
class Shake:
    """Every point moved by up to `by` along each axis, at random."""

    by: float
    seed: int

    def __call__(self, points: Floats) -> Floats:
        return points + self.by * np.random.default_rng(self.seed).uniform(-1, 1, points.shape)


@dataclass(frozen=True)
class Gather:
    """Every second point drawn to one of them, to 1/64 of its distance."""

    to: int

    def __call__(self, points: Floats) -> Floats:
        centre, gathered = points[self.to % len(points)], points.copy()
        chosen = slice(self.to % 2, None, 2)
        gathered[chosen] = centre + (points[chosen] - centre) / 64
        return gathered


@dataclass(frozen=True)
class Twin:
    """A point set down beside the one before it, at a distance of `gap` lattice spacings."""

    point: int
    gap: float

    def __call__(self, points: Floats) -> Floats:
        moved, which = points.copy(), self.point % len(points)
        moved[which] = points[which - 1]
        moved[which, 0] += self.gap
        return moved


@dataclass(frozen=True)
class Flatten:
    """All axes but the first times a factor: the points come close to one line, evenly spaced if they were a lattice."""

    factor: float

    def __call__(self, points: Floats) -> Floats:
        flat, side = points * self.factor, math.ceil(float(np.ptp(points, axis=0).max())) + 1
        # The rows of a lattice one after another, or many points would come to the same place.
        flat[:, 0] = points @ (1 / side) ** np.arange(points.shape[1])
        return flat


@st.composite
def point_clouds(
    draw: st.DrawFn,
    *,
    always: Collection[Scatter] = (),
    never: Collection[Scatter] = (),
    dimensions: Sequence[int] = (2, 3),
    min_points: int = 1,
    max_points: int = 24,
    dtype: torch.dtype = torch.float64,
) -> PointCloud:
    """Distinct points that fill a part of the plane or of space: even, shaken, clustered, nearly coincident, nearly on a line.

    The first nodes of an integer lattice, where four neighbours lie on one circle, and a list of edits; an edit that would bring
    two points closer than 1e-7 of the extent or break a wish is left out. A failing example shrinks to few lattice points.

    Args:
        always: scatter that every cloud has; it then has six points at least. `never`: scatter that none has. Without wishes
            every kind occurs in at least one of 10 clouds.
        dimensions: the numbers of coordinates to choose from, each two or more.
        dtype: float32 clouds are neither scaled nor offset.

    Raises:
        ValueError: wishes that no cloud fulfils.
    """
    d = draw(st.sampled_from(list(dimensions)), label="dimensions")
    if d < 2:
        raise ValueError(f"points are scattered in two dimensions or more, not {d}: take grids() or fields for one axis")
    wanted, barred = _wishes(always, never, min_points, max_points, dtype)
    n = draw(st.integers(max(min_points, 6 if wanted else 1), max_points), label="points")
    side = math.ceil(n ** (1 / d) - 1e-9)
    lattice = np.stack(np.unravel_index(np.arange(n), (side,) * d), axis=1).astype(np.float64)
    points = _edited(draw, lattice, _as_it_is, wanted, barred, flat=True)
    return _placed(draw, points, wanted, barred, dtype)


@st.composite
def surface_samples(
    draw: st.DrawFn,
    *,
    always: Collection[Scatter] = (),
    never: Collection[Scatter] = (),
    min_points: int = 12,
    max_points: int = 60,
    dtype: torch.dtype = torch.float64,
) -> PointCloud:
    """Distinct points in space on a surface: a tilted plane, a saddle, a sphere or a torus.

    An even spiral over the surface, and a list of edits that move points within it. Such clouds are what
    `point_cloud_laplacian(cloud, neighbours=8)` takes, with a warning where so few points tell no surface. A failing example
    shrinks to few points of the plane.

    Args:
        always, never: as in `point_clouds`, but for LINE, which no such cloud is.
    """
    wanted, barred = _wishes(always, never, min_points, max_points, dtype)
    if S.LINE in wanted:
        raise ValueError("a sample of a surface is not near a line: ask point_clouds for Scatter.LINE")
    n = draw(st.integers(max(min_points, 6 if wanted else 1), max_points), label="points")
    surface = draw(st.sampled_from(_SURFACES), label="surface")
    i, side = np.arange(n), math.sqrt(n)
    spiral = np.stack([(i + 0.5) / n, (i + 0.5) * _GOLDEN % 1], axis=1) * side
    points = _edited(draw, spiral, lambda p: surface(*(p / side % 1).T), wanted, barred | {S.LINE}, flat=False)
    return _placed(draw, points, wanted, barred, dtype)


_GOLDEN = (math.sqrt(5) - 1) / 2
Wishes = frozenset[Scatter]


def _as_it_is(points: Floats) -> Floats:
    return points


def _plane(u: Floats, v: Floats) -> Floats:
    return np.stack([4 * u, 4 * v, 2 * u], axis=1)


def _saddle(u: Floats, v: Floats) -> Floats:
    x, y = 2 * u - 1, 2 * v - 1
    return np.stack([x, y, (x * x - y * y) / 2], axis=1)


def _sphere(u: Floats, v: Floats) -> Floats:
    # Equal areas of (u, v) are equal areas of the sphere (Archimedes).
    z, angle = 2 * u - 1, 2 * math.pi * v
    return np.stack([np.sqrt(1 - z * z) * np.cos(angle), np.sqrt(1 - z * z) * np.sin(angle), z], axis=1)


def _torus(u: Floats, v: Floats) -> Floats:
    around, across = 2 * math.pi * u, 2 * math.pi * v
    ring = 2 + np.cos(across)
    return np.stack([ring * np.cos(around), ring * np.sin(around), np.sin(across)], axis=1)


_SURFACES: list[Callable[[Floats, Floats], Floats]] = [_plane, _saddle, _sphere, _torus]


def _wishes(
    always: Collection[Scatter], never: Collection[Scatter], least: int, most: int, dtype: torch.dtype
) -> tuple[Wishes, Wishes]:
    wanted, barred = frozenset(always), frozenset(never)
    if wanted & barred:
        raise ValueError(f"no cloud has always and never {', '.join(sorted(wish.name for wish in wanted & barred))}")
    if not 1 <= least <= most or (wanted and most < 6):
        raise ValueError(f"min_points {least} and max_points {most}: at least one point, and six points with any `always`")
    if dtype != torch.float64 and wanted & {S.SCALED, S.OFFSET}:
        raise ValueError(f"{dtype} clouds are neither scaled nor offset, where they would have no digits left: ask for float64")
    return wanted, barred


def _edited(
    draw: st.DrawFn, lattice: Floats, surface: Callable[[Floats], Floats], wanted: Wishes, barred: Wishes, *, flat: bool
) -> Floats:
    """The lattice with what is wanted and with drawn edits, on its surface."""
    forced: list[tuple[Scatter, _Edit]] = [(S.LINE, Flatten(1e-3)), (S.CLUSTERED, Gather(0)), (S.TWINS, Twin(1, 1e-5))]
    for scatter, edit in forced:
        if scatter in wanted:
            lattice = edit(lattice)
    for edit in draw(st.lists(_edits(flat), max_size=4), label="edits"):
        changed = edit(lattice)
        points = surface(changed)
        shape = _shape_of(points)
        if _apart(points) and wanted - {S.SCALED, S.OFFSET} <= shape and not barred & shape:
            lattice = changed
    return surface(lattice)


def _apart(points: Floats) -> bool:
    return len(points) < 2 or bool(nearest_distances(points).min() > 1e-7 * np.ptp(points, axis=0).max())


@cache
def _edits(flat: bool) -> st.SearchStrategy[_Edit]:
    which = st.integers(0, 99)
    kinds: list[st.SearchStrategy[_Edit]] = [
        st.builds(Shake, st.sampled_from([0.1, 0.4, 1.0]), which),
        st.builds(Gather, which),
        st.builds(Twin, which, st.sampled_from([1e-3, 1e-5])),
    ]
    return st.one_of([*kinds, st.builds(Flatten, st.sampled_from([1e-3, 1e-5]))] if flat else kinds)


def _placed(draw: st.DrawFn, points: Floats, wanted: Wishes, barred: Wishes, dtype: torch.dtype) -> PointCloud:
    """Scaled and offset, where that is allowed."""

    def choices(hard: list[int], scatter: Scatter) -> st.SearchStrategy[int]:
        return st.sampled_from(hard if scatter in wanted else [0] if scatter in barred else [0, *hard])

    scale = draw(choices([-20, 20], S.SCALED), label="scale 2^k")
    offset = draw(choices([1024], S.OFFSET), label="offset in sizes")
    if dtype == torch.float64:
        points = (points + offset * max(1.0, float(np.ptp(points, axis=0).max()) / 8)) * 2.0**scale
    return PointCloud(torch.from_numpy(points).to(dtype))
