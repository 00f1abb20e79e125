"""Diffusion whose coefficient depends on the slope: Perona–Malik and the p-Laplacian, as gradient flows of their energies."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from integrators import LinearPart, State
from neuralpde.coefficient import Coefficient, CoefficientLike, Learned, as_coefficient
from neuralpde.heat import Diffusion
from neuralpde.invariants import Invariant, Law, Mass, MaximumPrinciple, Norm, one_field
from neuralpde.rhs import RightHandSide
from neuralpde.slopes import Slopes, as_slopes
from neuralpde.symmetry import Permutation, RigidMotion, Symmetry
from operators import Graph, Laplacian, TriangleMesh


class SlopeDiffusion(RightHandSide, ABC):
    """du/dt = div(g(|∇u|²) ∇u), the gradient flow of ½ ∫ G(|∇u|²) with G' = g ≥ 0, natural boundary.

    A new one writes `conductance` and `primitive`. The channels of u share one |∇u|².

    Args:
        domain: a Laplacian with weights ≥ 0 and rows that sum to zero, or a graph: |∇u| at the nodes, see `NodeSlopes`; a mesh:
            on its faces, see `FaceSlopes`; or slopes, such as `EdgeSlopes(laplacian)`.
    """

    def __init__(self, domain: Laplacian | Graph | TriangleMesh | Slopes) -> None:
        super().__init__()
        self.slopes = as_slopes(domain)

    @abstractmethod
    def conductance(self, squared: Tensor) -> Tensor:
        """g, given |∇u|²; at least zero."""

    @abstractmethod
    def primitive(self, squared: Tensor) -> Tensor:
        """G with G' = g, given |∇u|²."""

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return self.slopes.diffuse(self.conductance(self.slopes.squared(u)), u)

    def lagged(self, t: Tensor, u: Tensor) -> tuple[LinearPart, None]:
        """G v = div(g(|∇u|²) ∇v), with the conductance frozen at u, for `SemiImplicitEuler`."""
        g = self.conductance(self.slopes.squared(u))
        return Diffusion(self.slopes.laplacian(g), 1.0), None

    def energy(self, u: Tensor) -> Tensor:
        """E(u) = ½ ∫ G(|∇u|²); (..., n, c) → (...)."""
        return (self.slopes.measure.to(u.dtype) * self.primitive(self.slopes.squared(u))).sum(-1) / 2

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        base = self.slopes.base
        # A convex function of u falls in the mean: u·div(g∇u) sums to −g|∇u|².
        kept: tuple[Invariant, ...] = (SlopeEnergy(self), Norm(base, Law.NON_INCREASING), Mass(base))
        return (*kept, MaximumPrinciple(base, Law.NON_INCREASING)) if self.slopes.averages else kept

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return (Permutation(), RigidMotion())


class PeronaMalik(SlopeDiffusion):
    """du/dt = div(g(|∇u|) ∇u) with g falling in |∇u|: smooths noise and keeps edges (Perona and Malik 1990, IEEE PAMI 12).

    g is one of the two of their paper, `exponential`: exp(−|∇u|²/K²), or else 1/(1 + |∇u|²/K²). Slopes up to K (of K/√2 with
    the exponential) are smoothed, steeper ones are sharpened: there the equation runs backwards, and is well posed only
    because the domain is discrete. Refined grids give other solutions, staircases among them.

    Good values: an image with values in [0, 1] and unit spacing, K = 0.05 to 0.2, t = 2 to 20,
    `SemiImplicitEuler(dt=1.0)`, `RKC2()`, or `Euler(dt=0.2)` as in the paper (on a grid with `EdgeSlopes`).

    Invariants: mass; the norm and the energy (K²/2 ∫ log(1 + |∇u|²/K²), or K²/2 ∫ 1 − exp(−|∇u|²/K²)) fall; u stays within the
    hull of its start.

    Args:
        domain: as of `SlopeDiffusion`.
        contrast: K > 0, in units of u per length; a number or `learned(...)`.
        exponential: the first conductance of the paper, which keeps contrasts more than width; else the second.
        learn: make a number K a parameter; it is kept positive by learning log K.
    """

    def __init__(
        self,
        domain: Laplacian | Graph | TriangleMesh | Slopes,
        contrast: CoefficientLike,
        *,
        exponential: bool = False,
        learn: bool = False,
    ) -> None:
        super().__init__(domain)
        self.K = _one_number(contrast, self.slopes.base, "contrast", learn)
        self.exponential = exponential

    @property
    def contrast(self) -> Tensor:
        """K."""
        return self.K()

    def conductance(self, squared: Tensor) -> Tensor:
        ratio = squared / self.K() ** 2
        return (-ratio).exp() if self.exponential else 1 / (1 + ratio)

    def primitive(self, squared: Tensor) -> Tensor:
        square = self.K() ** 2
        return square * (-torch.expm1(-squared / square) if self.exponential else torch.log1p(squared / square))


