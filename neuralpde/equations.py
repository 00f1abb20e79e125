"""Classical equations."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from integrators import LinearPart
from neuralpde.invariants import DirichletEnergy, Invariant, Law, Mass, Norm, Rayleigh
from neuralpde.rhs import RightHandSide
from operators import Laplacian


class Heat(RightHandSide):
    """du/dt = −κ L u: isotropic diffusion, with natural (no-flux) boundary.

    Args:
        laplacian: L = M⁻¹ C, positive semi-definite, in 1/length² on a surface.
        diffusivity: κ > 0, in length²/time.
        learn: make κ a parameter; it is kept positive by learning log κ.
    """

    def __init__(self, laplacian: Laplacian, diffusivity: float = 1.0, *, learn: bool = False) -> None:
        super().__init__()
        if not (math.isfinite(diffusivity) and diffusivity > 0):
            raise ValueError(f"diffusivity must be positive and finite, not {diffusivity}: backward heat is ill-posed")
        self.laplacian = laplacian
        start = torch.tensor(math.log(diffusivity), dtype=laplacian.dtype, device=laplacian.device)
        self.log_diffusivity = nn.Parameter(start, requires_grad=learn)

    @property
    def diffusivity(self) -> Tensor:
        """κ."""
        return self.log_diffusivity.exp()

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return -self.diffusivity * (self.laplacian @ u)

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        return diffusion_invariants(self.laplacian)

    @property
    def linear(self) -> LinearPart:
        return Diffusion(self.laplacian, self.diffusivity)


class Diffusion:
    """G = −κ L as a linear part: its solves are those of a factored Laplacian."""

    def __init__(self, laplacian: Laplacian, diffusivity: Tensor) -> None:
        self.laplacian = laplacian
        self.diffusivity = diffusivity

    def __matmul__(self, u: Tensor) -> Tensor:
        return -self.diffusivity * (self.laplacian @ u)

    def norm_bound(self) -> float:
        return float(self.diffusivity.detach()) * self.laplacian.norm_bound()

    def solve(self, shift: Tensor, b: Tensor) -> Tensor:
        return self.laplacian.solve(torch.as_tensor(shift) * self.diffusivity, b)


def diffusion_invariants(laplacian: Laplacian) -> tuple[Invariant, ...]:
    """What −κL with κ ≥ 0 promises: norm, energy and Rayleigh quotient never increase; mass stays where L 1 = 0."""
    one_sided = (Norm, Rayleigh, DirichletEnergy)
    declared: tuple[Invariant, ...] = tuple(quantity(laplacian, Law.NON_INCREASING) for quantity in one_sided)
    return (*declared, Mass(laplacian)) if laplacian.kills_constants else declared
