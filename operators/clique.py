"""Hodge Laplacians of a graph: flows on its edges, with its triangles as faces."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from operators.checks import DomainError
from operators.domains import Graph
from operators.exterior import HodgeStars, incidence
from operators.hodge import laplacian_of_forms
from operators.laplacian import Laplacian
from operators.sparse import SparseOperator


def clique_complex(graph: Graph) -> tuple[Tensor, Tensor]:
    """The edges (2, E), i < j, and the triangles (T, 3), i < j < k, of a graph without its directions; both sorted.

    Self-loops and edges of weight zero are left out, repeated edges are one. Time and memory grow as Σ deg(j)² at most.
    """
    weights = _weights(graph)
    edges = torch.stack([weights.pattern.row, weights.pattern.col])
    return edges, _triangles(edges, graph.nodes)


def graph_hodge_laplacian(graph: Graph, degree: int) -> Laplacian:
    """Δ_k of the clique complex, with ⋆₀ = 1, ⋆₁ = w, ⋆₂ = 1, on nodes, edges or triangles; positive semi-definite.

        Δ₀ = d₀ᵀ w d₀, `combinatorial_laplacian(graph)`;   Δ₁ = d₀ d₀ᵀ w + w⁻¹ d₁ᵀ d₁;   Δ₂ = d₁ w⁻¹ d₁ᵀ

    Self-adjoint in ⟨α, β⟩ = Σ ⋆_k ᾱ β. The kernel of Δ₁ holds the flows without divergence and without circulation
    around triangles; its dimension is the number of independent loops that triangles do not fill. A triangle-free graph
    has Δ₁ = d₀ d₀ᵀ w, its edge Laplacian. (Lim 2020; Schaub et al. 2020.)

    Args:
        degree: 0, 1 or 2; fields are (..., n, c), (..., E, c) or (..., T, c), in the order of `clique_complex(graph)`,
            a flow being positive from the lower node to the higher.

    Raises:
        DomainError: negative weights, or a directed graph.
    """
    weights = _weights(graph)
    edges = torch.stack([weights.pattern.row, weights.pattern.col])
    faces = _triangles(edges, graph.nodes)
    d0, d1 = (incidence(edges, faces, graph.nodes, k, graph.edge_weight.dtype) for k in range(2))
    ones = graph.edge_weight.new_ones
    star = HodgeStars(ones(graph.nodes), weights.values, ones(len(faces)))
    return laplacian_of_forms(d0, d1, star, degree, partial(graph_hodge_laplacian, degree=degree))


def _weights(graph: Graph) -> SparseOperator:
    """The weight of every edge i < j of an undirected graph, without those of weight zero."""
    weight, n = graph.edge_weight, graph.nodes
    if bool((weight < 0).any()):
        raise DomainError(
            f"{int((weight < 0).sum())} edges have negative weight, which is no inner product of flows: "
            "drop the edges or take the absolute values"
        )
    source, target = graph.edge_index
    low, high = torch.minimum(source, target), torch.maximum(source, target)
    up, down = source < target, source > target
    both = low != high
    forth, back = (
        SparseOperator.from_entries(low[both], high[both], torch.where(way, weight, 0)[both], (n, n)) for way in (up, down)
    )
    # Repeated edges may be summed in another order in the two directions.
    slack = 8 * torch.finfo(weight.dtype).eps
    if not torch.allclose(forth.values, back.values, rtol=slack, atol=0.0):
        raise DomainError("this graph is directed, and flows on its edges need both directions: use graph.undirected()")
    keep = forth.values > 0
    values = (forth.values + back.values)[keep] / 2
    return SparseOperator.from_entries(forth.pattern.row[keep], forth.pattern.col[keep], values, (n, n))


def _triangles(edges: Tensor, n: int) -> Tensor:
    """i < j < k for every pair of edges (i, j), (j, k) that an edge (i, k) closes, (T, 3)."""
    first, second = edges
    starts = torch.searchsorted(first, torch.arange(n + 1, device=edges.device))
    following = (starts[1:] - starts[:-1])[second]
    base = torch.arange(len(first), device=edges.device).repeat_interleave(following)
    offset = torch.arange(len(base), device=edges.device) - (following.cumsum(0) - following).repeat_interleave(following)
    i, j, k = first[base], second[base], second[starts[second[base]] + offset]
    closed = torch.isin(i * n + k, first * n + second)
    return torch.stack([i, j, k], dim=1)[closed]
