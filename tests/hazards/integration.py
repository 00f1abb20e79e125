"""Right-hand sides, states, times and options on which torchdiffeq hangs, lies or dies: what `integrate` does."""

import math

import torch
from cases import Cases, check, main

import neuralpde as npde

cases = Cases()
refuses, answers = cases.refuses, cases.answers
double = torch.float64
y0 = torch.tensor([[1.0], [2.0], [3.0]], dtype=double)
T = [0.0, 0.5, 1.0]
DOPRI5, BOSH3 = npde.Dopri5(max_nfe=2000), npde.Bosh3(max_nfe=2000)
EULER, RK4 = npde.Euler(0.1, max_nfe=2000), npde.RK4(0.1, max_nfe=2000)
BY_NAME = {"dopri5": DOPRI5, "bosh3": BOSH3, "euler": EULER, "rk4": RK4}


def decay(t, y):
    return -y


def solve(f=decay, x=y0, t=T, solver=DOPRI5):
    return npde.integrate(f, x, t, solver)


def exact(solution, factor=-1.0, tolerance=1e-4, start=y0):
    wanted = torch.exp(factor * solution.t)[:, None, None] * start
    check(solution.x.shape == wanted.shape and solution.x.dtype == start.dtype)
    error = float((solution.x.detach() - wanted).abs().max())
    check(error <= tolerance * float(start.abs().max()), f"error {error:.1e}")


def diverges(names, pattern="", **arguments):
    refuses(names, npde.SolveError, pattern or "diverged|budget|stopped", lambda: solve(**arguments))


def invalid(names, pattern, error=ValueError, **arguments):
    refuses(names, error, pattern, lambda: solve(**arguments))


def after_half(t, y):
    return -y if float(t) < 0.5 else y * math.nan


for name, solver in BY_NAME.items():
    diverges(f"nan_rhs_{name}", "not finite at t = 0", f=lambda t, y: y * math.nan, solver=solver)
    diverges(f"inf_rhs_{name}", "not finite at t = 0", f=lambda t, y: y + math.inf, solver=solver)
    diverges(f"nan_after_half_{name}", "not finite at t = 0", f=after_half, solver=solver)
diverges("nan_one_component_dopri5", "not finite", f=lambda t, y: y * torch.tensor([[1.0], [math.nan], [1.0]]).double())
diverges("blowup_y2_dopri5", f=lambda t, y: y**2, t=[0.0, 2.0])
diverges("blowup_y2_rk4", f=lambda t, y: y**2, t=[0.0, 2.0], solver=npde.RK4(0.01))
diverges("dt_underflow_singular", f=lambda t, y: y / (0.5 - t).abs().pow(1.5))
diverges("python_O_nan_rhs", "not finite", f=lambda t, y: y * math.nan)

# A hang elsewhere: here the budget of evaluations ends it.
diverges("stiff_linear_1e8_dopri5 stiff_max_num_steps", "spent its budget of 2000", f=lambda t, y: -1e8 * y)
diverges("rhs_stochastic_dropout", f=lambda t, y: torch.nn.functional.dropout(-y, 0.5), solver=npde.Dopri5(max_nfe=1000))
diverges("step_size_tiny_oom", "budget of 2000", solver=npde.RK4(1e-12, max_nfe=2000))


def van_der_pol(t, y):
    return torch.stack([y[1], 1e6 * (1 - y[0] ** 2) * y[1] - y[0]])


diverges("stiff_vdp_1e6_dopri5", "budget|stopped", f=van_der_pol, x=y0[1:] - 1, t=[0.0, 10.0])
stiff = {"f": lambda t, y: -1e5 * (y - torch.cos(t)), "t": [0.0, 10.0]}
diverges("requires_grad_memory_dopri5", "budget", x=y0.clone().requires_grad_(), **stiff)
diverges("y_float32_default_tol_stiffish", "budget", x=y0.float(), f=lambda t, y: -1e5 * (y - torch.cos(t).to(y)), t=[0.0, 10.0])

# Right-hand sides that are none.
invalid("rhs_broadcast_shape1", r"returns \(1,\)", f=lambda t, y: -y[0])
invalid("rhs_scalar", r"returns \(\)", f=lambda t, y: -y.sum())
invalid("rhs_wrong_shape_rk4_scalar", r"returns \(\)", f=lambda t, y: -y.sum(), solver=RK4)
invalid("rhs_wrong_shape_col", r"returns \(3, 3\)", f=lambda t, y: -y * y.T)
invalid("rhs_wrong_shape_rk4_col", r"returns \(3, 3\)", f=lambda t, y: -y * y.T, solver=RK4)
invalid("rhs_none", "must return a tensor, not NoneType", TypeError, f=lambda t, y: None)
invalid("rhs_python_float", "must return a tensor, not float", TypeError, f=lambda t, y: -1.0)
invalid("y_real_complex_rhs", "complex128 for a state", f=lambda t, y: 1j * y)
invalid("y_real_complex_rhs_rk4", "complex128 for a state", f=lambda t, y: 1j * y, solver=RK4)
for name, solver in (("dopri5", DOPRI5), ("rk4", RK4)):
    invalid(f"rhs_inplace_mutation_{name}", "in place", f=lambda t, y: y.mul_(-1), solver=solver)
