"""Mean-curvature flow: a surface that moves towards less area, with its Laplacian rebuilt from the moving vertices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from integrators import LinearPart, SolveError, State, Status
from integrators.solution import Time
from integrators.state import number
from neuralpde.coefficient import CoefficientLike, as_coefficient
from neuralpde.heat import Diffusion
from neuralpde.invariants import DirichletEnergy, Invariant, Law, one_field
from neuralpde.rhs import RightHandSide
from neuralpde.symmetry import Permutation, RigidMotion, Symmetry
from operators import DomainError, Laplacian, MeshDiffusion, SparseOperator, TriangleMesh, cotangent_laplacian, dirichlet
from operators.checks import as_field

FixedVertices = Callable[[TriangleMesh], Tensor]


class MeanCurvatureFlow(RightHandSide):
    """dx/dt = −κ L(x) x: every vertex moves along its mean-curvature normal, at κ times the mean curvature k₁ + k₂.

    L(x) is the cotangent Laplacian of the surface as it is, so that this is −κ M(x)⁻¹ ∇Area(x), the gradient flow of the area
    of the triangles themselves, exactly. A sphere shrinks by R² = R₀² − 4κt, a cylinder by R² = R₀² − 2κt; everything convex
    becomes round and vanishes. Necks pinch off in finite time, where a triangle collapses and a SolveError says so:
    `ConformalMeanCurvatureFlow` goes on.

    The state is the vertices (..., n, 3), or (..., n, 2) of a mesh in the plane; begin with `mesh.vertices`.

    Good values: `SemiImplicitEuler(dt=R²/100)` with R the size of the surface, which has no stability limit; explicit
    steps need about h² / 4κ for edges of length h. What vanishes at a time has nothing after it: an adaptive solver's
    steps shrink towards that time, and a fixed step may jump over it, into a growing surface: `Monitor(f, tolerance=1e-3)`
    stops there.

    Invariants: the area falls. Equivariant under renumbering and rigid motion.

    Args:
        mesh: whose faces and first vertices these are.
        rate: κ > 0, in length²/time with time to taste: a number, `learned(...)`, or a function of time.
        fixed: a function of the mesh that names vertices that do not move, such as `boundary_vertices` for a soap film.
        learn: make a number κ a parameter; it is kept positive by learning log κ.

    Raises:
        SolveError: (in a solve) a triangle collapsed.

    Source: Dziuk 1990, Numer. Math. 58; Desbrun, Meyer, Schröder and Barr 1999, SIGGRAPH.
    """

    def __init__(
        self,
        mesh: TriangleMesh,
        rate: CoefficientLike = 1.0,
        *,
        fixed: FixedVertices | None = None,
        learn: bool = False,
    ) -> None:
        super().__init__()
        self.surface = MovingSurface(mesh, fixed)
        self.kappa = as_coefficient(rate, self.surface.start, "rate", positive=True, learn=learn)

    @property
    def rate(self) -> Tensor:
        """κ."""
        return self.kappa()

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        surface = self.surface
        corners = surface.corners(x)
        shares = self._cotangents(surface, corners, t)
        following, preceding = corners.roll(-1, -2), corners.roll(1, -2)
        # Corner k lies opposite to the edge from k + 1 to k + 2.
        pull = shares[..., None] * (preceding - following)
        gradient = surface.summed(pull.roll(-1, -2) - pull.roll(1, -2))
        mass = surface.summed((surface.areas(corners, t) / 3)[..., None, None].expand(*corners.shape[:-1], 1))
        slope: Tensor = -self.kappa(t) * (gradient / mass).to(x.dtype)
        return slope * surface.free[:, None].to(x.dtype)

    def _cotangents(self, surface: MovingSurface, corners: Tensor, t: Time) -> Tensor:
        return surface.half_cotangents(corners, t)

    def lagged(self, t: Tensor, x: Tensor) -> tuple[LinearPart, Tensor | None]:
        """G y = −κ L(x) y with the surface frozen at x, for `SemiImplicitEuler`: (M(x) + h κ C(x)) x' = M(x) x."""
        surface = self.surface
        corners = surface.corners(x)
        mass = surface.summed((surface.areas(corners, t) / 3)[..., None, None].expand(*corners.shape[:-1], 1)).squeeze(-1)
        if mass.ndim > 1:
            raise DomainError("the semi-implicit step takes one surface at a time, (n, 3): solve for each of the batch by itself")
        laplacian = Laplacian(surface.stiffness(self._cotangents(surface, corners, t), x.dtype), mass.to(x.dtype))
        if bool(surface.free.all()):
            return Diffusion(laplacian, self.kappa(t)), None
        part = HeldDiffusion(laplacian, self.kappa(t), ~surface.free)
        return part, part.pull(x)

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        return () if self.kappa.negative else (SurfaceArea(self.surface),)

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        # The velocity turns with the surface, and no shift changes it.
        return (Permutation(), RigidMotion(vectors=(0,), reflections=True))


