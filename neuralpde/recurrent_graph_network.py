"""Recurrent graph networks: edges and nodes with gated recurrent units (Sanchez-Gonzalez et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuralpde.recurrent_graph_network_cells import GatedSequence, affine
from operators import DomainError, FieldError, SparsityPattern
from operators.kernels import segment_sum

# The states of the two units of an update.
UnitStates = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class GraphState:
    """What a recurrent graph network remembers.

    Args:
        edges: for each block the states of its units, each (..., E, width).
        nodes: likewise, (..., n, width).
    """

    edges: tuple[UnitStates, ...]
    nodes: tuple[UnitStates, ...]


class RecurrentUpdate(nn.Module):
    """Two gated recurrent units one after the other and a decoder, V h + d, rectified or not."""

    def __init__(self, inputs: int, width: int, outputs: int, rectified: bool) -> None:
        super().__init__()
        self.first, self.second = GatedSequence(inputs, width), GatedSequence(width, width)
        self.decoder = nn.Linear(width, outputs)
        self.rectified = rectified

    def forward(self, given: Tensor, state: UnitStates | None) -> tuple[Tensor, UnitStates]:
        """given: the first unit's W x + b, (T, ..., 3 width) → (T, ..., outputs), and the states after the last frame."""
        before = (None, None) if state is None else state
        first = self.first(given, before[0])
        second = self.second(affine(first, self.second.weight, self.second.bias), before[1])
        out = affine(second, self.decoder.weight, self.decoder.bias, self.rectified)
        return out, (first[-1], second[-1])


class RecurrentBlock(nn.Module):
    """e_ij ← φ_e(e_ij, v_j, v_i), then v_i ← φ_v(v_i, Σ_j e_ji, Σ_j e_ij), both recurrent (Seo, Meng and Liu 2020, section 2.4).

    Args:
        nodes, edges: the features that come in; `edges` may be none.
        width: of the states, and of the edges' output.
        outputs: of the nodes.
        rectified: whether the nodes' output is.
    """

    def __init__(self, nodes: int, edges: int, width: int, outputs: int, rectified: bool) -> None:
        super().__init__()
        self.sizes = [edges, nodes, nodes]
        self.edge = RecurrentUpdate(edges + 2 * nodes, width, width, rectified=True)
        self.node = RecurrentUpdate(nodes + 2 * width, width, outputs, rectified)

    def forward(
        self,
        nodes: Tensor,
        edges: Tensor | None,
        pattern: SparsityPattern,
        state: tuple[UnitStates, UnitStates] | None,
    ) -> tuple[Tensor, Tensor, tuple[UnitStates, UnitStates]]:
        """nodes (T, ..., n, a) and edges (T, ..., E, b), row i receives from column j → both, and the states."""
        first = self.edge.first
        link, sender, receiver = torch.split(first.weight, self.sizes, dim=1)
        # Linear maps commute with gathering, and there are fewer nodes than edges.
        given = pattern.gather_columns(affine(nodes, sender))
        given += pattern.gather_rows(affine(nodes, receiver, first.bias))
        if edges is not None:
            given += affine(edges, link)
        edges, edge_state = self.edge(given, None if state is None else state[0])
        sent = segment_sum(edges, pattern.col, pattern.transposed_crow, pattern.transposed_order)
        joined = torch.cat([nodes, sent, pattern.sum_rows(edges)], dim=-1)
        unit = self.node.first
        out, node_state = self.node(affine(joined, unit.weight, unit.bias), None if state is None else state[1])
        return out, edges, (edge_state, node_state)


class RecurrentGraphNetwork(nn.Module):
    """Blocks of recurrent edge and node updates, over frames that are known one after the other.

    Args:
        nodes: features of each node.
        edges: features of each edge; 0 for none.
        outputs: of each node.
        width: of all states.
        blocks: their number; the last one's output is linear, the others' rectified.
    """

    def __init__(self, nodes: int, edges: int, outputs: int, width: int = 64, blocks: int = 2) -> None:
        super().__init__()
        if min(nodes, outputs, width, blocks) < 1 or edges < 0:
            raise DomainError(
                f"nodes, outputs, width and blocks must be at least 1 and edges at least 0, not {nodes}, {outputs}, {width}, "
                f"{blocks} and {edges}"
            )
        self.sizes = (nodes, edges)
        self.blocks = nn.ModuleList()
        for k in range(blocks):
            last = k == blocks - 1
            inputs = (nodes, edges) if k == 0 else (width, width)
            self.blocks.append(RecurrentBlock(*inputs, width, outputs if last else width, rectified=not last))

    def forward(
        self, nodes: Tensor, edges: Tensor | None, pattern: SparsityPattern, state: GraphState | None = None
    ) -> tuple[Tensor, GraphState]:
        """Read T frames.

        Args:
            nodes: (T, ..., n, a).
            edges: (T, ..., E, b) in the pattern's order; None if there are none.
            pattern: entry (i, j) is the edge from j to i.
            state: after the frame before; zero at the start.

        Returns:
            Each frame's output (T, ..., n, outputs), and the state after the last.
        """
        n, entries = pattern.shape[0], pattern.nnz
        if nodes.ndim < 3 or nodes.shape[-2:] != (n, self.sizes[0]):
            raise FieldError(f"nodes must have shape (T, ..., {n}, {self.sizes[0]}), not {tuple(nodes.shape)}")
        if (edges is None) != (self.sizes[1] == 0) or (edges is not None and edges.shape[-2:] != (entries, self.sizes[1])):
            found = None if edges is None else tuple(edges.shape)
            raise FieldError(f"edges must have shape (T, ..., {entries}, {self.sizes[1]}), or be None if that is 0, not {found}")
        edge_states, node_states = [], []
        for k, block in enumerate(self.blocks):
            nodes, edges, (at_edges, at_nodes) = block(
                nodes, edges, pattern, None if state is None else (state.edges[k], state.nodes[k])
            )
            edge_states.append(at_edges)
            node_states.append(at_nodes)
        return nodes, GraphState(tuple(edge_states), tuple(node_states))
