"""Adaptive steps: the error follows the tolerance, output times change nothing, f is asked nothing beyond the ends, and what
goes wrong is named."""

import math
import subprocess
import sys
import textwrap

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from integrators.adaptive import until
from integrators.bosh3 import Bosh3
from integrators.checkpointed import Checkpointed
from integrators.dopri5 import Dopri5
from integrators.gradients import Direct
from integrators.integrate import integrate
from integrators.solution import SolveError, Status
from integrators.tsit5 import Tsit5

X0 = torch.tensor([[0.3], [0.5], [0.8]], dtype=torch.float64)
methods = pytest.mark.parametrize("method", [Dopri5, Tsit5, Bosh3])


@methods
@pytest.mark.parametrize("t", [[0.0, 1.0], [0.0, 0.337, 0.341, 1.0]], ids=["one output", "several outputs"])
def test_the_error_is_proportional_to_the_tolerance(problem, method, t):
    errors = []
    for rtol in (1e-4, 1e-7, 1e-10) if method is not Bosh3 else (1e-3, 1e-6, 1e-8):
        solution = integrate(problem.f, problem.x0, t, method(rtol=rtol, atol=rtol / 100))
        errors.append(problem.error(solution.t, solution.x))
        assert errors[-1] <= 50 * rtol
    # Where a few long steps were luckily exact, their error is no measure.
    assert errors[1] <= max(errors[0] / 50, 2e-7 if method is not Bosh3 else 2e-6)
    assert errors[2] <= errors[0] / 1000


@methods
def test_more_steps_for_a_tighter_tolerance_as_the_order_says(method):
    """Steps grow as rtol^(−1/p), with p the order of the error estimate."""
    f = lambda t, x: torch.stack([x[1], -x[0]])  # noqa: E731
    x0 = torch.tensor([1.0, 0.0], dtype=torch.float64)
    steps = [integrate(f, x0, [0.0, 40.0], method(rtol=r, atol=r)).stats.accepted for r in (1e-5, 1e-8)]
    order = 3 / math.log10(steps[1] / steps[0])
    assert abs(order - method.error_order) <= 0.6


@methods
def test_output_is_independent_of_other_output_times(problem, method):
    rtol = 1e-6
    few, many = (
        integrate(problem.f, problem.x0, t, method(rtol=rtol, atol=1e-8)).final
        for t in ([0.0, 1.0], [0.0, 0.011, 0.1, 0.337, 0.999, 1.0])
    )
    parts = zip(few, many, strict=True) if isinstance(few, tuple) else [(few, many)]
    for a, b in parts:
        assert float((a - b).abs().max()) <= 50 * rtol


@methods
def test_output_times_do_not_change_the_steps(method):
    f = lambda t, x: -3 * t**2 * x  # noqa: E731
    few, many = (
        integrate(f, X0, t, method(1e-6, 1e-8), history=True).stats for t in ([0.0, 1.5], torch.linspace(0, 1.5, 201).double())
    )
    assert few.history == many.history
    assert few.nfe == many.nfe


@methods
def test_statistics_count_evaluations_and_steps(method):
    calls, stages = 0, {Dopri5: 6, Tsit5: 6, Bosh3: 3}[method]

    def f(t, x):
        nonlocal calls
        calls += 1
        return 50 * torch.cos(50 * t) * torch.ones_like(x) if t > 1 else 0 * x

    # Few steps: over many, integrate looks whether they are bound by stability, and asks f for it.
    stats = integrate(f, X0, [0.0, 1.3], method(1e-4, gradient=Direct()), history=True).stats
    assert stats.nfe == calls
    assert stats.rejected > 0
    # Two evaluations choose the first step; the last stage of each step is the first of the next.
    assert stats.nfe == 2 + stages * (stats.accepted + stats.rejected)
    assert (stats.solves, stats.nfe_backward) == (0, 0)
    assert len(stats.history) == stats.accepted
    assert math.isclose(sum(h for _, h in stats.history), 1.3)
    assert 0 < stats.error_estimate <= 1


