"""What RKC2 and RKL2 share: order, stages as √stiffness, estimates that follow the equation, gradients, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch.autograd import gradcheck, gradgradcheck

from integrators import Checkpointed, Direct, SolveError, SolverWarning, Status, integrate
from integrators.rkc2 import RKC2
from integrators.rkl2 import RKL2
from integrators.stabilised import recurrence

both = pytest.mark.parametrize("method", [RKC2, RKL2])


def path_laplacian(n, dtype=torch.float64):
    off = torch.diag(torch.ones(n - 1, dtype=dtype), 1)
    L = 2 * torch.eye(n, dtype=dtype) - off - off.T
    L[0, 0] = L[-1, -1] = 1
    return L


def heat(n, stiffness):
    L = stiffness / 4 * path_laplacian(n)
    return lambda t, x: -(L @ x)


def bump(n):
    return torch.exp(-(torch.linspace(-3, 3, n, dtype=torch.float64) ** 2))[:, None]


@both
def test_order(problem, method, observed_order):
    solutions = [integrate(problem.f, problem.x0, [0.0, 1.0], method(dt=2.0**-k)) for k in (5, 6, 7)]
    assert abs(observed_order([problem.error(s.t, s.x) for s in solutions]) - 2) <= 0.1


@both
@pytest.mark.parametrize("t", [[0.0, 0.337, 0.341, 1.0], [0.0, -0.5, -0.8]], ids=["outputs off the grid", "reverse time"])
def test_order_with_many_stages(method, t, observed_order):
    """At ρ = 4000 every step has tens of stages, all of which evaluate f at their own times."""

    def f(t, x):
        return 2 * x * (1 - x) + torch.cos(5 * t)

    start = torch.tensor([[0.3], [0.5]], dtype=torch.float64)
    reference = solve_ivp(
        lambda t, x: 2 * x * (1 - x) + np.cos(5 * t), (0, t[-1]), start[:, 0], method="DOP853", rtol=1e-12, atol=1e-14
    ).y[:, -1]
    errors = []
    for k in (5, 6, 7):
        # h ρ is kept, so that the number of stages is.
        solution = integrate(f, start, t, method(dt=2.0**-k, radius=400.0 * 2**k / 32))
        errors.append(float((solution.final[:, 0] - torch.as_tensor(reference)).abs().max()))
    assert abs(observed_order(errors) - 2) <= (0.1 if t[-1] < 0 else 0.2)


@both
def test_the_stages_know_their_times(method):
    """x' = t gives x(h) = h²/2 exactly, for any number of stages."""
    x = torch.zeros(1, 1, dtype=torch.float64)
    for z in (1.0, 30.0, 1000.0):
        stages = method.stages(method.stages_for(z))
        y = recurrence(lambda t, x: torch.full_like(x, t), 0.0, 0.5, x, x, stages)
        assert abs(float(y) - 0.125) <= 1e-13 * len(stages)


@both
def test_adaptive_steps_meet_the_tolerance_on_stiff_diffusion(method):
    f, x = heat(60, 4000.0), bump(60)
    exact = torch.linalg.matrix_exp(-1000 * path_laplacian(60)) @ x
    errors = []
    for tolerance in (1e-3, 1e-5, 1e-7):
        solution = integrate(f, x, [0.0, 1.0], method(rtol=tolerance, atol=tolerance))
        errors.append(float((solution.final - exact).abs().max()))
        assert errors[-1] <= 10 * tolerance
    assert errors[0] >= 50 * errors[-1]


@both
def test_nonlinear_diffusion_against_radau(method):
    """u' = (u³)'' + sin(3t) on a path: the porous medium, whose stiffness follows the state."""
    n = 40
    L = 200 * path_laplacian(n)

    def f(t, u):
        return -(L @ u**3) + torch.sin(3 * t)

    matrix, x = L.numpy(), bump(n)
    reference = solve_ivp(
        lambda t, u: -matrix @ u**3 + np.sin(3 * t), (0, 1), x[:, 0].numpy(), method="Radau", rtol=1e-9, atol=1e-11
    ).y[:, -1]
    solution = integrate(f, x, [0.0, 1.0], method(rtol=1e-6, atol=1e-8))
    assert float((solution.final[:, 0] - torch.as_tensor(reference)).abs().max()) <= 3e-5


