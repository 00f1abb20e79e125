"""Flows on the edges of a graph: Hodge Laplacians of its nodes, edges and triangles."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import assert_within, graphs, roundoff
from operators.checks import DomainError
from operators.clique import clique_complex, graph_hodge_laplacian
from operators.domains import Graph
from operators.laplacian import combinatorial_laplacian

U = roundoff(torch.float64)
degrees = pytest.mark.parametrize("degree", [0, 1, 2])


def dense(operator):
    return torch.from_numpy(operator.to_scipy().toarray())


def undirected(pairs, n):
    index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    return Graph(torch.cat([index, index.flip(0)], 1), n, torch.ones(2 * len(pairs), dtype=torch.float64))


def cells(graph):
    """Edges and triangles with a positive weight, by loops, and the dense d₀ and d₁."""
    W = np.zeros((graph.nodes, graph.nodes))
    np.add.at(W, tuple(graph.edge_index.numpy()), graph.edge_weight.numpy())
    edges = [(i, j) for i, j in itertools.combinations(range(graph.nodes), 2) if W[i, j] > 0]
    faces = [(i, j, k) for i, j, k in itertools.combinations(range(graph.nodes), 3) if min(W[i, j], W[j, k], W[i, k]) > 0]
    d0, d1 = np.zeros((len(edges), graph.nodes)), np.zeros((len(faces), len(edges)))
    for e, (i, j) in enumerate(edges):
        d0[e, i], d0[e, j] = -1, 1
    for t, (i, j, k) in enumerate(faces):
        d1[t, edges.index((i, j))] = d1[t, edges.index((j, k))] = 1
        d1[t, edges.index((i, k))] = -1
    return edges, faces, d0, d1, np.array([W[edge] for edge in edges])


@given(graph=graphs())
def test_edges_and_triangles_are_those_that_loops_find(graph):
    edges, faces, *_ = cells(graph)
    found, triangles = clique_complex(graph)
    assert [tuple(edge) for edge in found.T.tolist()] == edges
    assert [tuple(face) for face in triangles.tolist()] == faces


@degrees
@given(graph=graphs())
def test_agrees_with_the_dense_formula(degree, graph):
    _, faces, d0, d1, w = cells(graph)
    W = np.diag(w)
    expected = (
        d0.T @ W @ d0,
        W @ d0 @ d0.T @ W + d1.T @ d1,
        d1 @ np.diag(1 / w) @ d1.T,
    )[degree]
    L = graph_hodge_laplacian(graph, degree)
    C = L.stiffness.to_scipy()
    assert (C != C.T).nnz == 0
    diagonal = torch.from_numpy(np.sqrt(np.diag(expected)))
    assert_within(dense(L.stiffness), torch.from_numpy(expected), 64 * U * diagonal[:, None] * diagonal)
    mass = (np.ones(graph.nodes), w, np.ones(len(faces)))[degree]
    assert_within(L.mass, torch.from_numpy(mass), 32 * U * torch.from_numpy(mass))


@given(graph=graphs())
def test_on_nodes_it_is_the_combinatorial_laplacian(graph):
    expected = dense(combinatorial_laplacian(graph).stiffness)
    assert_within(dense(graph_hodge_laplacian(graph, 0).stiffness), expected, 32 * U * expected.abs().sum(1, keepdim=True))


@given(data=st.data())
def test_kernels_follow_from_the_ranks(data):
    graph = data.draw(graphs(weights=["ones"]))
    edges, faces, d0, d1, _ = cells(graph)
    # Of an empty matrix NumPy gives no rank.
    ranks = [0, *(int(np.linalg.matrix_rank(d)) if d.size else 0 for d in (d0, d1)), 0]
    for degree, count in enumerate((graph.nodes, len(edges), len(faces))):
        if count:
            values = torch.linalg.eigvalsh(dense(graph_hodge_laplacian(graph, degree).symmetrized().stiffness))
            # Repeated edges give small whole weights: the least eigenvalue above zero is far from round-off.
            assert int((values < 1e-9).sum()) == count - ranks[degree + 1] - ranks[degree]


@pytest.mark.parametrize(
    ("pairs", "n", "loops"),
    [
        ([(0, 1), (1, 2), (2, 0)], 3, 0),
        ([(0, 1), (1, 2), (2, 3), (3, 0)], 4, 1),
        ([(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 8), (8, 4)], 9, 2),
        (list(itertools.combinations(range(5), 2)), 5, 0),
    ],
    ids=["filled triangle", "square", "two loops", "complete"],
)
def test_kernel_on_edges_counts_the_loops_that_triangles_do_not_fill(pairs, n, loops):
    values = torch.linalg.eigvalsh(graph_hodge_laplacian(undirected(pairs, n), 1).matrix())
    assert int((values < 1e-12).sum()) == loops


def test_the_number_of_triangles_is_a_sixth_of_the_closed_walks_of_three_steps():
    A = torch.triu((torch.rand(60, 60) < 0.2).double(), diagonal=1)
    _, triangles = clique_complex(undirected(A.nonzero().tolist(), 60))
    both = A + A.T
    assert len(triangles) == round(float(torch.trace(both @ both @ both)) / 6)


def test_a_graph_without_triangles_or_edges_still_has_its_operators():
    square = undirected([(0, 1), (1, 2), (2, 3), (3, 0)], 4)
    assert (graph_hodge_laplacian(square, 2) @ torch.ones(0, 1, dtype=torch.float64)).shape == (0, 1)
    bare = undirected([], 3)
    assert graph_hodge_laplacian(bare, 1).shape == (0, 0)
    assert (graph_hodge_laplacian(bare, 0).matrix() == 0).all()


@degrees
def test_on_and_pickle_give_the_same_operator_in_float32_too(degree):
    tetrahedron = undirected(list(itertools.combinations(range(4), 2)), 4)
    narrow = graph_hodge_laplacian(tetrahedron.to(torch.float32), degree)
    assert narrow.dtype == torch.float32
    assert torch.equal(narrow.on(tetrahedron).matrix(), narrow.matrix())
    assert torch.equal(pickle.loads(pickle.dumps(narrow)).matrix(), narrow.matrix())


def test_directed_and_negative_graphs_are_refused_with_their_cure():
    with pytest.raises(DomainError, match=r"directed.*graph\.undirected\(\)"):
        graph_hodge_laplacian(Graph(torch.tensor([[0], [1]]), 2), 1)
    with pytest.raises(DomainError, match=r"1 edges have negative weight.*drop the edges"):
        graph_hodge_laplacian(Graph(torch.tensor([[0], [1]]), 2, torch.tensor([-1.0])), 1)
    with pytest.raises(DomainError, match="must be 0 or 1 or 2"):
        graph_hodge_laplacian(undirected([(0, 1)], 2), 3)