class PLaplacian(SlopeDiffusion):
    """du/dt = div((|∇u|² + δ²)^(p/2 − 1) ∇u), the gradient flow of (1/p) ∫ (|∇u|² + δ²)^(p/2).

    p = 2 is the heat equation. p > 2 spreads fronts at finite speed, from an exact compactly supported solution (Barenblatt
    1952); p = 1 is total-variation flow, which flattens plateaus and keeps jumps (Rudin, Osher and Fatemi 1992).

    The regularisation δ is a slope below which the diffusion is linear, of coefficient δ^(p − 2). It is part of the equation
    that is solved: with δ = 0.01 of the slopes of interest, results differ from δ = 0 by about as much.

    Good values: p = 3 or 4 with δ = 0 and `SemiImplicitEuler` or `RKC2()`; p = 1 with δ = 0.01 for an image with values in
    [0, 1] and unit spacing, `SemiImplicitEuler(dt=0.5)`.

    Invariants: mass; the norm and the energy fall; u stays within the hull of its start.

    Args:
        domain: as of `SlopeDiffusion`. With `EdgeSlopes` of a graph this is the graph p-Laplacian, of energy
            (1/p) Σ_e w_e^(p/2) |u_j − u_i|^p (Elmoataz, Lezoray and Bougleux 2008).
        p: ≥ 1; a number or `learned(...)`.
        regularization: δ ≥ 0, in units of u per length; positive where p < 2.

    Raises:
        ValueError: p < 1, or δ = 0 with p < 2, where flat places would diffuse at infinite speed.
    """

    def __init__(
        self, domain: Laplacian | Graph | TriangleMesh | Slopes, p: CoefficientLike, regularization: float | None = None
    ) -> None:
        super().__init__(domain)
        self.exponent = _one_number(p, self.slopes.base, "p", False)
        least = float(self.exponent().detach())
        if least < 1:
            raise ValueError(f"p must be at least 1, not {least:g}: below, the energy is not convex")
        if regularization is None:
            if least < 2:
                raise ValueError(
                    f"p = {least:g} needs regularization=δ > 0, a slope below which the diffusion is linear: without it flat "
                    "places would diffuse at infinite speed; take 0.01 of the slopes of interest"
                )
            regularization = 0.0
        if not 0 <= regularization < math.inf or (least < 2 and regularization == 0):
            raise ValueError(f"regularization must be finite and {'positive' if least < 2 else 'not negative'}: {regularization}")
        self.delta = float(regularization)

    @property
    def p(self) -> Tensor:
        """p."""
        return self.exponent()

    def conductance(self, squared: Tensor) -> Tensor:
        return _power(squared + self.delta**2, self.exponent() / 2 - 1)

    def primitive(self, squared: Tensor) -> Tensor:
        p = self.exponent()
        return 2 / p * _power(squared + self.delta**2, p / 2)


@dataclass(frozen=True, eq=False)
class SlopeEnergy(Invariant):
    """E(u) = ½ ∫ G(|∇u|²), what du/dt = div(G'(|∇u|²) ∇u) lowers.

    Args:
        flow: the right-hand side whose energy it is.
    """

    flow: SlopeDiffusion
    law: Law = Law.NON_INCREASING

    def measure(self, x: State) -> Tensor:
        u = one_field(x)
        return self.flow.energy(u)

    def scale(self, x: State) -> Tensor:
        return self.measure(x)

    @property
    def name(self) -> str:
        return "energy of slopes"


def _power(base: Tensor, exponent: Tensor) -> Tensor:
    # At zero the value is 0^q, but the derivative of what is flat there is zero, not 0 · ∞.
    flat = base == 0
    return torch.where(flat, torch.zeros_like(base) ** exponent.detach(), torch.where(flat, 1.0, base) ** exponent)


def _one_number(value: CoefficientLike, base: Laplacian, name: str, learn: bool) -> Coefficient:
    given = value.value if isinstance(value, Learned) else value
    number = isinstance(given, (int, float)) or (isinstance(given, Tensor) and given.numel() == 1)
    if not number and not (isinstance(given, Coefficient) and given.scalar):
        what = "a function or module" if isinstance(given, nn.Module) or callable(given) else "a field"
        raise TypeError(f"{name} must be one number, or learned(number), not {what}")
    return as_coefficient(value, base, name, positive=True, learn=learn)
