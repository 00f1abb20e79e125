"""The laws of mpnn, and its size."""

import torch

from neuralpde.heat_data import Truth
from neuralpde.mesh_case import Scene
from neuralpde.mesh_networks_mpnn import Messages, Mpnn
from neuralpde.testing_mesh_cases import check_network, stirred, turned
from operators import bumpy, icosphere


def build(scene, context):
    return Messages(scene, context, 10, 6, 2)


def test_it_keeps_the_laws_of_all_networks():
    check_network(build)


def test_it_has_the_published_number_of_parameters():
    model = Mpnn().build(Scene("ball", bumpy(icosphere(1)), 0.1, Truth.SURFACE), 0)
    assert 37_000 <= sum(p.numel() for p in model.parameters()) <= 45_000


def test_a_message_by_hand():
    model, _, _, _ = stirred(build)
    graph, layer, x = model.graph, model.layers[0], torch.randn(42, 2, 10, dtype=torch.float64)
    row, col = graph.weights.pattern.row, graph.weights.pattern.col
    edge = torch.cat([graph.length, graph.share], dim=-1) @ layer.edge.weight.T
    message = torch.relu(layer.target(x)[row] + layer.source(x)[col] + edge)
    mean = torch.stack([message[row == i].mean(0) for i in range(42)])
    assert torch.allclose(layer(x, graph), x + layer.update(torch.cat([x, mean], dim=-1)), atol=1e-12)


def test_it_is_blind_to_rotations():
    model, scene, frames, _ = stirred(build)
    matrix, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    moved = Scene("moved", turned(scene.mesh, matrix, torch.zeros(3)), scene.dt, scene.truth)
    assert torch.allclose(model.on(moved)(frames, None), model(frames, None), atol=1e-9)
