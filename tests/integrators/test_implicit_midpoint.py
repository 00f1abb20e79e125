"""Implicit midpoint: order 2, A-stable, quadratic invariants kept, symplectic without separability, reversible."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from integrators import Checkpointed, Direct, Dopri5, SolveError, integrate
from integrators.implicit_midpoint import ImplicitMidpoint
from integrators.newton_krylov import NewtonKrylov

U = torch.finfo(torch.float64).eps / 2


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def test_order(problem, observed_order):
    solutions = [integrate(problem.f, problem.x0, [0.0, 1.0], ImplicitMidpoint(dt=2.0**-k)) for k in (4, 5, 6)]
    assert abs(observed_order([problem.error(s.t, s.x) for s in solutions]) - 2) <= 0.1


@pytest.mark.parametrize("t", [[0.0, 0.337, 0.341, 1.0], [1.0, 0.5, 0.2]], ids=["outputs off the grid", "reverse time"])
def test_order_of_linear_equations(t, linear, observed_order):
    G = torch.tensor([[-1.0, 4.0], [-4.0, -0.5]], dtype=torch.float64)
    exact = torch.linalg.matrix_exp((t[-1] - t[0]) * G) @ noise(2, 1)
    finals = [integrate(linear(G), noise(2, 1), t, ImplicitMidpoint(dt=2.0**-k)).final for k in (5, 6, 7)]
    errors = [float((x - exact).abs().max()) for x in finals]
    assert abs(observed_order(errors) - 2) <= 0.2


@pytest.mark.parametrize("z", [-2.5, -1e-3, 0.0, 0.7, -1e6, 1j, 1e3j, -1 + 2j])
def test_stability_function(z, linear):
    f = linear(torch.full((1, 1), z, dtype=torch.complex128))
    x = integrate(f, torch.ones(1, 1, dtype=torch.complex128), [0.0, 1.0], ImplicitMidpoint(dt=1.0)).final
    assert abs(complex(x) - (1 + z / 2) / (1 - z / 2)) <= 1e-12
    x = integrate(lambda t, x: z * x, torch.ones(1, 1, dtype=torch.complex128), [0.0, 1.0], ImplicitMidpoint(dt=1.0)).final
    assert abs(complex(x) - (1 + z / 2) / (1 - z / 2)) <= 1e-12


@pytest.mark.parametrize("complex_", [False, True], ids=["rotation", "Schroedinger"])
@pytest.mark.parametrize("h", [0.01, 10.0])
def test_the_norm_under_skew_generators(complex_, h, linear):
    """‖x‖ is kept to 16uk for steps of any length, with one factorization."""
    A = noise(12, 12)
    G = 1j * (A + A.T).to(torch.complex128) if complex_ else A - A.T
    x, k = noise(12, 2).to(G.dtype), 500
    solution = integrate(linear(G), x, [0.0, k * h], ImplicitMidpoint(dt=h))
    assert abs(float(solution.final.norm() / x.norm()) - 1) <= 16 * U * k
    assert solution.stats.factorizations == 1
    assert solution.stats.solves == k


def rigid_body(t, x):
    """Euler's equations: |x|² and the energy are kept."""
    return torch.linalg.cross(x, x / torch.tensor([1.0, 2.0, 3.0], dtype=x.dtype))


@pytest.mark.parametrize("newton", [None, NewtonKrylov(rtol=1e-15, dense=0)], ids=["dense", "Krylov"])
def test_quadratic_invariants_of_a_nonlinear_equation(newton):
    x, k = torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64), 150
    solver = ImplicitMidpoint(dt=0.1) if newton is None else ImplicitMidpoint(dt=0.1, newton=newton)
    y = integrate(rigid_body, x, [0.0, k * 0.1], solver).final
    moments = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert float((y - x).abs().max()) > 0.1
    assert abs(float((y**2).sum() / (x**2).sum()) - 1) <= 64 * U * k
    assert abs(float((y**2 / moments).sum() / (x**2 / moments).sum()) - 1) <= 64 * U * k


@given(st.floats(-1, 1).filter(lambda x: abs(x) > 1e-3), st.floats(-1, 1).filter(lambda x: abs(x) > 1e-3), st.floats(0.01, 0.5))
def test_symplectic_without_separability(q, p, h):
    """H = (q² + 1)(p² + 1)/2: JᵀΩJ = Ω."""

    def f(t, x):
        q, p = x
        return p * (q**2 + 1), -q * (p**2 + 1)

    def step(x):
        solver = ImplicitMidpoint(dt=h, gradient=Direct())
        return torch.cat(integrate(f, (x[:1], x[1:]), [0.0, h], solver).final)

    J = torch.autograd.functional.jacobian(step, torch.tensor([q, p], dtype=torch.float64))
    assert abs(float(torch.linalg.det(J)) - 1) <= 256 * U * (1 + float(J.abs().max())) ** 2


def test_back_again(linear):
    A, x, k, h = noise(6, 6), noise(6, 1), 200, 0.2
    for f, start in ((linear(A - A.T), x), (rigid_body, noise(3, seed=1))):
        there = integrate(f, start, [0.0, k * h], ImplicitMidpoint(dt=h)).final
        back = integrate(f, there, [k * h, 0.0], ImplicitMidpoint(dt=h)).final
        assert float((back - start).abs().max()) <= 64 * k * U * float(start.abs().max())
    assert ImplicitMidpoint.reversible


