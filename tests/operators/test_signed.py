"""A signed Laplacian is positive semi-definite with weights of any sign; its kernel tells balance."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import assert_within, fields, graphs, roundoff
from operators.checks import DomainError
from operators.domains import Graph
from operators.laplacian import combinatorial_laplacian, symmetric_laplacian
from operators.signed import normalized_signed_laplacian, signed_laplacian

U = roundoff(torch.float64)
builds = pytest.mark.parametrize("build", [signed_laplacian, normalized_signed_laplacian])


@st.composite
def signed_graphs(draw, **kwargs):
    """Undirected graphs; the sign of an edge is that of a drawn symmetric matrix, so that repeats agree."""
    graph = draw(graphs(**kwargs))
    n = graph.nodes
    signs = np.array(draw(st.lists(st.sampled_from([1.0, -1.0]), min_size=n * n, max_size=n * n))).reshape(n, n)
    i, j = graph.edge_index
    sign = torch.from_numpy(signs)[torch.minimum(i, j), torch.maximum(i, j)]
    return Graph(graph.edge_index, n, graph.edge_weight * sign)


def adjacency_matrix(graph):
    W = np.zeros((graph.nodes, graph.nodes))
    np.add.at(W, tuple(graph.edge_index.numpy()), graph.edge_weight.numpy())
    np.fill_diagonal(W, 0)
    return W


def spectrum(laplacian):
    return torch.linalg.eigvalsh(torch.from_numpy(laplacian.stiffness.to_scipy().toarray()))


def balanced_components(W):
    """How many components can be coloured with two colours so that only negative edges change colour."""
    colour, balanced = np.zeros(len(W)), 0
    for start in range(len(W)):
        if colour[start]:
            continue
        colour[start], queue, good = 1, [start], True
        while queue:
            i = queue.pop()
            for j in np.flatnonzero(W[i]):
                wanted = colour[i] * np.sign(W[i, j])
                if colour[j] == 0:
                    colour[j] = wanted
                    queue.append(j)
                good &= bool(colour[j] == wanted)
        balanced += good
    return balanced


@given(graph=signed_graphs())
def test_agrees_with_the_dense_formula(graph):
    W = adjacency_matrix(graph)
    expected = torch.from_numpy(np.diag(np.abs(W).sum(1)) - W)
    assert_within(signed_laplacian(graph).matrix(), expected, 32 * U * expected.abs().sum(1, keepdim=True))


@given(graph=graphs())
def test_without_negative_weights_it_is_the_ordinary_laplacian(graph):
    expected = combinatorial_laplacian(graph).matrix()
    assert_within(signed_laplacian(graph).matrix(), expected, 32 * U * expected.abs().sum(1, keepdim=True))
    assert_within(normalized_signed_laplacian(graph).matrix(), symmetric_laplacian(graph).matrix(), 32 * U)


@builds
@given(graph=signed_graphs())
def test_is_symmetric_to_the_last_bit_and_positive_semi_definite(build, graph):
    L = build(graph)
    C = L.stiffness.to_scipy()
    assert (C != C.T).nnz == 0
    values = spectrum(L)
    assert values[0] >= -8 * len(values) * U * (1 + values[-1])


@given(data=st.data())
def test_quadratic_form_is_the_weighted_sum_of_squared_signed_differences(data):
    graph = data.draw(signed_graphs())
    x = data.draw(fields(graph.nodes, 1))
    L, W, z = signed_laplacian(graph), adjacency_matrix(graph), x.numpy()
    expected = (np.abs(W) * (z - np.sign(W) * z.T) ** 2).sum() / 2
    magnitude = (np.abs(W) * (np.abs(z) + np.abs(z.T)) ** 2).sum()
    assert_within(L.inner(x, L @ x), float(expected), 32 * U * magnitude)


@given(data=st.data())
def test_two_camps_only_change_signs(data):
    """Switching the nodes of one camp turns L into S L S: the same spectrum, and a kernel of +1 and −1."""
    graph = data.draw(graphs())
    signs = data.draw(st.lists(st.sampled_from([1.0, -1.0]), min_size=graph.nodes, max_size=graph.nodes))
    s = torch.tensor(signs, dtype=torch.float64)
    i, j = graph.edge_index
    switched = Graph(graph.edge_index, graph.nodes, graph.edge_weight * s[i] * s[j])
    expected = signed_laplacian(graph).matrix()
    L = signed_laplacian(switched)
    assert torch.equal(L.matrix(), s[:, None] * expected * s)
    assert_within(L @ s[:, None], 0.0, 32 * U * (expected.abs().sum(1, keepdim=True)))


@given(graph=signed_graphs(weights=["ones"]))
def test_dimension_of_the_kernel_is_the_number_of_balanced_components(graph):
    W = adjacency_matrix(graph)
    values = spectrum(signed_laplacian(graph))
    # With whole weights and at most nine nodes, the least eigenvalue above zero is far from round-off.
    assert int((values < 1e-9).sum()) == balanced_components(W)


def test_three_enemies_have_no_kernel():
    triangle = torch.tensor([[0, 1, 2, 1, 2, 0], [1, 2, 0, 0, 1, 2]])
    graph = Graph(triangle, 3, -torch.ones(6, dtype=torch.float64))
    assert_within(spectrum(signed_laplacian(graph)), torch.tensor([1.0, 1.0, 4.0], dtype=torch.float64), 32 * U)
    assert_within(spectrum(normalized_signed_laplacian(graph)), torch.tensor([0.5, 0.5, 2.0], dtype=torch.float64), 32 * U)


@given(graph=signed_graphs())
def test_spectrum_of_the_normalized_lies_in_0_2(graph):
    assert spectrum(normalized_signed_laplacian(graph))[-1] <= 2 + 32 * graph.nodes * U


@builds
@given(graph=signed_graphs())
def test_isolated_node_has_a_zero_row_and_a_positive_mass(build, graph):
    L = build(graph)
    alone = torch.from_numpy(np.abs(adjacency_matrix(graph)).sum(1) == 0)
    assert (L.matrix()[alone] == 0).all()
    assert (L.mass > 0).all()


@builds
def test_repeated_edges_add_up_before_their_size_is_taken_and_loops_drop_out(build):
    index = torch.tensor([[0, 1, 0, 1, 0, 2, 2], [1, 0, 1, 0, 2, 0, 2]])
    weight = torch.tensor([1.0, 1.0, -1.0, -1.0, -2.0, -2.0, 5.0], dtype=torch.float64)
    tidy = Graph(torch.tensor([[0, 2], [2, 0]]), 3, torch.full((2,), -2.0, dtype=torch.float64))
    assert torch.equal(build(Graph(index, 3, weight)).matrix(), build(tidy).matrix())


@builds
def test_on_and_pickle_give_the_same_operator(build):
    graph = Graph(torch.tensor([[0, 1], [1, 0]]), 3, torch.full((2,), -0.5))
    L = build(graph)
    assert L.dtype == torch.float32
    assert torch.equal(L.on(graph).matrix(), L.matrix())
    assert torch.equal(pickle.loads(pickle.dumps(L)).matrix(), L.matrix())


@builds
@pytest.mark.parametrize("edges", [[[0], [1]], [[0, 1], [1, 0]]])
def test_directed_graph_is_refused_with_its_cure(build, edges):
    weight = torch.tensor([1.0, -1.0])[: len(edges[0])]
    with pytest.raises(DomainError, match=r"directed.*graph\.undirected\(\)"):
        build(Graph(torch.tensor(edges), 2, weight))
