"""Our solvers through torchdiffeq's own odeint: the same numbers, every gradient, events, and f with its linear part."""

import copy
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torchdiffeq
from torchdiffeq._impl.odeint import SOLVERS

from integrators.backward_euler import BackwardEuler
from integrators.dopri5 import Dopri5
from integrators.exponential import Exponential
from integrators.gradients import Direct
from integrators.integrate import integrate
from integrators.odeint import as_torchdiffeq
from integrators.ragged import PerSegment
from integrators.rk4 import RK4
from integrators.solution import SolveError

X0 = torch.tensor([[0.3], [0.5]], dtype=torch.float64)
G = torch.tensor([[-0.5, 1.0], [-1.0, -0.2]], dtype=torch.float64)
T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
TIGHT = {"rtol": 1e-9, "atol": 1e-11}
solvers = pytest.mark.parametrize(
    "solver", [Dopri5(1e-9, 1e-11), Dopri5(1e-9, 1e-11, gradient=Direct()), RK4(0.01)], ids=["dopri5", "direct", "rk4"]
)
times = pytest.mark.parametrize("t", [T, T.flip(0), -T], ids=["forward", "back", "negative"])


@solvers
@times
def test_the_numbers_are_those_of_integrate(problem, solver, t):
    found = torchdiffeq.odeint(problem.f, problem.x0, t, method=as_torchdiffeq(solver))
    expected = integrate(problem.f, problem.x0, t, solver).x
    if not isinstance(problem.x0, tuple):
        assert torch.equal(found, expected)
    elif not any(part.is_complex() for part in problem.x0):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@solvers
@times
def test_gradients_flow(solver, t):
    """To the start, the times, and what f holds; the same as torchdiffeq's, to the tolerance."""
    found = []
    for method in (as_torchdiffeq(solver), "dopri8"):
        x0, a, s = (v.clone().requires_grad_() for v in (X0, torch.tensor(0.7, dtype=torch.float64), t))
        options = None if method.startswith(type(solver).__name__) else {"step_t": s.detach()[1:]}
        path = torchdiffeq.odeint(lambda t, x, a=a: -a * x + torch.sin(t), x0, s, **TIGHT, method=method, options=options)
        found.append(torch.autograd.grad(path.pow(2).sum(), (x0, a, s)))
    for g, expected in zip(*found, strict=True):
        assert torch.allclose(g, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("solver", [Exponential(), BackwardEuler(dt=1e-3)], ids=lambda s: type(s).__name__)
@times
def test_the_linear_part_of_f_is_seen(solver, t, linear):
    f = linear(G)
    found = torchdiffeq.odeint(f, X0, t, method=as_torchdiffeq(solver))
    exact = torch.stack([torch.linalg.matrix_exp((s - t[0]) * G) @ X0 for s in t])
    assert float((found - exact).abs().max()) < (1e-12 if isinstance(solver, Exponential) else 2e-3)
    assert f.solves > 0 or isinstance(solver, Exponential)


def test_the_adjoint_is_told_to_take_another_method():
    """A registered solver is handed on to the augmented equation, which is not the caller's."""
    a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    f = lambda t, x: -a * x  # noqa: E731
    method = as_torchdiffeq(Dopri5(1e-9, 1e-11))
    path = torchdiffeq.odeint_adjoint(f, X0, T, method=method, adjoint_params=(a,))
    with pytest.raises(TypeError, match=r"Dopri5 was handed on to the augmented equation.*adjoint_method=\"dopri5\""):
        path.sum().backward()
    exact = -float((T[:, None, None] * X0 * torch.exp(-0.7 * T)[:, None, None]).sum())
    for own, backward in ((method, "dopri5"), (as_torchdiffeq(Dopri5(1e-9, 1e-11), adjoint=True), None)):
        path = torchdiffeq.odeint_adjoint(f, X0, T, **TIGHT, method=own, adjoint_method=backward, adjoint_params=(a,))
        (found,) = torch.autograd.grad(path.sum(), a)
        assert float(found) == pytest.approx(exact, rel=1e-6)


@solvers
@pytest.mark.parametrize("reverse", [False, True])
def test_events(solver, reverse):
    """A ball thrown from a tower: odeint_event links the gradients."""
    found = []
    for method in (as_torchdiffeq(solver), "dopri5"):
        h, v = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (10.0, 1.0))
        fall = lambda t, x: (x[1], torch.full_like(x[1], -9.8))  # noqa: E731
        t, x = torchdiffeq.odeint_event(
            fall, (h, v), torch.tensor(0.0, dtype=torch.float64), event_fn=lambda t, x: x[0], method=method, reverse_time=reverse,
            **TIGHT,
        )  # fmt: skip
        found.append([t, *torch.autograd.grad(t, (h, v), retain_graph=True), *torch.autograd.grad(x[1][-1], (h, v))])
        root = (1 + (-1 if reverse else 1) * math.sqrt(1 + 2 * 9.8 * 10)) / 9.8
        assert float(t.detach()) == pytest.approx(root, rel=1e-7)
    for a, b in zip(*found, strict=True):
        assert float((a - b).detach().abs()) < 1e-6