def test_turning_points_of_a_pendulum():
    """Where p passes zero, Newton's tolerance must not vanish with it; the energy does not drift."""
    x = (torch.tensor([[1.2]], dtype=torch.float64), torch.tensor([[0.0]], dtype=torch.float64))
    t = torch.arange(601, dtype=torch.float64) * 0.05
    q, p = integrate(lambda t, x: (x[1], -torch.sin(x[0])), x, t, ImplicitMidpoint(dt=0.05)).x
    energy = (p**2 / 2 + 1 - torch.cos(q)).flatten()
    deviation = (energy / energy[0] - 1).abs()
    assert float(deviation[300:].max()) <= 1.1 * float(deviation[:300].max()) <= 1e-3


def test_stiff_modes_stay_bounded_and_the_limit_is_not_damped(linear):
    """A-stable but not L-stable: R(−∞) = −1."""
    f = linear(torch.tensor([[-1e8]], dtype=torch.float64))
    x = integrate(f, torch.ones(1, 1, dtype=torch.float64), [0.0, 1.0, 2.0, 3.0], ImplicitMidpoint(dt=1.0)).x.flatten()
    assert torch.allclose(x, torch.tensor([1.0, -1, 1, -1], dtype=torch.float64), atol=1e-6)


def test_a_nonlinear_part_beside_a_linear_one(linear, observed_order):
    class Semilinear(linear):
        def nonlinear(self, t, x):
            return -(x**3) * torch.cos(t)

        def forward(self, t, x):
            return self @ x + self.nonlinear(t, x)

    L = 40 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    f, x = Semilinear(-L), torch.tensor([[1.0], [0.9]], dtype=torch.float64)
    exact = integrate(f, x, [0.0, 1.0], Dopri5(rtol=1e-10, atol=1e-12)).final
    errors = [float((integrate(f, x, [0.0, 1.0], ImplicitMidpoint(dt=2.0**-k)).final - exact).abs().max()) for k in (6, 7, 8)]
    assert abs(observed_order(errors) - 2) <= 0.1


def test_no_solution_is_typed():
    """x' = x² from 1 with h = 10: the step's equation has no real root."""
    with pytest.raises(SolveError, match="Newton's method did not converge"):
        integrate(lambda t, x: x**2, torch.ones(1, 1, dtype=torch.float64), [0.0, 10.0], ImplicitMidpoint(dt=10.0))


def test_bad_arguments():
    with pytest.raises(ValueError, match="dt must be positive"):
        ImplicitMidpoint(dt=-1.0)


def test_single_precision(linear):
    A, x = noise(6, 6), noise(6, 1)
    double = integrate(linear(A - A.T), x, [0.0, 1.0], ImplicitMidpoint(dt=0.05)).final
    single = integrate(linear((A - A.T).float()), x.float(), [0.0, 1.0], ImplicitMidpoint(dt=0.05)).final
    assert float((single - double).abs().max()) <= 20 * 64 * 2.0**-24
    one = integrate(lambda t, x: -torch.sin(x), x.float(), [0.0, 1.0], ImplicitMidpoint(dt=0.05)).final
    two = integrate(lambda t, x: -torch.sin(x), x, [0.0, 1.0], ImplicitMidpoint(dt=0.05)).final
    assert float((one - two).abs().max()) <= 20 * 64 * 2.0**-24


# -- Gradients


def leaf(value):
    return torch.as_tensor(value, dtype=torch.float64).clone().requires_grad_()


gradients = pytest.mark.parametrize("gradient", [Direct(), Checkpointed()], ids=str)


@gradients
def test_gradcheck_of_linear_equations(gradient, linear):
    def final(x, G, t):
        return integrate(linear(G), x, t, ImplicitMidpoint(dt=0.17, gradient=gradient)).x

    assert gradcheck(final, (leaf(noise(2, 1)), leaf(noise(2, 2)), leaf([0.0, 0.4, 1.0])), atol=1e-5, rtol=1e-3)


@gradients
def test_gradcheck_of_nonlinear_equations(gradient):
    def final(x, a, t):
        f = lambda s, x: (a * x[1] * (1 + x[0] ** 2), -a * x[0] + torch.sin(s))  # noqa: E731
        return integrate(f, (x[:1], x[1:]), t, ImplicitMidpoint(dt=0.17, gradient=gradient)).x

    assert gradcheck(final, (leaf(noise(2, 1)), leaf(0.7), leaf([0.0, 0.4, 1.0])), atol=1e-5, rtol=1e-3)


@gradients
def test_second_derivatives(gradient, linear):
    def linear_final(x, G):
        return integrate(linear(G), x, [0.0, 0.3], ImplicitMidpoint(dt=0.17, gradient=gradient)).final

    def nonlinear_final(x, a):
        return integrate(lambda s, x: a * x * (1 - x), x, [0.0, 0.3], ImplicitMidpoint(dt=0.17, gradient=gradient)).final

    assert gradgradcheck(linear_final, (leaf(noise(2, 1)), leaf(noise(2, 2))), atol=1e-5, rtol=1e-3)
    assert gradgradcheck(nonlinear_final, (leaf(noise(2, 1)), leaf(0.7)), atol=1e-5, rtol=1e-3)


def test_gradient_of_a_unitary_flow_keeps_its_norm(linear):
    """The transposed flow is unitary too."""
    A = noise(5, 5)
    x = noise(5, 1).requires_grad_()
    weight = noise(5, 1, seed=3)
    y = integrate(linear(A - A.T), x, [0.0, 20.0], ImplicitMidpoint(dt=0.1)).final
    (grad,) = torch.autograd.grad((y * weight).sum(), x)
    assert math.isclose(float(grad.norm()), float(weight.norm()), rel_tol=16 * U * 200)
