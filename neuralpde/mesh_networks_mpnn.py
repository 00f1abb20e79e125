"""Message passing with edge lengths and weights (Gilmer et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from neuralpde.mesh_case import Scene
from neuralpde.mesh_networks import GraphNetwork, MeshGraph, perceptron, starting_at_zero
from neuralpde.mesh_training import Network


class Message(nn.Module):
    """x_i ← x_i + ψ(x_i, mean_j relu(A x_i + B x_j + C e_ij)), e_ij the edge's length and its share of i's weights.

    What a linear layer would do to each message it does to their mean, once a node.
    """

    def __init__(self, width: int, message: int) -> None:
        super().__init__()
        self.target, self.source = nn.Linear(width, message), nn.Linear(width, message, bias=False)
        self.edge = nn.Linear(2, message, bias=False)
        self.update = perceptron(width + message, width, width)

    def forward(self, x: Tensor, graph: MeshGraph) -> Tensor:
        edge = self.edge(torch.cat([graph.length, graph.share], dim=-1))
        message = torch.relu(graph.gathered(self.target(x), self.source(x)) + edge)
        changed: Tensor = x + self.update(torch.cat([x, graph.averaged(message)], dim=-1))
        return changed


class Messages(GraphNetwork):
    """An encoder of the nodes, rounds of messages, and a decoder.

    Args:
        width: channels of a node.
        message: channels of a message.
        layers: rounds.
    """

    def __init__(self, scene: Scene, context: int, width: int, message: int, layers: int) -> None:
        super().__init__(scene, context)
        self.encoder = nn.Linear(self.inputs, width)
        self.layers = nn.ModuleList([Message(width, message) for _ in range(layers)])
        self.decoder = starting_at_zero(nn.Linear(width, 1))

    def change(self, x: Tensor) -> Tensor:
        x = self.encoder(x)
        for layer in self.layers:
            x = layer(x, self.graph)
        decoded: Tensor = self.decoder(x)
        return decoded


@dataclass(frozen=True)
class Mpnn(Network):
    """A message-passing network."""

    name: ClassVar[str] = "mpnn"
    steps: int = 120
    learning_rate: float = 2e-3
    noise: float = 0.2
    paces: int = 5
    width: int = 62
    message: int = 28
    layers: int = 3

    def build(self, scene: Scene, context: int) -> Messages:
        return Messages(scene, context, self.width, self.message, self.layers)
