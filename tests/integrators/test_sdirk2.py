"""SDIRK2: Butcher conditions, stability function, error estimate."""

import cmath

import pytest
import torch

from integrators.integrate import integrate
from integrators.sdirk2 import SDIRK2

g = SDIRK2.gamma
A = [[g, 0.0], [SDIRK2.a[1][0], g]]
B, C = A[1], SDIRK2.c
Z = [-1e6, -2.5, -1e-3, 0.0, 0.7, 1j, 20j, -1 + 2j]


def test_order_conditions():
    assert all(sum(row) == pytest.approx(c, abs=1e-15) for row, c in zip(A, C, strict=True))
    assert sum(B) == pytest.approx(1, abs=1e-15)
    assert sum(b * c for b, c in zip(B, C, strict=True)) == pytest.approx(1 / 2, abs=1e-15)
    assert sum(SDIRK2.e) == pytest.approx(0, abs=1e-15)


def R(z):
    return (1 + (1 - 2 * g) * z) / (1 - g * z) ** 2


@pytest.mark.parametrize("z", Z)
def test_stability_function(linear, z):
    f, one = linear(torch.full((1, 1), z, dtype=torch.complex128)), torch.ones(1, 1, dtype=torch.complex128)
    assert abs(complex(integrate(f, one, [0.0, 1.0], SDIRK2(dt=1.0)).final) - R(z)) <= 1e-12


def test_it_is_l_stable():
    assert abs(R(-1e6)) <= 1e-4
    assert all(abs(R(1j * y)) <= 1 for y in (0.01, 0.1, 1.0, 3.0, 10.0, 1e3))


def test_the_estimate_bounds_the_error_on_the_negative_axis():
    for k in range(-60, 120):
        z = -(10 ** (k / 20))
        estimate = z * sum(e * y for e, y in zip(SDIRK2.e, stages(z), strict=True))
        assert abs(estimate) == pytest.approx(0.55 * (1 - 1 / (1 - g * z)) ** 2, rel=1e-8)
        assert abs(estimate) >= abs(R(z) - cmath.exp(z)) - 1e-15


def stages(z):
    y1 = 1 / (1 - g * z)
    return y1, (1 + A[1][0] * z * y1) / (1 - g * z)
