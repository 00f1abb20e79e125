"""RKC2: its coefficients, its stability function on the whole interval, and round-off over hundreds of stages."""

import math

import numpy as np
import pytest
import torch
from numpy.polynomial import Chebyshev

from integrators import integrate
from integrators.rkc2 import DAMPING, RKC2, chebyshev

STAGES = [2, 3, 4, 5, 8, 20, 51, 200, 1000]


def stability(stages, z):
    older, d = 0 * z, stages[0].new * z
    for mu, nu, new, old, _ in stages[1:]:
        older, d = d, mu * d + nu * older + z * (new * (1 + d) + old)
    return 1 + d


@pytest.mark.parametrize("s", [2, 3, 5, 8, 20])
def test_stability_function(s):
    z = np.array([-3.0, -1e-3, 0.0, 0.5, 1j, -1 + 2j])
    T = Chebyshev.basis(s)
    w0 = 1 + DAMPING / s**2
    first, second = T.deriv(1)(w0), T.deriv(2)(w0)
    b, w1 = second / first**2, first / second
    R = 1 - b * T(w0) + b * T(w0 + w1 * z)
    assert np.abs(stability(RKC2.stages(s), z) - R).max() <= 1e-12
    for value, expected in zip(z, R, strict=True):
        f = lambda t, x, value=value: complex(value) * x  # noqa: E731
        radius = (s - 1.5) * (s + 0.5) / 1.54
        assert RKC2.stages_for(radius) == s
        x = integrate(f, torch.ones(1, dtype=torch.complex128), [0.0, 1.0], RKC2(dt=1.0, radius=radius)).final
        assert abs(complex(x) - expected) <= 1e-12


@pytest.mark.parametrize("s", STAGES)
def test_stable_and_damped_on_the_whole_interval(s):
    longest = (s**2 - 1) / 1.54
    assert RKC2.stages_for(longest * (1 - 1e-12)) == s
    z = -np.linspace(0, longest, 50_001)
    R = np.abs(stability(RKC2.stages(s), z))
    assert R.max() <= 1 + 1e-12
    if s >= 5:
        assert R[z <= -4].max() <= 0.96


@pytest.mark.parametrize("s", STAGES)
def test_consistency_of_order_two(s):
    """R(z) = 1 + z + z²/2 + O(z³), and the stages lie between t and t + h in order."""
    stages = RKC2.stages(s)
    for z in (1e-3, 1e-3j):
        assert abs(stability(stages, np.array(z)) - np.exp(z)) <= 0.2e-9
    times = [stage.c for stage in stages[1:]]
    assert all(a < b for a, b in zip([0.0, *times], [*times, 1.0], strict=True))


def test_chebyshev_values():
    for j, (value, first, second) in enumerate(chebyshev(12, 1.3)):
        T = Chebyshev.basis(j)
        assert (value, first, second) == pytest.approx((T(1.3), T.deriv(1)(1.3), T.deriv(2)(1.3)), rel=1e-12)


def test_round_off_over_hundreds_of_stages_in_single_precision():
    """The error of a long step is a small multiple of s·u."""
    L = torch.diag(torch.full((200,), 2.0)) - torch.diag(torch.ones(199), 1) - torch.diag(torch.ones(199), -1)
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    h = 3e4 / 4
    one = integrate(lambda t, x: -(L @ x), x, [0.0, h], RKC2(dt=h, radius=4.0))
    two = integrate(lambda t, x: -(L.double() @ x), x.double(), [0.0, h], RKC2(dt=h, radius=4.0))
    s = RKC2.stages_for(3e4)
    assert s > 200
    assert float((one.final - two.final).abs().max()) <= 4 * s * 2.0**-24 * float(x.abs().max())


def test_the_number_of_stages_grows_as_the_root():
    assert RKC2.stages_for(0.0) == 2
    for z in (10.0, 1e3, 1e6, 1e9):
        assert RKC2.stages_for(z) == pytest.approx(math.sqrt(1.54 * z), abs=2)
