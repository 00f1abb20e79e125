"""Transport on the meshes of MeshPDE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from integrators.exponential import products
from neuralpde.heat_data import FRAMES, Truth
from neuralpde.mesh_equation import ConservingEquation, generator, radius, squared_distances, stacked
from operators import SparseOperator, TriangleMesh
from operators.advection import AdvectionOperator, Flux
from operators.cell_sides import cell_sides
from operators.mass import face_corners

BUMPS = 6
# With κ = 2 dt |a|², dt √λ_max ≤ ½ keeps an explicit step from raising the norm.
LARGEST = 0.5
FRAMES_A_RADIUS = 100


@dataclass(frozen=True)
class MeshAdvection(ConservingEquation):
    """Advection by a fixed stream function, with a little diffusion: u_t = −div(u b) − κ L u, b = n × grad ψ, ψ = a·p.

    ψ is linear in the vertex coordinates, so that b = n × a on each face with outward normal n: tangential, free of divergence
    where every edge has two faces, and of length |a| at most. A sphere turns about a; other surfaces are stirred along the
    sections normal to a. The law is the same on all meshes, and one in dt L and dt b: |a| = 1 and κ = 2 dt |a|².

    - a = (1, 2, 2)/3 in the coordinates of the mesh file; κ in length²/time.
    - dt is the shorter of R/100, with R the mean distance of the vertices from their mean, and ½ / √λ_max. With it one explicit
      step never raises the norm ‖u‖_M, for ‖A u‖² ≤ |a|² ⟨u, L u⟩.
    - Start: six Gaussians of random height in (0.5, 1), alternating sign, and width 0.15 R to 0.3 R, at random vertices.
    - Published: u_{k+1} = u_k + dt (A − κ L) u_k, A the centred flux between median dual cells, L = M⁻¹ C with plain cotangents
      (not S, which keeps neither constants nor the mass). So Σ m u is kept, and the norm never rises. It is in the published
      style, but it is **not** the authors' scheme: theirs has the constant velocity (1, 0, 0), which leaves the surface, and
      Euler steps of a centred difference with the time steps of heat, by which fields stand still on the small meshes and
      overflow on the large ones.
    - Surface: the robust L, and each frame by the exponential of the one before, its Taylor series to round-off.

    Invariants: Σ m u to round-off; ‖u‖_M never rises.
    """

    axis: tuple[float, float, float] = (1 / 3, 2 / 3, 2 / 3)
    """a, in length/time."""

    name: ClassVar[str] = "advection"
    train_meshes: ClassVar[tuple[str, ...]] = ("sphere", "bunny_coarse", "lucy", "spider", "woman")
    test_meshes: ClassVar[tuple[str, ...]] = ("armadillo", "urn", "spot_low", "goathead")

    def time_step(self, name: str, mesh: TriangleMesh, truth: Truth) -> float:
        fastest = math.sqrt(self.laplacian(mesh, truth).largest_eigenvalue())
        return float(min(radius(mesh) / FRAMES_A_RADIUS, LARGEST / fastest) / self.speed)

    @property
    def speed(self) -> float:
        """|a|."""
        return math.hypot(*self.axis)

    def diffusivity(self, dt: float) -> float:
        """κ, in length²/time."""
        return 2 * dt * self.speed**2

    def velocity(self, mesh: TriangleMesh) -> Tensor:
        """b = n × a at the faces, (m, 3), in length/time."""
        corners = face_corners(mesh).to(torch.float64)
        normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normal = normal / torch.linalg.vector_norm(normal, dim=1, keepdim=True)
        along = torch.tensor(self.axis, dtype=torch.float64).expand_as(normal)
        velocity: Tensor = torch.linalg.cross(normal, along)
        return velocity

    def generator(self, mesh: TriangleMesh, truth: Truth, dt: float) -> tuple[SparseOperator, Tensor]:
        """M (A − κ L) in float64, and the masses M (n,)."""
        laplacian, mesh = self.laplacian(mesh, truth).to(torch.float64), mesh.to(torch.float64)
        sides = cell_sides(mesh)
        flow = AdvectionOperator(sides, sides.flows(self.velocity(mesh)), Flux.CENTRED)
        return SparseOperator(flow.pattern, flow.values) - laplacian.stiffness * self.diffusivity(dt), laplacian.mass

    def initial_fields(self, mesh: TriangleMesh, truth: Truth, conditions: int, seed: int) -> Tensor:
        random, points, size = generator(mesh, seed, 17), mesh.arrays[0], radius(mesh)
        signs = np.where(np.arange(BUMPS) % 2 == 0, 1.0, -1.0)
        fields = []
        for _ in range(conditions):
            squared = squared_distances(points, random.choice(len(points), size=BUMPS, replace=False))
            widths, heights = size * random.uniform(0.15, 0.3, BUMPS), random.uniform(0.5, 1.0, BUMPS)
            fields.append(np.exp(-squared / (2 * widths**2)) @ (signs * heights))
        return stacked(fields)

    def simulate(self, mesh: TriangleMesh, truth: Truth, dt: float, start: Tensor) -> Tensor:
        weighted, mass = self.generator(mesh, truth, dt)
        angle = dt * weighted.scaled(mass.rsqrt(), mass.rsqrt()).norm_bound()
        pieces, order = (1, 1) if truth is Truth.PUBLISHED else products(angle, torch.finfo(torch.float64).eps)
        step, frames = weighted.scaled(dt / (pieces * mass), torch.ones_like(mass)), [start]
        with torch.no_grad():
            for _ in range(FRAMES - 1):
                frames.append(exponential_series(step, frames[-1], pieces, order))
        return torch.stack(frames, dim=1)

    def parameters(self, mesh: TriangleMesh, truth: Truth, dt: float) -> dict[str, Any]:
        return {"axis": list(self.axis), "diffusivity": self.diffusivity(dt)}


def exponential_series(g: SparseOperator, u: Tensor, pieces: int, order: int) -> Tensor:
    """(Σ_{k ≤ order} Gᵏ / k!)^pieces u; with one piece of order 1, a step of Euler's."""
    for _ in range(pieces):
        term = u
        for k in range(1, order + 1):
            term = (g @ term) / k
            u = u + term
    return u
