"""Rotating shallow water on a sphere: depth and wind on a C-grid that keeps mass, energy and potential vorticity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import Parameter

from integrators import State
from neuralpde.coefficient import Coefficient, CoefficientLike, as_coefficient
from neuralpde.invariants import Invariant, Law, Mass, Part
from neuralpde.rhs import RightHandSide
from operators.c_grid import CGrid
from operators.checks import FieldError, check_field
from operators.domains import TriangleMesh
from operators.laplacian import Laplacian
from operators.sparse import SparseOperator, sparse_product

# Of Williamson et al. 1992: m, 1/s, m/s².
EARTH_RADIUS = 6.37122e6
EARTH_ROTATION = 7.292e-5
EARTH_GRAVITY = 9.80616

BALANCE_ROUNDS = 8

Water = tuple[Tensor, Tensor]


class ShallowWater(RightHandSide):
    """dh/dt = −div(h u), du/dt = −(ζ + f) k × u − grad(g (h + b) + ½ |u|²), with ζ = curl u and f = 2 Ω · x̂.

    The state is (h, u): the depth h (..., n, 1) in m, in the Voronoi cells of the vertices; the wind u (..., E, 1) in m/s along
    the edges, that is normal to the sides of the cells. `flow.grid.wind(field)` makes it of a vector field, `flow.velocity(u)`
    gives the vectors at the vertices. On the `CGrid` (TRiSK), with F = h u and q = (f + ζ) / h on the faces,

        dh/dt = −div F,    du/dt = ½ (q F⊥ + (q F)⊥) − grad(g (h + b) + K).

    Good values: the defaults are the earth's; depths of 5 to 10 km, winds of 10 to 100 m/s. `centroidal_icosphere(4)` has cells
    480 km wide and takes `RK4(dt=1200.0)`, in seconds; with every refinement dt halves. `williamson2`, `williamson5` and
    `williamson6` are ready cases, `balanced` makes more. On a centroidal icosphere the depth of a smooth flow is right to second
    order in the mean square, to about first at the worst cell; on the plain `icosphere` two to three times worse, to order 1.5.

    Forcing is added: `ShallowWater(mesh) + f` with a function f(t, (h, u)) → (dh/dt, du/dt), which may be learned.

    Args:
        mesh: a Delaunay triangulation of a sphere about the origin; of any size, for `radius` is what counts.
        topography: b, the height of the bottom in m: a number, a field (n, 1), `learned(...)` or a function of t.
        rotation: Ω in 1/s: about the z axis, or a vector (3,), which may be a parameter.
        gravity: g in m/s².
        radius: in m.
        viscosity: ν ≥ 0 in m²/s, of ν (grad div − curl curl) u.
        hyperviscosity: ν₄ ≥ 0 in m⁴/s, of −ν₄ (grad div − curl curl)² u; some 1e16 on cells 480 km wide, an eighth to a
            sixteenth of it on cells of half that width.
        anticipation: τ ≥ 0 in s: q − τ u·grad q, the potential vorticity that will arrive, takes the place of q on the sides.
            Energy stays, and the potential enstrophy that piles up at the grid's scale goes; half a time step is usual.

    Invariants: the mass Σ A h, to round-off under every integrator, and the energy ½ Σ l d h u² + g Σ A h (½ h + b), which the
    discretisation in space keeps exactly and that in time to its order; the energy is not declared with viscosity, or where the
    topography depends on t. Potential vorticity is in flux form, so that a uniform q stays uniform; its enstrophy can be
    watched with `PotentialEnstrophy`.

    Raises:
        DomainError: the mesh is no sphere about the origin, or not Delaunay.

    Ringler, Thuburn, Klemp and Skamarock 2010, J. Comput. Phys. 229, 3065–3090; Thuburn, Ringler, Skamarock and Klemp 2009,
    J. Comput. Phys. 228, 8321–8335.
    """

    rotation: Tensor

    def __init__(
        self,
        mesh: TriangleMesh,
        *,
        topography: CoefficientLike = 0.0,
        rotation: float | Tensor = EARTH_ROTATION,
        gravity: float = EARTH_GRAVITY,
        radius: float = EARTH_RADIUS,
        viscosity: CoefficientLike = 0.0,
        hyperviscosity: CoefficientLike = 0.0,
        anticipation: float = 0.0,
    ) -> None:
        super().__init__()
        self.grid = CGrid(mesh, radius)
        like = self.grid.laplacian
        if not (math.isfinite(gravity) and gravity > 0):
            raise ValueError(f"gravity must be positive and finite, not {gravity}: g = 9.8 m/s² on earth")
        if not (math.isfinite(anticipation) and anticipation >= 0):
            raise ValueError(f"anticipation must be a time in seconds from 0 on, not {anticipation}: half a time step is usual")
        self.gravity, self.anticipation = gravity, anticipation
        self.b = as_coefficient(topography, like, "topography")
        self.nu = _drag(viscosity, like, "viscosity")
        self.nu4 = _drag(hyperviscosity, like, "hyperviscosity")
        if not isinstance(rotation, (int, float, Tensor)) or (isinstance(rotation, Tensor) and rotation.is_complex()):
            raise ValueError(f"rotation must be a real number or vector (3,), to be learned as an nn.Parameter, not {rotation!r}")
        axis = rotation if isinstance(rotation, Parameter) else torch.as_tensor(rotation, dtype=like.dtype, device=like.device)
        if axis.shape not in ((), (3,)) or not bool(torch.isfinite(axis.detach()).all()):
            raise ValueError(f"rotation must be a finite number or a vector (3,), not {rotation!r}")
        if isinstance(axis, Parameter):
            self.rotation = axis
        else:
            self.register_buffer("rotation", axis)

    def forward(self, t: Tensor, x: Water) -> Water:
        h, u = self._checked(x)
        grid = self.grid
        q, flux = self._potential_vorticity(h, u), grid.ends(h) * u
        carried = grid.sides(q)
        if self.anticipation:
            # u·grad q on the sides: along the wind from the cells, across it from the faces.
            along, across = grid.gradient(grid.to_cells(q)), grid.across(q)
            carried = carried - self.anticipation * (u * along + grid.perp(u) * across)
        # One product with the widest matrix for both.
        turned, carried_turned = grid.perp(torch.cat([flux, carried * flux], dim=-1)).chunk(2, dim=-1)
        head = self.gravity * (h + self.b(t)) + grid.squares(u * u)
        slope = (carried * turned + carried_turned) / 2 - grid.gradient(head)
        if self.nu is not None:
            slope = slope + self.nu(t) * self._smoothed(u)
        if self.nu4 is not None:
            slope = slope - self.nu4(t) * self._smoothed(self._smoothed(u))
        return -grid.divergence(flux), slope

    def potential_vorticity(self, x: Water) -> Tensor:
        """q = (f + ζ) / h on the faces, in 1/(m s); → (..., m, 1). `flow.grid.to_cells(q)` has it at the vertices."""
        return self._potential_vorticity(*self._checked(x))

    def vorticity(self, u: Tensor) -> Tensor:
        """ζ = curl u on the faces, in 1/s; (..., E, 1) → (..., m, 1)."""
        vorticity: Tensor = self.grid.curl @ u
        return vorticity

    def coriolis(self) -> Tensor:
        """f = 2 Ω · x̂ on the faces, in 1/s; (m, 1)."""
        centres = self.grid.circumcentres
        return 2 * (centres @ self.rotation[:, None] if self.rotation.ndim else self.rotation * centres[:, 2:])

    def velocity(self, u: Tensor) -> Tensor:
        """The wind as tangent vectors at the vertices, in m/s along the mesh's own axes; (..., E, 1) → (..., n, 3)."""
        return self.grid.at_vertices(u)

    def balanced(self, u: Tensor, mean_depth: float) -> Water:
        """The state of wind u whose depth keeps it free of divergence: div du/dt = 0, without gravity waves at the start.

        Solves Δ(g (h + b) + K) = div(½ (q F⊥ + (q F)⊥)), the nonlinear balance, for the h of the given mean. With
        `flow.grid.stream(psi)` as the wind this makes weather of any stream function; `psi` = −10⁸ m²/s times a function of order
        one gives winds of some 10 m/s. Differentiable in u.

        Args:
            u: (..., E, 1), in m/s.
            mean_depth: in m.

        Raises:
            ValueError: the wind is so strong that the layer would fall dry; mean_depth is not positive.
        """
        if not (math.isfinite(mean_depth) and mean_depth > 0):
            raise ValueError(f"mean_depth must be positive and finite, in m, not {mean_depth}")
        grid, L = self.grid, self.grid.laplacian
        start = torch.zeros((), dtype=torch.float64, device=grid.device)
        area = grid.cell_areas[:, None] / grid.cell_areas.sum()
        # (1/s + L) is as good as L on fields of mean zero, where L ≥ 2 / R².
        shift = 1e10 * grid.radius**2
        h = torch.full_like(grid.squares(u), mean_depth)
        # The depth nearly drops out of q F, so that few rounds do.
        for _ in range(BALANCE_ROUNDS):
            slope = self.forward(start, (h, u))[1]
            h = h - L.solve(shift, shift * grid.divergence(slope)) / self.gravity
            h = h + mean_depth - (area * h).sum(dim=-2, keepdim=True)
        if not bool((h.detach() > 0).all()):
            raise ValueError(f"a layer of {mean_depth:g} m falls dry somewhere to balance so strong a wind: make it deeper")
        return h, u

    def frequency(self, x: Water) -> float:
        """A bound in 1/s of how fast anything in this state oscillates, viscosity aside: RK4 is stable to steps of 2.8 / it."""
        h, u = (part.detach() for part in self._checked(x))
        wave = math.sqrt(self.grid.laplacian.norm_bound())
        inertial = 2 * float(torch.linalg.vector_norm(self.rotation.detach())) + float(self.grid.curl(u).abs().max())
        # The wind carries what the waves oscillate: at most |u| over the shortest edge.
        carried = 2 * float((u.abs() / self.grid.edge_lengths[:, None]).max())
        return math.sqrt(self.gravity * float(h.max())) * wave + inertial + carried

    @property
    def topography(self) -> Tensor:
        """b, in m. Raises ValueError if it depends on t."""
        return self.b()

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        mass = Part(0, Mass(self.grid.laplacian), "h")
        if self.nu is not None or self.nu4 is not None or not self.b.steady:
            return (mass,)
        return mass, ShallowWaterEnergy(self.grid, self.topography.detach(), self.gravity)

    def on(self, domain: Any) -> Self:
        view = super().on(domain)
        n = view.grid.laplacian.shape[0]
        if view.b.steady and not view.b.scalar and len(view.topography) not in (1, n):
            raise FieldError(
                f"the topography is a field on {len(view.topography)} vertices and cannot move to {n}: build "
                "ShallowWater(mesh, topography=...) with its values there"
            )
        return view

    def _potential_vorticity(self, h: Tensor, u: Tensor) -> Tensor:
        q: Tensor = (self.coriolis() + self.grid.curl(u)) / self.grid.to_faces(h)
        return q

    def _smoothed(self, u: Tensor) -> Tensor:
        """(grad div − curl curl) u, self-adjoint and negative in Σ l d u²."""
        grid = self.grid
        result: Tensor = grid.gradient(grid.divergence(u)) - grid.across(grid.curl(u))
        return result

    def _checked(self, x: Water) -> Water:
        if not isinstance(x, tuple) or len(x) != 2:
            raise FieldError(f"the state of shallow water is the pair (h, u) of depth and wind, not {type(x).__name__}")
        grid = self.grid
        check_field(x[0], len(grid.cell_areas), grid.dtype, grid.device, "the depth h")
        check_field(x[1], len(grid.edge_areas), grid.dtype, grid.device, "the wind u")
        if x[0].is_complex() or x[1].is_complex():
            raise FieldError("depth and wind are real: the energy of complex ones means nothing")
        return x


