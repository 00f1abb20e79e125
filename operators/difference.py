"""Spatial difference layer: finite differences whose weights are learned (Seo, Meng and Liu 2020, PA-DGN)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from operators.checks import DomainError, FieldError, check_field, is_integer
from operators.laplacian import Laplacian, adjacency_of
from operators.operator import Movable, Operator
from operators.pattern import SparsityPattern
from operators.sparse import SparseOperator, sparse_product


def modulated_laplacian(edges: SparseOperator, w1: Tensor, w2: Tensor) -> SparseOperator:
    """(w∆x)_i = Σ_j b_ij w1_ij (x_i − w2_ij x_j), eq. 1 of PA-DGN with base weights b.

    Args:
        edges: b, (n, n), without diagonal.
        w1, w2: (..., E) in the pattern's order. At w1 = w2 = 1 this is the plain Laplacian.

    Returns:
        The operator (n, n), one per batch member.
    """
    pattern, n = edges.pattern, edges.shape[0]
    coefficient = edges.values * w1
    ones = torch.ones(n, 1, dtype=coefficient.dtype, device=coefficient.device)
    diagonal = sparse_product(coefficient, ones, pattern).squeeze(-1)
    joined = pattern.with_diagonal()
    off = -coefficient * w2
    entries = torch.cat([off, diagonal.expand(*off.shape[:-1], n)], dim=-1)
    return SparseOperator(joined, entries.index_select(-1, joined.order))


def modulated_gradient(edges: SparseOperator, x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    """(w∇x)_ij = w1_ij (x_j − w2_ij x_i) on every edge; (..., n, c) → (..., E, c), eq. 1 of PA-DGN.

    At w1 = w2 = 1 this is the plain difference x_j − x_i, in the pattern's order (row i, column j).
    """
    check_field(x, edges.shape[1], edges.dtype, edges.device)
    pattern = edges.pattern
    here, there = pattern.gather_rows(x), pattern.gather_columns(x)
    return w1[..., None] * (there - w2[..., None] * here)


class Differences(Movable):
    """What a difference flow is made of: x ↦ (a Laplacian at x, differences of x along edges).

    Every kind of differences is one: fixed, learned and bounded, learned as published, learned and consistent.
    """

    @property
    def edges(self) -> SparseOperator:
        """b, (n, n) without diagonal: the edges (i, j), seen from i, with their plain weights."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Operator, Tensor]:
        """The Laplacian at x, an operator (n, n), positive so that diffusion is −L; and the differences of x, (..., E, c).

        Args:
            x: (..., n, c).
        """
        raise NotImplementedError


