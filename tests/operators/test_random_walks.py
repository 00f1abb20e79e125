"""Walks step along edges with the right chances, whatever the weights, and never touch torch's own generator."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from operators.checks import DomainError
from operators.domains import Graph
from operators.random_walks import RandomWalks


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@st.composite
def directed(draw):
    n = draw(st.integers(1, 12))
    ends = st.integers(0, n - 1)
    pairs = draw(st.lists(st.tuples(ends, ends), max_size=3 * n))
    weight = draw(st.lists(st.sampled_from([0.0, 1e-12, 0.5, 1.0, 7.0, 1e200]), min_size=len(pairs), max_size=len(pairs)))
    index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    return Graph(index, n, torch.tensor(weight, dtype=torch.float64))


@given(graph=directed(), seed=st.integers(0, 1000))
def test_every_step_is_an_edge_or_a_stay(graph, seed):
    walks = RandomWalks(graph)
    path = walks(torch.arange(graph.nodes).repeat(3), 6, seeded(seed))
    assert path.shape == (3 * graph.nodes, 7)
    edges = {(int(i), int(j)) for (i, j), w in zip(graph.edge_index.T.tolist(), graph.edge_weight.tolist(), strict=True) if w > 0}
    for i, j in zip(path[:, :-1].flatten().tolist(), path[:, 1:].flatten().tolist(), strict=True):
        assert (i, j) in edges or (i == j and bool(walks.stuck[i]))
    assert walks.stuck.tolist() == [not any(i == k for i, _ in edges) for k in range(graph.nodes)]


@pytest.mark.parametrize("weight", [[1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 5.0, 3.0]])
def test_chances_are_the_weights(weight):
    weight = torch.tensor(weight, dtype=torch.float64)
    graph = Graph(torch.tensor([[2, 2, 2, 0], [0, 1, 3, 1]]), 4, weight)
    count = 40_000
    path = RandomWalks(graph)(torch.full((count,), 2), 2, seeded())
    chance = weight[:3] / weight[:3].sum()
    found = torch.bincount(path[:, 1], minlength=4)[[0, 1, 3]] / count
    # Five standard deviations.
    assert bool(((found - chance).abs() < 5 * (chance * (1 - chance) / count).sqrt()).all())
    assert torch.equal(path[:, 2], torch.where(path[:, 1] == 0, 1, path[:, 1]))


def test_heavy_edges_elsewhere_leave_the_chances_alone():
    graph = Graph(torch.tensor([[0, 1, 1], [1, 0, 2]]), 3, torch.tensor([1e200, 1.0, 1.0], dtype=torch.float64))
    path = RandomWalks(graph)(torch.ones(10_000, dtype=torch.int64), 1, seeded())
    assert abs(float((path[:, 1] == 0).double().mean()) - 0.5) < 0.025


def test_late_places_follow_the_degrees():
    pairs = torch.tensor([(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 2), (4, 1)]).T
    graph = Graph(torch.cat([pairs, pairs.flip(0)], 1), 5)
    path = RandomWalks(graph)(torch.zeros(40_000, dtype=torch.int64), 30, seeded())
    degree = torch.bincount(graph.edge_index[0]) / graph.edge_index.shape[1]
    assert torch.allclose(torch.bincount(path[:, -1], minlength=5) / len(path), degree, atol=0.013)


def test_the_seed_alone_decides():
    graph = Graph(torch.tensor([[0, 1, 2, 1], [1, 2, 0, 0]]), 3)
    before = torch.random.get_rng_state()
    one, two, other = (RandomWalks(graph)(torch.arange(3), 50, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_refusals():
    graph = Graph(torch.tensor([[0], [1]]), 2)
    with pytest.raises(DomainError, match="negative weight"):
        RandomWalks(Graph(graph.edge_index, 2, torch.tensor([-1.0])))
    for steps in (-1, 1.5, True):
        with pytest.raises(DomainError, match="steps"):
            RandomWalks(graph)(torch.arange(2), steps, seeded())
    with pytest.raises(DomainError, match="only 2 points"):
        RandomWalks(graph)(torch.tensor([2]), 1, seeded())
    empty = RandomWalks(Graph(torch.zeros(2, 0, dtype=torch.int64), 3))
    assert torch.equal(empty(torch.arange(3), 2, seeded()), torch.arange(3)[:, None].expand(3, 3))
