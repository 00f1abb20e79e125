"""The same with torchdiffeq's own methods, SciPy's and events: what `integrators.engine` and `integrate_until` do."""

import math
import warnings
from dataclasses import replace
from itertools import pairwise

import scipy.integrate
import torch
from cases import Cases, check, main
from torch import nn

from integrators import engine
from integrators.events import integrate_until
from integrators.integrate import integrate
from integrators.rk4 import RK4
from integrators.solution import SolveError, Status

cases = Cases()
refuses, answers = cases.refuses, cases.answers
double = torch.float64
y0 = torch.tensor([[0.3], [0.5], [0.8]], dtype=double)
T = [0.0, 0.3, 1.0]
PAIRS = [engine.Dopri5, engine.Dopri8, engine.Bosh3, engine.Fehlberg2, engine.AdaptiveHeun]
GRIDS = [engine.Euler, engine.Midpoint, engine.Heun2, engine.Heun3, engine.RK4]
ADAMS = [engine.ExplicitAdams, engine.ImplicitAdams]
METHODS = {kind.name: kind(rtol=1e-5, atol=1e-6, max_nfe=600) for kind in PAIRS}
METHODS |= {kind.name: kind(0.05, max_nfe=600) for kind in (*GRIDS, *ADAMS)}
METHODS["scipy_solver"] = engine.SciPy(rtol=1e-5, atol=1e-6, max_nfe=600)


def decay(t, y):
    return -y


def solve(f=decay, x=y0, t=T, solver=METHODS["dopri5"]):
    return integrate(f, x, t, solver)


def close(found, wanted, tolerance):
    error = float((found - wanted).abs().max())
    check(error <= tolerance, f"error {error:.1e}")


def no_gradient(f):
    """f where nothing looks for what gradients need: what is wrong must be found by the solve itself."""

    def attempt(x, solver):
        with torch.no_grad():
            return solve(f, x.clone(), solver=solver)

    return attempt


def until_half(t, y):
    return -y if float(t) <= 0.5 else y * math.nan


def what_was_reached(solver):
    """The error keeps the outputs before it, where the method shows its steps."""
    try:
        solve(until_half, solver=replace(solver, max_nfe=5000))
    except SolveError as error:
        check(error.status is Status.DIVERGED, error.status)
        check("not finite at t = 0." in str(error), error)
        kept = error.solution
        check(kept.t.tolist() == T[: len(kept.t)], kept.t)
        if not isinstance(solver, engine.SciPy):
            close(kept.x[1], y0 * math.exp(-0.3), 0.02)
    else:
        check(False, "accepted")


def blow_up(solver):
    """y' = y² from 1 ends at t = 1: what came before is kept."""
    solution = integrate(lambda t, y: y**2, torch.ones(1, dtype=double), [0.0, 0.5, 4.0], solver, throw=False)
    check(solution.status in (Status.DIVERGED, Status.BUDGET), solution.status)
    if not isinstance(solver, engine.SciPy):
        check(solution.t.tolist() == [0.0, 0.5], solution.t)
        close(solution.x[1], 2.0, 0.2)


def stiff(solver):
    """An end within the budget, or the answer."""
    calls = 0

    def f(t, y):
        nonlocal calls
        calls += 1
        return -1e8 * (y - torch.cos(t))

    wants = not isinstance(solver, engine.SciPy)  # LSODA is made for it
    solution = integrate(f, y0.clone().requires_grad_(wants), [0.0, 10.0], solver, throw=False)
    check(calls <= solver.max_nfe + 20, f"{calls} evaluations")  # what looking for captured tensors and blame cost
    if wants:
        check(solution.status in (Status.BUDGET, Status.DIVERGED), solution.status)
        close(solution.x[0].detach(), y0, 0.0)
    elif solution.status is Status.SUCCESS:
        close(solution.final, torch.full_like(y0, math.cos(10)), 1e-4)


def random_slope(solver):
    with torch.no_grad():
        solution = integrate(lambda t, y: nn.functional.dropout(-y, 0.5), y0.expand(3, 8), [0.0, 1.0], solver, throw=False)
    check(solution.status in (Status.SUCCESS, Status.BUDGET, Status.DIVERGED), solution.status)


def nan_in_one(t, y):
    return -y * torch.tensor([[1.0], [math.nan], [1.0]], dtype=double)


