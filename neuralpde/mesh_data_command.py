"""`neuralpde data meshpde`: the trajectories of MeshPDE's equations as files, made in parallel and checked."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from neuralpde.files import RunFolderError
from neuralpde.heat_data import TEST_CONDITIONS, Truth
from neuralpde.mesh_data import Part, about, kept, make, parts
from neuralpde.mesh_data_file import DataFormat
from neuralpde.mesh_manifest import MANIFEST, Manifest
from neuralpde.mesh_pde import Pde


@dataclass(frozen=True)
class MeshDataSettings:
    """The settings of `neuralpde data meshpde`; the text under each is its help."""

    pde: tuple[Pde, ...] = tuple(Pde)
    """The equations, several after one flag."""
    truth: tuple[Truth, ...] = (Truth.PUBLISHED, Truth.SURFACE)
    """published: MeshPDE's schemes. surface: the equations of the surface, solved accurately."""
    meshes: Path | None = None
    """A folder with the meshes by their names (sphere.ply, ...); without it bumpy spheres and tori are made on the spot."""
    out: Path = Path("data/meshpde")
    """The data folder. What is finished there is checked and kept, so that a killed run continues where it was."""
    format: DataFormat = DataFormat.SAFETENSORS
    """How each file is kept; zarr needs the extra `weather`."""
    seed: int = 0
    """Of starting fields and generated meshes."""
    conditions: int = TEST_CONDITIONS
    """Starting fields a mesh."""
    workers: int = 1
    """Processes. The files are the same, bit for bit, with any number."""
    verify: bool = False
    """Only compare the files of OUT with their checksums, and say which differ."""

    def __post_init__(self) -> None:
        for name in ("conditions", "workers"):
            if getattr(self, name) < 1:
                raise RunFolderError(f"--{name} must be at least 1, not {getattr(self, name)}")
        if self.seed < 0:
            raise RunFolderError(f"--seed must not be negative, not {self.seed}")
        for name in ("pde", "truth"):
            if not getattr(self, name):
                raise RunFolderError(f"--{name} needs at least one value")


def make_mesh_data(settings: MeshDataSettings, console: Console | None = None) -> list[Path]:
    """Simulate what is not there yet, or with `verify` look at what is; returns the files.

    Args:
        console: where the summary goes; standard output if absent. Progress goes to standard error.

    Raises:
        RunFolderError: a folder that cannot be used, a mesh that is missing, files that have changed (with `verify`), files of
            other settings, or a worker that died.
    """
    console = console or Console()
    manifest = Manifest(settings.out)
    if settings.verify:
        return _verified(manifest, console)
    settings.format.file.check()
    beside = Console(stderr=True)
    said: list[str] = []
    wanted = {
        settings.out / (part.stem + settings.format.file.suffix): part
        for pde in dict.fromkeys(settings.pde)
        for truth in dict.fromkeys(settings.truth)
        for part in parts(pde.equation, truth, settings.meshes, settings.seed, settings.conditions, said.append)
    }
    _check(settings.out, {path.name for path in wanted})
    for text in dict.fromkeys(said):
        beside.print(text, soft_wrap=True)
    _make_folder(settings.out)
    todo = _todo(wanted, manifest, beside)
    with _progress(beside) as progress:
        task = progress.add_task("simulating", total=len(wanted), completed=len(wanted) - len(todo), note="")
        for path in _made(todo, settings.workers):
            manifest.record(path, **about(wanted[path]))
            progress.update(task, advance=1, note=path.stem)
    size = sum(inner.stat().st_size for path in wanted for inner in (path, *path.rglob("*")) if inner.is_file())
    console.print(
        f"{len(wanted)} files in {settings.out}, {size / 1e6:.1f} MB: {len(todo)} made, {len(wanted) - len(todo)} kept; "
        f"checksums in {MANIFEST}",
        soft_wrap=True,
    )
    return list(wanted)


def _verified(manifest: Manifest, console: Console) -> list[Path]:
    if not manifest.path.exists():
        raise RunFolderError(f"there is no {MANIFEST} in {manifest.folder}: name a folder that this command has made with --out")
    faults = manifest.faults()
    if faults:
        raise RunFolderError(
            f"{manifest.folder}: {'; '.join(faults)}. Run the command that made it again without --verify, and they are made anew"
        )
    entries = manifest.entries()
    console.print(f"{len(entries)} files in {manifest.folder} are as they were made", soft_wrap=True)
    return [manifest.folder / name for name in entries]


def _check(out: Path, ours: set[str]) -> None:
    """Refuse a folder of somebody else's, before anything is computed."""
    if out.exists() and not out.is_dir():
        raise RunFolderError(f"{out} is not a folder: choose another with --out")
    if out.exists() and not (out / MANIFEST).exists() and {path.name for path in out.iterdir()} - ours:
        raise RunFolderError(f"{out} holds other things and no {MANIFEST}: choose an empty or new folder with --out")


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        for left_over in (*out.glob(".*.tmp"), *out.glob(".*.old")):
            if left_over.is_dir():
                shutil.rmtree(left_over)
            else:
                left_over.unlink()
    except OSError as error:
        raise RunFolderError(f"cannot use {out} ({error.strerror}): choose another folder with --out") from error
    manifest = Manifest(out)
    # Also proves that the folder can be written, and marks it as ours.
    manifest.write(manifest.entries())


def _todo(wanted: dict[Path, Part], manifest: Manifest, console: Console) -> dict[Path, Part]:
    """What is to be made: all but what is listed, there, unchanged and of these settings."""
    todo = {}
    for path, part in wanted.items():
        listed = manifest.lists(path)
        if listed and kept(part, path) is not None:
            continue
        if listed:
            console.print(f"{path.name} is missing or has changed since it was made: it is made anew", soft_wrap=True)
        todo[path] = part
    # What a worker makes is not listed then, so that this process alone writes the list.
    manifest.forget(todo)
    return todo


def _made(todo: dict[Path, Part], workers: int) -> Iterator[Path]:
    """Each path as it is finished."""
    # Large meshes first, so that no worker is left alone with one at the end.
    order = sorted(todo, key=lambda path: -todo[path].mesh.num_nodes)
    if workers == 1 or len(todo) < 2:
        for path in order:
            yield _work(todo[path], path)
        return
    with _pool(min(workers, len(todo))) as pool:
        # As bytes: torch would move the tensors of a part to shared memory, from under the arrays of its mesh.
        for finished in as_completed([pool.submit(_work_on, pickle.dumps(todo[path]), path) for path in order]):
            yield _result(finished)


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """New processes, which share no threads or locks with this one; what waits is dropped where something fails."""
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _result(finished: Future[Path]) -> Path:
    try:
        return finished.result()
    except BrokenProcessPool as error:
        raise RunFolderError(
            "a worker died, perhaps for want of memory: what is finished is kept; run again with fewer --workers"
        ) from error


def _work(part: Part, path: Path) -> Path:
    """Simulate a part and write it."""
    make(part, path)
    return path


def _work_on(part: bytes, path: Path) -> Path:
    """What a worker does."""
    return _work(pickle.loads(part), path)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )
