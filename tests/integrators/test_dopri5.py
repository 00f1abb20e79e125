"""Dopri5: its tableau and dense output in exact rationals, and its stability function."""

from fractions import Fraction

import pytest
import torch

from integrators.dopri5 import Dopri5
from integrators.integrate import integrate

D = (
    Fraction(-12715105075, 11282082432),
    Fraction(0),
    Fraction(87487479700, 32700410799),
    Fraction(-10690763975, 1880347072),
    Fraction(701980252875, 199316789632),
    Fraction(-1453857185, 822651844),
    Fraction(69997945, 29380423),
)


class Exact(Dopri5):
    """The same formulas on fractions."""

    a = tuple(tuple(Fraction(w).limit_denominator(100_000) for w in row) for row in Dopri5.a)
    d = D


C = [Fraction(0), Fraction(1, 5), Fraction(3, 10), Fraction(4, 5), Fraction(8, 9), Fraction(1), Fraction(1)]
A = [[Fraction(0)] * 7] + [[*row, *[Fraction(0)] * (7 - len(row))] for row in Exact.a]


def test_the_fractions_are_those_of_the_tableau():
    assert [float(w) for w in D] == list(Dopri5.d)
    assert [[float(w) for w in row] for row in Exact.a] == [list(row) for row in Dopri5.a]
    assert [sum(row) for row in A] == C


@pytest.mark.parametrize("theta", [Fraction(0), Fraction(1, 7), Fraction(1, 3), Fraction(1, 2), Fraction(4, 5), Fraction(1)])
def test_the_dense_output_is_of_order_four_exactly(theta):
    """All eight conditions, as polynomials of degree 4 in θ, at six places: identities."""
    b = Exact().weights(theta)

    def total(phi):
        return sum(w * p for w, p in zip(b, phi, strict=True))

    def times(phi):
        return [sum(a * p for a, p in zip(row, phi, strict=True)) for row in A]

    squares = [c**2 for c in C]
    assert total([1] * 7) == theta
    assert total(C) == theta**2 / 2
    assert total(squares) == theta**3 / 3
    assert total(times(C)) == theta**3 / 6
    assert total([c**3 for c in C]) == theta**4 / 4
    assert total([c * p for c, p in zip(C, times(C), strict=True)]) == theta**4 / 8
    assert total(times(squares)) == theta**4 / 12
    assert total(times(times(C))) == theta**4 / 24


@pytest.mark.parametrize("z", [-3.0, -1.0, 0.5, 2.8j, -1 + 2j])
def test_stability_function(z):
    solver = Dopri5(1e6, 1e6, first_step=1.0)
    x = integrate(lambda t, x: z * x, torch.ones(1, dtype=torch.complex128), [0.0, 1.0], solver)
    assert x.stats.accepted == 1
    exact = 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24 + z**5 / 120 + z**6 / 600
    assert abs(complex(x.final) - exact) <= 1e-12


@pytest.mark.parametrize(("z", "stable"), [(-3.3, True), (-3.32, False)])
def test_the_end_of_the_stability_interval(z, stable):
    exact = 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24 + z**5 / 120 + z**6 / 600
    assert (abs(exact) <= 1) == stable


def test_six_evaluations_a_step_and_the_last_is_the_first():
    with torch.no_grad():
        stats = integrate(lambda t, x: -x, torch.ones(3, dtype=torch.float64), [0.0, 1.0], Dopri5(first_step=0.1)).stats
    assert stats.nfe == 1 + 6 * stats.accepted
    assert stats.rejected == 0
