"""The laws of linear operators, on ones that break them."""

import pytest
import torch

from neuralpde.symmetry import Permutation
from neuralpde.testing_cases import cases
from neuralpde.testing_measured import LawBrokenError
from neuralpde.testing_operators import OPERATOR_LAWS, components, equivariant, hold, shuffled
from neuralpde.testing_search import Search
from operators import Graph, Operator, cotangent_laplacian, icosphere


class Broken(Operator):
    def __init__(self, how):
        super().__init__()
        self.shape, self.how = (3, 3), how
        self.register_buffer("ones", torch.ones(3, 3, dtype=torch.float64))

    def forward(self, x):
        return self.how(x)


@pytest.mark.parametrize(
    ("how", "law"),
    [
        (lambda x: x.float(), "keeps shape and dtype"),
        (lambda x: x[..., :1], "keeps shape and dtype"),
        (lambda x: x * torch.nan, "keeps shape and dtype"),
        (lambda x: x.add_(1), "leaves its input alone"),
        (lambda x: x, "leaves its input alone"),
        (lambda x: x + 1, "linear"),
        (lambda x: x.sum(-1, keepdim=True).expand_as(x).clone(), "a batch is a loop"),
    ],
)
def test_each_broken_operator_is_told_by_its_law(how, law):
    with pytest.raises(LawBrokenError) as caught:
        hold(Broken(how), OPERATOR_LAWS, cases(Broken(how)), Search())
    assert caught.value.measured.law == law


def test_no_law_that_applies_is_an_error():
    with pytest.raises(AssertionError, match="none of these laws applies"):
        hold(Broken(lambda x: x), [components_of], cases(Broken(lambda x: x)), Search())


def components_of(case):
    return None


def test_shuffling_changes_the_order_and_nothing_else():
    mesh = icosphere(0)
    other = shuffled(mesh, torch.Generator().manual_seed(0))
    assert not torch.equal(other.faces, mesh.faces)
    assert other.area == pytest.approx(mesh.area)
    graph = mesh.graph()
    assert sorted(shuffled(graph, torch.Generator()).edge_index.T.tolist()) == sorted(graph.edge_index.T.tolist())


def test_components_are_counted_by_edges_of_weight():
    graph = Graph(torch.tensor([[0, 1], [1, 2]]), 4, torch.tensor([1.0, 0.0]))
    assert components(graph).tolist() == [0, 0, 1, 2]
    assert components(None) is None


def test_the_cotangent_laplacian_is_equivariant():
    (case, *_) = cases(cotangent_laplacian, icosphere(0))
    assert equivariant(case, Permutation()).holds
