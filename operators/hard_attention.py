"""Attention that looks at few neighbours while it trains."""

from __future__ import annotations

from torch import Tensor

from operators.checks import DomainError
from operators.diffusivity import Derived, Diffusivity, Joint
from operators.normalisation import Over
from operators.pattern import SparsityPattern
from operators.sparse import SparseOperator


class HardAttention(Derived):
    """In training, the entries of A(z) below a quantile of all of them are dropped, and the rest is divided by what is left.

    â_ij = a_ij [a_ij kept] / Σ a [kept], the sum over the row (column) that summed to one before, and does again. The largest
    entry of every row (column) is kept, so no node is left without any. Which entries are kept has no gradient; their weights
    have, through a and the sum. In evaluation all edges are used.

    Dropping jumps where the order of two entries changes, so recomputed at each evaluation it makes an adaptive solver's
    steps small: use it with attention frozen for a solve, `BeltramiFlow(..., frozen=True)`. Dropped entries are stored as zeros.

    Args:
        base: z ↦ A(z).
        quantile: the fraction of the entries of each batch member to drop, at least 0 and below 1. Equal entries are dropped
            together or not at all: the walk on a regular graph loses none.

    Good values: quantile 0.05 to 0.3 with `BeltramiFlow(HardAttention(ScaledDotProduct(graph, 64, heads=4), 0.2), frozen=True)`.

    Raises:
        DomainError: a quantile outside [0, 1).
    """

    def __init__(self, base: Diffusivity, quantile: float) -> None:
        super().__init__(base)
        if not 0 <= quantile < 1:
            raise DomainError(f"the quantile must be at least 0 (nothing is dropped) and below 1, not {quantile}")
        self.quantile = quantile

    def forward(self, z: Joint) -> SparseOperator:
        A: SparseOperator = self.base(z)
        if not self.training or self.quantile == 0 or A.pattern.nnz == 0:
            return A
        kept = A.values * self._kept(A.values.detach(), A.pattern)
        return SparseOperator(A.pattern, kept / _sums(kept, A.pattern, self.over))

    def _kept(self, values: Tensor, pattern: SparsityPattern) -> Tensor:
        """One where the entry stays, zero where it goes."""
        rank = min(int(self.quantile * pattern.nnz), pattern.nnz - 1)
        threshold = values.kthvalue(rank + 1, dim=-1, keepdim=True).values
        own = pattern.row if self.over is Over.ROWS else pattern.col
        nothing = values.new_zeros(*values.shape[:-1], pattern.shape[0])
        largest = nothing.scatter_reduce(-1, own.expand(values.shape), values, "amax").index_select(-1, own)
        return ((values >= threshold) | (values >= largest)).to(values.dtype)


def _sums(values: Tensor, pattern: SparsityPattern, over: Over) -> Tensor:
    """For every entry the sum over its row (column), (..., E) → (..., E)."""
    if over is Over.ROWS:
        return pattern.gather_rows(pattern.sum_rows(values[..., None])).squeeze(-1)
    turned = values.index_select(-1, pattern.transposed_order)
    return pattern.gather_columns(pattern.transpose().sum_rows(turned[..., None])).squeeze(-1)
