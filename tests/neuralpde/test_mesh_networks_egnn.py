"""The laws of egnn, and its size."""

import torch

from neuralpde.heat_data import Truth
from neuralpde.mesh_case import Scene
from neuralpde.mesh_networks_egnn import Egnn, EquivariantMessages
from neuralpde.testing_mesh_cases import check_network, stirred, turned
from operators import bumpy, icosphere


def build(scene, context):
    return EquivariantMessages(scene, context, 10, 6, 2)


def test_it_keeps_the_laws_of_all_networks():
    check_network(build)


def test_it_has_the_published_number_of_parameters():
    model = Egnn().build(Scene("ball", bumpy(icosphere(1)), 0.1, Truth.SURFACE), 0)
    assert 37_000 <= sum(p.numel() for p in model.parameters()) <= 45_000


def test_it_is_blind_to_rotations_reflections_and_shifts():
    model, scene, frames, _ = stirred(build)
    matrix, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    for orthogonal in (matrix, -matrix):
        moved = Scene("moved", turned(scene.mesh, orthogonal, torch.tensor([1.0, -2.0, 3.0])), scene.dt, scene.truth)
        assert torch.allclose(model.on(moved)(frames, None), model(frames, None), atol=1e-9)


def test_it_sees_distances_and_moves_positions():
    model, scene, frames, _ = stirred(build)
    stretched = turned(scene.mesh, torch.diag(torch.tensor([1.0, 1.0, 1.3], dtype=torch.float64)), torch.zeros(3))
    other = model.on(Scene("stretched", stretched, scene.dt, scene.truth))
    assert not torch.allclose(other(frames, None), model(frames, None), atol=1e-4)
    layer = model.layers[0]
    x, offset = torch.randn(42, 2, 10, dtype=torch.float64), model.graph.direction.expand(-1, 2, -1)
    _, after = layer(x, offset, model.graph)
    row, col = model.graph.weights.pattern.row, model.graph.weights.pattern.col
    # Offsets stay differences of positions: they cancel between the two directions of an edge.
    key = {(int(i), int(j)): k for k, (i, j) in enumerate(zip(row, col, strict=True))}
    back = torch.tensor([key[int(j), int(i)] for i, j in zip(row, col, strict=True)])
    assert torch.allclose(after, -after[back], atol=1e-12)
    assert not torch.allclose(after, offset, atol=1e-3)
