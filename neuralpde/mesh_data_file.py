"""The files of MeshPDE's data: tensors and notes in one, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from abc import ABC, abstractmethod
from contextlib import suppress
from enum import Enum
from hashlib import file_digest, sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from neuralpde.files import RunFolderError, read_tensors, write_tensors

AXES = {
    "vertices": ("vertex", "xyz"),
    "faces": ("face", "corner"),
    "frames": ("condition", "time", "vertex", "channel"),
}


class DataFile(ABC):
    """A way to keep tensors with JSON notes as one file or folder."""

    suffix: str

    def check(self) -> None:  # noqa: B027 (most need nothing)
        """Raise RunFolderError where it cannot be used on this machine."""

    @abstractmethod
    def write(self, path: Path, tensors: dict[str, Tensor], notes: dict[str, Any]) -> None:
        """Write atomically: after a kill the file is there whole, or not there."""

    @abstractmethod
    def read(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `write` wrote. Raises RunFolderError where it is damaged or foreign."""


class SafetensorsFile(DataFile):
    """One safetensors file, with the notes as JSON in its header."""

    suffix = ".safetensors"

    def write(self, path: Path, tensors: dict[str, Tensor], notes: dict[str, Any]) -> None:
        write_tensors(path, tensors, notes)

    def read(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return read_tensors(path)


class ZarrFile(DataFile):
    """A zarr group of arrays with named axes, with the notes as attributes: `xarray.open_zarr(path)` reads it."""

    suffix = ".zarr"

    def check(self) -> None:
        _zarr()

    def write(self, path: Path, tensors: dict[str, Tensor], notes: dict[str, Any]) -> None:
        zarr = _zarr()
        temporary, old = (path.with_name(f".{path.name}.{os.getpid()}.{kind}") for kind in ("tmp", "old"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            group = zarr.open_group(str(temporary), mode="w", zarr_format=2)
            for name, tensor in tensors.items():
                array = tensor.detach().cpu().numpy()
                made = group.create_array(name, data=array, chunks=_chunks(array.shape), config={"write_empty_chunks": True})
                # What xarray looks for in zarr's second format.
                made.attrs["_ARRAY_DIMENSIONS"] = list(AXES[name])
            group.attrs["notes"] = json.dumps(notes)
            zarr.consolidate_metadata(str(temporary))
            if path.exists():
                os.replace(path, old)
            try:
                os.replace(temporary, path)
            except OSError:
                with suppress(OSError):
                    os.replace(old, path)
                raise
        except OSError as error:
            raise RunFolderError(f"cannot write {path}: {error.strerror or error}; choose another folder with --out") from error
        finally:
            for left_over in (temporary, old):
                with suppress(OSError):
                    shutil.rmtree(left_over)

    def read(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        if not path.exists():
            raise FileNotFoundError(f"there is no data at {path}: check the path")
        zarr = _zarr()
        try:
            group = zarr.open_group(str(path), mode="r")
            notes = json.loads(str(group.attrs["notes"]))
            # A chunk that is not there would be read as zeros.
            lost = [name for name in AXES if group[name].nchunks_initialized < group[name].nchunks]
            if lost:
                raise ValueError(f"a part of {lost[0]} is missing")
            return {name: torch.from_numpy(group[name][...]) for name in AXES}, notes
        except (KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
            raise RunFolderError(
                f"{path} is damaged or not a file of this program ({error}): delete it and run again, and it is made anew"
            ) from error


class DataFormat(Enum):
    """How data are kept; `DataFormat.ZARR.file` reads and writes it."""

    SAFETENSORS = "safetensors"
    ZARR = "zarr"

    @property
    def file(self) -> DataFile:
        """The reader and writer."""
        return ZarrFile() if self is DataFormat.ZARR else SafetensorsFile()


def file_of(path: Path) -> DataFile:
    """The reader of a path, by its ending."""
    return ZarrFile() if path.suffix == ZarrFile.suffix else SafetensorsFile()


def digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files in a folder."""
    if path.is_file():
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    total = sha256()
    for inner in sorted(inner for inner in path.rglob("*") if inner.is_file()):
        total.update(f"{inner.relative_to(path).as_posix()} {digest(inner)}\n".encode())
    return total.hexdigest()


def _chunks(shape: tuple[int, ...]) -> tuple[int, ...]:
    """One trajectory a chunk; points and faces whole."""
    return (1, *shape[1:]) if len(shape) == 4 else shape


def _zarr() -> ModuleType:
    try:
        import zarr
    except ImportError as error:
        raise RunFolderError("zarr is not installed: pip install 'neuralpde-toolkit[weather]', or use safetensors") from error
    found: ModuleType = zarr
    return found
