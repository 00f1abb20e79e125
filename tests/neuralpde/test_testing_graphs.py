"""Graphs are what their options say, every kind of them occurs, and they shrink to an edge or none."""

from functools import cache

import pytest
import torch
from drawing import drawn, least, shares
from hypothesis import given

from neuralpde.testing_graphs import graphs, large_graphs


def loops(graph):
    return graph.edge_index[0] == graph.edge_index[1]


def pairs(graph):
    return [tuple(pair) for pair in graph.edge_index.T.tolist()]


def is_simple(graph):
    return len(set(pairs(graph))) == len(pairs(graph)) and not bool(loops(graph).any())


@given(graph=graphs())
def test_graphs_are_undirected(graph):
    dense = torch.zeros(graph.nodes, graph.nodes, dtype=torch.float64)
    dense.index_put_((graph.edge_index[0], graph.edge_index[1]), graph.edge_weight, accumulate=True)
    torch.testing.assert_close(dense, dense.T, rtol=1e-12, atol=0)
    assert bool((graph.edge_weight >= 0).all())


@given(graph=graphs(simple=True, min_nodes=3, max_nodes=5, dtype=torch.float32))
def test_simple_graphs_are_simple(graph):
    assert 3 <= graph.nodes <= 5
    assert is_simple(graph)
    assert graph.edge_weight.dtype == torch.float32


@given(graph=graphs(directed=True, simple=True, weights=["ones"], max_nodes=6))
def test_directed_graphs_name_an_edge_once_in_each_direction(graph):
    assert is_simple(graph)


def test_weights_are_of_the_named_kinds():
    for graph in drawn(graphs(weights=["dyadic"]), 30):
        assert torch.equal(graph.edge_weight * 8, (graph.edge_weight * 8).round())
    for graph in drawn(graphs(weights=["wide"]), 30):
        assert bool((graph.edge_weight >= 1e-6 * (1 - 1e-9)).all() and (graph.edge_weight <= 1e6 * (1 + 1e-9)).all())


# How often at least, in a hundred.
KINDS = {
    "one node": (lambda g, r: g.nodes == 1, 2),
    "twelve nodes": (lambda g, r: g.nodes == 12, 2),
    "no edges": (lambda g, r: g.nodes > 1 and r.edges == 0, 2),
    "self-loop": (lambda g, r: r.self_loops > 0, 10),
    "repeated edge": (lambda g, r: r.repeated_edges > 0, 10),
    "isolated node": (lambda g, r: r.isolated_nodes > 0 and r.edges > 0, 10),
    "two components with edges": (lambda g, r: r.components == 2 and r.isolated_nodes == 0, 2),
    "zero weight": (lambda g, r: r.zero_weights > 0, 2),
    "small and large weights": (lambda g, r: r.edges > 0 and r.largest_weight > 1e6 * r.least_weight > 0, 2),
    "complete": (lambda g, r: g.nodes > 4 and r.least_degree == g.nodes - 1, 1),
    "star": (lambda g, r: g.nodes > 4 and r.largest_degree == g.nodes - 1 and r.least_degree == 1, 1),
}


@cache
def kinds_of_graphs():
    def kinds(graph):
        report = graph.report()
        return [name for name, (has, _) in KINDS.items() if has(graph, report)]

    return shares(drawn(graphs(), 300), kinds)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_graph_occurs(kind):
    assert kinds_of_graphs()[kind] >= KINDS[kind][1] / 100


def test_directed_graphs_reach_one_way_streets():
    found = least(graphs(directed=True), lambda g: not g.report().undirected)
    assert found.nodes == 2
    assert found.edge_index.shape[1] == 1


def test_shrinking_removes_nodes_and_edges():
    assert least(graphs(), lambda g: True).nodes == 1
    loop = least(graphs(), lambda g: bool(loops(g).any()))
    assert pairs(loop) == [(0, 0)]
    assert loop.edge_weight.tolist() == [1]
    assert sorted(pairs(least(graphs(), lambda g: g.report().components < g.nodes))) == [(0, 1), (1, 0)]
    triangle = least(graphs(), lambda g: g.report().largest_degree >= 2)
    assert triangle.nodes == 3
    assert triangle.edge_index.shape[1] == 4


def test_large_graphs_are_simple_undirected_and_shaped_like_data():
    seen = drawn(large_graphs(), 60)
    reports = [graph.report() for graph in seen]
    for graph, report in zip(seen, reports, strict=True):
        assert 50 <= graph.nodes <= 300
        assert report.undirected
        assert is_simple(graph)
    assert any(report.largest_degree > report.nodes / 4 for report in reports), "a hub"
    assert any(report.components > 1 for report in reports), "pieces"
    assert any(
        report.components == 1 and report.edges == 2 * graph.nodes - 2 for graph, report in zip(seen, reports, strict=True)
    ), "a tree"
    assert any(report.largest_weight > 1e4 * report.least_weight for report in reports), "wide weights"


def test_large_graphs_shrink_to_a_small_ring_with_unit_weights():
    ring = least(large_graphs(), lambda g: True)
    assert ring.nodes == 50
    assert set(ring.report().__dict__[key] for key in ("least_degree", "largest_degree")) == {2}
    assert bool((ring.edge_weight == 1).all())
