"""The networks of the toy experiment on small data: what each keeps, and what each can reach."""

import pytest
import torch
import torch_geometric.nn

from neuralpde.toy_heat import first, grid_graph, parted, rayleigh, score, toy_heat
from neuralpde.toy_heat_methods import Schedule
from neuralpde.toy_heat_networks import GCN, LAYERS, METHODS, LearnedOrder, Ours, Separable, Truncated, Unitary


@pytest.fixture(scope="module")
def data():
    seen, held_out = parted(toy_heat(200, 0))
    return first(seen[1:4], 8), first(held_out, 16)


def quiet(*told):
    pass


def test_names_are_those_of_the_table():
    assert [method.name for method in METHODS] == [
        "persistence", "implicit-euler", "stencil", "gcn", "unitary", "r-unigraph", "learned-t-max", "separable", "ours",
    ]  # fmt: skip


def test_ours_finds_the_rate_and_is_right_on_other_graphs(data, tmp_path):
    seen, held_out = data
    found = score(held_out, Ours(iterations=40, fields=4).fit(seen, Schedule(1), 0, tmp_path / "ours", quiet).predict)
    # The acceptance is 2.6e-5 and 2e-4.
    assert found.mse < 1e-8
    assert found.mre < 5e-5


def test_separable_layers_with_a_linear_readout(data, tmp_path):
    seen, held_out = data
    learned = Separable(iterations=30, fields=4).fit(seen, Schedule(1), 0, tmp_path / "separable", quiet)
    found = score(held_out, learned.predict)
    assert found.mse < 8e-5
    assert learned.parameters == 5


@pytest.mark.parametrize("method", [Unitary(), Truncated(), LearnedOrder()])
def test_width_one_layers(data, method):
    seen, _ = data
    model = method.drawn(seen, 0)
    item = seen[0]
    x = item.frames[:4, 0]
    z = model(x).detach()
    assert z.is_complex()
    drift = float((rayleigh(item, z) - rayleigh(item, x)).abs().max())
    assert (drift < 1e-5) == isinstance(method, Unitary)
    # θ of a layer is N(0, 1) at the start, as published.
    angles = torch.stack([layer.mixing().imag.flatten() for seed in range(20) for layer in method.drawn(seen, seed).layers])
    assert angles.shape[0] == 20 * LAYERS
    assert float(angles.detach().std()) == pytest.approx(1, abs=4 / (2 * 20 * LAYERS) ** 0.5 + 0.02)


def test_gcn_is_that_of_pytorch_geometric(data):
    model = GCN().drawn(data[0], 0)
    reference = torch_geometric.nn.GCN(1, 32, LAYERS, 1)
    with torch.no_grad():
        for layer, its in zip(model.layers, reference.convs, strict=True):
            its.lin.weight.copy_(layer.weight.T)
            its.bias.copy_(layer.bias)
    graph = data[0][0].graph
    x = torch.rand(graph.nodes, 1)
    torch.testing.assert_close(model(x), reference(x, graph.edge_index), rtol=1e-4, atol=1e-6)
    assert model.on(grid_graph(6))(torch.rand(2, 36, 1)).shape == (2, 36, 1)
