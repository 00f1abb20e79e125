"""Waves on the meshes of MeshPDE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from integrators import Exponential, integrate
from neuralpde.heat_data import FRAMES, Truth
from neuralpde.mesh_equation import (
    MeshEquation,
    generator,
    mean_rate_step,
    path_of,
    published_step,
    radius,
    squared_distances,
    stacked,
)
from neuralpde.waves import Wave
from operators import TriangleMesh

PAPER_WAVE_STEP = {
    "sphere": 3e-3,
    "bunny_coarse": 1e-3,
    "lucy": 0.8,
    "spider": 5e-3,
    "woman": 0.8,
    "armadillo": 0.3,
    "urn": 0.6,
}
WAVE_COURANT = 0.5
PAPER_WIDTH = 5e-3
# In mean radii, where the units of the mesh are not asked for: one to three edges on the meshes of the paper.
RELATIVE_WIDTH = 0.14
VERTICES_A_BUMP = 40


@dataclass(frozen=True)
class MeshWave(MeshEquation):
    """Waves from rest: u_{k+1} = 2 u_k − u_{k−1} − dt² S u_k as published, M u_tt = −C u of the surface.

    Published: S = M^-½ C M^-½ with the plain cotangent C and barycentric masses, and u₋₁ = u₀, so that the velocity is zero half
    a step before the start. The start is the sum of n/40 Gaussians of alternating sign, exp(−d²/2σ²) with σ = 5e-3 **in the
    units of the mesh file**, at random vertices. On every published mesh edges are many times longer: what starts is single
    vertices at ±1, and the waves are as short as the mesh holds.

    Surface: the robust C, the exact propagator cos(t √(M⁻¹ C)), and Gaussians whose σ is 0.14 of the mean radius of the mesh,
    which it resolves. From rest Σ m u stays, and so does the energy.

    The published dt is taken where it is stable, dt √λ_max < 2; else dt² is `mean_rate_step`, of the surface dt √λ_max = 0.5.

    Source: Park, Wong and Walters (2023), "Modeling dynamics over meshes with gauge equivariant nonlinear message passing", and
    their public generator, for σ and the first step.
    """

    name: ClassVar[str] = "wave"
    train_meshes: ClassVar[tuple[str, ...]] = ("sphere", "bunny_coarse", "lucy", "spider", "woman")
    test_meshes: ClassVar[tuple[str, ...]] = ("armadillo", "urn", "spot_low", "goathead")

    def time_step(self, name: str, mesh: TriangleMesh, truth: Truth) -> float:
        laplacian = self.laplacian(mesh, truth)
        fastest = math.sqrt(laplacian.largest_eigenvalue())
        otherwise = WAVE_COURANT / fastest if truth is Truth.SURFACE else math.sqrt(mean_rate_step(laplacian))
        return published_step(name, PAPER_WAVE_STEP, 2 / fastest, otherwise)

    def initial_fields(self, mesh: TriangleMesh, truth: Truth, conditions: int, seed: int) -> Tensor:
        random, points = generator(mesh, seed, 11), mesh.arrays[0]
        width = PAPER_WIDTH if truth is Truth.PUBLISHED else RELATIVE_WIDTH * radius(mesh)
        count = max(2, len(points) // VERTICES_A_BUMP)
        signs = np.where(np.arange(count) % 2 == 0, 1.0, -1.0)
        fields = []
        for _ in range(conditions):
            squared = squared_distances(points, random.choice(len(points), size=count, replace=False))
            fields.append(np.exp(-squared / (2 * width**2)) @ signs)
        return stacked(fields)

    def simulate(self, mesh: TriangleMesh, truth: Truth, dt: float, start: Tensor) -> Tensor:
        laplacian = self.laplacian(mesh, truth).to(torch.float64)
        with torch.no_grad():
            if truth is Truth.SURFACE:
                times = dt * torch.arange(FRAMES, dtype=torch.float64)
                rest = (start, torch.zeros_like(start))
                return path_of(integrate(Wave(laplacian), rest, times, Exponential()))
            frames = [start, start - dt**2 * laplacian(start)]
            for _ in range(FRAMES - 2):
                frames.append(2 * frames[-1] - frames[-2] - dt**2 * laplacian(frames[-1]))
            return torch.stack(frames, dim=1)