@both
def test_the_cost_grows_as_the_root_of_the_stiffness(method):
    """A hundred times stiffer, ten times the evaluations, where an unstabilised method takes a hundred times as many."""
    x = bump(60)
    costs = []
    for stiffness in (4e3, 4e5):
        L = path_laplacian(60)
        fast = torch.linalg.eigh(L).eigenvectors[:, -1:]
        # The slow modes stay; only the fastest becomes stiffer, so that the steps that accuracy asks for are the same.
        J = 0.1 * L + (stiffness - 0.4) * fast @ fast.T
        solution = integrate(lambda t, x, J=J: -(J @ x), x - fast * (fast * x).sum(), [0.0, 4.0], method(dt=0.5))
        costs.append(solution.stats.nfe)
    assert costs[1] <= 12 * costs[0]
    assert costs[1] <= 4 * 4 * math.sqrt(4 * 4e5)


@both
def test_the_estimate_follows_an_equation_that_gets_stiffer(method):
    L = path_laplacian(40)

    def f(t, x):
        return -(10 * torch.exp(5 * t)) * (L @ x)

    x = bump(40)
    exact = torch.linalg.matrix_exp(-2 * (math.exp(5.0) - 1) * L) @ x
    solution = integrate(f, x, [0.0, 1.0], method(rtol=1e-5, atol=1e-7))
    assert float((solution.final - exact).abs().max()) <= 1e-4
    assert solution.stats.rejected <= 0.2 * solution.stats.accepted


@both
@pytest.mark.parametrize("dt", [0.1, 0.01])
@pytest.mark.parametrize("faster", [lambda t, x: 1 + 99 * (t > 0.5), lambda t, x: 1 + x[0] ** 2], ids=["in time", "in the state"])
def test_fixed_steps_stay_stable_where_the_equation_gets_stiffer_in_one(method, dt, faster):
    """The spectral radius grows a hundredfold and more; an unstable step would multiply the state by 1e60."""
    L = path_laplacian(40)

    def f(t, x):
        return torch.cat((torch.full_like(x[:1], 40.0), -500 * faster(t, x) * (L @ x[1:])))

    x = torch.cat((torch.zeros(1, 1, dtype=torch.float64), bump(40)))
    final = integrate(f, x, [0.0, 1.0], method(dt=dt)).final
    assert float(final[1:].abs().max()) <= 1.05 * float(x.abs().max())  # a step that f changes in is not of the scheme's order


@both
def test_a_step_that_no_number_of_stages_makes_stable_is_an_error(method):
    f = lambda t, x: -4 * torch.exp(x[0] ** 2 + 10 * x[1].abs()) * x + 20  # noqa: E731
    with pytest.raises(SolveError, match=r"diverged|budget") as caught:
        integrate(f, torch.tensor([[0.0], [5.0]], dtype=torch.float64), [0.0, 9.0], method(dt=3.0))
    assert caught.value.status in (Status.DIVERGED, Status.BUDGET)


@both
def test_a_known_radius_spares_the_estimate(method):
    f, x = heat(40, 4000.0), bump(40)
    guessed = integrate(f, x, [0.0, 1.0], method(dt=0.25))
    known = integrate(f, x, [0.0, 1.0], method(dt=0.25, radius=4000.0))
    s = method.stages_for(1000.0)
    assert known.stats.nfe == 4 * s + 2  # One to find what f holds, one to begin with, and the last stage is the next first.
    assert 0 < guessed.stats.nfe - 4 * method.stages_for(1200.0) <= 60


# -- Where the spectrum is not that of diffusion


