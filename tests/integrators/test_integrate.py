"""`integrate` refuses, with cause and cure, what no solver could use, and reports failure as it was asked to."""

import itertools
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from integrators.adjoint import Adjoint
from integrators.bosh3 import Bosh3
from integrators.dopri5 import Dopri5
from integrators.exponential import Exponential
from integrators.fixed import Euler, TruncatedTaylor
from integrators.gradients import Direct
from integrators.integrate import integrate
from integrators.rk4 import RK4
from integrators.solution import SolveError, Status

X0 = torch.tensor([[0.3], [0.5], [0.8]], dtype=torch.float64)
NAN = float("nan")
SOLVERS = [Dopri5(), Bosh3(), Dopri5(gradient=Adjoint()), RK4(dt=0.1), Euler(dt=0.1)]
solvers = pytest.mark.parametrize(
    "solver", SOLVERS, ids=lambda s: type(s).__name__ + type(getattr(s, "gradient", s)).__name__
)


def decay(t, x):
    return -x


def test_the_default_solver_is_dopri5():
    assert torch.equal(integrate(decay, X0, [0.0, 1.0]).x, integrate(decay, X0, [0.0, 1.0], Dopri5()).x)


@pytest.mark.parametrize("t", [[0.0, 0.1, 0.7], (0.0, 0.1, 0.7), torch.tensor([0.0, 0.1, 0.7], dtype=torch.float64)])
def test_times_are_kept_in_double_precision_however_they_are_given(t):
    assert integrate(decay, X0, t, RK4(dt=1.0)).t.tolist() == [0.0, 0.1, 0.7]


def test_whole_numbers_are_times():
    assert integrate(decay, X0, [0, 1, 2], RK4(dt=1.0)).t.tolist() == [0.0, 1.0, 2.0]
    assert integrate(decay, X0, torch.arange(3), RK4(dt=1.0)).t.dtype == torch.float64


@pytest.mark.parametrize(
    ("t", "error", "message"),
    [
        ([0.0, 1.0, 1.0], ValueError, r"strictly decreasing, but repeats from t\[1\] = 1.0 to t\[2\] = 1.0"),
        ([1.0, 1.0], ValueError, r"repeats from t\[0\] = 1.0 to t\[1\] = 1.0"),
        ([0.0, 1.0, 0.5], ValueError, r"decreases from t\[1\] = 1.0 to t\[2\] = 0.5: sort the times"),
        ([1.0, 0.5, 0.7], ValueError, r"increases from t\[1\] = 0.5 to t\[2\] = 0.7: sort the times"),
        ([0.0, NAN], ValueError, r"NaN or infinite time: \[0.0, nan\]"),
        ([0.0, math.inf], ValueError, r"NaN or infinite time: \[0.0, inf\]"),
        ([0.0], ValueError, r"at least two times, as in \[0.0, 1.0\], not shape \(1,\)"),
        ([], ValueError, r"at least two times"),
        (1.0, ValueError, r"at least two times.* not shape \(\)"),
        ([[0.0, 1.0]], ValueError, r"at least two times.* not shape \(1, 2\)"),
        ([0.0, 1j], TypeError, r"t must hold real numbers, not torch.complex64"),
        (torch.tensor([0.0, 1j]), TypeError, r"t must hold real numbers, not torch.complex64"),
        (torch.tensor([False, True]), TypeError, r"t must hold real numbers, not torch.bool"),
    ],
)
def test_bad_times_are_refused(t, error, message):
    with pytest.raises(error, match=message):
        integrate(decay, X0, t)


@pytest.mark.parametrize(
    ("x0", "error", "message"),
    [
        (
            torch.tensor([[0.0], [NAN]]),
            ValueError,
            r"x0 holds a NaN or infinite value, the first at index \[1, 0\]: repair",
        ),
        (torch.tensor([math.inf]), ValueError, r"x0 holds a NaN or infinite value, the first at index \[0\]"),
        (torch.zeros(0, 3), ValueError, r"x0 is empty \(shape \(0, 3\)\)"),
        (torch.ones(3, dtype=torch.int64), TypeError, r"x0 has dtype torch.int64: integrate in float32, float64"),
        (torch.ones(3, dtype=torch.float16), TypeError, r"x0 has dtype torch.float16: integrate in float32, float64"),
        (torch.ones(3, dtype=torch.bfloat16), TypeError, r"x0 has dtype torch.bfloat16"),
        ([torch.ones(3)], TypeError, r"x0 must be a torch.Tensor, not list: use torch.as_tensor"),
        (1.0, TypeError, r"x0 must be a torch.Tensor, not float"),
        ((), ValueError, r"x0 is an empty tuple"),
        ((X0, X0.float()), TypeError, r"parts of x0 differ in device or precision .* nothing is converted silently"),
        ((X0, [1.0]), TypeError, r"x0\[1\] must be a torch.Tensor, not list"),
        ((X0, X0 * NAN), ValueError, r"x0\[1\] holds a NaN"),
    ],
)
@solvers
def test_bad_states_are_refused(x0, error, message, solver):
    with pytest.raises(error, match=message):
        integrate(lambda t, x: x, x0, [0.0, 1.0], solver)