BUFFER = torch.zeros_like(y0)
invalid("rhs_returns_same_buffer", "clone", f=lambda t, y: torch.neg(y.detach(), out=BUFFER))

# States that are none.
invalid("y_bfloat16", "dtype torch.bfloat16", TypeError, x=y0.bfloat16())
invalid("y_float16", "dtype torch.float16", TypeError, x=y0.half())
invalid("y_int", "dtype torch.int64", TypeError, x=y0.long())
invalid("y_int_rk4", "dtype torch.int64", TypeError, x=y0.long(), solver=RK4)
invalid("y_dict_state", "not dict", TypeError, x={"y": y0})
invalid("y_list_state", "not list", TypeError, x=[y0])
invalid("y_scalar_float", "not float", TypeError, x=1.0)
invalid("y_empty", "empty", x=y0[:0])
invalid("y_empty_tuple", "empty tuple", x=())
invalid("y_tuple_mixed_dtype", "differ in device or precision", TypeError, x=(y0, y0.float()), f=lambda t, y: y)
invalid("nan_y0_dopri5", r"NaN or infinite value, the first at index \[0, 0\]", x=y0 * math.nan)

# Times.
invalid("t_2d", "at least two times", t=torch.rand(2, 2))
invalid("t_empty", "at least two times", t=[])
invalid("t_nan", "NaN or infinite", t=[0.0, math.nan])
invalid("t_inf", "NaN or infinite", t=[0.0, math.inf])
invalid("t_inf_rk4_step", "NaN or infinite", t=[0.0, math.inf], solver=RK4)
invalid("t_nonmonotone python_O_nonmonotone", "decreases from", t=[0.0, 1.0, 0.5])
invalid("t_repeated", "repeats from", t=[0.0, 0.0, 1.0])
invalid("t_repeated_last", "repeats from", t=[0.0, 1.0, 1.0])
answers("t_integer", lambda: exact(solve(t=torch.tensor([0, 1, 2]))))
answers("t_list", lambda: exact(solve(t=[0, 0.5, 1])))

# Options.
for name, value in (("nan", math.nan), ("negative", -1e-3)):
    refuses(f"rtol_{name}", ValueError, "rtol must be positive and finite", lambda v=value: npde.Dopri5(rtol=v))
    refuses(f"step_size_{name}", ValueError, "dt must be positive", lambda v=value: npde.RK4(v))
refuses("step_size_zero", ValueError, "dt must be positive", lambda: npde.Euler(0.0))
refuses("atol0_rtol0", ValueError, "must be positive", lambda: npde.Dopri5(rtol=0, atol=0))
refuses("atol0_zero_state", ValueError, "atol must be positive", lambda: npde.Dopri5(atol=0))
refuses("unknown_option_typo", TypeError, "rtoll", lambda: npde.Dopri5(rtoll=1e-3))
refuses("options_min_step_bypasses_error min_step", TypeError, "min_step", lambda: npde.Dopri5(min_step=1e-3))
refuses("no_step_size_silent_coarse", TypeError, "dt", lambda: npde.RK4())
refuses("y_float32_default_tol", ValueError, "cannot be met in float32", lambda: solve(x=y0.float(), solver=npde.Dopri5(1e-7)))

single = y0.float()
answers("off_grid_output rk4_offgrid_linear_interp", lambda: exact(solve(t=[0.0, 0.33, 1.0], solver=RK4), tolerance=1e-5))


def oscillator():
    """Single precision for a long time: within the tolerance's accumulation."""

    def f(t, y):
        return torch.stack([y[1], -y[0]])

    start = torch.tensor([[1.0], [0.0]])
    last = npde.integrate(f, start, [0.0, 100.0], npde.Dopri5()).final
    error = float((last[:, 0] - torch.tensor([math.cos(100), -math.sin(100)])).abs().max())
    check(error < 1e-2, f"error {error:.1e}")


