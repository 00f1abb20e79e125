"""Rewirings hold what their names say, against brute force, whatever the positions or the graph."""

import math
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

import operators.rewiring as rewiring_module
from neuralpde.testing_graphs import graphs
from operators.checks import DomainError
from operators.domains import Graph
from operators.neighbours import Gaussian
from operators.page_rank import page_rank
from operators.position_space import Euclidean, PoincareBall, PositionSpace
from operators.rewiring import NearestNeighbours, PageRankThreshold, PageRankTopK, Radius, TwoHop


@dataclass(frozen=True)
class Taxicab(PositionSpace):
    """A space that only knows its distance."""

    def distance(self, u, v):
        return (u - v).abs().sum(-1)

    def log(self, u, v):
        raise NotImplementedError

    def exp(self, u, velocity):
        raise NotImplementedError


def all_distances(u, space):
    """The distance matrix by the textbook formula."""
    apart = u[:, None] - u[None]
    if isinstance(space, Taxicab):
        return apart.abs().sum(-1)
    square = apart.square().sum(-1)
    if isinstance(space, Euclidean):
        return square.sqrt()
    room = 1 - u.square().sum(-1)
    return torch.acosh(1 + 2 * square / (room[:, None] * room))


SPACES = [Euclidean(), PoincareBall(), Taxicab()]
spaces = pytest.mark.parametrize("space", SPACES, ids=lambda s: type(s).__name__)


