"""Solving until an event: its time and state against closed forms, their gradients, what is found, missed and refused."""

import math
import time
from dataclasses import replace

import pytest
import torch
import torchdiffeq
from torch.autograd import gradcheck

from integrators import engine
from integrators.adjoint import Adjoint
from integrators.backward_euler import BackwardEuler
from integrators.bosh3 import Bosh3
from integrators.checkpointed import Checkpointed
from integrators.dopri5 import Dopri5
from integrators.events import integrate_until
from integrators.fixed import Euler
from integrators.gradients import Direct
from integrators.ragged import PerSample
from integrators.rk4 import RK4
from integrators.solution import SolveError, Status

TIGHT = {"rtol": 1e-9, "atol": 1e-11}
GRAVITY = 9.8
SOLVERS = [
    Dopri5(**TIGHT),
    Dopri5(**TIGHT, gradient=Direct()),
    Dopri5(**TIGHT, gradient=Adjoint()),
    Bosh3(1e-8, 1e-10),
    RK4(0.03),
    engine.Dopri5(**TIGHT),
    engine.Dopri8(**TIGHT, gradient=Adjoint()),
    engine.RK4(0.03),
]
solvers = pytest.mark.parametrize(
    "solver", SOLVERS, ids=lambda s: f"{type(s).__module__.split('.')[1]}.{type(s).__name__}.{type(s.gradient).__name__}"
)


def double(value, **options):
    return torch.tensor(value, dtype=torch.float64, **options)


def fall(t, x):
    return x[1], torch.full_like(x[1], -GRAVITY)


def height(t, x):
    return x[0].sum()


def turn(t, x):
    """A rotation: x = (cos t, −sin t) from (1, 0)."""
    return torch.stack([x[1], -x[0]])


START = double([[1.0], [0.0]])


# -- Where it ends


@solvers
@pytest.mark.parametrize("forward", [True, False], ids=["forward", "reverse"])
def test_the_time_and_the_state(solver, forward):
    limit = 5.0 if forward else -5.0
    solution = integrate_until(turn, START, 0.0, lambda t, x: x[0, 0] - 0.5, solver, limit=limit)
    assert solution.status is Status.EVENT
    assert solution.t.tolist()[0] == 0.0
    sign = 1 if forward else -1
    assert float(solution.t[-1]) == pytest.approx(sign * math.pi / 3, abs=1e-7)
    exact = double([[0.5], [-sign * math.sqrt(3) / 2]])
    assert torch.allclose(solution.final, exact, atol=1e-7)
    assert abs(float(solution.final[0]) - 0.5) < 1e-12  # the event is met by the state that is returned
    assert torch.equal(solution.x[0], START)
    assert solution.stats.nfe > 0 < solution.stats.accepted


@solvers
def test_the_limit_ends_what_has_no_event(solver):
    """event_never_happens: torchdiffeq hangs."""
    solution = integrate_until(turn, START, 0.0, lambda t, x: x[0, 0] - 2, solver, limit=3.0)
    assert solution.status is Status.SUCCESS
    assert solution.t.tolist() == [0.0, 3.0]
    assert torch.allclose(solution.final, double([[math.cos(3)], [-math.sin(3)]]), atol=1e-6)


@solvers
@pytest.mark.parametrize(("direction", "root"), [(0, 0.5), (1, 1.5), (-1, 0.5)])
def test_the_direction(solver, direction, root):
    found = integrate_until(turn, START, 0.0, lambda t, x: x[0, 0], solver, limit=9.0, direction=direction).t[-1]
    assert float(found) == pytest.approx(root * math.pi, abs=1e-6)


@solvers
def test_of_several_events_the_first_counts(solver):
    events = (lambda t, x: x[0, 0] + 0.5), (lambda t, x: x[0, 0] - 0.5), (lambda t, x: t - 4.0)
    for order in ((0, 1, 2), (2, 0, 1)):
        solution = integrate_until(turn, START, 0.0, lambda t, x, o=order: tuple(events[k](t, x) for k in o), solver, limit=9.0)
        assert float(solution.t[-1]) == pytest.approx(math.pi / 3, abs=1e-6)


@solvers
@pytest.mark.parametrize("start", [0.0, 1e-17, -1e-17])
def test_a_zero_at_the_start_is_no_event(solver, start):
    """A ball that leaves the ground comes back to it."""
    x0 = (double([start]), double([3.0]))
    for direction in (0, -1):
        solution = integrate_until(fall, x0, 2.0, height, solver, limit=9.0, direction=direction)
        assert float(solution.t[-1]) == pytest.approx(2 + 6 / GRAVITY, rel=1e-9)


