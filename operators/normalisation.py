"""From scores on edges to shares: softmax and squareplus, over the rows or the columns of the diffusivity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from operators import kernels
from operators.checks import DomainError, FieldError
from operators.pattern import SparsityPattern


class Over(Enum):
    """Which sums of a diffusivity are one."""

    ROWS = "rows"
    """Σ_j a_ij = 1: every node takes an average, so no channel leaves the hull of its start (Chamberlain et al. 2021, eq. 7)."""
    COLUMNS = "columns"
    """Σ_i a_ij = 1: every node gives away what it has, so the sum over the nodes is conserved."""


@dataclass(frozen=True)
class Normalisation(ABC):
    """a_ij = w_ij g(s_ij) / Σ w g(s), the sum over the entry's row or column.

    A new one writes log g. All is then a softmax, which no finite score overflows or starves.

    Args:
        over: ROWS or COLUMNS.

    Raises:
        DomainError: `over` is neither.
    """

    over: Over = Over.ROWS

    def __post_init__(self) -> None:
        if not isinstance(self.over, Over):
            raise DomainError(f"normalise over Over.ROWS or Over.COLUMNS, not {self.over!r}")

    def __call__(self, scores: Tensor, weight: Tensor, pattern: SparsityPattern) -> Tensor:
        """The shares (..., E) of scores (..., E) and weights w > 0 of shape (E,), in the pattern's order.

        Half precision computes in float32.

        Raises:
            FieldError: another shape, or no real numbers. DomainError: a score is not finite.
        """
        _check("scores", scores, pattern)
        half = scores.dtype in (torch.float16, torch.bfloat16)
        wide, known = (scores.float(), weight.float()) if half else (scores, weight)
        logits, at = self.log_g(wide) + known.log(), pattern.entries
        if self.over is Over.ROWS:
            return kernels.row_softmax(logits, at).to(scores.dtype)
        turned = kernels.row_softmax(logits.index_select(-1, at.transposed_order), at.transpose())
        return turned.index_select(-1, at.inverse_order).to(scores.dtype)

    @abstractmethod
    def log_g(self, scores: Tensor) -> Tensor:
        """log g(s) entrywise, finite for every finite s."""


@dataclass(frozen=True)
class Softmax(Normalisation):
    """g(s) = eˢ: sharp, and blind to a constant added to all scores of a row."""

    def log_g(self, scores: Tensor) -> Tensor:
        return scores


@dataclass(frozen=True)
class Squareplus(Normalisation):
    """g(s) = (s + √(s² + 4)) / 2: grows linearly, so no single edge takes all (Barron 2021, arXiv:2112.11687).

    Since log g(s) = asinh(s/2), it is the softmax of scores that asinh has compressed: an edge of score −10⁶ keeps a share of
    10⁻⁶, where softmax leaves it nothing.
    """

    def log_g(self, scores: Tensor) -> Tensor:
        # torch.asinh itself is right too, and takes ten times as long on a CPU. |s| by `where`, since the slope of |·| at 0 is 0.
        half = scores / 2
        negative = half < 0
        size = torch.where(negative, -half, half)
        log = (size + torch.hypot(half, half.new_ones(()))).log()
        return torch.where(negative, -log, log)


def row_softmax(logits: Tensor, pattern: SparsityPattern) -> Tensor:
    """exp(s_e) / Σ over the row of e, for logits (..., E) in the pattern's order; exact for any finite logits.

    Raises:
        FieldError: another shape, or no real numbers. DomainError: a logit is not finite.
    """
    _check("logits", logits, pattern)
    return kernels.row_softmax(logits, pattern.entries)


def _check(name: str, scores: Tensor, pattern: SparsityPattern) -> None:
    if not scores.is_floating_point() or scores.shape[-1:] != (pattern.nnz,):
        raise FieldError(f"{name} must be floating point of shape (..., {pattern.nnz}), not {scores.dtype} {tuple(scores.shape)}")
