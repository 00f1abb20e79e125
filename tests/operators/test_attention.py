"""Attention is a random walk that the field steers: rows sum to one, weights are not negative, nodes have no names."""

import math
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
    ScaledDotProduct,
    SparsityPattern,
    TriangleMesh,
    combinatorial_laplacian,
    cotangent_laplacian,
    icosphere,
    random_walk_laplacian,
    robust_laplacian,
    torus,
)
from operators.normalisation import row_softmax

LAPLACIANS = st.one_of(
    graphs().map(combinatorial_laplacian), graphs().map(random_walk_laplacian), meshes().map(robust_laplacian)
)


def awake(laplacian, channels=2, width=3, heads=2, size=1.0):
    """An attention whose queries are not zero."""
    attention = ScaledDotProduct(laplacian, channels, width, heads)
    torch.nn.init.normal_(attention.query.weight, std=size)
    return attention


@pytest.mark.parametrize("size", [1.0, 1e4, 1e8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(data=st.data())
def test_rows_sum_to_one_and_weights_are_not_negative_for_any_logits(size, dtype, data):
    L = data.draw(LAPLACIANS).to(dtype)
    A = awake(L, size=size)(data.draw(fields(L.shape[0], 2, dtype=dtype)))
    degree = (A.pattern.crow[1:] - A.pattern.crow[:-1]).double()
    assert (A.values >= 0).all()
    assert_within(A.row_sums(), 1.0, 8 * (4 + degree.sqrt()) * roundoff(dtype))


@given(data=st.data())
def test_zero_queries_give_the_random_walk_of_the_geometry(data):
    graph = data.draw(graphs())
    L = combinatorial_laplacian(graph)
    W = torch.diag(L.matrix().diagonal()) - L.matrix()
    degree = W.sum(1)
    walk = torch.where(degree[:, None] > 0, W / degree[:, None], torch.eye(graph.nodes))
    attention = ScaledDotProduct(L, 2, heads=3)
    x = data.draw(fields(graph.nodes, 2))
    # exp(log w) loses |log w| ulps, and |log w| < 20 here.
    assert_within(attention(x).matrix(), walk, 512 * roundoff(torch.float64) * walk)
    assert_within(attention.rate, degree, 8 * roundoff(torch.float64) * degree)


@given(data=st.data())
def test_attention_is_the_dense_softmax_averaged_over_heads(data):
    graph = data.draw(graphs(simple=True, weights=["ones"], min_nodes=2))
    L = combinatorial_laplacian(graph)
    attention, x = awake(L), data.draw(fields(graph.nodes, 2, exact=True)) / 8
    edges = -L.matrix()
    edges.fill_diagonal_(0)
    edges[edges.sum(1) == 0] = torch.eye(graph.nodes, dtype=torch.float64)[edges.sum(1) == 0]
    key, query = (layer(x).reshape(graph.nodes, 2, 3) for layer in (attention.key, attention.query))
    score = torch.einsum("ihd,jhd->hij", key, query) / math.sqrt(3)
    expected = torch.softmax(score.masked_fill(edges == 0, -math.inf), dim=-1).mean(0)
    assert_within(attention(x).matrix(), expected, 1024 * roundoff(torch.float64) * (1 + score.detach().abs().max()))


@given(data=st.data())
def test_a_node_without_neighbours_attends_to_itself(data):
    graph = data.draw(graphs())
    index = torch.cat([graph.edge_index, graph.edge_index.new_full((2, 0), 0)], 1)
    L = combinatorial_laplacian(Graph(index, graph.nodes + 1, graph.edge_weight))
    row = awake(L)(data.draw(fields(graph.nodes + 1, 2))).matrix()[-1]
    assert_within(row, torch.eye(graph.nodes + 1, dtype=torch.float64)[-1], 4 * roundoff(torch.float64))


@given(data=st.data())
def test_renaming_the_nodes_renames_the_attention(data):
    graph = data.draw(graphs())
    order = torch.tensor(data.draw(st.permutations(range(graph.nodes))))
    rank = torch.argsort(order)
    x = data.draw(fields(graph.nodes, 2, exact=True))
    attention = awake(combinatorial_laplacian(graph))
    renamed = attention.on(Graph(rank[graph.edge_index], graph.nodes, graph.edge_weight))
    expected = attention(x).matrix()[order][:, order]
    largest = float((attention.key(x).abs().max() * attention.query(x).abs().max()).detach())
    assert_within(renamed(x[order]).matrix(), expected, 512 * roundoff(torch.float64) * (20 + largest))


@given(data=st.data())
def test_each_batch_member_has_its_own_attention(data):
    L = data.draw(LAPLACIANS)
    attention, x = awake(L), data.draw(fields(L.shape[0], 2, batch=(2,), exact=True))
    together = attention(x)
    for values, member in zip(together.values, x, strict=True):
        assert_within(values, attention(member).values, 1024 * roundoff(torch.float64) * (20 + 1000))
    assert (together @ x).shape == x.shape


@given(data=st.data())
def test_diffusion_by_attention_stays_in_the_hull_of_the_field(data):
    L = data.draw(LAPLACIANS)
    x = data.draw(fields(L.shape[0], 2))
    y = awake(L)(x) @ x
    slack = 64 * roundoff(torch.float64) * x.abs().max()
    assert (y <= x.max(0).values + slack).all()
    assert (y >= x.min(0).values - slack).all()


def test_gradients_reach_queries_and_keys_and_the_field():
    attention = awake(robust_laplacian(icosphere(0)))
    x = torch.randn(12, 2, dtype=torch.float64, requires_grad=True)
    (attention(x) @ x).square().sum().backward()
    for tensor in (attention.key.weight, attention.query.weight, x):
        assert tensor.grad.abs().sum() > 0


def test_untrained_attention_still_learns():
    attention = ScaledDotProduct(robust_laplacian(icosphere(0)), 2)
    x = torch.randn(12, 2, dtype=torch.float64)
    (attention(x) @ x).square().sum().backward()
    assert attention.query.weight.grad.abs().sum() > 0


def test_derivatives_of_both_orders():
    attention = awake(robust_laplacian(icosphere(0)), heads=1)
    x = torch.randn(12, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: attention(x) @ x, x)
    assert torch.autograd.gradgradcheck(lambda x: attention(x) @ x, x)


def test_on_shares_parameters_and_moves_the_edges():
    attention = awake(robust_laplacian(icosphere(0)))
    moved = attention.on(torus(8, 6))
    assert all(a is b for a, b in zip(moved.parameters(), attention.parameters(), strict=True))
    assert len(list(attention.parameters())) == 2
    assert moved(torch.ones(48, 2, dtype=torch.float64)).shape == (48, 48)
    assert attention(torch.ones(12, 2, dtype=torch.float64)).shape == (12, 12)
    assert torch.equal(moved.rate, ScaledDotProduct(robust_laplacian(torus(8, 6)), 2).rate)


def test_only_parameters_are_saved():
    assert set(awake(robust_laplacian(icosphere(0))).state_dict()) == {"key.weight", "query.weight"}


def test_a_copy_is_equal_and_its_own():
    attention = awake(robust_laplacian(icosphere(0)))
    copy, x = deepcopy(attention), torch.randn(12, 2, dtype=torch.float64)
    assert torch.equal(copy(x).values, attention(x).values)
    assert copy.key.weight is not attention.key.weight


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_refused(bad):
    pattern = SparsityPattern(torch.tensor([0]), torch.tensor([0]), (1, 1))
    with pytest.raises(DomainError, match=r"logits are not finite.*diverged"):
        row_softmax(torch.tensor([bad]), pattern)


def test_bad_sizes_and_fields_are_refused():
    L = robust_laplacian(icosphere(0))
    for name in ("channels", "width", "heads"):
        with pytest.raises(DomainError, match=f"{name} must be at least 1, not 0"):
            ScaledDotProduct(L, **{"channels": 1, name: 0})
    with pytest.raises(FieldError, match=r"must have shape \(\.\.\., 12, c\)"):
        ScaledDotProduct(L, 1)(torch.ones(11, 1, dtype=torch.float64))
    with pytest.raises(FieldError, match="nothing is converted silently"):
        ScaledDotProduct(L, 1)(torch.ones(12, 1))
    with pytest.raises(FieldError, match="reads 2 real channels, not 3"):
        ScaledDotProduct(L, 2)(torch.ones(5, 12, 3, dtype=torch.float64))
    with pytest.raises(FieldError, match="complex"):
        ScaledDotProduct(L, 2)(torch.ones(12, 2, dtype=torch.complex128))
    pattern = L.stiffness.pattern
    for wrong in (torch.ones(pattern.nnz - 1), torch.ones(pattern.nnz + 1), torch.ones(()), torch.ones(pattern.nnz).long()):
        with pytest.raises(FieldError, match=rf"floating point of shape \(\.\.\., {pattern.nnz}\)"):
            row_softmax(wrong, pattern)


def test_vmap_over_states_is_the_batch():
    L = robust_laplacian(icosphere(1))
    diffusivity = ScaledDotProduct(L, 2, heads=2)
    torch.nn.init.normal_(diffusivity.query.weight)
    x = torch.randn(3, 42, 2, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(lambda state: diffusivity(state) @ state)(x), diffusivity(x) @ x)


def test_the_surface_learns_through_the_attention():
    """A diffusivity of differentiable weights passes their gradient on."""
    mesh = icosphere(0)
    vertices = mesh.vertices.clone().requires_grad_()
    x = torch.randn(12, 2, dtype=torch.float64)
    attention = awake(cotangent_laplacian(mesh))

    def through(vertices):
        moved = attention.on(TriangleMesh(vertices, mesh.faces))
        return moved(x) @ x + moved.rate[:, None]

    assert torch.autograd.gradcheck(through, vertices)
