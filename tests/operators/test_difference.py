"""Learned differences: with unit weights, and before any training, exactly the plain gradient and Laplacian."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import assert_within, fields, graphs, meshes, roundoff
from operators import (
    DomainError,
    FieldError,
    Graph,
    SparseOperator,
    SpatialDifference,
    TriangleMesh,
    adjacency_of,
    combinatorial_laplacian,
    cotangent_laplacian,
    icosphere,
    modulated_gradient,
    modulated_laplacian,
    random_walk_laplacian,
    robust_laplacian,
    torus,
)

U = roundoff(torch.float64)
LAPLACIANS = st.one_of(
    graphs().map(combinatorial_laplacian),
    graphs().map(random_walk_laplacian),
    meshes(slivers=False).map(robust_laplacian),
)


@st.composite
def directed_edges(draw, exact=True):
    """Weights of a directed graph without loops, as an operator: dyadic, so that sums are exact."""
    n = draw(st.integers(1, 6))
    pair = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda p: p[0] != p[1])
    pairs = draw(st.lists(pair, unique=True, max_size=12)) if n > 1 else []
    i, j = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    values = draw(fields(len(pairs), 1, exact=exact)).squeeze(1)
    return SparseOperator.from_entries(i, j, values, (n, n))


def awake(laplacian, **options):
    """A layer whose head is not zero."""
    layer = SpatialDifference(laplacian, **options)
    torch.nn.init.normal_(layer.head.weight)
    torch.nn.init.normal_(layer.head.bias)
    return layer


@given(data=st.data())
def test_unit_weights_give_exactly_the_plain_laplacian_and_difference(data):
    edges = data.draw(directed_edges())
    x = data.draw(fields(edges.shape[0], 2, exact=True))
    one = torch.ones_like(edges.values)
    b = edges.matrix()
    assert torch.equal(modulated_laplacian(edges, one, one) @ x, torch.diag(b.sum(1)) @ x - b @ x)
    pattern = edges.pattern
    assert torch.equal(modulated_gradient(edges, x, one, one), x[pattern.col] - x[pattern.row])


@given(data=st.data())
def test_zero_offsets_give_weighted_copies(data):
    edges = data.draw(directed_edges())
    x = data.draw(fields(edges.shape[0], 2, exact=True))
    w1 = data.draw(fields(edges.pattern.nnz, 1, exact=True)).squeeze(1)
    none = torch.zeros_like(w1)
    total = torch.zeros(edges.shape[0], dtype=torch.float64).index_add(0, edges.pattern.row, edges.values * w1)
    assert torch.equal(modulated_laplacian(edges, w1, none) @ x, total[:, None] * x)
    assert torch.equal(modulated_gradient(edges, x, w1, none), w1[:, None] * x[edges.pattern.col])


@pytest.mark.parametrize("batch", [(), (2,)])
@given(data=st.data())
def test_both_are_equation_one_of_the_paper_edge_by_edge(batch, data):
    edges = data.draw(directed_edges())
    x = data.draw(fields(edges.shape[0], 2, batch=batch, exact=True))
    w1, w2 = (data.draw(fields(edges.pattern.nnz, 1, batch=batch, exact=True)).squeeze(-1) for _ in range(2))
    laplacian, gradient = torch.zeros_like(x), []
    for e, (i, j) in enumerate(zip(edges.pattern.row.tolist(), edges.pattern.col.tolist(), strict=True)):
        a, c = w1[..., e, None], w2[..., e, None]
        laplacian[..., i, :] += edges.values[e] * a * (x[..., i, :] - c * x[..., j, :])
        gradient.append(a * (x[..., j, :] - c * x[..., i, :]))
    assert torch.equal(modulated_laplacian(edges, w1, w2) @ x, laplacian)
    if gradient:
        assert torch.equal(modulated_gradient(edges, x, w1, w2), torch.stack(gradient, dim=-2))


@given(data=st.data())
def test_an_untrained_layer_is_the_plain_laplacian_and_difference(data):
    L = data.draw(LAPLACIANS)
    x = data.draw(fields(L.shape[0], 2))
    laplacian, gradient = SpatialDifference(L, channels=2)(x)
    magnitude = torch.from_numpy(abs(L.stiffness.to_scipy()) @ x.abs().numpy()) / L.mass[:, None]
    assert_within(laplacian @ x, L @ x, 32 * U * magnitude)
    pattern = adjacency_of(L).pattern
    assert torch.equal(gradient, x[pattern.col] - x[pattern.row])


@given(data=st.data())
def test_weights_stay_in_their_bounds(data):
    L = data.draw(LAPLACIANS)
    layer = awake(L)
    with torch.no_grad():
        layer.head.weight.mul_(100)
    l1, l2, g1, g2 = layer.weights(data.draw(fields(L.shape[0], 1)))
    for w1, w2 in ((l1, l2), (g1, g2)):
        assert w1.shape == (adjacency_of(L).pattern.nnz,)
        assert ((w1 >= 0.25) & (w1 <= 4)).all()
        assert ((w2 >= 0.5) & (w2 <= 1.5)).all()


@pytest.mark.parametrize("hops", [1, 2])
def test_gradients_reach_every_parameter(hops):
    layer = awake(robust_laplacian(icosphere(0)), hops=hops)
    x = torch.randn(2, 12, 1, dtype=torch.float64, requires_grad=True)
    laplacian, gradient = layer(x)
    ((laplacian @ x).square().sum() + gradient.square().sum()).backward()
    for name, parameter in [*layer.named_parameters(), ("x", x)]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_derivatives_in_weights_and_field():
    edges = adjacency_of(robust_laplacian(icosphere(0)))
    w1, w2 = (torch.randn(edges.pattern.nnz, dtype=torch.float64, requires_grad=True) for _ in range(2))
    x = torch.randn(12, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, c, x: modulated_laplacian(edges, a, c) @ x, (w1, w2, x), fast_mode=True)
    assert torch.autograd.gradcheck(lambda a, c, x: modulated_gradient(edges, x, a, c), (w1, w2, x), fast_mode=True)


@given(mesh=meshes(slivers=False))
def test_weights_do_not_depend_on_the_unit_of_length(mesh):
    layer = awake(robust_laplacian(mesh))
    x = torch.linspace(-1, 1, mesh.num_nodes, dtype=torch.float64)[:, None]
    scaled = layer.on(TriangleMesh(mesh.vertices * 4, mesh.faces))
    for here, there in zip(layer.weights(x), scaled.weights(x), strict=True):
        assert_within(there, here, 1024 * U)


@given(data=st.data())
def test_renaming_the_nodes_renames_the_result(data):
    graph = data.draw(graphs(simple=True, weights=["dyadic"]))
    order = torch.tensor(data.draw(st.permutations(range(graph.nodes))))
    renamed = type(graph)(torch.argsort(order)[graph.edge_index], graph.nodes, graph.edge_weight)
    layer = awake(combinatorial_laplacian(graph))
    x = data.draw(fields(graph.nodes, 1, exact=True))
    here, there = layer(x)[0].matrix().detach(), layer.on(renamed)(x[order])[0].matrix()
    assert_within(there, here[order][:, order], 4096 * U * (1 + float(here.abs().max())))


@given(data=st.data())
def test_each_batch_member_has_its_own_weights(data):
    L = data.draw(LAPLACIANS)
    layer, x = awake(L), data.draw(fields(L.shape[0], 1, batch=(2,), exact=True))
    laplacian, gradient = layer(x)
    for values, edge_values, member in zip(laplacian.values, gradient, x, strict=True):
        alone, alone_gradient = layer(member)
        assert_within(values, alone.values, 1024 * U * L.norm_bound())
        assert_within(edge_values, alone_gradient, 4096 * U * 16)


def test_on_shares_parameters_and_moves_the_edges():
    layer = awake(robust_laplacian(icosphere(0)))
    moved = layer.on(torus(8, 6))
    assert all(a is b for a, b in zip(moved.parameters(), layer.parameters(), strict=True))
    assert moved.edges.shape == (48, 48)
    assert layer.edges.shape == (12, 12)
    assert moved(torch.ones(48, 1, dtype=torch.float64))[0].shape == (48, 48)


def test_only_parameters_are_saved_and_a_copy_is_equal():
    layer = awake(robust_laplacian(icosphere(0)))
    assert set(layer.state_dict()) == {name for name, _ in layer.named_parameters()}
    x = torch.randn(12, 1, dtype=torch.float64)
    assert torch.equal(deepcopy(layer)(x)[0].values, layer(x)[0].values)


def test_bad_sizes_and_fields_are_refused():
    L = robust_laplacian(icosphere(0))
    for name in ("channels", "width", "hops"):
        with pytest.raises(DomainError, match="channels, width and hops must be at least 1, not"):
            SpatialDifference(L, **{name: 0})
        with pytest.raises(DomainError, match="channels, width and hops must be at least 1, not"):
            SpatialDifference(L, **{name: 1.5})
    with pytest.raises(FieldError, match=r"must have shape \(\.\.\., 12, c\)"):
        SpatialDifference(L)(torch.ones(11, 1, dtype=torch.float64))
    with pytest.raises(FieldError, match="nothing is converted silently"):
        SpatialDifference(L)(torch.ones(12, 1))
    with pytest.raises(FieldError, match="reads 1 real channels, not 3"):
        SpatialDifference(L)(torch.ones(5, 12, 3, dtype=torch.float64))
    with pytest.raises(FieldError, match="complex"):
        SpatialDifference(L)(torch.ones(12, 1, dtype=torch.complex128))
    edges, ones = adjacency_of(L), torch.ones(60, dtype=torch.float64)
    with pytest.raises(FieldError, match=r"must have shape \(\.\.\., 12, c\)"):
        modulated_gradient(edges, torch.ones(13, 1, dtype=torch.float64), ones, ones)


def test_one_weight_a_member_broadcasts_against_one_for_all():
    edges = adjacency_of(robust_laplacian(icosphere(0)))
    w, batch = torch.rand(60, dtype=torch.float64), torch.rand(3, 60, dtype=torch.float64)
    for w1, w2 in ((w, batch), (batch, w)):
        both = modulated_laplacian(edges, w1.expand(3, 60), w2.expand(3, 60))
        assert torch.equal(modulated_laplacian(edges, w1, w2).values, both.values)


def test_the_surface_learns_through_the_differences():
    mesh = icosphere(0)
    # Uneven, because the unit of time is a median, which has no derivative among equals.
    vertices = (mesh.vertices + 0.05 * torch.randn(12, 3, dtype=torch.float64)).requires_grad_()
    x = torch.randn(12, 1, dtype=torch.float64)
    layer = awake(cotangent_laplacian(mesh))

    def through(vertices):
        laplacian, gradient = layer.on(TriangleMesh(vertices, mesh.faces))(x)
        return laplacian @ x, gradient

    assert torch.autograd.gradcheck(through, vertices)


def test_on_a_graph_without_edges_nothing_is_different():
    graph = Graph(torch.zeros(2, 0, dtype=torch.int64), 4, torch.zeros(0, dtype=torch.float64))
    laplacian, gradient = SpatialDifference(combinatorial_laplacian(graph)).double()(torch.ones(4, 1, dtype=torch.float64))
    assert not laplacian.matrix().any()
    assert gradient.shape == (0, 1)
    assert bool(SpatialDifference(combinatorial_laplacian(graph)).geometry.node_features.isfinite().all())
