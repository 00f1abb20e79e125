"""The rational exponential is within its tolerance of exp for any stiffness, and exact in its gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from integrators import SolveError, integrate
from integrators.caratheodory_fejer import DEGREES, CaratheodoryFejer, degree_for, fitted, phi
from integrators.checkpointed import Checkpointed
from integrators.gradients import Direct

DOUBLE = torch.float64


@pytest.fixture
def diffusion(linear):
    """dx/dt = −κ L x with a dense symmetric L, which says that it is self-adjoint, and counts what it factors."""

    class Diffusion(linear):
        self_adjoint = True

        def __init__(self, L, kappa=1.0):
            super().__init__(-kappa * L)
            self.shifts = []

        def solve(self, shift, b):
            self.shifts.append(complex(shift.detach()))
            kind = torch.promote_types(torch.promote_types(shift.dtype, self.G.dtype), torch.float64)
            wide = torch.promote_types(kind, b.dtype)
            A = torch.eye(len(self.G), dtype=wide) - shift.to(wide) * self.G.to(wide)
            y = torch.linalg.solve(A, b.to(wide))
            single = b.dtype in (torch.float32, torch.complex64)
            return y.to((torch.complex64 if wide.is_complex else torch.float32) if single else wide)

    return Diffusion


def spectrum(values, seed=0):
    """A symmetric matrix with these eigenvalues."""
    n = len(values)
    Q = torch.linalg.qr(torch.randn(n, n, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed)))[0]
    return (Q * torch.as_tensor(values, dtype=DOUBLE)) @ Q.T


STIFF = spectrum([0.0, 1e-3, 0.1, 1.0, 7.0, 40.0, 1e3, 1e6])


@pytest.mark.parametrize("degree", DEGREES)
def test_the_error_is_the_known_one(degree):
    """Halphen's constant: E_n ~ 0.656 · 9.28903^(−n − ½)·... within a few per cent from n = 3; tabulated by Cody et al. 1969."""
    known = {2: 7.36e-3, 3: 7.99e-4, 4: 8.65e-5, 5: 9.35e-6, 6: 1.01e-6, 7: 1.09e-7, 8: 1.17e-8, 9: 1.26e-9, 10: 1.36e-10}
    fit = fitted(degree)
    expected = known.get(degree, 1.36e-10 * 9.28903 ** (10 - degree))
    assert fit.errors[0] == pytest.approx(expected, rel=0.05, abs=3e-14)
    # On points of its own, finer and elsewhere.
    z = -np.logspace(-8, 8, 3001)
    for k in range(4):
        simple = 1 / (1 - z[:, None] / np.array(fit.poles))
        r = (np.where(np.imag(fit.poles) > 0, 2, 1) * (fit.weights[k] * simple).real).sum(1) + (fit.constant if k == 0 else 0)
        scale = 1.0 if k == 0 else 1 - z
        assert float((np.abs(r - phi(k, z)) * scale).max()) <= fit.errors[k] * 1.001 + 2e-14


def test_phi_functions_are_their_integrals():
    z = -np.array([0.0, 1e-8, 0.3, 0.999, 1.001, 5.0, 60.0, 1e5])
    s, w = np.polynomial.legendre.leggauss(200)
    s, w = (s + 1) / 2, w / 2
    for k in (1, 2, 3):
        integral = (w * np.exp((1 - s) * z[:-1, None]) * s ** (k - 1) / math.factorial(k - 1)).sum(1)
        assert np.allclose(phi(k, z)[:-1], integral, rtol=1e-12, atol=0)
        assert phi(k, z)[-1] == pytest.approx(1e-5 / math.factorial(k - 1), rel=1e-4)


@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-6, 1e-9, 1e-12])
@pytest.mark.parametrize("T", [1e-4, 1.0, 1e3])
def test_the_tolerance_is_kept_whatever_the_stiffness(diffusion, tol, T):
    x0 = torch.linspace(-1, 1, 16, dtype=DOUBLE).reshape(8, 2)
    f = diffusion(STIFF)
    solution = integrate(f, x0, [0.0, T], CaratheodoryFejer(tol=tol))
    exact = torch.linalg.matrix_exp(-T * STIFF) @ x0
    # Round-off in a matrix of norm 10⁶ moves its eigenvalues, in the reference as well.
    assert float((solution.final - exact).norm()) <= (tol + 8 * torch.finfo(DOUBLE).eps * 1e6 * T) * float(x0.norm())
    # Half of the poles: a pair costs one complex solve.
    degree = degree_for(tol, DOUBLE, (0,))
    assert solution.stats.solves == solution.stats.factorizations == len(f.shifts) == (degree + 1) // 2


def test_four_and_seven_poles_at_a_thousandth_and_a_millionth():
    assert degree_for(1e-4, DOUBLE, (0,)) == 4
    assert degree_for(1e-3, DOUBLE, (0,)) == 3
    assert degree_for(1e-6, DOUBLE, (0,)) == 7