@dataclass(frozen=True, eq=False)
class ShallowWaterEnergy(Invariant):
    """½ Σ l d h u² + g Σ A h (½ h + b), kinetic and potential energy over the density, in m⁵/s²; its scale is the energy.

    Args:
        grid: of the flow.
        topography: b (n, 1) or one number, in m.
        gravity: g in m/s².
        law: conserved, or one-sided.
    """

    grid: CGrid
    topography: Tensor
    gravity: float
    law: Law = Law.CONSERVED

    name = "energy"

    def measure(self, x: State) -> Tensor:
        h, u = x
        b = self.topography.to(h.dtype)
        mean = _of(self.grid.ends, h)
        kinetic = (self.grid.edge_areas.to(u.dtype)[:, None] * mean * u * u).sum(dim=(-2, -1)) / 2
        return kinetic + self.gravity * (self.grid.cell_areas.to(h.dtype)[:, None] * h * (h / 2 + b)).sum(dim=(-2, -1))

    def scale(self, x: State) -> Tensor:
        return self.measure(x).abs()


@dataclass(frozen=True, eq=False)
class PotentialEnstrophy(Invariant):
    """½ Σ A h q² over the faces, in 1/s² m: a measure of how fine the potential vorticity has become.

    The exact flow keeps it. The discrete flow does not: it drifts without `anticipation`, and falls with it. Not declared by
    `ShallowWater` therefore, but good to watch.

    Args:
        flow: gives q.
        law: never increasing, as with `anticipation`.
    """

    flow: ShallowWater
    law: Law = Law.NON_INCREASING

    name = "potential enstrophy"

    def measure(self, x: State) -> Tensor:
        h, u = x
        grid = self.flow.grid
        depth = _of(grid.to_faces, h)
        coriolis = self.flow.coriolis().detach().to(h.dtype)
        return (grid.face_areas.to(h.dtype)[:, None] * (coriolis + _of(grid.curl, u)) ** 2 / depth).sum(dim=(-2, -1)) / 2

    def scale(self, x: State) -> Tensor:
        return self.measure(x).abs()


def _drag(value: CoefficientLike, like: Laplacian, name: str) -> Coefficient | None:
    # A plain zero is no term at all: it costs nothing, and energy is conserved.
    if isinstance(value, (int, float)) and value == 0:
        return None
    coefficient = as_coefficient(value, like, name, nonnegative=True)
    if coefficient.steady and not coefficient.scalar:
        raise FieldError(f"the {name} must be one number here, not a field: the wind lives on edges")
    return coefficient


def _of(operator: SparseOperator, x: Tensor) -> Tensor:
    """The operator in the precision of x, which may be wider than the grid's."""
    return sparse_product(operator.values.to(x.dtype), x, operator.pattern)
