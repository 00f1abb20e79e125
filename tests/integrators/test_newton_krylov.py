"""Newton's method for y = b + s f(t, y): roots, stiff ones, damped ones, gradients, and failures with a name."""

import math

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from integrators.backward_euler import BackwardEuler
from integrators.checkpointed import Checkpointed
from integrators.gradients import Direct
from integrators.integrate import integrate
from integrators.integrator import CountedRightHandSide, Split
from integrators.newton_krylov import NewtonKrylov
from integrators.radau import RadauIIA5
from integrators.sdirk3 import SDIRK3
from integrators.solution import NotConverged, SolveError, Statistics, Status
from integrators.state import parts_of

DOUBLE = torch.float64
both = pytest.mark.parametrize("dense", [0, 64], ids=["GMRES", "LU"])


def stages(f, x0, newton=None, linear=None, **tolerances):
    counted = CountedRightHandSide(f, x0, Statistics(), 10**6)
    return (newton or NewtonKrylov()).stages(counted, 0.0, x0, linear, **tolerances)


def residual(f, t, s, b, y):
    value = f(torch.tensor(t, dtype=DOUBLE), y)
    return max(float((p - q - s * v).abs().max()) for p, q, v in zip(*map(parts_of, (y, b, value)), strict=True))


def path_laplacian(n, scale=1.0):
    L = torch.zeros(n, n, dtype=DOUBLE)
    for i in range(n - 1):
        for a, b in ((i, i + 1), (i + 1, i)):
            L[a, a] += 0.5 * scale
            L[b, b] += 0.5 * scale
            L[a, b] -= scale
    return L


class AllenCahn:
    """du/dt = −L u + u − u³, with −L as its linear part."""

    def __init__(self, n, scale):
        self.L = path_laplacian(n, scale)
        self.solves = 0

    linear = property(lambda self: self)

    def __call__(self, t, u):
        return self @ u + self.nonlinear(t, u)

    def nonlinear(self, t, u):
        return u - u**3

    def __matmul__(self, u):
        return -(self.L @ u)

    def norm_bound(self):
        return float(4 * self.L.max())

    def solve(self, shift, b):
        self.solves += 1
        return torch.linalg.solve(torch.eye(len(self.L), dtype=DOUBLE) + shift * self.L, b)


Z = torch.complex(*torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=DOUBLE))
EQUATIONS = {
    "real": (lambda t, x: torch.sin(x) * t - x**3, torch.linspace(-1, 1, 6, dtype=DOUBLE)[:, None]),
    "batch": (lambda t, x: -(x**3) + x.sum(1, keepdim=True), torch.linspace(-1, 1, 30, dtype=DOUBLE).reshape(3, 5, 2)),
    "not holomorphic": (lambda t, z: 1j * z * z.abs() ** 2 - z.conj(), Z),
    "tuple": (lambda t, x: (x[1].abs().sum() - x[0] ** 3, 1j * x[1] * x[0].sum()), (torch.ones(3, dtype=DOUBLE), Z[:2])),
    "constant": (lambda t, x: torch.ones_like(x), torch.zeros(3, dtype=DOUBLE)),
}


@both
@pytest.mark.parametrize("s", [0.2, -0.1, 0.0])
@pytest.mark.parametrize(("f", "b"), EQUATIONS.values(), ids=EQUATIONS.keys())
def test_the_root_solves_the_equation_to_its_tolerance(f, b, s, dense):
    y = stages(f, b, NewtonKrylov(dense=dense)).solve(0.7, s, b)
    assert residual(f, 0.7, s, b, y) <= 1e-10


@both
@settings(max_examples=20, deadline=None)
@given(b=st.floats(-10, 10), s=st.floats(0, 10))
def test_the_root_is_scipys(dense, b, s):
    """A monotone equation has one root, which is found from any start: damping at work."""
    f = lambda t, y: -torch.sinh(y) - y**3  # noqa: E731
    x0 = torch.full((2, 1), b, dtype=DOUBLE)
    y = stages(f, x0, NewtonKrylov(dense=dense)).solve(0.0, s, x0)
    root = scipy.optimize.brentq(lambda v: v - b + s * (np.sinh(v) + v**3), -51, 51, xtol=1e-13)
    assert float((y - root).abs().max()) <= 1e-8 * max(1.0, abs(b))


