"""torchdiffeq's methods behind our objects: their order, their agreement with torchdiffeq and with our own."""

import math
from dataclasses import replace

import pytest
import scipy.integrate
import torch
import torchdiffeq
from torch.autograd import gradcheck
from torchdiffeq._impl.odeint import SOLVERS

from integrators import engine
from integrators.adjoint import Adjoint
from integrators.dopri5 import Dopri5
from integrators.engine_base import Engine, GridEngine
from integrators.gradients import Direct
from integrators.integrate import integrate
from integrators.rk4 import RK4
from integrators.solution import SolveError, Status

X0 = torch.tensor([[0.3], [0.5], [0.8]], dtype=torch.float64)
T = [0.0, 0.4, 1.0]
TIGHT = {"rtol": 1e-8, "atol": 1e-10}
ADAPTIVE = [engine.Dopri5, engine.Dopri8, engine.Bosh3, engine.Fehlberg2, engine.AdaptiveHeun]
GRID = {engine.Euler: 1, engine.Midpoint: 2, engine.Heun2: 2, engine.Heun3: 3, engine.RK4: 4}
ADAMS = {engine.ExplicitAdams: 3, engine.ImplicitAdams: 4}
METHODS = [
    *(kind(rtol=1e-5, atol=1e-6, max_nfe=600) for kind in ADAPTIVE),
    *(kind(0.05, max_nfe=600) for kind in (*GRID, *ADAMS)),
    engine.SciPy(rtol=1e-5, atol=1e-6, max_nfe=600),
]
methods = pytest.mark.parametrize("solver", METHODS, ids=lambda s: type(s).__name__)
both = pytest.mark.parametrize("gradient", [Direct(), Adjoint()], ids=["direct", "adjoint"])


def decay(t, x):
    return -x


# -- Which methods, and how exact they are


def test_every_method_of_torchdiffeq_is_offered():
    """`fixed_adams` is another name of implicit_adams; those with a bracket are our own solvers, registered by other tests."""
    kinds = [kind for kind in vars(engine).values() if isinstance(kind, type) and issubclass(kind, Engine)]
    offered = {kind.name for kind in kinds if hasattr(kind, "name")}
    implicit = {"implicit_euler", "implicit_midpoint", "trapezoid", "radauIIA3", "gl4", "radauIIA5", "gl6", "sdirk2", "trbdf2"}
    there = {name for name in SOLVERS if "(" not in name}
    assert offered <= there
    assert there - offered <= {"fixed_adams"} | implicit  # of ours: BackwardEuler, ImplicitMidpoint, RadauIIA5, SDIRK2 ...


def rooted_trees(size):
    """The rooted trees with `size` nodes, as sorted tuples of the trees on their roots."""
    if size == 1:
        return [()]

    def forests(total, largest):
        if total == 0:
            yield ()
            return
        for n in range(min(total, largest[0]), 0, -1):
            for k, tree in enumerate(rooted_trees(n)):
                if n == largest[0] and k > largest[1]:
                    break
                for rest in forests(total - n, (n, k)):
                    yield (tree, *rest)

    return [tuple(f) for f in forests(size - 1, (size - 1, math.inf))]


def test_rooted_trees_are_as_many_as_cayley_counted():
    assert [len(rooted_trees(n)) for n in range(1, 9)] == [1, 1, 2, 4, 9, 20, 48, 115]


@pytest.mark.parametrize("kind", ADAPTIVE, ids=lambda k: k.__name__)
def test_tableaux_meet_the_order_conditions(kind):
    """Σ b φ(τ) = 1/γ(τ) for every rooted tree τ up to the order (Butcher), to the digits of the printed coefficients."""
    tableau, order = SOLVERS[kind.name].tableau, SOLVERS[kind.name].order
    s = len(tableau.c_sol)
    A = torch.zeros(s, s, dtype=torch.float64)
    for i, row in enumerate(tableau.beta, start=1):
        A[i, : len(row)] = row
    assert torch.allclose(A.sum(1)[1:], tableau.alpha, atol=1e-14)

    def weight(tree):
        phi, nodes, density = torch.ones(s, dtype=torch.float64), 1, 1
        for branch in tree:
            inner, n, d = weight(branch)
            phi, nodes, density = phi * (A @ inner), nodes + n, density * d
        return phi, nodes, density * nodes

    for size in range(1, order + 1):
        for tree in rooted_trees(size):
            phi, _, density = weight(tree)
            assert abs(float(tableau.c_sol @ phi) - 1 / density) < 1e-13, (size, tree)
    error = tableau.c_error
    assert abs(float(error.sum())) < 1e-15  # an error estimate of order p vanishes on trees below p
    assert len(rooted_trees(order)) == 1 or abs(float(error @ weight((),)[0])) < 1e-15


