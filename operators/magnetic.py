"""Laplacians of directed graphs: the direction of an edge is a complex phase."""

from __future__ import annotations

import math
from functools import partial

import torch

from operators.checks import DomainError
from operators.domains import Graph
from operators.laplacian import Laplacian
from operators.sparse import SparseOperator


def magnetic_laplacian(graph: Graph, charge: float = 0.25) -> Laplacian:
    """C = D_s − W_s ⊙ exp(iΘ), M = I: (L x)_u = Σ_v s_uv (x_u − exp(iθ_uv) x_v), Hermitian and positive semi-definite.

    With A_uv the weight of the edge u → v: W_s = ½ (A + Aᵀ), D_s = Σ_v s_uv, Θ = 2πq (A − Aᵀ), so that an edge of
    weight 1 has the phase 2πq from its source to its target. Weights enter the phase too: with weights other than one,
    keep q·max|A − Aᵀ| below ½, or different flows look alike. Self-loops drop out, repeated edges add up, an isolated
    node has a zero row. (Zhang et al. 2021, MagNet.)

    The quadratic form is Σ s_uv |x_u − exp(iθ_uv) x_v|² over edges. So a component has a kernel (of dimension one)
    only where the phases around each of its cycles add up to a multiple of 2π: always on a tree or for charge 0, where
    this is `combinatorial_laplacian(graph.undirected())`; on a directed n-cycle where q n is an integer.

    Args:
        graph: directed, weights not negative.
        charge: q, real and finite; ¼ makes an edge and its reverse opposite (±i), 0 forgets direction.

    Raises:
        DomainError: negative weights, or a charge that is not finite.
    """
    stiffness = _stiffness(graph, charge)
    return Laplacian(stiffness, graph.edge_weight.new_ones(graph.nodes), partial(magnetic_laplacian, charge=charge))


def normalized_magnetic_laplacian(graph: Graph, charge: float = 0.25) -> Laplacian:
    """L = I − (D_s^-½ W_s D_s^-½) ⊙ exp(iΘ), with unit mass; its spectrum lies in [0, 2]. An isolated node has a zero row.

    Arguments, conventions and errors are those of `magnetic_laplacian`. (Zhang et al. 2021, MagNet.)
    """
    stiffness = _stiffness(graph, charge)
    degree = stiffness.diagonal().real
    laplacian = Laplacian(stiffness, torch.where(degree > 0, degree, 1.0)).symmetrized()
    laplacian.recipe = partial(normalized_magnetic_laplacian, charge=charge)
    return laplacian


def _stiffness(graph: Graph, charge: float) -> SparseOperator:
    if not math.isfinite(charge):
        raise DomainError(f"the charge must be a finite number, not {charge}: 0.25 is the usual choice, 0 forgets direction")
    weight = graph.edge_weight
    if bool((weight < 0).any()):
        raise DomainError(
            f"{int((weight < 0).sum())} edges have negative weight: a magnetic Laplacian is then not positive semi-definite; "
            "drop the edges, or use signed_laplacian(graph.undirected())"
        )
    n = graph.nodes
    proper = graph.edge_index[0] != graph.edge_index[1]
    source, target = graph.edge_index[:, proper]
    weight = weight[proper]
    low, high = torch.minimum(source, target), torch.maximum(source, target)
    both_ways = SparseOperator.from_entries(low, high, weight, (n, n))
    net_flow = SparseOperator.from_entries(low, high, torch.where(source < target, weight, -weight), (n, n))
    u, v = both_ways.pattern.row, both_ways.pattern.col
    share = both_ways.values / 2
    phase = 2 * math.pi * charge * net_flow.values
    # One triangle is computed and mirrored, so that C is Hermitian to the last bit.
    upward = torch.complex(share * torch.cos(phase), share * torch.sin(phase))
    degree = share.new_zeros(n).index_add(0, torch.cat([u, v]), share.repeat(2))
    nodes = torch.arange(n, device=u.device)
    return SparseOperator.from_entries(
        torch.cat([u, v, nodes]),
        torch.cat([v, u, nodes]),
        torch.cat([-upward, -upward.conj(), torch.complex(degree, torch.zeros_like(degree))]),
        (n, n),
    )
