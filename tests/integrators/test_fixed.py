"""Fixed steps: order, stability functions, and steps that end at every output time."""

import itertools
import math

import pytest
import torch

from integrators.checkpointed import Checkpointed
from integrators.fixed import Euler, FixedStep, TruncatedTaylor
from integrators.gradients import Direct
from integrators.integrate import integrate
from integrators.rk4 import RK4
from integrators.solution import SolveError, Status

X0 = torch.tensor([[0.3], [0.5], [0.8]], dtype=torch.float64)
Z = [-2.5, -1.0, -1e-3, 0.0, 0.7, 3.0, 1j, 2.8j, -1 + 2j, 0.5 - 1j]


def polynomial(order, z):
    return sum(z**k / math.factorial(k) for k in range(order + 1))


@pytest.mark.parametrize(("scheme", "order", "dt"), [(Euler, 1, 1 / 64), (RK4, 4, 1 / 16)])
@pytest.mark.parametrize("t", [[0.0, 1.0], [0.0, 0.337, 0.341, 1.0]], ids=["one output", "outputs off the grid"])
def test_order(problem, scheme, order, dt, t, observed_order):
    solutions = [integrate(problem.f, problem.x0, t, scheme(dt=dt / 2**k)) for k in range(3)]
    errors = [problem.error(s.t, s.x) for s in solutions]
    assert order - 0.2 <= observed_order(errors) <= order + 1.2


@pytest.mark.parametrize("z", Z)
@pytest.mark.parametrize(("solver", "order"), [(Euler(dt=1.0), 1), (RK4(dt=1.0), 4)])
def test_stability_function(solver, order, z):
    x = integrate(lambda t, x: z * x, torch.ones(1, dtype=torch.complex128), [0.0, 1.0], solver).final
    assert abs(complex(x) - polynomial(order, z)) <= 1e-12


@pytest.mark.parametrize("z", Z)
@pytest.mark.parametrize("order", [1, 2, 3, 5, 8])
def test_stability_function_of_the_truncated_exponential(order, z, linear):
    f = linear(torch.full((1, 1), z, dtype=torch.complex128))
    x = integrate(f, torch.ones(1, 1, dtype=torch.complex128), [0.0, 1.0], TruncatedTaylor(dt=1.0, order=order)).final
    assert abs(complex(x) - polynomial(order, z)) <= 1e-12


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_order_of_the_truncated_exponential(order, linear, observed_order):
    G = torch.tensor([[-1.0, 2.0], [-2.0, -0.5]], dtype=torch.float64)
    x0 = torch.tensor([[1.0], [0.5]], dtype=torch.float64)
    exact = torch.linalg.matrix_exp(G) @ x0
    errors = [
        float((integrate(linear(G), x0, [0.0, 0.3, 1.0], TruncatedTaylor(dt=d, order=order)).final - exact).abs().max())
        for d in (1 / 16, 1 / 32, 1 / 64)
    ]
    assert order - 0.2 <= observed_order(errors) <= order + 1.2


@pytest.mark.parametrize(
    ("order", "grows"), [(1, True), (2, True), (3, False), (4, False), (5, True), (6, True), (7, False)]
)
def test_small_angles_grow_or_fall_by_the_order_as_published(order, grows, linear):
    """|Σ_{k ≤ T} (iθ)^k / k!| is above 1 for T = 1, 2, 5, 6 and below it for T = 3, 4, 7, 8 (R-UniGraph)."""
    f = linear(torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64))
    x = integrate(f, torch.eye(2, dtype=torch.float64)[:, :1], [0.0, 0.5], TruncatedTaylor(dt=1.0, order=order)).final
    assert (float(x.norm()) > 1) == grows


@pytest.mark.parametrize("scheme", [Euler, RK4])
@pytest.mark.parametrize("dt", [1.0, 5.0, 1e300, math.inf])
def test_a_long_step_is_cut_to_the_interval(scheme, dt):
    f = lambda t, x: -x  # noqa: E731
    t = [0.0, 0.5, 0.9]
    solution, expected = (integrate(f, X0, t, scheme(dt=d)) for d in (dt, 0.5))
    assert torch.equal(solution.x, expected.x)
    assert solution.stats.accepted == 2


