"""The choice of a solver for y = b + s f(t, y), and what it solves."""

import pytest
import torch

from integrators.integrator import CountedRightHandSide
from integrators.newton_krylov import NewtonKrylov
from integrators.solution import NotConverged, Statistics
from integrators.stage import LinearStages, stage_solver

G = torch.tensor([[-1.0, 2.0], [-2.0, -0.5]], dtype=torch.float64)
B = torch.tensor([[1.0], [0.5]], dtype=torch.float64)


def solver(f, **keywords):
    counted = CountedRightHandSide(f, B, Statistics(), 1000)
    return stage_solver(counted, 0.0, B, user="Tested", newton=NewtonKrylov(), **keywords)


def test_a_linear_equation_is_solved_directly(linear):
    stages = solver(linear(G))
    assert isinstance(stages.equation, LinearStages)
    assert stages.linear
    assert stages.factored
    y = stages.solve(0.0, 0.3, B, B)
    assert torch.allclose(y, B + 0.3 * G @ y, rtol=0, atol=1e-15)
    assert torch.equal(stages(0.0, y), G @ y)
    stats = stages.counted.stats
    assert (stats.solves, stats.factorizations, stats.nfe, stats.nvp) == (1, 1, 1, 0)


def test_a_complex_shift_is_counted_apart(linear):
    f = linear(G.to(torch.complex128))
    f.solve = lambda s, b: torch.linalg.solve(torch.eye(2) - s * f.G, b)
    x0 = B.to(torch.complex128)
    stages = stage_solver(CountedRightHandSide(f, x0, Statistics(), 9), 0.0, x0, user="Tested", newton=NewtonKrylov())
    for s in (0.3, 0.3 + 0.1j, 0.3, 0.3 + 0.1j):
        y = stages.solve(0.0, s, x0, x0)
        assert torch.allclose(y, x0 + s * f.G @ y, rtol=0, atol=1e-15)
    assert (stages.counted.stats.solves, stages.counted.stats.factorizations) == (4, 2)


@pytest.mark.parametrize("structured", [False, True])
def test_anything_else_is_solved_by_newtons_method(linear, structured):
    f = linear(G)
    f.forward = lambda t, x: G @ x - t * x**3
    if structured:
        f.nonlinear = lambda t, x: -t * x**3
    else:
        f = f.forward
    stages = solver(f)
    assert not stages.linear
    assert stages.factored == structured
    t = torch.tensor(0.7, dtype=torch.float64)
    y = stages.solve(t, 0.3, B, B)
    assert torch.allclose(y, B + 0.3 * (G @ y - t * y**3), rtol=0, atol=1e-9)
    assert torch.allclose(stages.slope(t, y), (y - B) / 0.3, rtol=0, atol=1e-8)


def test_a_nonlinear_part_that_does_not_add_up_is_refused(linear):
    f = linear(G)
    f.nonlinear = lambda t, x: x**2
    with pytest.raises(ValueError, match=r"linear @ x \+ nonlinear\(t, x\) is not what"):
        solver(f)


@pytest.mark.parametrize("error", [ValueError, ZeroDivisionError, torch.linalg.LinAlgError])
def test_a_singular_matrix_is_a_step_that_failed(linear, error):
    f = linear(G)
    stages = solver(f)

    def solve(s, b):
        raise error("no inverse")

    f.solve = solve
    for _ in range(7):
        with pytest.raises(NotConverged, match=r"cannot be solved at s = 0.5, near t = 2 \(no inverse\)"):
            stages.solve(2.0, 0.5, B, B)
    assert stages.blame(2.0, B) == ""
    with pytest.raises(NotConverged):
        stages.solve(2.0, 0.5, B, B)
    assert "no inverse" in stages.blame(2.0, B)
