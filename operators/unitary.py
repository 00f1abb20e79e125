"""Skew-Hermitian generators, whose flows are isometries."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from operators.checks import DomainError, FieldError
from operators.operator import Operator, _precision_only


class SkewHermitian(nn.Module):
    """W = (V − Vᴴ) / 2, skew-Hermitian bitwise for every value of the parameter V.

    Args:
        width: d. A real W of odd width freezes one direction, and of width 1 is zero.
        complex_valued: a complex W has no such defect.
        scale: the standard deviation of V's entries at the start.
    """

    def __init__(
        self, width: int, *, complex_valued: bool = False, scale: float = 0.1, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        if width < 1:
            raise DomainError(f"width must be at least 1, not {width}")
        if width == 1 and not complex_valued:
            raise DomainError("a real skew matrix of width 1 is zero, so nothing would move: pad the field or use complex")
        self.V = nn.Parameter(scale * torch.randn(width, width, dtype=dtype.to_complex() if complex_valued else dtype))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # nn.Module's .to(float64) would drop the imaginary part of a complex V.
        moved: Self = super()._apply(_precision_only(fn), recurse)  # type: ignore[no-untyped-call]
        return moved

    def forward(self) -> Tensor:
        return (self.V - self.V.mH) / 2


class UnitaryGenerator(Operator):
    """G x = A x W, with A self-adjoint in its own inner product and W skew-Hermitian (Kiani et al. 2024).

    G is skew in that inner product, so exp(tG) keeps ‖x‖; and A commutes with itself, so it keeps ⟨x, A x⟩ too.

    Args:
        operator: A, (n, n): a `Laplacian`, or a symmetric `SparseOperator` such as `normalized_adjacency(L)`.
        mixing: W, (d, d), acting on the channels of x (..., n, d).
    """

    def __init__(self, operator: Operator, mixing: SkewHermitian) -> None:
        super().__init__()
        if operator.shape[0] != operator.shape[1]:
            raise DomainError(f"a generator needs a square operator, not {operator.shape}")
        self.operator = operator
        self.mixing = mixing
        self.shape = operator.shape

    def forward(self, x: Tensor) -> Tensor:
        W = self.mixing()
        if x.shape[-1] != W.shape[0]:
            raise FieldError(f"x has {x.shape[-1]} channels but W acts on {W.shape[0]}: pad with pad_channels(x, {W.shape[0]})")
        if W.is_complex() and not x.is_complex():
            raise FieldError("W is complex, so the flow of a real field is complex: pass x.to(torch.complex64)")
        rotated: Tensor = self.operator(x) @ W.to(x.dtype)
        return rotated

    def inner(self, x: Tensor, y: Tensor) -> Tensor:
        """The inner product of A."""
        return self.operator.inner(x, y)

    def norm_bound(self) -> float:
        """‖A‖ ‖W‖₂."""
        return self.operator.norm_bound() * float(torch.linalg.matrix_norm(self.mixing().detach(), ord=2))

    def on(self, domain: Any) -> UnitaryGenerator:
        """The same W with A on another domain."""
        return UnitaryGenerator(self.operator.on(domain), self.mixing)


def pad_channels(x: Tensor, width: int) -> Tensor:
    """Append zero channels, (..., n, c) → (..., n, width): keeps the norm and the Rayleigh quotient exactly."""
    if x.shape[-1] > width:
        raise FieldError(f"x has {x.shape[-1]} channels, more than the width {width} to pad to")
    return torch.cat([x, x.new_zeros(*x.shape[:-1], width - x.shape[-1])], dim=-1)


def taylor_remainder(angle: float, order: int) -> float:
    """θ^(K+1) / (K+1)!, a bound of |e^{iθ} − Σ_{k≤K} (iθ)^k / k!| and so of the drift of a flow truncated at K."""
    if order < 0 or angle < 0:
        raise ValueError(f"the angle ({angle}) and the order ({order}) must not be negative")
    if angle == 0:
        return 0.0
    logarithm = (order + 1) * math.log(angle) - math.lgamma(order + 2)
    return math.exp(logarithm) if logarithm < 709 else math.inf