@both
@pytest.mark.parametrize("stiffness", [1e2, 1e4, 1e6])
def test_the_tolerance_holds_whatever_the_stiffness(stiffness, dense):
    f = AllenCahn(40, stiffness)
    b = torch.linspace(-1, 1, 40, dtype=DOUBLE)[:, None].sin()
    reference = stages(f, b, NewtonKrylov(rtol=1e-14)).solve(0.0, 0.3, b)
    y = stages(f, b, NewtonKrylov(dense=dense, budget=2000), rtol=1e-4, atol=1e-6).solve(0.0, 0.3, b)
    error = float(((y - reference).abs() / (1e-6 + 1e-4 * reference.abs())).max())
    assert error <= 0.01


def test_the_preconditioner_makes_the_work_independent_of_the_stiffness():
    products = []
    for stiffness in (1e1, 1e3, 1e5):
        f = AllenCahn(150, stiffness)
        b = torch.linspace(-1, 1, 150, dtype=DOUBLE)[:, None].sin()
        counted = CountedRightHandSide(f, b, Statistics(), 10**6)
        s = NewtonKrylov().stages(counted, 0.0, b, Split(counted, "a test"), rtol=1e-6, atol=1e-8)
        y = s.solve(0.0, 0.1, b)
        assert residual(f, 0.0, 0.1, b, y) <= 1e-6 * stiffness
        products.append(counted.stats.nvp)
        assert counted.stats.factorizations == 1
    assert max(products) <= 15


@both
def test_van_der_pol_in_its_stiff_limit(dense):
    """One long step onto the slow manifold, where the Jacobian has entries of 1e6."""

    def f(t, x):
        u, v = x[..., :1], x[..., 1:]
        return torch.cat((v, 1e6 * ((1 - u**2) * v - u)), dim=-1)

    b = torch.tensor([[2.0, 0.0]], dtype=DOUBLE)
    y = stages(f, b, NewtonKrylov(dense=dense)).solve(0.0, 0.1, b)
    assert residual(f, 0.0, 0.1, b, y) <= 1e-6  # Round-off of 1e6·8.


@both
def test_gradients_of_every_order_that_is_promised(dense):
    newton = NewtonKrylov(dense=dense, rtol=1e-14)

    def root(b, z, s, t, k):
        def f(t, x):
            return torch.tanh(k * x[0]) * x[1].abs().sum() - t**2 * x[0] ** 3, 1j * k * x[1].conj() + x[0].sum()

        return stages(f, (b, z), newton).solve(t, s, (b, z))

    numbers = ([0.3, -0.5], [0.2 + 0.1j], 0.2, 0.4, 0.7)
    inputs = [torch.tensor(v, dtype=torch.complex128 if k == 1 else DOUBLE) for k, v in enumerate(numbers)]
    inputs = [part.requires_grad_() for part in inputs]
    assert gradcheck(root, inputs, atol=1e-7, rtol=1e-6, fast_mode=True)
    assert gradgradcheck(root, inputs, atol=1e-6, rtol=1e-5, fast_mode=True)