@pytest.mark.parametrize("solver", ["dopri5", Dopri5, 0.1])
def test_what_is_not_an_integrator_is_refused(solver):
    with pytest.raises(TypeError, match=r"solver must be an integrator such as Dopri5\(rtol=1e-6\), not"):
        integrate(decay, X0, [0.0, 1.0], solver)


def test_what_is_not_callable_is_refused():
    with pytest.raises(TypeError, match=r"must be callable as f\(t, x\), not Tensor"):
        integrate(X0, X0, [0.0, 1.0])


def mutating(t, x):
    return x.mul_(-1)


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (
            lambda t, x: x[:1],
            ValueError,
            r"returns \(1, 1\) torch.float64 for a state of \(3, 1\) .*nothing is broadcast",
        ),
        (lambda t, x: x.sum(), ValueError, r"returns \(\) torch.float64 for a state of \(3, 1\)"),
        (lambda t, x: x.float(), ValueError, r"returns \(3, 1\) torch.float32 for a state of \(3, 1\) torch.float64"),
        (lambda t, x: 1j * x, ValueError, r"returns \(3, 1\) torch.complex128 for a state of \(3, 1\) torch.float64"),
        (lambda t, x: None, TypeError, r"must return a tensor, not NoneType"),
        (lambda t, x: 0.0, TypeError, r"must return a tensor, not float"),
        (lambda t, x: [x], TypeError, r"must return a tensor, not list"),
        (lambda t, x: (x,), TypeError, r"must return one tensor, like the state, not tuple"),
        (mutating, ValueError, r"changes its argument x in place: write x = x \+ \.\.\. instead of x \+= \.\.\."),
    ],
)
@solvers
def test_right_hand_sides_that_return_something_else_are_refused(f, error, message, solver):
    with pytest.raises(error, match=message):
        integrate(f, X0.clone(), [0.0, 1.0], solver)


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda t, x: x[0], TypeError, r"must return a tuple of tensors, like the state, not Tensor"),
        (lambda t, x: (x[0],), ValueError, r"returns 1 tensors for a state of 2"),
        (
            lambda t, x: (x[0], x[0]),
            ValueError,
            r"returns \(3, 1\) torch.float64 for a state of \(2,\) torch.complex128",
        ),
    ],
)
@solvers
def test_a_tuple_state_needs_the_same_tuple_back(f, error, message, solver):
    with pytest.raises(error, match=message):
        integrate(f, (X0, torch.ones(2, dtype=torch.complex128)), [0.0, 1.0], solver)


def buffered():
    """-x, written again and again into the one tensor that is returned."""
    buffer = torch.zeros_like(X0)
    return lambda t, x: buffer.copy_(-x)


@solvers
def test_a_right_hand_side_that_reuses_its_output_is_refused_or_does_no_harm(solver):
    try:
        solution = integrate(buffered(), X0, [0.0, 1.0], solver)
    except ValueError as error:
        assert "clone" in str(error)  # noqa: PT017 — either outcome is right
    else:
        assert torch.allclose(solution.x, integrate(decay, X0, [0.0, 1.0], solver).x, rtol=1e-12)


class Plain(torch.nn.Module):
    def forward(self, t, x):
        return -x


