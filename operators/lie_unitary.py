"""The Lie unitary layer, exact and truncated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

from torch import Tensor

from operators.checks import DomainError, FieldError, real_dtype
from operators.operator import Movable, Operator, _precision_only, rebuild
from operators.unitary import SkewHermitian, UnitaryGenerator, taylor_remainder
from operators.unitary_exponential import UnitaryExponential


class LieUnitary(Movable):
    """f(x) = exp(K) x with K x = A x W, W skew-Hermitian and learned: a unitary convolution (Kiani et al. 2024).

    A is self-adjoint in its own inner product, so f keeps ‖x‖ and ⟨x, A x⟩ of that inner product: with A = I − L the Rayleigh
    quotient of L. Exact by default. With an `order` T it is the relaxed layer Σ_{k ≤ T} Kᵏ x / k! of R-UniGraph, which drifts
    by at most `remainder_bound()`. x itself is never written to: the published layers add to their input in place, and so
    a residual connection around them gives 2 f(x); x + layer(x) here is x + f(x).

    Args:
        operator: A, (n, n), self-adjoint in its `inner`; for example `normalized_laplacian(L).complement()`, which can move to
            other domains, or `normalized_adjacency(L)`.
        width: d, the channels of x (..., n, d); pad fewer with `pad_channels`.
        complex_valued: a complex W. The result is complex then, of a real field too.
        order: T, the truncation order; None for the exact exponential.
        scale: the standard deviation of the entries that W is made of, at the start.

    Raises:
        DomainError: a negative order, or a real W of width 1, which is zero.
    """

    operator: Operator

    def __init__(
        self,
        operator: Operator,
        width: int,
        *,
        complex_valued: bool = False,
        order: int | None = None,
        scale: float = 0.1,
    ) -> None:
        super().__init__()
        if order is not None and order < 0:
            raise DomainError(f"the truncation order must not be negative, not {order}; None is the exact exponential")
        self.operator = operator
        self.order = order
        mixing = SkewHermitian(width, complex_valued=complex_valued, scale=scale, dtype=real_dtype(operator.dtype))
        self.mixing = mixing.to(operator.device)

    def forward(self, x: Tensor) -> Tensor:
        """(..., n, d) → (..., n, d)."""
        W = self.mixing()
        x = as_input(x, W, self.operator)
        if self.order is None:
            exact: Tensor = UnitaryExponential(self.operator, W)(x)
            return exact
        return taylor(self.generator, x, [1.0] * (self.order + 1))

    @property
    def generator(self) -> UnitaryGenerator:
        """K: x ↦ A x W."""
        return UnitaryGenerator(self.operator, self.mixing)

    def remainder_bound(self) -> float:
        """θ^(T+1) / (T+1)! with θ ≥ ‖A‖‖W‖, which bounds ‖f(x) − exp(K) x‖ / ‖x‖; 0 for the exact layer."""
        return 0.0 if self.order is None else taylor_remainder(self.generator.norm_bound(), self.order)

    def over(self, operator: Operator) -> LieUnitary:
        """The same layer, its W shared, with another A."""
        return rebuild(self, lambda child: operator)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # W stays complex where only the precision is asked for.
        moved: Self = super()._apply(_precision_only(fn), recurse)  # type: ignore[no-untyped-call]
        return moved


def as_input(x: Tensor, W: Tensor, operator: Operator) -> Tensor:
    """x as a field that W can turn, made complex where W or A is. Raises FieldError where it does not fit."""
    if x.ndim < 2 or x.shape[-2] != operator.shape[1]:
        raise FieldError(f"x must have shape (..., {operator.shape[1]}, {W.shape[0]}), not {tuple(x.shape)}")
    if x.shape[-1] != W.shape[0]:
        raise FieldError(f"x has {x.shape[-1]} channels but W acts on {W.shape[0]}: pad with pad_channels(x, {W.shape[0]})")
    if real_dtype(x.dtype) != real_dtype(W.dtype):
        raise FieldError(f"x is {x.dtype} but the layer {W.dtype}: nothing is converted silently; use layer.to(x.dtype)")
    return x.to(x.dtype.to_complex()) if (W.is_complex() or operator.dtype.is_complex) and not x.is_complex() else x


def taylor(generator: UnitaryGenerator, x: Tensor, weights: Sequence[Tensor | float]) -> Tensor:
    """Σ_k g_k Kᵏ x / k!, for the weights g_0, g_1, ... of the terms."""
    term = x
    total = x * weights[0]
    for k in range(1, len(weights)):
        term = generator(term) / k
        total = total + weights[k] * term
    return total
