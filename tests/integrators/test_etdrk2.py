"""Exponential time differencing of order 2: order, exactness where it is promised, and gradients."""

import math

import pytest
import torch

from integrators import integrate
from integrators.checkpointed import Checkpointed
from integrators.etdrk2 import ETDRK2
from integrators.gradients import Direct

DOUBLE = torch.float64


class Semilinear(torch.nn.Module):
    """dx/dt = G x + N(t, x), with dense solves at real and complex shifts."""

    def __init__(self, G, rest, self_adjoint=None):
        super().__init__()
        self.G, self.rest = G, rest
        if self_adjoint is not None:
            self.self_adjoint = self_adjoint
        self.solves = 0

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
        self.solves += 1
        complex_valued = shift.is_complex() or b.is_complex() or self.G.is_complex()
        kind = b.dtype.to_complex() if complex_valued else b.dtype
        return torch.linalg.solve(torch.eye(len(self.G), dtype=kind) - shift.to(kind) * self.G.to(kind), b.to(kind))


def chain(n, stiffness):
    beside = torch.diag(torch.ones(n - 1, dtype=DOUBLE), 1)
    L = 2 * torch.eye(n, dtype=DOUBLE) - beside - beside.T
    L[0, 0] = L[-1, -1] = 1
    return -stiffness * L


ROTATION = torch.tensor([[-1.0, 5.0], [-5.0, -0.5]], dtype=DOUBLE)
PROBLEMS = {
    "products": (Semilinear(ROTATION, lambda t, x: torch.sin(3 * t) * x / (1 + x**2)), 2),
    "poles": (Semilinear(chain(6, 20.0), lambda t, x: x - x**3 + torch.cos(2 * t), True), 6),
    "complex": (Semilinear(1j * chain(4, 3.0).to(torch.complex128), lambda t, x: -1j * x.abs() ** 2 * x + 0.1 * t * x), 4),
}


def starting(n, f):
    x0 = torch.linspace(-1, 1, n, dtype=DOUBLE)[:, None]
    return x0 + 0.3j * x0.flip(0) if f.G.is_complex() else x0


@pytest.mark.parametrize(("f", "n"), PROBLEMS.values(), ids=PROBLEMS.keys())
@pytest.mark.parametrize("t", [[0.0, 1.0], [0.0, 0.3125, 0.34375, 1.0]], ids=["one output", "uneven outputs"])
def test_order(f, n, t, observed_order):
    x0 = starting(n, f)
    reference = integrate(f, x0, t, ETDRK2(dt=1 / 512, tol=1e-10)).final
    finals = [integrate(f, x0, t, ETDRK2(dt=dt, tol=1e-10)).final for dt in (1 / 32, 1 / 64)]
    errors = [float((x - reference).abs().max()) for x in finals]
    assert 1.9 <= observed_order(errors) <= 2.2


@pytest.mark.parametrize("self_adjoint", [None, True])
def test_a_linear_equation_is_solved_exactly(self_adjoint):
    G = chain(5, 50.0)
    f = Semilinear(G, None, self_adjoint)
    f.nonlinear = None
    f.rest = lambda t, x: 0 * x
    x0 = starting(5, f)
    for dt in (0.1, math.inf):
        x = integrate(f, x0, [0.0, 0.3, 1.0], ETDRK2(dt=dt, tol=1e-11)).final
        assert float((x - torch.linalg.matrix_exp(G) @ x0).abs().max()) <= 1e-9


def test_a_constant_force_is_solved_exactly_at_any_step():
    """N = b: φ_1 does it all, and x stays where G x + b = 0."""
    G = -torch.diag(torch.tensor([1.0, 1e2, 1e5], dtype=DOUBLE))
    b = torch.tensor([[1.0], [2.0], [3.0]], dtype=DOUBLE)
    f = Semilinear(G, lambda t, x: b + 0 * x, True)
    still = -torch.linalg.solve(G, b)
    x = integrate(f, still, [0.0, 5.0], ETDRK2(dt=0.5, tol=1e-9)).final
    assert float((x - still).abs().max()) <= 1e-7 * float(still.abs().max())
    moved = integrate(f, still + 1, [0.0, 1.0], ETDRK2(dt=0.5, tol=1e-9)).final
    assert float((moved - still - torch.linalg.matrix_exp(G) @ torch.ones(3, 1, dtype=DOUBLE)).abs().max()) <= 1e-7