def advection(speed):
    D = torch.roll(torch.eye(40, dtype=torch.float64), 1, 0) - torch.roll(torch.eye(40, dtype=torch.float64), -1, 0)
    return lambda t, x: speed * (D @ x)


@both
def test_fixed_steps_refuse_oscillation_that_they_could_not_follow(method):
    with pytest.raises(SolveError, match=rf"{method.__name__} is stable only where fast modes are damped.*Use RK4") as caught:
        integrate(advection(100.0), bump(40), [0.0, 1.0], method(dt=0.1))
    assert caught.value.status is Status.DIVERGED
    assert len(caught.value.solution.t) == 1


@both
def test_fixed_steps_follow_oscillation_that_is_slow(method):
    solution = integrate(advection(1.0), bump(40), [0.0, 1.0], method(dt=0.01))
    exact = torch.linalg.matrix_exp(advection(1.0)(0.0, torch.eye(40, dtype=torch.float64))) @ bump(40)
    assert float((solution.final - exact).abs().max()) <= 1e-3
    assert solution.stats.advice == ""


@both
def test_adaptive_steps_advise_and_stay_within_the_tolerance(method):
    x = torch.ones(40, 1, dtype=torch.float64) + 1e-3 * bump(40)
    with pytest.warns(SolverWarning, match="oscillate"):
        solution = integrate(advection(100.0), x, [0.0, 1.0], method(rtol=1e-2, atol=1e-2))
    exact = torch.linalg.matrix_exp(advection(100.0)(0.0, torch.eye(40, dtype=torch.float64))) @ x
    assert float((solution.final - exact).abs().max()) <= 0.1
    assert solution.stats.nfe <= 6 * 240 / 0.5
    assert "RK4 or Dopri5" in solution.stats.advice


# -- Gradients


def leaf(value):
    return torch.as_tensor(value, dtype=torch.float64).clone().requires_grad_()


def reaction_diffusion(t, x, a):
    return -30 * a * (path_laplacian(3) @ x**3) + x * torch.sin(3 * t)


@both
@pytest.mark.parametrize("gradient", [Direct(), Checkpointed(), Checkpointed(snapshots=2)], ids=str)
def test_gradcheck(method, gradient):
    def final(x0, a, t):
        return integrate(lambda s, x: reaction_diffusion(s, x, a), x0, t, method(dt=0.17, gradient=gradient)).x

    x0 = leaf([[0.3], [0.5], [0.8]])
    assert gradcheck(final, (x0, leaf(0.7), leaf([0.0, 0.4, 1.0])), eps=1e-6, atol=1e-5, rtol=1e-3)


@both
@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()], ids=str)
def test_second_derivatives(method, gradient):
    def final(x0, a):
        return integrate(lambda s, x: reaction_diffusion(s, x, a), x0, [0.0, 0.2], method(dt=0.2, gradient=gradient)).final

    assert gradgradcheck(final, (leaf([[0.3], [0.5], [0.8]]), leaf(0.7)), eps=1e-6, atol=1e-4, rtol=1e-3)


@both
def test_gradcheck_of_complex_and_tuple_states(method):
    def final(u, z, a):
        f = lambda s, x: (-a * x[0], (1j - 40) * a * x[1] * x[0].sum())  # noqa: E731
        return integrate(f, (u, z), [0.0, 0.3, 0.5], method(dt=0.25)).x

    u = torch.tensor([[0.3], [0.5]], dtype=torch.float64)
    assert gradcheck(final, (leaf(u), torch.complex(u, 1 - u).requires_grad_(), leaf(0.7)), atol=1e-5, rtol=1e-3)


@both
def test_the_repeated_steps_choose_the_same_stages(method):
    """Stiffness that follows the state, estimated some twenty times: Checkpointed must come to the same numbers of stages."""
    L = 200 * path_laplacian(20)
    grads = []
    for gradient in (Direct(), Checkpointed(), Checkpointed(snapshots=3)):
        x, a = bump(20).requires_grad_(), leaf(1.0)
        f = lambda t, u, a=a: -a * (L @ u**3)  # noqa: E731
        solution = integrate(f, x, [0.0, 0.3, 1.0], method(rtol=1e-4, atol=1e-5, gradient=gradient))
        grads.append(torch.autograd.grad((solution.x**2).sum(), (x, a)))
        assert solution.stats.accepted > 10
    for other in grads[1:]:
        for one, two in zip(grads[0], other, strict=True):
            assert torch.allclose(one, two, rtol=1e-10, atol=1e-12)


