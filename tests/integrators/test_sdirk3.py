"""SDIRK3: Butcher conditions, stability function, error estimate, order reduction."""

import cmath

import pytest
import torch

from integrators.integrate import integrate
from integrators.sdirk3 import SDIRK3

g = SDIRK3.gamma
A = [[*row, g, *[0.0] * (2 - len(row))] for row in SDIRK3.a]
B, C = A[2], SDIRK3.c
Z = [-1e6, -2.5, -1e-3, 0.0, 0.7, 1j, 20j, -1 + 2j]


def dot(u, v):
    return sum(p * q for p, q in zip(u, v, strict=True))


def test_order_conditions():
    assert g**3 - 3 * g**2 + 3 * g / 2 - 1 / 6 == pytest.approx(0, abs=1e-15)
    assert all(sum(row) == pytest.approx(c, abs=1e-15) for row, c in zip(A, C, strict=True))
    assert sum(B) == pytest.approx(1, abs=1e-14)
    assert dot(B, C) == pytest.approx(1 / 2, abs=1e-14)
    assert dot(B, [c * c for c in C]) == pytest.approx(1 / 3, abs=1e-14)
    assert dot(B, [dot(row, C) for row in A]) == pytest.approx(1 / 6, abs=1e-14)
    assert sum(SDIRK3.e) == pytest.approx(0, abs=1e-14)
    assert dot(SDIRK3.e, C) == pytest.approx(0, abs=1e-14)


def R(z):
    return (1 + (1 - 3 * g) * z + (1 / 2 - 3 * g + 3 * g**2) * z**2) / (1 - g * z) ** 3


@pytest.mark.parametrize("z", Z)
def test_stability_function(linear, z):
    f, one = linear(torch.full((1, 1), z, dtype=torch.complex128)), torch.ones(1, 1, dtype=torch.complex128)
    assert abs(complex(integrate(f, one, [0.0, 1.0], SDIRK3(dt=1.0)).final) - R(z)) <= 1e-12


def test_it_is_l_stable():
    assert abs(R(-1e6)) <= 1e-4
    assert all(abs(R(1j * y)) <= 1 for y in (0.01, 0.1, 1.0, 3.0, 10.0, 1e3))


def test_the_estimate_bounds_the_error_on_the_negative_axis():
    for k in range(-50, 120):
        z = -(10 ** (k / 20))
        y = []
        for row in SDIRK3.a:
            y.append((1 + z * dot(row, y[: len(row)])) / (1 - g * z))
        estimate = z * dot(SDIRK3.e, y)
        assert abs(estimate) == pytest.approx(0.375 * (1 - 1 / (1 - g * z)) ** 3, rel=1e-5)
        assert abs(estimate) >= abs(R(z) - cmath.exp(z)) - 1e-15


@pytest.mark.parametrize(("stiffness", "least", "most"), [(1.0, 2.9, 3.3), (1e6, 0.9, 1.3)])
def test_the_order_falls_where_a_forced_equation_is_stiff(stiffness, least, most, observed_order):
    """Prothero and Robinson 1974: dx/dt = −λ (x − cos t) − sin t. The stages are of order 1, and a stiff λ brings that out: the
    error is O(h/λ), small but no longer O(h³)."""
    f = lambda t, x: -stiffness * (x - torch.cos(t)) - torch.sin(t)  # noqa: E731
    x0 = torch.ones(1, dtype=torch.float64)
    exact = torch.cos(torch.tensor(1.0, dtype=torch.float64))
    errors = [float((integrate(f, x0, [0.0, 1.0], SDIRK3(dt=d)).final - exact).abs()) for d in (1 / 16, 1 / 32)]
    assert least <= observed_order(errors) <= most