class ConformalMeanCurvatureFlow(MeanCurvatureFlow):
    """M(x) dx/dt = −κ C x with the stiffness C of the first surface, and the masses of the moving one.

    It agrees with mean-curvature flow while the surface changes conformally, and no neck pinches: surfaces of genus zero become
    round spheres, by conformal maps as far as is seen (Kazhdan, Solomon and Ben-Chen 2012, Comput. Graph. Forum 31). Scale the
    result back to the first area to look at it: it shrinks to a point.

    Good values: as for `MeanCurvatureFlow`.

    Invariants: the Dirichlet energy ½ ⟨x, C x⟩ of the map from the first surface falls; it is at least the area.

    Args, Raises: as of `MeanCurvatureFlow`.
    """

    def _cotangents(self, surface: MovingSurface, corners: Tensor, t: Time) -> Tensor:
        return surface.first.half_cotangents.to(corners.dtype).expand(corners.shape[:-1])

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        return () if self.kappa.negative else (DirichletEnergy(self.surface.start, Law.NON_INCREASING),)


class MovingSurface(nn.Module):
    """The faces of a mesh, and the geometry they have with other vertices; everything is differentiable in these.

    Args:
        mesh: the faces, and the first vertices.
        fixed: a function of the mesh that names the vertices that do not move, as indices or a mask; or None.
    """

    faces: Tensor
    free: Tensor

    def __init__(self, mesh: TriangleMesh, fixed: FixedVertices | None = None) -> None:
        super().__init__()
        if not isinstance(mesh, TriangleMesh):
            raise TypeError(f"mean-curvature flow moves the vertices of a TriangleMesh, not of a {type(mesh).__name__}")
        if fixed is not None and not callable(fixed):
            raise TypeError("fixed must be a function of the mesh, such as boundary_vertices: it is asked again on another mesh")
        self.first = MeshDiffusion(mesh)
        self.start = cotangent_laplacian(mesh)
        self.fixed = fixed
        free = torch.ones(mesh.num_nodes, dtype=torch.bool, device=mesh.device)
        if fixed is not None:
            free[fixed(mesh)] = False
        self.register_buffer("faces", mesh.faces, persistent=False)
        self.register_buffer("free", free, persistent=False)

    def corners(self, x: Tensor) -> Tensor:
        """The corners of every face in float64; (..., n, d) → (..., m, 3, d)."""
        as_field(x, self.free.numel(), "vertices")
        if x.shape[-1] not in (2, 3) or x.is_complex():
            raise DomainError(f"the state of mean-curvature flow is the vertices, real (..., n, 3), not {tuple(x.shape)}")
        wide = x.double()
        # Lengths far from the origin keep their digits.
        wide = wide - wide.detach().mean(-2, keepdim=True)
        return wide[..., self.faces, :]

    def areas(self, corners: Tensor, t: Time = 0.0) -> Tensor:
        """The area of every face; (..., m, 3, d) → (..., m). Raises SolveError where one has none left."""
        a, b = corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
        if corners.shape[-1] == 2:
            area = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).abs() / 2
        else:
            area = torch.linalg.vector_norm(torch.linalg.cross(a, b), dim=-1) / 2
        with torch.no_grad():
            # The height over the longest side, as part of it: below this its angles are round-off.
            longest = (corners - corners.roll(1, -2)).square().sum(-1).amax(-1)
            collapsed = ~(area > 1e-12 * longest)
            if bool(collapsed.any()):
                self._tell(collapsed, corners, t)
        return area

    def _tell(self, collapsed: Tensor, corners: Tensor, t: Time) -> None:
        if not bool(torch.isfinite(corners).all()):
            raise SolveError(
                f"the solve diverged: the vertices are not finite at t = {number(t):.6g}: take a smaller dt", Status.DIVERGED
            )
        face = int(collapsed.reshape(-1, collapsed.shape[-1]).any(0).nonzero()[0])
        raise SolveError(
            f"triangle {face} has collapsed at t = {number(t):.6g} ({int(collapsed.sum())} have): the surface pinches off or "
            "vanishes there. End before it, take smaller steps, or use ConformalMeanCurvatureFlow, which does not pinch",
            Status.DIVERGED,
        )

    def half_cotangents(self, corners: Tensor, t: Time = 0.0) -> Tensor:
        """½ cot of the angle at every corner; (..., m, 3, d) → (..., m, 3)."""
        following, preceding = corners.roll(-1, -2) - corners, corners.roll(1, -2) - corners
        return (following * preceding).sum(-1) / (4 * self.areas(corners, t)[..., None])

    def summed(self, shares: Tensor) -> Tensor:
        """What the corners of the faces give to the vertices, added up; (..., m, 3, k) → (..., n, k)."""
        flat = shares.flatten(-3, -2)
        total = flat.new_zeros(*flat.shape[:-2], self.free.numel(), flat.shape[-1])
        return total.index_add(-2, self.faces.flatten(), flat)

    def stiffness(self, half_cotangents: Tensor, dtype: torch.dtype) -> SparseOperator:
        """C, given ½ cot at every corner (m, 3)."""
        to_edges = self.first.to_edges
        weights = to_edges(half_cotangents.flatten(-2)[..., None].to(to_edges.dtype)).squeeze(-1)
        stiffness: SparseOperator = self.first.stiffness(weights, dtype)
        return stiffness

    def area(self, x: Tensor) -> Tensor:
        """The area of the surface with these vertices; (..., n, d) → (...)."""
        return self.areas(self.corners(x)).sum(-1)

    def on(self, mesh: Any) -> MovingSurface:
        """The same for another mesh."""
        moved = MovingSurface(mesh, self.fixed)
        return moved.to(device=self.free.device)


