"""Limits, the history, the bar and the monitor: each follows the accepted steps, and what ends a solve is a typed error."""

import itertools
import math
import time

import pytest
import torch

from integrators import (
    RK4,
    RKC2,
    SBDF2,
    SDIRK3,
    Adjoint,
    BackwardEuler,
    Checkpointed,
    Direct,
    Dopri5,
    Euler,
    Interpolated,
    PerSample,
    engine,
    integrate,
)
from integrators.solution import SolveError, Statistics, Status
from integrators.state import parts_of, state_map
from integrators.watch import Watch


def assert_near(a, b, tolerance):
    assert float((a - b).detach().abs().max()) <= tolerance


class Bar:
    def __init__(self):
        self.reached = []

    def reach(self, fraction):
        self.reached.append(fraction)


def test_steps_are_counted_and_kept_only_if_asked():
    for history in (False, True):
        watch, stats, bar = Watch(history=history), Statistics(), Bar()
        watch.bar = bar
        for k in range(3):
            watch.accepted(stats, 0.5 * k, 0.5, (k + 1) / 3)
        assert stats.accepted == 3
        assert stats.history == ([(0.0, 0.5), (0.5, 0.5), (1.0, 0.5)] if history else [])
        assert bar.reached == [1 / 3, 2 / 3, 1.0]


def test_the_step_limit_is_exact():
    watch, stats = Watch(max_steps=2), Statistics()
    watch.accepted(stats, 0.0, 0.5, 0.1)
    watch.accepted(stats, 0.5, 0.5, 0.2)
    with pytest.raises(SolveError, match=r"reached t = 1 and its limit of 2 steps: .*raise max_steps") as caught:
        watch.accepted(stats, 1.0, 0.5, 0.3)
    assert caught.value.status is Status.STEPS
    assert stats.accepted == 2


def test_the_time_limit_counts_from_the_making_of_the_watch():
    watch = Watch(max_seconds=0.01)
    watch.check_clock(0.0)
    time.sleep(0.02)
    for act in (lambda: watch.check_clock(0.7), lambda: watch.accepted(Statistics(), 0.2, 0.5, 0.5)):
        with pytest.raises(SolveError, match=r"reached t = 0\.7 and its limit of 0\.01 seconds: .*raise max_seconds") as caught:
            act()
        assert caught.value.status is Status.SECONDS


def test_without_limits_nothing_ends():
    watch, stats = Watch(), Statistics()
    assert (watch.max_steps, watch.max_seconds, watch.jumps, watch.dense) == (math.inf, math.inf, (), False)
    for k in range(100):
        watch.accepted(stats, float(k), 1.0, 0.0)
    watch.check_clock(0.0)
    assert stats.accepted == 100


@pytest.mark.parametrize("name", ["max_steps", "max_seconds"])
@pytest.mark.parametrize("value", [math.nan, -1, True, None, "5"])
def test_limits_that_are_none_are_refused(name, value):
    """NaN would be no limit at all."""
    with pytest.raises(ValueError, match=rf"{name} must be a number that is not negative, not"):
        Watch(**{name: value})


class Diary:
    """A monitor that writes down what it sees, and stops the solve after so many steps."""

    def __init__(self, stop_after=10**9):
        self.begun, self.seen, self.stop_after = [], [], stop_after

    def begin(self, t, x):
        assert not torch.is_grad_enabled()
        self.begun.append((t, x))
        self.seen = []

    def see(self, t, x):
        assert not torch.is_grad_enabled()
        assert not any(part.requires_grad for part in parts_of(x))
        self.seen.append((t, state_map(torch.clone, x)))
        if len(self.seen) >= self.stop_after:
            raise SolveError("enough", Status.MONITOR)


def decay(t, x):
    return -x


class Decay(torch.nn.Module):
    """−k x with its linear part."""

    def __init__(self):
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor(0.8, dtype=torch.float64))

    @property
    def linear(self):
        return self

    def __matmul__(self, x):
        return -self.k * x

    def norm_bound(self):
        return float(self.k)

    def solve(self, shift, b):
        return b / (1 + shift * self.k)

    def forward(self, t, x):
        return -self.k * x


