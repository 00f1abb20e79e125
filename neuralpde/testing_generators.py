"""Hypothesis strategies for matrices that generate or carry out flows: skew-Hermitian, stochastic, positive semi-definite."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from neuralpde.testing_fields import fields
from operators.sparse import SparseOperator

__all__ = ["positive_operators", "skew_hermitian_matrices", "skew_operators", "stochastic_operators"]


@st.composite
def skew_hermitian_matrices(draw: st.DrawFn, width: int, *, dtype: torch.dtype = torch.float64, exact: bool = False) -> Tensor:
    """Matrices W (d, d) with Wᴴ = −W to the last bit, of real or complex dtype: zero, sparse, full, large.

    A failing example shrinks to zero, or to one row and its column of ± ½.

    Args:
        exact: entries are multiples of 1/16.
    """
    V = draw(fields(width, width, dtype=dtype, exact=exact))
    return (V - V.mH) / 2


@st.composite
def skew_operators(draw: st.DrawFn, nodes: int, *, dtype: torch.dtype = torch.float64) -> SparseOperator:
    """Sparse G (n, n) with Gᴴ = −G to the last bit: exp(tG) keeps the norm. Entries are drawn as a list, so it shrinks to none.

    A complex dtype has imaginary numbers on the diagonal.
    """
    pairs = draw(_entries(nodes), label="entries")
    rows: list[int] = []
    columns: list[int] = []
    values: list[complex] = []
    for i, j, weight in pairs:
        if i != j:
            rows, columns, values = [*rows, i, j], [*columns, j, i], [*values, weight, -weight]
        elif dtype.is_complex:
            rows, columns, values = [*rows, i], [*columns, i], [*values, 1j * weight]
    return _operator(rows, columns, torch.tensor(values, dtype=dtype), nodes)


@st.composite
def stochastic_operators(
    draw: st.DrawFn, nodes: int, *, doubly: bool = False, dtype: torch.dtype = torch.float64
) -> SparseOperator:
    """Sparse A (n, n) with entries ≥ 0 and rows that sum to 1 up to round-off: means of some nodes, as attention takes.

    Every node has a share of itself, drawn as a list of others beside it, so a failing example shrinks to the identity, or to
    one node that takes half from another. Absorbing nodes, cycles and nodes that nobody listens to occur.

    Args:
        doubly: columns sum to 1 as well, exactly: a mean of permutations with dyadic weights. It keeps Σ x_i.
    """
    if doubly:
        swaps = draw(st.lists(st.permutations(range(nodes)), max_size=3), label="permutations")
        A = torch.eye(nodes, dtype=dtype)
        for p in swaps:
            A = (A + torch.eye(nodes, dtype=dtype)[list(p)] @ A) / 2
        rows, columns = A.nonzero().T
        return SparseOperator.from_entries(rows, columns, A[rows, columns], (nodes, nodes))
    A = torch.eye(nodes, dtype=torch.float64)
    for i, j, weight in draw(_entries(nodes), label="entries"):
        A[i, j] += abs(weight)
    for i in draw(st.lists(st.integers(0, nodes - 1), max_size=nodes), label="nodes without a share of their own"):
        if float(A[i].sum() - A[i, i]) > 0:
            A[i, i] = 0.0
    rows, columns = A.nonzero().T
    A = (A / A.sum(dim=1, keepdim=True)).to(dtype)
    return SparseOperator.from_entries(rows, columns, A[rows, columns], (nodes, nodes))


@st.composite
def positive_operators(
    draw: st.DrawFn, nodes: int, *, definite: bool = False, dtype: torch.dtype = torch.float64
) -> SparseOperator:
    """Sparse S = Sᵀ (n, n) to the last bit with xᵀ S x ≥ 0: Σ w (e_i ± e_j)(e_i ± e_j)ᵀ + Σ v e_i e_iᵀ in dyadic numbers.

    So off-diagonal entries of both signs occur, kernels of any dimension, and no round-off. The terms are drawn as a list, so a
    failing example shrinks to zero, or to one term.

    Args:
        definite: plus the identity, so that it has an inverse.
    """
    S = torch.eye(nodes, dtype=torch.float64) if definite else torch.zeros(nodes, nodes, dtype=torch.float64)
    for i, j, weight in draw(_entries(nodes), label="terms"):
        S[i, i] += abs(weight)
        if i != j:
            S[j, j] += abs(weight)
            S[i, j] += weight
            S[j, i] += weight
    rows, columns = S.nonzero().T
    return SparseOperator.from_entries(rows, columns, S[rows, columns].to(dtype), (nodes, nodes))


def _entries(nodes: int) -> st.SearchStrategy[list[tuple[int, int, float]]]:
    """Places in a square matrix, and multiples of ⅛ for them, none zero."""
    node = st.integers(0, nodes - 1)
    size = st.integers(1, 32).map(lambda k: k / 8)
    weight = st.builds(lambda value, negative: -value if negative else value, size, st.booleans())
    return st.lists(st.tuples(node, node, weight), max_size=2 * nodes)


def _operator(rows: list[int], columns: list[int], values: Tensor, nodes: int) -> SparseOperator:
    i, j = torch.tensor(rows, dtype=torch.int64), torch.tensor(columns, dtype=torch.int64)
    return SparseOperator.from_entries(i, j, values, (nodes, nodes))
