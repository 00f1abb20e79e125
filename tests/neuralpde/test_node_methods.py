"""Each kind of method builds the model that it describes, and every one of them learns."""

from dataclasses import replace

import pytest
import torch

from integrators import Direct, Dopri5, Exponential
from neuralpde.node_methods import Attention, Beltrami, Convolutions, Joint, ProductKernel
from neuralpde.node_training import Schedule, train_nodes
from neuralpde.testing_nodes import node_blocks
from operators.encodings import PageRank
from operators.exponential_kernel import ExponentialKernel
from operators.normalisation import Over, Softmax, Squareplus
from operators.rewiring import PageRankTopK
from operators.similarity import Pearson

DATA = node_blocks()
BLEND = Beltrami(
    Schedule(epochs=3),
    time=2.0,
    tol_scale=1000,
    heads=2,
    width=4,
    normalise=Squareplus(Over.COLUMNS),
    channels=8,
    position_channels=4,
    positions=PageRank(),
    source=True,
    self_loops=1.0,
    input_dropout=0.5,
    dropout=0.5,
)


def test_its_settings_reach_the_model():
    given = BLEND.prepare(DATA)
    model = BLEND.build(given)
    flow, diffusivity = model.flow, model.flow.diffusivity
    assert given.fields.shape == (120, 120)
    assert (diffusivity.heads, diffusivity.width, diffusivity.key.in_features) == (2, 4, 12)
    assert diffusivity.normalise == Squareplus(Over.COLUMNS)
    assert diffusivity.edges.self_loops == 1.0
    assert flow.frozen_attention
    assert flow.source.item() == 0.0
    assert flow.log_rate.exp().item() == pytest.approx(0.5)
    assert model.solver == Exponential(tol=1e-4, gradient=Direct())
    published = BLEND.as_published().build(given).solver
    assert isinstance(published, Dopri5)
    assert (published.rtol, published.atol) == (pytest.approx(1e-6), pytest.approx(1e-4))


def test_other_scores():
    kernel = replace(BLEND, score=ProductKernel())
    given = kernel.prepare(DATA)
    assert isinstance(kernel.build(given).flow.diffusivity, ExponentialKernel)
    alone = replace(kernel, positions=None)
    assert alone.build(alone.prepare(DATA))().shape == (120, 3)
    assert kernel.build(given)().shape == (120, 3)
    pearson = replace(BLEND, score=Joint(Pearson), normalise=Softmax(), source=False)
    assert isinstance(pearson.build(given).flow.diffusivity, Pearson)


@pytest.mark.parametrize(
    "method",
    [
        BLEND,
        BLEND.as_published(),
        replace(BLEND, positions=None, source=False, frozen=False),
        replace(BLEND, rewire=PageRankTopK(8)),
        Convolutions(Schedule(epochs=3)),
        Attention(Schedule(epochs=3)),
    ],
    ids=["blend", "dopri5", "grand-nl", "knn", "gcn", "gat"],
)
def test_it_trains(method):
    given = method.prepare(DATA)
    result = train_nodes(lambda: method.build(given), DATA.labels, DATA.split, method.schedule, 0)
    assert result.nfe >= 2
    assert 0 <= result.accuracy <= 100


def test_rewiring_keeps_nodes_and_changes_edges():
    given = replace(BLEND, rewire=PageRankTopK(8)).prepare(DATA)
    assert given.data.nodes == 120
    assert not torch.equal(given.data.graph.edge_index, DATA.graph.edge_index)
