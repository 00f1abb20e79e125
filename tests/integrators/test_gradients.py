"""Direct is the exact gradient of every solver, through its steps, its outputs and its dense output."""

import math
from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from integrators.adjoint import Adjoint
from integrators.backward_euler import BackwardEuler
from integrators.bosh3 import Bosh3
from integrators.checkpointed import Checkpointed
from integrators.dopri5 import Dopri5
from integrators.exponential import Exponential
from integrators.fixed import Euler, TruncatedTaylor
from integrators.gradients import Direct
from integrators.integrate import integrate
from integrators.interpolated import Interpolated
from integrators.ragged import PerSample
from integrators.rk4 import RK4
from integrators.rkc2 import RKC2
from integrators.sdirk3 import SDIRK3
from integrators.solution import Status

T = [0.0, 0.4, 1.0]
TIGHT = {"rtol": 1e-8, "atol": 1e-10}
X0 = torch.tensor([[0.3], [0.5]], dtype=torch.float64)
G = torch.tensor([[-0.5, 1.0], [-1.0, -0.2]], dtype=torch.float64)

both = pytest.mark.parametrize("gradient", [Direct(), Checkpointed()], ids=["Direct", "Checkpointed"])
explicit = pytest.mark.parametrize(
    ("scheme", "settings"),
    [(Dopri5, {"rtol": 1e-6, "atol": 1e-8}), (Bosh3, {"rtol": 1e-4, "atol": 1e-6}), (RK4, {"dt": 0.17}), (Euler, {"dt": 0.17})],
    ids=["Dopri5", "Bosh3", "RK4", "Euler"],
)
linear_solvers = pytest.mark.parametrize(
    ("scheme", "settings"),
    [(BackwardEuler, {"dt": 0.17}), (Exponential, {}), (Exponential, {"dt": 0.3}), (TruncatedTaylor, {"dt": 0.17, "order": 3})],
    ids=["BackwardEuler", "Exponential", "Exponential in steps", "TruncatedTaylor"],
)


def leaf(value):
    return torch.as_tensor(value, dtype=torch.float64).clone().requires_grad_()


@both
@explicit
def test_gradcheck_in_the_initial_state_a_parameter_and_the_times(scheme, settings, gradient):
    solver = scheme(**settings, gradient=gradient)

    def final(x0, a, t):
        return integrate(lambda s, x: a * x * (1 - x) + torch.sin(3 * s), x0, t, solver).x

    assert gradcheck(final, (leaf(X0), leaf(0.7), leaf(T)), eps=1e-6, atol={Bosh3: 1e-2, Dopri5: 1e-4}.get(scheme, 1e-5))


@both
@explicit
def test_gradcheck_of_complex_and_tuple_states(scheme, settings, gradient):
    solver = scheme(**settings, gradient=gradient)

    def final(u, z, a):
        return integrate(lambda s, x: (-a * x[0], 1j * a * x[1] * x[0].sum()), (u, z), T, solver).x

    z = torch.complex(X0, 1 - X0).requires_grad_()
    assert gradcheck(final, (leaf(X0), z, leaf(0.7)), eps=1e-6, atol=1e-3 if scheme is Bosh3 else 1e-5, rtol=1e-3)


@both
@linear_solvers
def test_gradcheck_of_linear_solvers(scheme, settings, gradient, linear):
    solver = scheme(**settings, gradient=gradient)
    assert gradcheck(
        lambda x0, A, t: integrate(linear(A), x0, t, solver).x, (leaf(X0), leaf(G), leaf(T)), eps=1e-6, atol=1e-5, rtol=1e-3
    )


@both
@linear_solvers
def test_gradcheck_of_linear_solvers_on_complex_states(scheme, settings, gradient, linear):
    solver = scheme(**settings, gradient=gradient)
    A = ((0.3 + 1j) * G).requires_grad_()
    x0 = torch.complex(X0, 1 - X0).requires_grad_()
    assert gradcheck(lambda x, A: integrate(linear(A), x, T, solver).x, (x0, A), eps=1e-6, atol=1e-5, rtol=1e-3)