X0 = torch.tensor([[1.0], [2.0], [-0.5]], dtype=torch.float64)
SOLVERS = {
    "Euler": Euler(dt=0.1),
    "RK4": RK4(dt=0.1),
    "SBDF2": SBDF2(dt=0.1),
    "BackwardEuler": BackwardEuler(dt=0.1),
    "Dopri5": Dopri5(1e-5, 1e-7),
    "SDIRK3": SDIRK3(1e-4, 1e-6),
    "RKC2": RKC2(1e-4, 1e-6),
    "PerSample": PerSample(Dopri5(1e-5, 1e-7)),
    "engine, adaptive": engine.Dopri5(1e-5, 1e-7),
    "engine, on a grid": engine.RK4(step_size=0.1),
}


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)], ids=["forwards", "backwards"])
@pytest.mark.parametrize("name", SOLVERS)
def test_a_monitor_sees_the_start_and_every_accepted_step_once(name, ends):
    diary, f = Diary(), Decay()
    with torch.no_grad():
        solution = integrate(f, X0, [ends[0], 0.45, ends[1]], SOLVERS[name], monitor=diary)
    assert [t for t, _ in diary.begun] == [ends[0]]
    assert torch.equal(diary.begun[0][1], X0)
    times = [t for t, _ in diary.seen]
    sign = 1 if ends[1] > ends[0] else -1
    assert all(sign * (b - a) >= 0 for a, b in itertools.pairwise(times))
    if name != "PerSample":
        assert len(set(times)) == len(times) == solution.stats.accepted
    assert times[-1] == ends[1]
    assert_near(diary.seen[-1][1], solution.final, 1e-12)
    # Every state is the solution at its time, as far as the solver is right.
    if name != "PerSample":
        for t, x in diary.seen:
            assert_near(x, X0 * math.exp(-0.8 * (t - ends[0])), 0.2)


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed(snapshots=2), Adjoint(), Interpolated()])
def test_a_monitor_sees_the_forward_pass_alone(gradient):
    diary, f = Diary(), Decay()
    x0 = X0.clone().requires_grad_()
    solution = integrate(f, x0, [0.0, 0.5, 1.0], Dopri5(1e-6, 1e-8, gradient=gradient), monitor=diary)
    seen = len(diary.seen)
    assert seen == solution.stats.accepted
    plain = integrate(f, x0, [0.0, 0.5, 1.0], Dopri5(1e-6, 1e-8, gradient=gradient))
    one, other = (torch.autograd.grad(s.final.sum(), (x0, f.k)) for s in (solution, plain))
    assert len(diary.seen) == seen
    assert len(diary.begun) == 1
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(solution.x, plain.x)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_monitor_that_stops_keeps_what_was_reached(name):
    times = torch.linspace(0, 1, 41, dtype=torch.float64) if "grid" in name or "Dopri" in name or "SDIRK" in name else None
    t = [0.0, 0.1, 0.5, 1.0] if times is None else times
    solver, f = SOLVERS[name], Decay()
    diary = Diary(stop_after=3)
    with torch.no_grad():
        whole = integrate(f, X0, t, solver)
        with pytest.raises(SolveError, match="enough") as caught:
            integrate(f, X0, t, solver, monitor=diary)
        assert caught.value.status is Status.MONITOR
        kept = caught.value.solution
        assert kept.status is Status.MONITOR
        assert 1 <= len(kept.t) < len(whole.t)
        assert_near(kept.x, whole.x[: len(kept.t)], 1e-5)
        again = integrate(f, X0, t, solver, monitor=Diary(stop_after=3), throw=False)
    assert again.status is Status.MONITOR
    assert torch.equal(again.x, kept.x)
    # Nothing that was reached before the step that was stopped is lost.
    reached = diary.seen[1][0]
    if name != "PerSample":
        assert len(kept.t) >= int((torch.as_tensor(t) <= reached + 1e-12).sum())


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed(snapshots=2)])
def test_what_a_stopped_solve_kept_has_its_gradient(gradient):
    f, x0 = Decay(), X0.clone().requires_grad_()
    solver = RK4(dt=0.1, gradient=gradient)
    kept = integrate(f, x0, [0.0, 0.1, 0.2, 0.6, 1.0], solver, monitor=Diary(stop_after=4), throw=False)
    assert len(kept.t) == 3
    expected = integrate(f, x0, [0.0, 0.1, 0.2], solver)
    one, other = (torch.autograd.grad(s.x.sum(), (x0, f.k)) for s in (kept, expected))
    for a, b in zip(one, other, strict=True):
        assert_near(a, b, 1e-14)


def test_tuples_jumps_and_complex_states_are_shown_as_they_are():
    diary = Diary()
    x0 = (X0, 1j * X0.to(torch.complex128))
    for solver in (RK4(dt=0.25), engine.Dopri5(1e-6, 1e-8), Dopri5(1e-6, 1e-8)):
        integrate(lambda t, x: (-x[0], 1j * x[1]), x0, [0.0, 1.0], solver, jumps=[0.3], monitor=diary)
        assert all(isinstance(x, tuple) and x[1].is_complex() for _, x in diary.seen)
        # A jump ends a step, and is seen once.
        assert [t for t, _ in diary.seen].count(0.3) == 1


def test_what_is_no_monitor_is_refused_before_the_solve():
    with pytest.raises(TypeError, match=r"monitor must offer begin\(t, x\) and see\(t, x\)"):
        integrate(decay, X0, [0.0, 1.0], RK4(dt=0.1), monitor=print)


def test_an_error_of_the_monitor_itself_is_not_hidden():
    class Broken(Diary):
        def see(self, t, x):
            raise ZeroDivisionError("of its own")

    for solver in SOLVERS.values():
        with pytest.raises(ZeroDivisionError, match="of its own"):
            integrate(Decay(), X0, [0.0, 1.0], solver, monitor=Broken())
