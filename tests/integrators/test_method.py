"""What our solvers share: the clock, the steps and their carry, outputs inside a step, Hermite's cubic."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from integrators import engine
from integrators.checkpointed import Checkpointed
from integrators.dopri5 import Dopri5
from integrators.fixed import Euler
from integrators.gradients import Direct
from integrators.integrate import integrate
from integrators.integrator import CountedRightHandSide
from integrators.method import Clock, Method, Step, Trial, hermite, require_finite
from integrators.ragged import PerSample
from integrators.rk4 import RK4
from integrators.solution import SolveError, Statistics, Status
from integrators.state import combine

X0 = torch.tensor([[0.3], [0.5], [0.8]], dtype=torch.float64)
double = {"dtype": torch.float64}


@dataclass(frozen=True, kw_only=True)
class WholeStretch(Method):
    """A user's method with steps of its own: Taylor's of order 2 for dx/dt = −x, one step whatever the outputs."""

    def advance(self, f, t, h, carry, before):
        (x,) = carry
        slope = f(t, x)
        return Trial((combine(x, h, [1.0, -h / 2], [slope, slope]),))

    def steps(self, f, x0, clock, watch, stats):
        a, b = clock.outputs[0], clock.outputs[-1]
        inside = tuple((j, (s - a) / (b - a)) for j, s in enumerate(clock.outputs) if j)
        step = Step(a, b - a, 0.0, None, inside)
        carry = self.start(f, *clock.of(step)[:1], x0)
        trial = self.advance(f, *clock.of(step), carry, 0.0)
        watch.accepted(stats, a, b - a, 1.0)
        yield step, carry, trial


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_new_method_has_outputs_inside_its_steps_and_gradients_in_them(gradient, sign):
    """By the cubic between the ends of its one step, of error O(h³) as the step itself."""
    t = sign * torch.tensor([0.0, 0.05, 0.1], **double)
    x0, t = X0.clone().requires_grad_(), t.requires_grad_()
    x = integrate(lambda t, x: -x, x0, t, WholeStretch(gradient=gradient)).x
    exact = X0 * torch.exp(-t)[:, None, None]
    assert float((x - exact).detach().abs().max()) < 2e-4
    in_x, in_t = torch.autograd.grad(x[1].sum(), (x0, t))
    assert torch.allclose(in_x, torch.full_like(X0, math.exp(-sign * 0.05)), atol=1e-3)
    slope = -float(exact[1].detach().sum())
    assert torch.allclose(in_t, torch.tensor([-slope, slope, 0.0], **double), atol=5e-3)


@pytest.mark.parametrize("gradient", ["direct", None, Direct])
def test_what_is_no_gradient_is_refused(gradient):
    with pytest.raises(TypeError, match=r"gradient must be Checkpointed\(\), Direct\(\) or another such object, not"):
        Dopri5(gradient=gradient)


@pytest.mark.parametrize("budget", [0, -3, 2.5, True, None])
def test_a_budget_is_a_positive_integer(budget):
    with pytest.raises(ValueError, match="max_nfe must be a positive integer"):
        RK4(dt=0.1, max_nfe=budget)


def test_the_default_gradient_is_checkpointed():
    assert Euler(dt=0.1).gradient == Checkpointed()


# -- The clock


def test_marks_are_outputs_and_inner_jumps_in_order():
    clock = Clock(torch.tensor([0.0, 0.5, 2.0], **double), (2.0, 1.0, -1.0, 0.25, 0.5, 1.0))
    assert clock.marks == [0.0, 0.25, 0.5, 1.0, 2.0]
    assert clock.jumps == [0.25, 0.5, 1.0]
    back = Clock(torch.tensor([2.0, 0.5, 0.0], **double), (1.0, 0.25))
    assert back.marks == [2.0, 1.0, 0.5, 0.25, 0.0]
    assert (back.jumps, back.sign) == ([1.0, 0.25], -1.0)


def test_times_are_numbers_unless_a_gradient_is_wanted():
    step = Step(0.5, 0.25, 0.0, (0, 1, 2))
    assert Clock(torch.tensor([0.0, 1.0], **double)).of(step) == (0.5, 0.25)
    t = torch.tensor([0.0, 1.0], **double, requires_grad=True)
    with torch.no_grad():
        assert Clock(t).of(step) == (0.5, 0.25)
    now, h = Clock(t).of(step)
    assert (now.item(), h.item()) == (0.5, 0.25)  # as the step says, to the last bit
    assert torch.equal(torch.autograd.grad(now, t, retain_graph=True)[0], torch.tensor([0.5, 0.5], **double))
    assert torch.equal(torch.autograd.grad(h, t)[0], torch.tensor([-0.5, 0.5], **double))


def test_a_free_step_moves_with_the_origin_and_a_jump_stays():
    t = torch.tensor([0.0, 1.0], **double, requires_grad=True)
    now, h = Clock(t).of(Step(0.5, 0.25, 0.0))
    assert torch.equal(torch.autograd.grad(now, t, retain_graph=True)[0], torch.tensor([1.0, 0.0], **double))
    assert h == 0.25
    now, h = Clock(t, (0.4,)).of(Step(0.4, 0.3, 0.0, (1, 0, 2)))
    (found,) = torch.autograd.grad(now, t, retain_graph=True, allow_unused=True, materialize_grads=True)
    assert torch.equal(found, torch.zeros(2, **double))
    assert torch.equal(torch.autograd.grad(h, t)[0], torch.tensor([0.0, 0.5], **double))


# -- Inside a step


def cubic(s):
    return torch.stack([1 + 2 * s - 3 * s**2 + s**3, s**3], dim=-1)


def slope(s):
    return torch.stack([2 - 6 * s + 3 * s**2, 3 * s**2], dim=-1)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.floats(-2, 2), st.floats(-2, 2).filter(lambda h: abs(h) > 1e-3), st.floats(0, 1))
def test_hermite_is_exact_on_cubics(t, h, theta):
    a, b, s = (torch.tensor(v, **double) for v in (t, t + h, t + theta * h))
    expected = cubic(s)
    for kind in (torch.float64, torch.complex128):
        ends = [part.to(kind) for part in (cubic(a), slope(a), cubic(b), slope(b))]
        for step, th in ((h, theta), (torch.tensor(h, **double), torch.tensor(theta, **double))):
            found = hermite(*ends, step, th)
            assert found.dtype == kind
            assert float((found - expected).abs().max()) <= 1e-13 * 100
            pair = hermite(*[(part, 2 * part) for part in ends], step, th)
            assert torch.equal(pair[0], found)


def test_hermite_has_a_gradient_in_where():
    theta = torch.tensor(0.3, **double, requires_grad=True)
    ends = [g(torch.tensor(v, **double)) for v in (0.0, 2.0) for g in (cubic, slope)]
    (found,) = torch.autograd.grad(hermite(*ends, 2.0, theta)[0], theta)
    assert float(found) == pytest.approx(2 * float(slope(torch.tensor(0.6, **double))[0]))


def test_the_default_interpolation_is_of_order_three(observed_order):
    errors = []
    for dt in (0.2, 0.1, 0.05):
        solution = integrate(lambda t, x: -2 * t * x, X0, [0.0, 1.0], RK4(dt=dt), dense=True)
        s = torch.tensor(0.33 + dt / 2 - 0.33 % dt, **double)
        errors.append(float((solution.at(s) - X0 * torch.exp(-(s**2))).abs().max()))
    assert 3.5 <= observed_order(errors) <= 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_a_state_without_a_norm_has_diverged(dtype):
    large = torch.finfo(dtype).max
    for x in (X0.to(dtype) * float("nan"), X0.to(dtype) * large, X0.to(dtype) * large**0.5 * 2):
        named = r"diverged.* by step 1, at t = 0\.5\..*smaller dt, or an implicit integrator"
        with pytest.raises(SolveError, match=named) as caught:
            require_finite([(Step(0.0, 0.5, 0.0), X0.to(dtype))], x, Statistics(), None)
        assert caught.value.status is Status.DIVERGED
    require_finite([(Step(0.0, 0.5, 0.0), X0.to(dtype))], X0.to(dtype) * large**0.5 / 10, Statistics(), None)


def test_the_first_bad_step_is_named_with_the_cause():
    steps = [(Step(0.1 * k, 0.1, 0.1), X0 * (float("nan") if k > 2 else 1.0)) for k in range(4)]
    f = CountedRightHandSide(lambda t, x: x / (t < 0.25), X0, Statistics(), 100)
    with pytest.raises(SolveError, match=r"not finite at t = 0\.3 \(inf at index \[0, 0\].*, in step 9, at t = 0\.3\."):
        require_finite(steps, X0 * float("nan"), Statistics(accepted=9), f)


def test_a_method_is_replaced_field_by_field():
    assert replace(Dopri5(rtol=1e-3), gradient=Direct()) == Dopri5(rtol=1e-3, gradient=Direct())


@pytest.mark.parametrize(
    "solver",
    [RK4(dt=0.1), Dopri5(), PerSample(Dopri5()), engine.RK4(step_size=0.1), engine.Dopri5()],
    ids=["RK4", "Dopri5", "PerSample", "engine.RK4", "engine.Dopri5"],
)
@pytest.mark.parametrize("times", [[0.25, 0.5, 1.0], [1.0, 0.75, 0.5]])
@pytest.mark.parametrize("closed", [False, True])
def test_at_the_ends_of_a_solve_f_is_taken_from_the_inside_of_a_jump(solver, times, closed):
    """A solve from jump to jump is exact where f is constant between them."""
    low, high = min(times), max(times)

    def f(t, x):
        inside = (low <= t) & (t <= high) if closed else (low < t) & (t < high)
        return torch.where(inside, 2.0, 100.0).to(x.dtype) + 0 * x

    solution = integrate(f, X0, times, solver, jumps=[low, high])
    expected = X0 + 2 * (torch.tensor(times, dtype=torch.float64) - times[0])[:, None, None]
    assert float((solution.x - expected).abs().max()) <= 1e-12


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()], ids=["Direct", "Checkpointed"])
@pytest.mark.parametrize("kind", ["RK4", "Dopri5", "PerSample"])
def test_the_gradient_in_the_times_around_a_jump(kind, gradient):
    """f = −2x before 0.5 and 3 after: x(1) = x0 e^(−2(0.5 − t0)) + 1.5, so dx(1)/dt0 = 2 x0 e^(−0.8) for t0 = 0.1."""
    pair = Dopri5(1e-8, 1e-10, gradient=gradient)
    solver = {"RK4": RK4(dt=0.02, gradient=gradient), "Dopri5": pair, "PerSample": PerSample(pair)}[kind]
    t = torch.tensor([0.1, 0.3, 1.0], dtype=torch.float64, requires_grad=True)
    x = integrate(lambda t, x: torch.where(t < 0.5, -2 * x, 3 + 0 * x), X0, t, solver, jumps=[0.5]).x
    before, after = (torch.autograd.grad(row.sum(), t, retain_graph=True)[0] for row in x[1:])
    start = 2 * float(X0.sum())
    decayed = start * math.exp(-0.4)
    torch.testing.assert_close(before, torch.tensor([decayed, -decayed, 0.0], **double), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(after, torch.tensor([start * math.exp(-0.8), 0.0, 9.0], **double), rtol=1e-6, atol=1e-9)