class HeldDiffusion:
    """G = −κ L at the free nodes and 0 at the held ones, as a linear part."""

    def __init__(self, laplacian: Laplacian, diffusivity: Tensor, held: Tensor) -> None:
        self.inside = dirichlet(laplacian, held)
        self.diffusivity = diffusivity

    @property
    def self_adjoint(self) -> bool:
        """Whether κ is not negative, so that G is negative semi-definite."""
        return float(self.diffusivity.detach()) >= 0

    def __matmul__(self, x: Tensor) -> Tensor:
        return self.inside.extend(-self.diffusivity * (self.inside @ self.inside.restrict(x)))

    def pull(self, x: Tensor) -> Tensor:
        """What the held nodes add to the slope of the free ones."""
        return self.inside.extend(-self.diffusivity * self.inside.load(x.index_select(-2, self.inside.fixed)))

    def norm_bound(self) -> float:
        return abs(float(self.diffusivity.detach())) * self.inside.norm_bound()

    def solve(self, shift: Tensor, b: Tensor) -> Tensor:
        held = b.index_select(-2, self.inside.fixed)
        return self.inside.extend(self.inside.solve(shift * self.diffusivity, self.inside.restrict(b)), held)


@dataclass(frozen=True, eq=False)
class SurfaceArea(Invariant):
    """The area of a surface whose vertices are the state.

    Args:
        surface: its faces.
    """

    surface: MovingSurface
    law: Law = Law.NON_INCREASING

    def measure(self, x: State) -> Tensor:
        vertices = one_field(x)
        return self.surface.area(vertices)

    def scale(self, x: State) -> Tensor:
        return self.measure(x)

    @property
    def name(self) -> str:
        return "area"