@pytest.mark.parametrize(("t0", "wait", "dtype"), [(1e6, 1.0, torch.float32), (1e8, 1e-3, torch.float64)])
def test_an_event_soon_after_a_late_start(t0, wait, dtype):
    """The clock is in double precision whatever the state is in; what lies within its round-off of the start is the start."""
    for solver in (Dopri5(), engine.Dopri5(), RK4(0.5)):
        grow = lambda t, x: torch.ones_like(x)  # noqa: E731
        solution = integrate_until(grow, torch.zeros(1, dtype=dtype), t0, lambda t, x: x[0] - wait, solver, limit=t0 + 5)
        assert solution.status is Status.EVENT
        tolerance = 2 * math.ulp(t0) + 1e-5 * wait  # of the clock and of the solvers
        assert float(solution.t[-1]) - t0 == pytest.approx(wait, abs=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.complex128])
def test_dtypes(dtype):
    x0 = START.to(dtype)
    for solver in (Dopri5(1e-5, 1e-6), engine.Dopri5(1e-5, 1e-6), RK4(0.05)):
        solution = integrate_until(turn, x0, 0.0, lambda t, x: x[0, 0].real - 0.5, solver, limit=5.0)
        assert solution.x.dtype == dtype
        assert solution.t.dtype == torch.float64
        assert float(solution.t[-1]) == pytest.approx(math.pi / 3, abs=3e-5)


def test_a_linear_solver_without_continuous_extension(linear):
    f = linear(double([[0.0, 1.0], [-1.0, 0.0]]))
    solution = integrate_until(f, START, 0.0, lambda t, x: x[0, 0] - 0.5, BackwardEuler(dt=1e-3), limit=5.0)
    assert float(solution.t[-1]) == pytest.approx(math.pi / 3, abs=2e-3)


def test_jumps_and_dense_output():
    f = lambda t, x: torch.where(t < 1, 1.0, -2.0) * torch.ones_like(x)  # noqa: E731
    for solver in (Dopri5(**TIGHT), engine.Dopri5(**TIGHT), RK4(0.1)):
        solution = integrate_until(f, double([0.0]), 0.0, lambda t, x: x.sum(), solver, limit=9.0, jumps=[1.0], dense=True)
        assert float(solution.t[-1]) == pytest.approx(1.5, abs=1e-12)
        assert float(solution.at(0.5)) == pytest.approx(0.5)
        assert float(solution.at(1.25)) == pytest.approx(0.5)


# -- Gradients


def bounces(h, v, e, solver, t=0.0):
    """Time and speed at the third landing of a ball dropped from h with speed v, which keeps the share e at each."""
    x, t = (h.reshape(1), v.reshape(1)), torch.as_tensor(t, dtype=torch.float64)
    for _ in range(3):
        solution = integrate_until(fall, x, t, height, solver, limit=float(t.detach()) + 9)
        t, x = solution.t[-1], (solution.final[0], -e * solution.final[1])
    return t, x[1].sum()


def bounces_exactly(h, v, e):
    landing = torch.sqrt(v**2 + 2 * GRAVITY * h)
    return (v + landing) / GRAVITY + 2 * landing / GRAVITY * (e + e**2), e**3 * landing


@solvers
def test_a_bouncing_ball(solver):
    found, inputs = [], [double(value, requires_grad=True) for value in (10.0, 1.0, 0.9)]
    for ball in (lambda *args: bounces(*args, solver), bounces_exactly):
        values = ball(*inputs)
        found.append([*values, *(g for value in values for g in torch.autograd.grad(value, inputs, retain_graph=True))])
    for a, b in zip(*found, strict=True):
        assert float((a - b).detach().abs()) < 1e-6


@pytest.mark.parametrize("solver", [SOLVERS[0], SOLVERS[1], SOLVERS[5]], ids=["checkpointed", "direct", "engine"])
def test_gradcheck(solver):
    """In the start, its time, a parameter of f and one of the event; time, state and x0 of the solution."""

    def end(x0, t0, a, c):
        solution = integrate_until(
            lambda t, x: a * torch.stack([x[1], -x[0]]) + 0.1 * t, x0, t0, lambda t, x: x[0, 0] - c * t, solver, limit=9.0
        )
        return solution.t, solution.x

    inputs = (START, double(0.1), double(0.9), double(0.3))
    assert gradcheck(end, tuple(v.clone().requires_grad_() for v in inputs), eps=1e-5, atol=1e-5)


@solvers
def test_the_numbers_are_the_same_with_and_without_gradients(solver):
    x0 = START.clone().requires_grad_()
    event = lambda t, x: x[0, 0] - 0.5  # noqa: E731
    wanted = integrate_until(turn, x0, 0.0, event, solver, limit=5.0)
    with torch.no_grad():
        plain = integrate_until(turn, x0, 0.0, event, solver, limit=5.0)
    assert torch.equal(wanted.t, plain.t)
    assert torch.equal(wanted.x, plain.x)
    assert wanted.t.requires_grad
    assert not plain.t.requires_grad