@methods
def test_a_smooth_problem_rejects_nothing(method):
    assert integrate(lambda t, x: -x, X0, [0.0, 1.0], method()).stats.rejected == 0


@methods
def test_no_step_is_forced(method):
    """A narrow pulse is seen by steps that are short there, so the integral is right."""
    f = lambda t, x: torch.exp(-(((t - 0.5) / 0.05) ** 2)) * torch.ones_like(x)  # noqa: E731
    x = integrate(f, 0 * X0, [0.0, 0.3, 1.0], method(rtol=1e-7, atol=1e-9)).final
    assert torch.allclose(x, torch.full_like(x, 0.05 * torch.pi**0.5), rtol=1e-5)


@methods
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_single_precision_differs_from_double_by_the_tolerance(method, dtype):
    wide = torch.complex128 if dtype.is_complex else torch.float64
    f = lambda t, x: torch.sin(5 * t) * x  # noqa: E731
    single = integrate(f, X0.to(dtype), [0.0, 0.1, 2.0], method(rtol=1e-5, atol=1e-6)).x
    double = integrate(f, X0.to(wide), [0.0, 0.1, 2.0], method(rtol=1e-10, atol=1e-12)).x
    assert single.dtype == dtype
    assert float((single.to(wide) - double).abs().max()) <= 50 * 1e-5


@methods
@pytest.mark.parametrize("name", ["rtol", "atol"])
@pytest.mark.parametrize("value", [0.0, -1e-3, float("nan"), float("inf")])
def test_bad_tolerances_are_refused(method, name, value):
    with pytest.raises(ValueError, match=rf"{name} must be positive and finite, not {value}"):
        method(**{name: value})


@methods
@pytest.mark.parametrize(
    ("dtype", "rtol", "least"),
    [(torch.float32, 1e-7, "4.8e-07"), (torch.complex64, 4e-7, "4.8e-07"), (torch.float64, 1e-16, "8.9e-16")],
)
def test_a_tolerance_below_round_off_is_refused(method, dtype, rtol, least):
    message = rf"rtol = {rtol:.1e} cannot be met in .*use float64, or rtol ≥ {least}"
    with pytest.raises(ValueError, match=message):
        integrate(lambda t, x: -x, X0.to(dtype), [0.0, 1.0], method(rtol=rtol))
    with pytest.raises(ValueError, match=message):
        integrate(lambda t, x: (-x[0],), (X0.to(dtype),), [0.0, 1.0], method(rtol=rtol))


class Witness:
    """f with every time it is asked for."""

    def __init__(self, f):
        self.f, self.times = f, []

    def __call__(self, t, x):
        self.times.append(float(t.detach()))
        return self.f(t, x)


ENDS = [(0.0, 1.0), (0.1, 0.7), (1e6, 1e6 + 0.3), (1.0, 0.0), (-0.3, -1.9), (0.0, 1 / 3)]


@methods
@pytest.mark.parametrize(("start", "end"), ENDS)
@pytest.mark.parametrize("learned", [False, True], ids=["fixed times", "learned times"])
def test_f_is_never_asked_beyond_the_ends(method, start, end, learned):
    """By not so much as round-off: it may not exist there."""
    t = torch.tensor([start, end], dtype=torch.float64, requires_grad=learned)
    f = Witness(lambda t, x: torch.cos(7 * t) * x)
    solution = integrate(f, X0, t, method(1e-5, 1e-8))
    if learned:
        torch.autograd.grad(solution.final.sum(), t)
    assert min(f.times) == min(start, end)
    assert max(f.times) == max(start, end)


@methods
def test_f_may_end_where_the_solve_ends(method):
    """x' = −sqrt(1 − t) has no value, not even a NaN to spare, after t = 1."""
    x = integrate(lambda t, x: -torch.sqrt(1 - t) * torch.ones_like(x), X0, [0.0, 1.0], method(1e-6, 1e-9)).final
    assert float((x - (X0 - 2 / 3)).abs().max()) <= 1e-5


