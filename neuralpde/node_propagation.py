"""Our classifiers: the flow of the graph's own walk in a few products, with nodes dropped at random, and a perceptron."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from integrators import Integrator, integrate
from neuralpde.beltrami import BeltramiFlow
from neuralpde.node_data import NodeData
from neuralpde.node_models import FeatureLinear, NodeModel


class SymmetricFlow(nn.Module):
    """z(T) / (1 + βT) of dz/dt = α (S − I) z + β z(0), where S = D^½ A D^-½ is symmetric for A = D⁻¹ (W + w I).

    A change of variables around a Beltrami flow on the random walk A: y = D^-½ z flows by A. The factor keeps a field that does
    not flow as it is.

    Args:
        flow: with `FixedDiffusivity(graph, self_loops=w)`, on which A does not depend on the field.
        time: T.
        solver: `Exponential(tol=1e-4)` solves it in about √(2αT log 10⁴) products.
    """

    root: Tensor

    def __init__(self, flow: BeltramiFlow, time: float, solver: Integrator) -> None:
        super().__init__()
        if not (math.isfinite(time) and time > 0):
            raise ValueError(f"time must be positive and finite, not {time}")
        self.flow, self.time, self.solver, self.nfe = flow, time, solver, 0
        edges = flow.diffusivity.edges
        degree = torch.zeros_like(edges.rate).index_add(0, edges.pattern.row, edges.weight)
        self.register_buffer("root", degree.sqrt()[:, None], persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """(n, c) → (n, c)."""
        solution = integrate(self.flow, z / self.root, [0.0, self.time], self.solver)
        self.nfe = solution.stats.nfe
        grown = 1.0 if self.flow.source is None else 1 + self.flow.source * self.time
        final: Tensor = self.root * solution.x[-1] / grown
        return final


class RandomPropagation(NodeModel):
    """Nodes dropped at random → Linear → symmetric flow → relu → dropout → Linear (after Feng et al. 2020).

    Encoder and flow are linear, so dropping a node's features is dropping a row of the encoded field, and the draws of an epoch
    flow side by side as channels of one solve.

    Args:
        data: the graph to classify.
        flow: from encoded features to the field that is decoded.
        channels: of the field.
        drop_nodes: the probability that a node's features are left out of a draw.
        input_dropout, dropout: the probabilities before the encoder and before the decoder.
    """

    def __init__(
        self, data: NodeData, flow: SymmetricFlow, channels: int, drop_nodes: float, input_dropout: float, dropout: float
    ) -> None:
        super().__init__()
        self.features, self.flow, self.drop_nodes, self.dropout = data.features, flow, drop_nodes, dropout
        self.encode = FeatureLinear(data.features.shape[1], channels, input_dropout, bias=False)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.decode = nn.Linear(channels, data.classes)

    def forward(self) -> Tensor:
        return self._passes(1)[:, 0]

    def draws(self, count: int, nodes: Tensor) -> Tensor:
        return self._passes(count).movedim(1, 0)[:, nodes]

    def _passes(self, count: int) -> Tensor:
        """(n, count, classes)."""
        drawn = torch.cat([self._draw() for _ in range(count)], dim=1)
        final = self.flow(drawn).unflatten(1, (count, -1)) + self.bias
        self.nfe = self.flow.nfe
        logits: Tensor = self.decode(F.dropout(final.relu(), self.dropout, self.training))
        return logits

    def _draw(self) -> Tensor:
        x: Tensor = self.encode(self.features)
        kept = F.dropout(x.new_ones(len(x), 1), self.drop_nodes, self.training)
        return x * kept


class Perceptron(NodeModel):
    """dropout → Linear → relu → dropout → Linear on fields (n, c) that have flowed before.

    A pass reads only the nodes that it is asked for.
    """

    fields: Tensor

    def __init__(self, fields: Tensor, classes: int, channels: int, input_dropout: float, dropout: float, nfe: int) -> None:
        super().__init__()
        self.register_buffer("fields", fields, persistent=False)
        self.nfe = nfe
        self.layers = nn.Sequential(
            nn.Dropout(input_dropout),
            nn.Linear(fields.shape[1], channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(channels, classes),
        )

    def forward(self) -> Tensor:
        logits: Tensor = self.layers(self.fields)
        return logits

    def draws(self, count: int, nodes: Tensor) -> Tensor:
        fields = self.fields[nodes]
        return torch.stack([self.layers(fields) for _ in range(count)])
