"""Fields have the asked form and profile, every profile occurs, times increase, and all shrink to zero or little."""

from functools import cache

import numpy as np
import pytest
import torch
from drawing import drawn, least, shares
from hypothesis import given

from neuralpde.testing_fields import Profile, fields, states, times
from operators import Grid, PointCloud, icosphere

P = Profile
TURNS = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])[:, None]


def profiles_of(x):
    """Which profiles a field (n, 1) could come from, told by its values."""
    size = x.abs().max()
    nonzero = x[x != 0].abs()
    told = {
        P.ZERO: size == 0,
        P.CONSTANT: size > 0 and (x == x[0]).all(),
        P.SPIKE: (x != 0).sum() == 1,
        P.CHECKERBOARD: size > 0 and torch.equal(x, x[0].abs() * TURNS),
        P.DYADIC: torch.equal(x * 8, (x * 8).round()) and size <= 8 and len(x.unique()) > 2,
        P.ROUGH: 8 < size <= 1e6 and len(x.unique()) > 2,
        P.SMOOTH: size > 0 and len(x.unique()) > 2 and not torch.equal(x * 8, (x * 8).round()) and size < 8,
        P.HUGE: size >= 1e145 and nonzero.min() >= 1e145,
        P.TINY: 0 < size <= 1e-144,
    }
    return [profile for profile, has in told.items() if has]


@cache
def usual():
    return shares(drawn(fields(5, 1), 200), profiles_of)


@pytest.mark.parametrize("profile", [p for p in P if p not in (P.HUGE, P.TINY)])
def test_every_usual_profile_occurs_in_one_of_forty(profile):
    assert usual()[profile] >= 1 / 40


def test_fields_are_neither_huge_nor_tiny_unless_asked():
    assert usual()[P.HUGE] == usual()[P.TINY] == 0
    asked = shares(drawn(fields(5, 1, profiles=[P.HUGE, P.ZERO]), 60), profiles_of)
    assert asked[P.HUGE] + asked[P.ZERO] == 1


@pytest.mark.parametrize("profile", [p for p in P if p not in (P.DYADIC, P.ROUGH, P.SMOOTH)])
def test_a_profile_can_be_asked_for(profile):
    assert all(profile in profiles_of(x) for x in drawn(fields(5, 1, profiles=[profile]), 20))


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1.8e19), (torch.float64, 1.3e154)])
def test_squares_of_huge_and_tiny_fields_straddle_the_range(dtype, limit):
    huge = torch.stack(drawn(fields(5, 1, profiles=[P.HUGE], dtype=dtype), 40)).abs()
    tiny = torch.stack(drawn(fields(5, 1, profiles=[P.TINY], dtype=dtype), 40)).abs()
    for fits in (torch.isfinite(huge**2), tiny**2 >= torch.finfo(dtype).tiny):
        assert 0.1 < float(fits.double().mean()) < 0.9
    assert bool(torch.isfinite(huge).all() and (tiny >= torch.finfo(dtype).tiny).all()), "the fields themselves are in range"
    assert float(huge.max()) > limit


@given(x=fields(3, batch=(2,), dtype=torch.complex64), exact=fields(4, 2, exact=True))
def test_fields_have_the_asked_form(x, exact):
    assert x.dtype == torch.complex64
    assert x.shape[:2] == (2, 3)
    assert 1 <= x.shape[2] <= 3
    assert bool(torch.isfinite(x.abs()).all())
    assert exact.shape == (4, 2)
    assert torch.equal(exact * 8, (exact * 8).round())


def test_fields_are_their_own_memory_and_empty_ones_are_drawn():
    for x in drawn(fields(4, 2), 20):
        x += 1
        assert x.is_contiguous()
    assert {x.shape for x in drawn(fields(0, 2), 5)} == {(0, 2)}
    assert {x.shape for x in drawn(fields(3, 0), 5)} == {(3, 0)}


@pytest.mark.parametrize(
    "domain", [icosphere(2), PointCloud(icosphere(2).vertices), Grid((12, 12))], ids=lambda d: type(d).__name__
)
def test_fields_on_a_domain_are_smooth_over_its_coordinates(domain):
    points = getattr(domain, "vertices", None) if hasattr(domain, "vertices") else domain.points
    for x in drawn(fields(domain, 1, profiles=[P.SMOOTH]), 10):
        assert x.shape == (domain.num_nodes, 1)
        near = torch.cdist(points, points) + torch.eye(len(points)) * 1e9
        closest = near.argmin(dim=1)
        across = (points.max(0).values - points.min(0).values).sum()
        # Four periods over the domain at most.
        slope = (x - x[closest]).abs().squeeze(1) / near.min(dim=1).values
        assert float(slope.max()) <= 8 * np.pi * 4 * float(x.abs().max()) / float(across) * 4


def test_wrong_profiles_are_refused():
    for how in ({"profiles": []}, {"profiles": [P.HUGE], "exact": True}):
        with pytest.raises(ValueError, match="profiles"):
            drawn(fields(3, 1, **how), 1)


def test_states_are_fields_or_tuples_of_them():
    assert {x.shape for x in drawn(states(4), 5)} == {(4, 1)}
    for u, v in drawn(states(4, 2, parts=2, dtype=torch.float32), 10):
        assert u.shape == v.shape == (4, 2)
        assert u.dtype == v.dtype == torch.float32


def test_shrinking_leaves_zero_or_one_small_number():
    assert not least(fields(4, 2), lambda x: True).any()
    assert int((least(fields(4, 2), lambda x: bool(x.any())) != 0).sum()) > 0
    negative = least(fields(4, 2), lambda x: bool((x < 0).any()))
    assert float(negative.abs().max()) <= 1
    large = least(fields(3, 1), lambda x: float(x.abs().max()) > 100)
    assert int((large != 0).sum()) == 1
    assert float(large.abs().max()) == 101
    assert float(least(fields(3, 1, profiles=[P.HUGE]), lambda x: True).abs().max()) == 1e145


def test_times_increase_or_decrease():
    seen = drawn(times(), 80)
    for t in seen:
        assert 2 <= len(t) <= 6
        assert bool((t.diff() > 0).all())
        assert float(t[-1] - t[0]) <= 2
    assert sum(float(t[0]) != 0 for t in seen) > 20
    assert sum(bool(t.diff().max() > 100 * t.diff().min()) for t in seen) > 8, "uneven"
    assert sum(len(t) > 2 and bool((t.diff() - t.diff()[0]).abs().max() < 1e-12) for t in seen) >= 4, "even"
    both = drawn(times(backwards=True, min_times=3, max_times=3, longest=0.5, dtype=torch.float32), 40)
    assert all(t.dtype == torch.float32 and len(t) == 3 and float((t[-1] - t[0]).abs()) <= 0.5 for t in both)
    assert 8 < sum(bool((t.diff() < 0).all()) for t in both) < 32
    assert least(times(), lambda t: True).tolist() == [0, 0.25]
