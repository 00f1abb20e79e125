"""Laws of every implicit method: order, linear invariants, gradients, kinds of state, and bad input."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from integrators.backward_euler import BackwardEuler
from integrators.bdf2 import BDF2
from integrators.checkpointed import Checkpointed
from integrators.crank_nicolson import CrankNicolson
from integrators.gradients import Direct
from integrators.implicit import lagrange_integrals, polynomial
from integrators.integrate import integrate
from integrators.radau import RadauIIA5
from integrators.sdirk2 import SDIRK2
from integrators.sdirk3 import SDIRK3
from integrators.solution import SolveError, Status

G = torch.tensor([[-1.0, 2.0], [-2.0, -0.5]], dtype=torch.float64)
X0 = torch.tensor([[1.0], [0.5]], dtype=torch.float64)
T = [0.0, 0.4, 1.0]
METHODS = [BackwardEuler, CrankNicolson, BDF2, SDIRK2, SDIRK3, RadauIIA5]
methods = pytest.mark.parametrize("method", METHODS)


@pytest.fixture
def dense(linear):
    """linear(G) that solves with complex shifts too."""

    class Dense(linear):
        def solve(self, shift, b):
            self.solves += 1
            kind = torch.promote_types(self.G.dtype, b.dtype)
            shift = shift if shift.is_complex() else shift.to(self.G.real.dtype)
            matrix = torch.eye(len(self.G), dtype=self.G.dtype) - shift * self.G
            return torch.linalg.solve(matrix.to(kind if b.is_complex() else matrix.dtype), b)

    return Dense


def leaf(value):
    return torch.as_tensor(value, dtype=torch.float64).clone().requires_grad_()


# -- order


@methods
@pytest.mark.parametrize("t", [[0.0, 0.75], [0.0, 0.3, 0.75]], ids=["even steps", "uneven steps"])
def test_order(problem, method, t, observed_order):
    first = {RadauIIA5: 1 / 8, SDIRK3: 1 / 16, SDIRK2: 1 / 32}.get(method, 1 / 64)
    solutions = [integrate(problem.f, problem.x0, t, method(dt=first / 2**k)) for k in range(2)]
    errors = [problem.error(s.t, s.x) for s in solutions]
    # An interval between outputs is not always cut into twice as many steps.
    refined = math.log2(solutions[1].stats.accepted / solutions[0].stats.accepted)
    slack = 0.1 if len(t) == 2 else 0.3
    if errors[-1] > 1e-11:
        assert method.order - slack <= observed_order(errors) / refined <= method.order + 1.2


@methods
@pytest.mark.parametrize("factor", [1.0, 1j, 1 + 1j])
def test_order_of_linear_equations(method, factor, dense, observed_order):
    matrix, x0 = (G, X0) if factor == 1 else (factor * G, X0.to(torch.complex128))
    exact = torch.linalg.matrix_exp(matrix) @ x0
    first = 1 / 4 if method is RadauIIA5 else 1 / 64
    errors = [float((integrate(dense(matrix), x0, [0, 1], method(dt=first / 2**k)).final - exact).abs().max()) for k in range(3)]
    assert method.order - 0.1 <= observed_order(errors) <= method.order + 1.2


@methods
def test_a_linear_equation_is_solved_alike_with_and_without_its_structure(method, dense):
    f = dense(G)
    direct, newton = (integrate(g, X0, T, method(dt=0.1)) for g in (f, lambda t, x: G @ x))
    assert torch.allclose(direct.x, newton.x, rtol=0, atol=1e-10)
    assert direct.stats.nvp == 0
    assert newton.stats.solves == 0
    assert newton.stats.nvp > 0


# -- invariants of linear equations


@methods
def test_mass_is_kept_and_the_solution_is_linear_in_the_initial_state(method, dense):
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(7, 7, generator=generator, dtype=torch.float64)
    A = 1e4 * (weights + weights.T)
    f = dense(A - torch.diag(A.sum(0)))
    x, y = torch.randn(2, 7, 1, generator=generator, dtype=torch.float64)
    runs = [integrate(f, z, T, method(dt=0.05)).x for z in (x, y, 2 * x - 3 * y)]
    assert torch.allclose(runs[2], 2 * runs[0] - 3 * runs[1], rtol=0, atol=1e-11)
    assert torch.allclose(runs[0].sum(1), x.sum(0).expand(3, 1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", [BackwardEuler, SDIRK2, SDIRK3, RadauIIA5])
def test_whole_steps_are_a_semigroup(method, dense):
    f, solver = dense(G), method(dt=0.125)
    halfway = integrate(f, X0, [0.0, 0.5], solver).final
    assert torch.allclose(integrate(f, halfway, [0.0, 0.5], solver).final, integrate(f, X0, [0.0, 1.0], solver).final, atol=1e-13)


@methods
def test_reverse_time_returns(method, dense):
    there = integrate(dense(G), X0, [0.0, 1.0], method(dt=1 / 512)).final
    back = integrate(dense(G), there, [1.0, 0.0], method(dt=1 / 512)).final
    assert float((back - X0).abs().max()) <= 40 * 512.0**-method.order + 1e-12


@pytest.mark.parametrize("method", [BackwardEuler, BDF2, SDIRK2, SDIRK3, RadauIIA5])
def test_stiff_modes_vanish(method, dense):
    """L-stability: whatever the step, what decays at once is gone after a few steps."""
    f = dense(torch.tensor([[-1e9]], dtype=torch.float64))
    assert abs(float(integrate(f, X0[:1], [0.0, 0.5, 1.0], method(dt=0.1)).final)) <= 1e-20


# -- kinds of state


@methods
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.complex128])
def test_precision_and_kind_are_kept(method, dtype, dense):
    matrix = G.to(dtype) if dtype is torch.float32 else (1 + 0.5j) * G.to(dtype)
    wide = G if dtype is torch.float32 else (1 + 0.5j) * G.to(torch.complex128)
    eps = torch.finfo(dtype).eps
    for f, g in ((dense(matrix), dense(wide)), (lambda t, x: matrix @ x, lambda t, x: wide @ x)):
        x, y = (integrate(h, X0.to(z), [0.0, 0.7, 1.0], method(dt=0.1)).x for h, z in ((f, dtype), (g, wide.dtype)))
        assert x.dtype == dtype
        assert float((x - y).abs().max()) <= 200 * eps + (1e-4 if f is not dense and eps > 1e-10 else 1e-9)


@methods
def test_batches_are_solved_alike(method, dense):
    x0 = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = integrate(dense(G), x0, T, method(dt=0.2)).x
    for k in range(3):
        assert torch.allclose(whole[:, k], integrate(dense(G), x0[k], T, method(dt=0.2)).x, atol=1e-13)


@methods
def test_tuples_with_a_linear_part(method):
    """A wave (u, v) with its own solve, in agreement with Newton's method on the same equation."""

    class Wave:
        linear = property(lambda self: self)

        def __call__(self, t, x):
            return self @ x

        def __matmul__(self, x):
            return x[1], -4 * x[0]

        def norm_bound(self):
            return 4.0

        def solve(self, s, b):
            u = (b[0] + s * b[1]) / (1 + 4 * s * s)
            return u, b[1] - 4 * s * u

    start = (X0, 0 * X0)
    direct, newton = (integrate(f, start, T, method(dt=0.1)) for f in (Wave(), lambda t, x: (x[1], -4 * x[0])))
    assert all(torch.allclose(p, q, rtol=0, atol=1e-9) for p, q in zip(direct.x, newton.x, strict=True))