def test_an_event_that_never_happens_ends_with_the_budget():
    """A hang of torchdiffeq's own methods."""
    t0, method = torch.tensor(0.0, dtype=torch.float64), as_torchdiffeq(RK4(0.1, max_nfe=500))
    with pytest.raises(SolveError, match="budget of 500"):
        torchdiffeq.odeint_event(lambda t, x: -x, X0, t0, event_fn=lambda t, x: x.sum() + 1, method=method)


def test_jumps_are_understood_and_other_options_refused():
    f = lambda t, x: torch.where(t < 0.4, -x, x * t)  # noqa: E731
    method, jump_t = as_torchdiffeq(Dopri5(1e-9, 1e-11)), torch.tensor([0.4], dtype=torch.float64)
    for t in (T, T.flip(0)):
        found = torchdiffeq.odeint(f, X0, t, method=method, options={"jump_t": jump_t})
        assert torch.equal(found, integrate(f, X0, t, Dopri5(1e-9, 1e-11), jumps=[0.4]).x)
    with pytest.raises(TypeError, match=r"step_size cannot be given in options=.*their own fields.*only jump_t is understood"):
        torchdiffeq.odeint(f, X0, T, method=method, options={"step_size": 0.1})


def test_one_name_for_one_solver():
    name = as_torchdiffeq(RK4(0.1))
    assert name is as_torchdiffeq(RK4(0.1)) is copy.deepcopy(name)
    assert name != as_torchdiffeq(RK4(0.2))
    first, second = (torchdiffeq.odeint(lambda t, x: -x, X0, T, method=as_torchdiffeq(RK4(d))) for d in (0.1, 0.4))
    assert not torch.equal(first, second)
    for wrong in ("dopri5", RK4, None):
        with pytest.raises(TypeError, match=r"must be an integrator such as Dopri5"):
            as_torchdiffeq(wrong)


def test_solvers_that_print_alike_are_told_apart():
    x0, methods = torch.tensor([[1.0], [2.0], [3.0], [4.0]], dtype=torch.float64), []
    for index in ([0, 0, 1, 1], [0, 1, 2, 3]):
        solver = PerSegment(torch.tensor(index), Dopri5(1e-3, 1e-5))
        methods.append((as_torchdiffeq(solver), solver))
    for method, solver in methods:
        f = lambda t, x: -(x**2)  # noqa: E731
        assert torch.equal(torchdiffeq.odeint(f, x0, T, method=method), integrate(f, x0, T, solver).x)


def test_a_name_is_forgotten_with_its_last_reference():
    kept = as_torchdiffeq(RK4(0.125))
    before = len(SOLVERS)
    for k in range(1, 50):
        torchdiffeq.odeint(lambda t, x: -x, X0, T, method=as_torchdiffeq(RK4(1 / k)))
    assert len(SOLVERS) <= before
    assert kept in SOLVERS
    assert as_torchdiffeq(RK4(0.125)) is kept


def test_names_from_many_threads():
    f = lambda t, x: -x  # noqa: E731
    expected = [integrate(f, X0, T, RK4(1 / k)).x for k in range(1, 9)]

    def solve(n):
        return torchdiffeq.odeint(f, X0, T, method=as_torchdiffeq(RK4(1 / (n % 8 + 1))))

    with ThreadPoolExecutor(8) as pool:
        for n, found in enumerate(pool.map(solve, range(160))):
            assert torch.equal(found, expected[n % 8])
