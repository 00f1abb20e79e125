"""Burgers' equation: a wave that steepens into shocks, with or without viscosity."""

from __future__ import annotations

import torch
from torch import Tensor

from integrators import LinearPart
from neuralpde.coefficient import CoefficientLike, as_coefficient
from neuralpde.heat import Diffusion
from neuralpde.invariants import Invariant, Law, Mass, MaximumPrinciple, Norm
from neuralpde.rhs import RightHandSide
from neuralpde.transport import TransportDomain, as_velocity, averages
from operators import Grid, Laplacian
from operators.advection import Flux, check_real_field
from operators.cell_sides import CellSides, cell_sides


class Burgers(RightHandSide):
    """du/dt = −div(½ u² b) − ν L u: what is larger moves faster along the direction b (Burgers 1948; Hopf 1950).

    `Flux.UPWIND` takes the flux of Engquist and Osher 1981 (Math. Comp. 36), first order: shocks over two or three cells at the
    right speed, no wiggles. `Flux.CENTRED` takes (u_i² + u_i u_j + u_j²) / 6, second order: the energy ½ ‖u‖² changes by
    viscosity alone (the skew-symmetric form; Tadmor 1987, Math. Comp. 49), for viscosities that resolve the shocks.

    Good values: a periodic `Grid(256, 2π/256)`, u₀ = sin x, ν = 0.05 and CENTRED: the front is steepest at t ≈ 1.6, about
    4ν / jump wide, which should be a few spacings. ν = 0 and UPWIND: a shock at t = 1. Channels do not feel each other.

    Args:
        laplacian: L = M⁻¹ C, positive semi-definite, in 1/length² on a surface.
        domain: the same mesh, grid or graph.
        viscosity: ν ≥ 0 in length²/time, if u is a speed.
        direction: b, a velocity as in `Advection`, without unit if u is a speed; by default the sum of the axes of a grid.
        flux: UPWIND or CENTRED.

    Invariants: mass. Where div b = 0, the norm never increases; centred and with ν = 0 it is conserved. UPWIND with edge weights
    ≥ 0: no extremum grows.
    """

    def __init__(
        self,
        laplacian: Laplacian,
        domain: TransportDomain,
        viscosity: CoefficientLike = 0.0,
        direction: CoefficientLike | None = None,
        flux: Flux = Flux.UPWIND,
    ) -> None:
        super().__init__()
        self.laplacian, self.flux = laplacian, Flux(flux)
        if self.flux is Flux.LIMITED:
            raise ValueError("Burgers takes Flux.UPWIND for shocks or Flux.CENTRED for resolved fronts")
        self.sides = cell_sides(domain)
        if direction is None:
            if not isinstance(domain, Grid):
                raise ValueError("give the direction in which waves run: vectors at the vertices (n, d), or flows (E,) of edges")
            direction = torch.ones(1, len(domain.shape), dtype=domain.spacing.dtype, device=domain.spacing.device)
        self.b = as_velocity(direction, self.sides)
        self.nu = as_coefficient(viscosity, laplacian, "viscosity", nonnegative=True)

    @property
    def viscosity(self) -> Tensor:
        """ν."""
        return self.nu()

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return self.nonlinear(t, u) - self.nu(t) * (self.laplacian @ u)

    @property
    def linear(self) -> LinearPart | None:
        return Diffusion(self.laplacian, self.nu()) if self.nu.scalar else None

    def nonlinear(self, t: Tensor, u: Tensor) -> Tensor:
        """N(t, u) = −div(½ u² b)."""
        return steepening(self.sides, self.sides.flows(self.b(t)), u, self.flux) / self.laplacian.mass[:, None]

    def largest_step(self, u: Tensor, t: Tensor | float = 0.0) -> float:
        """The longest Euler step from u that makes no new extrema with UPWIND, min_i m_i / Σ_j (|F_ij| max |u| + ν w_ij)."""
        with torch.no_grad():
            through = self.sides.sizes(self.sides.flows(self.b(t))) / self.laplacian.mass
            rates = through * u.abs().max() + self.nu(t).max() * self.laplacian.diagonal()
            return float(1 / rates.max())

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        closed = not self.sides.exits.numel() and self.laplacian.kills_constants
        if not (closed and self.nu.scalar):
            return ()
        declared: list[Invariant] = [Mass(self.laplacian)]
        if self.b.steady and self.sides.solenoidal(self.sides.flows(self.b())):
            still = self.flux is Flux.CENTRED and not self.nu().requires_grad and float(self.nu()) == 0
            declared.append(Norm(self.laplacian, Law.CONSERVED if still else Law.NON_INCREASING))
            if self.flux is Flux.UPWIND and averages(self.laplacian):
                declared.append(MaximumPrinciple(self.laplacian, Law.NON_INCREASING))
        return tuple(declared)


def steepening(sides: CellSides, flows: Tensor, u: Tensor, flux: Flux) -> Tensor:
    """−div(½ u² b) times the masses, for flows (..., E + K) of b; (..., n, c), real. Outside open sides u = 0."""
    check_real_field(u, sides.mass)
    i, j = sides.edges
    inner, outer = flows[..., : i.numel(), None], flows[..., i.numel() :, None]
    ui, uj, edge = u.index_select(-2, i), u.index_select(-2, j), u.index_select(-2, sides.exits)
    if flux is Flux.CENTRED:
        carried = inner * (ui * ui + ui * uj + uj * uj) / 6
        leaving = outer * edge * edge / 6
    else:
        first, second = torch.where(inner >= 0, ui, uj), torch.where(inner >= 0, uj, ui)
        carried = inner * (first.clamp(min=0) ** 2 + second.clamp(max=0) ** 2) / 2
        leaving = outer * torch.where(outer >= 0, edge.clamp(min=0), edge.clamp(max=0)) ** 2 / 2
    gain = torch.zeros_like(u).expand(*carried.shape[:-2], *u.shape[-2:])
    return gain.index_add(-2, i, -carried).index_add(-2, j, carried).index_add(-2, sides.exits, -leaving)