@settings(max_examples=30, deadline=None, derandomize=True)
@given(values=st.lists(st.floats(0, 1e8), min_size=1, max_size=6), tol=st.sampled_from([1e-3, 1e-7]), h=st.floats(1e-6, 10))
def test_any_spectrum_on_the_negative_axis(values, tol, h):
    fit = fitted(degree_for(tol, DOUBLE, (0,)))
    z = -h * np.array(values)
    simple = 1 / (1 - z[:, None] / np.array(fit.poles))
    r = (np.where(np.imag(fit.poles) > 0, 2, 1) * (fit.weights[0] * simple).real).sum(1) + fit.constant
    assert float(np.abs(r - np.exp(z)).max()) <= tol


def test_even_outputs_share_their_factors_and_errors_add_up(diffusion):
    x0 = torch.ones(8, 1, dtype=DOUBLE)
    f = diffusion(STIFF)
    t = torch.arange(6, dtype=DOUBLE) / 4
    solution = integrate(f, x0, t, CaratheodoryFejer(tol=1e-6))
    assert solution.stats.factorizations == 4
    assert solution.stats.solves == 4 * 5
    for s, x in zip(t, solution.x, strict=True):
        assert float((x - torch.linalg.matrix_exp(-s * STIFF) @ x0).norm()) <= 5e-6 * float(x0.norm())


@pytest.mark.parametrize(("kind", "factors"), [(DOUBLE, 4), (torch.complex128, 7)])
def test_the_linear_part_is_told_how_many_factors_to_keep(diffusion, kind, factors):
    f, told = diffusion(STIFF.to(kind)), []
    f.keep_factors = told.append
    stats = integrate(f, torch.ones(8, 1, dtype=kind), [0.0, 1.0, 2.0], CaratheodoryFejer()).stats
    assert told == [factors]
    assert stats.factorizations == factors


def test_linear_semigroup_and_contraction(diffusion):
    x, y = torch.randn(2, 8, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    flow = lambda x, h: integrate(diffusion(STIFF), x, [0.0, h], CaratheodoryFejer(tol=1e-10)).final  # noqa: E731
    assert float((flow(2 * x - y, 0.3) - 2 * flow(x, 0.3) + flow(y, 0.3)).norm()) <= 1e-12
    assert float((flow(flow(x, 0.3), 0.3) - flow(x, 0.6)).norm()) <= 3e-10 * float(x.norm())
    assert float(flow(x, 0.3).norm()) <= (1 + 1e-10) * float(x.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.complex128])
def test_other_precisions_and_complex_states(diffusion, dtype):
    x0 = torch.randn(8, 2, dtype=dtype, generator=torch.Generator().manual_seed(0))
    L = spectrum([0.0, 0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
    solution = integrate(diffusion(L.to(dtype)), x0, [0.0, 0.5], CaratheodoryFejer(tol=2e-6))
    assert solution.final.dtype == dtype
    exact = torch.linalg.matrix_exp(-0.5 * L).to(torch.complex128) @ x0.to(torch.complex128)
    slack = 4e-6 if x0.real.dtype == torch.float32 else 2e-6
    assert float((solution.final.to(torch.complex128) - exact).norm()) <= slack * float(x0.norm())


def test_a_hermitian_operator(diffusion):
    A = torch.randn(5, 5, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    L = A @ A.mH
    x0 = torch.ones(5, 1, dtype=torch.complex128)
    x = integrate(diffusion(L), x0, [0.0, 0.7], CaratheodoryFejer(tol=1e-10)).final
    assert float((x - torch.linalg.matrix_exp(-0.7 * L) @ x0).norm()) <= 1e-10 * float(x0.norm())


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()])
def test_gradients_in_operator_state_and_times(diffusion, gradient):
    L = spectrum([0.0, 0.5, 3.0])

    def final(kappa, x0, t):
        f = diffusion(L, kappa)
        return integrate(f, x0, t, CaratheodoryFejer(tol=1e-8, gradient=gradient)).x[1:]

    kappa = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
    x0 = torch.randn(3, 1, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    t = torch.tensor([0.0, 0.4, 1.0], dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(final, (kappa, x0, t))
    assert torch.autograd.gradgradcheck(final, (kappa, x0, t), fast_mode=True)


def test_what_makes_no_sense_is_refused(diffusion, linear):
    x0 = torch.ones(8, 1, dtype=DOUBLE)
    with pytest.raises(TypeError, match="self_adjoint = True"):
        integrate(linear(-STIFF), x0, [0.0, 1.0], CaratheodoryFejer())
    f = diffusion(STIFF)
    with pytest.raises(ValueError, match="ill-posed"):
        integrate(f, x0, [1.0, 0.0], CaratheodoryFejer())
    with pytest.raises(ValueError, match="below what rational approximations reach"):
        integrate(f, x0, [0.0, 1.0], CaratheodoryFejer(tol=1e-15))
    f.self_adjoint = False
    with pytest.raises(TypeError, match="use Exponential"):
        integrate(f, x0, [0.0, 1.0], CaratheodoryFejer())
    for tol in (0.0, -1.0, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"tol must lie in \(0, 1\)"):
            CaratheodoryFejer(tol=tol)


def test_a_spent_budget_is_typed(diffusion):
    with pytest.raises(SolveError, match="budget of 3 linear solves"):
        integrate(diffusion(STIFF), torch.ones(8, 1, dtype=DOUBLE), [0.0, 1.0], CaratheodoryFejer(max_nfe=3))