class SpatialDifference(Differences):
    """x ↦ the modulated difference operators at x, the weights w = g(x) from a graph network over an h-hop neighbourhood.

    The network sees each node's field and area, and each edge's length and weight, all made dimensionless, so one layer
    serves surfaces of any size. Its last layer starts at zero: an untrained layer *is* the plain operator.
    Weights are bounded, w1 ∈ (¼, 4) and w2 ∈ (½, 3/2), because a free w2 lets constants grow without limit.

    Args:
        laplacian: L = M⁻¹ C; gives the base weights b_ij = W_ij / m_i.
        channels: c of the fields (..., n, c) it reads.
        width: hidden width of the graph network.
        hops: h, the number of graph network blocks.
    """

    def __init__(self, laplacian: Laplacian, channels: int = 1, width: int = 16, hops: int = 1) -> None:
        super().__init__()
        if not all(map(is_integer, (channels, width, hops))) or min(channels, width, hops) < 1:
            raise DomainError(f"channels, width and hops must be at least 1, not {channels}, {width}, {hops}")
        self.channels = channels
        self.geometry = _EdgeGeometry(laplacian)
        features = self.geometry.node_features.shape[1] + channels
        to: dict[str, Any] = {"dtype": laplacian.dtype, "device": laplacian.device}
        self.blocks = nn.ModuleList()
        edge_features = self.geometry.edge_features.shape[1]
        for _ in range(hops):
            self.blocks.append(_GraphBlock(features, edge_features, width, to))
            features = edge_features = width
        self.head = nn.Linear(2 * features + edge_features, 4, **to)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def edges(self) -> SparseOperator:
        """The base weights b_ij = W_ij / m_i, in 1/time for a surface whose unit of time is fixed by M and C."""
        return self.geometry.edges

    def weights(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(w1, w2) of the Laplacian and (w1, w2) of the gradient at x, each (..., E)."""
        pattern = self.edges.pattern
        check_field(x, pattern.shape[0], self.edges.dtype, self.edges.device)
        if x.shape[-1] != self.channels or x.is_complex():
            raise FieldError(
                f"this layer reads {self.channels} real channels, not {x.shape[-1]} of {x.dtype}: build it with as many as the "
                "field has; a complex field has twice as many, torch.view_as_real(x).flatten(-2)"
            )
        nodes = torch.cat([x, self.geometry.node_features.expand(*x.shape[:-1], -1)], dim=-1)
        links = self.geometry.edge_features.expand(*x.shape[:-2], -1, -1)
        for block in self.blocks:
            nodes, links = block(nodes, links, pattern)
        out = self.head(_gather(nodes, links, pattern))
        size = torch.pow(4.0, torch.tanh(out[..., :2]))
        offset = 1 + torch.tanh(out[..., 2:]) / 2
        return size[..., 0], offset[..., 0], size[..., 1], offset[..., 1]

    def forward(self, x: Tensor) -> tuple[SparseOperator, Tensor]:
        """The modulated Laplacian at x, an (n, n) operator, and the modulated gradient of x, (..., E, c)."""
        l1, l2, g1, g2 = self.weights(x)
        return modulated_laplacian(self.edges, l1, l2), modulated_gradient(self.edges, x, g1, g2)


class _EdgeGeometry(nn.Module):
    """What a Laplacian says about its edges and nodes, without dimension."""

    node_features: Tensor
    edge_features: Tensor

    def __init__(self, laplacian: Laplacian) -> None:
        super().__init__()
        self.laplacian = laplacian
        adjacency = adjacency_of(laplacian)
        pattern, mass = adjacency.pattern, laplacian.mass
        pattern.with_diagonal()  # built now: torch.compile could not trace the building
        degree = adjacency.row_sums()
        self.edges = SparseOperator(pattern, adjacency.values / mass[pattern.row])
        rate = degree / mass
        typical = rate[rate > 0].median() if bool((rate > 0).any()) else rate.new_ones(())
        relative_mass = torch.log(mass / mass.mean())
        relative_rate = torch.log(torch.where(rate > 0, rate / typical, 1.0))
        share = adjacency.values / degree[pattern.row]
        ratio = relative_mass[pattern.col] - relative_mass[pattern.row]
        self.register_buffer("node_features", torch.stack([relative_mass, relative_rate], dim=1), persistent=False)
        self.register_buffer("edge_features", torch.stack([share, ratio], dim=1), persistent=False)

    def on(self, domain: Any) -> _EdgeGeometry:
        return _EdgeGeometry(self.laplacian.on(domain))


class _GraphBlock(nn.Module):
    """One graph network block: edges read their ends, nodes read the mean of their edges (Battaglia et al. 2018)."""

    def __init__(self, nodes: int, edges: int, width: int, to: dict[str, Any]) -> None:
        super().__init__()
        self.edge = nn.Linear(2 * nodes + edges, width, **to)
        self.node = nn.Linear(nodes + width, width, **to)

    def forward(self, nodes: Tensor, links: Tensor, pattern: SparsityPattern) -> tuple[Tensor, Tensor]:
        links = torch.tanh(self.edge(_gather(nodes, links, pattern)))
        degree = (pattern.crow[1:] - pattern.crow[:-1]).clamp(min=1).to(links.dtype)
        mean = pattern.sum_rows(links) / degree[:, None]
        return torch.tanh(self.node(torch.cat([nodes, mean], dim=-1))), links


def _gather(nodes: Tensor, links: Tensor, pattern: SparsityPattern) -> Tensor:
    return torch.cat([pattern.gather_rows(nodes), pattern.gather_columns(nodes), links], dim=-1)
