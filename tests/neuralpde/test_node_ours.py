"""Our methods prepare what they say, and learn what a linear classifier of the features cannot."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from neuralpde.node_ours import KernelFlow, Propagation, dense, unit_features
from neuralpde.node_positions import DeepWalkLimit
from neuralpde.node_training import Consistency, EntropicConsistency, Schedule, train_nodes
from neuralpde.testing_nodes import node_blocks
from operators import DomainError

DATA = node_blocks(240)
STEADY = Schedule(epochs=40, objective=Consistency(draws=2))
SAMPLED = Schedule(epochs=40, objective=EntropicConsistency(draws=2, sample=60, warmup=20))


@pytest.mark.parametrize(
    "method",
    [
        Propagation(STEADY, time=3.0, channels=16),
        KernelFlow(SAMPLED, time=2.0, channels=16, positions=DeepWalkLimit(16, rank=32)),
    ],
    ids=["propagation", "kernels"],
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
