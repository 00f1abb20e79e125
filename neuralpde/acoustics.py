"""Waves as pressure on the nodes and flux on the edges: the form of first order, with its exact flow."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from integrators import LinearPart, State
from integrators.solution import Time
from integrators.state import parts_of
from neuralpde.coefficient import CoefficientLike, as_coefficient
from neuralpde.invariants import Invariant, LaplacianInvariant, Law, Mass, Part
from neuralpde.rhs import RightHandSide
from neuralpde.waves import as_pair
from operators import Divergence, Laplacian, edge_gradient, mass_weighted_norm
from operators.chebyshev import coefficients_of
from operators.checks import real_dtype
from operators.functions import wave_degree
from operators.recurrence import chebyshev_sums


class Acoustics(RightHandSide):
    """dp/dt = −c div w, dw/dt = −c grad p: the state is (p, w), a pressure on the nodes and a flux along the edges.

    With w = 0 at the start it is the wave equation p″ = −c² L p; unlike in `Wave` its potential, the flux, is there to be
    measured, the mass of p is conserved whatever the solver, and sources and learned terms may act on either. The boundary is
    a wall. `StoermerVerlet` and `Yoshida4` know its two halves, `Exponential` its exact flow.

    Good values: on the unit sphere c = 1; p = z swings as cos(√2 t). `f.at_rest(p)` is the state that starts without flux.

    Invariants: the energy ½ ‖p‖²_M + ½ Σ_e w_e |flux_e|² and the mass of p, both conserved.

    Args:
        laplacian: L = −div grad on its edges, i < j; with weights ≥ 0 the energy is one (`robust_laplacian`, graphs).
        speed: c > 0, in length/time; see `Coefficient`.
        learn: make a number c a parameter.

    Raises:
        DomainError: the rows of L do not sum to zero.

    Source: LeVeque, Finite Volume Methods for Hyperbolic Problems (2002), equation 2.52, with unit impedance.
    """

    def __init__(self, laplacian: Laplacian, speed: CoefficientLike = 1.0, *, learn: bool = False) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.divergence = edge_gradient(laplacian).divergence()
        self.c = as_coefficient(speed, laplacian, "speed", positive=True, learn=learn)

    @property
    def speed(self) -> Tensor:
        """c."""
        return self.c()

    def at_rest(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """The state of a pressure (..., n, c) without flux."""
        return p, p.new_zeros(*p.shape[:-2], self.divergence.shape[1], p.shape[-1])

    def drift(self, t: Tensor, w: Tensor) -> Tensor:
        """dp/dt."""
        return -self.c(t) * (self.divergence @ w)

    def force(self, t: Tensor, p: Tensor) -> Tensor:
        """dw/dt."""
        return -self.c(t) * (self.divergence.gradient @ p)

    def forward(self, t: Tensor, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        p, w = as_pair(x, "(p, w)")
        return self.drift(t, w), self.force(t, p)

    @property
    def linear(self) -> LinearPart | None:
        return AcousticPart(self.laplacian, self.divergence, self.c()) if self.c.scalar else None

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        # Skew-adjoint at every moment, so that c may change in time; a field c would not be.
        if not self.c.scalar:
            return ()
        energy = AcousticEnergy(self.laplacian, weight=self.divergence.gradient.weight.detach())
        return energy, Part(0, Mass(self.laplacian), "p")


class AcousticPart:
    """G (p, w) = (−c div w, −c grad p) as a linear part, with its exact flow."""

    self_adjoint = False

    def __init__(self, laplacian: Laplacian, divergence: Divergence, speed: Tensor) -> None:
        self.laplacian, self.divergence, self.speed = laplacian, divergence, speed

    def __matmul__(self, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        p, w = as_pair(x, "(p, w)")
        return -self.speed * (self.divergence @ w), -self.speed * (self.divergence.gradient @ p)

    def norm_bound(self) -> float:
        return abs(float(self.speed.detach())) * self.divergence.norm_bound()

    def solve(self, shift: Tensor, b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        # (I + s²c²L) p = a − s c div b, then w = b − s c grad p.
        first, second = b
        angle = shift * self.speed
        p = self.laplacian.solve(angle**2, first - angle * (self.divergence @ second))
        return p, second - angle * (self.divergence.gradient @ p)

    def keep_factors(self, count: int) -> None:
        """Keep so many factors, for a method that goes round so many shifts."""
        self.laplacian.keep_factors(count)

    def exponential(self, h: Time, x: tuple[Tensor, Tensor], tolerance: float | None = None) -> tuple[Tensor, Tensor]:
        """exp(hG)(p, w): with q = c∫p, which is a function of L of (p, −div w), w(h) = w − grad q."""
        p, w = as_pair(x, "(p, w)")
        t = torch.as_tensor(h * self.speed, dtype=torch.float64, device="cpu")

        def parts(y: Tensor) -> Tensor:
            root = y.sqrt()
            sine = t * torch.sinc(t * root / math.pi)
            # (1 − cos(t√y))/y, as a square: no cancellation.
            versine = t**2 / 2 * torch.sinc(t * root / (2 * math.pi)) ** 2
            return torch.stack([torch.cos(t * root), sine, sine, versine], dim=1)

        ends = (0.0, self.laplacian.norm_bound() or 1.0)
        c = coefficients_of(parts, self.exponential_products(h, tolerance), ends).reshape(-1, 2, 2, 1)
        pair = torch.stack([p, -(self.divergence @ w)])
        new, q = chebyshev_sums(self.laplacian, pair, c.to(self.laplacian.device, real_dtype(self.laplacian.dtype)), ends)
        return new, w - self.divergence.gradient @ q

    def exponential_products(self, h: Time, tolerance: float | None = None) -> int:
        """The number of products with L that `exponential` takes."""
        return wave_degree(self.laplacian, h * self.speed, tolerance=tolerance)


@dataclass(frozen=True, eq=False)
class AcousticEnergy(LaplacianInvariant):
    """H(p, w) = ½ ‖p‖²_M + ½ Σ_e a_e |w_e|² of a state (p, w).

    Args:
        weight: a, (E,), those of the edges.
    """

    law: Law = Law.CONSERVED
    weight: Tensor = field(kw_only=True)

    def measure(self, x: State) -> Tensor:
        p, w = parts_of(x)
        flux = (self.weight.to(w.real.dtype)[:, None] * w.abs() ** 2).sum(dim=(-2, -1))
        return (mass_weighted_norm(self._mass(p), p) ** 2 + flux) / 2

    def scale(self, x: State) -> Tensor:
        return self.measure(x)

    @property
    def name(self) -> str:
        return "acoustic energy"
