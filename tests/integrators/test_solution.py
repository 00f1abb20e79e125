"""A solution holds times, states, cost and status; a failed one, and its error, hold what was reached."""

import pickle

import pytest
import torch

from integrators.dopri5 import Dopri5
from integrators.integrate import integrate
from integrators.rk4 import RK4
from integrators.solution import Solution, SolveError, SolverWarning, Statistics, Status

X0 = torch.tensor([[0.3], [0.5], [0.8]], dtype=torch.float64)


@pytest.mark.parametrize("solver", [Dopri5(), RK4(dt=0.1)], ids=["adaptive", "fixed"])
def test_shapes_and_final(solver):
    solution = integrate(lambda t, x: -x, X0, [0.0, 0.5, 1.0], solver)
    assert isinstance(solution, Solution)
    assert solution.status is Status.SUCCESS
    assert solution.t.shape == (3,)
    assert solution.t.dtype == torch.float64
    assert solution.x.shape == (3, 3, 1)
    assert torch.equal(solution.x[0], X0)
    assert torch.equal(solution.final, solution.x[-1])


@pytest.mark.parametrize("solver", [Dopri5(), RK4(dt=0.1)], ids=["adaptive", "fixed"])
def test_a_tuple_state_gives_a_tuple_of_paths(solver):
    z0 = torch.ones(2, dtype=torch.complex128)
    solution = integrate(lambda t, x: (-x[0], 1j * x[1]), (X0, z0), [0.0, 0.5, 1.0], solver)
    u, z = solution.x
    assert u.shape == (3, 3, 1)
    assert z.shape == (3, 2)
    assert z.dtype == torch.complex128
    assert torch.equal(u[0], X0)
    assert all(torch.equal(a, b[-1]) for a, b in zip(solution.final, (u, z), strict=True))


def test_each_solve_has_its_own_statistics():
    first, second = Solution(torch.zeros(1), X0[None]), Solution(torch.zeros(1), X0[None])
    first.stats.nfe = 5
    assert second.stats == Statistics(nfe=0, nfe_backward=0, accepted=0, rejected=0, solves=0)


@pytest.mark.parametrize("solver", [Dopri5(max_nfe=40), RK4(dt=0.1, max_nfe=20)], ids=["adaptive", "fixed"])
def test_a_failed_solution_agrees_with_itself_and_with_the_error(solver):
    f, t = (lambda t, x: -100 * torch.sin(20 * t) * x), [0.0, 0.01, 0.2, 5.0]
    with pytest.raises(SolveError, match="budget") as caught:
        integrate(f, X0, t, solver)
    kept = caught.value.solution
    assert kept.status is caught.value.status is Status.BUDGET
    assert len(kept.t) == len(kept.x) < len(t)
    assert kept.t.tolist() == t[: len(kept.t)]
    returned = integrate(f, X0, t, solver, throw=False)
    assert torch.equal(returned.x, kept.x)
    assert returned.stats == kept.stats


def test_the_error_and_the_warning_are_of_their_kinds():
    error = SolveError("why", Status.BUDGET)
    assert isinstance(error, RuntimeError)
    assert error.solution is None
    assert str(error) == "why"
    assert issubclass(SolverWarning, UserWarning)


def test_a_solution_is_pickled_whole():
    solution = integrate(lambda t, x: -x, X0, [0.0, 1.0])
    again = pickle.loads(pickle.dumps(solution))
    assert torch.equal(again.x, solution.x)
    assert again.stats == solution.stats
    assert again.status is Status.SUCCESS


def test_a_state_between_the_outputs_is_had_only_where_it_was_asked_for():
    plain = integrate(lambda t, x: -x, X0, [0.0, 1.0])
    with pytest.raises(ValueError, match=r"keeps only its output times: ask for integrate\(\.\.\., dense=True\)"):
        plain.at(0.5)
    dense = integrate(lambda t, x: -x, X0, [0.0, 1.0], dense=True)
    for s in (0.5, torch.tensor(0.5), torch.tensor(0.5, dtype=torch.float64)):
        assert torch.allclose(dense.at(s), X0 * torch.exp(torch.tensor(-0.5)), rtol=1e-5)
    assert torch.allclose(dense.at(1), dense.final, rtol=1e-12)
    assert torch.allclose(dense.at(0), X0, rtol=1e-12)


def test_what_a_solve_cost_is_told_whole():
    stats = integrate(lambda t, x: -x, X0, [0.0, 1.0], Dopri5(rtol=1e-6)).stats
    assert stats.nfe > 0
    assert stats.accepted > 0
    assert 0 < stats.error_estimate <= 1
    assert stats.peak_memory > X0.numel() * 8
    assert stats.advice == stats.reason == ""
    assert integrate(lambda t, x: -x, X0, [0.0, 1.0], RK4(dt=0.1)).stats.error_estimate is None