@pytest.mark.parametrize("reverse", [False, True])
def test_the_events_of_torchdiffeq(reverse):
    """odeint_event: hers, hers through us, and ours, with gradients of the time and of the state."""
    found, limit = [], -9.0 if reverse else 9.0

    def hers(h, v):
        t, x = torchdiffeq.odeint_event(
            fall, (h, v), double(0.0), event_fn=lambda t, x: x[0].sum(), reverse_time=reverse, method="dopri5", **TIGHT
        )
        return t, x[1][-1].sum()

    def through(solver):
        def ours(h, v):
            solution = integrate_until(fall, (h, v), 0.0, height, solver, limit=limit)
            return solution.t[-1], solution.final[1].sum()

        return ours

    for ball in (hers, through(engine.Dopri5(**TIGHT)), through(Dopri5(**TIGHT))):
        h, v = double([10.0], requires_grad=True), double([1.0], requires_grad=True)
        t, speed = ball(h, v)
        gradients = (*torch.autograd.grad(t, (h, v), retain_graph=True), *torch.autograd.grad(speed, (h, v)))
        found.append(torch.cat([t.reshape(1), *gradients]))
    for other in found[1:]:
        assert torch.allclose(found[0], other, rtol=1e-7)


def test_the_time_of_the_limit_has_no_gradient_and_its_state_has():
    x0 = START.clone().requires_grad_()
    solution = integrate_until(turn, x0, 0.0, lambda t, x: x[0, 0] - 2, Dopri5(**TIGHT), limit=1.0)
    (found,) = torch.autograd.grad(solution.final[0, 0], x0)
    assert torch.allclose(found, double([[math.cos(1)], [math.sin(1)]]), atol=1e-7)


def test_second_derivatives_are_refused():
    x0 = START.clone().requires_grad_()
    solution = integrate_until(turn, x0, 0.0, lambda t, x: x[0, 0] - 0.5, limit=5.0)
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        torch.autograd.grad(solution.t[-1], x0, create_graph=True)


# -- What is found and what is missed


def still(t, x):
    return 0 * x


@solvers
@pytest.mark.parametrize(("a", "b"), [(5.0, 6.0), (5.0, 5.2), (1.0, 30.0)])
def test_zeros_between_two_looks_are_found_by_their_turn(solver, a, b):
    """event_skips_double_crossing: torchdiffeq finds 100. Steps grow over the whole solve, and g dips below zero in one."""
    solver = solver if not hasattr(solver, "step_size") and not hasattr(solver, "dt") else replace(solver, max_nfe=10_000)
    x0, limit = double([1.0]), 100.0
    g = lambda t, x: (t - a) * (t - b)  # noqa: E731
    solution = integrate_until(still, x0, 0.0, g, solver, limit=limit)
    assert float(solution.t[-1]) == pytest.approx(a, abs=1e-6)


def test_a_jump_through_zero_and_a_pole_count_as_zeros():
    for g in (lambda t, x: torch.sign(t - 2), lambda t, x: 1 / (t - 2)):
        solution = integrate_until(still, double([1.0]), 0.0, g, RK4(0.3), limit=3.0)
        assert solution.status is Status.EVENT
        assert float(solution.t[-1]) == pytest.approx(2.0, abs=1e-9)


def test_every_says_how_closely_to_look():
    g = lambda t, x: torch.cos(20 * t) - 0.99 + 0 * t  # noqa: E731 — first zero at (2π − arccos 0.99) / 20
    exact = (2 * math.pi - math.acos(0.99)) / 20
    late = integrate_until(still, double([1.0]), 0.05, g, RK4(dt=100.0), limit=1000.0)
    assert float(late.t[-1]) > 2 * exact  # the documented limit: steps of a hundred, eight looks each
    close = integrate_until(still, double([1.0]), 0.05, g, RK4(dt=100.0), limit=1000.0, every=0.1)
    assert float(close.t[-1]) == pytest.approx(exact, abs=1e-9)


def test_a_zero_that_is_touched_is_no_event():
    """event_tangent_missed: documented, and not a matter of luck."""
    for c in (1.0, math.pi, 5.0):
        solution = integrate_until(still, double([1.0]), 0.0, lambda t, x, c=c: (t - c) ** 2, Dopri5(), limit=30.0)
        assert solution.status is Status.SUCCESS
        assert solution.t.tolist() == [0.0, 30.0]


# -- Failures and bad input


