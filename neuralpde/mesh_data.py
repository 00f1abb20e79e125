"""The trajectories of an equation on its meshes, simulated once and read ever after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from neuralpde.files import RunFolderError
from neuralpde.heat_data import FRAMES, TEST_CONDITIONS, Truth
from neuralpde.mesh_case import Case
from neuralpde.mesh_data_file import file_of
from neuralpde.mesh_equation import SUBSTITUTE, MeshEquation
from neuralpde.mesh_manifest import Manifest
from neuralpde.mesh_pde import Pde
from operators import TriangleMesh, bumpy, icosphere, load_mesh, torus

FORMAT = 1
# Test meshes start from other random numbers than meshes that are trained on.
TEST_SEED = 1000
# Starting fields stand on up to six vertices, all different.
FEWEST = 6
SUFFIXES = (".ply", ".obj", ".off", ".stl", ".vtk", ".vtu", ".vtp")

Meshes = dict[str, TriangleMesh]
Said = Callable[[str], None]


def _silent(text: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Part:
    """One file of data: an equation with a truth on a mesh.

    Args:
        mesh: in float64, as it is simulated.
        test: whether it is a mesh to test on; the seed of its starting fields is then another.
        conditions: the number of starting fields.
    """

    equation: MeshEquation
    truth: Truth
    name: str
    mesh: TriangleMesh
    test: bool
    seed: int
    conditions: int = TEST_CONDITIONS

    @property
    def stem(self) -> str:
        """The name of its file, without the ending."""
        return f"{self.equation.name}-{self.truth.value}-{self.name}"

    def notes(self) -> dict[str, Any]:
        """Everything the frames depend on; equal notes are equal frames, with equal versions."""
        return {
            "format": FORMAT,
            "equation": self.equation.name,
            "settings": repr(self.equation),
            "truth": self.truth.value,
            "mesh": self.name,
            "mesh_sha256": mesh_digest(self.mesh),
            "role": "test" if self.test else "train",
            "seed": self.seed,
            "conditions": self.conditions,
            "frames": FRAMES,
        }

    def simulate(self) -> tuple[Case, dict[str, Any]]:
        """The case, and its notes with the numbers of the equation and the versions that made it."""
        if self.mesh.num_nodes < FEWEST:
            raise RunFolderError(
                f"{self.stem}: a mesh of {self.mesh.num_nodes} vertices cannot hold the starting fields: take {FEWEST} or more"
            )
        threads = torch.get_num_threads()
        # One thread: sums then come in one and the same order on every machine.
        torch.set_num_threads(1)
        try:
            equation, mesh = self.equation, self.mesh
            dt = equation.time_step(self.name, mesh, self.truth)
            start = equation.initial_fields(mesh, self.truth, self.conditions, self.seed + TEST_SEED * self.test)
            frames = equation.simulate(mesh, self.truth, dt, start).float()
        finally:
            torch.set_num_threads(threads)
        if not bool(torch.isfinite(frames).all()):
            raise RunFolderError(
                f"{self.stem}: the simulation left the numbers of float32 with dt = {dt:g}; the mesh may be degenerate: look at "
                "mesh.report(), and clean it"
            )
        made = {"neuralpde": version("neuralpde-toolkit"), "torch": str(torch.__version__)}
        more = {"dt": dt, "parameters": equation.parameters(mesh, self.truth, dt), "versions": made}
        return Case(equation.scene(self.name, mesh, dt, self.truth), frames, frames), self.notes() | more


def cases(
    equation: MeshEquation,
    truth: Truth,
    meshes: Path | None = None,
    cache: Path | None = None,
    seed: int = 0,
    conditions: int = TEST_CONDITIONS,
    said: Said = _silent,
) -> tuple[list[Case], list[Case]]:
    """The training and test cases of an equation, each with FRAMES frames of all conditions, in float32.

    Training takes `case.first(TRAIN_CONDITIONS, TRAIN_FRAMES)` of the first list.

    Args:
        meshes: a folder with the meshes of the equation by their names, `name_sub` standing in for a `name` that is not there;
            without one, bumpy spheres and tori are made on the spot.
        cache: a folder in which finished simulations are kept, such as that of `neuralpde data meshpde`.
        seed: of starting fields and generated meshes.
        said: told, in a sentence, of each mesh that is missing, and of each that is done.

    Raises:
        RunFolderError: no mesh to train on, or none to test on.
    """
    return simulated(parts(equation, truth, meshes, seed, conditions, said), cache, said)


def simulated(found: Sequence[Part], cache: Path | None = None, said: Said = _silent) -> tuple[list[Case], list[Case]]:
    """The training and the test cases of `parts`; arguments as for `cases`."""
    train: list[Case] = []
    test: list[Case] = []
    for part in found:
        case = made(part, cache)
        said(f"{part.stem}: {part.mesh.num_nodes} vertices, dt = {case.scene.dt:g}")
        (test if part.test else train).append(case)
    return train, test


def parts(
    equation: MeshEquation, truth: Truth, meshes: Path | None, seed: int, conditions: int = TEST_CONDITIONS, said: Said = _silent
) -> list[Part]:
    """The files of an equation, training meshes first; arguments and errors as for `cases`."""
    if conditions < 1:
        raise RunFolderError(f"there must be at least one starting field a mesh, not {conditions}")
    groups = generated_meshes(seed) if meshes is None else named_meshes(equation, meshes, said)
    return [
        Part(equation, truth, name, mesh, test, seed, conditions)
        for test, group in zip((False, True), groups, strict=True)
        for name, mesh in group.items()
    ]


def made(part: Part, cache: Path | None) -> Case:
    """A case from its cache, or simulated and kept there; what is damaged is made anew."""
    if cache is None:
        return part.simulate()[0]
    path = cache / f"{part.stem}.safetensors"
    return kept(part, path) or make(part, path)


def kept(part: Part, path: Path) -> Case | None:
    """What a file holds of a part; None if it is not there or damaged, or is of other settings and in no manifest.

    Raises:
        RunFolderError: a file in a manifest that is of other settings: it is somebody's data.
    """
    try:
        case, notes = _read(path)
    except (FileNotFoundError, RunFolderError):
        return None
    if notes == notes | part.notes():
        return case
    if Manifest(path.parent).lists(path):
        raise RunFolderError(f"{path} was made with other settings, meshes or seed: give those, or choose another folder")
    return None


def make(part: Part, path: Path) -> Case:
    """Simulate a part and write it as `path`, whose ending says how; a manifest that lists it is brought up to date."""
    case, notes = part.simulate()
    points, faces = (torch.from_numpy(array) for array in part.mesh.arrays)
    file_of(path).write(path, {"vertices": points, "faces": faces, "frames": case.frames}, notes)
    manifest = Manifest(path.parent)
    if manifest.lists(path):
        manifest.record(path, **about(part))
    return case


def about(part: Part) -> dict[str, Any]:
    """What a manifest says of a part beside its checksum."""
    keys = ("equation", "truth", "mesh", "role", "seed", "conditions")
    return {key: value for key, value in part.notes().items() if key in keys}


def read_case(path: Path) -> Case:
    """A case from a file of `neuralpde data meshpde`, checked against the manifest beside it.

    Raises:
        FileNotFoundError: no such file. RunFolderError: a damaged or foreign file, or one that has changed since it was made.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[Case, dict[str, Any]]:
    if path.exists() and not Manifest(path.parent).fits(path):
        raise RunFolderError(
            f"{path} has changed since it was made: its checksum is not the one in the manifest. Run the same `neuralpde data "
            "meshpde` again, and it is made anew"
        )
    tensors, notes = file_of(path).read(path)
    return _case(tensors, notes, path), notes


