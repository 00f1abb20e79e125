"""Radau IIA: Butcher conditions, the decoupled systems, stability function, error estimate, outputs inside steps."""

import cmath

import pytest
import torch

from integrators.integrate import integrate
from integrators.radau import BASIS, CUBIC, INVERSE, PAIR, REAL, A, C, D, E, RadauIIA5, T, shifted

Z = [-1e6, -17.0, -2.5, -1e-3, 0.0, 0.7, 1j, 20j, -1 + 2j]


def dot(u, v):
    return sum(p * q for p, q in zip(u, v, strict=True))


def R(z):
    return (1 + 2 * z / 5 + z**2 / 20) / (1 - 3 * z / 5 + 3 * z**2 / 20 - z**3 / 60)


class Scalar:
    """dx/dt = z x."""

    linear = property(lambda self: self)

    def __init__(self, z):
        self.z = z

    def __call__(self, t, x):
        return self.z * x

    __matmul__ = lambda self, x: self.z * x  # noqa: E731

    def norm_bound(self):
        return abs(self.z)

    def solve(self, s, b):
        return b / (1 - s * self.z)


def test_collocation_conditions():
    """Σ_j a_ij c_j^(k−1) = c_i^k / k for k ≤ 3, and Σ b_j c_j^(k−1) = 1/k for k ≤ 5."""
    for k in range(1, 4):
        for row, c in zip(A, C, strict=True):
            assert dot(row, [x ** (k - 1) for x in C]) == pytest.approx(c**k / k, abs=1e-15)
    for k in range(1, 6):
        assert dot(A[2], [x ** (k - 1) for x in C]) == pytest.approx(1 / k, abs=1e-15)


def test_the_transformation_diagonalises():
    matrix, right, left = (torch.tensor(m, dtype=torch.complex128) for m in (A, T, INVERSE))
    eigenvalues = torch.tensor([REAL, PAIR, PAIR.conjugate()], dtype=torch.complex128)
    assert torch.allclose(left @ torch.linalg.inv(matrix) @ right, torch.diag(eigenvalues), rtol=0, atol=1e-13)
    for value in (REAL, PAIR):
        assert abs(value**3 - 9 * value**2 + 36 * value - 60) <= 1e-12


@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
def test_decoupled_systems_solve_the_coupled_one(kind):
    generator = torch.Generator().manual_seed(0)
    G = torch.randn(4, 4, generator=generator, dtype=kind)
    V = torch.randn(3, 4, 2, generator=generator, dtype=kind)
    one = torch.eye(4, dtype=torch.float64)
    Y = shifted(lambda s, b: torch.linalg.solve((one - s * G).to(b.dtype), b), 0.3, tuple(V))
    matrix = torch.tensor(A, dtype=torch.float64).to(kind)
    residual = torch.stack(Y) - 0.3 * torch.einsum("ij,jnc->inc", matrix, G @ torch.stack(Y)) - V
    assert float(residual.abs().max()) <= 1e-13


@pytest.mark.parametrize("z", Z)
def test_stability_function(z):
    one = torch.ones(1, 1, dtype=torch.complex128)
    assert abs(complex(integrate(Scalar(z), one, [0.0, 1.0], RadauIIA5(dt=1.0)).final) - R(z)) <= 1e-12
    if abs(z) < 1e3:
        newton = integrate(lambda t, x: z * x, one, [0.0, 1.0], RadauIIA5(dt=1.0)).final
        assert abs(complex(newton) - R(z)) <= 1e-9


def test_it_is_l_stable():
    assert abs(R(-1e6)) <= 1e-5
    assert all(abs(R(1j * y)) <= 1 for y in (0.01, 0.1, 1.0, 3.0, 10.0, 1e3))


def test_the_estimate_bounds_the_error_on_the_negative_axis():
    for k in range(-30, 120):
        z = -(10 ** (k / 20))
        estimate = D * ((1 + dot(E, [y - 1 for y in stages(z)])) / (1 - z / REAL) - 1)
        assert abs(estimate) >= abs(R(z) - cmath.exp(z)) - 1e-14


