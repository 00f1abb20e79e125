"""The separable unitary layer, whose U is unitary for every value of its parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from operators.checks import real_dtype
from operators.lie_unitary import as_input
from operators.operator import Movable, Operator, _precision_only, rebuild
from operators.unitary import SkewHermitian
from operators.unitary_exponential import UnitaryExponential


class SeparableUnitary(Movable):
    """f(x) = exp(i t A) x U with a learned time t and a learned unitary U: a unitary convolution (Kiani et al. 2024).

    U = exp(S) with S skew-Hermitian, so that it is unitary throughout training and not only at the start, as where U itself is
    the parameter. f keeps ‖x‖ and ⟨x, A x⟩ of A's inner product. The result is complex, of a real field too; x is never
    written to.

    Args:
        operator: A, (n, n), self-adjoint in its `inner`.
        width: d, the channels of x (..., n, d); pad fewer with `pad_channels`.
        time: t at the start.
        scale: the standard deviation of the entries that S is made of, at the start; U = I at 0.
    """

    operator: Operator

    def __init__(self, operator: Operator, width: int, *, time: float = 1.0, scale: float = 0.1) -> None:
        super().__init__()
        self.operator = operator
        dtype = real_dtype(operator.dtype)
        self.mixing = SkewHermitian(width, complex_valued=True, scale=scale, dtype=dtype).to(operator.device)
        self.time = nn.Parameter(torch.tensor(float(time), dtype=dtype, device=operator.device))

    @property
    def U(self) -> Tensor:
        """U = exp(S), (d, d)."""
        unitary: Tensor = torch.linalg.matrix_exp(self.mixing())
        return unitary

    def forward(self, x: Tensor) -> Tensor:
        """(..., n, d) → (..., n, d), complex."""
        U = self.U
        x = as_input(x, U, self.operator)
        turning = torch.eye(U.shape[0], dtype=U.dtype, device=U.device) * 1j
        turned: Tensor = UnitaryExponential(self.operator, turning, self.time)(x) @ U
        return turned

    def over(self, operator: Operator) -> SeparableUnitary:
        """The same layer, its parameters shared, with another A."""
        return rebuild(self, lambda child: operator)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        moved: Self = super()._apply(_precision_only(fn), recurse)  # type: ignore[no-untyped-call]
        return moved