@pytest.mark.parametrize("dt", [0.1, 0.3, 0.7, 1 / 3])
def test_steps_are_at_most_dt_and_end_at_every_output_time(dt):
    starts, t = [], [0.0, 0.25, 0.3, 1.0, 2.5]

    def f(s, x):
        starts.append(float(s.detach()))
        return -x

    solution = integrate(f, X0, t, Euler(dt=dt, gradient=Direct()))
    assert all(any(abs(s - hit) < 1e-12 for s in starts) for hit in t[:-1])
    lengths = torch.tensor([*starts, t[-1]], dtype=torch.float64).diff()
    assert float(lengths.max()) <= dt * (1 + 1e-12)
    assert (
        solution.stats.accepted == len(starts) == sum(math.ceil((b - a) / dt - 1e-9) for a, b in itertools.pairwise(t))
    )


@pytest.mark.parametrize("dt", [0.1, 0.01, 0.05, 1 / 3])
def test_an_interval_of_whole_steps_takes_that_many(dt):
    """0.3 / 0.1 is 2.9999999999999996, and 0.1 + 0.2 is more than 0.3: neither adds a step."""
    for k in (1, 3, 7, 30):
        assert integrate(lambda t, x: -x, X0, [0.0, k * dt], Euler(dt=dt)).stats.accepted == k


@pytest.mark.parametrize("solver", [Euler(dt=0.1), RK4(dt=0.1)])
def test_a_time_on_the_grid_is_independent_of_other_output_times(solver):
    f = lambda t, x: torch.sin(5 * t) * x  # noqa: E731
    many = integrate(f, X0, torch.arange(11, dtype=torch.float64) / 10, solver)
    assert torch.allclose(many.final, integrate(f, X0, [0.0, 1.0], solver).final, rtol=1e-14, atol=0)


@pytest.mark.parametrize(("solver", "stages"), [(Euler(dt=0.125, gradient=Direct()), 1), (RK4(dt=0.125, gradient=Direct()), 4)])
def test_statistics_count_evaluations_and_steps(solver, stages):
    calls = 0

    def f(t, x):
        nonlocal calls
        calls += 1
        return -x

    stats = integrate(f, X0, [0.0, 1.0], solver).stats
    assert (stats.nfe, stats.accepted, stats.rejected, stats.solves) == (calls, 8, 0, 0)
    assert calls == 8 * stages


def test_statistics_of_the_truncated_exponential(linear):
    f = linear(torch.eye(3, dtype=torch.float64))
    assert integrate(f, X0, [0.0, 1.0], TruncatedTaylor(dt=0.25, order=5, gradient=Direct())).stats.nfe == f.calls == 20


@pytest.mark.parametrize("dt", [0.0, -0.1, float("nan")])
@pytest.mark.parametrize("scheme", [Euler, RK4, TruncatedTaylor])
def test_bad_steps_are_refused(scheme, dt):
    with pytest.raises(ValueError, match=rf"dt must be positive, not {dt}"):
        scheme(dt=dt)


def test_bad_orders_are_refused():
    with pytest.raises(ValueError, match="order must be at least 1, not 0"):
        TruncatedTaylor(dt=0.1, order=0)


@pytest.mark.parametrize("scheme", [Euler, RK4])
def test_single_precision_differs_from_double_by_round_off_only(scheme):
    f = lambda t, x: torch.sin(5 * t) * x  # noqa: E731
    double = integrate(f, X0, [0.0, 0.1, 2.0], scheme(dt=0.01)).x
    single = integrate(f, X0.float(), [0.0, 0.1, 2.0], scheme(dt=0.01)).x
    assert float((single.double() / double - 1).abs().max()) <= 200 * torch.finfo(torch.float32).eps


