"""What the user can set about the main job, and the run folder that remembers it."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from neuralpde.files import RunFolderError, write_json
from neuralpde.heat_data import Truth


@dataclass(frozen=True)
class HeatSettings:
    """The settings of `neuralpde run heat`; the text under each is its help."""

    train_mesh: tuple[Path, ...] = ()
    """Surfaces to train on (.ply, .obj, .off, .stl, .vtk, .vtu, .vtp), several after one flag."""
    test_mesh: tuple[Path, ...] = ()
    """Surfaces to roll out on; none of them is trained on."""
    clean: bool = False
    """Repair the mesh files first: weld coincident vertices, drop degenerate and duplicate faces."""
    truth: Truth = Truth.SURFACE
    """surface: the surface's heat equation M u_t = -C u, solved implicitly. published: MeshPDE's explicit scheme."""
    out: Path = Path("runs/heat")
    """The run folder."""
    json: Path | None = None
    """Also write the table's rows to this file."""
    resume: bool = False
    """Continue the run in OUT with its own settings; the weights will be those of an uninterrupted run."""
    steps: int = 400
    """Training steps of each model."""
    batch: int = 4
    """Windows of three frames in each training step."""
    seed: int = 0
    """Seed of surfaces, starting fields, weights and batches."""
    threads: int = 1
    """Torch threads. Results are reproducible bit for bit only at one and the same number."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "threads"):
            if getattr(self, name) < 1:
                raise RunFolderError(f"--{name} must be at least 1, not {getattr(self, name)}")
        if bool(self.train_mesh) != bool(self.test_mesh):
            missing = "--test-mesh" if self.train_mesh else "--train-mesh"
            raise RunFolderError(f"{missing} is missing: give surfaces to train on and others to test on, or neither")
        both = {path.resolve() for path in self.train_mesh} & {path.resolve() for path in self.test_mesh}
        if both:
            raise RunFolderError(f"{min(both)} is both trained and tested on: a surface the model has seen is no test")


# What may differ between the sessions of one run.
_SESSION = {"out", "json", "resume"}
_MESHES = ("train_mesh", "test_mesh")


def open_run(settings: HeatSettings) -> HeatSettings:
    """Check that a run can start in its folder, or read the settings of the run to resume. Writes nothing.

    Raises:
        RunFolderError: a folder in use by another run, one that cannot be written, nothing to resume, or settings that
            contradict those the run was started with.
    """
    path = settings.out / "config.json"
    if settings.json is not None and not os.access(settings.json.resolve().parent, os.W_OK):
        raise RunFolderError(f"cannot write {settings.json}: its folder is missing or read-only; choose another --json")
    if not settings.resume:
        if path.exists():
            raise RunFolderError(
                f"{settings.out} already holds a run: continue it with --resume, or choose another folder with --out"
            )
        if settings.out.exists() and (not settings.out.is_dir() or any(settings.out.iterdir())):
            raise RunFolderError(f"{settings.out} exists and is not an empty folder: choose another with --out")
        return settings
    if not path.is_file():
        raise RunFolderError(f"there is no run to resume in {settings.out} (no config.json): start it without --resume")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        started, digests = _from_json(stored, settings), dict(stored["mesh_sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path} is damaged ({error}): start a new run in another folder") from error
    for field in fields(settings):
        given = getattr(settings, field.name)
        if field.name in _MESHES:
            given = tuple(path.resolve() for path in given)
        if field.name not in _SESSION and given not in (field.default, getattr(started, field.name)):
            raise RunFolderError(
                f"this run was started with {field.name} = {stored[field.name]}, not {given}: resume without that option, "
                "or start another run"
            )
    for mesh, digest in digests.items():
        if not Path(mesh).is_file() or _digest(Path(mesh)) != digest:
            raise RunFolderError(f"{mesh} is gone or has changed since the run was started: restore it, or start anew")
    return started


def record_run(settings: HeatSettings) -> None:
    """Write the settings into a new run's folder; sweep up what a kill left in one that is resumed."""
    if not settings.resume:
        write_json(settings.out / "config.json", _as_json(settings))
    for left_over in settings.out.rglob(".*.tmp"):
        left_over.unlink()


def _as_json(settings: HeatSettings) -> dict[str, Any]:
    content = {name: value for name, value in asdict(settings).items() if name not in _SESSION}
    meshes = {name: [str(path.resolve()) for path in content[name]] for name in _MESHES}
    digests = {path: _digest(Path(path)) for paths in meshes.values() for path in paths}
    return {**content, **meshes, "truth": settings.truth.value, "mesh_sha256": digests}


def _from_json(stored: dict[str, Any], settings: HeatSettings) -> HeatSettings:
    session = {name: getattr(settings, name) for name in _SESSION}
    meshes = {name: tuple(map(Path, stored[name])) for name in _MESHES}
    rest = {field.name: stored[field.name] for field in fields(settings) if field.name not in _SESSION | set(meshes)}
    return HeatSettings(**{**rest, **meshes, **session, "truth": Truth(stored["truth"])})


def _digest(path: Path) -> str:
    if not path.exists():
        raise RunFolderError(f"there is no mesh file {path}: check the path")
    if path.is_dir():
        raise RunFolderError(f"{path} is a folder: name the mesh files in it")
    return hashlib.sha256(path.read_bytes()).hexdigest()
