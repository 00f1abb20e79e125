"""Heat on surfaces: the truth that the main job learns from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from integrators import BackwardEuler, integrate
from neuralpde.files import RunFolderError, read_tensors, write_tensors
from neuralpde.heat import Heat
from operators import Laplacian, TriangleMesh, cotangent_laplacian, robust_laplacian

FRAMES = 201
GIVEN_FRAMES = 5
TRAIN_FRAMES = 151
TRAIN_CONDITIONS, TEST_CONDITIONS = 3, 5
# Backward Euler is of order 1: sixteen steps a frame divide the error of one step a frame by sixteen.
STEPS_A_FRAME = 16

# Time steps of MeshPDE's heat, in the units of its own mesh files.
PAPER_TIME_STEP = {
    "sphere": 1e-5,
    "bunny_coarse": 1e-6,
    "lucy": 0.8,
    "spider": 3e-5,
    "woman": 0.8,
    "armadillo": 0.1,
    "armadillo_sub": 0.1,
    "urn": 0.6,
}
COURANT = 0.25


class Truth(Enum):
    """Which equation is the truth.

    SURFACE: the heat equation of the surface, M u_t = −C u, robust C, solved implicitly with fine steps.
    PUBLISHED: MeshPDE's scheme, u ← u − dt S u with S = M^-½ C M^-½, plain cotangent C; its equilibrium is √area.
    """

    SURFACE = "surface"
    PUBLISHED = "published"

    def laplacian(self, mesh: TriangleMesh) -> Laplacian:
        """The operator of this truth on a mesh: what a model is told of mass and area, without the rate."""
        if self is Truth.SURFACE:
            return robust_laplacian(mesh)
        return published_operator(mesh)


def published_operator(mesh: TriangleMesh) -> Laplacian:
    """S = M^-½ C M^-½ with the plain cotangent stiffness and barycentric lumped mass, acting on the field itself."""
    laplacian = cotangent_laplacian(mesh).symmetrized()
    laplacian.recipe = published_operator
    return laplacian


@dataclass(frozen=True)
class Surface:
    """A surface with its time step and its simulated trajectories (conditions, FRAMES, n, 1)."""

    name: str
    mesh: TriangleMesh
    dt: float
    frames: Tensor

    def times(self, count: int, start: int = 0) -> Tensor:
        """The times of `count` frames from `start`, in the mesh's units."""
        return self.dt * torch.arange(start, start + count, dtype=torch.float64)


def time_step(name: str, laplacian: Laplacian, truth: Truth) -> float:
    """The paper's time step for a mesh of the paper under its truth, else dt·λ_max = 0.25."""
    largest = laplacian.largest_eigenvalue()
    paper = PAPER_TIME_STEP.get(name) if truth is Truth.PUBLISHED else None
    # The paper's steps are for its own units; a mesh of the same name at another scale would blow up.
    if paper is not None and paper * largest < 2.0:
        return paper
    return COURANT / largest


def initial_fields(mesh: TriangleMesh, truth: Truth, conditions: int, seed: int) -> Tensor:
    """Random starting fields (conditions, n, 1), in float64.

    PUBLISHED: Gaussians of variance 1e-4 (in the mesh's units) at a fifth of the vertices. SURFACE: the same number of
    sources spread over a few warm patches, so that both rough and smooth modes are present.
    """
    random = np.random.default_rng([seed, mesh.num_nodes, 7])
    points = mesh.arrays[0]
    n = len(points)
    fields = []
    for _ in range(conditions):
        if truth is Truth.PUBLISHED:
            chosen = random.choice(n, size=max(1, n // 5), replace=False)
            squared = ((points[:, None] - points[None, chosen]) ** 2).sum(-1)
            fields.append(np.exp(-squared / (2 * 1e-4)).max(axis=1))
        else:
            size = np.linalg.norm(points - points.mean(0), axis=1).mean()
            centres = points[random.choice(n, size=6, replace=False)]
            widths = size * random.uniform(0.1, 0.35, size=6)
            squared = ((points[:, None] - centres[None]) ** 2).sum(-1)
            warm = (random.uniform(0.5, 1.0, size=6) * np.exp(-squared / (2 * widths**2))).sum(axis=1)
            fields.append(np.clip(warm, 0, 1) * (random.uniform(size=n) < 0.6))
    return torch.from_numpy(np.stack(fields))[..., None]


def simulate(laplacian: Laplacian, dt: float, start: Tensor, truth: Truth) -> Tensor:
    """Trajectories (conditions, FRAMES, n, 1) in float64 from start (conditions, n, 1)."""
    laplacian = laplacian.to(torch.float64)
    times = dt * torch.arange(FRAMES, dtype=torch.float64)
    with torch.no_grad():
        if truth is Truth.SURFACE:
            solution = integrate(Heat(laplacian), start, times, BackwardEuler(dt=dt / STEPS_A_FRAME))
            return cast(Tensor, solution.x).transpose(0, 1).contiguous()
        frames = [start]
        for _ in range(FRAMES - 1):
            frames.append(frames[-1] - dt * laplacian(frames[-1]))
        return torch.stack(frames, dim=1)


def surface(
    name: str, mesh: TriangleMesh, truth: Truth, conditions: int, seed: int, cache: Path, done: Callable[[], None]
) -> Surface:
    """Simulate a surface, or read the cache of an earlier session; fields come in float32."""
    if cache.exists():
        try:
            tensors, notes = read_tensors(cache)
            frames, dt = tensors["frames"], float(notes["dt"])
            if frames.shape == (conditions, FRAMES, mesh.num_nodes, 1):
                done()
                return Surface(name, mesh, dt, frames)
        except (RunFolderError, KeyError):
            cache.unlink()
    laplacian = truth.laplacian(mesh)
    dt = time_step(name, laplacian, truth)
    frames = simulate(laplacian, dt, initial_fields(mesh, truth, conditions, seed), truth).float()
    write_tensors(cache, {"frames": frames}, {"dt": dt, "name": name})
    done()
    return Surface(name, mesh, dt, frames)
