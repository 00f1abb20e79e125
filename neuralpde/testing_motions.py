"""Hypothesis strategies for renumberings and rigid motions of a domain, and the two as plain functions."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from hypothesis import strategies as st
from torch import Tensor

from neuralpde.symmetry import Permutation, RigidMotion
from operators.domains import Domain

__all__ = ["moved", "permutations", "permuted", "rigid_motions"]

D = TypeVar("D", bound=Domain)


def permuted(domain: D, p: Tensor) -> D:
    """The graph, mesh or cloud with its nodes renumbered: node i is node p_i of the given one, so fields become x[..., p, :].

    Raises:
        DomainError: a grid, whose numbering is its geometry. ValueError: p is no permutation of the nodes.
    """
    renumbered: D = Permutation().domain(p, domain)
    return renumbered


def moved(domain: D, R: Tensor, s: Tensor) -> D:
    """The mesh or cloud with its positions at R p + s, in the precision of the domain.

    Raises:
        DomainError: a graph or a grid, which has no positions to move.
    """
    there: D = RigidMotion().domain((R, s), domain)
    return there


def permutations(nodes: int) -> st.SearchStrategy[Tensor]:
    """Permutations (n,) of so many nodes; a failing example shrinks to the identity, or to the few nodes that change places."""
    return st.permutations(range(nodes)).map(lambda p: torch.tensor(p, dtype=torch.int64))


@st.composite
def rigid_motions(
    draw: st.DrawFn, dimensions: int = 3, *, reflections: bool = False, exact: bool = False, furthest: float = 8.0
) -> tuple[Tensor, Tensor]:
    """Rotations R (d, d) and translations s (d,) in float64, for `moved(domain, R, s)`.

    R is a list of turns within two axes, by quarters, by atan ¾ (of cosine ⅘, sine ⅗) or by any angle, so a failing example
    shrinks to no turn or one quarter, and no translation or ⅛ of one along an axis.

    Args:
        dimensions: d, two or more. A planar mesh with z = 0 stays planar under rotations of its first two axes only.
        reflections: also R of determinant −1.
        exact: quarter turns, and translations by multiples of ⅛ only, which move small dyadic positions without round-off.
        furthest: no entry of s is larger.
    """
    if dimensions < 2:
        raise ValueError(f"a rotation takes two dimensions or more, not {dimensions}")
    quarter = st.sampled_from([(0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)])
    angle = st.floats(-3.125, 3.125).map(lambda a: (math.cos(a), math.sin(a)))
    turn = quarter if exact else st.one_of(quarter, st.just((0.8, 0.6)), angle)
    axis = st.integers(0, dimensions - 1)
    R = torch.eye(dimensions, dtype=torch.float64)
    turns = st.lists(st.tuples(axis, st.integers(1, dimensions - 1), turn), max_size=3)
    for first, step, (cosine, sine) in draw(turns, label="turns"):
        second = (first + step) % dimensions
        plane = torch.eye(dimensions, dtype=torch.float64)
        plane[first, first] = plane[second, second] = cosine
        plane[second, first], plane[first, second] = sine, -sine
        R = plane @ R
    if reflections and draw(st.booleans(), label="reflected"):
        R = torch.cat([-R[:1], R[1:]])
    eighths = st.integers(-64, 64).map(lambda k: k / 64 * furthest)
    offsets = eighths if exact else st.one_of(eighths, st.floats(-furthest, furthest))
    s = draw(st.lists(offsets, min_size=dimensions, max_size=dimensions), label="translation")
    return R, torch.tensor(s, dtype=torch.float64)
