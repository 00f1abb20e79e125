"""torchdiffeq's methods behind our objects: their order, their agreement with torchdiffeq and with our own, their hazards."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

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


# -- What torchdiffeq does wrong without a word, hangs on, or dies of (one row of the survey each)


@methods
@pytest.mark.parametrize(
    ("f", "where"),
    [
        (lambda t, x: x * math.nan, r"not finite at t = 0 \(nan at index \[0, 0\]"),
        (lambda t, x: x + math.inf, r"not finite at t = 0 \(inf at"),
        (lambda t, x: x * torch.tensor([[1.0], [math.nan], [1.0]]), r"not finite at t = 0 \(nan at index \[1, 0\], and 1 of 3"),
        (lambda t, x: -x if t <= 0.5 else x * math.nan, r"not finite at t = 0\.5"),
    ],
    ids=["nan", "inf", "nan in one component", "nan after half"],
)
def test_what_is_not_finite_is_named_with_time_and_component(solver, f, where):
    """nan_rhs_*, inf_rhs_*, nan_one_component_*, nan_after_half_*, inf_rhs_scipy_solver (a hang)."""
    where = where.replace("5", "[5-9]") if isinstance(solver, engine.SciPy) else where
    with pytest.raises(SolveError, match="diverged: the right-hand side is " + where) as caught:
        integrate(f, X0, [0.0, 0.3, 1.0], replace(solver, max_nfe=5000))
    assert caught.value.status is Status.DIVERGED
    kept = caught.value.solution
    assert kept.t.tolist() == [0.0, 0.3][: len(kept.t)]
    if "0\\.5" in where and not isinstance(solver, engine.SciPy):
        assert torch.allclose(kept.x[1], X0 * math.exp(-0.3), rtol=0.02)


@methods
def test_blow_up_ends_in_a_typed_error(solver):
    """blowup_y2_*: y' = y² from 1 ends at t = 1; a hang of SciPy's solvers, 1e246 or NaN of the fixed steps."""
    one = torch.ones(1, dtype=torch.float64)
    t = [0.0, 0.5, 4.0]
    solution = integrate(lambda t, x: x**2, one, t, solver, throw=False)
    assert solution.status in (Status.DIVERGED, Status.BUDGET)
    if not isinstance(solver, engine.SciPy):
        assert solution.t.tolist() == t[:2]
        assert float(solution.x[1]) == pytest.approx(2, rel=0.1)


@methods
def test_stiff_equations_end_within_the_budget(solver):
    """stiff_linear_1e8, stiff_rk4_unstable, stiff_implicit_adams, requires_grad_memory: hangs, overflow and NaN."""
    calls = 0

    def f(t, x):
        nonlocal calls
        calls += 1
        return -1e8 * (x - torch.cos(t))

    x0 = X0 if isinstance(solver, engine.SciPy) else X0.clone().requires_grad_()
    solution = integrate(f, x0, [0.0, 10.0], solver, throw=False)
    if not isinstance(solver, engine.SciPy):  # LSODA is made for it.
        assert solution.status in (Status.BUDGET, Status.DIVERGED)
        assert torch.equal(solution.x[0], X0)
    assert calls <= solver.max_nfe + 20  # what a search for captured tensors and blame cost


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


@methods
def test_a_random_right_hand_side_ends(solver):
    """rhs_stochastic_dropout: no adaptive step is ever accepted."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        dropout = torch.nn.Dropout(0.5)
        status = integrate(lambda t, x: -dropout(x), X0.expand(3, 8), [0.0, 1.0], solver, throw=False).status
    assert status in (Status.SUCCESS, Status.BUDGET, Status.DIVERGED)


BUFFER = torch.zeros_like(X0)


@methods
@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda t, x: x[:1], ValueError, r"returns \(1, 1\)"),
        (lambda t, x: x.sum(), ValueError, r"returns \(\)"),
        (lambda t, x: -x * x.T, ValueError, r"returns \(3, 3\)"),
        (lambda t, x: 1j * x, ValueError, r"returns \(3, 1\) torch.complex128"),
        (lambda t, x: None, TypeError, "not NoneType"),
        (lambda t, x: -1.0, TypeError, "not float"),
        (lambda t, x: x.mul_(-1), ValueError, "in place"),
        (lambda t, x: torch.neg(x.detach(), out=BUFFER), ValueError, "clone"),
    ],
    ids=["broadcast", "scalar", "column", "complex", "none", "number", "in place", "same buffer"],
)
def test_right_hand_sides_that_are_none(solver, f, error, message):
    """rhs_*, y_real_complex_rhs*: broadcast, imaginary parts dropped, or an error from deep inside. No mixed dtypes, no bf16."""
    with torch.no_grad(), pytest.raises(error, match=message):
        integrate(f, X0.clone(), [0.0, 1.0], solver)


