"""A diffusivity held back by the geometry: a learned gate between attention and the random walk."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from operators.checks import DomainError
from operators.diffusivity import Derived, Diffusivity, Joint
from operators.sparse import SparseOperator


class Gated(Derived):
    """z ↦ (1 − g) A(z) + g P with the random walk P = w_ij / Σ w of the same edges, and a learned gate 0 < g < 1.

    Rows (columns) still sum to one. At g = 1 it is the heat equation of the geometry, at g = 0 the base alone.

    Args:
        base: z ↦ A(z).
        gate: g at the start; the parameter is its logit. At ½, the default, both sides learn at once, and the gate fastest.

    Raises:
        DomainError: a gate that is not between 0 and 1.
    """

    def __init__(self, base: Diffusivity, gate: float = 0.5) -> None:
        super().__init__(base)
        if not 0 < gate < 1:
            raise DomainError(f"the gate must start between 0 (attention alone) and 1 (the random walk alone), not at {gate}")
        like = base.rate
        self.logit = nn.Parameter(torch.tensor(math.log(gate / (1 - gate)), dtype=like.dtype, device=like.device))

    @property
    def gate(self) -> Tensor:
        """g, a scalar."""
        return self.logit.sigmoid()

    def forward(self, z: Joint) -> SparseOperator:
        A, P = self.base(z), self.edges.walk()
        return SparseOperator(A.pattern, torch.lerp(A.values, P.values, self.gate))
