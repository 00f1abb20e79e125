"""A Lie unitary layer that learns where its series is cut off."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from operators.checks import DomainError, real_dtype
from operators.lie_unitary import as_input, taylor
from operators.operator import Movable, Operator, _precision_only, rebuild
from operators.unitary import SkewHermitian, UnitaryGenerator


class LearnedTruncation(Movable):
    """f(x) = Σ_k g(s − k) Kᵏ x / k! with K x = A x W: the relaxed Lie layer with its truncation order s learned, real.

    The partial sums p_T of the exponential's series are joined by the Catmull–Rom cubic in s, so that f is p_T exactly where
    s = T is whole, and has a continuous derivative in s everywhere, at whole numbers too; g is 1 above 1 and 0 below −2. It
    takes ⌊s⌋ + 2 products with A at most.

    What s can not do: on an eigenvector of A of eigenvalue a, a truncated series has the size |p_T(iθa)|, which depends on |a|
    alone. It treats the smoothest modes (a near 1, for A = I − L) as the roughest (a near −1), whatever T is, and any s
    inherits that: truncation can lose or gain norm, but it is no smoothing. For smoothing there is `UnitaryFlow`'s dissipation.

    Args:
        operator, width, complex_valued, scale: as for `LieUnitary`.
        order: s at the start, strictly between 0 and `most`.
        most: the largest order; s = most σ(r) with r learned.

    Raises:
        DomainError: an order outside (0, most).
    """

    operator: Operator

    def __init__(
        self,
        operator: Operator,
        width: int,
        *,
        complex_valued: bool = False,
        order: float = 3.5,
        most: int = 10,
        scale: float = 0.1,
    ) -> None:
        super().__init__()
        if not 0 < order < most:
            raise DomainError(f"the order must start between 0 and {most}, not at {order}; `most` raises the upper end")
        self.operator, self.most = operator, most
        dtype = real_dtype(operator.dtype)
        self.mixing = SkewHermitian(width, complex_valued=complex_valued, scale=scale, dtype=dtype).to(operator.device)
        self.place = nn.Parameter(torch.tensor(math.log(order / (most - order)), dtype=dtype, device=operator.device))

    @property
    def order(self) -> Tensor:
        """s, in (0, most)."""
        return self.most * self.place.sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(..., n, d) → (..., n, d)."""
        x = as_input(x, self.mixing(), self.operator)
        return truncated(UnitaryGenerator(self.operator, self.mixing), x, self.order)

    def over(self, operator: Operator) -> LearnedTruncation:
        """The same layer, its parameters shared, with another A."""
        return rebuild(self, lambda child: operator)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        moved: Self = super()._apply(_precision_only(fn), recurse)  # type: ignore[no-untyped-call]
        return moved


def truncated(generator: UnitaryGenerator, x: Tensor, order: Tensor) -> Tensor:
    """Σ_k g(s − k) Kᵏ x / k! for a scalar s = `order` ≥ 0, differentiable in s too."""
    count = math.floor(float(order.detach())) + 3
    return taylor(generator, x, gate(order - torch.arange(count, device=order.device)).unbind())


def gate(u: Tensor) -> Tensor:
    """g(u) = Σ_{j ≥ 0} C(u − j), the running sum of the Catmull–Rom kernel C: 1 for whole u ≥ 0, 0 for whole u < 0."""
    return torch.where(u >= 1, torch.ones_like(u), sum((_kernel(u - j) for j in range(3)), torch.zeros_like(u)))


def _kernel(u: Tensor) -> Tensor:
    """C(u), the cubic interpolation kernel with support [−2, 2]."""
    a = u.abs()
    near = 1 + a * a * (1.5 * a - 2.5)
    far = 2 + a * (-4 + a * (2.5 - 0.5 * a))
    return torch.where(a < 1, near, torch.where(a < 2, far, torch.zeros_like(u)))