@methods
@pytest.mark.parametrize("x0", [X0.bfloat16(), X0.half(), X0.long(), (X0, X0.float()), {"x": X0}, 1.0, (), X0 * math.nan, X0[:0]])
def test_states_that_are_none(solver, x0):
    """y_*, nan_y0: y_bfloat16 and y_int_rk4 are solved wrongly, y_tuple_mixed_dtype changes the dtype."""
    with pytest.raises((TypeError, ValueError), match=r"x0|parts of x0"):
        integrate(decay, x0, [0.0, 1.0], solver)


@methods
def test_an_unknown_option_is_refused(solver):
    """unknown_option_typo: torchdiffeq warns at most."""
    with pytest.raises(TypeError, match="stepsize"):
        type(solver)(stepsize=0.1)


@pytest.mark.parametrize("kind", [*GRID, *ADAMS], ids=lambda k: k.__name__)
def test_there_is_no_step_that_no_one_chose(kind):
    """no_step_size_silent_coarse, step_size_zero/nan/negative/tiny_oom."""
    with pytest.raises(TypeError, match="step_size"):
        kind()
    for value in (0.0, -0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="step_size must be positive and finite"):
            kind(value)
    with pytest.raises(SolveError, match=r"would take 1e\+12 steps of 1e-12.*its budget is 100000 evaluations") as caught:
        integrate(decay, X0, [0.0, 1.0], kind(1e-12))
    assert caught.value.status is Status.BUDGET


@pytest.mark.parametrize("kind", GRID, ids=lambda k: k.__name__)
def test_outputs_off_the_grid_are_as_exact_as_on_it(kind):
    """rk4_offgrid_linear_interp: torchdiffeq's default loses three digits there."""
    t = torch.linspace(0, 1, 14, dtype=torch.float64)
    exact = X0 * torch.exp(-t)[:, None, None]
    stepped = float((integrate(decay, X0, t, kind(0.1)).x - exact).abs().max())
    cubic = float((integrate(decay, X0, t, kind(0.1, interp=engine.Interpolation.CUBIC)).x - exact).abs().max())
    linear = float((integrate(decay, X0, t, kind(0.1, interp=engine.Interpolation.LINEAR)).x - exact).abs().max())
    ends = float((integrate(decay, X0, [0.0, 1.0], kind(0.1)).final - exact[-1]).abs().max())
    assert stepped <= 1.7 * ends + 1e-15
    assert cubic <= 1.7 * ends + 1e-5
    assert linear > 5e-4


@pytest.mark.parametrize("kind", ADAMS, ids=lambda k: k.__name__)
def test_adams_on_uneven_outputs(kind, observed_order):
    """adams_uniform_grid, adams_nonuniform_grid: errors of 1e6; the order is kept, and those that diverge are no default."""
    t = [0.0, 0.013, 0.5, 0.51, 2.0]
    errors = [float((integrate(decay, X0, t, kind(dt)).final - X0 * math.exp(-2)).abs().max()) for dt in (0.1, 0.05, 0.025)]
    assert errors[-1] < 1e-5
    assert observed_order(errors) > ADAMS[kind] - 0.3
    assert kind(0.1).max_order == 4
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


def test_an_implicit_step_that_does_not_converge_is_an_error():
    """stiff_implicit_adams: torchdiffeq warns and goes on to NaN."""
    with pytest.raises(SolveError, match=r"did not converge.*steps below about.*smaller step_size, more max_iters") as caught:
        integrate(lambda t, x: -100 * x, X0, [0.0, 1.0], engine.ImplicitAdams(0.1))
    assert caught.value.status is Status.DIVERGED


def test_scipys_gradient_is_the_adjoints_or_refused():
    """scipy_no_grad: torchdiffeq drops it."""
    a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    for f, x0 in ((lambda t, x: -a * x, X0), (decay, X0.clone().requires_grad_())):
        with pytest.raises(TypeError, match=r"gradient would be dropped: use gradient=Adjoint\(\)"):
            integrate(f, x0, [0.0, 1.0], engine.SciPy(gradient=Direct()))
    (found,) = torch.autograd.grad(integrate(lambda t, x: -a * x, X0, [0.0, 1.0], engine.SciPy(**TIGHT)).final.sum(), a)
    assert float(found) == pytest.approx(-float(X0.sum()) * math.exp(-0.7), rel=1e-6)
    with pytest.raises(TypeError, match=r"a class such as scipy.integrate.Radau, not 'Radau'"):
        engine.SciPy(solver="Radau")


