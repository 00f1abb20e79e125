"""Beltrami flow: diffusion with a learned, state-dependent diffusivity."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from neuralpde.invariants import Invariant, Law, MaximumPrinciple
from neuralpde.rhs import RightHandSide
from operators import ScaledDotProduct


class BeltramiFlow(RightHandSide):
    """dz_i/dt = α r_i Σ_j a_ij(z) (z_j − z_i), on joint positional and feature coordinates z = (u, x).

    The graph Beltrami flow (Chamberlain et al. 2021, eqs. 7 and 8) with the geometry's own rate r_i = Σ_j w_ij / m_i,
    so that at zero attention scores it is dz/dt = −α L z. On a `random_walk_laplacian` r = 1, the paper's form
    α (A(z) − I) z. Every channel stays in the convex hull of its start, since A's rows sum to one.

    Args:
        diffusivity: z ↦ A(z), row-stochastic.
        rate: α > 0 at the start, learned as log α.
    """

    def __init__(self, diffusivity: ScaledDotProduct, rate: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"rate must be positive and finite, not {rate}")
        self.diffusivity = diffusivity
        self.log_rate = nn.Parameter(torch.tensor(rate, dtype=diffusivity.rate.dtype).log())

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        slope: Tensor = self.log_rate.exp() * self.diffusivity.rate[:, None] * (self.diffusivity(z) @ z - z)
        return slope

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        return (MaximumPrinciple(self.diffusivity.edges.laplacian, Law.NON_INCREASING),)
