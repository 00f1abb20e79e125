"""The continuous adjoint is the exact gradient to the tolerance, misses no tensor, and says so where it cannot work."""

import warnings

import pytest
import torch

from integrators.adjoint import Adjoint
from integrators.backward_euler import BackwardEuler
from integrators.bosh3 import Bosh3
from integrators.dopri5 import Dopri5
from integrators.fixed import Euler
from integrators.gradients import Direct
from integrators.integrate import integrate
from integrators.rk4 import RK4
from integrators.solution import SolveError, SolverWarning, Status

T = [0.0, 0.4, 1.0]
TIGHT = {"rtol": 1e-8, "atol": 1e-10}
X0 = torch.tensor([[0.3], [0.5]], dtype=torch.float64)
Z0 = torch.complex(X0, 1 - X0)


def leaf(value):
    return torch.as_tensor(value, dtype=torch.float64).clone().requires_grad_()


class Network(torch.nn.Module):
    """A small smooth right-hand side with parameters of several shapes."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.mix = torch.nn.Parameter(torch.randn(2, 2, dtype=torch.float64, generator=generator) / 2)
        self.gain = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, t, x):
        return torch.tanh(self.mix @ x) * self.gain + torch.sin(t) * x


class Branching(Network):
    """Uses `gain` only late, where one evaluation at the start does not see it."""

    def forward(self, t, x):
        return -(self.mix @ x) if t < 0.5 else -(self.mix @ x) + 10 * self.gain * (t - 0.5) ** 4 * x


class Nested(Network):
    """Holds a tensor computed outside from its own parameter, and uses both."""

    def __init__(self):
        super().__init__()
        self.double = 2 * self.gain

    def forward(self, t, x):
        return -self.double * (self.mix @ x) + torch.tanh(self.gain * x)


def module(kind):
    def make():
        f = kind()
        return f, list(f.parameters())

    return make


def closure():
    a, b = leaf(0.7), leaf([[0.2], [-0.4]])
    return (lambda t, x: -a * x + torch.sin(b * t)), [a, b]


def non_leaf():
    log_a = leaf(-0.3)
    a = log_a.exp()
    return (lambda t, x: -a * x), [log_a]


def non_leaf_and_leaf():
    """The same leaf both inside and behind a tensor computed outside: its gradient has both shares, once each."""
    log_a = leaf(-0.3)
    a = log_a.exp()
    return (lambda t, x: -a * x + log_a * x**2), [log_a]


def returned_leaf():
    c = leaf(X0)
    return (lambda t, x: c), [c]


def complex_parameter():
    w = torch.tensor(-0.3 + 1.2j, dtype=torch.complex128, requires_grad=True)
    return (lambda t, x: w * x), [w]


def real_state_of_complex_parameter():
    w = torch.tensor(-0.3 + 1.2j, dtype=torch.complex128, requires_grad=True)
    return (lambda t, x: (w**2).real * x), [w]


def complex_state_with_time():
    a = leaf(0.7)
    return (lambda t, x: (1j * a * t - 0.2) * x), [a]


def pair():
    a = leaf(0.7)
    return (lambda t, x: (a * x[1], -a * x[0])), [a]


def mixed_pair():
    a = leaf(0.7)
    return (lambda t, x: (-a * x[0] * torch.cos(t), 1j * a * x[1] * x[0].sum())), [a]


CASES = {
    "parameters of a module": (module(Network), X0),
    "a parameter inside a branch": (module(Branching), X0),
    "a tensor from a parameter that the module owns": (module(Nested), X0),
    "tensors captured by a closure": (closure, X0),
    "a non-leaf from outside": (non_leaf, X0),
    "a leaf and a non-leaf made of it": (non_leaf_and_leaf, X0),
    "a leaf returned as it is": (returned_leaf, X0),
    "a complex parameter": (complex_parameter, Z0),
    "a complex parameter of a real state": (real_state_of_complex_parameter, X0),
    "a complex state and the time": (complex_state_with_time, Z0),
    "a tuple": (pair, (X0, 1 - X0)),
    "a tuple of real and complex": (mixed_pair, (X0, Z0)),
    "no parameters": (lambda: ((lambda t, x: -x), []), X0),
}


def gradients(make, x0, solver, times=T):
    """The gradients of a fixed loss in the initial state, in the leaves that `make` returns with f, and in the times."""
    f, leaves = make()
    start = tuple(p.clone().requires_grad_() for p in x0) if isinstance(x0, tuple) else x0.clone().requires_grad_()
    t = leaf(times)
    solution = integrate(f, start, t, solver)
    parts = solution.x if isinstance(solution.x, tuple) else (solution.x,)
    loss = sum(p.abs().pow(2).sum() + p.real.sum() for p in parts)
    loss.backward()
    starts = start if isinstance(start, tuple) else (start,)
    return [p.grad for p in (*starts, *leaves, t)], solution.stats


@pytest.mark.parametrize("times", [T, [1.0, 0.4, 0.0]], ids=["forward", "reverse"])
@pytest.mark.parametrize(("make", "x0"), CASES.values(), ids=CASES.keys())
def test_it_is_direct_to_the_tolerance(make, x0, times):
    adjoint, stats = gradients(make, x0, Dopri5(gradient=Adjoint(), **TIGHT), times)
    direct, _ = gradients(make, x0, Dopri5(gradient=Direct(), **TIGHT), times)
    for found, expected in zip(adjoint, direct, strict=True):
        assert found is not None
        assert found.dtype == expected.dtype
        scale = 1 + float(expected.abs().max())
        assert float((found - expected).abs().max()) <= 100 * TIGHT["rtol"] * scale
    assert stats.nfe_backward > 0


@pytest.mark.parametrize(
    ("solver", "error"),
    [(Bosh3(rtol=1e-6, atol=1e-8), 1e-4), (RK4(dt=0.02), 1e-6), (Euler(dt=0.002), 1e-2)],
    ids=lambda v: type(v).__name__,
)
def test_other_explicit_solvers(solver, error):
    kind, given = type(solver), {k: v for k, v in vars(solver).items() if k in ("rtol", "atol", "dt")}
    adjoint, direct = (gradients(module(Network), X0, kind(**given, gradient=g))[0] for g in (Adjoint(), Direct()))
    for found, expected in zip(adjoint, direct, strict=True):
        assert torch.allclose(found, expected, rtol=error, atol=error)


def test_an_implicit_solver_goes_back_by_dopri5(linear):
    A = torch.tensor([[-0.5, 1.0], [-1.0, -0.2]], dtype=torch.float64)

    def make():
        G = leaf(A)
        return linear(G), [G]

    adjoint, direct = (gradients(make, X0, BackwardEuler(dt=2e-3, gradient=g))[0] for g in (Adjoint(), Direct()))
    for found, expected in zip(adjoint, direct, strict=True):
        assert torch.allclose(found, expected, rtol=5e-3, atol=5e-3)


def test_single_precision():
    def make():
        f = Network().float()
        return f, list(f.parameters())

    solvers = (Dopri5(rtol=1e-5, atol=1e-6, gradient=g) for g in (Adjoint(), Direct()))
    adjoint, direct = (gradients(make, X0.float(), solver)[0] for solver in solvers)
    for found, expected in zip(adjoint, direct, strict=True):
        assert found.dtype == expected.dtype
        assert torch.allclose(found, expected, atol=1e-3)


def test_own_tolerances_of_the_backward_solve():
    _, loose = gradients(module(Network), X0, Dopri5(gradient=Adjoint(rtol=1e-3, atol=1e-4), **TIGHT))
    _, tight = gradients(module(Network), X0, Dopri5(gradient=Adjoint(rtol=1e-10, atol=1e-12), **TIGHT))
    assert loose.nfe == tight.nfe
    assert loose.nfe_backward < tight.nfe_backward / 2


def test_the_seminorm_is_as_right_where_it_is_allowed():
    plain, cost = gradients(module(Network), X0, Dopri5(gradient=Adjoint(), **TIGHT))
    semi, saved = gradients(module(Network), X0, Dopri5(gradient=Adjoint(seminorm=True), **TIGHT))
    for found, expected in zip(semi, plain, strict=True):
        assert torch.allclose(found, expected, atol=1e-5)
    assert saved.nfe_backward <= cost.nfe_backward


def test_what_it_evaluates_is_counted():
    a, calls = leaf(0.7), 0

    def f(t, x):
        nonlocal calls
        calls += 1
        return -a * x

    solution = integrate(f, X0, T, Dopri5(gradient=Adjoint()))
    forward = calls
    assert solution.stats.nfe == forward
    assert solution.stats.nfe_backward == 0
    assert solution.stats.nvp > 0
    steps = solution.stats.accepted, solution.stats.rejected
    solution.x.sum().backward()
    assert solution.stats.nfe == forward
    assert solution.stats.nfe_backward == calls - forward > 0
    assert (solution.stats.accepted, solution.stats.rejected) == steps


def test_without_gradients_it_costs_nothing():
    f = Network()
    with torch.no_grad():
        silent = integrate(f, X0, T, Dopri5(gradient=Adjoint()))
    assert silent.stats.nfe == integrate(f, X0, T, Dopri5(gradient=Direct())).stats.nfe
    assert not silent.x.requires_grad


def test_what_was_reached_before_a_failure_has_its_gradient():
    a, b = leaf(2.0), leaf(2.0)
    t = [0.0, 0.1, 0.2, 0.8, 1.6]
    for rate, gradient in ((a, Adjoint()), (b, Direct())):
        solver = Dopri5(gradient=gradient, max_nfe=400, **TIGHT)
        solution = integrate(lambda t, x, r=rate: r * x * x, 1 + X0, t, solver, throw=False)
        assert 1 < len(solution.t) < 5
        solution.x.sum().backward()
    assert torch.allclose(a.grad, b.grad, rtol=1e-6)


def test_hooks_see_the_whole_gradient_once():
    a, seen = leaf(0.7), []
    a.register_hook(lambda g: seen.append(float(g)))
    integrate(lambda t, x: -a * x, X0, T, Dopri5(gradient=Adjoint())).x.sum().backward()
    assert seen == [float(a.grad)]


def test_jumps_of_the_right_hand_side():
    found = []
    for gradient in (Adjoint(), Direct()):
        a = leaf(0.7)
        solver = Dopri5(gradient=gradient, **TIGHT)
        f = lambda t, x, a=a: (-a if t < 0.7 else 2 * a) * x  # noqa: E731
        integrate(f, X0, T, solver, jumps=[0.7]).x.sum().backward()
        found.append(a.grad)
    assert torch.allclose(*found, rtol=1e-6)


# -- The trap


class Heat(torch.nn.Module):
    """dx/dt = −λ x, mode by mode, which promises to dissipate."""

    dissipative = True

    def __init__(self, largest):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.linspace(1, largest, 8, dtype=torch.float64)[:, None])

    def forward(self, t, x):
        return -self.rate * x


ONES = torch.ones(8, 1, dtype=torch.float64)


def test_it_warns_of_a_dissipative_equation_at_the_callers_line():
    with pytest.warns(
        SolverWarning, match=r"Adjoint solves Heat backwards.*dissipative.*prefer gradient=Checkpointed\(\)"
    ) as caught:
        integrate(Heat(2.0), ONES, T, Dopri5(gradient=Adjoint()))
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize(("rate", "warns"), [(12.0, False), (25.0, True)])
def test_it_warns_of_fast_decay_between_two_outputs(rate, warns):
    """Nothing is promised here: the rate is estimated. The longest interval is 0.6."""
    a = leaf(rate)
    f = lambda t, x: -a * x  # noqa: E731
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        integrate(f, X0, T, Dopri5(gradient=Adjoint()))
        integrate(f, X0, [1.0, 0.4, 0.0], Dopri5(gradient=Adjoint()))  # growth, harmless backwards
    assert [w.category for w in caught] == [SolverWarning] * warns


def test_direct_does_not_warn():
    heat = Heat(300.0)
    integrate(heat, ONES, T, Dopri5()).x.sum().backward()
    assert bool(torch.isfinite(heat.rate.grad).all())


@pytest.mark.parametrize("f", [Heat(2.0), Heat(300.0)], ids=["promised", "stiff"])
def test_the_seminorm_is_refused_on_a_dissipative_equation(f):
    with pytest.raises(ValueError, match=r"seminorm=True.*dissipative.*leave seminorm=False.*Checkpointed\(\)"):
        integrate(f, ONES, T, Dopri5(gradient=Adjoint(seminorm=True)))


def test_the_seminorm_is_refused_where_the_estimated_decay_is_fast():
    a = leaf(300.0)
    with pytest.raises(ValueError, match=r"dissipative \(λ Δt ≈ 180 between"):
        integrate(lambda t, x: -a * x, X0, T, Dopri5(gradient=Adjoint(seminorm=True)))


def test_the_seminorm_needs_a_norm():
    with pytest.raises(ValueError, match="needs a solver that controls its error by a norm, not RK4"):
        integrate(Network(), X0, T, RK4(dt=0.1, gradient=Adjoint(seminorm=True)))


@pytest.mark.filterwarnings("ignore::integrators.SolverWarning")
@pytest.mark.parametrize("largest", [100.0, 300.0, 3000.0])
@pytest.mark.parametrize("solver", [Dopri5, Bosh3])
def test_the_adjoint_of_heat_ends_in_a_solve_error(largest, solver):
    """Solved backwards the error of the largest rate grows by exp(λ T), here e¹⁰⁰ or more."""
    solution = integrate(Heat(largest), ONES, [0.0, 1.0], solver(gradient=Adjoint(max_nfe=1000)))
    with pytest.raises(SolveError, match=r"backward solve of Adjoint.*Diffusion cannot be solved backwards") as caught:
        solution.x.sum().backward()
    assert caught.value.status in (Status.BUDGET, Status.DIVERGED)
    assert solution.stats.nfe_backward <= 1001


@pytest.mark.filterwarnings("ignore::integrators.SolverWarning")
def test_a_backward_solve_that_does_not_return_is_refused():
    """A fixed step has no error to notice: e^20 times the difference is what comes back."""
    solution = integrate(Heat(25.0), ONES, [0.0, 1.0], RK4(dt=0.05, gradient=Adjoint()))
    with pytest.raises(SolveError, match=r"not to be trusted: at t = 0 it is .* away from the state of the forward solve"):
        solution.x.sum().backward()


def test_the_budget_is_exact_and_names_the_cure():
    solution = integrate(Network(), X0, T, Dopri5(gradient=Adjoint(max_nfe=10)))
    message = r"backward solve of Adjoint reached t = .*budget of 10 evaluations.*gradient=Checkpointed\(\).*max_nfe"
    with pytest.raises(SolveError, match=message) as caught:
        solution.x.sum().backward()
    assert caught.value.status is Status.BUDGET
    assert solution.stats.nfe_backward == 11


# -- Refusals


def test_second_derivatives_are_refused():
    a = leaf(0.7)
    x = integrate(lambda t, x: -a * x, X0, T, Dopri5(gradient=Adjoint())).x
    with pytest.raises(NotImplementedError, match=r"no second derivatives \(create_graph=True\): use gradient=Checkpointed\(\)"):
        torch.autograd.grad(x.sum(), a, create_graph=True)


def test_function_transforms_and_dense_output_are_refused():
    a = torch.tensor(0.7, dtype=torch.float64)
    solver = Dopri5(gradient=Adjoint())
    with pytest.raises(NotImplementedError, match=r"does not work inside torch.func.*Direct\(\)"):
        torch.func.jacrev(lambda a: integrate(lambda t, x: -a * x, X0, T, solver).x)(a)
    with pytest.raises(ValueError, match=r"dense=True gives no gradient with Adjoint"):
        integrate(Network(), X0, T, solver, dense=True)


def test_a_random_right_hand_side_is_refused():
    f = lambda t, x: torch.rand_like(x) * leaf(1.0)  # noqa: E731
    with pytest.raises(ValueError, match=r"draws random numbers, and Adjoint cannot draw the same again"):
        integrate(f, X0, T, RK4(dt=0.1, gradient=Adjoint()))


def test_a_tensor_reached_late_is_noticed():
    a, late = leaf(0.7), leaf(0.2)
    x = integrate(lambda t, x: -a * x if t < 0.5 else -late * x, X0, T, RK4(dt=0.1, gradient=Adjoint())).x
    with pytest.raises(RuntimeError, match="did not reach when the solve began"):
        x.sum().backward()


@pytest.mark.parametrize("settings", [{"rtol": 0.0}, {"atol": -1.0}, {"rtol": float("nan")}, {"max_nfe": 0}, {"max_nfe": 1.5}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match=r"must be (positive and finite|a positive integer), not"):
        Adjoint(**settings)
