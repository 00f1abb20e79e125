"""Conserved and dissipated quantities, on paths, solutions and flows."""

import pytest
import torch

from integrators import RK4, integrate
from neuralpde.heat import Heat
from neuralpde.invariants import Mass, Norm
from neuralpde.testing_flows import assert_conserved, assert_dissipated
from neuralpde.testing_measured import LawBrokenError
from neuralpde.waves import Wave
from operators import cotangent_laplacian, icosphere

L = cotangent_laplacian(icosphere(0))
U0 = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(12, 2)


def squares(x):
    return (x**2).sum()


def test_mass_of_heat_on_a_flow_a_solution_and_a_path():
    solution = integrate(Heat(L), U0, [0.0, 0.1, 0.2], RK4(dt=0.05))
    for measured in (
        assert_conserved(Mass(L), Heat(L), U0),
        assert_conserved(Mass(L), solution),
        assert_conserved(lambda x: (L.mass[:, None] * x).sum(), solution.x),
    ):
        assert float(measured) <= 1
    assert "mass is conserved" in str(measured) or "lambda" in str(measured)


def test_norm_falls_and_is_not_conserved():
    assert float(assert_dissipated(Norm(L), Heat(L), U0)) <= 1
    assert float(assert_dissipated(squares, Heat(L), U0)) <= 1
    with pytest.raises(LawBrokenError, match="Heat breaks a law: norm is conserved"):
        assert_conserved(Norm(L), Heat(L), U0)
    with pytest.raises(LawBrokenError, match="squares never increases"):
        assert_dissipated(squares, -Heat(L), 0.1 * U0, (0.0, 0.1))


def test_tuple_states_and_tolerances_of_ones_own():
    x0 = (U0, 0 * U0)
    path = integrate(Wave(L), x0, [0.0, 0.5], RK4(dt=0.05)).x

    def energy(x):
        return (L.inner(x[1], x[1]) + L.inner(x[0], L @ x[0])) / 2

    assert float(assert_conserved(energy, Wave(L), x0, (0.0, 0.5))) <= 1
    with pytest.raises(LawBrokenError):
        assert_conserved(energy, path)
    assert float(assert_conserved(energy, path, tolerance=1e-3)) <= 1


def test_a_flow_needs_a_start():
    with pytest.raises(TypeError, match="pass x0, or a path"):
        assert_conserved(Mass(L), Heat(L))