@pytest.mark.parametrize(
    "solver", [Exponential(), TruncatedTaylor(dt=0.1)], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("f", [decay, Plain()])
def test_linear_solvers_refuse_other_equations(solver, f):
    message = rf"{type(solver).__name__} needs a linear.*, and {type(f).__name__} exposes no linear"
    with pytest.raises(TypeError, match=message + r"[\s\S]*use .*RK4"):
        integrate(f, X0, [0.0, 1.0], solver)


@solvers
def test_the_initial_state_is_neither_changed_nor_aliased(solver):
    x0 = X0.clone()
    solution = integrate(decay, x0, [0.0, 0.5, 1.0], solver)
    solution.x.zero_()
    assert torch.equal(x0, X0)


@solvers
def test_two_solves_agree_to_the_last_bit(solver):
    assert torch.equal(integrate(decay, X0, [0.0, 1.0], solver).x, integrate(decay, X0, [0.0, 1.0], solver).x)


@solvers
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_dtype_and_shape_are_kept(solver, dtype):
    x0 = torch.ones(2, 3, 1, dtype=dtype)
    solution = integrate(decay, x0, [0.0, 0.5, 1.0], solver)
    assert solution.x.dtype == dtype
    assert solution.x.shape == (3, 2, 3, 1)
    assert torch.equal(solution.x[0], x0)


@solvers
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_solves_without_gradients(solver, mode):
    expected = integrate(decay, X0, [0.0, 1.0], solver)
    with mode():
        solution = integrate(decay, X0.clone(), [0.0, 1.0], solver)
        assert torch.equal(solution.x, expected.x)


def square(t, x):
    return x**2


def nan_after_half(t, x):
    return -x if t <= 0.5 else x * NAN


@pytest.mark.parametrize(
    ("solver", "tolerance"),
    [(Dopri5(), 1e-4), (Bosh3(), 1e-4), (Dopri5(gradient=Adjoint()), 1e-4), (RK4(dt=1e-3), 1e-8)],
)
def test_blow_up_is_a_solve_error_that_names_the_time_and_keeps_the_states_before_it(solver, tolerance):
    """y' = y² from 1 is 1 / (1 − t), so it ends at t = 1."""
    one, t = torch.ones(1, dtype=torch.float64), [0.0, 0.5, 0.9, 2.0]
    with pytest.raises(SolveError, match=r"t = 1(\.0\d*)?\b|t = 0\.99") as caught:
        integrate(square, one, t, solver)
    assert caught.value.status is Status.DIVERGED
    kept = caught.value.solution
    assert kept.status is Status.DIVERGED
    assert kept.t.tolist() == t[:3]
    assert torch.allclose(kept.x[:, 0], 1 / (1 - kept.t), rtol=10 * tolerance)
    assert kept.stats.nfe > 0
    returned = integrate(square, one, t, solver, throw=False)
    assert returned.status is Status.DIVERGED
    assert torch.equal(returned.x, kept.x)


@solvers
def test_a_nan_on_the_way_is_a_solve_error_that_names_the_time_and_keeps_the_states_before_it(solver):
    t = [0.0, 0.2, 0.4, 1.0]
    named = r"(?i)diverged.*(t = 0\.[5-9].*not finite|not finite at t = 0\.[5-9]).*look at f"
    with pytest.raises(SolveError, match=named) as caught:
        integrate(nan_after_half, X0, t, solver)
    assert caught.value.status is Status.DIVERGED
    kept = caught.value.solution
    assert kept.t.tolist() == t[: len(kept.t)]
    exact = X0 * (-kept.t).exp()[:, None, None]
    assert torch.allclose(kept.x, exact, atol=0.05 if isinstance(solver, Euler) else 1e-3)
    if not isinstance(solver, (Dopri5, Bosh3)):
        assert len(kept.t) == 3
    assert integrate(nan_after_half, X0, t, solver, throw=False).status is Status.DIVERGED


def test_a_step_too_long_for_a_stiff_equation_is_a_solve_error_that_names_step_time_and_cure():
    with pytest.raises(SolveError, match=r"diverged.* t = \d") as caught:
        integrate(lambda t, x: -1e4 * x, X0, torch.linspace(0, 100, 11), RK4(dt=0.01))
    assert len(caught.value.solution.t) == 1
    with pytest.raises(SolveError, match=r"step 1, at t = 1e\+10\..*take a smaller dt, or an implicit integrator"):
        integrate(lambda t, x: x * 1e300, X0, [0.0, 1e10], Euler(dt=1e10))


@pytest.mark.parametrize(
    "solver", [Dopri5(max_nfe=50), Bosh3(max_nfe=50), RK4(dt=1e-3, max_nfe=50), Euler(dt=1e-300, max_nfe=50)]
)
def test_the_budget_is_exact_and_a_solve_error_that_names_the_cure(solver):
    calls = 0

    def stiff(t, x):
        nonlocal calls
        calls += 1
        return -1e5 * (x - torch.cos(t))

    with pytest.raises(
        SolveError, match=r"budget of 50 evaluations: .*stiff \(use SDIRK3, ARK324 or Exponential\)"
    ) as caught:
        integrate(stiff, torch.ones(1, dtype=torch.float64), [0.0, 10.0], solver)
    assert calls == 50
    assert caught.value.status is Status.BUDGET
    assert caught.value.solution.t.tolist() == [0.0]


@pytest.mark.parametrize("t", [[0.0, 1.0], [0.0, 1e-9, 2e-9, 1.0]])
@pytest.mark.parametrize("solver", [Dopri5(max_nfe=2000), Bosh3(max_nfe=2000)])
def test_a_random_right_hand_side_ends_in_a_solve_error(t, solver):
    dropout = torch.nn.Dropout(0.5)

    def f(t, x):
        return -dropout(x)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert integrate(f, X0.expand(3, 8), t, solver, throw=False).status is not Status.SUCCESS
        with pytest.raises(SolveError) as caught:
            integrate(f, X0.expand(3, 8), t, solver)
    assert torch.equal(caught.value.solution.x[0], X0.expand(3, 8))


OPTIMISED = """
import torch
from integrators.dopri5 import *; from integrators.bosh3 import *; from integrators.rk4 import *
from integrators.integrate import *
assert False, "python -O would not get here"
one = torch.ones(1, dtype=torch.float64)
cases = {
    "nan": (lambda t, x: x * float("nan"), one),
    "blow-up": (lambda t, x: x**2, one),
    "stiff": (lambda t, x: -1e8 * (x - torch.cos(t)), one),
}
for name, (f, x0) in cases.items():
    for solver in (Dopri5(max_nfe=2_000), Bosh3(max_nfe=2_000), RK4(dt=1e-3)):
        try:
            integrate(f, x0, [0.0, 0.5, 2.0], solver)
            print(name, type(solver).__name__, "returned")
        except SolveError as error:
            print(name, type(solver).__name__, "SolveError", error.status.name)
"""


def test_failures_are_typed_without_asserts_too():
    """torchdiffeq stops on a vanishing step by assert, which python -O removes."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-O", "-c", OPTIMISED], capture_output=True, text=True, timeout=120, cwd=root, check=False
    )
    lines = done.stdout.split("\n")[:-1]
    assert len(lines) == 9, done.stderr
    assert all("SolveError" in line for line in lines), lines


# -- What integrate asks of every solver: reverse time, jumps, dense output, history, limits

ALL = [Dopri5(rtol=1e-8, atol=1e-10), Bosh3(rtol=1e-7, atol=1e-9), RK4(dt=0.02), Dopri5(1e-8, 1e-10, gradient=Direct())]
every = pytest.mark.parametrize("solver", ALL, ids=lambda s: type(s).__name__ + type(s.gradient).__name__)


@every
@pytest.mark.parametrize("t", [[1.0, 0.0], [1.0, 0.63, 0.2, -0.5]], ids=["one output", "several"])
def test_reverse_time(problem, solver, t):
    """From the solution at 1 back to 0 and before it; the solution is found in forward time."""
    start = problem.exact(torch.tensor(1.0, dtype=torch.float64))
    solution = integrate(problem.f, start, t, solver)
    assert solution.t.tolist() == t
    assert problem.error(solution.t, solution.x) <= 2e-6


@every
def test_forward_then_backward_returns(solver):
    f = lambda t, x: torch.sin(3 * t) * x  # noqa: E731
    there = integrate(f, X0, [0.0, 2.0], solver).final
    assert torch.allclose(integrate(f, there, [2.0, 0.0], solver).final, X0, rtol=1e-5)


@every
@pytest.mark.parametrize("t", [[0.0, 1.0], [0.0, 0.3, 0.30001, 0.9, 1.0], [0.0, 0.31, 1.0]])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_jump_costs_nothing_where_it_is_named(solver, t, backwards):
    """dx/dt is 1, then −2, then 3: with the jumps named every method is exact, on either side of each."""
    jumps = (0.3, 0.7)

    def f(s, x):
        return torch.where(s < 0.3, 1.0, torch.where(s < 0.7, -2.0, 3.0)) * torch.ones_like(x)

    def exact(s):
        return X0 + min(s, 0.3) - 2 * max(0.0, min(s, 0.7) - 0.3) + 3 * max(0.0, s - 0.7)

    times = t[::-1] if backwards else t
    solution = integrate(f, exact(times[0]), times, solver, jumps=jumps)
    expected = torch.stack([exact(s) for s in times])
    assert float((solution.x - expected).abs().max()) <= 1e-12
    assert solution.stats.rejected == 0


@every
def test_jumps_outside_the_solve_change_nothing(solver):
    expected = integrate(decay, X0, [0.0, 1.0], solver).x
    assert torch.equal(integrate(decay, X0, [0.0, 1.0], solver, jumps=[-1.0, 5.0]).x, expected)


def test_bad_jumps_are_refused():
    with pytest.raises(TypeError, match=r"jumps must be a list of times, as in \[0.5\]"):
        integrate(decay, X0, [0.0, 1.0], RK4(dt=0.5), jumps=0.5)
    with pytest.raises(ValueError, match=r"jumps holds a NaN or infinite time: \[0.5, nan\]"):
        integrate(decay, X0, [0.0, 1.0], jumps=[0.5, NAN])


@every
@pytest.mark.parametrize("t", [[0.0, 0.4, 1.0], [1.0, 0.4, 0.0]], ids=["forward", "reverse"])
def test_dense_output(problem, solver, t):
    start = problem.exact(torch.tensor(t[0], dtype=torch.float64))
    solution = integrate(problem.f, start, t, solver, dense=True)
    times = torch.linspace(0, 1, 23, dtype=torch.float64)
    rows = [solution.at(s) for s in times]
    x = tuple(torch.stack(part) for part in zip(*rows, strict=True)) if isinstance(start, tuple) else torch.stack(rows)
    assert problem.error(times, x) <= 2e-6
    assert type(solution.at(0.5)) is type(start)
    with pytest.raises(ValueError, match=r"t = 1\.5 lies outside the solve"):
        solution.at(1.5)


@every
def test_dense_output_has_a_gradient_in_its_time(solver):
    s = torch.tensor(0.37, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(integrate(decay, X0, [0.0, 1.0], solver, dense=True).at(s).sum(), s)
    assert float(slope) == pytest.approx(-float(X0.sum()) * math.exp(-0.37), rel=1e-5)


@every
@pytest.mark.parametrize("t", [[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]], ids=["forward", "reverse"])
def test_the_history_holds_every_step(solver, t):
    solution = integrate(decay, X0, t, solver, history=True)
    steps = solution.stats.history
    assert len(steps) == solution.stats.accepted > 2
    assert steps[0][0] == t[0]
    for (a, h), (b, _) in itertools.pairwise(steps):
        assert a + h == pytest.approx(b, abs=1e-14)
    assert sum(steps[-1]) == pytest.approx(t[-1], abs=1e-14)
    assert integrate(decay, X0, t, solver).stats.history == []


@every
def test_the_step_limit_is_exact_and_keeps_what_was_reached(solver):
    t = [0.0, 0.01, 0.02, 5.0]
    with pytest.raises(SolveError, match=r"its limit of 7 steps: .*raise max_steps") as caught:
        integrate(lambda t, x: -torch.sin(40 * t) * x, X0, t, solver, max_steps=7)
    kept = caught.value.solution
    assert kept.status is Status.STEPS
    assert kept.stats.accepted == 7
    assert kept.t.tolist() == t[: len(kept.t)]
    assert len(kept.x) == len(kept.t) < len(t)


@every
def test_the_time_limit_ends_a_solve(solver):
    import time

    def slow(t, x):
        time.sleep(0.002)
        return -torch.sin(1e4 * t) * x

    began = time.monotonic()
    solution = integrate(slow, X0, [0.0, 1e3], solver, max_seconds=0.1, throw=False)
    assert solution.status is Status.SECONDS
    assert time.monotonic() - began < 5


def test_the_clock_is_float64_whatever_the_state(problem):
    seen = set()

    def f(t, x):
        seen.add((t.dtype, t.ndim))
        return problem.f(t, x)

    for solver in ALL:
        integrate(f, problem.x0, [0.0, 1.0], solver)
    assert seen == {(torch.float64, 0)}
