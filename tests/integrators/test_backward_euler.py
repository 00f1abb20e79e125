"""Backward Euler: stability function, maximum principle, stiff equations in long steps."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from integrators.backward_euler import BackwardEuler
from integrators.integrate import integrate
from integrators.solution import SolveError, Status

G = torch.tensor([[-1.0, 2.0], [-2.0, -0.5]], dtype=torch.float64)
X0 = torch.tensor([[1.0], [0.5]], dtype=torch.float64)


@pytest.mark.parametrize("z", [-1e12, -2.5, -1e-3, 0.0, 0.7, 3.0, 1j, 20j, -1 + 2j])
def test_stability_function(linear, z):
    f, one = linear(torch.full((1, 1), z, dtype=torch.complex128)), torch.ones(1, 1, dtype=torch.complex128)
    assert abs(complex(integrate(f, one, [0.0, 1.0], BackwardEuler(dt=1.0)).final) - 1 / (1 - z)) <= 1e-12


@settings(deadline=None, max_examples=25)
@given(
    weights=st.lists(st.floats(0, 1e6), min_size=16, max_size=16),
    values=st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=4),
    dt=st.sampled_from([1e-8, 1e-3, 1.0, 1e6]),
)
def test_the_maximum_principle_holds_for_every_m_matrix_and_every_step(linear, weights, values, dt):
    """Rows that sum to zero with non-negative weights off the diagonal, symmetric or not."""
    A = torch.tensor(weights, dtype=torch.float64).reshape(4, 4)
    A = A - torch.diag(A.diag())
    x0 = torch.tensor(values, dtype=torch.float64)[:, None]
    x = integrate(linear(A - torch.diag(A.sum(1))), x0, [0.0, dt, 3 * dt], BackwardEuler(dt=dt)).x
    slack = 1e-9 * float(x0.abs().max())
    assert float(x.max()) <= float(x0.max()) + slack
    assert float(x.min()) >= float(x0.min()) - slack


@pytest.mark.parametrize("dt", [1e-4, 0.1, 100.0, math.inf])
def test_stiff_diffusion_keeps_its_maximum_principle_for_every_step(linear, dt):
    """A path of nodes with weights 1e8: every state stays between the extremes of the first, and the mean is kept."""
    n = 6
    A = torch.diag(torch.ones(n - 1, dtype=torch.float64), 1)
    A = A + A.T
    L = 1e8 * (torch.diag(A.sum(1)) - A)
    x0 = torch.tensor([[0.0], [1.0], [0.0], [0.0], [1.0], [0.5]], dtype=torch.float64)
    x = integrate(linear(-L), x0, [0.0, 1e-9, 1e-3, 0.01], BackwardEuler(dt=dt)).x
    assert float(x.min()) >= -1e-12
    assert float(x.max()) <= 1 + 1e-12
    assert torch.allclose(x.mean(dim=1), x0.mean(), rtol=0, atol=1e-6)
    assert float(x[-1].max() - x[-1].min()) <= 1e-5


def test_f_is_taken_at_the_end_of_the_step():
    x = integrate(lambda t, x: t * torch.ones_like(x), X0, [1.0, 1.5], BackwardEuler(dt=0.5)).final
    assert torch.allclose(x, X0 + 0.5 * 1.5, rtol=0, atol=1e-9)


def test_a_stiff_nonlinear_equation_in_long_steps():
    """dx/dt = −10⁴ x³ + cos t relaxes to its slow solution at once."""
    x = integrate(lambda t, x: -1e4 * x**3 + torch.cos(t), X0, [0.0, 0.5, 1.0], BackwardEuler(dt=0.25)).x
    slow = (torch.cos(torch.tensor([0.5, 1.0])) / 1e4) ** (1 / 3)
    assert torch.allclose(x[1:, 0, 0], slow.double(), rtol=5e-2)


def test_a_pole_is_a_solve_error(linear):
    f = linear(torch.eye(1, dtype=torch.float64))
    f.solve = lambda shift, b: b / (1 - shift)
    with pytest.raises(SolveError, match=r"step 1, at t = 1\.") as caught:
        integrate(f, X0[:1], [0.0, 1.0], BackwardEuler(dt=1.0))
    assert caught.value.status is Status.DIVERGED
