"""Activations of complex fields that act on moduli and leave phases alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from operators.checks import DomainError, FieldError
from operators.group_sort import halves


class ModulusReLU(nn.Module):
    """z ↦ max(|z| + b, 0) z / |z|, b learned for each channel (Arjovsky et al. 2016), and 0 ↦ 0.

    It commutes with phases: f(e^{iφ} z) = e^{iφ} f(z). On real fields it keeps signs. At b = 0, the start, it is the identity.

    Args:
        width: c, the number of channels.
    """

    def __init__(self, width: int, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if width < 1:
            raise DomainError(f"width must be at least 1, not {width}")
        self.bias = nn.Parameter(torch.zeros(width, dtype=dtype))

    def forward(self, z: Tensor) -> Tensor:
        """(..., n, c) → (..., n, c)."""
        if z.shape[-1] != self.bias.shape[0]:
            raise FieldError(f"z has {z.shape[-1]} channels, and the activation {self.bias.shape[0]}")
        size = squared(z)
        # The square root has no derivative at zero, where the result is zero whatever b is.
        empty = size == 0
        modulus = torch.where(empty, 1.0, size).sqrt()
        factor = torch.where(empty, 0.0, (modulus + self.bias).relu() / modulus)
        return factor * z


class ModulusSort(nn.Module):
    """(a, b) ↦ (the larger, the smaller) in modulus at every node, a and b the two halves of the channels.

    GroupSort for complex fields: it keeps ‖z‖ and commutes with phases, f(e^{iφ} z) = e^{iφ} f(z). Like GroupSort it does not
    keep the Rayleigh quotient.
    """

    def forward(self, z: Tensor) -> Tensor:
        """(..., n, 2c) → (..., n, 2c)."""
        a, b = halves(z)
        swapped = squared(a) < squared(b)
        return torch.cat([torch.where(swapped, b, a), torch.where(swapped, a, b)], dim=-1)


def squared(z: Tensor) -> Tensor:
    """|z|², real."""
    return z.real.square() + z.imag.square() if z.is_complex() else z.square()
