"""The learned rows of the derivative table."""

import pytest
import torch

from neuralpde.directional import DirectionalTask, Ripples, directional_task, drawn_points, leak_free_split
from neuralpde.directional_method import squared_error
from neuralpde.directional_networks import DifferenceLayer, EdgeNetworks, GraphNet, Mlp, OneWeight, _Edges
from operators.graph_network import GraphNetwork, NetworkShape

EVERY = [Mlp, GraphNet, OneWeight, DifferenceLayer]


def quiet(*told):
    pass


def test_networks_side_by_side_are_graph_networks():
    task = directional_task(Ripples(), drawn_points(40, 0))
    edges, width, count = _Edges(task), 8, 2
    torch.manual_seed(0)
    side_by_side = EdgeNetworks(count, width)
    found = side_by_side(edges)
    for k in range(count):
        one = GraphNetwork(3, 1, 1, NetworkShape(width=width, layers=1, both_ways=False, context=width))
        part = slice(k * width, (k + 1) * width)
        s = side_by_side
        with torch.no_grad():
            first, node, context, last = one.edge_updates[0], one.node_updates[0], one.context_updates[0], one.edge_updates[1]
            first.first.weight[:, :7], first.first.bias[:] = s.edge[:, part].T, s.edge_bias[part]
            node.first.weight[:, : 3 + width] = torch.cat([s.node[:, part], s.received[k]]).T
            node.first.bias[:] = s.node_bias[part]
            context.first.weight[:, : 2 * width], context.first.bias[:] = s.context[k].T, s.context_bias[k, 0]
            last.first.weight[:], last.first.bias[:] = s.last[k].T, s.last_bias[k, 0]
            last.last.weight[:], last.last.bias[:] = s.out[k].T, s.out_bias[k, 0]
        expected = one(edges.nodes, edges.features[:, 6:], edges.pattern)[:, 0]
        # Sums of a hundred float32 products in another order.
        torch.testing.assert_close(found[k], expected, rtol=1e-5, atol=1e-5)
    chosen = torch.tensor([5, 0, 17, 5])
    torch.testing.assert_close(side_by_side(edges, chosen), found[:, chosen], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", EVERY, ids=lambda method: method.name)
def test_it_learns_and_is_resumed_bit_for_bit(method, tmp_path):
    task = directional_task(Ripples(), drawn_points(50, 1))
    split = leak_free_split(task, 0)
    settings = method(steps=30, width=16)
    learned = settings.fit(task, split, 0, tmp_path / "a.safetensors", quiet)
    start = method(steps=1, width=16).fit(task, split, 0, tmp_path / "b.safetensors", quiet)
    assert squared_error(learned, task, split.train) < squared_error(start, task, split.train)

    def kill(step, steps, note):
        if step == 12:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        settings.fit(task, split, 0, tmp_path / "c.safetensors", kill)
    resumed = settings.fit(task, split, 0, tmp_path / "c.safetensors", quiet)
    assert torch.equal(resumed.estimate(task), learned.estimate(task))


def test_the_slopes_of_test_edges_change_nothing(tmp_path):
    task = directional_task(Ripples(), drawn_points(40, 1))
    split = leak_free_split(task, 0)
    slopes = task.slopes.clone()
    slopes[split.test] += 10.0
    other = DirectionalTask(task.cloud, task.graph, task.values, slopes)
    first, second = (
        DifferenceLayer(steps=5, width=8).fit(each, split, 0, tmp_path / f"{k}.safetensors", quiet).estimate(task)
        for k, each in enumerate((task, other))
    )
    assert torch.equal(first, second)


def test_the_difference_layer_has_two_networks_and_one_weight_has_one(tmp_path):
    task = directional_task(Ripples(), drawn_points(40, 1))
    split = leak_free_split(task, 0)
    one, two = (
        method(steps=1).fit(task, split, 0, tmp_path / f"{method.name}.safetensors", quiet).parameters
        for method in (OneWeight, DifferenceLayer)
    )
    assert two == 2 * one