def stages(z):
    matrix = torch.eye(3, dtype=torch.float64) - z * torch.tensor(A, dtype=torch.float64)
    return torch.linalg.solve(matrix, torch.ones(3, dtype=torch.float64)).tolist()


def test_the_estimate_is_of_order_four():
    def estimate(z):
        return (1 + dot(E, [y - 1 for y in stages(z)])) / (1 - z / REAL) - 1

    ratio = estimate(-0.2) / estimate(-0.1)
    assert 14 <= ratio <= 18


def test_outputs_inside_a_step_are_of_order_three(observed_order):
    f = lambda t, x: -x  # noqa: E731
    x0 = torch.ones(1, dtype=torch.float64)
    errors = []
    for h in (0.1, 0.05):
        solution = integrate(f, x0, [0.0, h], RadauIIA5(dt=h), dense=True)
        times = [torch.tensor(h * theta, dtype=torch.float64) for theta in (0.2, 0.4, 0.6, 0.8)]
        errors.append(max(float((solution.at(s) - torch.exp(-s)).abs()) for s in times))
    assert 3.9 <= observed_order(errors) <= 4.2


def test_the_basis_interpolates():
    for i, row in enumerate(BASIS):
        for j, c in enumerate(C):
            assert sum(w * c ** (k + 1) for k, w in enumerate(row)) == pytest.approx(float(i == j), abs=1e-13)


@pytest.mark.parametrize(("stiffness", "least", "most"), [(1.0, 4.9, 5.3), (1e6, 2.7, 3.4)])
def test_the_order_falls_where_a_forced_equation_is_stiff(stiffness, least, most, observed_order):
    """Prothero and Robinson 1974: the stages are of order 3, and the error O(h³/λ) once the equation is stiff."""
    f = lambda t, x: -stiffness * (x - torch.cos(t)) - torch.sin(t)  # noqa: E731
    x0 = torch.ones(1, dtype=torch.float64)
    exact = torch.cos(torch.tensor(1.0, dtype=torch.float64))
    first = 1 / 4 if stiffness == 1 else 1.0
    errors = [float((integrate(f, x0, [0.0, 1.0], RadauIIA5(dt=first / 2**k)).final - exact).abs()) for k in range(2)]
    assert least <= observed_order(errors) <= most


def test_outputs_of_a_forced_stiff_equation_follow_the_tolerance():
    """What the filtered estimate does not see, the θ³ term does."""
    f = lambda t, x: -1e6 * (x - torch.cos(t)) - torch.sin(t)  # noqa: E731
    t = torch.linspace(0, 3, 20, dtype=torch.float64)
    for rtol in (1e-3, 1e-5):
        x = integrate(f, torch.ones(1, dtype=torch.float64), t, RadauIIA5(rtol, rtol)).x[:, 0]
        assert float((x - torch.cos(t)).abs().max()) <= 50 * rtol
    assert CUBIC < D / 100


def test_a_real_and_a_complex_solve_a_step():
    f = Scalar(-1.0)
    kinds = []
    solve = f.solve
    f.solve = lambda s, b: kinds.append((s.is_complex(), b.is_complex())) or solve(s, b)
    integrate(f, torch.ones(1, 1, dtype=torch.float64), [0.0, 1.0], RadauIIA5(dt=0.5))
    assert kinds == [(False, False), (True, True)] * 2


def test_robertsons_reaction():
    """The components keep their sum, and agree with published values at t = 40 (Hairer and Wanner II, IV.10)."""

    def f(t, x):
        a, b, c = x.unbind(0)
        slow, back, fast = 0.04 * a, 1e4 * b * c, 3e7 * b * b
        return torch.stack([-slow + back, slow - back - fast, fast])

    x0 = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    x = integrate(f, x0, [0.0, 40.0], RadauIIA5(1e-6, 1e-10)).final
    assert torch.allclose(x, torch.tensor([0.7158270688, 9.185534764e-06, 0.2841637457], dtype=torch.float64), rtol=1e-5)
    assert float(x.sum()) == pytest.approx(1, abs=1e-7)
