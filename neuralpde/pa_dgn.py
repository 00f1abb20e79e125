"""PA-DGN and its siblings: recurrent graph networks that read spatial differences (Seo, Meng and Liu 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuralpde.recurrent_graph_network import GraphState, RecurrentGraphNetwork
from neuralpde.recurrent_graph_network_cells import affine
from operators import DomainError, FieldError, SparsityPattern
from operators.kernels import segment_sum
from operators.mesh_difference import MeshDifference


@dataclass(frozen=True, eq=False)
class SensorGraph:
    """What these networks know of a placement.

    Args:
        pattern: entry (i, j) is the edge on which sensor i receives from sensor j.
        positions: (n, p), without dimension.
        mesh: the operators of a triangulation, for `RGNMeshOP` only.
    """

    pattern: SparsityPattern
    positions: Tensor
    mesh: MeshDifference | None = None


class GraphDynamics(nn.Module):
    """x(t+1) = x(t) + N(features of x(t), state): what is common to the recurrent graph networks.

    Args:
        channels: c.
        positions: p, the number of position features of each sensor; 0 if the network is not told them.
        nodes, edges: the features of x that it reads besides x itself and the positions.
        width: of the states.
        bound: R, what |x(t+1)| is cut to; without it an untrained network's forecast may grow, linearly in time, since |h| ≤ 1.
    """

    def __init__(self, channels: int, positions: int, nodes: int, edges: int, width: int, bound: float = math.inf) -> None:
        super().__init__()
        if not bound > 0:
            raise DomainError(f"bound must be positive, not {bound}")
        if min(channels, width) < 1 or positions < 0:
            raise DomainError(
                f"channels and width must be at least 1, positions at least 0, not {channels}, {width}, {positions}"
            )
        self.channels, self.positions, self.bound = channels, positions, bound
        self.network = RecurrentGraphNetwork(channels + positions + nodes, edges, channels, width)

    def features(self, x: Tensor, graph: SensorGraph) -> tuple[Tensor | None, Tensor | None]:
        """Of x (T, B, n, c): what each node reads besides, (T, B, n, ·), and each edge, (T, B, E, ·)."""
        return None, None

    def step(self, x: Tensor, graph: SensorGraph, state: GraphState | None = None) -> tuple[Tensor, GraphState]:
        """The frames after each of T known frames x (T, B, n, c), in the same shape, and the state after the last."""
        at_nodes, at_edges = self.features(x, graph)
        parts = [x]
        if self.positions:
            parts.append(graph.positions.expand(*x.shape[:-1], -1))
        if at_nodes is not None:
            parts.append(at_nodes)
        nodes = torch.cat(parts, dim=-1) if len(parts) > 1 else x
        change, state = self.network(nodes, at_edges, graph.pattern, state)
        return (x + change).clamp(-self.bound, self.bound), state

    def forward(self, frames: Tensor, steps: int, graph: SensorGraph, forced: Sequence[Tensor | None] = ()) -> Tensor:
        """Read the known frames, then go on alone.

        Args:
            frames: (B, w, n, c).
            steps: h, to forecast after the last frame.
            forced: what to continue from after 1, 2, ... steps instead of the forecast, (B, n, c) each, or None.

        Returns:
            The frames after the first one, (B, w − 1 + h, n, c): w − 1 of one step, then h of the rollout.
        """
        self._check(frames, steps, graph)
        state, path = None, []
        # A few at a time: fields of many frames leave the caches, and the allocator fetches them anew from the system.
        for known in torch.split(frames.transpose(0, 1), 4):
            x, state = self.step(known, graph, state)
            path.append(x)
        for k in range(steps - 1):
            truth = forced[k] if k < len(forced) else None
            x, state = self.step(path[-1][-1:] if truth is None else truth[None], graph, state)
            path.append(x)
        return torch.cat(path).transpose(0, 1)

    def _check(self, frames: Tensor, steps: int, graph: SensorGraph) -> None:
        n = graph.pattern.shape[0]
        if frames.ndim != 4 or frames.shape[2:] != (n, self.channels) or frames.shape[1] < 1:
            raise FieldError(f"frames must have shape (B, w, {n}, {self.channels}) with w ≥ 1, not {tuple(frames.shape)}")
        if not bool(torch.isfinite(frames).all()):
            raise FieldError("frames hold NaN or infinite values: fill what was not measured first")
        if steps < 1:
            raise FieldError(f"at least one step must be forecast, not {steps}")
        if self.positions and graph.positions.shape != (n, self.positions):
            raise FieldError(f"positions must have shape ({n}, {self.positions}), not {tuple(graph.positions.shape)}")


class RGN(GraphDynamics):
    """The recurrent graph network without differences; 345,876 parameters at width 73, one channel and no positions.

    5,695 of them belong to a perceptron of the authors' code, which never reads it; it is kept for the count.
    """

    def __init__(self, channels: int = 1, positions: int = 0, width: int = 73, bound: float = math.inf) -> None:
        super().__init__(channels, positions, 0, 0, width, bound)
        self.unread = nn.Sequential(
            nn.Linear(2 * channels, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, channels)
        ).requires_grad_(False)


class RGNStandardOP(GraphDynamics):
    """Reads plain differences: x_i − x_j on edges and Σ_j (x_i − x_j) at nodes; 341,057 parameters at width 73."""

    def __init__(self, channels: int = 1, positions: int = 0, width: int = 73, bound: float = math.inf) -> None:
        super().__init__(channels, positions, channels, channels, width, bound)

    def features(self, x: Tensor, graph: SensorGraph) -> tuple[Tensor, Tensor]:
        pattern = graph.pattern
        difference = pattern.gather_rows(x) - pattern.gather_columns(x)
        return pattern.sum_rows(difference), difference


class RGNMeshOP(GraphDynamics):
    """Reads gradient and Laplacian at the vertices of a triangulation; 342,152 parameters at width 73."""

    def __init__(self, channels: int = 1, positions: int = 0, width: int = 73, bound: float = math.inf) -> None:
        super().__init__(channels, positions, 3 * channels, 0, width, bound)

    def features(self, x: Tensor, graph: SensorGraph) -> tuple[Tensor, None]:
        if graph.mesh is None:
            raise DomainError("this graph has no triangulation: give SensorGraph a mesh, MeshDifference(cloud)")
        return graph.mesh.features(x).flatten(-2), None


class PADGN(GraphDynamics):
    """PA-DGN as published: 340,001 parameters with one channel, three position features, 16 differences and width 64.

    On every edge a_ij (x_i − b_ij x_j), and at every node Σ_j a'_ij (x_i − b'_ij x_j), each `differences` times, with a, b and
    a', b' from two graph networks over two hops of (x, positions). The recurrent network reads x and these. As in the authors'
    code the two networks have a third output c, which this form never reads.

    Args:
        channels: c.
        positions: p.
        differences: the number of difference operators of each kind.
        width: of every layer and state.
        bound: R, what |x(t+1)| is cut to.

    Source: Seo, Meng and Liu 2020, eq. 1, section 2.4 and Table 4.
    """

    def __init__(
        self, channels: int = 1, positions: int = 3, differences: int = 16, width: int = 64, bound: float = math.inf
    ) -> None:
        # The positions go into the coefficients only.
        super().__init__(channels, 0, channels * differences, channels * differences, width, bound)
        if differences < 1:
            raise DomainError(f"at least one difference is needed, not {differences}")
        self.told, self.differences = positions, differences
        self.gradient = Coefficients(channels + positions, width, 3 * channels * differences)
        self.laplacian = Coefficients(channels + positions, width, 3 * channels * differences)

    def features(self, x: Tensor, graph: SensorGraph) -> tuple[Tensor, Tensor]:
        pattern = graph.pattern
        nodes = torch.cat([x, graph.positions.expand(*x.shape[:-1], -1)], dim=-1) if self.told else x
        here, there = pattern.gather_rows(x), pattern.gather_columns(x)
        along = self._differences(self.gradient, nodes, here, there, pattern)
        around = self._differences(self.laplacian, nodes, here, there, pattern)
        return pattern.sum_rows(around), along

    def _differences(
        self, coefficients: Coefficients, nodes: Tensor, here: Tensor, there: Tensor, pattern: SparsityPattern
    ) -> Tensor:
        a, b = coefficients(nodes, pattern, self.differences, self.channels)
        # (…, E, c) against (…, E, differences, c).
        modulated: Tensor = a * (here[..., None, :] - b * there[..., None, :])
        return modulated.flatten(-2)

    def _check(self, frames: Tensor, steps: int, graph: SensorGraph) -> None:
        super()._check(frames, steps, graph)
        if self.told and graph.positions.shape != (graph.pattern.shape[0], self.told):
            shape = (graph.pattern.shape[0], self.told)
            raise FieldError(f"positions must have shape {shape}, not {tuple(graph.positions.shape)}")


class Coefficients(nn.Module):
    """e_ij = φ₁(v_j, v_i), v_i ← φ₂(v_i, Σ_j e_ji, Σ_j e_ij), then φ₃(e_ij, v_j, v_i), each a perceptron of two layers."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.inputs, self.width = inputs, width
        self.edge = Perceptron(2 * inputs, width, width)
        self.node = Perceptron(inputs + 2 * width, width, width)
        self.out = Perceptron(3 * width, width, outputs)

    def forward(self, nodes: Tensor, pattern: SparsityPattern, sets: int, channels: int) -> tuple[Tensor, Tensor]:
        """nodes (..., n, inputs) → a and b, each (..., E, sets, channels)."""
        sender, receiver = torch.split(self.edge.first.weight, self.inputs, dim=1)
        hidden = pattern.gather_columns(affine(nodes, sender))
        hidden += pattern.gather_rows(affine(nodes, receiver, self.edge.first.bias))
        edges = affine(hidden.relu_(), self.edge.second.weight, self.edge.second.bias, rectified=True)
        sent = segment_sum(edges, pattern.col, pattern.transposed_crow, pattern.transposed_order)
        joined = torch.cat([nodes, sent, pattern.sum_rows(edges)], dim=-1)
        joined = affine(joined, self.node.first.weight, self.node.first.bias, rectified=True)
        joined = affine(joined, self.node.second.weight, self.node.second.bias, rectified=True)
        link, sender, receiver = torch.split(self.out.first.weight, self.width, dim=1)
        hidden = pattern.gather_columns(affine(joined, sender))
        hidden += pattern.gather_rows(affine(joined, receiver, self.out.first.bias))
        hidden += affine(edges, link)
        # The third coefficient of each set is never read, so it is not computed.
        weight = self.out.second.weight.view(sets, 3, channels, -1)[:, :2].flatten(0, 2)
        bias = self.out.second.bias.view(sets, 3, channels)[:, :2].flatten()
        pairs = affine(hidden.relu_(), weight, bias)
        a, b = pairs.view(*pairs.shape[:-1], sets, 2, channels).unbind(-2)
        return a, b


class Perceptron(nn.Module):
    """The two layers of a perceptron."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, width), nn.Linear(width, outputs)
