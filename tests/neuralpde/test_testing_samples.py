"""One small domain of each kind, and which of them a builder takes."""

import pytest

from neuralpde.testing_samples import SAMPLES, sample
from operators import Graph, Grid, TriangleMesh, cotangent_laplacian
from operators.grids import grid_laplacian


def test_each_sample_is_of_its_kind():
    assert all(isinstance(make(), kind) for kind, makers in SAMPLES.items() for make in makers)


def test_the_annotated_kind_or_the_first_that_works():
    assert isinstance(sample(cotangent_laplacian), TriangleMesh)
    assert isinstance(sample(lambda graph: graph.edge_index), Graph)
    assert isinstance(sample(lambda grid: grid_laplacian(grid)), Grid)


def test_a_builder_that_takes_none_is_told_why():
    with pytest.raises(TypeError, match=r"takes no domain. Graph: ZeroDivisionError"):
        sample(lambda domain: 1 / 0)
