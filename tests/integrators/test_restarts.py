"""A solve that restarts is the chain of its stretches: states, gradients, statistics, budgets, failures."""

import itertools
import math

import pytest
import torch

from integrators.backward_euler import BackwardEuler
from integrators.checkpointed import Checkpointed
from integrators.dopri5 import Dopri5
from integrators.engine import Dopri5 as TorchDopri5
from integrators.events import integrate_until
from integrators.gradients import Direct
from integrators.integrate import integrate
from integrators.ragged import PerSample
from integrators.restarts import restarts_within
from integrators.rk4 import RK4
from integrators.solution import SolveError, Status

X0 = torch.tensor([[0.5], [1.0], [2.5]], dtype=torch.float64)
TIMES = [0.0, 0.2, 0.5, 0.7, 1.3]


class Slowing(torch.nn.Module):
    """dx/dt = −k a x + b x(0), with a the mean of x at the last restart."""

    def __init__(self, restarts=(0.5, 0.9), b=0.3):
        super().__init__()
        self.restarts = restarts
        self.k = torch.nn.Parameter(torch.tensor(0.8, dtype=torch.float64))
        self.b = b

    def starting_at(self, x0):
        return self.restarting_at(torch.zeros(()), x0, x0)

    def restarting_at(self, t, x, x0):
        a, k, b = x.mean(), self.k.clone(), self.b
        return lambda t, x: -k * a * x + b * x0


def exact(x0, k, b, ends):
    """The closed form of `Slowing` over stretches between `ends`."""
    x = x0
    for begin, end in itertools.pairwise(ends):
        rate = k * x.mean()
        x = b * x0 / rate + (x - b * x0 / rate) * torch.exp(-rate * (end - begin))
    return x


solvers = pytest.mark.parametrize(
    "solver",
    [Dopri5(rtol=1e-9, atol=1e-11), RK4(dt=0.01), TorchDopri5(rtol=1e-9, atol=1e-11), PerSample(Dopri5(rtol=1e-9, atol=1e-11))],
    ids=lambda s: type(s).__name__,
)


@solvers
def test_it_reaches_the_closed_form_at_every_output(solver):
    f = Slowing()
    path = integrate(f, X0[None], TIMES, solver)
    assert path.t.tolist() == TIMES
    assert path.status is Status.SUCCESS
    for t, x in zip(TIMES[1:], path.x[1:], strict=True):
        ends = [0.0, *(s for s in f.restarts if s < t), t]
        assert torch.allclose(x[0], exact(X0, f.k, f.b, ends), atol=1e-7)


@pytest.mark.parametrize("restarts", [(), (0.0, 1.3), (-1.0, 5.0)])
def test_restarts_at_the_ends_and_outside_change_nothing(restarts):
    solver = Dopri5()
    plain = Slowing(())
    assert torch.equal(integrate(Slowing(restarts), X0, TIMES, solver).x, integrate(plain.starting_at(X0), X0, TIMES, solver).x)


def test_it_is_the_chain_of_its_stretches_to_the_last_bit():
    f, solver = Slowing((0.9, 0.5, 0.9)), RK4(dt=0.07)
    path = integrate(f, X0, TIMES, solver)
    first = integrate(f.starting_at(X0), X0, [0.0, 0.2, 0.5], solver)
    second = integrate(f.restarting_at(0.5, first.final, X0), first.final, [0.5, 0.7, 0.9], solver)
    third = integrate(f.restarting_at(0.9, second.final, X0), second.final, [0.9, 1.3], solver)
    assert torch.equal(path.x, torch.stack([*first.x, second.x[1], third.final]))
    assert path.stats.nfe == first.stats.nfe + second.stats.nfe + third.stats.nfe
    assert path.stats.accepted == first.stats.accepted + second.stats.accepted + third.stats.accepted