@pytest.mark.parametrize(("kind", "order"), [*GRID.items(), *ADAMS.items()], ids=lambda v: getattr(v, "__name__", ""))
@pytest.mark.parametrize("t", [[0.0, 1.0], [0.0, 0.337, 0.341, 1.0]], ids=["one output", "outputs off the grid"])
def test_order(problem, kind, order, t, observed_order):
    dt = 1 / 64 if order == 1 else 1 / 32 if kind in ADAMS else 1 / 16
    errors = []
    for k in (0, 2):
        fine = {"rtol": 1e-12, "atol": 1e-14, "max_iters": 40} if kind is engine.ImplicitAdams else {}
        solution = integrate(problem.f, problem.x0, t, kind(dt / 2**k, **fine))
        errors.append(problem.error(solution.t, solution.x))
    assert order - 0.3 <= observed_order(errors) / 2 <= order + 1.3


@pytest.mark.parametrize("kind", [engine.Dopri5, engine.Dopri8, engine.Bosh3, engine.AdaptiveHeun], ids=lambda k: k.__name__)
@pytest.mark.parametrize("t", [[0.0, 0.337, 0.341, 1.0], [1.0, 0.5, -0.1]], ids=["forward", "reverse"])
def test_the_error_is_proportional_to_the_tolerance(problem, kind, t):
    """Also at outputs inside the steps, where torchdiffeq's dopri8 and bosh3 interpolate far below their order."""
    tolerances = (1e-3, 1e-4) if kind is engine.AdaptiveHeun else (1e-4, 1e-7)
    start = problem.exact(torch.tensor(t[0], dtype=torch.float64))
    errors = []
    for rtol in tolerances:
        solution = integrate(problem.f, start, t, kind(rtol=rtol, atol=rtol / 100))
        errors.append(problem.error(solution.t, solution.x))
        assert errors[-1] <= 50 * rtol


@pytest.mark.parametrize("solver", [scipy.integrate.LSODA, scipy.integrate.RK45, scipy.integrate.Radau, scipy.integrate.BDF])
@pytest.mark.parametrize("t", [[0.0, 0.337, 1.0], [1.0, 0.5, -0.1]], ids=["forward", "reverse"])
def test_scipy(problem, solver, t):
    start = problem.exact(torch.tensor(t[0], dtype=torch.float64))
    solution = integrate(problem.f, start, t, engine.SciPy(rtol=1e-7, atol=1e-9, solver=solver))
    assert problem.error(solution.t, solution.x) <= 2e-5
    assert solution.stats.nfe > 0


# -- The public behaviours of torchdiffeq: hers, hers through us, and ours


def raw(f, x0, t, method="dopri5", gradient=None, **options):
    return torchdiffeq.odeint(f, x0, torch.as_tensor(t, dtype=torch.float64), **TIGHT, method=method, options=options or None)


OURS = [engine.Dopri5(**TIGHT), engine.Dopri8(**TIGHT), Dopri5(**TIGHT), engine.RK4(0.01), RK4(0.01)]
ours = pytest.mark.parametrize("solver", OURS, ids=lambda s: f"{type(s).__module__.split('.')[1]}.{type(s).__name__}")


@pytest.mark.parametrize("t", [T, T[::-1]], ids=["forward", "reverse"])
def test_the_same_steps_give_the_same_numbers(t):
    """Where nothing is mended the results are torchdiffeq's to round-off."""
    f = lambda t, x: torch.sin(5 * t) * x  # noqa: E731
    found = integrate(f, X0, t, engine.Dopri5(rtol=1e-6, atol=1e-8)).x
    expected = torchdiffeq.odeint(f, X0, torch.tensor(t, dtype=torch.float64), rtol=1e-6, atol=1e-8)
    assert torch.allclose(found, expected, rtol=1e-13)
    for kind in GRID:
        expected = raw(f, X0, [t[0], t[-1]], kind.name, step_size=0.05)
        assert torch.allclose(integrate(f, X0, [t[0], t[-1]], kind(0.05)).x, expected, rtol=1e-13)


