"""Bosh3: its stability function, its cost, and its Hermite dense output."""

import pytest
import torch

from integrators.bosh3 import Bosh3
from integrators.integrate import integrate
from integrators.method import hermite

X0 = torch.tensor([[0.3], [0.5], [0.8]], dtype=torch.float64)


@pytest.mark.parametrize("z", [-2.5, -1.0, 0.5, 1.7j, -1 + 1j])
def test_stability_function(z):
    solver = Bosh3(1e6, 1e6, first_step=1.0)
    x = integrate(lambda t, x: z * x, torch.ones(1, dtype=torch.complex128), [0.0, 1.0], solver)
    assert x.stats.accepted == 1
    assert abs(complex(x.final) - (1 + z + z**2 / 2 + z**3 / 6)) <= 1e-12


def test_three_evaluations_a_step():
    with torch.no_grad():
        stats = integrate(lambda t, x: -x, X0, [0.0, 1.0], Bosh3(first_step=0.01)).stats
    assert stats.nfe == 1 + 3 * (stats.accepted + stats.rejected)


@pytest.mark.parametrize("theta", [0.0, 0.25, 0.7, 1.0])
def test_the_dense_output_is_the_hermite_polynomial(theta):
    f = lambda t, x: -x * x  # noqa: E731
    solver = Bosh3()
    carry = solver.start(f, 0.0, X0)
    trial = solver.advance(f, 0.0, 0.3, carry, 0.0)
    expected = hermite(X0, -X0 * X0, trial.carry[0], f(0.3, trial.carry[0]), 0.3, theta)
    assert torch.allclose(solver.interpolate(f, 0.0, 0.3, carry, trial, theta), expected, rtol=1e-14, atol=1e-15)


def test_dense_output_stays_within_the_tolerance():
    t = torch.linspace(0, 1.5, 201, dtype=torch.float64)
    solution = integrate(lambda t, x: -3 * t**2 * x, X0, t, Bosh3(1e-6, 1e-8))
    assert solution.stats.accepted < 200
    exact = X0 * (-(t**3)).exp()[:, None, None]
    assert float((solution.x - exact).abs().max()) <= 50 * 1e-6
