"""Tsit5: its stability function, its dense output, and smaller errors than Dopri5's."""

import pytest
import torch

from integrators.dopri5 import Dopri5
from integrators.integrate import integrate
from integrators.tsit5 import Tsit5

X0 = torch.tensor([1.0, 0.0], dtype=torch.float64)


def spin(t, x):
    return torch.stack([x[1], -x[0]])


def polynomial(z):
    """1 + Σ_{k ≤ 5} z^k/k! + b a₆₅ a₅₄ a₄₃ a₃₂ c₂ z⁶, the last from the tableau."""
    a = Tsit5.a
    sixth = a[5][5] * a[4][4] * a[3][3] * a[2][2] * a[1][1] * a[0][0]
    return 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24 + z**5 / 120 + sixth * z**6, sixth


@pytest.mark.parametrize("z", [-3.0, -1.0, 0.5, 2.8j, -1 + 2j])
def test_stability_function(z):
    solver = Tsit5(1e6, 1e6, first_step=1.0)
    x = integrate(lambda t, x: z * x, torch.ones(1, dtype=torch.complex128), [0.0, 1.0], solver)
    assert x.stats.accepted == 1
    value, sixth = polynomial(z)
    assert abs(complex(x.final) - value) <= 1e-12
    assert sixth == pytest.approx(0.00143, abs=1e-5)


@pytest.mark.parametrize(("z", "stable"), [(-3.5, True), (-3.52, False)])
def test_the_end_of_the_stability_interval(z, stable):
    assert (abs(polynomial(z)[0]) <= 1) == stable


@pytest.mark.parametrize("rtol", [1e-6, 1e-9])
def test_fewer_evaluations_than_dopri5_at_the_same_error(rtol):
    cost = {}
    for solver in (Dopri5, Tsit5):
        solution = integrate(spin, X0, [0.0, 20.0], solver(rtol, rtol))
        exact = torch.tensor([20.0], dtype=torch.float64)
        error = (solution.final - torch.cat([torch.cos(exact), -torch.sin(exact)])).abs().max()
        # What it would cost at an error of rtol.
        cost[solver] = solution.stats.nfe * (float(error) / rtol) ** 0.2
    assert cost[Tsit5] < cost[Dopri5]


def test_dense_output_stays_within_the_tolerance():
    t = torch.linspace(0, 10, 301, dtype=torch.float64)
    solution = integrate(spin, X0, t, Tsit5(1e-8, 1e-8))
    assert solution.stats.accepted < 150
    assert float((solution.x[:, 0] - torch.cos(t)).abs().max()) <= 50 * 1e-8