@pytest.mark.parametrize(
    "options",
    [{"first_step": 0.01}, {"max_step": 0.05}, {"safety": 0.5}, {"ifactor": 2.0}, {"dfactor": 0.5}, {"max_num_steps": 50}],
    ids=lambda options: next(iter(options)),
)
def test_the_same_options_give_the_same_numbers(options):
    f = lambda t, x: torch.sin(5 * t) * x - x**2  # noqa: E731
    found = integrate(f, X0, T, engine.Dopri5(rtol=1e-8, atol=1e-10, **options)).x
    assert torch.allclose(found, raw(f, X0, T, **options), rtol=1e-13)


@ours
@pytest.mark.parametrize("t", [T, T[::-1]], ids=["forward", "reverse"])
def test_complex_states(solver, t):
    z0 = torch.complex(X0, 1 - X0)
    f = lambda t, z: 1j * t * z - 0.1 * z.conj()  # noqa: E731
    assert torch.allclose(integrate(f, z0, t, solver).x, raw(f, z0, t), rtol=1e-7)


@ours
@pytest.mark.parametrize("t", [T, T[::-1]], ids=["forward", "reverse"])
def test_tuples_and_reverse_time(solver, t):
    f = lambda t, x: (2 * x[1] + t, -2 * x[0])  # noqa: E731
    start = (X0, 1 - X0)
    expected = raw(f, start, t)
    assert all(torch.allclose(a, b, rtol=1e-6) for a, b in zip(integrate(f, start, t, solver).x, expected, strict=True))


@ours
def test_a_jump(solver):
    """torchdiffeq's jump_t, by which the right-hand side is evaluated on the right side of each jump."""
    f = lambda t, x: torch.where(t < 0.4, -x, x * t)  # noqa: E731
    jump_t = torch.tensor([0.4], dtype=torch.float64)
    for t in (T, T[::-1]):
        found = integrate(f, X0, t, solver, jumps=[0.4]).x
        assert torch.allclose(found, raw(f, X0, t, jump_t=jump_t), rtol=1e-7)


@pytest.mark.parametrize("kind", GRID, ids=lambda k: k.__name__)
@pytest.mark.parametrize("t", [[0.0, 1.0], [1.0, 0.0]], ids=["forward", "reverse"])
def test_perturb(kind, t):
    """A right-hand side that jumps on the grid: with perturb each step sees its own side only."""
    f = lambda t, x: torch.where(t < 0.5, torch.ones_like(x), -torch.ones_like(x))  # noqa: E731
    found = integrate(f, X0, t, kind(0.125, perturb=True)).x
    assert torch.allclose(found, raw(f, X0, t, kind.name, step_size=0.125, perturb=True), rtol=1e-13)
    assert torch.allclose(found[-1], X0, rtol=1e-13)
    moved = integrate(lambda t, x: f(t - 1e6, x), X0, [s + 1e6 for s in t], kind(0.125, perturb=True)).final
    assert torch.allclose(moved, X0, rtol=1e-13)  # torchdiffeq's own perturbation is lost so late
    if kind in (engine.Heun2, engine.RK4):
        assert not torch.allclose(integrate(f, X0, t, kind(0.125)).final, X0, rtol=1e-3)


@ours
@pytest.mark.parametrize("t", [T, T[::-1]], ids=["forward", "reverse"])
def test_gradients_in_the_times(solver, t):
    f = lambda t, x: torch.cos(3 * t) * x  # noqa: E731
    found = []
    exact = lambda s: X0 * torch.exp((torch.sin(3 * s) - torch.sin(3 * s[0])) / 3)[:, None, None]  # noqa: E731
    for solve in (exact, lambda s: integrate(f, X0, s, solver).x, lambda s: torchdiffeq.odeint(f, X0, s, **TIGHT)):
        s = torch.tensor(t, dtype=torch.float64, requires_grad=True)
        found.append(torch.autograd.grad(solve(s).pow(2).sum(), s)[0])
    assert torch.allclose(found[1], found[0], atol=1e-6)
    assert torch.allclose(found[2], found[0], atol=1e-4)  # through its interpolant, so less exactly than its states


@pytest.mark.parametrize("solver", [engine.Dopri5(**TIGHT), engine.Bosh3(1e-7, 1e-9), Dopri5(**TIGHT)])
def test_adjoint_is_torchdiffeqs_adjoint(solver):
    """Ours runs the same equation by the same methods, with every captured tensor found."""
    a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    f = lambda t, x: a * torch.sin(x) + t  # noqa: E731
    x0 = X0.clone().requires_grad_()
    t = torch.tensor(T, dtype=torch.float64, requires_grad=True)
    found = torch.autograd.grad(integrate(f, x0, t, replace(solver, gradient=Adjoint())).x.pow(2).sum(), (x0, a, t))
    path = torchdiffeq.odeint_adjoint(f, x0, t, **TIGHT, adjoint_params=(a,))
    for g, expected in zip(found, torch.autograd.grad(path.pow(2).sum(), (x0, a, t)), strict=True):
        assert torch.allclose(g, expected, rtol=1e-5, atol=1e-6)


