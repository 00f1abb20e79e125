"""`integrate` refuses, with cause and cure, what no solver could use, and reports failure as it was asked to."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from integrators import (
    RK4,
    Adjoint,
    BackwardEuler,
    Bosh3,
    Dopri5,
    Euler,
    Exponential,
    SolveError,
    Status,
    TruncatedTaylor,
    integrate,
)

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
        ([0.0, 1.0, 1.0], ValueError, r"strictly increasing, but repeats from t\[1\] = 1.0 to t\[2\] = 1.0"),
        ([1.0, 0.5], ValueError, r"decreases from t\[0\] = 1.0 to t\[1\] = 0.5; to go back in time, integrate -f"),
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


@pytest.mark.parametrize(
    "solver", [BackwardEuler(dt=0.1), Exponential(), TruncatedTaylor(dt=0.1)], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("f", [decay, torch.nn.Tanh()])
def test_linear_solvers_refuse_other_equations(solver, f):
    message = rf"{type(solver).__name__} needs a linear.* right-hand side, and {type(f).__name__} exposes no linear"
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
    with pytest.raises(SolveError, match=r"diverged.*not finite at t = 0\.[5-9].*take a smaller") as caught:
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
    with pytest.raises(SolveError, match=r"step 1, at t = 1e\+10,.*take a smaller dt, or an implicit integrator"):
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
        SolveError, match=r"budget of 50 evaluations: .*stiff \(use BackwardEuler or Exponential\)"
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
from integrators import *
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
