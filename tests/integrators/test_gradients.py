"""Direct is the exact gradient of every solver; Adjoint agrees with it on stable problems, and misses no leaf."""

import pytest
import torch
from torch.autograd import gradcheck

from integrators import (
    RK4,
    Adjoint,
    BackwardEuler,
    Bosh3,
    Direct,
    Dopri5,
    Euler,
    Exponential,
    SolveError,
    SolverWarning,
    Status,
    TruncatedTaylor,
    integrate,
)
from integrators.gradients import reachable_leaves

T = [0.0, 0.4, 1.0]
TIGHT = {"rtol": 1e-8, "atol": 1e-10}
X0 = torch.tensor([[0.3], [0.5]], dtype=torch.float64)
G = torch.tensor([[-0.5, 1.0], [-1.0, -0.2]], dtype=torch.float64)

explicit = pytest.mark.parametrize(
    "solver",
    [Dopri5(**TIGHT), Bosh3(rtol=1e-6, atol=1e-8), RK4(dt=0.17), Euler(dt=0.17)],
    ids=lambda s: type(s).__name__,
)
linear_solvers = pytest.mark.parametrize(
    "solver",
    [BackwardEuler(dt=0.17), Exponential(), Exponential(dt=0.3), TruncatedTaylor(dt=0.17, order=3)],
    ids=lambda s: type(s).__name__,
)


def leaf(value):
    return torch.as_tensor(value, dtype=torch.float64).clone().requires_grad_()


# -- Direct


@explicit
def test_gradcheck_in_the_initial_state_a_parameter_and_the_times(solver):
    def final(x0, a, t):
        return integrate(lambda s, x: a * x * (1 - x) + torch.sin(3 * s), x0, t, solver).x

    assert gradcheck(
        final, (leaf(X0), leaf(0.7), leaf(T)), eps=1e-6, atol=1e-5 if not isinstance(solver, Bosh3) else 1e-4
    )


@explicit
def test_gradcheck_of_complex_and_tuple_states(solver):
    def final(u, z, a):
        solution = integrate(lambda s, x: (-a * x[0], 1j * a * x[1] * x[0].sum()), (u, z), T, solver)
        return solution.x

    z = torch.complex(X0, 1 - X0).requires_grad_()
    assert gradcheck(final, (leaf(X0), z, leaf(0.7)), eps=1e-6, atol=1e-5, rtol=1e-3)


@linear_solvers
def test_gradcheck_of_linear_solvers(solver, linear):
    def final(x0, G, t):
        f = linear(G)
        return integrate(f, x0, t, solver).x

    assert gradcheck(final, (leaf(X0), leaf(G), leaf(T)), eps=1e-6, atol=1e-5, rtol=1e-3)


@linear_solvers
def test_gradcheck_of_linear_solvers_on_complex_states(solver, linear):
    G_complex = ((0.3 + 1j) * G).requires_grad_()
    x0 = torch.complex(X0, 1 - X0).requires_grad_()
    assert gradcheck(lambda x, A: integrate(linear(A), x, T, solver).x, (x0, G_complex), eps=1e-6, atol=1e-5, rtol=1e-3)


def test_gradient_of_the_flow_in_time_is_the_right_hand_side():
    t = leaf(T)
    x = integrate(lambda s, x: -2 * x, X0, t, Dopri5(**TIGHT)).x
    (in_t,) = torch.autograd.grad(x[-1].sum(), t)
    slope = -2 * X0.sum() * torch.exp(torch.tensor(-2.0))
    assert torch.allclose(in_t, torch.stack([-slope, 0 * slope, slope]), atol=1e-6)


def test_direct_evaluates_nothing_backward():
    a, calls = leaf(0.7), 0

    def f(t, x):
        nonlocal calls
        calls += 1
        return -a * x

    solution = integrate(f, X0, T, Dopri5())
    assert solution.stats.nfe == calls
    solution.x.sum().backward()
    assert solution.stats.nfe_backward == 0
    assert solution.stats.nfe == calls


# -- Adjoint = Direct


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


