"""`assert_laplacian` in its three forms: a builder, a builder and a domain, an operator."""

import pytest
import torch

from neuralpde.testing_laplacian import GEOMETRIC_LAWS, LAPLACIAN_LAWS, assert_laplacian, positive_semidefinite
from neuralpde.testing_measured import LawBrokenError
from neuralpde.testing_search import Search
from operators import Graph, TriangleMesh, combinatorial_laplacian, cotangent_laplacian, grid, icosphere

FEW = Search(10, folder=None)


def test_a_builder_a_domain_and_an_operator():
    for measured in (
        assert_laplacian(combinatorial_laplacian, search=FEW),
        assert_laplacian(cotangent_laplacian, icosphere(1)),
        assert_laplacian(cotangent_laplacian(grid(3, 3))),
        assert_laplacian(torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)),
    ):
        assert 0 < float(measured) <= 1


def test_float32_is_held_against_its_own_round_off():
    assert float(assert_laplacian(cotangent_laplacian(icosphere(1)).to(torch.float32))) <= 1


@pytest.mark.parametrize("n", [3, 65])
def test_a_sign_is_told_with_and_without_eigenvalues(n):
    def flipped(graph: Graph):
        return -combinatorial_laplacian(graph).matrix()

    path = torch.stack([torch.arange(n - 1), torch.arange(1, n)])
    with pytest.raises(LawBrokenError, match=r"flipped breaks a law: positive semidefinite\n"):
        assert_laplacian(flipped, Graph(path, n, torch.ones(n - 1, dtype=torch.float64)).undirected())


def test_laws_that_are_not_promised_can_be_left_out():
    def edges(mesh: TriangleMesh):
        return combinatorial_laplacian(mesh.graph())

    with pytest.raises(LawBrokenError, match="lengths twice as long"):
        assert_laplacian(edges, search=FEW)
    assert float(assert_laplacian(edges, without=GEOMETRIC_LAWS, search=FEW)) <= 1
    assert positive_semidefinite in LAPLACIAN_LAWS


def test_a_builder_that_refuses_everything_is_told():
    def never(mesh: TriangleMesh):
        return combinatorial_laplacian(Graph(torch.tensor([[0], [1]]), 2))

    with pytest.raises(AssertionError, match=r"refused every domain.*directed"):
        assert_laplacian(never, search=Search(1, folder=None))
