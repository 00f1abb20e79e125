"""The strategies draw what they promise, and the comparison sees every kind of difference."""

import numpy as np
import pytest
import torch
from hypothesis import Phase, find, given, settings

from neuralpde.testing import aspect, assert_within, damaged_meshes, fields, graphs, meshes, roundoff
from operators import DomainError, TriangleMesh, clean_mesh, icosphere, report_mesh, robust_laplacian


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


@given(graph=graphs(directed=True, simple=True, weights=["ones"], max_nodes=6))
def test_directed_graphs_name_an_edge_once_in_each_direction(graph):
    pairs = list(map(tuple, graph.edge_index.T.tolist()))
    assert len(set(pairs)) == len(pairs)
    assert all(i != j for i, j in pairs)


@given(case=damaged_meshes())
def test_damaged_arrays_are_refused_and_reported_and_cleaning_takes_the_damage_back(case):
    mesh, points, faces, added = case
    if any(added.values()):
        report = report_mesh(points, faces)
        assert report.problems
        # A split corner is a seam, which is a mesh; the rest is none.
        refused = added["repeat"] + added["flat"] + added["duplicate"] + added["stray"]
        if refused:
            with pytest.raises(DomainError, match=r"clean"):
                TriangleMesh(torch.from_numpy(points), torch.from_numpy(faces))
    clean = clean_mesh(points, faces)
    assert np.array_equal(clean.vertices, mesh.arrays[0])


def loops(graph):
    return graph.edge_index[0] == graph.edge_index[1]


def pairs(graph):
    return [tuple(pair) for pair in graph.edge_index.T.tolist()]


REACHED_GRAPHS = {
    "one node": lambda g: g.nodes == 1,
    "twelve nodes": lambda g: g.nodes == 12,
    "no edges": lambda g: g.nodes > 1 and g.edge_index.shape[1] == 0,
    "self-loop": lambda g: bool(loops(g).any()),
    "repeated edge": lambda g: len(set(pairs(g))) < len(pairs(g)),
    "isolated node": lambda g: g.report().isolated_nodes > 0 and g.edge_index.shape[1] > 0,
    "two components with edges": lambda g: g.report().components == 2 and g.report().isolated_nodes == 0,
    "two components of many edges": lambda g: g.report().components == 2 and g.report().least_degree > 2,
    "zero weight": lambda g: bool((g.edge_weight == 0).any()),
    "small and large weights": lambda g: g.edge_index.shape[1] > 0 and g.edge_weight.max() > 1e6 * g.edge_weight.min() > 0,
    "complete": lambda g: g.nodes > 4 and len(set(pairs(g)) - {(i, i) for i in range(12)}) == g.nodes * (g.nodes - 1),
    "star": lambda g: g.nodes > 4 and g.report().largest_degree == g.nodes - 1 and g.report().least_degree == 1,
}
REACHED_MESHES = {
    "closed": lambda r: r.closed,
    "open": lambda r: not r.closed,
    "three faces at an edge": lambda r: r.non_manifold_edges == 1,
    "bow-tie": lambda r: r.non_manifold_vertices > 0 and r.non_manifold_edges == 0,
    "not orientable": lambda r: not r.orientable,
    "faces that disagree": lambda r: r.orientable and not r.consistently_oriented,
    "two components": lambda r: r.components == 2,
    "a needle of 1e-3": lambda r: r.least_angle_degrees < 0.2,
    "a needle of 1e-6": lambda r: r.least_angle_degrees < 1e-3,
    "obtuse": lambda r: r.largest_angle_degrees > 120,
    "far from the origin": lambda r: r.distance_from_origin > 100 * r.extent,
    "tiny": lambda r: r.extent < 1e-3,
    "huge": lambda r: r.extent > 1e5,
}
SEARCH = settings(max_examples=3000, derandomize=True, database=None, phases=[Phase.generate, Phase.shrink])


@pytest.mark.parametrize("kind", REACHED_GRAPHS)
def test_graphs_reach(kind):
    find(graphs(), REACHED_GRAPHS[kind], settings=SEARCH)


@pytest.mark.parametrize("kind", REACHED_MESHES)
def test_meshes_reach(kind):
    find(meshes(), lambda mesh: REACHED_MESHES[kind](mesh.report()), settings=SEARCH)


@pytest.mark.parametrize("kind", ["split", "repeat", "flat", "duplicate", "stray"])
def test_each_damage_is_drawn_alone(kind):
    found = find(damaged_meshes(), lambda case: case[3][kind] > 0, settings=SEARCH)
    assert sum(found[3].values()) == 1, "shrinking keeps the one damage that matters"
    assert found[0].num_nodes == 3, "on the least mesh"


def test_planar_meshes_reach_obtuse_triangles_at_the_boundary():
    find(meshes(planar=True), lambda mesh: mesh.report().largest_angle_degrees > 120, settings=SEARCH)


def test_directed_graphs_reach_one_way_streets():
    found = find(graphs(directed=True), lambda g: not g.report().undirected, settings=SEARCH)
    assert found.nodes == 2
    assert found.edge_index.shape[1] == 1


def test_shrinking_removes_edges_and_edits():
    assert find(graphs(), lambda g: bool(loops(g).any()), settings=SEARCH).edge_index.shape[1] == 1
    assert find(graphs(), lambda g: g.edge_index.shape[1] > 1, settings=SEARCH).edge_index.shape[1] == 2
    needle = find(meshes(), lambda m: m.report().least_angle_degrees < 1e-3, settings=SEARCH)
    assert needle.num_nodes == 4, "a triangle and one edit"
    assert needle.report().extent < 2


def test_fields_reach_zero_and_large_values():
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
