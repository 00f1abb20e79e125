"""Magnitudes of operators of every kind are those of their dense matrices."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from neuralpde.testing_entries import MOST_COLUMNS, accumulated, amplification, as_operator, magnitudes, weights_of
from operators import DomainError, Operator, cotangent_laplacian, edge_gradient, face_gradient, icosphere

L = cotangent_laplacian(icosphere(0))
GRADIENT = face_gradient(icosphere(0))


@pytest.mark.parametrize("A", [L, L.stiffness, GRADIENT, GRADIENT.divergence(), edge_gradient(L).adjoint()])
def test_magnitudes_and_weights_are_those_of_the_dense_matrix(A):
    dense = A.matrix().abs().numpy()
    np.testing.assert_allclose(magnitudes(A).toarray(), dense, rtol=1e-14, atol=1e-14)
    unit = torch.eye(A.shape[0], dtype=A.dtype)[..., None]
    assert torch.allclose(weights_of(A), A.inner(unit, unit).abs())


@pytest.mark.parametrize("kind", [lambda m: m, lambda m: m.to_sparse(), lambda m: m.numpy(), lambda m: sp.csr_array(m.numpy())])
def test_a_matrix_of_any_kind_is_an_operator(kind):
    matrix = torch.tensor([[1.0, -2.0], [0.0, 3.0]], dtype=torch.float64)
    assert torch.equal(as_operator(kind(matrix)).matrix(), matrix)


def test_what_is_no_matrix_is_refused():
    with pytest.raises(TypeError, match="Operator or a matrix"):
        as_operator("L")
    with pytest.raises(TypeError, match="two axes"):
        as_operator(torch.ones(3))


def test_a_black_box_of_too_many_columns_is_refused():
    class Large(Operator):
        shape = (1, MOST_COLUMNS + 1)

    with pytest.raises(DomainError, match="too many to look at each"):
        magnitudes(Large())


def test_accumulated_is_the_product_of_absolute_values():
    x = torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None]
    rows = accumulated(magnitudes(L), x)
    assert bool((rows >= L.matrix().abs() @ x.abs()).all())
    assert amplification(None) == 1.0
    assert amplification(icosphere(0)) < 3
