"""Personalised PageRank against closed forms and dense inverses; the push within the bound that it promises."""

import importlib
import math

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from operators.checks import DomainError
from operators.domains import Graph
from operators.page_rank import page_rank, sparse_page_rank

F64 = torch.float64
# The package has a function of the same name.
module = importlib.import_module("operators.page_rank")


def graph_of(pairs, nodes, weight=None, dtype=F64):
    index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    weight = torch.ones(index.shape[1], dtype=dtype) if weight is None else torch.as_tensor(weight, dtype=dtype)
    return Graph(torch.cat([index, index.flip(0)], 1), nodes, torch.cat([weight, weight]))


def dense_transition(graph):
    W = torch.eye(graph.nodes, dtype=F64)
    source, target = graph.edge_index
    proper = source != target
    W.index_put_((target[proper], source[proper]), graph.edge_weight[proper].double(), accumulate=True)
    d = W.sum(1)
    return W / (d[:, None] * d).sqrt(), d


@st.composite
def graphs(draw):
    """Weighted, disconnected, with isolated nodes, repeated edges and self-loops."""
    n = draw(st.integers(1, 14))
    ends = st.integers(0, n - 1)
    pairs = draw(st.lists(st.tuples(ends, ends), max_size=3 * n))
    weight = draw(st.lists(st.floats(0.01, 30), min_size=len(pairs), max_size=len(pairs)))
    return graph_of(pairs, n, weight)


def test_complete_graph_in_closed_form():
    # T = 1 1ᵀ / n, so S = α I + (1 − α) 1 1ᵀ / n.
    n, restart = 6, 0.2
    S = page_rank(graph_of([(i, j) for i in range(n) for j in range(i)], n), restart)
    torch.testing.assert_close(S, restart * torch.eye(n, dtype=F64) + (1 - restart) / n, rtol=1e-14, atol=1e-15)


def test_path_of_two_and_star_in_closed_form():
    # Two nodes: T = ½ everywhere.
    torch.testing.assert_close(page_rank(graph_of([(0, 1)], 2), 0.1)[0], torch.tensor([0.55, 0.45], dtype=F64))
    # A star of m leaves: eliminate the leaves, which hold ½ each.
    m, restart = 5, 0.15
    c = 1 - restart
    S = page_rank(graph_of([(0, k) for k in range(1, m + 1)], m + 1), restart)
    hub, leaf, link = 1 - c / (m + 1), 1 - c / 2, c / math.sqrt(2 * (m + 1))
    centre = restart / (hub - m * link**2 / leaf)
    assert float(S[0, 0]) == pytest.approx(centre, rel=1e-13)
    assert float(S[0, 1]) == pytest.approx(centre * link / leaf, rel=1e-13)
    assert float(S[1, 2]) == pytest.approx(centre * (link / leaf) ** 2, rel=1e-13)


@given(graph=graphs(), restart=st.floats(0.01, 1.0))
def test_exact_against_the_inverse_and_the_laws(graph, restart):
    T, d = dense_transition(graph)
    S = page_rank(graph, restart)
    wanted = restart * torch.from_numpy(np.linalg.inv(np.eye(graph.nodes) - (1 - restart) * T.numpy()))
    torch.testing.assert_close(S, wanted, rtol=1e-11, atol=1e-13)
    assert bool((S >= 0).all())
    torch.testing.assert_close(S @ d.sqrt(), d.sqrt(), rtol=1e-12, atol=0)


def test_of_random_walks_as_networkx_has_it():
    plain = nx.karate_club_graph()
    pairs = [(i, j) for i, j in plain.edges]
    S = page_rank(graph_of(pairs, len(plain)), 0.15)
    looped = nx.Graph(pairs)
    looped.add_edges_from((i, i) for i in plain)
    degree = torch.tensor([1.0 + plain.degree[i] for i in plain], dtype=F64)
    for source in (0, 11):
        law = nx.pagerank(looped, alpha=0.85, personalization={source: 1}, tol=1e-13, max_iter=1000, weight=None)
        law = torch.tensor([law[i] for i in plain], dtype=F64)
        torch.testing.assert_close(S[source], law * (degree[source] / degree).sqrt(), rtol=1e-8, atol=1e-10)


@given(graph=graphs(), restart=st.floats(0.2, 1.0), tolerance=st.floats(1e-4, 2.0), block=st.integers(10, 60))
def test_the_push_keeps_its_bound(graph, restart, tolerance, block):
    _, d = dense_transition(graph)
    if float(d.min()) ** 0.5 * tolerance >= 1:
        # Not even the walkers at home are enough to be pushed.
        with pytest.raises(DomainError, match="nothing is found"):
            sparse_page_rank(graph, restart, tolerance, progress=False)
        return
    before, module.BLOCK_ENTRIES = module.BLOCK_ENTRIES, block
    try:
        P = sparse_page_rank(graph, restart, tolerance, progress=False)
        rows = sparse_page_rank(graph, restart, tolerance, keep=graph.nodes, progress=False)
    finally:
        module.BLOCK_ENTRIES = before
    S, round_off = page_rank(graph, restart), 1e-13
    gap, own = S - P.matrix(), S - rows.matrix()
    assert bool((gap >= -round_off).all())
    assert bool((gap <= tolerance * torch.minimum(d[:, None], d).sqrt() + round_off).all())
    assert bool((own >= -round_off).all())
    assert bool((own <= tolerance * d.sqrt() + round_off).all())
    assert bool((P.values > 0).all())
    assert torch.equal(P.matrix(), P.matrix().T)