# -- Both gradients


def leaf(value):
    return torch.as_tensor(value).clone().requires_grad_()


Z0 = torch.complex(X0, 1 - X0)
A, W, B = 0.7, torch.tensor(-0.3 + 1.2j, dtype=torch.complex128), torch.tensor([[0.2], [-0.4], [0.1]], dtype=torch.float64)
CASES = {
    "captured": ((X0, torch.tensor(A, dtype=torch.float64), B), lambda x, a, b: (x, lambda t, y: -a * y + torch.sin(b * t))),
    "captured, computed outside": (
        (X0, torch.tensor(-0.3, dtype=torch.float64)), lambda x, a: (x, lambda t, y, k=2 * a: -k * y + a * y**2)
    ),
    "complex": ((Z0, torch.tensor(A, dtype=torch.float64)), lambda z, a: (z, lambda t, y: (1j * a - 0.2) * y * t)),
    "complex parameter": ((Z0, W), lambda z, w: (z, lambda t, y: w * y)),
    "tuple": ((X0, Z0), lambda x, z: ((x, z), lambda t, y: (-A * y[0], 1j * A * y[1] * y[0].sum()))),
}  # fmt: skip


@both
@pytest.mark.parametrize("kind", [engine.Dopri5, engine.Dopri8, engine.RK4, engine.ImplicitAdams], ids=lambda k: k.__name__)
@pytest.mark.parametrize(("inputs", "make"), CASES.values(), ids=CASES.keys())
def test_gradients_are_those_of_our_own_solver(kind, gradient, inputs, make):
    """In x0, what f merely holds, and the times."""
    found = []
    solver = kind(0.01, gradient=gradient) if issubclass(kind, GridEngine) else kind(**TIGHT, gradient=gradient)
    for s in (solver, Dopri5(1e-10, 1e-12, gradient=Direct())):
        leaves, t = [leaf(v) for v in inputs], leaf(torch.tensor(T, dtype=torch.float64))
        start, f = make(*leaves)
        x = integrate(f, start, t, s, jumps=[0.7]).x
        loss = sum(part.abs().square().sum() for part in (x if isinstance(x, tuple) else (x,)))
        found.append(torch.autograd.grad(loss, [*leaves, t]))
    for g, expected in zip(*found, strict=True):
        assert float((g - expected).abs().max()) <= 2e-6 * (1 + float(expected.abs().max()))


GRADED = [engine.Dopri5(**TIGHT), engine.Dopri8(**TIGHT), engine.Bosh3(1e-5, 1e-7), engine.RK4(0.17), engine.Euler(0.17)]
GRADED += [engine.ExplicitAdams(0.057), engine.RK4(0.19, interp=engine.Interpolation.CUBIC)]


@pytest.mark.parametrize("solver", GRADED, ids=lambda s: type(s).__name__)
def test_gradcheck(solver):
    def path(x0, a, t):
        return integrate(lambda s, x: a * x * (1 - x) + torch.sin(3 * s), x0, t, solver).x

    inputs = (leaf(X0), leaf(torch.tensor(0.7, dtype=torch.float64)), leaf(torch.tensor(T, dtype=torch.float64)))
    assert gradcheck(path, inputs, eps=1e-6, atol=1e-4)


@ours
def test_dense_output_is_that_of_torchdiffeq(solver):
    """Hers goes forward in time, from plain tensors, by dopri5 alone, and has no end."""
    f = lambda t, x: torch.cos(3 * t) * x  # noqa: E731
    theirs = torchdiffeq.odeint_dense(f, X0, *torch.tensor([0.0, 1.0], dtype=torch.float64), **TIGHT)
    found = integrate(f, X0, [0.0, 1.0], solver, dense=True)
    for s in (0.0, 0.21, 0.5, 0.97):
        # Her interpolant is of order 4 in steps of order 5.
        assert torch.allclose(found.at(s), theirs(torch.tensor(s, dtype=torch.float64)), rtol=1e-6)


