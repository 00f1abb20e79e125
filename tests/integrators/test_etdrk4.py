"""Krogstad's method: order 4, a stiff Allen–Cahn equation against SciPy, and gradients."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from integrators import integrate
from integrators.caratheodory_fejer import phi
from integrators.checkpointed import Checkpointed
from integrators.etdrk4 import ETDRK4
from integrators.gradients import Direct

DOUBLE = torch.float64


class Semilinear(torch.nn.Module):
    """dx/dt = G x + N(t, x), with dense solves at real and complex shifts."""

    def __init__(self, G, rest, self_adjoint=None):
        super().__init__()
        self.G, self.rest = G, rest
        if self_adjoint is not None:
            self.self_adjoint = self_adjoint

    @property
    def linear(self):
        return self

    def nonlinear(self, t, x):
        return self.rest(t, x)

    def forward(self, t, x):
        return self @ x + self.rest(t, x)

    def __matmul__(self, x):
        return self.G @ x

    def norm_bound(self):
        return float(torch.linalg.matrix_norm(self.G.detach(), 2))

    def solve(self, shift, b):
        complex_valued = shift.is_complex() or b.is_complex() or self.G.is_complex()
        kind = b.dtype.to_complex() if complex_valued else b.dtype
        return torch.linalg.solve(torch.eye(len(self.G), dtype=kind) - shift.to(kind) * self.G.to(kind), b.to(kind))


def ring(n, stiffness):
    eye = torch.eye(n, dtype=DOUBLE)
    return stiffness * (eye.roll(1, 0) + eye.roll(-1, 0) - 2 * eye)


ROTATION = torch.tensor([[-1.0, 5.0], [-5.0, -0.5]], dtype=DOUBLE)
PROBLEMS = {
    "products": (Semilinear(ROTATION, lambda t, x: torch.sin(3 * t) * x / (1 + x**2)), 2),
    "poles": (Semilinear(ring(6, 3.0), lambda t, x: x - x**3 + torch.cos(2 * t), True), 6),
    "complex": (Semilinear(1j * ring(4, 3.0).to(torch.complex128), lambda t, x: -1j * x.abs() ** 2 * x + 0.1 * t * x), 4),
}


def starting(n, f):
    x0 = torch.sin(torch.arange(n, dtype=DOUBLE))[:, None]
    return x0 + 0.3j * x0.flip(0) if f.G.is_complex() else x0


@pytest.mark.parametrize(("f", "n"), PROBLEMS.values(), ids=PROBLEMS.keys())
@pytest.mark.parametrize("t", [[0.0, 1.0], [0.0, 0.25, 0.375, 1.0]], ids=["one output", "uneven outputs"])
def test_order(f, n, t, observed_order):
    x0 = starting(n, f)
    reference = integrate(f, x0, t, ETDRK4(dt=1 / 256, tol=2e-11)).final
    finals = [integrate(f, x0, t, ETDRK4(dt=dt, tol=2e-11)).final for dt in (1 / 16, 1 / 32)]
    errors = [float((x - reference).abs().max()) for x in finals]
    assert 3.9 <= observed_order(errors) <= 4.4


def test_order_conditions_hold_as_functions_of_z():
    """Σ b_i c_i^(k−1)/(k−1)! = φ_k for k ≤ 3, and Σ_j a_ij = c_i φ_1(c_i z), so that polynomial forces are solved exactly."""
    z = -np.array([0.0, 0.1, 1.0, 30.0])
    p1, p2, p3 = (phi(k, z) for k in (1, 2, 3))
    b = np.array([p1 - 3 * p2 + 4 * p3, 2 * p2 - 4 * p3, 2 * p2 - 4 * p3, 4 * p3 - p2])
    c = np.array([0.0, 0.5, 0.5, 1.0])
    for k, value in ((1, p1), (2, p2), (3, 2 * p3)):
        assert np.allclose((b * c[:, None] ** (k - 1)).sum(0), value, atol=1e-14)


def test_a_quadratic_force_is_solved_exactly():
    """N = t²: x' = G x + t² has the solution Σ 2 t³ φ_3(tG)."""
    G = -torch.diag(torch.tensor([0.0, 1.0, 1e3], dtype=DOUBLE))
    f = Semilinear(G, lambda t, x: t**2 + 0 * x, True)
    x = integrate(f, torch.zeros(3, 1, dtype=DOUBLE), [0.0, 1.0], ETDRK4(dt=0.25, tol=1e-10)).final
    exact = 2 * phi(3, torch.diagonal(G).numpy())
    assert np.allclose(x[:, 0].numpy(), exact, atol=1e-9)


