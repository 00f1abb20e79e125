"""The Lie unitary layer: exact, truncated, and movable."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import fields, graphs, roundoff
from operators import (
    DomainError,
    FieldError,
    combinatorial_laplacian,
    icosphere,
    normalized_adjacency,
    normalized_laplacian,
    random_walk_laplacian,
    rayleigh_quotient,
    robust_laplacian,
    symmetric_laplacian,
    torus,
)
from operators.lie_unitary import LieUnitary

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
COMPLEX = pytest.mark.parametrize("complex_valued", [False, True])
SELF_ADJOINT = st.one_of(
    graphs(max_nodes=12).map(random_walk_laplacian),
    graphs(max_nodes=12).map(lambda graph: symmetric_laplacian(graph).complement()),
    graphs(max_nodes=12).map(lambda graph: normalized_adjacency(combinatorial_laplacian(graph))),
)


def sphere_adjacency(dtype=torch.float64):
    return normalized_laplacian(robust_laplacian(icosphere(1))).to(dtype).complement()


def layer_on(A, width, **how):
    torch.manual_seed(0)
    return LieUnitary(A, width, scale=1.0, **how)


def reference(layer, x):
    """exp(A ⊗ W) by the dense matrix, in float64."""
    A = layer.operator.matrix()
    W = layer.mixing().detach()
    whole = torch.linalg.matrix_exp(torch.kron(A.to(W.dtype), W.mT.contiguous()))
    return (whole @ x.to(W.dtype).flatten(-2)[..., None])[..., 0].reshape(x.shape)


@COMPLEX
@settings(max_examples=25)
@given(data=st.data())
def test_exact_layer_is_the_matrix_exponential(complex_valued, data):
    A = data.draw(SELF_ADJOINT)
    layer = layer_on(A, 2, complex_valued=complex_valued)
    x = data.draw(fields(A.shape[0], 2, dtype=torch.float64))
    y = layer(x).detach()
    assert y.is_complex() == complex_valued
    # Both errors grow with the angle.
    tolerance = 1e-13 * A.shape[0] * (1 + layer.generator.norm_bound()) * float(1 + x.norm())
    torch.testing.assert_close(y, reference(layer, x), rtol=0.0, atol=tolerance)


@DTYPES
@COMPLEX
@settings(max_examples=25)
@given(data=st.data())
def test_exact_layer_keeps_norm_and_energy(dtype, complex_valued, data):
    A = data.draw(SELF_ADJOINT).to(dtype)
    layer = layer_on(A, 3, complex_valued=complex_valued)
    x = data.draw(fields(A.shape[0], 3, dtype=dtype))
    y, wide = layer(x).detach(), A.to(torch.float64)
    x, y = x.to(torch.complex128), y.to(torch.complex128)
    before, after = wide.inner(x, x).real, wide.inner(y, y).real
    tolerance = 64 * (A.shape[0] + 8) * roundoff(dtype) * (1 + layer.generator.norm_bound())
    assert float((after - before).abs()) <= tolerance * float(before)
    energy = wide.inner(y, wide(y)).real - wide.inner(x, wide(x)).real
    assert float(energy.abs()) <= tolerance * max(wide.norm_bound(), 1e-30) * float(before)


@COMPLEX
@pytest.mark.parametrize("order", [0, 1, 3, 10])
def test_truncated_layer_stays_within_its_bound(complex_valued, order):
    A = sphere_adjacency()
    layer = layer_on(A, 4, complex_valued=complex_valued, order=order)
    exact = LieUnitary(A, 4, complex_valued=complex_valued)
    exact.load_state_dict(layer.state_dict())
    x = torch.randn(3, A.shape[0], 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    error = (layer(x) - exact(x)).norm() / x.norm()
    assert 0 < float(error.detach()) <= layer.remainder_bound()
    assert exact.remainder_bound() == 0


def test_a_truncated_layer_loses_the_rayleigh_quotient_and_an_exact_one_does_not():
    laplacian = normalized_laplacian(robust_laplacian(icosphere(1)))
    x = torch.randn(laplacian.shape[0], 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    drifts = []
    for order in (3, None):
        y = layer_on(laplacian.complement(), 4, order=order)(x).detach()
        drifts.append(abs(float(rayleigh_quotient(laplacian, y) - rayleigh_quotient(laplacian, x))))
    assert drifts[0] > 1e-3
    assert drifts[1] < 1e-14


@pytest.mark.parametrize("order", [None, 4])
@COMPLEX
def test_the_input_is_never_written_to(order, complex_valued):
    # The published layers add to it in place, so that x + f(x) is 2 f(x).
    A = sphere_adjacency()
    layer = layer_on(A, 2, complex_valued=complex_valued, order=order)
    x = torch.ones(A.shape[0], 2, dtype=torch.complex128 if complex_valued else torch.float64)
    before = x.clone()
    residual = x + layer(x)
    assert torch.equal(x, before)
    torch.testing.assert_close(residual, before + layer(before), rtol=0.0, atol=0.0)


@pytest.mark.parametrize("order", [None, 3])
@COMPLEX
def test_gradcheck(order, complex_valued):
    A = symmetric_laplacian(torus(4, 3).graph()).complement()
    layer = layer_on(A, 2, complex_valued=complex_valued, order=order)
    x = torch.randn(A.shape[0], 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()

    def real_parts(x, V):
        y = torch.func.functional_call(layer, {"mixing.V": V}, (x,))
        return torch.view_as_real(y) if y.is_complex() else y

    assert torch.autograd.gradcheck(real_parts, (x, layer.mixing.V))


def test_it_moves_with_its_parameters():
    layer = layer_on(sphere_adjacency(), 4)
    other = layer.on(torus(6, 5))
    assert other.operator.shape == (30, 30)
    assert other.mixing.V is layer.mixing.V
    A = normalized_adjacency(robust_laplacian(icosphere(0)))
    assert layer.over(A).operator is A
    assert layer.over(A).mixing.V is layer.mixing.V
    assert layer.operator.shape == (42, 42)


@COMPLEX
def test_casts_copies_and_pickles(complex_valued):
    layer = layer_on(sphere_adjacency(), 2, complex_valued=complex_valued)
    x = torch.randn(42, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    y = layer(x)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(twin(x), y, rtol=0.0, atol=0.0)
    single = copy.deepcopy(layer).to(torch.float32)
    assert single.mixing.V.dtype == (torch.complex64 if complex_valued else torch.float32)
    torch.testing.assert_close(single(x.float()).to(y.dtype), y, rtol=1e-5, atol=1e-5)


def test_what_does_not_fit_is_said():
    A = sphere_adjacency()
    layer = LieUnitary(A, 2)
    with pytest.raises(FieldError, match="1 channels but W acts on 2: pad with"):
        layer(torch.zeros(42, 1, dtype=torch.float64))
    with pytest.raises(FieldError, match=r"must have shape \(..., 42, 2\)"):
        layer(torch.zeros(41, 2, dtype=torch.float64))
    with pytest.raises(FieldError, match="nothing is converted silently"):
        layer(torch.zeros(42, 2))
    with pytest.raises(DomainError, match="order must not be negative"):
        LieUnitary(A, 2, order=-1)
    with pytest.raises(DomainError, match="width 1 is zero"):
        LieUnitary(A, 1)
