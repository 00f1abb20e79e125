"""Heat on the meshes of MeshPDE: the truths of the main job, here beside the other equations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from integrators import Exponential, integrate
from neuralpde.heat import Heat
from neuralpde.heat_data import FRAMES, PAPER_TIME_STEP, Truth, initial_fields, simulate, time_step
from neuralpde.mesh_equation import MeshEquation, mean_rate_step, path_of, published_step
from operators import TriangleMesh


@dataclass(frozen=True)
class MeshHeat(MeshEquation):
    """Heat: u_{k+1} = u_k − dt S u_k as published, M u_t = −C u of the surface.

    Published: S = M^-½ C M^-½ with the plain cotangent C and barycentric masses, Gaussians of variance 1e-4 at a fifth of the
    vertices. Both are those of `heat_data`. Surface: the robust C, a few warm patches with rough noise, and each frame by the
    exact exponential exp(−dt M⁻¹ C) of the one before, which keeps Σ m u to round-off and, where no weight is negative, bounds.
    The main job takes sixteen steps of backward Euler a frame instead, of order one.

    Published, a mesh without a time step of the paper gets that of the paper's meshes as a rate: see `mean_rate_step`.
    """

    name: ClassVar[str] = "heat"
    train_meshes: ClassVar[tuple[str, ...]] = ("sphere", "bunny_coarse", "lucy", "spider", "woman")
    test_meshes: ClassVar[tuple[str, ...]] = ("armadillo", "urn", "spot_low", "goathead")

    def time_step(self, name: str, mesh: TriangleMesh, truth: Truth) -> float:
        laplacian = self.laplacian(mesh, truth)
        if truth is Truth.SURFACE:
            return time_step(name, laplacian, truth)
        return published_step(name, PAPER_TIME_STEP, 2 / laplacian.largest_eigenvalue(), mean_rate_step(laplacian))

    def initial_fields(self, mesh: TriangleMesh, truth: Truth, conditions: int, seed: int) -> Tensor:
        return initial_fields(mesh, truth, conditions, seed)

    def simulate(self, mesh: TriangleMesh, truth: Truth, dt: float, start: Tensor) -> Tensor:
        laplacian = self.laplacian(mesh, truth)
        if truth is Truth.PUBLISHED:
            return simulate(laplacian, dt, start, truth)
        times = dt * torch.arange(FRAMES, dtype=torch.float64)
        with torch.no_grad():
            return path_of(integrate(Heat(laplacian.to(torch.float64)), start, times, Exponential()))
