"""Models that classify all nodes of one graph: a Beltrami flow between a linear encoder and decoder, and PyG's GCN and GAT."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from integrators import Integrator, integrate
from neuralpde.beltrami import BeltramiFlow
from neuralpde.node_data import Features, NodeData
from operators import DomainError, FieldError, SparseOperator
from operators.sparse import sparse_product


class NodeModel(nn.Module):
    """What classifies the nodes of the graph that it was built on.

    Attributes:
        nfe: what the last pass over the graph cost: evaluations of the right-hand side, products with A or layers.
    """

    nfe: int = 0

    def forward(self) -> Tensor:
        """Scores (n, classes) before the softmax."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(self)")

    def draws(self, count: int, nodes: Tensor) -> Tensor:
        """Scores (count, len(nodes), classes) of some nodes in so many passes, which differ by what dropout draws.

        A model may share work among the passes, or leave out what these nodes do not need.
        """
        return torch.stack([self()[nodes] for _ in range(count)])

    def groups(self, decay: float) -> list[dict[str, Any]]:
        """The parameters for an optimiser, with their weight decay."""
        return [{"params": list(self.parameters()), "weight_decay": decay}]


class FeatureLinear(nn.Module):
    """x ↦ dropout(x) W + b for dense or sparse features (n, d), without ever making sparse ones dense.

    Dropout of a sparse matrix draws for its non-zeros alone; a dropped zero is still zero.
    """

    def __init__(self, inputs: int, outputs: int, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.dropout = dropout
        nn.init.xavier_uniform_(self.weight)

    def forward(self, features: Features) -> Tensor:
        if features.shape[1] != self.weight.shape[0]:
            raise FieldError(f"this layer reads {self.weight.shape[0]} features, not {features.shape[1]}: build it for these")
        if isinstance(features, SparseOperator):
            kept = F.dropout(features.values, self.dropout, self.training)
            product = sparse_product(kept, self.weight, features.pattern)
        else:
            product = F.dropout(features, self.dropout, self.training) @ self.weight
        return product if self.bias is None else product + self.bias


def check_positions(positions: Features, data: NodeData) -> Features:
    """Return the positions. Raises DomainError if they are of another graph's size or not finite."""
    values = positions.values if isinstance(positions, SparseOperator) else positions
    if len(positions.shape) != 2 or positions.shape[0] != data.nodes:
        raise DomainError(
            f"the positions have shape {tuple(positions.shape)} but {data.name} has {data.nodes} nodes: "
            "they were made for another graph, or before its largest component was taken; make them anew"
        )
    if not values.is_floating_point() or not bool(torch.isfinite(values).all()):
        raise DomainError(f"the positions must be finite floating point numbers ({values.dtype} given)")
    return positions


class BeltramiClassifier(NodeModel):
    """dropout → Linear (positions and features each by their own) → Beltrami flow on [0, T] → relu → dropout → Linear.

    The model of BLEND (Chamberlain et al. 2021, §4), and without positions of GRAND (Chamberlain et al. 2021).

    Args:
        data: the graph to classify.
        flow: on the joint state: with positions a pair (u, x) of `position_channels` and `channels`, else x.
        time: T, where the flow ends.
        solver: how it is solved; `Exponential(tol=1e-4)` for a frozen flow, `Dopri5(...)` for one that is not.
        channels: of the encoded features.
        positions: (n, d), such as PageRank rows or DeepWalk embeddings; None for none.
        position_channels: of the encoded positions.
        input_dropout, dropout: the probabilities before the encoder and before the decoder.

    Raises:
        DomainError: positions of another graph's size.
    """

    def __init__(
        self,
        data: NodeData,
        flow: BeltramiFlow,
        time: float,
        solver: Integrator,
        channels: int,
        *,
        positions: Features | None = None,
        position_channels: int = 16,
        input_dropout: float = 0.5,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if not (math.isfinite(time) and time > 0):
            raise ValueError(f"time must be positive and finite, not {time}")
        self.features, self.flow, self.time, self.solver = data.features, flow, time, solver
        self.encode = FeatureLinear(data.features.shape[1], channels, input_dropout)
        self.positions = None if positions is None else check_positions(positions, data)
        both = channels
        if positions is not None:
            self.encode_positions = FeatureLinear(positions.shape[1], position_channels, input_dropout)
            both += position_channels
        self.dropout = dropout
        self.decode = nn.Linear(both, data.classes)

    def forward(self) -> Tensor:
        x = self.encode(self.features)
        z = x if self.positions is None else (self.encode_positions(self.positions), x)
        solution = integrate(self.flow, z, [0.0, self.time], self.solver)
        self.nfe = solution.stats.nfe
        final = torch.cat(solution.final, dim=-1) if isinstance(solution.final, tuple) else solution.final
        logits: Tensor = self.decode(F.dropout(final.relu(), self.dropout, self.training))
        return logits

    def groups(self, decay: float) -> list[dict[str, Any]]:
        # Decay pulls weights to zero; log α at zero is no simpler a flow than elsewhere.
        rest = [p for p in self.parameters() if p is not self.flow.log_rate]
        return [{"params": rest, "weight_decay": decay}, {"params": [self.flow.log_rate], "weight_decay": 0.0}]


class GraphConvolutions(NodeModel):
    """Two layers of PyG's `GCNConv` (Kipf and Welling 2017), the decay on the first alone, as published."""

    def __init__(self, data: NodeData, channels: int = 16, dropout: float = 0.5) -> None:
        super().__init__()
        from torch_geometric.nn import GCNConv

        self.features, self.edge_index, self.dropout, self.nfe = data.features, data.graph.edge_index, dropout, 2
        # The layer's own product with the features would make sparse ones dense.
        self.encode = FeatureLinear(data.features.shape[1], channels, dropout, bias=False)
        self.first = GCNConv(channels, channels, cached=True)
        self.first.lin = nn.Identity()
        self.second = GCNConv(channels, data.classes, cached=True)

    def forward(self) -> Tensor:
        hidden = self.first(self.encode(self.features), self.edge_index).relu()
        logits: Tensor = self.second(F.dropout(hidden, self.dropout, self.training), self.edge_index)
        return logits

    def groups(self, decay: float) -> list[dict[str, Any]]:
        return [
            {"params": [*self.encode.parameters(), *self.first.parameters()], "weight_decay": decay},
            {"params": list(self.second.parameters()), "weight_decay": 0.0},
        ]


class GraphAttention(NodeModel):
    """Two layers of PyG's `GATConv` (Veličković et al. 2018)."""

    def __init__(self, data: NodeData, channels: int = 8, heads: int = 8, dropout: float = 0.6) -> None:
        super().__init__()
        from torch_geometric.nn import GATConv

        self.features, self.edge_index, self.dropout, self.nfe = data.features, data.graph.edge_index, dropout, 2
        self.encode = FeatureLinear(data.features.shape[1], channels * heads, dropout, bias=False)
        self.first = GATConv(channels * heads, channels, heads=heads, dropout=dropout)
        self.first.lin = nn.Identity()
        self.second = GATConv(channels * heads, data.classes, heads=1, dropout=dropout)

    def forward(self) -> Tensor:
        hidden = F.elu(self.first(self.encode(self.features), self.edge_index))
        logits: Tensor = self.second(F.dropout(hidden, self.dropout, self.training), self.edge_index)
        return logits
