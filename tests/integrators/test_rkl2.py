"""RKL2: its stability function on the whole interval, no overshoot, and round-off over hundreds of stages."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial import Legendre

from integrators import integrate
from integrators.rkl2 import RKL2

STAGES = [3, 5, 9, 21, 51, 201, 1001]


def stability(stages, z):
    older, d = 0 * z, stages[0].new * z
    for mu, nu, new, old, _ in stages[1:]:
        older, d = d, mu * d + nu * older + z * (new * (1 + d) + old)
    return 1 + d


@pytest.mark.parametrize("s", [3, 5, 9, 21])
def test_stability_function(s):
    z = np.array([-3.0, -1e-3, 0.0, 0.5, 1j, -1 + 2j])
    b, w1 = (s**2 + s - 2) / (2 * s * (s + 1)), 4 / (s**2 + s - 2)
    R = 1 - b + b * Legendre.basis(s)(1 + w1 * z)
    assert np.abs(stability(RKL2.stages(s), z) - R).max() <= 1e-12
    for value, expected in zip(z, R, strict=True):
        f = lambda t, x, value=value: complex(value) * x  # noqa: E731
        solver = RKL2(dt=1.0, radius=(s**2 + s - 2) / 2)
        x = integrate(f, torch.ones(1, dtype=torch.complex128), [0.0, 1.0], solver).final
        assert abs(complex(x) - expected) <= 1e-12


@pytest.mark.parametrize("s", STAGES)
def test_stable_and_damped_on_the_whole_interval(s):
    longest = (s**2 + s - 2) / 2
    assert RKL2.stages_for(longest * (1 - 1e-12)) == s
    assert RKL2.stages_for(longest * (1 + 1e-9)) == s + 2
    z = -np.linspace(0, longest, 50_001)
    R = np.abs(stability(RKL2.stages(s), z))
    assert R.max() <= 1 + 1e-12
    if s >= 9:
        assert R[z <= -4].max() <= 0.75


@pytest.mark.parametrize("s", STAGES)
def test_consistency_of_order_two(s):
    stages = RKL2.stages(s)
    for z in (1e-3, 1e-3j):
        assert abs(stability(stages, np.array(z)) - np.exp(z)) <= 0.2e-9
    times = [stage.c for stage in stages[1:]]
    assert all(a < b for a, b in zip([0.0, *times], [*times, 1.0], strict=True))


@given(
    st.lists(st.sampled_from([0.0, 1.0, -3.0, 1e3]), min_size=12, max_size=40),
    st.integers(1, 6).map(lambda k: 2 * k + 1),
    st.floats(0.05, 1.0),
)
def test_three_point_diffusion_overshoots_nowhere(values, s, share):
    """Any initial values, any number of stages, any step within the interval: min u ≤ u' ≤ max u."""
    x = torch.tensor(values, dtype=torch.float64)[:, None]
    f = lambda t, x: torch.roll(x, 1, 0) + torch.roll(x, -1, 0) - 2 * x  # noqa: E731
    h = share * (s**2 + s - 2) / 2 / 4
    y = integrate(f, x, [0.0, h], RKL2(dt=h, radius=4.0)).final
    slack = 64 * torch.finfo(torch.float64).eps * float(x.abs().max())
    assert float(x.min()) - slack <= float(y.min())
    assert float(y.max()) <= float(x.max()) + slack


def test_round_off_over_hundreds_of_stages_in_single_precision():
    L = torch.diag(torch.full((200,), 2.0)) - torch.diag(torch.ones(199), 1) - torch.diag(torch.ones(199), -1)
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    h = 3e4 / 4
    one = integrate(lambda t, x: -(L @ x), x, [0.0, h], RKL2(dt=h, radius=4.0))
    two = integrate(lambda t, x: -(L.double() @ x), x.double(), [0.0, h], RKL2(dt=h, radius=4.0))
    s = RKL2.stages_for(3e4)
    assert s > 200
    assert float((one.final - two.final).abs().max()) <= 4 * s * 2.0**-24 * float(x.abs().max())