def gradients(make, x0, gradient, solver=Dopri5, **tolerances):
    """The gradients of a fixed loss in the initial state and in the leaves that `make` returns with f."""
    f, leaves = make()
    start = tuple(p.clone().requires_grad_() for p in x0) if isinstance(x0, tuple) else x0.clone().requires_grad_()
    solution = integrate(f, start, T, solver(gradient=gradient, **(tolerances or TIGHT)))
    parts = solution.x if isinstance(solution.x, tuple) else (solution.x,)
    loss = sum((torch.view_as_real(p) if p.is_complex() else p).pow(2).sum() for p in parts)
    loss.backward()
    starts = start if isinstance(start, tuple) else (start,)
    return [p.grad for p in (*starts, *leaves)], solution.stats


def module(kind):
    def make():
        f = kind()
        return f, list(f.parameters())

    return make


def closure():
    a, b = leaf(0.7), leaf([[0.2], [-0.4]])
    return (lambda t, x: -a * x + torch.sin(b * t)), [a, b]


def non_leaf():
    """exp(log_a), computed outside; every evaluation reaches log_a by it."""
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


def complex_state():
    a = leaf(0.7)
    return (lambda t, x: (1j * a - 0.2) * x), [a]


def pair():
    a = leaf(0.7)
    return (lambda t, x: (a * x[1], -a * x[0])), [a]


def mixed_pair():
    a = leaf(0.7)
    return (lambda t, x: (-a * x[0], 1j * a * x[1] * x[0].sum())), [a]


Z0 = torch.complex(X0, 1 - X0)
CASES = {
    "parameters of a module": (module(Network), X0),
    "a parameter inside a branch": (module(Branching), X0),
    "a tensor from a parameter that the module owns": (module(Nested), X0),
    "tensors captured by a closure": (closure, X0),
    "a non-leaf from outside": (non_leaf, X0),
    "a leaf and a non-leaf made of it": (non_leaf_and_leaf, X0),
    "a leaf returned as it is": (returned_leaf, X0),
    "a complex state": (complex_state, Z0),
    "a tuple": (pair, (X0, 1 - X0)),
    "a tuple of real and complex": (mixed_pair, (X0, Z0)),
    "no parameters": (lambda: ((lambda t, x: -x), []), X0),
}


@pytest.mark.parametrize(("make", "x0"), CASES.values(), ids=CASES.keys())
def test_adjoint_is_direct_and_both_are_the_difference_quotient(make, x0):
    adjoint, stats = gradients(make, x0, Adjoint())
    direct, _ = gradients(make, x0, Direct())
    for found, expected in zip(adjoint, direct, strict=True):
        assert found is not None
        scale = 1 + float(expected.abs().max())
        assert float((found - expected).abs().max()) <= 100 * TIGHT["rtol"] * scale
    assert stats.nfe_backward > 0


@pytest.mark.parametrize(("make", "x0"), [(complex_parameter, Z0), (real_state_of_complex_parameter, X0)])
def test_adjoint_refuses_complex_parameters_and_direct_takes_them(make, x0):
    with pytest.raises(TypeError, match=r"cannot hold that of a torch.complex128 parameter: use gradient=Direct\(\)"):
        gradients(make, x0, Adjoint())
    found, _ = gradients(make, x0, Direct())
    assert all(bool(g.abs().sum() > 0) for g in found)


def test_adjoint_refuses_parameters_wider_than_the_state():
    a = leaf(0.7)
    with pytest.raises(TypeError, match=r"state's precision, torch.float32, and cannot hold that of a torch.float64"):
        integrate(lambda t, x: -a * x, X0.float(), T, Dopri5(gradient=Adjoint()))


def test_adjoint_in_bosh3():
    adjoint, direct = (gradients(module(Network), X0, g, Bosh3, rtol=1e-6, atol=1e-8)[0] for g in (Adjoint(), Direct()))
    for found, expected in zip(adjoint, direct, strict=True):
        assert torch.allclose(found, expected, atol=1e-4)


def test_adjoint_in_single_precision():
    def make():
        f = Network().float()
        return f, list(f.parameters())

    adjoint, direct = (gradients(make, X0.float(), g, rtol=1e-5, atol=1e-6)[0] for g in (Adjoint(), Direct()))
    for found, expected in zip(adjoint, direct, strict=True):
        assert torch.allclose(found, expected, atol=1e-3)


def test_adjoint_in_the_times():
    found = []
    for gradient in (Adjoint(), Direct()):
        t = leaf(T)
        integrate(lambda s, x: torch.cos(s) * x, X0, t, Dopri5(gradient=gradient, **TIGHT)).x.pow(2).sum().backward()
        found.append(t.grad)
    assert torch.allclose(*found, atol=1e-6)


