"""Graph convolutions on the weights of the surface (Kipf and Welling 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from neuralpde.mesh_case import Scene
from neuralpde.mesh_networks import GraphNetwork, applied, starting_at_zero
from neuralpde.mesh_training import Network
from operators import SparseOperator


class Convolutions(GraphNetwork):
    """x ← x + relu(½ (x + D^-½ W D^-½ x) Θ + b) between an encoder and a decoder of the nodes.

    The self-loop is as heavy as all other edges of a node together, and layers have skip connections, without which the
    convolutions have smoothed away what is to be predicted.

    Args:
        width: channels of the hidden layers.
        layers: convolutions.
    """

    def __init__(self, scene: Scene, context: int, width: int, layers: int) -> None:
        super().__init__(scene, context)
        self.encoder = nn.Linear(self.inputs, width)
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(layers)])
        self.decoder = starting_at_zero(nn.Linear(width, 1))

    def change(self, x: Tensor) -> Tensor:
        average = self._average()
        x = self.encoder(x)
        for layer in self.layers:
            x = x + torch.relu(layer((x + applied(average, x)) / 2))
        decoded: Tensor = self.decoder(x)
        return decoded

    def _average(self) -> SparseOperator:
        weights = self.graph.weights
        degree = weights.row_sums()
        root = torch.where(degree > 0, degree, 1.0).rsqrt()
        return weights.scaled(root, root)


@dataclass(frozen=True)
class Gcn(Network):
    """A GCN on the robust weights."""

    name: ClassVar[str] = "gcn"
    steps: int = 120
    learning_rate: float = 2e-3
    noise: float = 0.2
    paces: int = 5
    width: int = 98
    layers: int = 4

    def build(self, scene: Scene, context: int) -> Convolutions:
        return Convolutions(scene, context, self.width, self.layers)
