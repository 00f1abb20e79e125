"""DeepWalk reaches the optimum of its objective, and puts nodes that walks pass together near each other."""

import dataclasses
import math

import pytest
import torch
from torch.nn.functional import normalize

import operators.deepwalk as deepwalk_module
from operators.checks import DomainError
from operators.deepwalk import DeepWalk
from operators.domains import Graph
from operators.random_walks import RandomWalks

QUICK = DeepWalk(16, walks=4, length=15, context=6, progress=False)
SHORT = dataclasses.replace(QUICK, epochs=1)


def circulant(n, steps):
    source = torch.arange(n).repeat(len(steps))
    target = (source + torch.tensor(steps).repeat_interleave(n)) % n
    return Graph(torch.stack([torch.cat([source, target]), torch.cat([target, source])]), n)


def communities(parts, size, inside=8, between=0.05, seed=0):
    """Random graph of `parts` groups; pairs (2, E) in both directions."""
    random = torch.Generator().manual_seed(seed)
    n = parts * size
    group = torch.arange(n) // size
    chance = torch.where(group[:, None] == group, inside / size, between * inside / size)
    upper = (torch.rand(n, n, generator=random) < chance).triu(1).nonzero().T
    return Graph(torch.cat([upper, upper.flip(0)], 1), n), group


def test_the_optimum_of_the_objective():
    # A regular graph, where walks stay evenly distributed: p(i, j) sums powers of the transition matrix over the window.
    n, k = 9, 2.0
    graph = circulant(n, [1, 2])
    walk = DeepWalk(n, walks=400, length=12, context=4, negatives=k, epochs=4, rate=0.03, power=1.0, progress=False)
    P = torch.zeros(n, n, dtype=torch.float64).index_put((*graph.edge_index,), torch.tensor(0.25, dtype=torch.float64))
    met = sum((13 - r) * torch.linalg.matrix_power(P, r) for r in (1, 2, 3)) / sum(13 - r for r in (1, 2, 3))
    x, y = walk.both(graph)
    score = (x @ y.T).double()
    # Sampling noise; without log k, or with another window, the gap is 0.5 or more.
    assert float((score - ((n * met).log() - math.log(k))).abs().max()) < 0.2


def test_neighbours_are_alike_and_hidden_edges_are_foreseen():
    graph, group = communities(6, 40)
    pairs = graph.edge_index[:, graph.edge_index[0] < graph.edge_index[1]]
    hidden = torch.zeros(pairs.shape[1], dtype=torch.bool)
    hidden[::10] = True
    seen = Graph(torch.cat([pairs[:, ~hidden], pairs[:, ~hidden].flip(0)], 1), graph.nodes)
    x = QUICK(seen)
    x = normalize(x - x.mean(0), dim=1)
    alike = x @ x.T
    same = group[:, None] == group
    assert float(alike[same].mean() - alike[~same].mean()) > 0.4
    # The chance that a hidden edge scores above a random pair.
    random = torch.randint(graph.nodes, (2, 4000), generator=torch.Generator().manual_seed(1))
    true, false = (alike[p[0], p[1]] for p in (pairs[:, hidden], random))
    assert float((true[:, None] > false).double().mean()) > 0.75


def test_published_graphs(real_graph):
    inside = (real_graph.edge_index < 400).all(0)
    part = Graph(real_graph.edge_index[:, inside], 400)
    x = QUICK(part)
    connected = (x != 0).any(1)
    assert int(connected.sum()) > 50
    unit = normalize(x - x[connected].mean(0), dim=1)
    alike = (unit[part.edge_index[0]] * unit[part.edge_index[1]]).sum(1)
    among = unit[connected] @ unit[connected].T
    assert float(alike.mean() - among.mean()) > 0.5


def test_seed_precision_and_the_global_generator():
    graph, _ = communities(2, 20)
    before = torch.random.get_rng_state()
    one, two = SHORT(graph), SHORT(graph)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one, two)
    assert not torch.equal(one, dataclasses.replace(SHORT, seed=1)(graph))
    assert one.shape == (40, 16)
    assert SHORT(graph.to(torch.float64)).dtype == torch.float64
    assert dataclasses.replace(SHORT, progress=True) == SHORT


def test_isolated_nodes_and_ends_of_the_road():
    graph, _ = communities(2, 20)
    lonely = Graph(graph.edge_index, 43)
    x, y = QUICK.both(lonely)
    assert torch.equal(x[40:], torch.zeros(3, 16))
    assert torch.equal(y[40:], torch.zeros(3, 16))
    assert bool((x[:40] != 0).any(1).all())
    # Two one-way chains: what never meets on a walk is not alike, and a walk that has ended adds nothing.
    chains = Graph(torch.tensor([[0, 1, 3, 4], [1, 2, 4, 5]]), 6)
    x, y = QUICK.both(chains)
    score = x @ y.T
    assert bool(torch.isfinite(score).all())
    assert float(score[:3, :3][~torch.eye(3, dtype=torch.bool)].min()) > float(score[:3, 3:].max())
    assert bool((score.diagonal() < score[:3, :3].max()).all())


def test_long_walks_are_taken_few_at_a_time(monkeypatch):
    # The products of a chunk grow with the square of the length.
    graph, _ = communities(2, 20)
    sizes = []

    class Watched(RandomWalks):
        def __call__(self, starts, steps, generator):
            sizes.append(len(starts))
            return super().__call__(starts, steps, generator)

    monkeypatch.setattr(deepwalk_module, "RandomWalks", Watched)
    monkeypatch.setattr(deepwalk_module, "NUMBERS", 5000)
    assert bool(torch.isfinite(dataclasses.replace(SHORT, length=29, walks=20)(graph)).all())
    assert max(sizes) == 5000 // 30**2


def test_heavier_edges_bring_nearer():
    index = torch.tensor([[0, 1, 0, 2, 1, 3, 2, 3], [1, 0, 2, 0, 3, 1, 3, 2]])
    graph = Graph(index, 4, torch.tensor([50.0, 50, 1, 1, 1, 1, 50, 50]))
    x = dataclasses.replace(QUICK, context=2)
    score = torch.matmul(*(part if k == 0 else part.T for k, part in enumerate(x.both(graph))))
    assert float(score[0, 1]) > float(score[0, 2]) + 1


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"dimensions": 0}, "dimensions"),
        ({"walks": 1.5}, "walks"),
        ({"length": True}, "length"),
        ({"epochs": -1}, "epochs"),
        ({"context": 1}, "context"),
        ({"negatives": 0.0}, "negatives"),
        ({"rate": math.nan}, "rate"),
        ({"power": 2.0}, "power"),
        ({"seed": 1.5}, "seed"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_out_of_range(changed, told):
    with pytest.raises(DomainError, match=told):
        dataclasses.replace(QUICK, **changed)


def test_graphs_that_say_nothing():
    with pytest.raises(DomainError, match="no edge"):
        QUICK(Graph(torch.zeros(2, 0, dtype=torch.int64), 3))
    with pytest.raises(DomainError, match="negative weight"):
        QUICK(Graph(torch.tensor([[0, 1], [1, 0]]), 2, torch.tensor([-1.0, -1.0])))
