"""A tree fits into the Poincaré disc: neighbours nearest, the root in the middle, distances those of the tree."""

import dataclasses
import math

import networkx as nx
import pytest
import torch

import operators.poincare_embedding as module
from operators.checks import DomainError
from operators.domains import Graph
from operators.poincare_embedding import PoincareEmbedding
from operators.position_space import PoincareBall

QUICK = PoincareEmbedding(2, epochs=150, rate=0.1, progress=False)
BALL = PoincareBall()


def tree(depth):
    plain = nx.balanced_tree(2, depth)
    index = torch.tensor(list(plain.edges)).T
    hops = dict(nx.all_pairs_shortest_path_length(plain))
    n = len(plain)
    return Graph(torch.cat([index, index.flip(0)], 1), n), torch.tensor([[hops[i][j] for j in range(n)] for i in range(n)])


def test_a_tree_in_the_disc():
    graph, hops = tree(4)
    u = QUICK(graph)
    BALL.check(u)
    d = BALL.distance(u[:, None], u)
    # The mean rank of a neighbour among all other nodes; 15 by chance, 1.9 at best (every node has 1 to 3 neighbours).
    n = graph.nodes
    rank = (d[:, None, :] < d[:, :, None]).sum(-1)
    assert float(rank[hops == 1].double().mean()) < 3
    pair = hops > 0
    correlation = torch.corrcoef(torch.stack([d[pair].double(), hops[pair].double()]))[0, 1]
    assert float(correlation) > 0.7
    radius = u.norm(dim=1)
    assert float(radius[:3].mean()) < float(radius[n // 2 :].mean())


def test_seed_precision_and_the_global_generator():
    graph, _ = tree(3)
    quick = dataclasses.replace(QUICK, epochs=5)
    before = torch.random.get_rng_state()
    one, two = quick(graph), quick(graph)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one, two)
    assert not torch.equal(one, dataclasses.replace(quick, seed=1)(graph))
    assert one.dtype == torch.float32
    assert quick(graph.to(torch.float64)).dtype == torch.float64
    assert dataclasses.replace(quick, progress=True) == quick


def test_grad_mode_makes_no_difference():
    graph, _ = tree(2)
    quick = dataclasses.replace(QUICK, epochs=3)
    learned = Graph(graph.edge_index, graph.nodes, graph.edge_weight.clone().requires_grad_())
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            again = Graph(graph.edge_index.clone(), graph.nodes, graph.edge_weight.double())
            assert torch.equal(quick(graph), quick(learned))
            assert torch.equal(quick(again).float(), quick(learned))
    assert torch.equal(quick(again).float(), quick(learned))
    assert not quick(learned).requires_grad


def test_huge_graphs_are_taken_a_part_at_a_time(monkeypatch):
    graph, _ = tree(4)
    quick = dataclasses.replace(QUICK, epochs=20)
    sizes, gradient = [], module._gradient

    def watched(u, source, *others):
        sizes.append(len(source))
        return gradient(u, source, *others)

    monkeypatch.setattr(module, "_gradient", watched)
    monkeypatch.setattr(module, "COORDINATES", 7 * 2 * (quick.negatives + 1))
    BALL.check(quick(graph))
    assert max(sizes) == 7
    assert sum(sizes) == 20 * graph.edge_index.shape[1]


def test_far_more_steps_than_needed_stay_in_the_ball():
    graph, _ = tree(2)
    u = dataclasses.replace(QUICK, rate=5.0, epochs=60, dimensions=3)(graph)
    BALL.check(u)
    assert float(dataclasses.replace(QUICK, rate=5.0, epochs=60, margin=0.1)(graph).norm(dim=1).max()) <= 0.9 + 1e-6


def test_isolated_nodes_directions_and_weights():
    graph, _ = tree(3)
    quick = dataclasses.replace(QUICK, epochs=10)
    u = quick(Graph(torch.cat([graph.edge_index, torch.tensor([[16], [16]])], 1), 17))
    assert torch.equal(u[15:], torch.zeros(2, 2))
    assert bool((u[:15] != 0).any(1).all())
    BALL.check(quick(Graph(torch.tensor([[0, 1], [1, 2]]), 3)))
    heavy = Graph(graph.edge_index, 15, torch.full((graph.edge_index.shape[1],), 1e30))
    torch.testing.assert_close(quick(heavy), quick(graph), rtol=1e-4, atol=1e-5)


def test_published_graphs(real_graph):
    inside = (real_graph.edge_index < 400).all(0)
    part = Graph(real_graph.edge_index[:, inside], 400)
    u = dataclasses.replace(QUICK, epochs=15, dimensions=8)(part)
    BALL.check(u)
    near = BALL.distance(*u[part.edge_index]).mean()
    connected = u[(u != 0).any(1)]
    assert float(near) < 0.8 * float(BALL.distance(connected[:, None], connected).mean())


@pytest.mark.parametrize(
    "changed",
    [{"dimensions": 0}, {"epochs": 1.5}, {"negatives": True}, {"rate": math.nan}, {"rate": 0.0}, {"margin": 1.0}, {"seed": 0.5}],
)
def test_settings_out_of_range(changed):
    with pytest.raises(DomainError, match=next(iter(changed))):
        dataclasses.replace(QUICK, **changed)


def test_graphs_that_say_nothing():
    with pytest.raises(DomainError, match="no edge"):
        QUICK(Graph(torch.tensor([[1], [1]]), 3))
    with pytest.raises(DomainError, match="negative weight"):
        QUICK(Graph(torch.tensor([[0, 1], [1, 0]]), 2, torch.tensor([-1.0, -1.0])))
