"""Generators are skew in their inner product, so their flows keep the norm and the Rayleigh quotient."""

import cmath
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import assert_within, fields, graphs, meshes, roundoff
from operators import (
    DomainError,
    FieldError,
    SkewHermitian,
    SparseOperator,
    UnitaryGenerator,
    combinatorial_laplacian,
    icosphere,
    normalized_adjacency,
    normalized_laplacian,
    pad_channels,
    random_walk_laplacian,
    rayleigh_quotient,
    robust_laplacian,
    symmetric_laplacian,
    taylor_remainder,
    torus,
)

U = roundoff(torch.float64)
SELF_ADJOINT = st.one_of(
    graphs().map(random_walk_laplacian),
    graphs().map(combinatorial_laplacian),
    graphs().map(lambda graph: symmetric_laplacian(graph).complement()),
    graphs().map(lambda graph: normalized_adjacency(combinatorial_laplacian(graph))),
    meshes(slivers=False).map(robust_laplacian),
)


@pytest.mark.parametrize("complex_valued", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(width=st.integers(2, 6), scale=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_mixing_is_skew_hermitian_to_the_last_bit(complex_valued, dtype, width, scale, seed):
    torch.manual_seed(seed)
    W = SkewHermitian(width, complex_valued=complex_valued, scale=scale, dtype=dtype)()
    assert W.dtype == (dtype.to_complex() if complex_valued else dtype)
    assert torch.equal(W, -W.mH)
    assert W.abs().max() > 0


@pytest.mark.parametrize("complex_valued", [False, True])
@given(data=st.data())
def test_generator_is_skew_and_keeps_the_energy_of_its_operator(complex_valued, data):
    A = data.draw(SELF_ADJOINT)
    G = UnitaryGenerator(A, SkewHermitian(2, complex_valued=complex_valued, dtype=torch.float64))
    x, y = (data.draw(fields(A.shape[0], 2, dtype=torch.complex128)) for _ in range(2))
    size = G.norm_bound() * float(G.inner(x, x).real.sqrt() * G.inner(y, y).real.sqrt())
    assert_within(G.inner(x, G @ y) + G.inner(G @ x, y), 0.0, 64 * A.shape[0] * U * size)
    energy = 64 * A.shape[0] * U * G.norm_bound() * A.norm_bound() * float(G.inner(x, x).real)
    assert_within(G.inner(A @ x, G @ x).real, 0.0, energy)


@given(data=st.data())
def test_norm_bound_bounds_the_generator(data):
    A = data.draw(SELF_ADJOINT)
    G = UnitaryGenerator(A, SkewHermitian(3, dtype=torch.float64))
    x = data.draw(fields(A.shape[0], 3))
    norms = [G.inner(v, v).sqrt() for v in (G @ x, x)]
    assert norms[0] <= norms[1] * G.norm_bound() * (1 + 64 * A.shape[0] * U)


def test_exact_flow_keeps_norm_and_rayleigh_quotient():
    L = normalized_laplacian(robust_laplacian(icosphere(0)))
    W = SkewHermitian(4, scale=1.0, dtype=torch.float64)().detach()
    flow = torch.linalg.matrix_exp(torch.kron(L.matrix(), W.T.contiguous()))
    x = torch.randn(12, 4, dtype=torch.float64)
    y = (flow @ x.reshape(-1)).reshape(12, 4)
    derivative = UnitaryGenerator(L, SkewHermitian(4, dtype=torch.float64))
    assert not torch.allclose(x, y)
    assert_within(y.norm(), x.norm(), 48 * 32 * U * x.norm())
    assert_within(rayleigh_quotient(L, y), rayleigh_quotient(L, x), 48 * 64 * U)
    assert derivative.shape == (12, 12)


def test_gradients_reach_the_mixing():
    G = UnitaryGenerator(symmetric_laplacian(icosphere(0).graph()), SkewHermitian(2, dtype=torch.float64))
    (G @ torch.randn(12, 2, dtype=torch.float64)).square().sum().backward()
    assert (G.mixing.V.grad.abs().sum()) > 0


def test_on_shares_the_mixing_and_moves_the_operator():
    G = UnitaryGenerator(robust_laplacian(icosphere(0)), SkewHermitian(2, dtype=torch.float64))
    moved = G.on(torus(8, 6))
    assert moved.mixing.V is G.mixing.V
    assert moved.shape == (48, 48)
    assert G.shape == (12, 12)
    assert (moved @ torch.ones(48, 2, dtype=torch.float64)).shape == (48, 2)


def test_bad_input_is_refused_with_the_cure():
    A = robust_laplacian(icosphere(0))
    x = torch.ones(12, 3, dtype=torch.float64)
    with pytest.raises(FieldError, match=r"3 channels but W acts on 2: pad with pad_channels\(x, 2\)"):
        UnitaryGenerator(A, SkewHermitian(2, dtype=torch.float64)) @ x
    with pytest.raises(FieldError, match=r"flow of a real field is complex: pass x\.to"):
        UnitaryGenerator(A, SkewHermitian(3, complex_valued=True, dtype=torch.float64)) @ x
    zero = torch.tensor([0])
    with pytest.raises(DomainError, match="needs a square operator"):
        UnitaryGenerator(SparseOperator.from_entries(zero, zero, torch.ones(1), (1, 2)), SkewHermitian(2))
    with pytest.raises(DomainError, match="width must be at least 1, not 0"):
        SkewHermitian(0)
    with pytest.raises(DomainError, match=r"width 1 is zero.*pad the field or use complex"):
        SkewHermitian(1)
    assert SkewHermitian(1, complex_valued=True)().real == 0
    with pytest.raises(FieldError, match="3 channels, more than the width 2 to pad to"):
        pad_channels(x, 2)


@given(data=st.data(), extra=st.integers(0, 3))
def test_padding_keeps_the_field_the_norm_and_the_rayleigh_quotient(data, extra):
    """Bitwise where sums are exact; elsewhere up to the order of summation."""
    L = data.draw(graphs(weights=["ones"]).map(combinatorial_laplacian))
    exact, rough = data.draw(fields(L.shape[0], 2, exact=True)) + 8.125, data.draw(fields(L.shape[0], 2)) + 0.1
    for x, tolerance in ((exact, 0.0), (rough, 16 * L.shape[0] * U)):
        padded = pad_channels(x, 2 + extra)
        assert torch.equal(padded[:, :2], x)
        assert (padded[:, 2:] == 0).all()
        assert_within(L.inner(padded, padded), L.inner(x, x), tolerance * L.inner(x, x))
        if x.abs().max() > 0:
            assert_within(rayleigh_quotient(L, padded), rayleigh_quotient(L, x), tolerance * L.norm_bound())


@given(angle=st.floats(0, 8), order=st.integers(0, 12))
def test_taylor_remainder_bounds_the_true_remainder(angle, order):
    partial = sum((1j * angle) ** k / math.factorial(k) for k in range(order + 1))
    assert abs(cmath.exp(1j * angle) - partial) <= taylor_remainder(angle, order) * (1 + 64 * U) + 64 * U * math.exp(
        angle
    )


@given(angle=st.floats(1e-3, 20), order=st.integers(0, 30))
def test_taylor_remainder_is_its_formula(angle, order):
    assert taylor_remainder(angle, order) == pytest.approx(angle ** (order + 1) / math.factorial(order + 1), rel=1e-12)


def test_taylor_remainder_at_the_ends_of_its_range():
    assert taylor_remainder(0.0, 3) == 0
    assert taylor_remainder(1e6, 1000) == math.inf
    assert taylor_remainder(1.0, 10_000) == 0
    for angle, order in ((-1.0, 2), (1.0, -1)):
        with pytest.raises(ValueError, match="must not be negative"):
            taylor_remainder(angle, order)


def test_a_cast_keeps_the_imaginary_part():
    mixing = SkewHermitian(3, complex_valued=True)
    before = mixing().detach().clone()
    mixing.to(torch.float64)
    assert mixing.V.dtype == torch.complex128
    # A sum in single precision, and the same in double.
    assert torch.allclose(mixing().detach(), before.to(torch.complex128), atol=1e-7)
    assert SkewHermitian(2).to(torch.float64).V.dtype == torch.float64