@both
@pytest.mark.parametrize("solver", [RK4(dt=0.27), Dopri5(rtol=1e-2, atol=1e-2, first_step=0.3)], ids=["RK4", "Dopri5"])
def test_second_derivatives(solver, gradient):
    solver = type(solver)(**{**vars(solver), "gradient": gradient})

    def final(x0, a, t):
        return integrate(lambda s, x: a * x * (1 - x) + torch.sin(3 * s), x0, t, solver).x[1:]

    # Where the steps are chosen by the error, a moved end moves them, which counts as constant.
    t = leaf(T) if isinstance(solver, RK4) else torch.tensor(T, dtype=torch.float64)
    assert gradgradcheck(final, (leaf(X0), leaf(0.7), t), atol=1e-5, rtol=1e-3)


def test_gradient_of_the_flow_in_time_is_the_right_hand_side():
    t = leaf(T)
    x = integrate(lambda s, x: -2 * x, X0, t, Dopri5(**TIGHT)).x
    (in_t,) = torch.autograd.grad(x[-1].sum(), t)
    slope = -2 * X0.sum() * torch.exp(torch.tensor(-2.0))
    assert torch.allclose(in_t, torch.stack([-slope, 0 * slope, slope]), atol=1e-6)


@both
@pytest.mark.parametrize("solver", [Dopri5(**TIGHT), RK4(dt=0.031)], ids=["Dopri5", "RK4"])
@pytest.mark.parametrize("t", [[0.0, 0.53, 1.0], [1.0, 0.8, 0.0]], ids=["forward", "reverse"])
def test_gradient_in_the_times_with_a_jump_that_stays(solver, t, gradient):
    solver = type(solver)(**{**vars(solver), "gradient": gradient})

    def final(t):
        return integrate(lambda s, x: (-2 if s < 0.55 else x) * x * torch.cos(s), X0, t, solver, jumps=[0.55, 0.6]).x

    times = torch.tensor(t, dtype=torch.float64)
    found = torch.autograd.functional.jacobian(final, times)
    for k in range(3):
        e = 1e-5 * torch.eye(3, dtype=torch.float64)[k]
        assert torch.allclose(found[..., k], (final(times + e) - final(times - e)) / 2e-5, atol=1e-4)


def test_direct_evaluates_nothing_backward():
    a, calls = leaf(0.7), 0

    def f(t, x):
        nonlocal calls
        calls += 1
        return -a * x

    solution = integrate(f, X0, T, Dopri5(gradient=Direct()))
    assert solution.stats.nfe == calls
    solution.x.sum().backward()
    assert solution.stats.nfe_backward == 0
    assert solution.stats.nfe == calls


@pytest.mark.parametrize("t", [[0.0, 0.3, 1.0], [1.0, 0.7, 0.0]], ids=["forward", "reverse"])
@pytest.mark.parametrize("solver", [RK4(dt=0.05), Dopri5(**TIGHT)], ids=["RK4", "Dopri5"])
def test_dense_output_is_the_solution_and_differentiable(t, solver):
    a = leaf(0.7)
    solution = integrate(lambda s, x: -a * x, X0, t, solver, dense=True)
    for s in torch.linspace(t[0], t[-1], 23, dtype=torch.float64):
        exact = X0 * torch.exp(-a * (s - t[0]))
        assert torch.allclose(solution.at(s), exact, atol=1e-6)
        assert torch.allclose(
            torch.autograd.grad(solution.at(s).sum(), a, retain_graph=True)[0],
            torch.autograd.grad(exact.sum(), a)[0],
            atol=1e-5,
        )
    for s in (-0.1, 1.1):
        with pytest.raises(ValueError, match="lies outside the solve, which covers"):
            solution.at(s)


@pytest.mark.parametrize("gradient", ["direct", Adjoint, None])
def test_what_is_no_gradient_is_refused(gradient):
    with pytest.raises(TypeError, match=r"gradient must be Checkpointed\(\), Direct\(\) or another such object, not"):
        Dopri5(gradient=gradient)


class Rotation(torch.nn.Module):
    """dx/dt = a G x, which is also its own linear part."""

    G = torch.tensor([[-1.0, 0.3], [0.2, -2.0]], dtype=torch.float64)

    def __init__(self, a):
        super().__init__()
        self.A = a * self.G

    @property
    def linear(self):
        return self

    def forward(self, t, x):
        return self.A @ x

    __matmul__ = lambda self, x: self.A @ x  # noqa: E731

    def norm_bound(self):
        return 10.0

    def solve(self, shift, b):
        return torch.linalg.solve(torch.eye(2, dtype=b.dtype) - shift * self.A, b)


FIXED = [RK4(dt=0.1), BackwardEuler(dt=0.1), Exponential()]
VARIABLE = [Dopri5(), SDIRK3()]