BUFFER = torch.zeros_like(y0)
NO_SLOPES = {
    "rhs_broadcast_shape1": (lambda t, y: y[:1], ValueError, r"returns \(1, 1\)"),
    "rhs_scalar": (lambda t, y: y.sum(), ValueError, r"returns \(\)"),
    "rhs_wrong_shape_col": (lambda t, y: -y * y.T, ValueError, r"returns \(3, 3\)"),
    "y_real_complex_rhs": (lambda t, y: 1j * y, ValueError, r"returns \(3, 1\) torch.complex128"),
    "rhs_none": (lambda t, y: None, TypeError, "not NoneType"),
    "rhs_python_float": (lambda t, y: -1.0, TypeError, "not float"),
    "rhs_inplace_mutation": (lambda t, y: y.mul_(-1), ValueError, "in place"),
    "rhs_returns_same_buffer": (lambda t, y: torch.neg(y, out=BUFFER), ValueError, "clone"),
}
NO_STATES = {
    "y_bfloat16": y0.bfloat16(), "y_float16": y0.half(), "y_int": y0.long(), "y_tuple_mixed_dtype": (y0, y0.float()),
    "y_dict_state": {"y": y0}, "y_scalar_float": 1.0, "y_empty_tuple": (), "nan_y0": y0 * math.nan, "y_empty": y0[:0],
}  # fmt: skip

for name, solver in METHODS.items():
    for row, f, pattern in (
        ("nan_rhs", lambda t, y: y * math.nan, r"not finite at t = 0 \(nan at index \[0, 0\]"),
        ("inf_rhs", lambda t, y: y + math.inf, r"not finite at t = 0 \(inf at"),
        ("nan_one_component", nan_in_one, r"not finite at t = 0 \(nan at index \[1, 0\], and 1 of 3"),
    ):
        refuses(f"{row}_{name}", SolveError, pattern, lambda f=f, s=solver: solve(f, solver=s))
    answers(f"nan_after_half_{name}", lambda s=solver: what_was_reached(s))
    answers(f"blowup_y2_{name.removesuffix('_solver')}", lambda s=solver: blow_up(s))
    answers(f"stiff_{name}", lambda s=solver: stiff(s))
    answers(f"rhs_stochastic_dropout_{name}", lambda s=solver: random_slope(s))
    for row, (f, error, pattern) in NO_SLOPES.items():
        refuses(f"{row}_{name}", error, pattern, lambda f=f, s=solver: no_gradient(f)(y0, s))
    for row, x in NO_STATES.items():
        refuses(f"{row}_{name}", (TypeError, ValueError), "x0", lambda x=x, s=solver: solve(x=x, solver=s))
    refuses(f"unknown_option_typo_{name}", TypeError, "stepsize", lambda s=solver: type(s)(stepsize=0.1))

# Options.
for kind in (*GRIDS, *ADAMS):
    refuses(f"no_step_size_silent_coarse_{kind.name}", TypeError, "step_size", lambda k=kind: k())
    for value in (0.0, -0.1, math.nan, math.inf):
        refuses(f"step_size_{value}_{kind.name}", ValueError, "step_size must be positive", lambda k=kind, v=value: k(v))
    refuses(f"step_size_tiny_oom_{kind.name}", SolveError, r"1e\+12 steps of 1e-12", lambda k=kind: solve(solver=k(1e-12)))
for kind in (*PAIRS, engine.SciPy):
    for option in ("rtol", "atol"):
        for value in (0.0, -1e-3, math.nan, math.inf):
            refuses(f"{option}_{value}_{kind.name}", ValueError, option, lambda k=kind, o=option, v=value: k(**{o: v}))
    refuses(
        f"y_float32_default_tol_{kind.name}", ValueError, "cannot be met", lambda k=kind: solve(x=y0.float(), solver=k(1e-7))
    )
for kind in PAIRS:
    refuses(f"min_step_{kind.name}", ValueError, "whatever its error", lambda k=kind: k(min_step=1e-3))
for solver in (METHODS["dopri5"], METHODS["rk4"]):
    attempt = lambda s=solver: torch.func.vmap(lambda y: solve(x=y, solver=s).final)(torch.stack([y0, y0]))  # noqa: E731
    refuses(f"vmap_{solver.name}", (RuntimeError, TypeError), "vmap|data-dependent", attempt)


def off_the_grid(kind):
    """Outputs between steps are as exact as those at their ends; only linear interpolation, where asked for, is not."""
    t = torch.linspace(0, 1, 14, dtype=double)
    wanted = y0 * torch.exp(-t)[:, None, None]
    ends = float((solve(t=[0.0, 1.0], solver=kind(0.1)).final - wanted[-1]).abs().max())
    close(solve(t=t, solver=kind(0.1)).x, wanted, 1.7 * ends + 1e-15)
    close(solve(t=t, solver=kind(0.1, interp=engine.Interpolation.CUBIC)).x, wanted, 1.7 * ends + 1e-5)
    check(float((solve(t=t, solver=kind(0.1, interp=engine.Interpolation.LINEAR)).x - wanted).abs().max()) > 5e-4)


def adams(kind, order, t):
    """The order is kept, on uneven outputs too; formulas of order 12, which diverge, are not the default."""
    errors = [float((solve(t=t, solver=kind(dt)).final - y0 * math.exp(-2)).abs().max()) for dt in (0.1, 0.05, 0.025)]
    check(errors[-1] < 1e-5, errors)
    check(min(math.log2(a / b) for a, b in pairwise(errors)) > order - 0.3, errors)
    check(kind(0.1).max_order == 4)


