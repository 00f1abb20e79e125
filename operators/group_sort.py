"""GroupSort, an activation that keeps the norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from operators.checks import FieldError


class GroupSort(nn.Module):
    """(a, b) ↦ (max(a, b), min(a, b)) at every node, a and b the two halves of the channels (Anil et al. 2019).

    A permutation of each node's channels, so it keeps ‖x‖ and every node's norm, and is 1-Lipschitz. It does not keep the
    Rayleigh quotient: the permutation differs from node to node, and two neighbours that were equal may part. Networks with
    it are norm-preserving, and only those with the identity in its place keep the Rayleigh quotient too.

    Raises:
        FieldError: an odd number of channels, or a complex field, which has no order: use `ModulusSort`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., n, 2c) → (..., n, 2c)."""
        if x.is_complex():
            raise FieldError("complex numbers have no order: use ModulusSort, which sorts by |z|, or ModulusReLU")
        a, b = halves(x)
        return torch.cat([torch.maximum(a, b), torch.minimum(a, b)], dim=-1)


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """The two halves of the channels of (..., n, 2c). Raises FieldError where their number is odd."""
    channels = x.shape[-1]
    if channels % 2:
        raise FieldError(f"x has {channels} channels, which have no two halves: pad with pad_channels(x, {channels + 1})")
    return x[..., : channels // 2], x[..., channels // 2 :]