@pytest.mark.parametrize("solver", [*FIXED, *VARIABLE], ids=lambda s: type(s).__name__)
def test_transforms_of_functions_agree_with_autograd(solver):
    def final(x0, a):
        return integrate(Rotation(a), x0, [0.0, 1.0], solver).final

    x0, a = torch.tensor([[1.0], [0.5]], dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    in_x0, in_a = torch.autograd.functional.jacobian(final, (x0, a))
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        assert torch.allclose(jacobian(final)(x0, a), in_x0, rtol=1e-10)
        assert torch.allclose(jacobian(final, 1)(x0, a), in_a, rtol=1e-10)
    assert torch.allclose(torch.func.grad(lambda a: final(x0, a).sum())(a), in_a.sum(), rtol=1e-10)
    assert torch.allclose(torch.func.jvp(lambda a: final(x0, a), (a,), (a,))[1], in_a, rtol=1e-10)


@pytest.mark.parametrize("solver", FIXED, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("dims", [(0, None), (None, 0), (0, 0)])
def test_vmap_over_states_and_parameters_with_a_fixed_step(solver, dims):
    def final(x0, a):
        return integrate(Rotation(a), x0, [0.0, 1.0], solver).final

    x0, a = torch.rand(3, 2, 1, dtype=torch.float64), torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    x0, a = (part if d == 0 else part[0] for part, d in zip((x0, a), dims, strict=True))
    found = torch.func.vmap(final, dims)(x0, a)
    for k in range(3):
        one = final(*(part[k] if d == 0 else part for part, d in zip((x0, a), dims, strict=True)))
        assert torch.allclose(found[k], one, rtol=1e-12)


@pytest.mark.parametrize("solver", [*VARIABLE, PerSample(Dopri5()), RKC2(), None], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("over", ["states", "parameters"])
def test_vmap_over_chosen_steps_is_refused_with_the_cure(solver, over):
    x0, scales = torch.rand(3, 2, 1, dtype=torch.float64), torch.rand(3, dtype=torch.float64)

    def final(x, a):
        return integrate((lambda t, x: a * x) if solver is None else Rotation(a), x, [0.0, 1.0], solver).final

    with pytest.raises(TypeError, match=r"vmap hides the numbers.*PerSample.*RK4\(dt="):
        torch.func.vmap(final, (0, None) if over == "states" else (None, 0))(
            x0 if over == "states" else x0[0], scales if over == "parameters" else scales[0]
        )


@pytest.mark.parametrize("gradient", [Checkpointed(), Checkpointed(snapshots=2), Direct(), Interpolated()], ids=str)
@pytest.mark.parametrize("kind", [RK4(dt=0.05), Dopri5(1e-8, 1e-10)], ids=["RK4", "Dopri5"])
def test_steps_beyond_the_last_output_do_no_harm_to_its_gradient(kind, gradient):
    """A fixed step goes on for some steps before it sees that the state is no longer finite."""
    a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    f = lambda t, x: -a * x if t < 0.6 else math.nan * x  # noqa: E731
    solution = integrate(f, X0, [0.0, 0.3, 1.0], replace(kind, gradient=gradient), throw=False)
    assert (solution.status, len(solution.t)) == (Status.DIVERGED, 2)
    (slope,) = torch.autograd.grad(solution.final.sum(), a)
    assert float(slope) == pytest.approx(-0.3 * math.exp(-0.21) * float(X0.sum()), rel=1e-5)


@pytest.mark.parametrize("gradient", [Checkpointed(), Checkpointed(snapshots=2), Interpolated()], ids=str)
def test_a_solve_that_made_no_step_has_the_gradient_of_its_start(gradient):
    x0 = X0.clone().requires_grad_()
    solution = integrate(lambda t, x: -0.7 * x, x0, T, RK4(dt=0.1, gradient=gradient), throw=False, max_steps=0)
    (slope,) = torch.autograd.grad(solution.x.sum(), x0)
    assert torch.equal(slope, torch.ones_like(x0))


def test_an_interrupted_solve_keeps_what_was_reached():
    def f(t, x):
        if t > 0.6:
            raise KeyboardInterrupt
        return -x

    solution = integrate(f, X0, [0.0, 0.5, 1.0], RK4(dt=0.1), throw=False)
    assert solution.status is Status.INTERRUPTED
    assert solution.t.tolist() == [0.0, 0.5]