EVEN, UNEVEN = [0.0, 2.0], [0.0, 0.013, 0.5, 0.51, 2.0]
for kind in GRIDS:
    answers(f"rk4_offgrid_linear_interp_{kind.name}", lambda k=kind: off_the_grid(k))
answers("adams_uniform_grid", lambda: adams(engine.ExplicitAdams, 3, EVEN))
answers("adams_nonuniform_grid", lambda: adams(engine.ExplicitAdams, 3, UNEVEN))
answers("implicit_adams_nonuniform_grid", lambda: adams(engine.ImplicitAdams, 4, UNEVEN))
unconverged = lambda: solve(lambda t, y: -100 * y, solver=engine.ImplicitAdams(0.1))  # noqa: E731
refuses("stiff_implicit_adams_iterations", SolveError, "did not converge.*steps below about.*max_iters", unconverged)


def dopri8_between_its_steps():
    """Its interpolant is of order 4 in steps made for order 8."""
    t = torch.linspace(0, 10, 27, dtype=double)
    for rtol in (1e-6, 1e-10):
        x = integrate(lambda t, y: 1j * y, torch.ones(2, dtype=torch.complex128), t, engine.Dopri8(rtol=rtol, atol=rtol)).x
        close(x[:, 0], torch.exp(1j * t), 60 * rtol)


def late_start(solver):
    """float32 cannot tell 1e8 from 1e8 + 1."""
    t = torch.tensor([1e8, 1e8 + 1.0, 1e8 + 2.0], dtype=double)
    x = integrate(lambda t, y: torch.cos(t - 1e8).float() * torch.ones_like(y), torch.zeros(3, 1), t, solver).x
    check(x.dtype == torch.float32)
    close(x[:, 0, 0], torch.sin(t - 1e8).float(), 1e-4)


answers("y_complex_dopri8", dopri8_between_its_steps)
answers("t_big_offset_f32", lambda: late_start(engine.RK4(0.02)))
answers("t_dependent_rhs_big_offset_f32_state", lambda: late_start(engine.Dopri5(1e-5, 1e-6)))


# SciPy.
def complex_state():
    z = torch.complex(y0, 1 - y0)
    close(solve(lambda t, y: 1j * y, z, solver=METHODS["scipy_solver"]).final, z * torch.exp(torch.tensor(1j)), 1e-3)


def gradient():
    a = torch.tensor(0.7, dtype=double, requires_grad=True)
    x = solve(lambda t, y: -a * y, solver=engine.SciPy(1e-8, 1e-10)).final
    close(torch.autograd.grad(x.sum(), a)[0], -float(y0.sum()) * math.exp(-0.7), 1e-6)
    try:
        solve(lambda t, y: -a * y, solver=engine.SciPy(gradient=engine.Direct()))
    except TypeError as error:
        check("use gradient=Adjoint()" in str(error), error)
    else:
        check(False, "the gradient was dropped")


answers("y_complex_scipy_solver", complex_state)
answers("scipy_no_grad", gradient)
short = {"f": lambda t, y: y**2, "x": torch.ones(1, dtype=double), "t": [0.0, 0.5, 0.9, 2.0]}
runge = engine.SciPy(solver=scipy.integrate.RK45)
refuses("scipy_failure_shape", SolveError, "SciPy's solver gave up after|not finite|budget", lambda: solve(**short, solver=runge))


# Events.
def until(event, f=lambda t, y: torch.ones_like(y), *, limit=30.0, solver=None, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return integrate_until(f, torch.zeros(1, dtype=double), 0.0, event, solver, limit=limit, **options)


def event_solvers():
    return (None, engine.Dopri5(), RK4(0.5))


def never():
    for solver in event_solvers():
        solution = until(lambda t, y: y[0] + 1.0, solver=solver)
        check(solution.status is Status.SUCCESS and solution.t.tolist() == [0.0, 30.0], solution)


def double_crossing():
    """Zero at 5 and 5.1, within one long step: found where the turn between two looks shows, or the looks are near enough."""
    for solver in event_solvers():
        solution = until(lambda t, y: (y[0] - 5.0) * (y[0] - 5.1), limit=100.0, solver=solver, every=0.05)
        check(solution.status is Status.EVENT, solution.status)
        close(solution.t[1], 5.0, 1e-9)


def tangent():
    """A zero that is touched but not crossed is no event, and the status tells that the limit was reached."""
    for solver in event_solvers():
        solution = until(lambda t, y: (y[0] - 5.0) ** 2, solver=solver)
        check(solution.status is Status.SUCCESS and float(solution.t[1]) == 30.0, solution)


for k, solver in enumerate(event_solvers()):
    label = "event_nan" if k == 0 else f"event_nan_{k}"
    refuses(label, SolveError, "the event is NaN at t = 0", lambda s=solver: until(lambda t, y: y[0] * math.nan, solver=s))
answers("event_never_happens", never)
answers("event_skips_double_crossing", double_crossing)
answers("event_tangent_missed", tangent)

if __name__ == "__main__":
    main(cases)
