"""Transport by a velocity: advection, alone and with diffusion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from integrators import LinearPart
from neuralpde.coefficient import Coefficient, CoefficientLike, as_coefficient
from neuralpde.heat import Diffusion
from neuralpde.invariant_region import InvariantRegion
from neuralpde.invariants import Invariant, Law, Mass, MaximumPrinciple, Norm
from neuralpde.rhs import RightHandSide
from operators import Graph, Grid, Laplacian, Movable, SparseOperator, TriangleMesh
from operators.advection import AdvectionOperator, Flux, limited_advection
from operators.cell_sides import CellSides, cell_sides
from operators.pattern import plainly

TransportDomain = TriangleMesh | Grid | Graph


class Advection(RightHandSide):
    """du/dt = −div(u b): a velocity b carries u along, and the total Σ m_i u_i stays to round-off.

    With flows F_ij = ∫ b·n through the sides between cells: m_i du_i/dt = −Σ_j F_ij u_ij. `Flux.UPWIND` (donor cell, Courant,
    Isaacson and Rees 1952) is first order and never makes new extrema; `Flux.CENTRED` is second order and keeps the norm
    where div b = 0; `Flux.LIMITED` is second order away from extrema and makes no new ones.

    Good values: on `icosphere(4)` with the wind (−y, x, 0), one turn takes 2π; `RK4(dt=0.02)`, and
    `largest_step()` says what Euler's method may take. Upwind is for masses and probabilities that must stay positive, limited
    for pictures, centred for waves and learning.

    Args:
        domain: a mesh (median dual cells), a grid or a graph.
        velocity: b in length/time. Vectors at the vertices (n, d), whose part normal to a surface does not matter, or at the
            faces (m, d); one vector (1, d) or, on an axis, a number; or flows (E,) of the edges, in length²/time on a surface,
            positive from row 0 to row 1 of `mesh.edges` or of `graph.edge_index`. Fixed, an `nn.Parameter` or `learned(...)`, a
            function of t, or a module of it such as `Wind` (of the positions) and `StreamFunction` (exactly free of divergence).
        flux: which value a flow carries.
        conservative: False gives du/dt = −b·grad u instead, which keeps constants but not the total.
        open_boundary: let the boundary of a surface pass what flows (what enters brings u = 0); else nothing crosses it. Of a
            grid, walls of DIRICHLET axes are open; u = 0 there, to which CENTRED holds: without diffusion take another flux.

    Invariants: the mass, of closed domains; u ≥ 0 once it is and, without divergence, the largest and least value (upwind,
    limited). Without divergence the norm: conserved (centred and closed), or never larger (upwind, or open).

    Raises:
        FieldError: a velocity that is not one of this domain.
        DomainError: a domain without cells, such as a point cloud.
    """

    def __init__(
        self,
        domain: TransportDomain,
        velocity: CoefficientLike,
        flux: Flux = Flux.UPWIND,
        *,
        conservative: bool = True,
        open_boundary: bool = False,
    ) -> None:
        super().__init__()
        self.sides = cell_sides(domain, open_boundary)
        self.flux, self.conservative = Flux(flux), conservative
        self.b = as_velocity(velocity, self.sides)

    @property
    def velocity(self) -> Tensor:
        """b as it was given: vectors, or flows. Raises ValueError if it depends on time."""
        return self._velocity(None)

    @property
    def steady(self) -> bool:
        """Whether the velocity does not depend on time."""
        return self.b.steady or getattr(self.b.function, "steady", False) is True

    def flows(self, t: Tensor | float | None = None) -> Tensor:
        """What the velocity carries through each side at time t, in length²/time on a surface; (E + K,)."""
        return self.sides.flows(self._velocity(t))

    def _velocity(self, t: Tensor | float | None) -> Tensor:
        return self.b(0.0 if t is None and self.steady else t)

    def operator(self, t: Tensor | float | None = None) -> AdvectionOperator:
        """u ↦ −div(u b) at time t as an operator, with its adjoint, norm bound and solves.

        Raises:
            ValueError: the limited flux is not linear; the velocity depends on time, and none was given.
        """
        b = self._velocity(t)
        plain = self.steady and not b.requires_grad
        kept = self.sides.kept.get("operator") if plain else None
        if kept is not None and kept[0] == (self.flux, self.conservative) and torch.equal(kept[1], b):
            same: AdvectionOperator = kept[2]
            return same
        if not plain:
            return AdvectionOperator(self.sides, self.sides.flows(b), self.flux, conservative=self.conservative)
        with plainly():
            b = b.clone()
            made = AdvectionOperator(self.sides, self.sides.flows(b), self.flux, conservative=self.conservative)
        self.sides.kept["operator"] = ((self.flux, self.conservative), b, made)
        return made

    def divergence(self, t: Tensor | float | None = None) -> Tensor:
        """div b at the nodes, (n,), in 1/time."""
        return self.sides.divergence(self.flows(t))

    def largest_step(self, t: Tensor | float | None = None) -> float:
        """The Courant bound: the longest Euler step with which u ≥ 0 stays, and without divergence no new extrema appear.

        min_i m_i / Σ_j max(F_ij, 0) with the donor's values, half of it with limited ones, and zero with centred ones.
        """
        donor = AdvectionOperator(self.sides, self.flows(t), Flux.UPWIND, conservative=self.conservative)
        share = {Flux.UPWIND: 1.0, Flux.LIMITED: 0.5, Flux.CENTRED: 0.0}[self.flux]
        return share * donor.largest_step() if share else 0.0

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        if self.flux is Flux.LIMITED:
            gain = limited_advection(self.sides, self.flows(t), u, conservative=self.conservative)
            return gain / self.sides.mass[:, None]
        rate: Tensor = self.operator(t) @ u
        return rate

    @property
    def linear(self) -> LinearPart | None:
        return self.operator() if self.steady and self.flux is not Flux.LIMITED else None

    @property
    def solenoidal(self) -> bool:
        """Whether the flows are known to be free of divergence: measured, or promised by the module that makes them."""
        if not self.steady:
            return getattr(self.b.function, "divergence_free", False) is True
        return self.sides.solenoidal(self.flows())

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        return transport_invariants(self, cells(self.sides.mass))


def transport_invariants(advection: Advection, laplacian: Laplacian) -> tuple[Invariant, ...]:
    """What the space discretisation of an advection promises, measured with the masses of a Laplacian."""
    closed, solenoidal = not advection.sides.exits.numel(), advection.solenoidal
    bounded = advection.flux is not Flux.CENTRED
    declared: list[Invariant] = []
    if closed and (advection.conservative or solenoidal):
        declared.append(Mass(laplacian))
    if bounded:
        declared.append(InvariantRegion())
        if closed and (solenoidal or not advection.conservative):
            declared.append(MaximumPrinciple(laplacian, Law.NON_INCREASING))
    if solenoidal and advection.flux is not Flux.LIMITED:
        declared.append(Norm(laplacian, Law.NON_INCREASING if bounded or not closed else Law.CONSERVED))
    return tuple(declared)


class AdvectionDiffusion(RightHandSide):
    """du/dt = −div(u b) − κ L u: carried along and spread, with nothing crossing closed boundaries.

    The diffusion is the `linear` part, which IMEX and exponential integrators take implicitly; advection is explicit.

    Good values: the cell Péclet number |F_ij| / (κ w_ij), about |b| h / κ, says which flux: up to 2 the centred one makes no
    wiggles (`peclet()` gives the largest), far above it take LIMITED or UPWIND, whose own diffusion |b| h / 2 exceeds κ.

    Args:
        laplacian: L = M⁻¹ C, positive semi-definite, in 1/length² on a surface.
        domain: the same mesh, grid or graph.
        velocity: b in length/time, as in `Advection`.
        diffusivity: κ ≥ 0 in length²/time: a number, `learned(...)`, a field or a function of time; see `Coefficient`. A field
            multiplies L u and does not keep the mass; `Heat(L, field) + Advection(...)` has it inside the divergence and does.
        flux, conservative, open_boundary: as in `Advection`.

    Invariants: those of the advection that diffusion keeps too: mass; without divergence the norm never increases, and
    with UPWIND or LIMITED fluxes and edge weights ≥ 0 no extremum grows.
    """

    def __init__(
        self,
        laplacian: Laplacian,
        domain: TransportDomain,
        velocity: CoefficientLike,
        diffusivity: CoefficientLike = 1.0,
        flux: Flux = Flux.CENTRED,
        *,
        conservative: bool = True,
        open_boundary: bool = False,
    ) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.advection = Advection(domain, velocity, flux, conservative=conservative, open_boundary=open_boundary)
        if laplacian.shape[0] != self.advection.sides.mass.numel():
            n, others = self.advection.sides.mass.numel(), laplacian.shape[0]
            raise ValueError(f"the Laplacian has {others} nodes, the domain {n}: build the Laplacian on this domain")
        self.kappa = as_coefficient(diffusivity, laplacian, "diffusivity", nonnegative=True)

    @property
    def diffusivity(self) -> Tensor:
        """κ."""
        return self.kappa()

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return self.nonlinear(t, u) - self.kappa(t) * (self.laplacian @ u)

    @property
    def linear(self) -> LinearPart | None:
        return Diffusion(self.laplacian, self.kappa()) if self.kappa.scalar else None

    def nonlinear(self, t: Tensor, u: Tensor) -> Tensor:
        """N(t, u) = −div(u b), which is linear, but left to the explicit half of IMEX methods."""
        rate: Tensor = self.advection(t, u)
        # Cells of the Laplacian's masses, which may differ a little: totals are theirs.
        return rate * (self.advection.sides.mass / self.laplacian.mass)[:, None]

    def peclet(self, t: Tensor | float | None = None) -> float:
        """The largest cell Péclet number |F_ij| / (κ w_ij); infinite where an edge weight is not positive."""
        weights = edge_weights(self.laplacian, self.advection.sides)
        flows = self.advection.flows(t)[..., : weights.numel()].abs()
        kappa = float(torch.as_tensor(self.kappa(t)).detach().min())
        ratios = torch.where(flows > 0, flows / (kappa * weights.clamp(min=0)), torch.zeros_like(flows))
        return float(ratios.detach().max()) if ratios.numel() else 0.0

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        if not self.kappa.scalar or not self.laplacian.kills_constants:
            return ()
        kept: list[Invariant] = []
        for invariant in transport_invariants(self.advection, self.laplacian):
            if isinstance(invariant, Norm):
                kept.append(invariant.under(Law.NON_INCREASING))
            elif isinstance(invariant, Mass) or averages(self.laplacian):
                kept.append(invariant)
        return tuple(kept)


class Wind(Movable):
    """A velocity as a function of the positions, b = f(p): it goes along to another domain with `.on(domain)`.

        advection = npde.Advection(mesh, npde.Wind(mesh, lambda p: torch.stack([-p[:, 1], p[:, 0], 0 * p[:, 2]], dim=1)))

    Args:
        domain: a mesh or a grid.
        f: a function or module of the positions (n, d) that gives vectors (n, d); with `steady=False` of (t, positions).
        steady: whether b does not depend on time.
    """

    points: Tensor

    def __init__(self, domain: TriangleMesh | Grid, f: Callable[..., Tensor], *, steady: bool = True) -> None:
        super().__init__()
        self.f, self.steady = f, steady
        self.register_buffer("points", domain.vertices if isinstance(domain, TriangleMesh) else domain.points, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        velocity: Tensor = self.f(self.points) if self.steady else self.f(t, self.points)
        return velocity

    def on(self, domain: Any) -> Wind:
        """The same function on another domain."""
        moved = Wind(domain, self.f, steady=self.steady)
        return moved.to(device=self.points.device, dtype=self.points.dtype)


class StreamFunction(Movable):
    """A velocity b = n × grad ψ that is free of divergence to round-off, so that constants stay and, centred, the norm.

    ψ falls to the left of the flow: −ω R z on a sphere of radius R turns it about z by ω in a unit of time. The mesh must be
    consistently oriented, ψ constant on closed boundaries; on a grid of two axes walls are the line ψ = 0.

    Args:
        domain: a mesh, or a grid of two axes, periodic or closed.
        psi: ψ in length²/time at the nodes, (n,) or (n, 1): fixed, `learned(...)`, an `nn.Parameter`, or a function of time.
        open_boundary: as in `Advection`, to which it is given.
    """

    divergence_free = True

    def __init__(self, domain: TriangleMesh | Grid, psi: CoefficientLike, *, open_boundary: bool = False) -> None:
        super().__init__()
        self.sides = cell_sides(domain, open_boundary)
        self.psi = Coefficient("stream function", psi, self.sides.mass.dtype, self.sides.mass.device, positive=False)
        if self.psi.steady:
            self.sides.stream(self.psi())

    @property
    def steady(self) -> bool:
        """Whether ψ does not depend on time."""
        return self.psi.steady

    def forward(self, t: Tensor) -> Tensor:
        return self.sides.stream(self.psi(t))


def as_velocity(velocity: object, sides: CellSides) -> Coefficient:
    """A velocity, or flows, as a coefficient; a steady one is looked at here.

    Raises:
        FieldError: not one of this domain.
    """
    found = Coefficient("velocity", velocity, sides.mass.dtype, sides.mass.device, positive=False)
    if found.steady:
        sides.flows(found().detach())
    return found


def cells(mass: Tensor) -> Laplacian:
    """Nothing but the masses: a Laplacian without edges, for invariants."""
    n = mass.numel()
    none = torch.zeros(0, dtype=torch.int64, device=mass.device)
    return Laplacian(SparseOperator.from_entries(none, none, mass.new_zeros(0), (n, n)), mass)


def averages(laplacian: Laplacian) -> bool:
    """Whether diffusion keeps fields between bounds on both sides of zero: no edge weight and no row sum of C is negative."""
    stiffness = laplacian.stiffness
    pattern, values = stiffness.pattern, stiffness.values.detach()
    if values.is_complex():
        return False
    off = values[..., pattern.row != pattern.col]
    eps = torch.finfo(values.dtype).eps
    decays = bool((stiffness.row_sums() >= -64 * eps * stiffness.diagonal().abs()).all())
    return decays and (not off.numel() or bool((off <= 8 * eps * values.abs().amax()).all()))


def edge_weights(laplacian: Laplacian, sides: CellSides) -> Tensor:
    """w_ij = −C_ij at the edges of the sides, (E,); zero where C has no entry."""
    pattern, n = laplacian.stiffness.pattern, laplacian.shape[0]
    keys, wanted = pattern.row * n + pattern.col, sides.edges[0] * n + sides.edges[1]
    if not keys.numel():
        return sides.mass.new_zeros(wanted.numel())
    place = torch.searchsorted(keys, wanted).clamp(max=keys.numel() - 1)
    values = -laplacian.stiffness.values
    return torch.where(keys[place] == wanted, values[place], torch.zeros_like(values[place]))