# -- gradients

gradients = pytest.mark.parametrize("gradient", [Direct(), Checkpointed(snapshots=2)], ids=["direct", "checkpointed"])


@methods
@gradients
def test_gradcheck_of_linear_equations(method, gradient, dense):
    def final(x0, k, t):
        return integrate(dense(k * G), x0, t, method(dt=0.17, gradient=gradient)).x

    assert gradcheck(final, (leaf(X0), leaf(0.7), leaf(T)), eps=1e-6, atol=1e-5, rtol=1e-3)


@methods
@gradients
def test_gradcheck_of_nonlinear_equations(method, gradient):
    def final(x0, k, t):
        f = lambda s, x: k * x * (1 - x) + torch.sin(3 * s)  # noqa: E731
        return integrate(f, x0, t, method(dt=0.2, gradient=gradient)).x

    assert gradcheck(final, (leaf(X0), leaf(0.7), leaf([0.0, 0.5])), eps=1e-6, atol=1e-5, rtol=1e-3)


@methods
@gradients
def test_second_order(method, gradient, dense):
    def linear_final(x0, k):
        return integrate(dense(k * G), x0, [0.0, 0.5], method(dt=0.25, gradient=gradient)).final

    def final(x0, k):
        return integrate(lambda s, x: k * x * (1 - x), x0, [0.0, 0.5], method(dt=0.25, gradient=gradient)).final

    assert gradgradcheck(linear_final, (leaf(X0), leaf(0.7)), eps=1e-6, atol=1e-5, rtol=1e-3)
    assert gradgradcheck(final, (leaf(X0), leaf(0.7)), eps=1e-6, atol=1e-5, rtol=1e-3)


