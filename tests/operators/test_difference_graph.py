"""Where differences are taken: both ways along every edge, without loops, and the same again on another domain."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from operators import DomainError, Graph, PointCloud, icosphere
from operators.difference_graph import DelaunayEdges, DifferenceGraph, KNearest, MeshEdges, points_of


def cloud(seed, n=30, dtype=torch.float64):
    return PointCloud(torch.rand(n, 2, dtype=dtype, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("join", [KNearest(4), DelaunayEdges(), None], ids=["nearest", "delaunay", "default"])
@given(seed=st.integers(0, 1000))
def test_edges_lead_both_ways_and_offsets_are_opposite(join, seed):
    graph = DifferenceGraph(cloud(seed), join)
    i, j = graph.pattern.row, graph.pattern.col
    assert not bool((i == j).any())
    assert {(a, b) for a, b in zip(i.tolist(), j.tolist(), strict=True)} == {
        (b, a) for a, b in zip(i.tolist(), j.tolist(), strict=True)
    }
    assert torch.equal(graph.offsets, graph.points[j] - graph.points[i])
    assert torch.allclose(graph.directions * graph.lengths[:, None], graph.offsets, rtol=1e-14, atol=0)
    assert torch.equal(graph.edges.values, torch.ones(len(i), dtype=torch.float64))
    if isinstance(join, KNearest):
        assert int(torch.bincount(i, minlength=30).min()) >= join.k


def test_a_mesh_is_joined_by_its_edges_and_moves():
    graph = DifferenceGraph(icosphere(1))
    assert graph.pattern.nnz == 2 * icosphere(1).edges.shape[1]
    moved = graph.on(icosphere(0))
    assert moved.pattern.nnz == 60
    nearest = DifferenceGraph(icosphere(1), KNearest(3)).float().on(cloud(0))
    assert nearest.dtype == nearest.lengths.dtype == torch.float32
    assert isinstance(pickle.loads(pickle.dumps(nearest)), DifferenceGraph)


def test_coincident_points_have_no_direction():
    points = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    graph = DifferenceGraph(PointCloud(points), KNearest(2))
    assert bool(torch.isfinite(graph.directions).all())
    assert graph.directions[graph.lengths == 0].abs().sum() == 0


def test_distances_survive_far_from_the_origin():
    points = torch.tensor([[1e6, 0.0], [1e6 + 1, 0.0], [1e6 + 3, 0.0]], dtype=torch.float32)
    assert sorted(set(DifferenceGraph(PointCloud(points), KNearest(1)).lengths.tolist())) == [1.0, 2.0]


def test_bad_graphs_are_refused():
    loops = Graph(torch.tensor([[0, 1], [0, 1]]), 2)
    pair = PointCloud(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    with pytest.raises(DomainError, match="the graph joins no two points"):
        DifferenceGraph(pair, loops)
    with pytest.raises(DomainError, match="the graph has 3 nodes, the domain 2"):
        DifferenceGraph(pair, Graph(torch.tensor([[0], [1]]), 3))
    with pytest.raises(DomainError, match=r"join must be KNearest\(4\)"):
        DifferenceGraph(pair, 4)
    with pytest.raises(DomainError, match="has no mesh edges: join with KNearest"):
        DifferenceGraph(pair, MeshEdges())
    with pytest.raises(DomainError, match="was given its edges"):
        DifferenceGraph(pair, Graph(torch.tensor([[0], [1]]), 2)).on(cloud(0))
    with pytest.raises(DomainError, match="differences along edges need positions"):
        points_of(loops)
