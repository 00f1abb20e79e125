"""Hypothesis strategies for fields, states of several fields, and times."""

from __future__ import annotations

import math
from collections.abc import Collection
from enum import Enum
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor

from operators.checks import real_dtype
from operators.domains import Domain

__all__ = ["Profile", "fields", "states", "times"]

Floats = NDArray[np.float64]


class Profile(Enum):
    """How a field varies over the nodes, and how large it is; each occurs in at least one of 40 fields that may have it."""

    DYADIC = "multiples of ⅛ up to 8, on which sums and products are exact"
    ZERO = "zero"
    CONSTANT = "the same number everywhere"
    ROUGH = "arbitrary floats up to 1e6, none of them between 0 and 1e-6"
    SPIKE = "one node up to 64 and the rest zero"
    CHECKERBOARD = "plus and minus the same number in turns, by the numbers of the nodes"
    SMOOTH = "a cosine of up to two periods, along the nodes' numbers or along the domain"
    HUGE = "powers of ten whose squares straddle the largest number: 1e145 to 1e160, in float32 1e15 to 1e25"
    TINY = "powers of ten whose squares straddle the least number: 1e-160 to 1e-145, in float32 1e-25 to 1e-15"


P = Profile
_EXACT = (P.DYADIC, P.ZERO, P.CONSTANT, P.SPIKE, P.CHECKERBOARD)
_USUAL = (P.DYADIC, P.ZERO, P.CONSTANT, P.ROUGH, P.SPIKE, P.CHECKERBOARD, P.SMOOTH)


@st.composite
def fields(
    draw: st.DrawFn,
    nodes: int | Domain,
    channels: int | None = None,
    *,
    batch: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float64,
    exact: bool = False,
    profiles: Collection[Profile] | None = None,
) -> Tensor:
    """Fields (*batch, nodes, channels) of every profile but the huge and the tiny; those where `profiles` asks for them.

    A failing example shrinks to few small multiples of ⅛, or to zero.

    Args:
        nodes: how many, or the domain, over whose coordinates the smooth fields are then smooth.
        channels: how many; one to three if absent.
        dtype: a complex one draws real and imaginary parts, each with a profile of its own.
        exact: only profiles made of small multiples of ⅛, on which sums and products are exact.
        profiles: which ones may occur, such as [Profile.HUGE]; not together with `exact`.
    """
    if profiles is not None and (exact or not profiles):
        raise ValueError("profiles must name one Profile at least, and goes without exact=True")
    c = draw(st.integers(1, 3), label="channels") if channels is None else channels
    if dtype.is_complex:
        part = fields(nodes, c, batch=batch, dtype=real_dtype(dtype), exact=exact, profiles=profiles)
        return torch.complex(draw(part), draw(part))
    wanted = (_EXACT if exact else _USUAL) if profiles is None else [profile for profile in P if profile in profiles]
    along = _along(nodes)
    shape = (*batch, len(along), c)
    profile = draw(st.sampled_from(wanted), label="profile")
    values = draw(_of_profile(profile, shape, along, dtype == torch.float32), label="field")
    return torch.from_numpy(values.copy()).to(dtype)


def states(nodes: int | Domain, channels: int | None = 1, *, parts: int = 1, **how: Any) -> st.SearchStrategy[Any]:
    """States of an equation: a field if it has one part, else a tuple of fields, each drawn on its own.

    Args:
        parts: of the state; a first-order wave has two.
        how: arguments of `fields`.
    """
    part = fields(nodes, channels, **how)
    return part if parts == 1 else st.tuples(*[part] * parts)


@st.composite
def times(
    draw: st.DrawFn,
    *,
    min_times: int = 2,
    max_times: int = 6,
    longest: float = 2.0,
    backwards: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Times (T,) to solve for: strictly increasing, even and uneven, starting at zero or elsewhere, close together or not.

    The gaps are drawn as a list, so a failing example shrinks to the fewest times, 0 and ⅛ of `longest`.

    Args:
        longest: the last time minus the first is at most this; gaps are of 1, ½, ⅛ or 2^-12 of it before they are fitted.
        backwards: also strictly decreasing times.
    """
    part = st.sampled_from([1 / 8, 1 / 2, 1.0, 2.0**-12])
    gaps = draw(st.lists(part, min_size=min_times - 1, max_size=max_times - 1), label="gaps")
    start = draw(st.sampled_from([0.0, 1.0, -0.375, 100.0]), label="start")
    sign = draw(st.sampled_from([1.0, -1.0]), label="direction") if backwards else 1.0
    total = max(1.0, 2.0 ** math.ceil(math.log2(sum(gaps)))) if gaps else 1.0
    passed = np.concatenate([[0.0], np.cumsum(gaps)]) * longest / total
    return torch.from_numpy(start + sign * passed).to(dtype)


def _along(nodes: int | Domain) -> Floats:
    """Where each node lies between 0 and 1: by its number, or by its coordinates taken together."""
    if isinstance(nodes, Domain):
        places = getattr(nodes, "vertices", None) if hasattr(nodes, "vertices") else getattr(nodes, "points", None)
        if isinstance(places, Tensor):
            points = places.detach().cpu().double().numpy()
            steps = (points - points.min(axis=0)) @ 2.0 ** -np.arange(points.shape[1])
            return np.asarray(steps / max(float(steps.max()), 1e-300))
    n = nodes.num_nodes if isinstance(nodes, Domain) else nodes
    return (np.arange(n) + 0.5) / max(n, 1)


def _of_profile(profile: Profile, shape: tuple[int, ...], along: Floats, single: bool) -> st.SearchStrategy[Floats]:
    eighths = st.integers(-64, 64).map(lambda k: k / 8)
    size = st.integers(1, 64).map(lambda k: k / 8)
    if profile is P.DYADIC:
        return arrays(np.float64, shape, elements=eighths)
    if profile is P.ZERO:
        return st.just(np.zeros(shape))
    if profile is P.CONSTANT:
        return size.map(lambda value: np.full(shape, value))
    if profile is P.ROUGH:
        # Products of smaller numbers leave float32's range, which is no round-off.
        floats = st.floats(-1000000, 1000000, width=32 if single else 64)
        return arrays(np.float64, shape, elements=floats.map(lambda v: v if abs(v) > 1e-6 else 0.0))
    if profile is P.SPIKE:
        return st.builds(lambda node, value: _spike(shape, node, 8 * value), st.integers(0, max(len(along) - 1, 0)), size)
    if profile is P.CHECKERBOARD:
        turns = np.where(np.arange(len(along)) % 2 == 0, 1.0, -1.0)[:, None]
        return size.map(lambda value: np.broadcast_to(value * turns, shape))
    if profile is P.SMOOTH:
        wave = st.tuples(size, st.sampled_from([0.5, 1.0, 2.0]))
        return wave.map(lambda w: np.broadcast_to(w[0] * np.cos(2 * math.pi * w[1] * along)[:, None], shape))
    least, most = (15, 25) if single else (145, 160)
    sign = 1 if profile is P.HUGE else -1
    number = st.builds(
        lambda exponent, negative: (-1.0) ** negative * 10.0 ** (sign * exponent), st.integers(least, most), st.booleans()
    )
    return arrays(np.float64, shape, elements=number)


def _spike(shape: tuple[int, ...], node: int, value: float) -> Floats:
    field = np.zeros(shape)
    if field.size:
        field[..., node, :] = value
    return field
