"""Laplacians of signed graphs: a negative weight asks its two ends to be opposite."""

from __future__ import annotations

import torch

from operators.checks import DomainError
from operators.domains import Graph
from operators.laplacian import Laplacian
from operators.sparse import SparseOperator


def signed_laplacian(graph: Graph) -> Laplacian:
    """C = D̄ − W with D̄ = Σ_j |w_ij|, M = I: (L x)_i = Σ_j |w_ij| (x_i − sign(w_ij) x_j), positive semi-definite.

    The quadratic form is Σ |w_ij| (x_i − sign(w_ij) x_j)² over edges. So a component has a kernel (of dimension one)
    only where it is balanced: every cycle has an even number of negative edges, and its nodes fall into two camps,
    friends within and foes across; the kernel is +1 on one camp and −1 on the other. With no negative weight this is
    `combinatorial_laplacian`. Self-loops drop out, repeated edges add up first, an isolated node has a zero row.
    (Kunegis et al. 2010.)

    Raises:
        DomainError: a directed graph.
    """
    return Laplacian(_stiffness(graph), graph.edge_weight.new_ones(graph.nodes), signed_laplacian)


def normalized_signed_laplacian(graph: Graph) -> Laplacian:
    """L = I − D̄^-½ W D̄^-½ with unit mass; its spectrum lies in [0, 2]. An isolated node has a zero row.

    (Kunegis et al. 2010.) Raises as `signed_laplacian`.
    """
    stiffness = _stiffness(graph)
    degree = stiffness.diagonal()
    laplacian = Laplacian(stiffness, torch.where(degree > 0, degree, 1.0)).symmetrized()
    laplacian.recipe = normalized_signed_laplacian
    return laplacian


def _stiffness(graph: Graph) -> SparseOperator:
    n = graph.nodes
    proper = graph.edge_index[0] != graph.edge_index[1]
    source, target = graph.edge_index[:, proper]
    weight = graph.edge_weight[proper]
    low, high = torch.minimum(source, target), torch.maximum(source, target)
    up, down = torch.where(source < target, weight, 0), torch.where(source < target, 0, weight)
    upward, downward = (SparseOperator.from_entries(low, high, part, (n, n)) for part in (up, down))
    size = SparseOperator.from_entries(low, high, weight.detach().abs(), (n, n)).values
    # Repeated edges may be summed in another order in the two directions.
    slack = 8 * torch.finfo(weight.dtype).eps * size
    if bool(((upward.values - downward.values).detach().abs() > slack).any()):
        raise DomainError("this graph is directed, and its Laplacian would not be symmetric: use graph.undirected()")
    i, j = upward.pattern.row, upward.pattern.col
    half = (upward.values + downward.values) / 2
    degree = half.new_zeros(n).index_add(0, torch.cat([i, j]), half.abs().repeat(2))
    nodes = torch.arange(n, device=i.device)
    return SparseOperator.from_entries(
        torch.cat([i, j, nodes]), torch.cat([j, i, nodes]), torch.cat([-half, -half, degree]), (n, n)
    )
