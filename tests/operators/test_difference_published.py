"""The published layer: equation 1 edge by edge, plain with unit weights exactly, on every kind of graph."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.difference import DifferenceFlow
from neuralpde.testing import assert_within, fields, roundoff
from operators import DomainError, FieldError, PointCloud, combinatorial_laplacian, icosphere
from operators.difference_graph import DelaunayEdges, DifferenceGraph, KNearest
from operators.difference_published import PublishedDifference, edge_differences, node_differences
from operators.graph_network import NetworkShape

U = roundoff(torch.float64)
SMALL = NetworkShape(width=8)


def cloud(seed=0, n=12):
    return PointCloud(torch.rand(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


DOMAINS = [
    pytest.param(DifferenceGraph(cloud()), id="nearest"),
    pytest.param(DifferenceGraph(cloud(), DelaunayEdges()), id="delaunay"),
    pytest.param(DifferenceGraph(icosphere(0)), id="mesh"),
]


def layer(graph, **options):
    torch.manual_seed(3)
    return PublishedDifference(graph, network=SMALL, **options)


@pytest.mark.parametrize("graph", DOMAINS)
@given(data=st.data())
def test_unit_weights_give_exactly_the_plain_difference_and_laplacian(graph, data):
    x = data.draw(fields(12, 2, exact=True))
    pattern = graph.pattern
    one = torch.ones(pattern.nnz, 1, 1, dtype=torch.float64)
    adjacency = graph.edges.matrix()
    assert torch.equal(edge_differences(pattern, x, one, one)[:, 0], x[pattern.col] - x[pattern.row])
    assert torch.equal(node_differences(pattern, x, one, one)[:, 0], adjacency.sum(1)[:, None] * x - adjacency @ x)


@pytest.mark.parametrize("graph", DOMAINS)
def test_a_plain_layer_is_the_plain_operators_exactly(graph):
    plain = layer(graph, channels=2, sets=3, plain=True)
    x = torch.randint(-8, 8, (4, 12, 2), dtype=torch.float64)
    pattern = graph.pattern
    gradient, laplacian = plain.differences(x)
    assert gradient.shape == (4, pattern.nnz, 3, 2)
    assert laplacian.shape == (4, 12, 3, 2)
    expected = combinatorial_laplacian(graph_of(graph)) @ x
    for s in range(3):
        assert torch.equal(gradient[:, :, s], (x[:, pattern.col] - x[:, pattern.row]))
        assert torch.equal(laplacian[:, :, s], expected)


def graph_of(graph):
    from operators import Graph

    return Graph(torch.stack([graph.pattern.col, graph.pattern.row]), len(graph.points), torch.ones_like(graph.lengths))


@pytest.mark.parametrize("graph", DOMAINS)
def test_both_forms_are_equation_one_for_each_set_and_channel(graph):
    free = layer(graph, channels=2, sets=3, coefficients=3)
    x = torch.randn(2, 12, 2, dtype=torch.float64)
    g, w = (part.detach() for part in free.coefficients(x))
    assert g.shape == w.shape == (2, graph.pattern.nnz, 3, 3, 2)
    gradient, laplacian = torch.zeros(2, graph.pattern.nnz, 3, 2).double(), torch.zeros(2, 12, 3, 2).double()
    for e, (i, j) in enumerate(zip(graph.pattern.row.tolist(), graph.pattern.col.tolist(), strict=True)):
        gradient[:, e] = g[:, e, :, 0] * (x[:, None, j] - g[:, e, :, 1] * x[:, None, i])
        laplacian[:, i] += w[:, e, :, 0] * (x[:, None, i] - w[:, e, :, 1] * x[:, None, j])
    found = [part.detach() for part in free.differences(x)]
    assert_within(found[0], gradient, 64 * U * (1 + gradient.abs()))
    assert_within(found[1], laplacian, 256 * U * (1 + laplacian.abs()))
    operator, along = free(x)
    assert_within((operator @ x).detach(), laplacian.mean(-2), 256 * U * (1 + laplacian.abs().amax(-2)))
    assert_within(along.detach(), gradient.mean(-2), 64 * U * (1 + gradient.abs().amax(-2)))


@given(data=st.data())
def test_renaming_the_points_renames_the_result(data):
    points = cloud().points
    order = torch.tensor(data.draw(st.permutations(range(12))))
    x = torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None]
    free = layer(DifferenceGraph(PointCloud(points)))
    here = free.differences(x)[1].detach()
    there = free.on(PointCloud(points[order])).differences(x[order])[1].detach()
    assert_within(there, here[order], 4096 * U * (1 + here[order].abs()))


def test_gradients_reach_every_parameter_and_the_field():
    free = layer(DifferenceGraph(cloud()), channels=2, sets=2)
    x = torch.randn(16, 12, 2, dtype=torch.float64, requires_grad=True)
    gradient, laplacian = free.differences(x)
    (gradient.square().sum() + laplacian.square().sum()).backward()
    for name, parameter in [*free.named_parameters(), ("x", x)]:
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().sum() > 0), name
    y = torch.randn(12, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(free.differences, (y,), fast_mode=True)


def test_it_is_a_difference_flow_and_starts_as_diffusion():
    graph = DifferenceGraph(cloud(), KNearest(3))
    flow = DifferenceFlow(layer(graph, plain=True), 0.5)
    x = torch.randint(-8, 8, (12, 1), dtype=torch.float64)
    slope = flow(torch.zeros((), dtype=torch.float64), x).detach()
    plain = combinatorial_laplacian(graph_of(graph)) @ x
    assert_within(slope, -0.5 * plain, 64 * U * (1 + plain.abs()))
    moved = flow.on(cloud(5, 9))
    assert all(a is b for a, b in zip(moved.parameters(), flow.parameters(), strict=True))
    assert moved(torch.zeros((), dtype=torch.float64), torch.ones(2, 9, 1, dtype=torch.float64)).shape == (2, 9, 1)


def test_copies_and_precisions_agree():
    free = layer(DifferenceGraph(cloud()), sets=2)
    x = torch.randn(12, 1, dtype=torch.float64)
    assert torch.equal(deepcopy(free).differences(x)[1], free.differences(x)[1])
    assert set(free.state_dict()) == {name for name, _ in free.named_parameters()}
    expected = free.differences(x)[1].detach()
    single = deepcopy(free).float().differences(x.float())[1].detach().double()
    assert_within(single, expected, 1e-4 * (1 + expected.abs()))


def test_bad_sizes_and_fields_are_refused():
    graph = DifferenceGraph(cloud())
    for name, least in (("channels", 1), ("sets", 1), ("coefficients", 2)):
        with pytest.raises(DomainError, match=f"{name} must be an integer of at least {least}"):
            PublishedDifference(graph, **{name: least - 1})
    with pytest.raises(FieldError, match="reads 1 real channels, not 2"):
        layer(graph).differences(torch.ones(12, 2, dtype=torch.float64))
    with pytest.raises(FieldError, match=r"must have shape \(\.\.\., 12, c\)"):
        layer(graph)(torch.ones(11, 1, dtype=torch.float64))