def test_mass_is_kept():
    f = Semilinear(chain(6, 100.0), lambda t, x: x - x.mean(0), True)
    x0 = starting(6, f) + 1
    path = integrate(f, x0, torch.arange(6) / 5, ETDRK2(dt=0.05)).x
    # Constants are in the kernel, where r(0) = 1 to the tolerance.
    assert float((path.sum(1) - x0.sum(0)).abs().max()) <= 20 * 1e-7 * float(x0.abs().sum())


def test_two_evaluations_and_two_combinations_a_step():
    f = Semilinear(chain(6, 1.0), lambda t, x: -(x**3), True)
    stats = integrate(f, starting(6, f), [0.0, 1.0], ETDRK2(dt=0.25)).stats
    assert (stats.nfe, stats.accepted) == (1 + 8, 4)  # One to find what f reaches.
    assert stats.factorizations == 5
    assert stats.solves == 2 * 4 * 5


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()])
@pytest.mark.parametrize("self_adjoint", [None, True])
def test_gradients(gradient, self_adjoint):
    def final(kappa, x0, t):
        f = Semilinear(kappa * chain(3, 1.0), lambda t, x: torch.sin(t) - kappa * x**3, self_adjoint)
        return integrate(f, x0, t, ETDRK2(dt=0.35, gradient=gradient)).x[1:]

    kappa = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
    x0 = torch.linspace(-1, 1, 3, dtype=DOUBLE)[:, None].requires_grad_()
    t = torch.tensor([0.0, 0.4, 1.0], dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(final, (kappa, x0, t), fast_mode=True)
    assert torch.autograd.gradgradcheck(final, (kappa, x0, t), fast_mode=True)


def test_time_can_run_backwards_by_products_but_not_for_a_diffusion():
    f, n = PROBLEMS["complex"]
    x0 = starting(n, f)
    there = integrate(f, x0, [0.0, 1.0], ETDRK2(dt=1 / 256)).final
    assert float((integrate(f, there, [1.0, 0.0], ETDRK2(dt=1 / 256)).final - x0).abs().max()) <= 1e-3
    f, n = PROBLEMS["poles"]
    with pytest.raises(ValueError, match="ill-posed"):
        integrate(f, starting(n, f), [1.0, 0.0], ETDRK2(dt=0.1))


@pytest.mark.parametrize("kind", [torch.float32, torch.complex64])
def test_single_precision(kind):
    G = chain(4, 5.0)
    well = lambda t, x: x - x * x.abs() ** 2  # noqa: E731
    double, single = (
        integrate(Semilinear(G.to(k), well, True), torch.ones(4, 1, dtype=k), [0.0, 1.0], ETDRK2(dt=0.1)).final
        for k in (torch.complex128 if kind.is_complex else DOUBLE, kind)
    )
    assert single.dtype == kind
    assert float((single - double).abs().max()) <= 2e-5


def test_refusals():
    with pytest.raises(TypeError, match="ETDRK2 needs a linear part"):
        integrate(lambda t, x: -x, torch.ones(2, 1), [0.0, 1.0], ETDRK2(dt=0.1))
    wrong = Semilinear(chain(3, 1.0), lambda t, x: x)
    wrong.forward = lambda t, x: 2 * x
    with pytest.raises(ValueError, match="is not what"):
        integrate(wrong, torch.ones(3, 1, dtype=DOUBLE), [0.0, 1.0], ETDRK2(dt=0.1))
    with pytest.raises(ValueError, match=r"tol must lie in \(0, 1\)"):
        ETDRK2(dt=0.1, tol=0.0)
    with pytest.raises(ValueError, match="dt must be positive"):
        ETDRK2(dt=-1.0)