@methods
def test_gradcheck_of_complex_states(method, dense):
    x0 = torch.complex(X0, 1 - X0).requires_grad_()
    matrix = ((0.3 + 1j) * G).requires_grad_()
    assert gradcheck(lambda x, A: integrate(dense(A), x, T, method(dt=0.3)).x, (x0, matrix), eps=1e-6, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("method", [SDIRK2, SDIRK3, RadauIIA5])
def test_the_gradient_of_adaptive_steps_is_that_of_the_equation(method, dense):
    k = leaf(0.7)
    rtol = {SDIRK2: 1e-3, SDIRK3: 1e-4, RadauIIA5: 1e-6}[method]
    for f in (dense(k * G), lambda t, x: k * (G @ x)):
        direct, kept = (
            torch.autograd.grad(integrate(f, X0, T, method(rtol, rtol / 100, gradient=g)).final.sum(), k, retain_graph=True)[0]
            for g in (Direct(), Checkpointed())
        )
        assert float(direct - kept) == pytest.approx(0, abs=1e-12)
        exact = (G @ torch.linalg.matrix_exp(k.detach() * G) @ X0).sum()
        assert float(kept) == pytest.approx(float(exact), abs=10 * rtol)


# -- cost and limits


@pytest.mark.parametrize(
    ("method", "solves", "factors"),
    [(BackwardEuler, 8, 1), (CrankNicolson, 10, 1), (BDF2, 9, 1), (SDIRK2, 16, 1), (SDIRK3, 24, 1), (RadauIIA5, 16, 2)],
)
def test_statistics_count_solves_steps_and_factors(method, solves, factors, dense):
    f = dense(G)
    stats = integrate(f, X0, [0.0, 0.1, 0.2, 0.3, 0.8], method(dt=0.1, gradient=Direct())).stats
    assert stats.solves == f.solves == solves
    assert (stats.accepted, stats.nfe, stats.rejected, stats.nfe_backward) == (8, 0, 0, 0)
    # Output times are evenly spaced but for round-off.
    assert stats.factorizations == factors


@methods
def test_the_budget_counts_solves(method, dense):
    with pytest.raises(SolveError, match="budget of 5 linear solves") as caught:
        integrate(dense(G), X0, [0.0, 0.1, 1.0], method(dt=0.1, max_nfe=5))
    assert caught.value.status is Status.BUDGET
    assert caught.value.solution.t.tolist() == [0.0, 0.1]


@methods
def test_a_singular_shift_is_named(method, dense):
    """Growth has poles: at the shift 1/4 the matrix has no inverse."""
    f = dense(4 * torch.eye(2, dtype=torch.float64))
    shift = {BackwardEuler: 1, CrankNicolson: 1 / 2, BDF2: 2 / 3, RadauIIA5: None}.get(method, getattr(method, "gamma", None))
    if shift is None:  # The real pole of RadauIIA5.
        shift = 1 / (3 + 3 ** (2 / 3) - 3 ** (1 / 3))

    def solve(s, b):
        if abs(complex(s) - 0.25) < 1e-12:
            raise torch.linalg.LinAlgError("the matrix is singular")
        return b / (1 - 4 * s)

    f.solve = solve
    step = 0.25 / shift
    with pytest.raises(SolveError, match=r"cannot be solved at s = 0.25.*the matrix is singular") as caught:
        integrate(f, X0, [0.0, 8 * step], method(dt=step))
    assert caught.value.status is Status.DIVERGED
    if hasattr(method, "adapts"):
        assert integrate(f, X0, [0.0, 4 * step], method(rtol=1e-3, atol=1e-3, first_step=step)).stats.accepted > 0


@methods
def test_a_wrong_linear_part_is_refused(method, dense):
    f = dense(G)
    f.forward = lambda t, x: G @ x + 1
    with pytest.raises(ValueError, match=r"Dense.linear @ x is not what Dense\(t, x\) gives"):
        integrate(f, X0, T, method(dt=0.1))


@methods
def test_a_linear_part_that_cannot_solve_is_refused(method):
    class Bare:
        linear = property(lambda self: self)

        def __call__(self, t, x):
            return 3 * x

        def __matmul__(self, x):
            return 3 * x

    with pytest.raises(TypeError, match=r"Bare.linear must offer `@`, `norm_bound\(\)` and `solve\(shift, b\)`"):
        integrate(Bare(), X0, T, method(dt=0.1))


@methods
def test_a_derivative_that_is_not_finite_is_named(method):
    f = lambda t, x: torch.where(t > 0.5, math.nan, 1.0) * x  # noqa: E731
    with pytest.raises(SolveError, match="not finite") as caught:
        integrate(f, X0, T, method(dt=0.1))
    assert caught.value.solution.t.tolist() == [0.0, 0.4]


@methods
@pytest.mark.parametrize("dt", [0.0, -0.1, float("nan")])
def test_bad_steps_are_refused(method, dt):
    with pytest.raises(ValueError, match=rf"dt must be positive, not {dt}"):
        method(dt=dt)


# -- the shared polynomials


def test_lagrange_integrals_integrate_what_they_interpolate():
    """Σ_i b_i(θ) c_i^k = θ^(k+1)/(k+1) for every k below the number of nodes."""
    nodes = [0.1, 0.55, 1.0]
    for theta in (0.0, 0.3, 1.0):
        weights = [polynomial(row, theta) for row in lagrange_integrals(nodes)]
        for k in range(3):
            total = sum(w * c**k for w, c in zip(weights, nodes, strict=True))
            assert total == pytest.approx(theta ** (k + 1) / (k + 1), abs=1e-14)