@both
def test_dense_output_in_both_gradients(gradient):
    adaptive = (kind(**TIGHT, gradient=gradient) for kind in (engine.Dopri5, engine.Dopri8))
    for solver in (*adaptive, engine.RK4(0.02, gradient=gradient)):
        for t in (T, T[::-1]):
            a, s = leaf(torch.tensor(0.7, dtype=torch.float64)), leaf(torch.tensor(0.63, dtype=torch.float64))
            x0 = leaf(X0)
            solution = integrate(lambda t, x, a=a: -a * x, x0, t, solver, dense=True)
            exact = X0 * math.exp(-0.7 * (0.63 - t[0]))
            assert torch.allclose(solution.at(s), exact, rtol=1e-6)
            in_x, in_a, in_s = torch.autograd.grad(solution.at(s).sum(), (x0, a, s))
            assert torch.allclose(in_x, torch.full_like(X0, math.exp(-0.7 * (0.63 - t[0]))), rtol=1e-6)
            assert float(in_a) == pytest.approx(-(0.63 - t[0]) * float(exact.sum()), rel=1e-5)
            assert float(in_s) == pytest.approx(-0.7 * float(exact.sum()), rel=1e-5)
            for end in (t[0], t[-1]):
                assert torch.allclose(solution.at(end), X0 * math.exp(-0.7 * (end - t[0])), rtol=1e-6)
            with pytest.raises(ValueError, match=r"t = 2 lies outside the solve"):
                solution.at(2.0)


@pytest.mark.parametrize("solver", [engine.Dopri5(gradient=Adjoint()), engine.Dopri5()], ids=["adjoint", "direct"])
def test_second_derivatives_are_right_or_refused(solver):
    a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    loss = integrate(lambda t, x: -a * x, X0, [0.0, 1.0], solver).final.square().sum()
    try:
        (first,) = torch.autograd.grad(loss, a, create_graph=True)
    except NotImplementedError as error:
        assert "no second derivatives" in str(error)  # noqa: PT017 — either outcome is right
        assert isinstance(solver.gradient, Adjoint)
    else:
        (second,) = torch.autograd.grad(first, a)
        assert float(second) == pytest.approx(4 * float(loss.detach()), rel=1e-3)


# -- What is refused; what torchdiffeq does wrong without a word is in tests/hazards/engines.py


@methods
def test_the_budget_is_exact(solver):
    calls = 0

    def f(t, x):
        nonlocal calls
        calls += 1
        return -30 * (x - torch.cos(20 * t))

    with torch.no_grad(), pytest.raises(SolveError, match=r"budget (of|is) 17 evaluations") as caught:
        integrate(f, X0, [0.0, 1.5], replace(solver, max_nfe=17))
    assert caught.value.status is Status.BUDGET
    assert calls == (0 if isinstance(solver, GridEngine) else 17)  # a grid that cannot fit is not begun
    assert caught.value.solution.t.tolist() == [0.0]


@pytest.mark.parametrize("kind", ADAMS, ids=lambda k: k.__name__)
def test_options_of_adams(kind):
    for order in (0, 3, 13, 2.5, True):
        with pytest.raises(ValueError, match="max_order"):
            kind(0.1, max_order=order)
    with pytest.raises(ValueError, match="even steps"):
        kind(0.1, interp=engine.Interpolation.NONE)


def test_adams_formulas_are_exact_on_polynomials():
    """Both tables of torchdiffeq up to order 12: ∫ of the interpolating polynomial over one step."""
    from fractions import Fraction

    from torchdiffeq._impl import fixed_adams as table

    for kind, offset in ((table._BASHFORTH_COEFFICIENTS, 0), (table._MOULTON_COEFFICIENTS, -1)):
        for k in range(3, 13):
            weights = [Fraction(w, table._DIVISOR[k]) for w in kind[k]]
            for power in range(k):
                assert sum(w * Fraction(-j - offset) ** power for j, w in enumerate(weights)) == Fraction(1, power + 1)


def test_scipy_shows_no_steps_to_limit_or_keep():
    for watched in ({"max_steps": 3}, {"history": True}):
        with pytest.raises(TypeError, match=r"do not show their steps.*use max_nfe or max_seconds"):
            integrate(decay, X0, T, engine.SciPy(), **watched)


def test_scipys_solver_is_a_class():
    with pytest.raises(TypeError, match=r"a class such as scipy.integrate.Radau, not 'Radau'"):
        engine.SciPy(solver="Radau")


def test_all_are_engines():
    assert all(isinstance(solver, Engine) for solver in METHODS)
