"""Classifiers compute what their layers say; sparse features do as dense ones do; unfit positions are refused."""

from dataclasses import replace

import pytest
import torch

from integrators import Dopri5, Exponential
from neuralpde.beltrami import BeltramiFlow
from neuralpde.node_models import (
    BeltramiClassifier,
    FeatureLinear,
    GraphAttention,
    GraphConvolutions,
    NodeModel,
    check_positions,
)
from neuralpde.testing_nodes import node_blocks
from operators import DomainError, FieldError, SparseOperator
from operators.attention import ScaledDotProduct

DATA = node_blocks()
FULL = replace(DATA, features=torch.as_tensor(DATA.features.to_scipy().toarray()).float())


def classifier(data=DATA, positions=None, solver=None, **options):
    channels = 8 + (0 if positions is None else 4)
    flow = BeltramiFlow(ScaledDotProduct(data.graph, channels, 4, 2), 0.5, source=0.0, frozen=True)
    solver = solver or Exponential(tol=1e-6)
    return BeltramiClassifier(data, flow, 3.0, solver, 8, positions=positions, position_channels=4, **options)


def test_sparse_features_do_as_dense_ones_do():
    layer = FeatureLinear(24, 5)
    assert torch.allclose(layer(DATA.features), layer(FULL.features), atol=1e-6)
    slopes = []
    for data in (DATA, FULL):
        layer.zero_grad()
        layer(data.features).square().sum().backward()
        slopes.append(layer.weight.grad.clone())
    assert torch.allclose(*slopes, rtol=1e-5, atol=1e-4)


def test_dropout_of_features_keeps_their_mean():
    torch.manual_seed(0)
    layer = FeatureLinear(24, 5, dropout=0.5).train()
    mean = torch.stack([layer(DATA.features).detach() for _ in range(2000)]).mean(0)
    whole = layer.eval()(DATA.features).detach()
    assert torch.allclose(mean, whole, atol=0.1)
    assert float((mean - whole).norm() / mean.norm()) < 0.05


def test_features_of_another_width_are_refused():
    with pytest.raises(FieldError, match="reads 23 features, not 24"):
        FeatureLinear(23, 5)(DATA.features)


def test_the_exponential_and_dopri5_give_the_same_scores():
    torch.manual_seed(0)
    positions = torch.randn(DATA.nodes, 6)
    model = classifier(positions=positions).eval()
    torch.nn.init.normal_(model.flow.diffusivity.query.weight)
    exact, products = model(), model.nfe
    model.solver = Dopri5(rtol=1e-6, atol=1e-6)
    assert torch.allclose(model(), exact, atol=1e-4)
    assert 0 < products < model.nfe


def test_every_parameter_learns():
    torch.manual_seed(0)
    model = classifier(positions=torch.randn(DATA.nodes, 6))
    torch.nn.init.normal_(model.flow.diffusivity.query.weight)
    model().square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())


def test_decay_leaves_the_rate_alone():
    model = classifier()
    groups = model.groups(0.1)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    (apart,) = [group for group in groups if group["weight_decay"] == 0]
    assert apart["params"][0] is model.flow.log_rate


@pytest.mark.parametrize("kind", [GraphConvolutions, GraphAttention])
def test_baselines_are_pygs_own_layers(kind):
    """With the first product done by PyG, too, from the same weights."""
    from torch_geometric.nn import GATConv, GCNConv

    torch.manual_seed(0)
    model = kind(DATA).eval()
    width = model.encode.weight.shape[1]
    whole = GCNConv(24, width) if kind is GraphConvolutions else GATConv(24, 8, heads=8)
    whole.load_state_dict({**model.first.state_dict(), "lin.weight": model.encode.weight.T})
    hidden = whole(FULL.features, DATA.graph.edge_index)
    hidden = hidden.relu() if kind is GraphConvolutions else torch.nn.functional.elu(hidden)
    assert torch.allclose(model(), model.second(hidden, DATA.graph.edge_index), atol=1e-5)
    assert model.nfe == 2


def test_only_the_first_layer_of_the_convolutions_decays():
    first, second = GraphConvolutions(DATA).groups(5e-4)
    assert first["weight_decay"] == 5e-4
    assert second["weight_decay"] == 0
    assert len(first["params"]) == 2


def test_draws_are_of_the_nodes_asked_for():
    torch.manual_seed(0)
    model = classifier(dropout=0.0, input_dropout=0.0)
    nodes = torch.tensor([5, 2])
    assert torch.allclose(model.draws(3, nodes), model()[nodes].expand(3, -1, -1), atol=1e-6)


def test_unfit_positions_are_refused():
    sparse = SparseOperator.from_entries(torch.tensor([0]), torch.tensor([0]), torch.ones(1), (7, 7))
    for positions in (torch.ones(7, 3), torch.ones(DATA.nodes), sparse):
        with pytest.raises(DomainError, match="made for another graph"):
            classifier(positions=positions) if positions.shape[0] == 7 else check_positions(positions, DATA)
    with pytest.raises(DomainError, match="finite"):
        check_positions(torch.full((DATA.nodes, 2), float("inf")), DATA)
    with pytest.raises(ValueError, match="time must be positive"):
        BeltramiClassifier(DATA, classifier().flow, 0.0, Exponential(), 8)


def test_a_model_must_say_what_it_computes():
    with pytest.raises(NotImplementedError, match="NodeModel must define forward"):
        NodeModel()()
