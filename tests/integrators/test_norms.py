"""Error norms: their values, and that no active row hides behind idle ones."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from integrators.dopri5 import Dopri5
from integrators.integrate import integrate
from integrators.norms import ErrorNorm, RMSNorm, RowNorm
from integrators.tsit5 import Tsit5

ZERO = torch.zeros(4, 3, dtype=torch.float64)
norms = pytest.mark.parametrize("norm", [RowNorm(), RMSNorm()], ids=["row", "rms"])


def weighed(error, x0, x1, rtol, atol):
    return error.abs() / (atol + rtol * torch.maximum(x0.abs(), x1.abs()))


@given(
    seed=st.integers(0, 2**31), rtol=st.sampled_from([1e-10, 1e-3]), atol=st.sampled_from([1e-12, 1.0]), wide=st.booleans()
)
def test_values(seed, rtol, atol, wide):
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.complex128 if wide else torch.float64
    error, x0, x1 = (torch.randn(2, 5, 3, generator=generator, dtype=dtype) for _ in range(3))
    ratio = weighed(error, x0, x1, rtol, atol)
    assert RMSNorm()(error, x0, x1, rtol, atol) == pytest.approx(float(ratio.square().mean().sqrt()), rel=1e-12)
    rows = ratio.square().mean(-1).sqrt().max()
    assert RowNorm()(error, x0, x1, rtol, atol) == pytest.approx(float(rows), rel=1e-12)


@norms
def test_a_tuple_counts_with_its_worst_part(norm):
    small, large = torch.full((4, 3), 1e-6).double(), torch.full((2, 2), 1e-3).double()
    zeros = (ZERO, torch.zeros(2, 2).double())
    assert norm((small, large), zeros, zeros, 1e-3, 1e-3) == pytest.approx(1.0)
    assert norm((large[:0].new_zeros(4, 3), large), zeros, zeros, 1e-3, 1e-3) == pytest.approx(1.0)


@norms
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_shows(norm, bad):
    error = ZERO.clone()
    error[2, 1] = bad
    assert not norm(error, ZERO, ZERO, 1e-3, 1e-3) <= 1
    x1 = ZERO.clone()
    x1[2, 1] = math.nan
    assert not norm(ZERO, ZERO, x1, 1e-3, 1e-3) <= 1


@norms
def test_a_plain_vector_is_one_row(norm):
    error = torch.tensor([3.0, 4.0])
    assert norm(error, torch.zeros(2), torch.zeros(2), 1e-3, 1.0) == pytest.approx(math.sqrt(12.5))


@norms
def test_its_arguments_are_left_alone(norm):
    error, x0, x1 = (torch.full((3, 2), value) for value in (-1.0, 2.0, -3.0))
    norm(error, x0, x1, 1e-3, 1e-3)
    assert (float(error[0, 0]), float(x0[0, 0]), float(x1[0, 0])) == (-1.0, 2.0, -3.0)


def pendulum(t, x):
    """Row by row (angle, velocity); idle where both are zero."""
    return torch.stack([x[:, 1], -9.81 * torch.sin(x[:, 0])], dim=1)


@pytest.mark.parametrize("pair", [Dopri5, Tsit5])
@pytest.mark.parametrize("rtol", [1e-4, 1e-7])
def test_one_active_sample_among_4096_idle_ones(pair, rtol):
    """Acceptance 4 of the integrators: its error stays within twice that of the sample alone."""
    active = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    crowd = torch.zeros(4097, 2, dtype=torch.float64)
    crowd[1234] = active
    t = [0.0, 4.0]
    with torch.no_grad():
        exact = integrate(pendulum, active, t, pair(1e-12, 1e-13)).final[0]
        alone = integrate(pendulum, active, t, pair(rtol, rtol / 10)).final[0]
        within = integrate(pendulum, crowd, t, pair(rtol, rtol / 10)).final[1234]
        averaged = integrate(pendulum, crowd, t, pair(rtol, rtol / 10, norm=RMSNorm())).final[1234]
    errors = [float((x - exact).abs().max()) for x in (alone, within, averaged)]
    assert errors[1] <= 2 * errors[0]
    assert errors[2] >= 5 * errors[0]  # What the norm over the whole state would make of it.


def test_a_norm_of_ones_own():
    class LargestEntry(ErrorNorm):
        def of(self, ratio):
            return ratio.abs().max()

    x0 = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    solution = integrate(lambda t, x: -x, x0, [0.0, 1.0], Dopri5(1e-8, 1e-10, norm=LargestEntry()))
    assert float((solution.final - x0 / math.e).abs().max()) <= 1e-7
