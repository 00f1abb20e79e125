"""Writing that never leaves half a file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


class RunFolderError(RuntimeError):
    """An output folder or a file in it that cannot be used; the text names the cause and the cure."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        # safetensors makes files that only their owner can read; a run folder is for sharing.
        temporary.chmod(0o644)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror or error}; choose another folder with --out") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    write_atomically(path, lambda temporary: _write_text(temporary, json.dumps(content, indent=2) + "\n"))


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    """Write JSON lines atomically."""
    text = "".join(json.dumps(record) + "\n" for record in records)
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: dict[str, Tensor], notes: dict[str, Any]) -> None:
    """Write tensors and JSON notes as one safetensors file, atomically: the two can never disagree."""
    prepared = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"notes": json.dumps(notes)}
    write_atomically(path, lambda temporary: save_file(prepared, temporary, metadata))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises:
        FileNotFoundError: no such file. RunFolderError: a damaged or foreign file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}: check the path, or start a run that writes it")
    try:
        with safe_open(path, framework="pt") as file:
            notes = json.loads((file.metadata() or {})["notes"])
            return {name: file.get_tensor(name) for name in file.keys()}, notes  # noqa: SIM118 (not a dict)
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunFolderError(
            f"{path} is damaged or not a file of this program ({error}): delete it and resume, and that part is computed anew"
        ) from error
