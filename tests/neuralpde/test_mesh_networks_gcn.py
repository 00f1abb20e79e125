"""The laws of gcn, and its size."""

import torch

from neuralpde.heat_data import Truth
from neuralpde.mesh_case import Scene
from neuralpde.mesh_networks_gcn import Convolutions, Gcn
from neuralpde.testing_mesh_cases import check_network, stirred, turned
from operators import bumpy, icosphere


def build(scene, context):
    return Convolutions(scene, context, 10, 3)


def test_it_keeps_the_laws_of_all_networks():
    check_network(build)


def test_it_has_the_published_number_of_parameters():
    model = Gcn().build(Scene("ball", bumpy(icosphere(1)), 0.1, Truth.SURFACE), 0)
    assert 37_000 <= sum(p.numel() for p in model.parameters()) <= 45_000


def test_a_layer_adds_a_function_of_half_the_field_and_half_the_weighted_mean():
    model, _, _, _ = stirred(lambda scene, context: Convolutions(scene, context, 10, 1))
    x = torch.randn(42, 2, 9, dtype=torch.float64)
    dense = model.graph.weights.matrix()
    root = dense.sum(1).rsqrt()
    encoded = model.encoder(x)
    mean = torch.einsum("ij,jkc->ikc", root[:, None] * dense * root, encoded)
    layer = model.layers[0]
    hidden = encoded + torch.relu(((encoded + mean) / 2) @ layer.weight.T + layer.bias)
    assert torch.allclose(model.change(x), model.decoder(hidden), atol=1e-12)


def test_it_is_blind_to_rotations():
    model, scene, frames, _ = stirred(build)
    matrix, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    moved = Scene("moved", turned(scene.mesh, matrix, torch.zeros(3)), scene.dt, scene.truth)
    assert torch.allclose(model.on(moved)(frames, None), model(frames, None), atol=1e-9)
