"""Adaptive steps: the error follows the tolerance, output times change nothing, and the cost is counted right."""

import math

import pytest
import torch

from integrators import Bosh3, Dopri5, integrate

X0 = torch.tensor([[0.3], [0.5], [0.8]], dtype=torch.float64)
methods = pytest.mark.parametrize("method", [Dopri5, Bosh3])


@methods
@pytest.mark.parametrize("t", [[0.0, 1.0], [0.0, 0.337, 0.341, 1.0]], ids=["one output", "several outputs"])
def test_the_error_is_proportional_to_the_tolerance(problem, method, t):
    errors = []
    for rtol in (1e-4, 1e-7, 1e-10) if method is Dopri5 else (1e-3, 1e-6, 1e-8):
        solution = integrate(problem.f, problem.x0, t, method(rtol=rtol, atol=rtol / 100))
        errors.append(problem.error(solution.t, solution.x))
        assert errors[-1] <= 50 * rtol
    assert errors[1] <= errors[0] / 50
    assert errors[2] <= errors[0] / 1000


@methods
def test_more_steps_for_a_tighter_tolerance_as_the_order_says(method, observed_order):
    """Steps grow as rtol^(−1/p), with p the order of the pair's better formula."""
    f = lambda t, x: torch.stack([x[1], -x[0]])  # noqa: E731
    x0 = torch.tensor([1.0, 0.0], dtype=torch.float64)
    steps = [integrate(f, x0, [0.0, 20.0], method(rtol=r, atol=r)).stats.accepted for r in (1e-5, 1e-8)]
    order = 3 / torch.tensor(steps[1] / steps[0]).log10()
    assert method is Bosh3 or 4 <= order <= 6
    assert method is Dopri5 or 2.5 <= order <= 4


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
def test_dense_output_is_as_exact_as_the_steps(method):
    """201 times against a few dozen steps of Dopri5, which interpolates; Bosh3 steps to each."""
    solution = integrate(
        lambda t, x: -3 * t**2 * x, X0, torch.linspace(0, 1.5, 201).double(), method(rtol=1e-6, atol=1e-8)
    )
    assert method is Bosh3 or solution.stats.accepted < 150
    exact = X0 * (-(solution.t**3)).exp()[:, None, None]
    assert float((solution.x - exact).abs().max()) <= 50 * 1e-6


@methods
def test_statistics_count_evaluations_and_steps(method):
    calls, stages = 0, {Dopri5: 6, Bosh3: 3}[method]

    def f(t, x):
        nonlocal calls
        calls += 1
        return 50 * torch.cos(50 * t) * torch.ones_like(x) if 1 < t < 1.2 else 0 * x

    stats = integrate(f, X0, [0.0, 2.0], method(rtol=1e-6)).stats
    assert stats.nfe == calls
    assert stats.rejected > 0
    # Two evaluations choose the first step; the last stage of each step is the first of the next.
    assert stats.nfe == 2 + stages * (stats.accepted + stats.rejected)
    assert (stats.solves, stats.nfe_backward) == (0, 0)


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


@methods
def test_a_singular_right_hand_side_names_the_place_and_the_cure(method):
    """y' = sign of a random-looking discontinuity that chatters: no step is small enough."""
    from integrators import SolveError

    f = lambda t, x: -torch.sign(x - 0.5) * 1e6  # noqa: E731
    with pytest.raises(SolveError, match=r"t = .*(discontinuous|stiff)"):
        integrate(f, X0, [0.0, 1.0], method(max_nfe=3000))


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