def test_backwards_in_time_the_restarts_come_in_reverse():
    f = Slowing((0.4, 0.9), b=0.0)
    x = integrate(f, X0, [1.0, 0.6, 0.0], Dopri5(rtol=1e-10, atol=1e-12)).final
    a = X0 * torch.exp(f.k * X0.mean() * 0.1)
    b = a * torch.exp(f.k * a.mean() * 0.5)
    assert torch.allclose(x, b * torch.exp(f.k * b.mean() * 0.4), rtol=1e-8)


gradients = pytest.mark.parametrize("gradient", [Direct(), Checkpointed(), Checkpointed(snapshots=2)], ids=str)


@gradients
def test_gradients_are_exact_in_state_parameter_and_times(gradient):
    f = Slowing()

    def path(x0, k, inner):
        f.k = None
        f.__dict__["k"] = k
        t = torch.cat([inner.new_zeros(1), inner])
        return integrate(f, x0, t, RK4(dt=0.13, gradient=gradient)).x

    # An output at a restart moves, the restart does not.
    inner = torch.tensor([0.2, 0.5, 0.7, 1.3], dtype=torch.float64, requires_grad=True)
    x0, k = X0.clone().requires_grad_(), torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    found = torch.autograd.grad(path(x0, k, inner).square().sum(), (x0, k, inner))
    step = 1e-6
    for which, value in enumerate((x0, k, inner)):
        expected = torch.zeros(value.numel(), dtype=torch.float64)
        for i in range(value.numel()):
            sides = []
            for sign in (1, -1):
                moved = [part.detach().clone() for part in (x0, k, inner)]
                moved[which].view(-1)[i] += sign * step
                sides.append(float(path(*moved).detach().square().sum()))
            expected[i] = (sides[0] - sides[1]) / (2 * step)
        # Beside a restart two stretches answer: the output that lies on one is held against the slope before it, below.
        keep = torch.arange(value.numel()) != (1 if which == 2 else -1)
        assert torch.allclose(found[which].reshape(-1)[keep], expected[keep], rtol=1e-6, atol=1e-7)
    end = path(x0, k, inner)[2]
    slope = -k * X0.mean() * end + f.b * X0
    assert torch.allclose(found[2][1], (2 * end * slope).sum())


def test_direct_has_second_derivatives():
    f = Slowing()
    solver = RK4(dt=0.25, gradient=Direct())
    assert torch.autograd.gradgradcheck(lambda x: integrate(f, x, [0.0, 1.0], solver).final, X0.clone().requires_grad_())


@gradients
def test_backward_evaluations_are_those_of_all_stretches(gradient):
    path = integrate(Slowing(), X0.clone().requires_grad_(), TIMES, RK4(dt=0.05, gradient=gradient))
    assert path.stats.nfe_backward == 0
    path.final.sum().backward()
    repeated = not isinstance(gradient, Direct)
    assert path.stats.nfe_backward >= 0.8 * path.stats.nfe if repeated else path.stats.nfe_backward == 0
    # One repetition a stretch, two with so few snapshots: never one stretch for every piece of the next.
    assert path.stats.nfe_backward <= 2.5 * path.stats.nfe


def test_tuples_and_complex_states_are_joined_part_by_part():
    class Turning(torch.nn.Module):
        restarts = (0.4,)

        def starting_at(self, x0):
            return self.restarting_at(None, x0, x0)

        def restarting_at(self, t, x, x0):
            return lambda t, y: (1j * y[0], -x[1].mean() * y[1])

    u, v = torch.ones(2, 1, dtype=torch.complex128), torch.ones(2, 1, dtype=torch.float64)
    path = integrate(Turning(), (u, v), [0.0, 0.4, 1.0], Dopri5(rtol=1e-9, atol=1e-11))
    assert torch.allclose(path.final[0], torch.full_like(u, complex(math.cos(1.0), math.sin(1.0))), atol=1e-7)
    middle = math.exp(-0.4)
    assert torch.allclose(
        path.x[1][:, 0, 0], torch.tensor([1, middle, middle * math.exp(-0.6 * middle)], dtype=v.dtype), atol=1e-7
    )


