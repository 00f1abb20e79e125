"""The exponential step is expm, to round-off, for every matrix and step."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from integrators import (
    ETDRK2,
    ETDRK4,
    CaratheodoryFejer,
    Exponential,
    SolveError,
    Status,
    integrate,
    integrate_until,
)
from integrators.checkpointed import Checkpointed
from integrators.exponential import ExactFlow, products
from integrators.gradients import Direct

drawn = settings(max_examples=40, deadline=None, derandomize=True)
entries = st.floats(-2, 2, allow_subnormal=False, width=32)
matrices = st.integers(1, 5).flatmap(lambda n: arrays(np.float64, (n, n), elements=entries))
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])


def flow(linear, G, x0, t, **options):
    return integrate(linear(G), x0, t, Exponential(**options))


def expm(A):
    """Scaled Taylor terms and squarings: SciPy's loses four digits on [[3, 1], [1, 1]], torch's is 2e-11 off on [[1/32]]."""
    squarings = max(0, math.ceil(math.log2(4 * float(torch.linalg.matrix_norm(A, ord=2)) + 1e-300)))
    total = term = torch.eye(len(A), dtype=A.dtype)
    for k in range(1, 20):
        term = term @ A / (k * 2**squarings)
        total = total + term
    for _ in range(squarings):
        total = total @ total
    return total


@dtypes
@drawn
@given(real=matrices, angle=st.floats(-1.5, 1.5), h=st.floats(1e-3, 4))
def test_one_step_is_expm(linear, dtype, real, angle, h):
    n = len(real)
    G = torch.as_tensor(real * np.exp(1j * angle) if dtype.is_complex else real).to(dtype)
    x0 = torch.linspace(-1, 1, 2 * n).reshape(n, 2).to(dtype)
    x = flow(linear, G, x0, [0.0, h]).final
    wide = torch.complex128 if dtype.is_complex else torch.float64
    exact = expm(h * G.to(wide)) @ x0.to(wide)
    size = h * float(torch.linalg.matrix_norm(G.to(wide), ord=2))
    bound = 32 * torch.finfo(dtype).eps * (1 + size) * math.exp(min(size, 80)) * float(x0.norm())
    assert x.dtype == dtype
    assert float((x.to(wide) - exact).norm()) <= bound


@pytest.mark.parametrize("z", [-3.0, -1e-3, 0.0, 0.7, 3.0, 1j, 20j, -1 + 2j])
def test_stability_function(linear, z):
    G, one = torch.full((1, 1), z, dtype=torch.complex128), torch.ones(1, 1, dtype=torch.complex128)
    assert abs(complex(flow(linear, G, one, [0.0, 1.0]).final) - np.exp(z)) <= 1e-12 * max(1, abs(np.exp(z)))


def skew(n, dtype, seed=0):
    A = torch.randn(n, n, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return (A - A.mH) / 2


@dtypes
@pytest.mark.parametrize("h", [0.05, 1.0, 8.0])
def test_a_skew_generator_keeps_the_norm_to_round_off_over_many_steps(linear, dtype, h):
    G, x0 = skew(6, dtype), torch.ones(6, 2, dtype=dtype)
    solution = flow(linear, G, x0, torch.arange(201) * h)
    drift = solution.x.norm(dim=(1, 2)) / x0.norm() - 1
    # Each product rounds x once or twice; terms reach e⁸/√(16π) times x before they cancel, where θ is as long as 8.
    assert float(drift.abs().max()) <= torch.finfo(dtype).eps * solution.stats.nfe


def test_the_step_changes_only_round_off(linear):
    G, x0 = skew(6, torch.float64), torch.ones(6, 2, dtype=torch.float64)
    exact = torch.linalg.matrix_exp(7 * G) @ x0
    for dt in (0.1, 0.7, 10.0, math.inf):
        assert float((flow(linear, G, x0, [0.0, 7.0], dt=dt).final - exact).norm()) <= 1e-12


def test_output_is_independent_of_other_output_times(linear):
    G, x0 = skew(6, torch.float64), torch.ones(6, 2, dtype=torch.float64)
    few, many = (flow(linear, G, x0, t).final for t in ([0.0, 3.0], [0.0, 0.1, 0.337, 2.999, 3.0]))
    assert float((few - many).norm()) <= 1e-13


def test_the_default_takes_one_step_to_each_output_and_counts_its_products(linear):
    f = linear(skew(6, torch.float64))
    products = 0

    class Counted(type(f)):
        def __matmul__(self, x):
            nonlocal products
            products += 1
            return super().__matmul__(x)

    f = Counted(f.G)
    stats = integrate(f, torch.ones(6, 2, dtype=torch.float64), [0.0, 1.0, 5.0, 5.5], Exponential()).stats
    assert stats.accepted == 3
    # The gradient looks at f and at G once before, and the check of `linear` too.
    assert products - 5 <= stats.nfe <= products
    assert (stats.rejected, stats.solves, stats.nfe_backward) == (0, 0, 0)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(angle=st.one_of(st.floats(1e-12, 9), st.floats(1, 400)), tol=st.floats(-17, -1).map(lambda p: 10.0**p))
def test_products_are_sufficient_and_not_wasteful(angle, tol):
    """Σ_{k > m} θ^k / k! ≤ tol / s with θ = angle / s, in 60 digits; two orders fewer would not do."""
    pieces, order = products(angle, tol)
    with localcontext() as context:
        context.prec = 60
        theta = Decimal(angle) / pieces

        def remainder(m):
            term, total = Decimal(1), Decimal(0)
            for k in range(1, m + 80):
                term = term * theta / k
                total += term if k > m else 0
            return total

        assert remainder(order) <= Decimal(tol) / pieces * Decimal("1.000001")
        assert order <= 2 or remainder(order - 2) > Decimal(tol) / pieces
        taylor = (theta.exp() - remainder(order)) ** pieces
        assert abs(taylor / Decimal(angle).exp() - 1) <= Decimal(tol) * Decimal("1.000001")
    assert theta <= 8


def test_products_are_chosen_quickly_for_any_angle():
    pieces, order = products(1e9, 1e-17)
    assert pieces * 8 >= 1e9
    assert order >= 8


def test_a_hopeless_angle_ends_in_the_budget(linear):
    f = linear(torch.tensor([[-1e8]], dtype=torch.float64))
    with pytest.raises(SolveError, match="budget of 1000 evaluations") as caught:
        integrate(f, torch.ones(1, 1, dtype=torch.float64), [0.0, 1.0], Exponential(max_nfe=1000))
    assert caught.value.status is Status.BUDGET


def test_a_looser_tolerance_is_cheaper_and_met(linear):
    G, x0 = skew(6, torch.float64), torch.ones(6, 2, dtype=torch.float64)
    exact = torch.linalg.matrix_exp(5 * G) @ x0
    loose, tight = (flow(linear, G, x0, [0.0, 5.0], tol=tol) for tol in (1e-4, None))
    assert loose.stats.nfe < 0.7 * tight.stats.nfe
    assert 1e-10 < float((loose.final - exact).norm()) <= 1e-4 * float(x0.norm())


def test_a_generator_of_zero_keeps_the_state_and_its_gradient(linear):
    G = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    x0 = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    x = flow(linear, G, x0, [0.0, 3.0]).final
    assert torch.equal(x, x0)
    x.sum().backward()
    assert torch.equal(G.grad, 3 * torch.ones(2, 1, dtype=torch.float64) @ x0.T)


@pytest.mark.parametrize("bound", [math.inf, float("nan")])
def test_a_generator_without_a_finite_bound_is_refused(linear, bound):
    f = linear(torch.eye(1))
    f.norm_bound = lambda: bound
    with pytest.raises(ValueError, match=f"norm_bound.*{bound}"):
        integrate(f, torch.ones(1, 1), [0.0, 1.0], Exponential())


@pytest.mark.parametrize("tol", [0.0, -1e-3, 1.0, float("nan")])
def test_bad_tolerances_are_refused(tol):
    with pytest.raises(ValueError, match=r"tol must lie in \(0, 1\), not"):
        Exponential(tol=tol)


# A linear part with a flow of its own ---------------------------------------------------------------------------------


@pytest.fixture
def rotation(linear):
    """dx/dt = ω J x, whose flow is a rotation by ω h; notes what it was asked."""

    class Rotation(linear):
        def __init__(self, omega):
            super().__init__(torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64))
            self.omega, self.asked = omega, []

        def __matmul__(self, x):
            return self.omega * super().__matmul__(x)

        def exponential(self, h, x, tolerance=None):
            self.asked.append((float(torch.as_tensor(h).detach()), tolerance))
            angle = torch.as_tensor(h * self.omega, dtype=torch.float64)
            turn = torch.stack([torch.cos(angle), -torch.sin(angle), torch.sin(angle), torch.cos(angle)]).reshape(2, 2)
            return turn @ x

    return Rotation


X2 = torch.tensor([[1.0], [0.5]], dtype=torch.float64)


def test_its_own_flow_is_used_forwards_and_backwards(rotation):
    f = rotation(torch.tensor(1e6, dtype=torch.float64))
    assert isinstance(f, ExactFlow)
    solution = integrate(f, X2, [0.0, 1.0, 3.0], Exponential(tol=1e-3))
    assert f.asked == [(1.0, 1e-3), (2.0, 1e-3)]
    assert solution.stats.nfe == 3  # Two flows, and one evaluation that looks for what f holds.
    back = integrate(f, solution.final, [3.0, 0.0], Exponential()).final
    assert float((back - X2).abs().max()) <= 1e-9
    assert f.asked[-1] == (-3.0, None)


def test_its_products_are_counted_and_refused_beforehand(rotation):
    f = rotation(torch.tensor(2.0, dtype=torch.float64))
    f.exponential_products = lambda h, tolerance: 10
    assert integrate(f, X2, [0.0, 1.0, 3.0], Exponential()).stats.nfe == 1 + 20
    f.asked.clear()
    with pytest.raises(SolveError, match="budget of 15"):
        integrate(f, X2, [0.0, 1.0, 3.0], Exponential(max_nfe=15))
    assert len(f.asked) == 1


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()])
@pytest.mark.parametrize("own", [True, False])
def test_gradients_in_generator_state_and_times(rotation, linear, gradient, own):
    J = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)

    def final(omega, x0, t):
        f = rotation(omega) if own else linear(omega * J)
        return integrate(f, x0, t, Exponential(gradient=gradient)).x[1:]

    omega = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    t = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64, requires_grad=True)
    inputs = (omega, X2.clone().requires_grad_(), t)
    assert torch.autograd.gradcheck(final, inputs)
    assert torch.autograd.gradgradcheck(final, inputs, fast_mode=True)


def test_a_flow_of_another_form_is_refused(rotation):
    f = rotation(torch.tensor(1.0, dtype=torch.float64))
    f.exponential = lambda h, x, tolerance=None: x.float()
    with pytest.raises(TypeError, match="must return a state like x"):
        integrate(f, X2, [0.0, 1.0], Exponential())


def test_a_linear_part_that_is_not_the_right_hand_side_is_refused(linear):
    f = linear(torch.eye(2, dtype=torch.float64))
    f.forward = lambda t, x: 2 * x
    with pytest.raises(ValueError, match="is not what"):
        integrate(f, X2, [0.0, 1.0], Exponential())


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    "solver", [None, Exponential(), CaratheodoryFejer(), ETDRK2(dt=0.5), ETDRK4(dt=0.5)], ids=lambda s: type(s).__name__
)
def test_long_steps_that_are_exact_are_exact_inside_too(linear, solver, grad):
    """Where a cubic between the ends of a step would miss e^(−50 s)."""
    f = linear(torch.diag(torch.tensor([-1.0, -50.0], dtype=torch.float64)))
    f.self_adjoint = True
    x0 = torch.ones(2, 1, dtype=torch.float64, requires_grad=grad)
    solution = integrate(f, x0, [0.0, 1.0, 1.5], solver, dense=True)
    for s in (0.0, 0.02, 0.9, 1.0, 1.3):
        when = torch.tensor(s, dtype=torch.float64, requires_grad=grad)
        x = solution.at(when)
        exact = torch.tensor([[math.exp(-s)], [math.exp(-50 * s)]], dtype=torch.float64)
        torch.testing.assert_close(x.detach(), exact, rtol=0, atol=3e-7)  # tol = 1e-7 of the rational ones
        if grad:
            slope, pull = torch.autograd.grad(x.sum(), (when, x0), retain_graph=True)
            assert float(slope) == pytest.approx(-math.exp(-s) - 50 * math.exp(-50 * s), abs=1e-3)  # λ times more
            torch.testing.assert_close(pull, exact, rtol=0, atol=3e-7)


def test_an_event_inside_a_long_exact_step(linear):
    f = linear(-torch.eye(1, dtype=torch.float64))
    x0 = torch.ones(1, 1, dtype=torch.float64)
    solution = integrate_until(f, x0, 0.0, lambda t, x: x[0, 0] - 0.25, Exponential(), limit=5.0)
    assert float(solution.t[-1]) == pytest.approx(math.log(4), abs=1e-9)