def test_scipys_failure_is_an_error():
    """scipy_failure_shape: fewer rows than were asked for, and no exception."""
    one, solver = torch.ones(1, dtype=torch.float64), engine.SciPy(solver=scipy.integrate.RK45)
    with pytest.raises(SolveError, match=r"SciPy's solver gave up after|not finite|budget") as caught:
        integrate(lambda t, x: x**2, one, [0.0, 0.5, 0.9, 2.0], solver)
    assert caught.value.status in (Status.DIVERGED, Status.BUDGET)


def test_dopri8_keeps_its_digits_between_steps():
    """y_complex_dopri8, tolerance_proportionality: its interpolant is of order 4 in steps made for order 8."""
    f = lambda t, x: 1j * x  # noqa: E731
    t = torch.linspace(0, 10, 27, dtype=torch.float64)
    for rtol in (1e-6, 1e-10):
        x = integrate(f, torch.ones(2, dtype=torch.complex128), t, engine.Dopri8(rtol=rtol, atol=rtol)).x
        assert float((x[:, 0] - torch.exp(1j * t)).abs().max()) <= 60 * rtol


@pytest.mark.parametrize("kind", [engine.Dopri5, engine.Bosh3, engine.RK4], ids=lambda k: k.__name__)
def test_a_late_start_keeps_the_digits_of_the_time(kind):
    """t_big_offset_f32, t_dependent_rhs_big_offset_f32_state (a hang): float32 cannot tell 1e8 from 1e8 + 1."""
    t = torch.tensor([1e8, 1e8 + 1.0, 1e8 + 2.0], dtype=torch.float64)
    solver = kind(0.02) if issubclass(kind, GridEngine) else kind(rtol=1e-5, atol=1e-6)
    x = integrate(lambda t, x: torch.cos(t - 1e8).float() * torch.ones_like(x), torch.zeros(3, 1), t, solver).x
    assert x.dtype == torch.float32
    assert float((x[:, 0, 0] - torch.sin(t - 1e8).float()).abs().max()) <= 1e-4


def test_tolerances_below_round_off_are_refused():
    """y_float32_default_tol_*, rtol_negative, rtol_nan, atol0_*."""
    for kind in (*ADAPTIVE, engine.SciPy):
        with pytest.raises(ValueError, match=r"rtol = 1.0e-07 cannot be met in (torch.)?float32"):
            integrate(decay, X0.float(), [0.0, 1.0], kind(rtol=1e-7))
        for name in ("rtol", "atol"):
            for value in (0.0, -1e-3, math.nan, math.inf):
                with pytest.raises(ValueError, match=f"{name} must be positive and finite"):
                    kind(**{name: value})


@pytest.mark.parametrize("kind", ADAPTIVE, ids=lambda k: k.__name__)
def test_min_step_is_refused_with_its_reason(kind):
    """options_min_step_bypasses_error: an error of 1e152 on y' = −1e4 y."""
    with pytest.raises(ValueError, match="accepts a step that short whatever its error"):
        kind(min_step=1e-3)


def test_vmap_is_refused():
    """vmap_func, vmap_rk4."""
    for solver in (engine.Dopri5(), engine.RK4(0.1)):
        with pytest.raises(RuntimeError, match=r"vmap|data-dependent"):
            torch.func.vmap(lambda x, s=solver: integrate(decay, x, [0.0, 1.0], s).final)(torch.stack([X0, X0]))


OPTIMISED = """
import torch
from integrators import engine
from integrators.integrate import integrate
from integrators.solution import SolveError
assert False, "python -O would not get here"
one = torch.ones(1, dtype=torch.float64)
cases = {
    "nan": lambda t, x: x * float("nan"),
    "blow-up": lambda t, x: x**2,
    "stiff": lambda t, x: -1e8 * (x - torch.cos(t)),
}
kinds = [engine.Dopri5, engine.Dopri8, engine.Bosh3, engine.Fehlberg2, engine.AdaptiveHeun]
solvers = [*(kind(max_nfe=200) for kind in kinds), engine.RK4(0.01), engine.ExplicitAdams(0.01), engine.ImplicitAdams(0.01)]
for name, f in cases.items():
    for solver in solvers:
        try:
            integrate(f, one, [0.0, 0.5, 3.0], solver)
            print(name, type(solver).__name__, "returned")
        except SolveError as error:
            print(name, type(solver).__name__, "SolveError", error.status.name)
"""


def test_failures_are_typed_without_asserts_too():
    """python -O strips the asserts by which torchdiffeq stops; then NaN and blow-up loop for ever."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-O", "-c", OPTIMISED], capture_output=True, text=True, timeout=120, cwd=root, check=False
    )
    lines = done.stdout.split("\n")[:-1]
    assert len(lines) == 24, done.stderr
    assert all("SolveError" in line for line in lines), lines


def test_all_are_engines():
    assert all(isinstance(solver, Engine) for solver in METHODS)
