"""Pairs given as operators, matrices, builders and builders of pairs."""

import pytest
import torch

from neuralpde.testing_adjoint import assert_adjoint_pair
from neuralpde.testing_measured import LawBrokenError
from neuralpde.testing_search import Search
from operators import TriangleMesh, edge_gradient, face_gradient, icosphere

FEW = Search(10, folder=None)
A = torch.tensor([[1.0, 2.0j, 0.0], [0.5, 0.0, -1.0]], dtype=torch.complex128)


def test_pairs_of_every_kind():
    gradient = face_gradient(icosphere(0))

    def pair(mesh: TriangleMesh):
        return face_gradient(mesh), face_gradient(mesh).divergence()

    for measured in (
        assert_adjoint_pair(gradient),
        assert_adjoint_pair(gradient, gradient.divergence(), sign=-1),
        assert_adjoint_pair(A, A.mH),
        assert_adjoint_pair(A.real, real=True),
        assert_adjoint_pair(pair, sign=-1, search=FEW),
        assert_adjoint_pair(edge_gradient, search=FEW),
        assert_adjoint_pair(face_gradient, domain=icosphere(1)),
    ):
        assert float(measured) <= 1


def test_a_transpose_is_no_adjoint_of_a_complex_matrix():
    with pytest.raises(LawBrokenError, match="adjoint in their inner products"):
        assert_adjoint_pair(A, A.T)
