"""Reaction and diffusion whose rate and anisotropy nobody knows: the trajectories of `meshpde-hard`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from integrators import ARK324, LinearPart, integrate
from neuralpde.files import RunFolderError, read_tensors, write_tensors
from neuralpde.heat import Diffusion
from neuralpde.heat_data import FRAMES, TRAIN_FRAMES, Truth
from neuralpde.mesh_case import Case, Scene
from neuralpde.rhs import RightHandSide
from operators import Laplacian, MeshDiffusion, TriangleMesh, bumpy, icosphere, load_mesh, subdivide, torus

DURATION = 1.0
"""Of a trajectory, in the units of the equation."""
STEPS_A_FRAME = 2
"""Of the truth, whose error is then far below the noise."""

NOISE = 0.01
TRAJECTORIES = 5
DEFINITION = 1
"""To be raised when a trajectory of the same seed changes."""

TRAIN_MESHES = ("sphere", "bunny_coarse", "nut")
TEST_MESHES = ("spot_low", "hand_lowres")


def conductivity(m: Tensor) -> Tensor:
    """g(m) = 0.1 + 0.9 / (1 + exp(14 (m − ½))): the law of the material, which no method is told."""
    return 0.1 + 0.9 * torch.sigmoid(-14 * (m - 0.5))


def source(u: Tensor) -> Tensor:
    """f(u) = 30 u (1 − u) (u − 0.35), in 1/time: fronts run from one stable state into the other (Nagumo's equation)."""
    return 30.0 * u * (1 - u) * (u - 0.35)


class HardEquation(RightHandSide):
    """∂u/∂t = div (g(m) A ∇u) + f(u), A one symmetric positive 3 × 3 matrix whose share in each face's plane counts.

    Args:
        mesh: the surface, of area 1.
        material: m (n, 1) in [0, 1]; the diffusivity of a face is the mean of its corners' g(m).
        tensor: A (3, 3), in area/time.
    """

    def __init__(self, mesh: TriangleMesh, material: Tensor, tensor: Tensor) -> None:
        super().__init__()
        g = conductivity(material[:, 0])[mesh.faces].mean(1)
        self.laplacian: Laplacian = MeshDiffusion(mesh)(g[:, None, None] * tensor)

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return source(u) - self.laplacian @ u

    @property
    def linear(self) -> LinearPart:
        return Diffusion(self.laplacian, 1.0)

    def nonlinear(self, t: Tensor, u: Tensor) -> Tensor:
        """f(u)."""
        return source(u)


@dataclass(frozen=True)
class Drawn:
    """What one trajectory is made of.

    Args:
        material: m (n, 1) in (0, 1), told to every method.
        start: u(0) (n, 1) in [0, 1].
        tensor: A = κ ρ^-½ (I + (ρ − 1) d dᵀ), told to none: κ between 0.015 and 0.06, ρ between 3 and 12, any direction d.
    """

    material: Tensor
    start: Tensor
    tensor: Tensor


def draw(mesh: TriangleMesh, seed: int, trajectory: int) -> Drawn:
    """A trajectory's material, start and tensor, in float64, from (seed, trajectory, number of vertices)."""
    random = np.random.default_rng([seed, trajectory, mesh.num_nodes, 11])
    points = mesh.arrays[0]
    waves = random.normal(size=(6, 3))
    waves *= random.uniform(6.0, 14.0, size=(6, 1)) / np.linalg.norm(waves, axis=1, keepdims=True)
    sums = np.cos(points @ waves.T + random.uniform(0, 2 * np.pi, size=6)).sum(1)
    material = 0.5 + 0.5 * np.tanh(1.5 * sums / math.sqrt(3))
    centres = points[random.choice(len(points), size=7, replace=False)]
    widths, heights = random.uniform(0.06, 0.14, size=7), random.uniform(0.7, 1.0, size=7)
    squared = ((points[:, None] - centres[None]) ** 2).sum(-1)
    start = 1 - np.prod(1 - heights * np.exp(-squared / (2 * widths**2)), axis=1)
    d = random.normal(size=3)
    d /= np.linalg.norm(d)
    rate, ratio = 0.03 * math.exp(random.uniform(-math.log(2), math.log(2))), math.exp(random.uniform(math.log(3), math.log(12)))
    tensor = rate / math.sqrt(ratio) * (np.eye(3) + (ratio - 1) * np.outer(d, d))
    return Drawn(torch.from_numpy(material)[:, None], torch.from_numpy(start)[:, None], torch.from_numpy(tensor))


def simulate(mesh: TriangleMesh, drawn: Drawn, frames: int = FRAMES, steps_a_frame: int = STEPS_A_FRAME) -> Tensor:
    """The clean trajectory (frames, n, 1) in float64, on a mesh in float64."""
    dt = DURATION / (FRAMES - 1)
    times = dt * torch.arange(frames, dtype=torch.float64)
    with torch.no_grad():
        equation = HardEquation(mesh, drawn.material, drawn.tensor)
        x = integrate(equation, drawn.start, times, ARK324(dt=dt / steps_a_frame)).x
    return cast(Tensor, x)


def of_area_one(mesh: TriangleMesh) -> TriangleMesh:
    """The mesh in float64, about its vertices' mean and scaled to area 1: rates then mean the same on all."""
    vertices = mesh.vertices.double()
    return replace(mesh, vertices=(vertices - vertices.mean(0)) / math.sqrt(mesh.area))


def hard_case(name: str, mesh: TriangleMesh, trajectories: int, seed: int, noise: float = NOISE) -> Case:
    """Trajectories on one mesh of area 1: frames with white noise of `noise` times the first frame's standard deviation."""
    every = [draw(mesh, seed, k) for k in range(trajectories)]
    clean = torch.stack([simulate(mesh, drawn) for drawn in every])
    generator = torch.Generator().manual_seed(1_000_003 * seed + mesh.num_nodes)
    level = noise * clean[:, :1].std(dim=2, keepdim=True)
    frames = clean + level * torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    scene = Scene(name, mesh.to(torch.float32), DURATION / (FRAMES - 1), Truth.SURFACE)
    return Case(scene, frames.float(), clean.float(), torch.stack([drawn.material for drawn in every]).float())


def hard_meshes(folder: Path | None, small: bool = False) -> tuple[dict[str, TriangleMesh], dict[str, TriangleMesh]]:
    """The meshes of training and of test, of area 1; every face of a test mesh is one of another shape split into four.

    Args:
        folder: of mesh files; generated bumpy spheres and tori if absent.
        small: generated ones of few nodes, for tests.

    Raises:
        RunFolderError: a file is missing.
    """
    if folder is not None:
        train = {name: _file(folder, name) for name in TRAIN_MESHES}
        test = {name: _file(folder, name) for name in TEST_MESHES}
    elif small:
        train = {"bumpy-1": bumpy(icosphere(2), seed=1), "torus": torus(14, 8, 1.0, 0.45)}
        test = {"bumpy-7": bumpy(icosphere(2), amplitude=0.3, seed=7)}
    else:
        train = {"bumpy-1": bumpy(icosphere(3), seed=1), "bumpy-2": bumpy(icosphere(3), seed=2), "torus": torus(32, 16, 1.0, 0.4)}
        test = {"bumpy-7": bumpy(icosphere(3), amplitude=0.35, seed=7), "thin-torus": torus(48, 12, 1.0, 0.25)}
    finer = {f"{name}-fine": subdivide(mesh).mesh for name, mesh in test.items()}
    return {name: of_area_one(mesh) for name, mesh in train.items()}, {name: of_area_one(mesh) for name, mesh in finer.items()}


def hard_cases(
    folder: Path | None,
    cache: Path | None = None,
    *,
    seed: int = 0,
    trajectories: int = TRAJECTORIES,
    small: bool = False,
    done: Callable[[str], None] = lambda name: None,
) -> tuple[list[Case], list[Case]]:
    """(training cases, test cases), the training cases cut to the frames that are trained on.

    Args:
        folder, small: as in `hard_meshes`.
        cache: a folder that keeps what was simulated; none if absent.
        done: called with the name of each mesh when it is ready.
    """
    train, test = hard_meshes(folder, small)
    cases = []
    for name, mesh in [*train.items(), *test.items()]:
        path = None if cache is None else cache / f"{name}.safetensors"
        cases.append(_kept(path, name, mesh, trajectories, seed))
        done(name)
    return [case.first(trajectories, TRAIN_FRAMES) for case in cases[: len(train)]], cases[len(train) :]


def _kept(path: Path | None, name: str, mesh: TriangleMesh, trajectories: int, seed: int) -> Case:
    """The case from its file; simulated and written where there is none of this seed and mesh."""
    identity = {"seed": seed, "trajectories": trajectories, "mesh": _digest(mesh), "definition": DEFINITION}
    if path is not None and path.exists():
        try:
            tensors, notes = read_tensors(path)
            if notes == identity:
                scene = Scene(name, mesh.to(torch.float32), DURATION / (FRAMES - 1), Truth.SURFACE)
                return Case(scene, tensors["frames"], tensors["clean"], tensors["material"])
        except (RunFolderError, KeyError):
            path.unlink()
    case = hard_case(name, mesh, trajectories, seed)
    if path is not None and case.context is not None:
        write_tensors(path, {"frames": case.frames, "clean": case.clean, "material": case.context}, identity)
    return case


def _digest(mesh: TriangleMesh) -> str:
    points, faces = mesh.arrays
    return sha256(np.ascontiguousarray(points).tobytes() + np.ascontiguousarray(faces).tobytes()).hexdigest()


def _file(folder: Path, name: str) -> TriangleMesh:
    found = next((path for path in sorted(folder.glob(f"{name}.*")) if path.suffix in (".ply", ".obj", ".stl", ".off")), None)
    if found is None:
        raise RunFolderError(
            f"there is no mesh {name}.ply in {folder}: give the folder that holds it, or leave --data out for generated meshes"
        )
    return load_mesh(found, clean=True)
