"""What an equation of MeshPDE is: its meshes, its time steps, its beginnings and its two truths."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from integrators import Solution
from neuralpde.heat_data import Truth
from neuralpde.mesh_case import Scene
from operators import Laplacian, TriangleMesh, cotangent_laplacian

PAPER_MEAN_RATE = 0.025
SUBSTITUTE = "_sub"
"""Of a mesh that stands in for one that cannot be had: woman_sub for woman."""


@dataclass(frozen=True)
class MeshEquation(ABC):
    """An equation on surfaces, with the numbers of its experiment. It is a value: equal settings make equal data.

    Everything is in the units of the mesh file, in float64.
    """

    name: ClassVar[str]
    """In tables and file names."""
    train_meshes: ClassVar[tuple[str, ...]]
    """Names of the meshes that are trained on."""
    test_meshes: ClassVar[tuple[str, ...]]
    """Names of the meshes that are rolled out on and never trained on."""

    def scene(self, name: str, mesh: TriangleMesh, dt: float, truth: Truth) -> Scene:
        """What methods are told: the mesh in float32, with the operator on which the simulation stands."""
        return Scene(name, mesh.to(torch.float32), dt, truth)

    def laplacian(self, mesh: TriangleMesh, truth: Truth) -> Laplacian:
        """The operator on which the simulation stands, in the mesh's precision."""
        return truth.laplacian(mesh)

    @abstractmethod
    def time_step(self, name: str, mesh: TriangleMesh, truth: Truth) -> float:
        """The time between two frames: the published one where the scheme is stable with it, else one by Courant's number."""

    @abstractmethod
    def initial_fields(self, mesh: TriangleMesh, truth: Truth, conditions: int, seed: int) -> Tensor:
        """Random starting fields (conditions, n, 1), in float64. The first of more conditions are those of fewer."""

    @abstractmethod
    def simulate(self, mesh: TriangleMesh, truth: Truth, dt: float, start: Tensor) -> Tensor:
        """Trajectories (conditions, FRAMES, n, 1) in float64 from start (conditions, n, 1), whose first frame is the start."""

    def parameters(self, mesh: TriangleMesh, truth: Truth, dt: float) -> dict[str, Any]:
        """The numbers of the equation on a mesh, beside dt, for the notes of a file."""
        return {}


class ConservingEquation(MeshEquation):
    """An equation whose published truth stands on M⁻¹ C with plain cotangents: S keeps neither constants nor the mass."""

    def scene(self, name: str, mesh: TriangleMesh, dt: float, truth: Truth) -> Scene:
        kind = CotangentScene if truth is Truth.PUBLISHED else Scene
        return kind(name, mesh.to(torch.float32), dt, truth)

    def laplacian(self, mesh: TriangleMesh, truth: Truth) -> Laplacian:
        return cotangent_laplacian(mesh) if truth is Truth.PUBLISHED else truth.laplacian(mesh)


@dataclass(frozen=True)
class CotangentScene(Scene):
    """A scene whose simulation stands on M⁻¹ C with plain cotangents and barycentric masses."""

    @cached_property
    def laplacian(self) -> Laplacian:
        """M⁻¹ C, in 1/length²."""
        return cotangent_laplacian(self.mesh)


def path_of(solution: Solution) -> Tensor:
    """The first field of a solution, (times, conditions, n, 1), as trajectories (conditions, times, n, 1)."""
    field = solution.x[0] if isinstance(solution.x, tuple) else solution.x
    return field.transpose(0, 1).contiguous()


def published_step(name: str, steps: dict[str, float], limit: float, courant: float) -> float:
    """A published time step that is stable and moves something, else the fallback.

    Args:
        steps: published time steps by the names of meshes; substitutes are looked up by the name of what they stand for.
        limit: of stability, in the same unit. A mesh of the same name in other units would blow up beyond it, and stand still
            at a fiftieth of it.
        courant: the fallback.
    """
    step = steps.get(name.removesuffix(SUBSTITUTE))
    return step if step is not None and limit / 50 < step < limit else courant


def mean_rate_step(laplacian: Laplacian) -> float:
    """dt (dt² for waves) with dt · mean L_ii = 0.025, about the rate of the paper's meshes with its steps, and dt λ_max ≤ 1."""
    return min(PAPER_MEAN_RATE / float(laplacian.diagonal().mean()), 1 / laplacian.largest_eigenvalue())


def generator(mesh: TriangleMesh, seed: int, stream: int) -> np.random.Generator:
    """Random numbers of a mesh and a seed; `stream` tells the equations apart."""
    return np.random.default_rng([seed, mesh.num_nodes, stream])


def squared_distances(points: np.ndarray[Any, Any], chosen: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Between all points and the chosen ones, through space; (n, k)."""
    squared: np.ndarray[Any, Any] = cdist(points, points[chosen], "sqeuclidean")
    return squared


def radius(mesh: TriangleMesh) -> float:
    """The mean distance of the vertices from their centre: the size by which widths are chosen where units are not given."""
    points = mesh.arrays[0]
    return float(np.linalg.norm(points - points.mean(0), axis=1).mean())


def stacked(fields: list[np.ndarray[Any, Any]]) -> Tensor:
    """Fields (n,) as (conditions, n, 1)."""
    return torch.from_numpy(np.stack(fields)).to(torch.float64)[..., None]