def test_an_output_a_hair_from_a_restart_is_harmless():
    f = Slowing((0.1 + 0.2, 0.3))
    for t in ([0.0, 0.3, 1.0], [0.0, 0.1 + 0.2, 1.0], [0.0, 0.3, 0.1 + 0.2, 1.0]):
        for solver in (Dopri5(rtol=1e-9, atol=1e-11), RK4(dt=0.05)):
            x = integrate(f, X0, t, solver).final
            assert torch.allclose(x, exact(X0, f.k, f.b, [0.0, 0.3, 1.0]), atol=1e-6)


@solvers
def test_dense_output_reaches_over_all_stretches(solver):
    f = Slowing()
    path = integrate(f, X0[None], TIMES, solver, dense=True)
    for t, x in zip(TIMES, path.x, strict=True):
        assert torch.allclose(path.at(t), x, atol=1e-8)
    assert torch.allclose(path.at(1.1)[0], exact(X0, f.k, f.b, [0.0, 0.5, 0.9, 1.1]), atol=1e-5)
    with pytest.raises(ValueError, match=r"outside the solve, which covers 0 to 1\.3"):
        path.at(1.4)


def test_the_history_is_one():
    history = integrate(Slowing(), X0, TIMES, RK4(dt=0.1), history=True).stats.history
    ends = [t + h for t, h in history]
    assert ends[:-1] == pytest.approx([t for t, _ in history[1:]])
    assert ends[-1] == 1.3
    assert {0.5, 0.9} <= {round(t, 12) for t, _ in history}


def test_samples_are_joined_too():
    stats = integrate(Slowing(), X0.expand(4, -1, -1), TIMES, PerSample(Dopri5()), history=True).stats
    assert sum(stats.samples.accepted) == stats.accepted
    assert [len(steps) for steps in stats.samples.history] == stats.samples.accepted


class Watcher:
    def __init__(self, stop=math.inf):
        self.seen, self.begun, self.stop = [], 0, stop

    def begin(self, t, x):
        self.begun += 1

    def see(self, t, x):
        self.seen.append(t)
        if t > self.stop:
            raise SolveError("seen enough", Status.MONITOR)


def test_the_monitor_sees_one_solve():
    watcher = Watcher()
    path = integrate(Slowing(), X0, TIMES, RK4(dt=0.1), monitor=watcher)
    assert watcher.begun == 1
    assert len(watcher.seen) == path.stats.accepted
    assert watcher.seen == sorted(watcher.seen)


def test_a_monitor_that_stops_keeps_all_that_was_reached():
    whole = integrate(Slowing(), X0, TIMES, RK4(dt=0.1))
    with pytest.raises(SolveError, match="seen enough") as caught:
        integrate(Slowing(), X0, TIMES, RK4(dt=0.1), monitor=Watcher(stop=1.0))
    kept = caught.value.solution
    assert kept.status is Status.MONITOR
    assert kept.t.tolist() == TIMES[:4]
    assert torch.equal(kept.x, whole.x[:4])
    again = integrate(Slowing(), X0, TIMES, RK4(dt=0.1), monitor=Watcher(stop=1.0), throw=False)
    assert again.status is Status.MONITOR
    assert torch.equal(again.x, kept.x)


@pytest.mark.parametrize("limit", [3, 7, 11])
def test_the_limit_of_steps_is_that_of_the_whole(limit):
    with pytest.raises(SolveError, match=f"its limit of {limit} steps") as caught:
        integrate(Slowing(), X0, TIMES, RK4(dt=0.1), max_steps=limit)
    assert caught.value.solution.stats.accepted == limit
    assert caught.value.status is Status.STEPS


def test_the_limit_of_seconds_is_that_of_the_whole():
    with pytest.raises(SolveError, match="its limit of 0 seconds"):
        integrate(Slowing(), X0, TIMES, RK4(dt=0.1), max_seconds=0.0)