@methods
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["forward", "reverse"])
@pytest.mark.parametrize("closed", [True, False], ids=["t < s", "t <= s"])
def test_no_step_looks_across_a_jump(method, sign, closed):
    """Whichever side f counts the time of the jump itself to: a constant piece costs no rejection."""
    jumps = [0.3, 0.75]

    def level(t):
        s = float(t.detach()) * sign
        after = sum(s >= jump if closed else s > jump for jump in jumps)
        return [1.0, -40.0, 300.0][after]

    f = Witness(lambda t, x: level(t) * torch.ones_like(x))
    t = [0.0, 0.3 * sign, 0.5 * sign, sign]
    solution = integrate(f, X0, t, method(1e-8, 1e-10), jumps=[sign * jump for jump in jumps])
    assert solution.stats.rejected == 0
    rise = [0.3, 0.3 - 40 * 0.2, 0.3 - 40 * 0.45 + 300 * 0.25]
    for x, expected in zip(solution.x[1:], rise, strict=True):
        assert float((x - X0 - sign * expected).abs().max()) <= 1e-11
    assert not {sign * jump for jump in jumps} & set(f.times)
    for jump in jumps:
        near = {math.nextafter(sign * jump, -math.inf), math.nextafter(sign * jump, math.inf)}
        assert near <= set(f.times)


@given(t=st.floats(-1e6, 1e6), end=st.floats(-1e6, 1e6))
def test_the_last_length_never_passes_the_end(t, end):
    h = until(t, end)
    assert t + h <= end if end >= t else t + h >= end
    assert abs(t + h - end) <= 2 * math.ulp(max(abs(t), abs(end)))


def nan_beyond(t, x):
    """Finite up to t = 0.6, and there only its second entry is lost."""
    slope = -x
    return torch.where((t > 0.6) & (torch.arange(3)[:, None] == 1), torch.nan, slope)


@methods
def test_a_derivative_that_is_nan_only_later_is_named_with_time_and_component(method):
    message = r"just beyond the right-hand side is not finite at t = 0\.6 \(nan at index \[1, 0\]"
    with pytest.raises(SolveError, match=message) as caught:
        integrate(nan_beyond, X0, [0.0, 0.25, 0.5, 1.0], method())
    assert caught.value.status is Status.DIVERGED
    solution = caught.value.solution
    assert solution.t.tolist() == [0.0, 0.25, 0.5]
    assert float((solution.x[-1] - X0 * math.exp(-0.5)).abs().max()) <= 1e-4
    assert solution.stats.nfe < 2000


@methods
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_derivative_that_is_not_finite_at_once_is_named(method, value):
    def f(t, x):
        return (-x[0], torch.where(torch.arange(2) == 1, value, -x[1]))

    x0 = (X0, torch.ones(2, dtype=torch.float64))
    with pytest.raises(SolveError, match=rf"not finite at t = 0 \({value} at part 1, index \[1\]"):
        integrate(f, x0, [0.0, 1.0], method())


@methods
def test_a_blow_up_is_told_with_its_time(method):
    """x' = x² reaches infinity at t = 1/0.8 for the largest entry."""
    with pytest.raises(SolveError, match=r"at t = 1\.25,.*(singular|not finite)") as caught:
        integrate(lambda t, x: x * x, X0, [0.0, 1.0, 2.0], method(1e-6, 1e-8))
    assert caught.value.status is Status.DIVERGED
    assert float((caught.value.solution.x[-1] - X0 / (1 - X0)).abs().max()) <= 1e-3


@methods
def test_steps_that_vanish_name_the_place_and_the_cure(method):
    """A sign that chatters around 0.5: no step is small enough."""
    f = lambda t, x: -torch.sign(x - 0.5) * 1e6  # noqa: E731
    with pytest.raises(SolveError, match=r"t = .*(discontinuous|stiff)"):
        integrate(f, X0, [0.0, 1.0], method(max_nfe=3000))