def late_times(dtype):
    """y' = cos(t − 10⁶): the clock is in double precision whatever the state is in."""
    start = 1e6

    def f(t, y):
        check(t.dtype == double, "the clock is single")
        return torch.cos(t - start).to(y) * torch.ones_like(y)

    x = npde.integrate(f, torch.zeros(1, 1, dtype=dtype), [start, start + 1.0], npde.Dopri5(max_nfe=2000)).final
    check(abs(float(x) - math.sin(1)) < 1e-4, f"error {abs(float(x) - math.sin(1)):.1e}")


def unstable_step():
    """Far beyond the stability limit of RK4, where 1e246 would be the answer."""
    fast = npde.Heat(npde.combinatorial_laplacian(npde.grid(4, 4).to(double).graph()), 1e4)
    x = torch.randn(fast.laplacian.shape[0], 1, dtype=double)
    return npde.integrate(fast, x, [0.0, 1.0], npde.RK4(0.05))


def tolerances():
    for solver in (npde.Dopri5, npde.Bosh3):
        for tolerance in (1e-4, 1e-6, 1e-8):
            path = npde.integrate(lambda t, y: torch.stack([y[1], -y[0]]), y0[:2], [0.0, 10.0], solver(tolerance, tolerance))
            angle = torch.tensor(10.0, dtype=double)
            wanted = torch.stack([y0[0] * angle.cos() + y0[1] * angle.sin(), y0[1] * angle.cos() - y0[0] * angle.sin()])
            error = float((path.final - wanted).abs().max()) / tolerance
            # Global error is proportional to the tolerance for order 5, and its power 3/4 for order 3.
            check(error < (100 if solver is npde.Dopri5 else 3000), f"{solver.__name__} {tolerance}: {error:.0f} tolerances")


def gradient_of(gradient, build):
    """d/dθ of a sum of squares at the end, with θ where `build` hides it."""
    theta = torch.tensor(0.7, dtype=double, requires_grad=True)
    f, x = build(theta)
    solution = npde.integrate(f, x, [0.0, 0.4, 1.0], npde.Dopri5(1e-9, 1e-10, gradient=gradient))
    return torch.autograd.grad(solution.x.abs().square().sum(), theta)[0]


def captured(theta):
    return lambda t, y: -theta * y, y0


def complex_state(theta):
    return lambda t, y: (1j * theta - 0.1) * y * torch.cos(t), y0 * (1 + 0.5j) * theta


def same_gradients():
    for build in (captured, complex_state):
        direct, adjoint = (gradient_of(kind, build) for kind in (npde.Direct(), npde.Adjoint()))
        check(abs(float(direct - adjoint)) < 1e-6 * abs(float(direct)), f"{float(direct)} and {float(adjoint)}")


def second_derivative(gradient):
    theta = torch.tensor(0.7, dtype=double, requires_grad=True)
    solution = npde.integrate(lambda t, y: -theta * y, y0, [0.0, 1.0], npde.Dopri5(1e-9, 1e-10, gradient=gradient))
    loss = solution.final.square().sum()
    first = torch.autograd.grad(loss, theta, create_graph=True)[0]
    return first, torch.autograd.grad(loss + first**2, theta)[0]


def mixed_loss():
    """The gradient of loss + |∇ loss|²: right with Direct; with Adjoint it must be right or refused."""
    s = float(y0.square().sum())
    loss_1, loss_2 = -2 * s * math.exp(-1.4), 4 * s * math.exp(-1.4)
    wanted = loss_1 + 2 * loss_1 * loss_2
    check(abs(float(second_derivative(npde.Direct())[1]) - wanted) < 1e-5 * abs(wanted), "Direct is wrong")
    try:
        found = float(second_derivative(npde.Adjoint())[1])
    except (RuntimeError, NotImplementedError):
        return
    check(abs(found - wanted) < 1e-5 * abs(wanted), f"Adjoint gives {found}, not {wanted}, without a word")


answers("y_float32_default_tol_long_oscillator", oscillator)
answers("t_dependent_rhs_big_offset_f32_state", lambda: late_times(torch.float32))
answers("t_big_offset_f32", lambda: late_times(double))
refuses("stiff_rk4_unstable", npde.SolveError, "diverged|unstable|stability", unstable_step)
answers("tolerance_proportionality", tolerances)
answers("adjoint_unregistered_param adjoint_lambda adjoint_eq_autograd_complex_t", same_gradients)
answers("adjoint_double_backward adjoint_double_backward_mixed_loss", mixed_loss)
vmapped = lambda s: torch.func.vmap(lambda y: solve(x=y, solver=s).final)(torch.stack([y0, 2 * y0]))  # noqa: E731
refuses("vmap_func", TypeError, "vmap hides the numbers.*PerSample", lambda: vmapped(DOPRI5))
answers("vmap_rk4", lambda: check(torch.equal(vmapped(RK4)[1], solve(x=2 * y0, solver=RK4).final)))

if __name__ == "__main__":
    main(cases)