def test_the_gradient_with_a_preconditioner():
    def root(b, scale, dense, with_linear):
        f = AllenCahn(20, 1.0)
        f.L = f.L * scale
        counted = CountedRightHandSide(f, b, Statistics(), 10**6)
        linear = Split(counted, "a test") if with_linear else None
        return NewtonKrylov(dense=dense, rtol=1e-13).stages(counted, 0.0, b, linear).solve(0.0, 0.2, b)

    u = torch.linspace(1, 2, 20, dtype=DOUBLE)[:, None]
    grads = []
    for dense, with_linear in ((64, False), (0, False), (0, True)):
        b = torch.linspace(-1, 1, 20, dtype=DOUBLE)[:, None].requires_grad_()
        scale = torch.tensor(1000.0, dtype=DOUBLE, requires_grad=True)
        grads.append(torch.autograd.grad((u * root(b, scale, dense, with_linear)).sum(), (b, scale)))
    for grad in grads[1:]:
        assert torch.allclose(grad[0], grads[0][0], rtol=1e-9, atol=1e-12)
        assert torch.allclose(grad[1], grads[0][1], rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize(
    ("method", "gradient", "dense"),
    [
        (BackwardEuler, Direct(), 0),
        (BackwardEuler, Checkpointed(), 0),
        (BackwardEuler, Checkpointed(snapshots=2), 64),
        (SDIRK3, Direct(), 64),
        (SDIRK3, Checkpointed(), 64),
    ],
)
def test_gradients_of_whole_solves(method, gradient, dense):
    solver = method(dt=0.35, gradient=gradient, newton=NewtonKrylov(dense=dense, rtol=1e-13))

    def final(x0, k, t):
        return integrate(lambda s, x: k * x * (1 - x) + torch.sin(s), x0, t, solver).x[1:]

    x0 = torch.tensor([[0.3], [0.6]], dtype=DOUBLE, requires_grad=True)
    k = torch.tensor(-2.0, dtype=DOUBLE, requires_grad=True)
    t = torch.tensor([0.0, 0.5, 1.1], dtype=DOUBLE, requires_grad=True)
    assert gradcheck(final, (x0, k, t), atol=1e-6, rtol=1e-5, fast_mode=True)


def test_second_derivatives_of_a_checkpointed_solve():
    solver = BackwardEuler(dt=0.5, newton=NewtonKrylov(rtol=1e-13))

    def final(x0, k):
        return integrate(lambda s, x: k * x * (1 - x), x0, [0.0, 1.0], solver).final

    x0 = torch.tensor([[0.3], [0.6]], dtype=DOUBLE, requires_grad=True)
    assert gradgradcheck(final, (x0, torch.tensor(-2.0, dtype=DOUBLE, requires_grad=True)), atol=1e-6, rtol=1e-5, fast_mode=True)


@both
def test_statistics_count_evaluations_and_products(dense):
    calls = 0

    def f(t, x):
        nonlocal calls
        calls += 1
        return -(x**3)

    b = torch.ones(3, 1, dtype=DOUBLE)
    s = stages(f, b, NewtonKrylov(dense=dense))
    s.solve(0.0, 0.5, b)
    assert 0 < s.stats.nfe < calls
    assert s.stats.nvp > 0


def test_the_stages_of_a_step_share_a_jacobian():
    """Three stages, one Jacobian of 6 rows, and still the root to its tolerance."""
    f, x0 = (lambda t, x: -(x**3)), torch.linspace(-1, 1, 6, dtype=DOUBLE)[:, None]
    with torch.no_grad():
        solution = integrate(f, x0, [0.0, 0.1, 0.3], SDIRK3(dt=0.1))
        other = integrate(f, x0, [0.0, 0.1, 0.3], SDIRK3(dt=0.1, newton=NewtonKrylov(dense=0, rtol=1e-14)))
    assert solution.stats.accepted == 3
    assert solution.stats.nvp == 3 * 6
    assert torch.allclose(solution.x, other.x, rtol=1e-9, atol=1e-10)


def test_a_step_begins_with_a_jacobian_of_its_own():
    """The factor of another step would make a step depend on the path that led to it."""
    f, b = (lambda t, x: -1e3 * x**3), torch.linspace(0.1, 1, 6, dtype=DOUBLE)[:, None]
    s, alone = stages(f, b, rtol=1e-2), stages(f, b, rtol=1e-2).solve(0.0, 0.5, b)
    s.solve(0.0, 0.5, 3 * b)
    assert torch.equal(s.solve(0.0, 0.5, b), alone)


@both
@pytest.mark.parametrize("small", [1e-30, 0.0])
def test_a_part_that_round_off_of_the_others_drives_does_not_stop_newtons_method(small, dense):
    """Its own size is no measure of the error it can be given."""
    f = lambda t, x: (-(x[0] ** 3), -1e4 * (x[1] - 1e-12 * x[0].sum()))  # noqa: E731
    x = torch.linspace(-1, 1, 5, dtype=DOUBLE)[:, None], torch.full((1,), small, dtype=DOUBLE)
    y = stages(f, x, NewtonKrylov(dense=dense)).solve(0.0, 0.1, x)
    assert float((y[0] - x[0] + 0.1 * y[0] ** 3).abs().max()) <= 1e-9
    assert float(y[1].abs().max()) <= 4 * torch.finfo(DOUBLE).eps
    integrate(f, x, [0.0, 1.0], RadauIIA5(dt=0.1, newton=NewtonKrylov(dense=dense)))


def test_a_gradient_that_autograd_cannot_see_is_refused():
    f = lambda t, x: -(x.detach() ** 3)  # noqa: E731
    b = torch.ones(3, 1, dtype=DOUBLE)
    y = stages(f, b).solve(0.0, 0.5, b)
    assert residual(f, 0.0, 0.5, b, y) <= 1e-8
    with pytest.raises(TypeError, match=r"gradient of this solve would be wrong.*detach\(\)"):
        stages(f, b.requires_grad_()).solve(0.0, 0.5, b)


@both
@pytest.mark.parametrize(
    ("f", "what"),
    [
        (lambda t, x: x**2 + 1, r"did not converge at t = 0.5, with s = 3.*residual.*smaller step.*`linear`"),
        (lambda t, x: x / 0, "f is not finite where it starts .* index"),
        (lambda t, x: torch.where(x < 1.5, 1.0, -1.0).to(x.dtype) * 2, "did not converge"),
    ],
    ids=["no root", "not finite", "jump"],
)
def test_failures_are_typed_and_name_cause_and_cure(f, what, dense):
    b = torch.ones(3, 1, dtype=DOUBLE)
    s = stages(f, b, NewtonKrylov(dense=dense))
    with pytest.raises(NotConverged, match=f"(?s){what}") as caught:
        s.solve(0.5, 3.0, b)
    assert caught.value.status is Status.DIVERGED


def test_a_singular_matrix_is_named():
    b = torch.ones(3, 1, dtype=DOUBLE)
    with pytest.raises(NotConverged, match=r"∂f/∂x is singular there"):
        stages(lambda t, x: x, b).solve(0.0, 1.0, b)


def test_what_fails_again_and_again_is_blamed_on_newton_and_a_success_forgives():
    fine = False
    f = lambda t, x: -x if fine else x**2 + 100  # noqa: E731
    b = torch.ones(3, 1, dtype=DOUBLE)
    s = stages(f, b)
    for _ in range(8):
        assert s.blame(0.0, b) == ""
        with pytest.raises(NotConverged):
            s.solve(0.0, 1.0, b)
    assert "Newton's method did not converge" in s.blame(0.0, b)
    fine = True
    s.solve(0.0, 1.0, b)
    assert s.blame(0.0, b) == ""


def test_an_adaptive_method_takes_a_smaller_step_where_newton_fails():
    """x' = x²: the first step proposed has no root; the solution 1/(1 − t) is still found."""
    x0 = torch.ones(2, 1, dtype=DOUBLE)
    solver = SDIRK3(rtol=1e-6, atol=1e-8, first_step=0.9)
    solution = integrate(lambda t, x: x**2, x0, [0.0, 0.9], solver)
    assert solution.stats.rejected > 0
    assert float((solution.final - 10).abs().max()) <= 1e-3


def test_fixed_steps_end_in_a_solve_error_that_keeps_what_was_computed():
    x0 = torch.ones(2, 1, dtype=DOUBLE)
    with pytest.raises(SolveError, match=r"(?s)Newton's method did not converge") as caught:
        integrate(lambda t, x: x**2, x0, [0.0, 0.2, 5.0], BackwardEuler(dt=0.1))
    assert caught.value.status is Status.DIVERGED
    assert caught.value.solution.t.tolist() == [0.0, 0.2]


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_single_precision_is_kept(dtype, dense):
    b = torch.ones(5, 2, dtype=dtype)
    y = stages(lambda t, x: -x * x.abs() ** 2, b, NewtonKrylov(dense=dense)).solve(0.0, 0.5, b)
    assert y.dtype == dtype
    assert float((y - b + 0.5 * y * y.abs() ** 2).abs().max()) <= 1e-4


@both
def test_inside_inference_mode(dense):
    with torch.inference_mode():
        b = torch.ones(5, 2, dtype=DOUBLE)
        y = stages(lambda t, x: -(x**3), b, NewtonKrylov(dense=dense)).solve(0.0, 0.5, b)
    assert not y.requires_grad
    assert residual(lambda t, x: -(x**3), 0.0, 0.5, torch.ones(5, 2, dtype=DOUBLE), y) <= 1e-9


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"rtol": 0.0}, "rtol must be positive and finite, not 0.0"),
        ({"atol": math.nan}, "atol must be positive and finite, not nan"),
        ({"iterations": 0}, "iterations must be an integer of at least 1, not 0"),
        ({"restart": 2.5}, "restart must be an integer of at least 1, not 2.5"),
        ({"budget": True}, "budget must be an integer of at least 1, not True"),
        ({"dense": -1}, "dense must be an integer of at least 0, not -1"),
    ],
)
def test_bad_settings_are_refused(wrong, text):
    with pytest.raises(ValueError, match=text):
        NewtonKrylov(**wrong)