@st.composite
def clouds(draw, distinct=False):
    """Points of the open unit ball, some of them near its rim, some of them copies."""
    n, d = draw(st.integers(2, 40)), draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    direction = random.normal(size=(n, d))
    length = 1 - 10 ** random.uniform(-draw(st.integers(int(distinct), 6)), 0, size=n)
    points = direction / np.linalg.norm(direction, axis=1, keepdims=True) * length[:, None]
    if not distinct and draw(st.booleans()):
        points = points[random.integers(0, max(1, n // 3), size=n)]
    return torch.from_numpy(points)


def adjacency(graph):
    matrix = torch.zeros(graph.nodes, graph.nodes, dtype=torch.float64)
    matrix[graph.edge_index[1], graph.edge_index[0]] = graph.edge_weight.double()
    return matrix


def assert_simple(graph):
    """Undirected, without self-loops, no edge twice."""
    matrix = adjacency(graph)
    assert torch.equal(matrix, matrix.T)
    assert float(matrix.diagonal().abs().max()) == 0
    assert int((matrix != 0).sum()) == graph.edge_index.shape[1]


@spaces
@given(data=st.data())
def test_the_nearest_are_the_nearest(space, data):
    u = data.draw(clouds())
    k = data.draw(st.integers(1, len(u) - 1))
    graph = NearestNeighbours(k, space)(u)
    assert_simple(graph)
    distance = all_distances(u, space).fill_diagonal_(math.inf)
    kth = distance.sort(dim=1).values[:, k - 1]
    joined = adjacency(graph) > 0
    assert bool((joined.sum(1) >= k).all())
    # Every edge is among the k nearest of one of its ends, and nothing nearer than the k-th is left out. The rim spends digits.
    slack = 1e-6 * (1 + kth)
    ends = torch.maximum(kth + slack, (kth + slack)[:, None])
    assert bool((distance[joined] <= ends[joined]).all())
    assert bool(joined[distance < (kth - slack)[:, None]].all())


@spaces
@given(data=st.data())
def test_the_radius_holds_what_lies_within(space, data):
    u = data.draw(clouds())
    r = data.draw(st.floats(0.05, 3.0))
    graph = Radius(r, space)(u)
    assert_simple(graph)
    distance = all_distances(u, space).fill_diagonal_(math.inf)
    joined, slack = adjacency(graph) > 0, 1e-6 * (1 + r)
    assert bool(joined[distance < r - slack].all())
    assert not bool(joined[distance > r + slack].any())


@spaces
@given(data=st.data())
def test_another_order_of_the_points_gives_the_same_edges(space, data):
    u = data.draw(clouds(distinct=True))
    order = torch.from_numpy(np.random.default_rng(len(u)).permutation(len(u)))
    for rewiring in (NearestNeighbours(max(1, len(u) // 4), space), Radius(0.7, space)):
        before, after = adjacency(rewiring(u)), adjacency(rewiring(u[order]))
        assert torch.equal(after, before[order][:, order])


@spaces
def test_many_copies_of_one_place_are_joined_and_not_searched_copy_by_copy(space):
    u = torch.cat([torch.full((300, 2), 0.25), 0.5 * torch.rand(20, 2)]).double()
    graph = NearestNeighbours(4, space)(u)
    assert_simple(graph)
    assert int((adjacency(graph) > 0).sum(1).min()) >= 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_are_functions_of_the_distance_with_its_gradient(dtype):
    u = torch.rand(12, 2, dtype=dtype, requires_grad=True)
    graph = NearestNeighbours(3, weight=Gaussian(0.5))(u)
    assert graph.edge_weight.dtype == dtype
    source, target = graph.edge_index
    expected = torch.exp(-(u[source] - u[target]).square().sum(1) / (2 * 0.25))
    assert torch.allclose(graph.edge_weight, expected, atol=1e-6)
    assert torch.allclose(*(torch.autograd.grad(w.sum(), u)[0] for w in (graph.edge_weight, expected)), atol=1e-5)
    assert torch.equal(NearestNeighbours(3)(u).edge_weight, torch.ones(graph.edge_index.shape[1], dtype=dtype))


@spaces
@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (torch.full((5, 2), math.nan), "non-finite"),
        (torch.tensor([[0.1, math.inf], [0.0, 0.0]]), "non-finite"),
        (torch.zeros(0, 2), "empty"),
        (torch.zeros(5, 2, dtype=torch.int64), "float32 or float64"),
        (torch.zeros(3, 5, 2), "members have no common graph"),
        (torch.zeros(5), "shape"),
    ],
)
def test_positions_that_have_no_graph_are_refused(space, positions, message):
    for rewiring in (NearestNeighbours(2, space), Radius(0.5, space)):
        with pytest.raises(DomainError, match=message):
            rewiring(positions)


def test_the_class_of_a_space_is_none():
    for make in (NearestNeighbours, Radius):
        with pytest.raises(DomainError, match="space of positions"):
            make(1, PoincareBall)


def test_points_outside_the_ball_are_refused():
    u = torch.tensor([[0.1, 0.2], [0.9, 0.9], [1.0, 0.0]])
    for rewiring in (NearestNeighbours(1, PoincareBall()), Radius(0.5, PoincareBall())):
        with pytest.raises(DomainError, match="2 positions lie outside the open unit ball, the first at node 1"):
            rewiring(u)


@spaces
def test_as_many_neighbours_as_points_are_refused(space):
    with pytest.raises(DomainError, match="take k from 1 to 4, or more points"):
        NearestNeighbours(5, space)(torch.rand(5, 2) / 2)


@spaces
def test_too_many_edges_are_refused(space):
    with pytest.raises(DomainError, match="raise most_edges"):
        Radius(2.0, space, most_edges=100)(torch.rand(30, 2).double() / 2)


@pytest.mark.parametrize("k", [0, -1, 2.5, True])
def test_a_count_that_is_none_is_refused(k):
    for make in (NearestNeighbours, PageRankTopK):
        with pytest.raises(DomainError, match="k must be a positive integer"):
            make(k)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_length_that_is_none_is_refused(value):
    for make in (Radius, PageRankThreshold):
        with pytest.raises(DomainError, match="positive, finite"):
            make(value)


@given(graph=graphs(min_nodes=2, weights=("ones", "wide")), data=st.data())
def test_the_top_k_have_the_largest_page_ranks(graph, data):
    k = data.draw(st.integers(1, graph.nodes - 1))
    found = PageRankTopK(k)(graph)
    assert_simple(found)
    rank = page_rank(graph).fill_diagonal_(0)
    rank[rank < 1e-13] = 0  # Round-off between components.
    kth = rank.sort(dim=1, descending=True).values[:, k - 1]
    joined = adjacency(found) > 0
    assert bool((rank[joined] > 0).all())
    assert bool((rank >= torch.minimum(kth, kth[:, None]) * (1 - 1e-9))[joined].all())
    assert bool(joined[(rank > kth[:, None] * (1 + 1e-9)) & (rank > 0)].all())


@given(graph=graphs(min_nodes=2, weights=("ones",)), threshold=st.floats(1e-4, 0.3))
def test_the_threshold_keeps_what_lies_above(graph, threshold):
    rank = page_rank(graph, 0.15).fill_diagonal_(0)
    found = PageRankThreshold(threshold, 0.15, weighted=True)(graph)
    assert_simple(found)
    clear = (rank - threshold).abs() > 1e-9
    assert torch.equal((adjacency(found) > 0)[clear], (rank >= threshold)[clear])
    joined = adjacency(found)
    assert torch.allclose(joined[joined > 0], rank[joined > 0])


def ring(n, chords=()):
    pairs = [(i, (i + 1) % n) for i in range(n)] + list(chords)
    index = torch.tensor(pairs).T
    return Graph(torch.cat([index, index.flip(0)], dim=1), n, torch.ones(2 * len(pairs), dtype=torch.float64))


@pytest.mark.parametrize("weighted", [False, True])
def test_pushed_page_ranks_give_the_same_edges(weighted):
    graph = ring(60, [(0, 17), (3, 40), (22, 51)])
    exact = page_rank(graph, 0.15)
    for make in (lambda eps: PageRankTopK(5, 0.15, weighted, eps), lambda eps: PageRankThreshold(1e-3, 0.15, weighted, eps)):
        dense, pushed = adjacency(make(None)(graph)), adjacency(make(1e-9)(graph))
        differ = (dense > 0) != (pushed > 0)
        # On a ring the neighbours of equal rank are many: only those may differ.
        kth = exact.clone().fill_diagonal_(0).sort(dim=1, descending=True).values[:, 4]
        tied = ((exact - kth).abs() < 1e-7) | ((exact - kth[:, None]).abs() < 1e-7)
        assert bool(tied[differ].all())
        assert torch.allclose(dense[~differ], pushed[~differ], atol=1e-7)


def test_weighted_page_ranks_have_a_gradient_in_the_edge_weights():
    graph = ring(6, [(0, 3)])
    weight = graph.edge_weight.clone().requires_grad_()
    found = PageRankTopK(2, 0.2, weighted=True)(Graph(graph.edge_index, 6, weight))
    assert bool(torch.autograd.grad(found.edge_weight.sum(), weight)[0].abs().sum() > 0)


def test_small_components_are_not_joined_to_others():
    graph = Graph(torch.tensor([[0, 1, 3, 4], [1, 0, 4, 3]]), 6)
    for rewiring in (PageRankTopK(4), PageRankTopK(4, tolerance=1e-6), PageRankThreshold(1e-12), TwoHop()):
        assert torch.equal(adjacency(rewiring(graph)), adjacency(graph))


def test_a_graph_without_edges_stays_without():
    graph = Graph(torch.zeros(2, 0, dtype=torch.int64), 4)
    for weighted in (False, True):
        for make in (
            lambda eps, w=weighted: PageRankTopK(2, 0.1, w, eps),
            lambda eps, w=weighted: PageRankThreshold(0.1, 0.1, w, eps),
        ):
            assert make(None)(graph).edge_weight.shape == make(1e-6)(graph).edge_weight.shape == (0,)
    assert TwoHop()(graph).edge_index.shape == (2, 0)


def test_as_many_others_as_nodes_are_refused():
    with pytest.raises(DomainError, match="6 others of 6 nodes do not exist"):
        PageRankTopK(6)(ring(6))


def test_a_directed_graph_has_no_page_rank():
    with pytest.raises(DomainError, match="undirected"):
        PageRankTopK(1)(Graph(torch.tensor([[0, 1], [1, 2]]), 3))


@given(graph=graphs(weights=("ones", "dyadic"), directed=True))
def test_two_hops_are_paths_of_one_or_two_edges(graph):
    found = TwoHop()(graph)
    assert_simple(found)
    A = (adjacency(graph) != 0).double()
    A = ((A + A.T) > 0).double().fill_diagonal_(0)
    assert torch.equal(adjacency(found), ((A + A @ A) > 0).double().fill_diagonal_(0))


@given(graph=graphs(min_nodes=2, weights=("ones",)))
def test_rewired_graphs_follow_a_renumbering(graph):
    order = torch.from_numpy(np.random.default_rng(graph.nodes).permutation(graph.nodes))
    place = torch.empty_like(order).index_copy_(0, order, torch.arange(graph.nodes))
    moved = Graph(place[graph.edge_index], graph.nodes, graph.edge_weight)
    for rewiring in (TwoHop(), PageRankThreshold(0.01234567)):
        assert torch.equal(adjacency(rewiring(moved)), adjacency(rewiring(graph))[order][:, order])


def test_a_hub_is_refused_before_its_neighbours_are_joined():
    n = 2000
    index = torch.stack([torch.zeros(n, dtype=torch.int64), torch.arange(1, n + 1)])
    with pytest.raises(DomainError, match="paths of two edges"):
        TwoHop(most_edges=1000)(Graph(torch.cat([index, index.flip(0)], dim=1), n + 1))
    with pytest.raises(DomainError, match="more than 239 pairs"):
        TwoHop(most_edges=239)(ring(60))
    assert TwoHop(most_edges=240)(ring(60)).edge_index.shape == (2, 240)


def test_rewirings_are_plain_values():
    for rewiring in (NearestNeighbours(3, PoincareBall(), Gaussian(1.0)), Radius(1.0), PageRankTopK(2), PageRankThreshold(0.1)):
        assert pickle.loads(pickle.dumps(rewiring)) == rewiring


def test_two_hop_matches_scipy_on_a_larger_graph(monkeypatch):
    graph = ring(500, [(0, 250), (10, 400)])
    A = sp.csr_array((np.ones(graph.edge_index.shape[1]), graph.edge_index.numpy()), shape=(500, 500))
    expected = ((A + A @ A).toarray() > 0) & ~np.eye(500, dtype=bool)
    assert np.array_equal(adjacency(TwoHop()(graph)).numpy() > 0, expected)
    monkeypatch.setattr(rewiring_module, "_BLOCK", 50)
    assert np.array_equal(adjacency(TwoHop()(graph)).numpy() > 0, expected)
