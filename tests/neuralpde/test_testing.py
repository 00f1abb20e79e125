"""The strategies draw what they promise, and the comparison sees every kind of difference."""

import pytest
import torch
from hypothesis import find, given

from neuralpde.testing import aspect, assert_within, fields, graphs, meshes, roundoff
from operators import TriangleMesh, icosphere, robust_laplacian


@given(graph=graphs())
def test_graphs_are_undirected(graph):
    dense = torch.zeros(graph.nodes, graph.nodes, dtype=torch.float64)
    dense.index_put_((graph.edge_index[0], graph.edge_index[1]), graph.edge_weight, accumulate=True)
    torch.testing.assert_close(dense, dense.T, rtol=1e-12, atol=0)
    assert bool((graph.edge_weight >= 0).all())


@given(graph=graphs(simple=True, min_nodes=3, max_nodes=5))
def test_simple_graphs_are_simple(graph):
    assert 3 <= graph.nodes <= 5
    pairs = list(map(tuple, graph.edge_index.T.tolist()))
    assert len(set(pairs)) == len(pairs)
    assert all(i != j for i, j in pairs)


@given(mesh=meshes())
def test_meshes_are_valid_surfaces(mesh):
    assert isinstance(mesh, TriangleMesh)
    assert set(mesh.faces.reshape(-1).tolist()) == set(range(mesh.num_nodes))
    assert bool((robust_laplacian(mesh).mass > 0).all())
    assert aspect(mesh) > 0


@given(mesh=meshes(planar=True))
def test_planar_meshes_are_flat(mesh):
    assert float(mesh.vertices[:, 2].max() - mesh.vertices[:, 2].min()) == 0


def test_strategies_reach_the_hard_cases():
    find(graphs(), lambda g: g.nodes > 1 and g.edge_index.shape[1] == 0)
    find(graphs(), lambda g: bool((g.edge_index[0] == g.edge_index[1]).any()))
    find(meshes(), lambda m: m.num_nodes > 6)
    find(fields(3, 1), lambda x: float(x.abs().max()) == 0)
    find(fields(3, 1), lambda x: float(x.abs().max()) > 100)


@given(x=fields(3, batch=(2,), dtype=torch.complex64), exact=fields(4, 2, exact=True))
def test_fields_have_the_asked_form(x, exact):
    assert x.dtype == torch.complex64
    assert x.shape[:2] == (2, 3)
    assert bool(torch.isfinite(x.abs()).all())
    assert torch.equal(exact * 8, (exact * 8).round())


def test_assert_within():
    x = torch.tensor([1.0, 2.0])
    assert_within(x, x, 0.0)
    assert_within(x, x + 0.5, torch.tensor([0.5, 0.6]))
    for bad in (torch.tensor([1.0, 2.6]), torch.tensor([1.0, torch.nan]), torch.tensor([1.0, torch.inf])):
        with pytest.raises(AssertionError, match="1 of 2 entries are off: at flat index 1"):
            assert_within(x, bad, 0.5)
        with pytest.raises(AssertionError, match="1 of 2 entries are off"):
            assert_within(bad, x, 0.5)


def test_roundoff_and_aspect():
    assert roundoff(torch.float32) == roundoff(torch.complex64) == 2.0**-24
    assert roundoff(torch.float64) == roundoff(torch.complex128) == 2.0**-53
    mesh = icosphere(0)
    assert 0.8 < aspect(mesh) < 1
    # Far from the origin the rounding of coordinates weighs more.
    assert aspect(TriangleMesh(mesh.vertices + 100, mesh.faces)) > 50
