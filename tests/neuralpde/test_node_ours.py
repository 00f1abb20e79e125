"""Our methods prepare what they say, and learn what a linear classifier of the features cannot."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from neuralpde.node_ours import KernelFlow, Propagation, dense, joined, kernel_weighted, nearest, rare_words, unit_features
from neuralpde.node_positions import DeepWalkLimit
from neuralpde.node_training import Consistency, EntropicConsistency, Schedule, train_nodes
from neuralpde.testing_nodes import node_blocks
from operators import DomainError, Graph

DATA = node_blocks(240)
STEADY = Schedule(epochs=40, objective=Consistency(draws=2))
SAMPLED = Schedule(epochs=40, objective=EntropicConsistency(draws=2, sample=60, warmup=20))


@pytest.mark.parametrize(
    "method",
    [
        Propagation(STEADY, time=3.0, channels=16),
        Propagation(STEADY, time=3.0, channels=16, sharpness=2.0, near=3, normalised=False),
        KernelFlow(SAMPLED, time=2.0, channels=16, positions=DeepWalkLimit(16, rank=32)),
    ],
    ids=["propagation", "propagation by kernels", "kernels"],
)
def test_neighbours_help(method):
    given = method.prepare(DATA)
    result = train_nodes(lambda: method.build(given), DATA.labels, DATA.split, method.schedule, 0)
    still = replace(method, time=1e-3)
    alone = still.prepare(DATA)
    before = train_nodes(lambda: still.build(alone), DATA.labels, DATA.split, method.schedule, 0)
    assert result.accuracy > before.accuracy + 5
    assert result.nfe > 0


def test_kernels_are_the_formula():
    method = KernelFlow(STEADY, feature_sharpness=2.0, position_sharpness=0.5)
    x, u = unit_features(DATA.features, None), torch.nn.functional.normalize(torch.randn(240, 4), dim=1)
    graph = method.weighted(DATA.graph, [(x, 1.0), (u, 1.0)])
    source, target = graph.edge_index
    mean = torch.nn.functional.normalize(x - x.mean(0), dim=1)
    kernel = (2.0 * (mean[source] * mean[target]).sum(1) + 0.5 * (u[source] * u[target]).sum(1)).exp()
    assert torch.allclose(graph.edge_weight, kernel / kernel.mean(), rtol=1e-5)
    assert torch.allclose(graph.edge_weight.mean(), torch.ones(()), atol=1e-5)


def test_parts_have_their_length():
    method = KernelFlow(STEADY, positions=DeepWalkLimit(16, rank=32), position_weight=0.5)
    given = method.prepare(DATA)
    fields = dense(given.fields)
    assert fields.shape == (240, 24 + 16)
    assert torch.allclose(fields[:-2, :24].norm(dim=1), torch.full((238,), 24**0.5), rtol=1e-4)
    assert torch.allclose(fields[:-2, 24:].norm(dim=1), torch.full((238,), 0.5 * 16**0.5), rtol=1e-4)


def test_reduced_features_keep_their_products():
    """Up to the discarded singular values."""
    torch.manual_seed(0)
    low = (torch.rand(300, 3) @ torch.rand(3, 60) + 0.001 * torch.rand(300, 60)).clamp(min=0)
    full, part = unit_features(low, None), unit_features(low, 3)
    assert part.shape == (300, 3)
    assert torch.allclose(full @ full.T, part @ part.T, atol=1e-3)
    assert unit_features(low, 50).shape == (300, 60)
    assert np.allclose(unit_features(DATA.features, None).norm(dim=1), 1, atol=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(DomainError, match="made for another graph"):
        KernelFlow(STEADY, positions=lambda graph: torch.ones(7, 2)).prepare(DATA)
    with pytest.raises(TypeError, match="not prepared"):
        dense(None)


def test_features_sum_to_one():
    given = Propagation(STEADY).prepare(DATA)
    assert torch.allclose(given.data.features.row_sums(), torch.ones(240), atol=1e-5)


def test_rare_words_weigh_more_and_words_of_all_nothing():
    there = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    rare = rare_words(there)
    # A word of everybody tells nobody apart; one node has no other.
    assert torch.allclose(rare, torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 1]]))
    # One of four nodes has the first word, two the second: log 4 and log 2.
    both = rare_words(torch.tensor([[1.0, 1.0], [0, 1.0], [0, 0], [0, 0]]))
    assert torch.allclose(both[0], torch.tensor([2.0, 1.0]) / 5**0.5)


def test_nearest_is_brute_force_and_leaves_out_strangers():
    x = torch.nn.functional.normalize(torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    x[7] = 0
    pairs = nearest(x, 3)
    similar = x @ x.T - 2 * torch.eye(30)
    expected = {(i, int(j)) for i in range(30) for j in similar[i].topk(3).indices if similar[i, j] > 0}
    assert set(map(tuple, pairs.T.tolist())) == expected
    assert 7 not in pairs.flatten().tolist()
    assert nearest(x, 0).shape == (2, 0)


def test_joined_edges_go_both_ways_with_half_the_weight():
    graph = joined(Graph(torch.tensor([[0, 1], [1, 0]]), 3), torch.tensor([[0], [2]]), 0.3)
    dense_weights = torch.zeros(3, 3).index_put(tuple(graph.edge_index), graph.edge_weight, accumulate=True)
    assert torch.allclose(dense_weights, torch.tensor([[0, 1, 0.15], [1, 0, 0], [0.15, 0, 0]]))


def test_without_sharpness_the_graph_keeps_its_weights():
    graph = Graph(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), 3)
    assert torch.equal(kernel_weighted(graph, [(torch.eye(3), 0.0)]).edge_weight, torch.ones(4))
    x = torch.nn.functional.normalize(torch.rand(3, 2), dim=1)
    weights = kernel_weighted(graph, [(x, 3.0)]).edge_weight
    assert float(weights[0] / weights[2]) == pytest.approx(float(torch.exp(3 * (x[0] @ x[1] - x[1] @ x[2]))), rel=1e-5)