def test_own_tolerances_of_the_backward_solve():
    _, loose = gradients(module(Network), X0, Adjoint(rtol=1e-3, atol=1e-4))
    _, tight = gradients(module(Network), X0, Adjoint(rtol=1e-10, atol=1e-12))
    assert loose.nfe == tight.nfe
    assert loose.nfe_backward < tight.nfe_backward / 2


def test_adjoint_counts_what_it_evaluates():
    a, calls = leaf(0.7), 0

    def f(t, x):
        nonlocal calls
        calls += 1
        return -a * x

    solution = integrate(f, X0, T, Dopri5(gradient=Adjoint()))
    forward = calls
    assert solution.stats.nfe == forward
    assert solution.stats.nfe_backward == 0
    steps = solution.stats.accepted, solution.stats.rejected
    solution.x.sum().backward()
    assert solution.stats.nfe == forward
    assert solution.stats.nfe_backward == calls - forward > 0
    assert (solution.stats.accepted, solution.stats.rejected) == steps


# -- The trap


class Heat(torch.nn.Module):
    """dx/dt = −λ x, mode by mode, which promises to dissipate."""

    dissipative = True

    def __init__(self, largest):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.linspace(1, largest, 8, dtype=torch.float64)[:, None])

    def forward(self, t, x):
        return -self.rate * x


def test_adjoint_warns_of_a_dissipative_equation_at_the_callers_line():
    with pytest.warns(
        SolverWarning, match=r"Adjoint solves Heat backwards.*dissipative.*prefer gradient=Direct\(\)"
    ) as caught:
        integrate(Heat(2.0), torch.ones(8, 1, dtype=torch.float64), T, Dopri5(gradient=Adjoint()))
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_direct_does_not_warn_of_a_dissipative_equation():
    heat = Heat(300.0)
    integrate(heat, torch.ones(8, 1, dtype=torch.float64), T, Dopri5()).x.sum().backward()
    assert bool(torch.isfinite(heat.rate.grad).all())


@pytest.mark.filterwarnings("ignore::integrators.SolverWarning")
@pytest.mark.parametrize("largest", [300.0, 3000.0])
@pytest.mark.parametrize("solver", [Dopri5, Bosh3])
def test_the_adjoint_of_heat_ends_in_a_solve_error(largest, solver):
    """Solved backwards the error of the largest rate grows by exp(λ T), here e³⁰⁰ or more."""
    x0 = torch.ones(8, 1, dtype=torch.float64)
    solution = integrate(Heat(largest), x0, [0.0, 1.0], solver(gradient=Adjoint(max_nfe=2000)))
    with pytest.raises(SolveError, match=r"Adjoint|backward") as caught:
        solution.x.sum().backward()
    assert caught.value.status in (Status.BUDGET, Status.DIVERGED)
    assert solution.stats.nfe_backward <= 2001


def test_the_backward_budget_is_exact_and_names_the_cure():
    solution = integrate(Network(), X0, T, Dopri5(gradient=Adjoint(max_nfe=10)))
    message = r"backward solve of Adjoint reached t = .*budget of 10 evaluations.*gradient=Direct\(\).*max_nfe"
    with pytest.raises(SolveError, match=message) as caught:
        solution.x.sum().backward()
    assert caught.value.status is Status.BUDGET


# -- Leaves


def test_reachable_leaves_are_each_found_once_and_own_the_state_not():
    f = Nested()
    found = reachable_leaves(f, torch.tensor(0.0), X0.clone().requires_grad_())
    assert {id(p) for p in found} == {id(f.mix), id(f.gain)}
    assert len(found) == 2


def test_reachable_leaves_leave_out_frozen_parameters():
    f = Network()
    f.gain.requires_grad_(False)
    assert [id(p) for p in reachable_leaves(f, torch.tensor(0.0), X0)] == [id(f.mix)]


def test_reachable_leaves_are_found_without_gradients_enabled():
    f, leaves = closure()
    with torch.no_grad():
        assert {id(p) for p in reachable_leaves(f, torch.tensor(0.0), X0)} == {id(p) for p in leaves}


@pytest.mark.parametrize("gradient", ["direct", Adjoint, None])
def test_what_is_no_gradient_is_refused(gradient):
    with pytest.raises(TypeError, match=r"gradient must be Direct\(\) or Adjoint\(\), not"):
        Dopri5(gradient=gradient)
