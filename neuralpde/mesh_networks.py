"""What the graph networks of MeshPDE's table share: the same node features in, a change of the last frame out."""

from __future__ import annotations

from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn

from neuralpde.heat_data import GIVEN_FRAMES
from neuralpde.mesh_case import Scene
from neuralpde.mesh_training import SceneModel
from operators import SparseOperator, SparsityPattern, adjacency_of

# The last frame, four differences, their two sizes, log mass, dt·rate.
FEATURES = GIVEN_FRAMES + 4


class MeshGraph(nn.Module):
    """The edges of the robust Laplacian on a scene, with what is known of nodes and edges.

    Fields here are nodes first, (n, K, c), and fields of edges (E, K, c): one sparse product then serves the whole batch.
    """

    log_mass: Tensor
    log_rate: Tensor
    direction: Tensor
    length: Tensor
    share: Tensor

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        laplacian = scene.robust
        weights = adjacency_of(laplacian)
        row, col = weights.pattern.row, weights.pattern.col
        nodes, edges = laplacian.shape[0], row.numel()
        number = torch.arange(edges)
        one = torch.ones(edges, dtype=weights.dtype)
        count = torch.zeros(nodes, dtype=weights.dtype).index_add(0, row, one).clamp(min=1)
        self.weights = weights
        self.ends = SparseOperator.from_entries(
            number.repeat(2), torch.cat([row, nodes + col]), one.repeat(2), (edges, 2 * nodes)
        )
        self.mean_at_target = SparseOperator(SparsityPattern(row, number, (nodes, edges)), 1 / count[row])
        degree = weights.row_sums()
        offset = scene.mesh.vertices[col] - scene.mesh.vertices[row]
        length = offset.norm(dim=1)
        scale = length.mean()
        self.register_buffer("log_mass", (laplacian.mass / laplacian.mass.mean()).log(), persistent=False)
        self.register_buffer("log_rate", (scene.dt * degree / laplacian.mass).log1p(), persistent=False)
        self.register_buffer("direction", (offset / scale)[:, None], persistent=False)
        self.register_buffer("length", (length / scale)[:, None, None], persistent=False)
        fraction = weights.values / torch.where(degree > 0, degree, 1.0)[row]
        self.register_buffer("share", fraction[:, None, None], persistent=False)

    def on(self, scene: Scene) -> MeshGraph:
        """The graph of another scene."""
        return MeshGraph(scene)

    def gathered(self, target: Tensor, source: Tensor) -> Tensor:
        """target_i + source_j on every edge from j to i; (n, K, c) × 2 → (E, K, c)."""
        return applied(self.ends, torch.cat([target, source]))

    def averaged(self, message: Tensor) -> Tensor:
        """The mean of the messages to every node; (E, K, c) → (n, K, c)."""
        return applied(self.mean_at_target, message)


def applied(operator: SparseOperator, x: Tensor) -> Tensor:
    """A x for x (n, K, c), as one product of width K c."""
    y: Tensor = operator(x.flatten(1))
    return y.reshape(len(y), *x.shape[1:])


class GraphNetwork(SceneModel):
    """y' = y₅ + d g(y₅/s, (y₅ − y₄)/d, …, (y₂ − y₁)/d, log s, log d, log mass, log(1 + dt·rate), context).

    s is the root mean square of the five frames and d that of their differences, so that the change g is of size one on every
    mesh and at every time. Its last layer starts at zero and the model as persistence; at random weights a rollout of 196 steps
    explodes. Node features hold no position.

    Args:
        scene: whose robust Laplacian gives the edges, masses and rates (weights' sum over mass).
        context: the number of known fields.
    """

    def __init__(self, scene: Scene, context: int) -> None:
        super().__init__()
        self.graph = MeshGraph(scene)
        self.inputs = FEATURES + context

    def change(self, x: Tensor) -> Tensor:
        """g; (n, K, inputs) → (n, K, 1)."""
        raise NotImplementedError

    def forward(self, frames: Tensor, context: Tensor | None) -> Tensor:
        moved = frames.diff(dim=1)
        size, step = root_mean_square(frames), root_mean_square(moved)
        known = [] if context is None else [context.movedim(1, 0)]
        graph, nodes, batch = self.graph, frames.shape[2], len(frames)
        seen = torch.cat([frames[:, -1:] / size, moved / step], dim=1).squeeze(-1).permute(2, 0, 1)
        sizes = torch.cat([size, step], dim=1).log().reshape(1, batch, 2).expand(nodes, -1, -1)
        told = torch.stack([graph.log_mass, graph.log_rate], dim=1)[:, None].expand(-1, batch, -1)
        change = self.change(torch.cat([seen, sizes, told, *known], dim=-1))
        return frames[:, -1] + step[:, 0] * change.movedim(0, 1)

    def on(self, scene: Scene) -> Self:
        """The same network on another scene."""
        return super().on(scene)


def root_mean_square(frames: Tensor) -> Tensor:
    """Of each window (K, T, n, 1), positive; → (K, 1, 1, 1)."""
    return frames.square().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-16).sqrt()


def perceptron(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def starting_at_zero(layer: nn.Linear) -> nn.Linear:
    """The layer with its weights and bias set to zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
