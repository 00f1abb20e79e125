"""Messages that see distances alone, and move the positions (Satorras, Hoogeboom and Welling 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from neuralpde.mesh_case import Scene
from neuralpde.mesh_networks import GraphNetwork, MeshGraph, perceptron, starting_at_zero
from neuralpde.mesh_training import Network


class EquivariantMessage(nn.Module):
    """m_ij = φ(x_i, x_j, |p_i − p_j|²), p_i ← p_i + mean_j (p_i − p_j) χ(m_ij), x_i ← x_i + ψ(x_i, mean_j m_ij).

    Edges carry the difference p_j − p_i of their ends, in mean edge lengths, and not the positions.

    Args:
        moving: whether positions move; after the last round nothing would see it.
    """

    def __init__(self, width: int, message: int, moving: bool) -> None:
        super().__init__()
        self.target, self.source = nn.Linear(width, message), nn.Linear(width, message, bias=False)
        self.distance = nn.Linear(1, message, bias=False)
        self.message = nn.Linear(message, message)
        self.shift = starting_at_zero(nn.Linear(message, 1, bias=False)) if moving else None
        self.update = perceptron(width + message, width, width)

    def forward(self, x: Tensor, offset: Tensor, graph: MeshGraph) -> tuple[Tensor, Tensor]:
        """x (n, K, c) and p_j − p_i (E, K, 3), both updated."""
        distance = self.distance(offset.square().sum(-1, keepdim=True))
        message = torch.relu(self.message(torch.relu(graph.gathered(self.target(x), self.source(x)) + distance)))
        x = x + self.update(torch.cat([x, graph.averaged(message)], dim=-1))
        if self.shift is None:
            return x, offset
        shift = graph.averaged(-offset * torch.tanh(self.shift(message)))
        return x, offset + graph.gathered(-shift, shift)


class EquivariantMessages(GraphNetwork):
    """An encoder of the nodes, rounds of equivariant messages, and a decoder: blind to rotations, reflections and shifts.

    Args:
        width: channels of a node.
        message: channels of a message.
        layers: rounds.
    """

    def __init__(self, scene: Scene, context: int, width: int, message: int, layers: int) -> None:
        super().__init__(scene, context)
        self.encoder = nn.Linear(self.inputs, width)
        self.layers = nn.ModuleList([EquivariantMessage(width, message, moving=k + 1 < layers) for k in range(layers)])
        self.decoder = starting_at_zero(nn.Linear(width, 1))

    def change(self, x: Tensor) -> Tensor:
        offset = self.graph.direction.expand(-1, x.shape[1], -1)
        x = self.encoder(x)
        for layer in self.layers:
            x, offset = layer(x, offset, self.graph)
        decoded: Tensor = self.decoder(x)
        return decoded


@dataclass(frozen=True)
class Egnn(Network):
    """An E(n)-equivariant network."""

    name: ClassVar[str] = "egnn"
    steps: int = 100
    learning_rate: float = 2e-3
    noise: float = 0.2
    paces: int = 5
    width: int = 62
    message: int = 24
    layers: int = 3

    def build(self, scene: Scene, context: int) -> EquivariantMessages:
        return EquivariantMessages(scene, context, self.width, self.message, self.layers)