def test_both_ends_of_an_entry_are_heard():
    # From a hub the push stops short at each leaf; what the leaf knows of the hub makes up for it.
    graph = graph_of([(0, k) for k in range(1, 30)], 30)
    P = sparse_page_rank(graph, 0.1, 0.02, progress=False).matrix()
    rows = sparse_page_rank(graph, 0.1, 0.02, keep=30, progress=False).matrix()
    assert not torch.equal(rows, rows.T)
    assert torch.equal(P, torch.maximum(rows, rows.T))


def test_the_largest_of_each_row_are_kept():
    graph = graph_of([(i, i + 1) for i in range(9)], 10)
    everything = sparse_page_rank(graph, 0.1, 1e-5, keep=10, progress=False).matrix()
    P = sparse_page_rank(graph, 0.1, 1e-5, keep=3, progress=False)
    torch.testing.assert_close(P.matrix().sort(1).values[:, -3:], everything.sort(1).values[:, -3:], rtol=0, atol=0)
    assert bool((torch.bincount(P.pattern.row) == 3).all())


def test_work_and_store_do_not_grow_with_the_graph():
    # 4,000 nodes on a ring: what a source reaches is the same as on 200.
    def ring(n):
        return graph_of([(i, (i + 1) % n) for i in range(n)], n)

    small, large = (sparse_page_rank(ring(n), 0.2, 1e-3, progress=False) for n in (200, 4_000))
    assert large.pattern.nnz == 20 * small.pattern.nnz
    torch.testing.assert_close(large.row_sums(), small.row_sums()[:1].expand(4_000), rtol=1e-12, atol=0)


def test_precision_and_gradient():
    S = page_rank(graph_of([(0, 1), (1, 2)], 4, dtype=torch.float32))
    assert S.dtype == torch.float32
    assert sparse_page_rank(graph_of([(0, 1)], 2, dtype=torch.float32), progress=False).dtype == torch.float32
    index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])

    def of_weights(w):
        return page_rank(Graph(index, 4, w.repeat_interleave(2)), 0.3)

    assert torch.autograd.gradcheck(of_weights, torch.tensor([0.7, 2.0], dtype=F64, requires_grad=True))


def test_seldom_going_home_forgets_where_home_is():
    # As α falls, S tends to √d √dᵀ / Σ d, which a solve without pivots must still reach.
    graph = graph_of([(0, 1), (1, 2), (2, 3), (0, 2)], 4, [1.0, 5.0, 0.3, 2.0])
    _, d = dense_transition(graph)
    torch.testing.assert_close(page_rank(graph, 1e-6), (d[:, None] * d).sqrt() / d.sum(), rtol=1e-4, atol=0)


def test_large_weights_are_not_taken_for_small_ranks():
    # ε √d > 1: all ranks would round to zero, silently.
    graph = graph_of([(0, 1), (1, 2)], 3, [1e9, 1e9])
    with pytest.raises(DomainError, match=r"lie below 3.2e-05"):
        sparse_page_rank(graph, progress=False)
    gap = page_rank(graph) - sparse_page_rank(graph, tolerance=1e-9, progress=False).matrix()
    assert float(gap.abs().max()) < 1e-4


def test_isolated_nodes_stay_at_home():
    graph = graph_of([(0, 1)], 4)
    for S in (page_rank(graph), sparse_page_rank(graph, progress=False).matrix()):
        torch.testing.assert_close(S[2:], torch.eye(4, dtype=F64)[2:], rtol=0, atol=3e-4)


def test_refusals():
    directed = Graph(torch.tensor([[0], [1]]), 2)
    for rank in (page_rank, sparse_page_rank):
        with pytest.raises(DomainError, match="undirected"):
            rank(directed)
        with pytest.raises(DomainError, match="negative"):
            rank(graph_of([(0, 1)], 2, [-1.0]))
        for restart in (0.0, 1e-9, 1.1, math.nan):
            with pytest.raises(DomainError, match=r"\[1e-6, 1\]"):
                rank(graph_of([(0, 1)], 2), restart)
    with pytest.raises(DomainError, match="sparse_page_rank"):
        page_rank(Graph(torch.zeros(2, 0, dtype=torch.int64), 200_000))
    for tolerance in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(DomainError, match="tolerance"):
            sparse_page_rank(graph_of([(0, 1)], 2), 0.1, tolerance)
    for keep in (0, 1.5, True):
        with pytest.raises(DomainError, match="keep"):
            sparse_page_rank(graph_of([(0, 1)], 2), keep=keep)
    with pytest.raises(DomainError, match="raise the tolerance"):
        sparse_page_rank(graph_of([(0, 1), (1, 2)], 3), 0.05, 1e-6, max_bytes=500, progress=False)


def test_published_graphs(real_graph):
    inside = (real_graph.edge_index < 700).all(0)
    part = Graph(real_graph.edge_index[:, inside], 700, real_graph.edge_weight[inside])
    tolerance = 1e-3
    _, d = dense_transition(part)
    gap = page_rank(part, 0.15) - sparse_page_rank(part, 0.15, tolerance, progress=False).matrix()
    assert float(gap.min()) > -1e-13
    assert bool((gap <= tolerance * torch.minimum(d[:, None], d).sqrt() + 1e-13).all())