@methods
def test_a_spent_budget_says_so(method):
    with pytest.raises(SolveError, match="budget of 100 evaluations") as caught:
        integrate(lambda t, x: -1e4 * x, X0, [0.0, 1.0], method(max_nfe=100, gradient=Direct()))
    assert caught.value.status is Status.BUDGET
    assert caught.value.solution.stats.nfe == 100


def test_failures_are_typed_without_assertions_too():
    """python -O, under which torchdiffeq loops without end on these."""
    program = """
        import torch
        from integrators.dopri5 import Dopri5
        from integrators.integrate import integrate
        from integrators.solution import SolveError

        x0 = torch.ones(2, 1, dtype=torch.float64)
        cases = [
            lambda t, x: x * x,
            lambda t, x: x / 0,
            lambda t, x: torch.where(t > 0.5, torch.nan, -x),
            lambda t, x: -torch.sign(x - 0.5) * 1e6,
        ]
        for f in cases:
            try:
                integrate(f, x0, [0.0, 2.0], Dopri5(max_nfe=5000))
            except SolveError as error:
                print(error.status.name)
        try:
            integrate(cases[0], x0.float(), [0.0, 0.5], Dopri5(1e-8))
        except ValueError as error:
            print("use float64" in str(error), __debug__)
    """
    command = [sys.executable, "-O", "-W", "ignore", "-c", textwrap.dedent(program)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    words = result.stdout.split()
    assert words[:3] == ["DIVERGED"] * 3
    assert words[3] in ("DIVERGED", "BUDGET")
    assert words[4:] == ["True", "False"]


@methods
@pytest.mark.parametrize("name", ["first_step"])
@pytest.mark.parametrize("value", [0.0, -0.1, math.nan])
def test_bad_first_steps_are_refused(method, name, value):
    with pytest.raises(ValueError, match=rf"{name} must be positive and finite, not {value}"):
        method(**{name: value})


@methods
def test_the_first_step_is_taken_as_asked_and_cut_to_the_interval(method):
    assert integrate(lambda t, x: -x, X0, [0.0, 1.0], method(first_step=0.01), history=True).stats.history[0] == (0.0, 0.01)
    assert integrate(lambda t, x: -x, X0, [0.0, -1e-3], method(first_step=0.01), history=True).stats.history[0] == (0.0, -1e-3)


@methods
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_the_guess_of_the_first_step_scales_with_time(method, scale):
    f = lambda t, x: -x / scale  # noqa: E731
    stats = integrate(f, X0, [0.0, 5 * scale], method(1e-6, 1e-9)).stats
    assert stats.accepted < 100 if method is not Bosh3 else stats.accepted < 400
    assert stats.rejected <= 5


@methods
@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()], ids=["direct", "checkpointed"])
def test_both_gradients_take_the_same_steps(method, gradient):
    x0 = X0.clone().requires_grad_()
    solution = integrate(lambda t, x: torch.sin(5 * t) * x, x0, [0.0, 0.1, 2.0], method(gradient=gradient))
    (slope,) = torch.autograd.grad(solution.final.sum(), x0)
    assert float((slope - math.exp((1 - math.cos(10.0)) / 5)).abs().max()) <= 1e-4


@pytest.mark.parametrize("learned", [False, True])
def test_a_late_start_keeps_the_digits_of_the_time(learned):
    """A float32 state at t = 1e8, whose neighbours are 8 apart in float32; also where the output times are learned."""
    t = torch.tensor([1e8, 1e8 + 1.0, 1e8 + 2.0], dtype=torch.float64, requires_grad=learned)
    f = lambda t, x: torch.cos(t - 1e8).float() * torch.ones_like(x)  # noqa: E731
    solution = integrate(f, torch.zeros(3, 1), t, Dopri5(rtol=1e-5))
    expected = torch.sin(t.detach() - 1e8).float()
    assert float((solution.x[:, 0, 0] - expected).detach().abs().max()) <= 50 * 1e-5
    if learned:
        (slope,) = torch.autograd.grad(solution.x[-1, 0, 0], t)
        assert float((slope - torch.tensor([-1.0, 0.0, math.cos(2.0)])).abs().max()) <= 50 * 1e-5