class Witness:
    """f with every time it is asked for."""

    def __init__(self, f):
        self.f, self.times = f, []

    def __call__(self, t, x):
        self.times.append(float(t.detach()))
        return self.f(t, x)


@pytest.mark.parametrize("dt", [0.1, 0.07, 1 / 3, math.inf])
@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.1, 0.7), (1e6, 1e6 + 0.3), (1.0, 0.0), (-0.3, -1.9), (-1.0, 0.0)])
@pytest.mark.parametrize("learned", [False, True], ids=["fixed times", "learned times"])
def test_f_is_never_asked_beyond_the_ends(dt, start, end, learned):
    t = torch.tensor([start, end], dtype=torch.float64, requires_grad=learned)
    f = Witness(lambda t, x: torch.cos(7 * t) * x)
    solution = integrate(f, X0, t, RK4(dt=dt))
    if learned:
        torch.autograd.grad(solution.final.sum(), t)
    assert min(start, end) == min(f.times)
    assert max(f.times) <= max(start, end)
    assert abs(max(f.times) - max(start, end)) <= 2 * math.ulp(max(abs(start), abs(end)))


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["forward", "reverse"])
@pytest.mark.parametrize("closed", [True, False], ids=["t < s", "t <= s"])
@pytest.mark.parametrize("dt", [0.1, 0.5])
def test_no_step_looks_across_a_jump(sign, closed, dt):
    def f(t, x):
        s = float(t.detach()) * sign
        level = [1.0, -40.0, 300.0][sum(s >= jump if closed else s > jump for jump in (0.3, 0.75))]
        return level * torch.ones_like(x)

    t = [0.0, 0.3 * sign, 0.5 * sign, sign]
    solution = integrate(f, X0, t, RK4(dt=dt), jumps=[0.3 * sign, 0.75 * sign])
    rise = [0.3, 0.3 - 40 * 0.2, 0.3 - 40 * 0.45 + 300 * 0.25]
    for x, expected in zip(solution.x[1:], rise, strict=True):
        assert float((x - X0 - sign * expected).abs().max()) <= 1e-11


@pytest.mark.parametrize("scheme", [Euler, RK4])
def test_a_step_too_long_for_the_equation_is_told_before_the_numbers_are_lost(scheme):
    with pytest.raises(SolveError, match=r"norm that is not finite.*smaller dt, or an implicit") as caught:
        integrate(lambda t, x: -1e6 * x, X0, [0.0, 0.02, 40.0], scheme(dt=0.01))
    assert caught.value.status is Status.DIVERGED
    assert caught.value.solution.t.tolist() == [0.0, 0.02]


def test_a_scheme_is_one_method():
    class Midpoint(FixedStep):
        """x' = x + h f(t + h/2, x + h/2 f(t, x))."""

        def step(self, f, t, x, h):
            return x + h * f(t + h / 2, x + h / 2 * f(t, x))

    x = integrate(lambda t, x: torch.cos(t) * x, X0, [0.0, 1.0], Midpoint(dt=0.01)).final
    assert float((x - X0 * math.exp(math.sin(1.0))).abs().max()) <= 1e-4


def test_a_scheme_without_a_step_says_what_is_missing():
    class Nothing(FixedStep):
        """No scheme at all."""

    with pytest.raises(NotImplementedError, match="Nothing must define step"):
        integrate(lambda t, x: -x, X0, [0.0, 1.0], Nothing(dt=0.1))


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()], ids=["direct", "checkpointed"])
def test_gradients_of_both_orders(gradient):
    def solve(k, x0, t):
        return integrate(lambda s, x: -k * torch.sin(s + 1) * x * x, x0, t, Euler(dt=0.23, gradient=gradient)).x

    k = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    t = torch.tensor([0.0, 0.3, 0.7], dtype=torch.float64, requires_grad=True)
    x0 = X0.clone().requires_grad_()
    assert torch.autograd.gradcheck(solve, (k, x0, t))
    assert torch.autograd.gradgradcheck(solve, (k, x0, t))
