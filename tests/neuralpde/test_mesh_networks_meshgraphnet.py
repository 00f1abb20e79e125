"""The laws of meshgraphnet, and its size."""

import torch

from neuralpde.heat_data import Truth
from neuralpde.mesh_case import Scene
from neuralpde.mesh_networks_meshgraphnet import EncodeProcessDecode, MeshGraphNet
from neuralpde.testing_mesh_cases import check_network, stirred, turned
from operators import bumpy, icosphere


def build(scene, context):
    return EncodeProcessDecode(scene, context, 10, 6, 2)


def test_it_keeps_the_laws_of_all_networks():
    check_network(build)


def test_it_has_the_published_number_of_parameters():
    model = MeshGraphNet().build(Scene("ball", bumpy(icosphere(1)), 0.1, Truth.SURFACE), 0)
    assert 37_000 <= sum(p.numel() for p in model.parameters()) <= 45_000


def test_it_sees_directions_but_not_places():
    model, scene, frames, _ = stirred(build)
    matrix, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    shifted = Scene("shifted", turned(scene.mesh, torch.eye(3, dtype=torch.float64), torch.ones(3)), scene.dt, scene.truth)
    rotated = Scene("rotated", turned(scene.mesh, matrix, torch.zeros(3)), scene.dt, scene.truth)
    assert torch.allclose(model.on(shifted)(frames, None), model(frames, None), atol=1e-9)
    assert not torch.allclose(model.on(rotated)(frames, None), model(frames, None), atol=1e-4)


def test_a_block_updates_edges_before_nodes():
    model, _, _, _ = stirred(build)
    graph, block = model.graph, model.blocks[0]
    x, e = torch.randn(42, 2, 10, dtype=torch.float64), torch.randn(graph.length.shape[0], 2, 6, dtype=torch.float64)
    after, edges = block(x, e, graph)
    row, col = graph.weights.pattern.row, graph.weights.pattern.col
    both = block.target(x)[row] + block.source(x)[col] + block.edge(e)
    expected = e + block.edge_norm(block.message(torch.relu(both)))
    mean = torch.stack([expected[row == i].mean(0) for i in range(42)])
    assert torch.allclose(edges, expected, atol=1e-12)
    assert torch.allclose(after, x + block.node_norm(block.update(torch.cat([x, mean], dim=-1))), atol=1e-12)
