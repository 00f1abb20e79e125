"""Encode, process, decode, with features on the edges, too (Pfaff et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from neuralpde.mesh_case import Scene
from neuralpde.mesh_networks import GraphNetwork, MeshGraph, perceptron, starting_at_zero
from neuralpde.mesh_training import Network


class Block(nn.Module):
    """e_ij ← e_ij + φ(e_ij, x_i, x_j), then x_i ← x_i + ψ(x_i, mean_j e_ij), each with a layer norm at its end.

    The first layer of φ acts on nodes before they are gathered, which is the same and cheaper.
    """

    def __init__(self, width: int, edge_width: int) -> None:
        super().__init__()
        self.target, self.source = nn.Linear(width, edge_width), nn.Linear(width, edge_width, bias=False)
        self.edge = nn.Linear(edge_width, edge_width, bias=False)
        self.message = nn.Linear(edge_width, edge_width)
        self.update = perceptron(width + edge_width, width, width)
        self.edge_norm, self.node_norm = nn.LayerNorm(edge_width), nn.LayerNorm(width)

    def forward(self, x: Tensor, e: Tensor, graph: MeshGraph) -> tuple[Tensor, Tensor]:
        """x (n, K, c) and e (E, K, c), both updated."""
        ends = graph.gathered(self.target(x), self.source(x))
        e = e + self.edge_norm(self.message(torch.relu(ends + self.edge(e))))
        return x + self.node_norm(self.update(torch.cat([x, graph.averaged(e)], dim=-1))), e


class EncodeProcessDecode(GraphNetwork):
    """Node features and relative positions with their lengths are encoded, processed by blocks, and nodes decoded.

    Args:
        width: channels of a node.
        edge_width: channels of an edge.
        blocks: of the processor.
    """

    def __init__(self, scene: Scene, context: int, width: int, edge_width: int, blocks: int) -> None:
        super().__init__(scene, context)
        self.node_encoder = perceptron(self.inputs, width, width)
        self.edge_encoder = perceptron(4, edge_width, edge_width)
        self.blocks = nn.ModuleList([Block(width, edge_width) for _ in range(blocks)])
        self.hidden, self.decoder = nn.Linear(width, width), starting_at_zero(nn.Linear(width, 1))

    def change(self, x: Tensor) -> Tensor:
        graph = self.graph
        # The edges know nothing of the fields yet, and are encoded once for the whole batch.
        e = self.edge_encoder(torch.cat([graph.direction, graph.length], dim=-1)).expand(-1, x.shape[1], -1)
        x = self.node_encoder(x)
        for block in self.blocks:
            x, e = block(x, e, graph)
        decoded: Tensor = self.decoder(torch.relu(self.hidden(x)))
        return decoded


@dataclass(frozen=True)
class MeshGraphNet(Network):
    """MeshGraphNet, with mesh edges alone."""

    name: ClassVar[str] = "meshgraphnet"
    steps: int = 80
    learning_rate: float = 2e-3
    noise: float = 0.2
    paces: int = 5
    width: int = 44
    edge_width: int = 24
    blocks: int = 4

    def build(self, scene: Scene, context: int) -> EncodeProcessDecode:
        return EncodeProcessDecode(scene, context, self.width, self.edge_width, self.blocks)