@both
def test_vmap_with_a_known_radius(method):
    def final(x0):
        x, slope = x0, reaction_diffusion(torch.tensor(0.0), x0, 1.0)
        return recurrence(lambda t, x: reaction_diffusion(torch.tensor(t), x, 1.0), 0.0, 0.1, x, slope, method.stages(9))

    batch = torch.rand(4, 3, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(torch.vmap(final)(batch), torch.stack([final(x) for x in batch]), rtol=1e-13)


# -- What goes wrong, and what is remembered


@both
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dt": 0.0}, "dt must be positive, not 0.0"),
        ({"dt": float("nan")}, "dt must be positive"),
        ({"radius": -1.0}, "radius must be a finite bound"),
        ({"radius": math.inf}, "radius must be a finite bound"),
        ({"rtol": 0.0}, "rtol must be positive"),
    ],
)
def test_bad_arguments(method, arguments, message):
    with pytest.raises(ValueError, match=message):
        method(**arguments)


@both
def test_stages_beyond_the_budget(method):
    with pytest.raises(SolveError, match=r"stages .* more than its budget of 500 evaluations") as caught:
        integrate(heat(10, 1e12), bump(10), [0.0, 1.0], method(dt=1.0, max_nfe=500))
    assert caught.value.status is Status.BUDGET


@both
@pytest.mark.parametrize("settings", [{}, {"dt": 0.1}], ids=["adaptive", "fixed"])
def test_a_derivative_that_is_not_finite(method, settings):
    with pytest.raises(SolveError, match="not finite"):
        integrate(lambda t, x: x * float("nan"), bump(10), [0.0, 1.0], method(**settings))
    with pytest.raises(SolveError, match="not finite"):
        integrate(lambda t, x: torch.where(x == bump(10), 0 * x, float("nan") * x), bump(10), [0.0, 1.0], method(**settings))


@both
def test_dense_output_costs_nothing_and_outputs_agree(method):
    f, x = heat(20, 400.0), bump(20)
    solution = integrate(f, x, [0.0, 1.0], method(rtol=1e-6, atol=1e-8), dense=True)
    nfe = solution.stats.nfe
    rows = integrate(f, x, [0.0, 0.31, 1.0], method(rtol=1e-6, atol=1e-8))
    assert torch.allclose(solution.at(0.31), rows.x[1], rtol=0, atol=1e-10)
    decay = integrate(lambda t, x: -x, torch.ones(1, 1, dtype=torch.float64), [0.0, 1.0], method(dt=0.25), dense=True)
    assert abs(float(decay.at(0.125)) - math.exp(-0.125)) <= 2e-3
    assert solution.stats.nfe == nfe


@both
def test_single_precision_and_jumps(method):
    f, x = heat(20, 400.0), bump(20)
    jump = lambda t, x: f(t, x) + (t >= 0.5).to(x.dtype)  # noqa: E731
    double = integrate(jump, x, [0.0, 1.0], method(rtol=1e-4, atol=1e-5), jumps=[0.5])
    L = (100 * path_laplacian(20)).float()
    single = integrate(
        lambda t, x: -(L @ x) + (t >= 0.5).to(x.dtype), x.float(), [0.0, 1.0], method(rtol=1e-4, atol=1e-5), jumps=[0.5]
    )
    exact = torch.linalg.matrix_exp(-100 * path_laplacian(20)) @ x + 0.5
    assert float((double.final - exact).abs().max()) <= 1e-3
    assert float((single.final - exact).abs().max()) <= 1e-3
    assert single.final.dtype == torch.float32