def test_stiff_allen_cahn_against_scipy():
    n, stiffness = 40, 2000.0
    f = Semilinear(ring(n, stiffness), lambda t, x: 5 * (x - x**3), True)
    x0 = torch.sin(2 * torch.pi * torch.arange(n, dtype=DOUBLE) / n)[:, None] + 0.3
    G = f.G.numpy()
    reference = solve_ivp(
        lambda t, y: G @ y + 5 * (y - y**3), (0, 0.5), x0[:, 0].numpy(), method="Radau", rtol=1e-10, atol=1e-12,
        jac=lambda t, y: G + np.diag(5 - 15 * y**2),
    ).y[:, -1]  # fmt: skip
    solution = integrate(f, x0, [0.0, 0.5], ETDRK4(dt=0.005, tol=1e-10))
    assert float(np.abs(solution.final[:, 0].numpy() - reference).max()) <= 1e-6
    assert solution.stats.nfe == 1 + 4 * 100


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()])
@pytest.mark.parametrize("self_adjoint", [None, True])
def test_gradients(gradient, self_adjoint):
    def final(kappa, x0, t):
        f = Semilinear(kappa * ring(3, 1.0), lambda t, x: torch.sin(t) - kappa * x**3, self_adjoint)
        return integrate(f, x0, t, ETDRK4(dt=0.55, gradient=gradient)).x[1:]

    kappa = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
    x0 = torch.linspace(-1, 1, 3, dtype=DOUBLE)[:, None].requires_grad_()
    t = torch.tensor([0.0, 0.4, 1.0], dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(final, (kappa, x0, t), fast_mode=True)
    assert torch.autograd.gradgradcheck(final, (kappa, x0, t), fast_mode=True)


def test_tuples_of_states():
    """Each part is a field of its own; G acts on both."""

    class Pair:
        G = ROTATION

        @property
        def linear(self):
            return self

        def nonlinear(self, t, x):
            return -x[0] ** 3, torch.sin(t) * x[1]

        def __call__(self, t, x):
            a, b = self.nonlinear(t, x)
            return self.G @ x[0] + a, self.G @ x[1] + b

        def __matmul__(self, x):
            return self.G @ x[0], self.G @ x[1]

        def norm_bound(self):
            return float(torch.linalg.matrix_norm(self.G, 2))

        def solve(self, shift, b):
            raise NotImplementedError

    x0 = torch.tensor([[1.0], [0.5]], dtype=DOUBLE)
    pair = integrate(Pair(), (x0, x0), [0.0, 1.0], ETDRK4(dt=1 / 8)).final
    alone = integrate(Semilinear(ROTATION, lambda t, x: -(x**3)), x0, [0.0, 1.0], ETDRK4(dt=1 / 8)).final
    assert torch.allclose(pair[0], alone, atol=1e-13)


def test_four_evaluations_a_step_and_factors_for_two_lengths():
    f, n = PROBLEMS["poles"]
    stats = integrate(f, starting(n, f), [0.0, 1.0], ETDRK4(dt=0.25)).stats
    assert stats.nfe == 1 + 16
    assert stats.factorizations == 10
    assert stats.solves == 4 * 4 * 5
