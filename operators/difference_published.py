"""The spatial difference layer as published: free weights from graph networks, several sets of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from operators.checks import DomainError, FieldError, check_field, is_integer
from operators.difference import Differences
from operators.difference_graph import DifferenceGraph
from operators.graph_network import GraphNetwork, NetworkShape
from operators.operator import Operator
from operators.pattern import SparsityPattern
from operators.sparse import SparseOperator


def edge_differences(pattern: SparsityPattern, x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    """(w∇x)_ij = w1_ij (x_j − w2_ij x_i) with a weight for each set and channel; (..., n, c) → (..., E, s, c).

    Args:
        w1, w2: (..., E, s, c), or what broadcasts to it. At w1 = w2 = 1 this is exactly x_j − x_i.
    """
    here, there = pattern.gather_rows(x), pattern.gather_columns(x)
    return w1 * (there[..., None, :] - w2 * here[..., None, :])


def node_differences(pattern: SparsityPattern, x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    """(w∆x)_i = Σ_j w1_ij (x_i − w2_ij x_j) with a weight for each set and channel; (..., n, c) → (..., n, s, c).

    Args:
        w1, w2: (..., E, s, c), or what broadcasts to it. At w1 = w2 = 1 this is the Laplacian of the graph.
    """
    here, there = pattern.gather_rows(x), pattern.gather_columns(x)
    each = w1 * (here[..., None, :] - w2 * there[..., None, :])
    total = pattern.sum_rows(each.flatten(-2))
    return total.reshape(*total.shape[:-1], *each.shape[-2:])


class PublishedDifference(Differences):
    """The spatial difference layer of PA-DGN with free weights: nothing is bounded, and nothing is promised.

    (w∇x)_ij = w1_ij (x_j − w2_ij x_i) on edges and (w∆x)_i = Σ_j w1_ij (x_i − w2_ij x_j) on nodes, in `sets` versions with a
    weight for each channel. Two graph networks, one for each form, make the weights from x, the positions and the edges'
    lengths. With w2 ≠ 1 neither form kills constants, so a rollout may explode: `SpatialDifference` bounds the weights and
    `ConsistentStencil` keeps them consistent.

    Args:
        graph: where differences are taken; nearest neighbours, a triangulation, or a mesh.
        channels: c of the fields (..., n, c).
        sets: s, versions of each form.
        network: of the graph networks.
        coefficients: outputs of the networks for each set and channel. The first two are w1 and w2; the authors' have a third, a
            factor of a linear forecast.
        coordinates, lengths: whether the networks read the positions of the nodes and the lengths of the edges.
        plain: start at w1 = w2 = 1, the plain difference and Laplacian, exactly; else at random, as published.

    Source: Seo, Meng and Liu 2020, eq. 1 and 2.
    """

    def __init__(
        self,
        graph: DifferenceGraph,
        channels: int = 1,
        sets: int = 1,
        network: NetworkShape | None = None,
        *,
        coefficients: int = 2,
        coordinates: bool = True,
        lengths: bool = True,
        plain: bool = False,
    ) -> None:
        super().__init__()
        for name, value, least in (("channels", channels, 1), ("sets", sets, 1), ("coefficients", coefficients, 2)):
            if not is_integer(value) or value < least:
                raise DomainError(f"{name} must be an integer of at least {least}, not {value!r}")
        self.graph = graph
        self.channels, self.sets, self.per_set = channels, sets, coefficients
        self.coordinates, self.lengths = coordinates, lengths
        features = channels + (graph.dimensions if coordinates else 0)

        def made() -> GraphNetwork:
            outputs = sets * coefficients * channels
            built = GraphNetwork(features, 1 if lengths else 0, outputs, network, dtype=graph.dtype, device=graph.points.device)
            if plain:
                nn.init.zeros_(built.output.weight)
                nn.init.ones_(built.output.bias)
            return built

        self.of_gradient, self.of_laplacian = made(), made()

    @property
    def edges(self) -> SparseOperator:
        return self.graph.edges

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs of both networks at x, gradient first, each (..., E, s, coefficients, c)."""
        check_field(x, len(self.graph.points), self.graph.dtype, self.graph.points.device)
        if x.shape[-1] != self.channels or x.is_complex():
            raise FieldError(
                f"this layer reads {self.channels} real channels, not {x.shape[-1]} of {x.dtype}: build it with as many as the "
                "field has"
            )
        nodes = x
        if self.coordinates:
            nodes = torch.cat([x, self.graph.points.expand(*x.shape[:-1], -1)], dim=-1)
        links = self.graph.lengths[:, None] if self.lengths else None
        shape = (self.sets, self.per_set, self.channels)
        gradient, laplacian = (net(nodes, links, self.graph.pattern) for net in (self.of_gradient, self.of_laplacian))
        return gradient.reshape(*gradient.shape[:-1], *shape), laplacian.reshape(*laplacian.shape[:-1], *shape)

    def differences(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient form (..., E, s, c) and the Laplacian form (..., n, s, c) of x."""
        g, w = self.coefficients(x)
        pattern = self.graph.pattern
        gradient = edge_differences(pattern, x, g[..., 0, :], g[..., 1, :])
        return gradient, node_differences(pattern, x, w[..., 0, :], w[..., 1, :])

    def forward(self, x: Tensor) -> tuple[Operator, Tensor]:
        """The Laplacian at x, an operator (n, n), and the gradient form of x, (..., E, c); the mean over the sets."""
        g, w = self.coefficients(x)
        gradient = edge_differences(self.graph.pattern, x, g[..., 0, :], g[..., 1, :]).mean(-2)
        return _SetLaplacian(self.graph.pattern, w[..., 0, :], w[..., 1, :]), gradient


class _SetLaplacian(Operator):
    """y ↦ Σ_j w1_ij (y_i − w2_ij y_j), channel by channel, the mean over the sets."""

    def __init__(self, pattern: SparsityPattern, w1: Tensor, w2: Tensor) -> None:
        super().__init__()
        self.pattern, self.shape = pattern, pattern.shape
        self.register_buffer("w1", w1, persistent=False)
        self.register_buffer("w2", w2, persistent=False)

    def _reference(self) -> Tensor:
        return self.w1

    def forward(self, x: Tensor) -> Tensor:
        return node_differences(self.pattern, x, self.w1, self.w2).mean(-2)

    w1: Tensor
    w2: Tensor
