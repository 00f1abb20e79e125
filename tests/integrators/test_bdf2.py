"""BDF2: its formula for even and uneven steps, stability, and what starts it."""

from fractions import Fraction

import pytest
import torch

from integrators.bdf2 import BDF2
from integrators.gradients import Direct
from integrators.integrate import integrate

Z = [-1e6, -2.5, -1e-3, 0.0, 0.7, 1j, 20j, -1 + 2j]


def start(z):
    return (1 - z / 3) / (1 - 2 * z / 3) ** 2


@pytest.mark.parametrize("z", Z)
def test_steps_of_a_linear_equation(linear, z):
    f, one = linear(torch.full((1, 1), z, dtype=torch.complex128)), torch.ones(1, 1, dtype=torch.complex128)
    x = integrate(f, one, [0.0, 1.0, 2.0, 3.0], BDF2(dt=1.0)).x[:, 0, 0].tolist()
    expected = [1.0, start(z)]
    for _ in range(2):
        expected.append((4 * expected[-1] / 3 - expected[-2] / 3) / (1 - 2 * z / 3))
    assert all(abs(a - b) <= 1e-12 * max(1, abs(b)) for a, b in zip(x, expected, strict=True))


def test_it_is_a_stable_far_to_the_left():
    """The roots of ζ² (3/2 − z) − 2ζ + 1/2 lie inside the unit disc for z on and left of the imaginary axis."""
    for z in [1j * y for y in (0.1, 1.0, 10.0, 1e3)] + [-0.1, -1.0, -1e6, -1 + 5j]:
        root = (4 - 2 * (1.5 - z)) ** 0.5 if not isinstance(z, complex) else (complex(4) - 2 * (1.5 - z)) ** 0.5
        assert all(abs((2 + sign * root) / (2 * (1.5 - z))) <= 1 + 1e-12 for sign in (1, -1))


@pytest.mark.parametrize("ratio", [Fraction(1, 3), Fraction(1), Fraction(3, 2), Fraction(2)])
def test_the_variable_formula_is_exact_for_parabolas(ratio):
    """x(t) = t²: x₋₁ = 1/ω² at −1/ω, x = 0 at 0, x' = 1 and slope 2 at 1."""
    w = ratio
    x, old = Fraction(0), 1 / w**2
    assert x + (x - old) * w**2 / (1 + 2 * w) + (1 + w) / (1 + 2 * w) * 2 == 1


def test_uneven_steps_keep_order_two(observed_order):
    f = lambda t, x: -3 * t**2 * x  # noqa: E731
    exact = torch.exp(torch.tensor(-1.0, dtype=torch.float64))
    errors = []
    for n in (16, 32, 64):
        t = (torch.arange(n + 1, dtype=torch.float64) / n) ** 1.3
        errors.append(float((integrate(f, torch.ones(1, dtype=torch.float64), t, BDF2(dt=1.0)).final - exact).abs()))
    assert 1.9 <= observed_order(errors) <= 3.2


def test_a_step_much_longer_than_the_last_starts_anew(linear):
    f, one = linear(torch.full((1, 1), -1.0, dtype=torch.float64)), torch.ones(1, 1, dtype=torch.float64)
    x = integrate(f, one, [0.0, 0.01, 1.01], BDF2(dt=10.0)).x[:, 0, 0].tolist()
    assert x[2] == pytest.approx(start(-1.0) * x[1], abs=1e-14)


def test_even_steps_share_one_factor_with_the_start(linear):
    f = linear(torch.diag(torch.tensor([-1.0, -1e6], dtype=torch.float64)))
    x0 = torch.ones(2, 1, dtype=torch.float64)
    stats = integrate(f, x0, torch.linspace(0, 1, 11, dtype=torch.float64), BDF2(dt=0.1, gradient=Direct())).stats
    assert (stats.factorizations, stats.solves) == (1, 11)


def test_the_start_keeps_signs(linear):
    """A diffusion of positive values stays positive through the first step, however long."""
    A = torch.tensor([[-1.0, 1.0, 0.0], [1.0, -2.0, 1.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
    x0 = torch.tensor([[1.0], [0.0], [0.0]], dtype=torch.float64)
    for dt in (0.1, 10.0, 1e4):
        assert float(integrate(linear(A), x0, [0.0, dt], BDF2(dt=dt)).final.min()) >= 0