def _case(tensors: dict[str, torch.Tensor], notes: dict[str, Any], path: Path) -> Case:
    try:
        mesh = TriangleMesh(tensors["vertices"], tensors["faces"])
        equation = Pde(notes["equation"]).equation
        scene = equation.scene(str(notes["mesh"]), mesh, float(notes["dt"]), Truth(notes["truth"]))
        frames = tensors["frames"]
        if frames.ndim != 4 or frames.shape[1:] != (FRAMES, mesh.num_nodes, 1):
            raise ValueError(f"frames of shape {tuple(frames.shape)}")
    except (KeyError, ValueError, TypeError) as error:
        raise RunFolderError(f"{path} holds no case of MeshPDE ({error}): delete it, and it is simulated anew") from error
    return Case(scene, frames, frames)


def named_meshes(equation: MeshEquation, folder: Path, said: Said = _silent) -> tuple[Meshes, Meshes]:
    """The meshes to train on and to test on that a folder holds, by name.

    Raises:
        RunFolderError: no mesh to train on, or none to test on; the text says what to put where.
    """
    if not folder.is_dir():
        raise RunFolderError(f"there is no folder {folder}: name one that holds meshes such as {equation.train_meshes[0]}.ply")
    groups = []
    for role, names in (("train", equation.train_meshes), ("test", equation.test_meshes)):
        paths = {name: _file(folder, name) for name in names}
        group = {path.stem: load_mesh(path) for path in paths.values() if path is not None}
        missing = ", ".join(name for name, path in paths.items() if path is None)
        if not group:
            raise RunFolderError(f"{folder} holds no mesh to {role} {equation.name} on: put one of {missing} there, as .ply")
        if missing:
            said(f"{folder} does not hold {missing} (to {role} on): the others are used")
        groups.append(group)
    return groups[0], groups[1]


def _file(folder: Path, name: str) -> Path | None:
    candidates = [folder / (stem + suffix) for stem in (name, name + SUBSTITUTE) for suffix in SUFFIXES]
    return next((path for path in candidates if path.is_file()), None)


def generated_meshes(seed: int) -> tuple[Meshes, Meshes]:
    """Bumpy spheres and a torus to train on, others to test on: those of the main job with the same seed."""
    train = {
        "bumpy-sphere": bumpy(icosphere(3), 0.2, seed=10 * seed),
        "bumpy-torus": bumpy(torus(40, 16), 0.15, seed=10 * seed + 1),
        "smooth-sphere": icosphere(2),
    }
    test = {
        "unseen-sphere": bumpy(icosphere(3, radius=2.0), 0.35, bumps=9, seed=10 * seed + 2),
        "unseen-torus": bumpy(torus(56, 22, radius=1.0, tube=0.45), 0.25, seed=10 * seed + 3),
    }
    return train, test


def mesh_digest(mesh: TriangleMesh) -> str:
    """SHA-256 of vertices and faces."""
    digest = sha256()
    for array in mesh.arrays:
        digest.update(repr(array.shape).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