def test_a_stretch_that_diverges_keeps_those_before_it():
    class Broken(Slowing):
        def restarting_at(self, t, x, x0):
            if float(t) > 0.6:
                return lambda t, x: x * math.nan
            return super().restarting_at(t, x, x0)

    with pytest.raises(SolveError, match=r"not finite at t = 0\.9") as caught:
        integrate(Broken(), X0, TIMES, Dopri5())
    assert caught.value.solution.t.tolist() == [0.0, 0.2, 0.5, 0.7]
    assert caught.value.solution.status is Status.DIVERGED


def test_jumps_of_a_stretch_end_a_step_in_it():
    class Stepping(Slowing):
        def restarting_at(self, t, x, x0):
            f = super().restarting_at(t, x, x0)
            f.jumps = (0.33, 1.01)
            return f

    history = integrate(Stepping(), X0, TIMES, Dopri5(), history=True, jumps=[0.77]).stats.history
    assert {0.33, 0.77, 1.01} <= {round(t, 12) for t, _ in history}


def test_without_a_solver_one_is_chosen_for_every_stretch():
    path = integrate(Slowing(), X0, TIMES)
    assert path.stats.reason.startswith("Dopri5: not stiff")
    assert torch.allclose(path.final, exact(X0, torch.tensor(0.8), 0.3, [0.0, 0.5, 0.9, 1.3]), atol=1e-4)


def test_a_linear_stretch_is_stepped_implicitly():
    class Part:
        def __init__(self, rate):
            self.rate = rate

        def __matmul__(self, x):
            return -self.rate * x

        def norm_bound(self):
            return float(self.rate)

        def solve(self, shift, b):
            return b / (1 + shift * self.rate)

    class Linear(torch.nn.Module):
        def __init__(self, rate):
            super().__init__()
            self.linear = Part(rate)

        def forward(self, t, x):
            return self.linear @ x

    class Stiff(torch.nn.Module):
        restarts = (0.5,)

        def starting_at(self, x0):
            return Linear(x0.mean())

        def restarting_at(self, t, x, x0):
            return Linear(x.mean())

    x = X0
    for _ in range(2):
        rate = x.mean()
        for _ in range(5):
            x = x / (1 + 0.1 * rate)
    path = integrate(Stiff(), X0, [0.0, 1.0], BackwardEuler(dt=0.1))
    assert torch.allclose(path.final, x)
    assert path.stats.solves == 10


def test_the_bar_fills_once(capsys):
    integrate(Slowing(), X0, TIMES, RK4(dt=0.1), progress=True)


def test_events_do_not_follow_restarts_and_say_so():
    with pytest.raises(TypeError, match=r"Slowing restarts at \[0\.5, 0\.9\], which only integrate follows"):
        integrate_until(Slowing(), X0, 0.0, lambda t, x: x.mean() - 0.1, Dopri5(), limit=3.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_restart_that_is_no_time_is_refused(bad):
    with pytest.raises(ValueError, match="restarts holds a NaN or infinite time"):
        integrate(Slowing((0.5, bad)), X0, TIMES, RK4(dt=0.1))


def test_restarts_need_a_way_to_go_on():
    def f(t, x):
        return -x

    f.restarts = (0.5,)
    with pytest.raises(TypeError, match=r"must define restarting_at\(t, x, x0\)"):
        integrate(f, X0, TIMES, RK4(dt=0.1))


def test_the_restarts_within_a_solve_are_sorted_along_it():
    f = Slowing((3, 1, 2, 2, 0))
    assert restarts_within(f, torch.tensor([0.0, 3.0])) == [1, 2]
    assert restarts_within(f, torch.tensor([2.5, 0.5])) == [2, 1]
    assert restarts_within(lambda t, x: x, torch.tensor([0.0, 1.0])) == []
