"""Which domains a builder takes, told by its annotation."""

import functools

import pytest
import torch

from neuralpde.testing_cases import Case, cases, default_domains, domain_kind, is_builder, on_domains
from neuralpde.testing_graphs import graphs
from neuralpde.testing_search import is_strategy
from operators import Graph, Grid, Laplacian, PointCloud, TriangleMesh, combinatorial_laplacian, cotangent_laplacian, icosphere
from operators.grids import grid_laplacian
from operators.point_cloud import point_cloud_laplacian

LOOP = Graph(torch.tensor([[0, 0, 1], [0, 1, 0]]), 2, torch.tensor([8.0, 1.0, 1.0], dtype=torch.float64))


class OnMesh:
    def __init__(self, mesh: "TriangleMesh | None") -> None:
        self.mesh = mesh


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (combinatorial_laplacian, Graph),
        (cotangent_laplacian, TriangleMesh),
        (point_cloud_laplacian, PointCloud),
        (grid_laplacian, Grid),
        (OnMesh, TriangleMesh),
        (functools.partial(combinatorial_laplacian), Graph),
        (lambda graph: graph, None),
    ],
)
def test_the_annotation_of_the_first_argument_names_the_domain(build, kind):
    assert domain_kind(build) is kind


def test_without_an_annotation_the_cure_is_told():
    def mine(graph):
        return graph

    with pytest.raises(TypeError, match=r"annotate its first argument, as in `def mine\(graph: Graph\)`"):
        default_domains(mine)


def test_a_builder_on_a_laplacian_is_given_that_of_the_domain():
    def build(L: Laplacian):
        return L

    through = on_domains(build)
    assert through.__name__ == "build"
    assert through(LOOP).recipe is combinatorial_laplacian
    assert through(icosphere(0)).recipe is cotangent_laplacian
    assert on_domains(cotangent_laplacian) is cotangent_laplacian


def test_cases_are_drawn_or_few():
    assert is_strategy(cases(combinatorial_laplacian, graphs()))
    few = cases(cotangent_laplacian, icosphere(0))
    assert len(few) == 3
    assert few[0].operator is few[2].operator
    assert not torch.equal(few[0].x, few[1].x)
    fixed = cases(cotangent_laplacian(icosphere(0)))
    assert fixed[0].fixed
    assert not is_builder(fixed[0].operator)


def test_self_loops_count_among_the_magnitudes():
    x = torch.ones(2, 1, dtype=torch.float64)
    rows = Case(combinatorial_laplacian, LOOP, x, x).rows(x)
    assert float(rows[0]) >= 10.0
    assert float(rows[1]) < 3.0
    assert "0→0 (8)" in Case(combinatorial_laplacian, LOOP, x, x).told()
