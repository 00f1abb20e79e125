"""What the graph networks share: their features and the sparse maps between nodes and edges."""

import torch

from neuralpde.heat_data import Truth
from neuralpde.mesh_case import Scene
from neuralpde.mesh_networks import FEATURES, GraphNetwork, MeshGraph, applied, perceptron, root_mean_square, starting_at_zero
from operators import SparseOperator, TriangleMesh, bumpy, icosphere


def scene() -> Scene:
    mesh = bumpy(icosphere(1), 0.2)
    return Scene("ball", TriangleMesh(mesh.vertices.double(), mesh.faces), 0.01, Truth.SURFACE)


class _Told(GraphNetwork):
    """Keeps what it is told."""

    def change(self, x):
        self.seen = x
        return torch.ones_like(x[..., :1])


def test_edges_gather_and_average():
    graph = MeshGraph(scene())
    row, col = graph.weights.pattern.row, graph.weights.pattern.col
    target, source = torch.randn(2, 42, 3, 5, dtype=torch.float64)
    message = graph.gathered(target, source)
    assert torch.allclose(message, target[row] + source[col])
    assert torch.allclose(graph.averaged(message), torch.stack([message[row == i].mean(0) for i in range(42)]))
    assert torch.allclose(applied(graph.weights, target), torch.einsum("ij,jkc->ikc", graph.weights.matrix(), target))


def test_what_is_known_of_nodes_and_edges():
    here = scene()
    graph, laplacian = MeshGraph(here), here.robust
    row, col = graph.weights.pattern.row, graph.weights.pattern.col
    offset = here.mesh.vertices[col] - here.mesh.vertices[row]
    mean = offset.norm(dim=1).mean()
    assert torch.allclose(graph.direction[:, 0], offset / mean)
    assert torch.allclose(graph.length[:, 0, 0], offset.norm(dim=1) / mean)
    assert torch.allclose(graph.log_mass.exp(), laplacian.mass / laplacian.mass.mean())
    # The diagonal of L is the weights' sum over the mass.
    assert torch.allclose(graph.log_rate.expm1(), here.dt * laplacian.diagonal())
    assert torch.allclose(torch.zeros(42, dtype=torch.float64).index_add(0, row, graph.share[:, 0, 0]), torch.ones(42).double())


def test_features_and_the_step():
    model = _Told(scene(), context=2)
    frames, context = torch.randn(3, 5, 42, 1, dtype=torch.float64), torch.randn(3, 42, 2, dtype=torch.float64)
    step = model(frames, context)
    size, moved = frames.square().mean((1, 2, 3)).sqrt(), frames.diff(dim=1)
    change = moved.square().mean((1, 2, 3)).sqrt()
    seen = model.seen.movedim(1, 0)
    assert seen.shape == (3, 42, FEATURES + 2)
    assert torch.allclose(seen[..., :1], frames[:, -1] / size[:, None, None])
    assert torch.allclose(seen[..., 1:5], moved.squeeze(-1).movedim(1, 2) / change[:, None, None])
    assert torch.allclose(seen[:, 0, 5:7].exp(), torch.stack([size, change], dim=1))
    assert torch.allclose(seen[..., 9:], context)
    assert torch.allclose(step, frames[:, -1] + change[:, None, None])


def test_a_field_at_rest_stays_finite():
    model = _Told(scene(), context=0)
    for frames in (torch.zeros(1, 5, 42, 1, dtype=torch.float64), torch.ones(1, 5, 42, 1, dtype=torch.float64)):
        assert bool(torch.isfinite(model(frames, None)).all())
        assert bool((root_mean_square(frames.diff(dim=1)) > 0).all())


def test_layers():
    layer = starting_at_zero(torch.nn.Linear(3, 2))
    assert float(sum(p.detach().abs().sum() for p in layer.parameters())) == 0
    assert [type(part).__name__ for part in perceptron(3, 4, 2)] == ["Linear", "ReLU", "Linear"]
    assert isinstance(MeshGraph(scene()).on(scene()).weights, SparseOperator)
