"""Hypothesis strategies for regular grids."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from hypothesis import strategies as st

from operators.grids import Boundary, Grid

__all__ = ["grids"]


@st.composite
def grids(
    draw: st.DrawFn,
    *,
    dimensions: Sequence[int] = (1, 2, 3),
    boundaries: Sequence[Boundary] = (Boundary.NEUMANN, Boundary.DIRICHLET, Boundary.PERIODIC),
    min_side: int = 1,
    max_nodes: int = 64,
    dtype: torch.dtype = torch.float64,
) -> Grid:
    """Grids of one to three dimensions, every axis with its own length, spacing and boundary; single nodes, rows and slabs too.

    A failing example shrinks to the shortest axes of spacing 1 with the first of the boundaries.

    Args:
        boundaries: of which each axis has one.
        min_side: the least number of nodes along an axis. `max_nodes`: the most of all together.

    Raises:
        ValueError: a min_side for which max_nodes has no room.
    """
    most = max(dimensions)
    if min(dimensions) < 1 or min_side < 1 or min_side**most > max_nodes:
        raise ValueError(f"{most} axes of {min_side} nodes or more do not go with max_nodes={max_nodes}")
    # Thirds have no end in binary; 2^±10 is far from isotropic.
    spacing = st.sampled_from([1.0, 0.5, 1 / 3, 2.0**-10, 2.0**10])
    axis = st.tuples(st.integers(min_side, max_nodes), spacing, st.sampled_from(list(boundaries)))
    axes = draw(st.lists(axis, min_size=min(dimensions), max_size=most), label="axes")
    d = max(k for k in dimensions if k <= len(axes))
    shape: list[int] = []
    longest = max(min_side, math.ceil(1.5 * max_nodes ** (1 / d)))
    for k, (side, _, _) in enumerate(axes[:d]):
        room = max_nodes // (math.prod(shape) * min_side ** (d - k - 1))
        shape.append(min(room, min_side + (side - min_side) % (longest - min_side + 1)))
    steps = torch.tensor([step for _, step, _ in axes[:d]], dtype=dtype)
    return Grid(tuple(shape), steps, tuple(end for _, _, end in axes[:d]))
