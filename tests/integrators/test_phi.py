"""Σ φ_k(hG) v_k, by poles and by products, is that of the augmented matrix exponential."""

import math

import pytest
import torch

from integrators.caratheodory_fejer import fitted
from integrators.integrator import CountedRightHandSide, Split
from integrators.phi import RationalPhi, TaylorPhi, phi_functions
from integrators.solution import Statistics

DOUBLE = torch.float64


class Part:
    """G as a linear part, dense, whose solves take complex shifts."""

    def __init__(self, G, self_adjoint=None):
        self.G = G
        if self_adjoint is not None:
            self.self_adjoint = self_adjoint

    def __matmul__(self, x):
        return self.G @ x

    def norm_bound(self):
        return float(torch.linalg.matrix_norm(self.G, 2))

    def solve(self, shift, b):
        complex_valued = shift.is_complex() or b.is_complex() or self.G.is_complex()
        kind = b.dtype.to_complex() if complex_valued else b.dtype
        return torch.linalg.solve(torch.eye(len(self.G), dtype=kind) - shift.to(kind) * self.G.to(kind), b.to(kind))


class Semilinear:
    def __init__(self, G, self_adjoint=None):
        self.linear = Part(G, self_adjoint)

    def __call__(self, t, x):
        return self.linear @ x


def split(G, x, self_adjoint=None):
    return Split(CountedRightHandSide(Semilinear(G, self_adjoint), x, Statistics(), 10_000), "ETDRK2")


def exact(G, h, vectors):
    """By one exponential of [[hG, V], [0, J]], whose last column block shifts (Al-Mohy and Higham 2011, theorem 2.1)."""
    n, c, p = len(G), vectors[0].shape[1], len(vectors) - 1
    columns = []
    for k in range(c):
        wide = vectors[0].dtype
        big = torch.zeros(n + p, n + p, dtype=wide)
        big[:n, :n] = h * G
        for j in range(p):
            big[:n, n + j] = vectors[p - j][:, k]
            if j + 1 < p:
                big[n + j, n + j + 1] = 1
        start = torch.zeros(n + p, dtype=wide)
        start[:n] = vectors[0][:, k]
        if p:
            start[-1] = 1
        columns.append((torch.linalg.matrix_exp(big) @ start)[:n])
    return torch.stack(columns, 1)


def vectors_like(n, p, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 2, dtype=dtype, generator=generator) for _ in range(p + 1)]


@pytest.mark.parametrize("p", [0, 1, 2, 3])
@pytest.mark.parametrize("h", [0.0, 0.01, 0.7, -0.7, 5.0])
@pytest.mark.parametrize("dtype", [DOUBLE, torch.complex128])
def test_taylor_products_for_any_matrix(p, h, dtype):
    G = torch.randn(5, 5, dtype=dtype, generator=torch.Generator().manual_seed(1))
    v = vectors_like(5, p, dtype)
    way = phi_functions(split(G, v[0]), v[0], 3, 1e-7)
    assert isinstance(way, TaylorPhi)
    expected = exact(G, h, v)
    assert float((way.combined(h, v) - expected).norm()) <= 1e-13 * math.exp(abs(h) * way.bound)


@pytest.mark.parametrize("p", [0, 1, 2, 3])
@pytest.mark.parametrize("h", [0.0, 0.01, 0.7, 100.0])
@pytest.mark.parametrize("dtype", [DOUBLE, torch.complex128])
@pytest.mark.parametrize("tol", [1e-4, 1e-8, 1e-11])
def test_poles_for_a_stiff_diffusion(p, h, dtype, tol):
    Q = torch.linalg.qr(torch.randn(6, 6, dtype=dtype, generator=torch.Generator().manual_seed(2)))[0]
    G = -(Q * torch.tensor([0.0, 1e-3, 0.5, 3.0, 20.0, 500.0])) @ Q.mH
    v = vectors_like(6, p, dtype)
    f = split(G, v[0], self_adjoint=True)
    way = phi_functions(f, v[0], 3, tol)
    assert isinstance(way, RationalPhi)
    size = sum(float(part.norm()) for part in v)
    assert float((way.combined(h, v) - exact(G, h, v)).norm()) <= (tol + 1e-15 * (1 + 500 * h)) * size
    poles = way.fit.poles
    half, whole = len(poles), sum(2 if pole.imag else 1 for pole in poles)
    assert f.stats.solves == (half if dtype == DOUBLE else whole)


def test_a_steady_state_of_a_stiff_diffusion_stays():
    """e^(hG) u + h φ_1(hG) N = u where G u + N = 0: the errors of φ_1 are small against 1/(1 + |z|)."""
    G = -torch.diag(torch.tensor([1e-3, 1.0, 1e3, 1e6], dtype=DOUBLE))
    u = torch.ones(4, 1, dtype=DOUBLE)
    way = RationalPhi(split(G, u, self_adjoint=True), fitted(10))
    for h in (0.01, 1.0, 100.0):
        assert float((way.combined(h, [u, -h * (G @ u)]) - u).abs().max()) <= 2 * (way.fit.errors[0] + way.fit.errors[1])


def test_an_undeclared_or_other_part_takes_products():
    u = torch.ones(2, 1, dtype=DOUBLE)
    G = -torch.eye(2, dtype=DOUBLE)
    for declared in (None, False):
        assert isinstance(phi_functions(split(G, u, declared), u, 2, 1e-7), TaylorPhi)


def test_single_precision_asks_for_no_more_than_it_can_have():
    u = torch.ones(2, 1)
    way = phi_functions(split(-torch.eye(2), u, True), u, 3, 1e-12)
    assert isinstance(way, RationalPhi)
    y = way.combined(1.0, [u, u, u, u])
    assert y.dtype == torch.float32
    e = math.exp(-1)
    assert float((y - (e + (1 - e) + e + (0.5 - e))).abs().max()) <= 1e-5


def test_a_part_without_a_finite_bound_is_refused():
    u = torch.ones(2, 1, dtype=DOUBLE)
    f = split(torch.eye(2, dtype=DOUBLE), u)
    f.linear.norm_bound = lambda: math.nan
    with pytest.raises(ValueError, match="norm_bound"):
        phi_functions(f, u, 2, 1e-7)
