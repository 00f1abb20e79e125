"""Graph networks: blocks that update edges, nodes and a context in turn, and give a value for every edge."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.checks import DomainError, FieldError, is_integer
from operators.kernels import segment_sum
from operators.pattern import SparsityPattern


@dataclass(frozen=True)
class NetworkShape:
    """How large a graph network is, and what its blocks read.

    The defaults are those of PA-DGN's forecasts (Seo, Meng and Liu 2020, appendix A.2); its directional derivatives have
    `NetworkShape(layers=1, both_ways=False, context=64)`, its convection `NetworkShape(normalised=True)`.

    Args:
        width: of every hidden feature.
        hops: h, how many times nodes read their edges: an edge's value depends on nodes at most h edges from its ends.
        layers: linear layers of each hidden update, 1 or more.
        both_ways: nodes read the sum of the edges that lead from them besides the sum of those that lead to them.
        normalised: a LayerNorm before the last ReLU of each hidden update.
        context: width of a feature of the whole graph, read by all and updated from the means of nodes and edges; 0 for none.
    """

    width: int = 64
    hops: int = 1
    layers: int = 2
    both_ways: bool = True
    normalised: bool = False
    context: int = 0

    def __post_init__(self) -> None:
        for name, least in (("width", 1), ("hops", 1), ("layers", 1), ("context", 0)):
            if not is_integer(getattr(self, name)) or getattr(self, name) < least:
                raise DomainError(f"{name} must be an integer of at least {least}, not {getattr(self, name)!r}")


class GraphNetwork(nn.Module):
    """(node features, edge features) ↦ a value for each edge, from the h-hop neighbourhood of the edge.

    e_ij ← φ_e(v_i, v_j, e_ij, u); then h times: v_i ← φ_v(v_i, Σ_j e_ij, Σ_j e_ji, u), u ← φ_u(mean v, mean e, u),
    e_ij ← φ_e'(v_i, v_j, e_ij, u), where the last φ_e' is a network with one hidden layer and a linear output. u starts at
    zero. Equivariant: renaming the nodes renames the result.

    Node features are multiplied by their weights before they are copied to the edges, W (v_i, v_j, e_ij) = W₁v_i + W₂v_j +
    W₃e_ij, so that the largest product is of n rows, not of E.

    Args:
        nodes: p, features of a node.
        edges: q, features of an edge; 0 for none.
        outputs: values of an edge.
        shape: width, hops and what the blocks read.

    Source: Battaglia et al. 2018, §3.2, as Seo, Meng and Liu 2020 use it (eq. 2).
    """

    def __init__(
        self,
        nodes: int,
        edges: int,
        outputs: int,
        shape: NetworkShape | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (("nodes", nodes, 1), ("edges", edges, 0), ("outputs", outputs, 1)):
            if not is_integer(value) or value < least:
                raise DomainError(f"{name} must be an integer of at least {least}, not {value!r}")
        self.shape = shape = shape or NetworkShape()
        self.nodes, self.edges, self.outputs = nodes, edges, outputs
        w, g = shape.width, shape.context
        directions = 2 if shape.both_ways else 1
        self.edge_updates, self.node_updates, self.context_updates = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.edge_updates.append(_Update(2 * nodes + edges + g, w, shape))
        features = nodes
        for hop in range(shape.hops):
            self.node_updates.append(_Update(features + directions * w + g, w, shape))
            features = w
            if g:
                self.context_updates.append(_Update(2 * w + g, g, shape))
            last = hop == shape.hops - 1
            self.edge_updates.append(_Output(3 * w + g, w, outputs) if last else _Update(3 * w + g, w, shape))
        self.to(dtype=dtype or torch.get_default_dtype(), device=device)

    @property
    def parameter_count(self) -> int:
        """The number of learned numbers."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def output(self) -> nn.Linear:
        """The last linear layer: at weight 0 every edge has the value of its bias."""
        last: nn.Linear = self.edge_updates[-1].last  # type: ignore[assignment]
        return last

    def forward(self, nodes: Tensor, links: Tensor | None, pattern: SparsityPattern) -> Tensor:
        """Values of the edges (..., E, outputs).

        Args:
            nodes: (..., n, p).
            links: (..., E, q) in the order of the pattern, which may lack the batch of `nodes`; None where q = 0.
            pattern: (n, n); the edge (i, j) leads from node j to node i.

        Raises:
            FieldError: the features do not fit.
        """
        self._check(nodes, links, pattern)
        batch = nodes.shape[:-2]
        context = nodes.new_zeros(*batch, self.shape.context) if self.shape.context else None
        edges = self._edges(0, nodes, links, context, pattern)
        for hop, update in enumerate(self.node_updates):
            read = [nodes, pattern.sum_rows(edges)]
            if self.shape.both_ways:
                read.append(segment_sum(edges, pattern.col, pattern.transposed_crow, pattern.transposed_order))
            if context is not None:
                read.append(context[..., None, :].expand(*batch, nodes.shape[-2], -1))
            nodes = update(torch.cat(read, dim=-1))
            if context is not None:
                # A graph without edges has no mean of them: zero, as a sum of none.
                mean = edges.sum(-2) / max(edges.shape[-2], 1)
                context = self.context_updates[hop](torch.cat([nodes.mean(-2), mean, context], dim=-1))
            edges = self._edges(hop + 1, nodes, edges, context, pattern)
        return edges

    def _edges(self, k: int, nodes: Tensor, links: Tensor | None, context: Tensor | None, pattern: SparsityPattern) -> Tensor:
        update = self.edge_updates[k]
        first: nn.Linear = update.first  # type: ignore[assignment]
        p, q = nodes.shape[-1], 0 if links is None else links.shape[-1]
        here, there, along, around = torch.split(first.weight, [p, p, q, first.in_features - 2 * p - q], dim=1)
        total = pattern.gather_rows(F.linear(nodes, here)) + pattern.gather_columns(F.linear(nodes, there))
        total = total + (first.bias if links is None else F.linear(links, along, first.bias))
        if context is not None:
            total = total + F.linear(context, around)[..., None, :]
        result: Tensor = update.rest(total)  # type: ignore[operator]
        return result

    def _check(self, nodes: Tensor, links: Tensor | None, pattern: SparsityPattern) -> None:
        if nodes.ndim < 2 or nodes.shape[-2:] != (pattern.shape[0], self.nodes):
            raise FieldError(f"node features must have shape (..., {pattern.shape[0]}, {self.nodes}), not {tuple(nodes.shape)}")
        found = 0 if links is None or links.ndim < 2 else links.shape[-1]
        if found != self.edges or (links is not None and links.shape[-2] != pattern.nnz):
            wanted = f"shape (..., {pattern.nnz}, {self.edges})" if self.edges else "to be None: this network reads none"
            raise FieldError(f"edge features have {wanted}, not {None if links is None else tuple(links.shape)}")
        if links is not None and links.ndim > nodes.ndim:
            raise FieldError(
                f"edge features {tuple(links.shape)} have a batch that the node features {tuple(nodes.shape)} lack: "
                "expand the nodes"
            )


class _Update(nn.Module):
    """A hidden update: linear layers with ReLU between and after them."""

    def __init__(self, features: int, width: int, shape: NetworkShape) -> None:
        super().__init__()
        self.first = nn.Linear(features, width)
        self.others = nn.ModuleList(nn.Linear(width, width) for _ in range(shape.layers - 1))
        self.norm = nn.LayerNorm(width) if shape.normalised else None

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.first(x))

    def rest(self, x: Tensor) -> Tensor:
        """What follows the first layer."""
        for layer in self.others:
            x = layer(F.relu(x))
        return F.relu(x if self.norm is None else self.norm(x))


class _Output(nn.Module):
    """The last update of the edges."""

    def __init__(self, features: int, width: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, width)
        self.last = nn.Linear(width, outputs)

    def rest(self, x: Tensor) -> Tensor:
        """What follows the first layer."""
        result: Tensor = self.last(F.relu(x))
        return result