@solvers
def test_an_event_that_is_nan_is_an_error(solver):
    """event_nan: torchdiffeq hangs."""
    with pytest.raises(SolveError, match=r"the event is NaN at t = 1\.") as caught:
        integrate_until(turn, START, 0.0, lambda t, x: torch.sqrt(1 - t) + 1, solver, limit=5.0)
    assert caught.value.status is Status.DIVERGED
    assert caught.value.solution.t.tolist()[0] == 0.0
    with pytest.raises(SolveError, match=r"event 1 is NaN at t = 0") as caught:
        integrate_until(turn, START, 0.0, lambda t, x: (x[0, 0], x[0, 0] * math.nan), solver, limit=5.0)
    assert caught.value.solution.t.tolist() == [0.0]


@solvers
def test_a_solve_that_fails_keeps_what_it_reached(solver):
    square, one = (lambda t, x: x**2), double([1.0])
    loose = replace(solver, rtol=1e-4, atol=1e-6) if hasattr(solver, "rtol") else solver
    solution = integrate_until(square, one, 0.0, lambda t, x: x.sum() + 1, loose, limit=5.0, throw=False)
    assert solution.status is Status.DIVERGED
    assert 0.9 < float(solution.t[-1]) < 1.6
    with pytest.raises(SolveError, match="budget"):
        integrate_until(lambda t, x: -x, one, 0.0, lambda t, x: x.sum(), replace(solver, max_nfe=20), limit=1e2)
    with pytest.raises(SolveError, match="limit of 2 steps"):
        integrate_until(lambda t, x: -torch.sin(9 * t) * x, one, 0.0, lambda t, x: x.sum(), solver, limit=9.0, max_steps=2)


def test_the_solve_that_carries_gradients_may_fail_too():
    """The limit of seconds holds for both solves; without `throw` what was reached comes back."""
    calls = 0

    def f(t, x):
        nonlocal calls
        calls += 1
        if calls > 700:  # The search takes about 570 evaluations.
            time.sleep(0.01)
        return -x

    x0, event = double([1.0], requires_grad=True), lambda t, x: x.sum() - 0.3
    solution = integrate_until(f, x0, 0.0, event, RK4(0.01), limit=5.0, max_seconds=0.5, throw=False)
    assert solution.status is Status.SECONDS
    assert calls < 800


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"limit": math.inf}, ValueError, "limit must be a finite time"),
        ({"limit": math.nan}, ValueError, "limit must be a finite time"),
        ({"limit": 0.0}, ValueError, "limit must be a finite time after t0"),
        ({"direction": 2}, ValueError, "direction must be 1"),
        ({"every": 0.0}, ValueError, "every must be a positive time"),
        ({"t0": math.nan}, ValueError, "t0 must be one finite time"),
        ({"t0": torch.zeros(2)}, ValueError, "t0 must be one finite time"),
        ({"x0": START * math.nan}, ValueError, "x0 holds a NaN"),
        ({"event": 1.0}, TypeError, "event must be callable"),
        ({"event": lambda t, x: x}, TypeError, r"a real scalar tensor.*not \(2, 1\) torch.float64"),
        ({"event": lambda t, x: x[0, 0] > 0}, TypeError, r"a real scalar tensor.*not \(\) torch.bool"),
        ({"event": lambda t, x: 1.0}, TypeError, "a real scalar tensor.*not float"),
        ({"event": lambda t, x: 1j * x[0, 0]}, TypeError, r"a real scalar tensor.*not \(\) torch.complex128"),
        ({"event": lambda t, x: ()}, ValueError, "empty tuple"),
        ({"jumps": 0.5}, TypeError, "jumps must be a list of times"),
        ({"jumps": [math.nan]}, ValueError, "jumps"),
        ({"f": None}, TypeError, "right-hand side must be callable"),
        ({"solver": "dopri5"}, TypeError, "solver must be an integrator"),
        ({"solver": PerSample(Dopri5())}, TypeError, "PerSample does not: take one such as"),
        ({"solver": engine.SciPy()}, TypeError, "SciPy's solvers do not show their steps"),
    ],
)
def test_bad_input(changes, error, message):
    given = {"f": turn, "x0": START, "t0": 0.0, "event": lambda t, x: x[0, 0], "limit": 1.0} | changes
    with pytest.raises(error, match=message):
        integrate_until(**given)


def test_the_limit_must_be_given():
    with pytest.raises(TypeError, match="limit"):
        integrate_until(turn, START, 0.0, lambda t, x: x[0, 0])


def test_the_default_solver_and_gradient():
    assert integrate_until(turn, START, 0.0, lambda t, x: x[0, 0], limit=9.0).status is Status.EVENT
    assert isinstance(SOLVERS[0].gradient, Checkpointed)
    coarse = integrate_until(turn, START, 0.0, lambda t, x: x[0, 0], Euler(0.001), limit=9.0)
    assert float(coarse.t[-1]) == pytest.approx(math.pi / 2, abs=2e-3)
