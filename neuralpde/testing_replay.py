"""Counter-examples on disk: one readable JSON file each, which gives the same objects back to the last bit."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from pathlib import Path
from typing import Any

from torch import Tensor, __version__

from neuralpde.files import RunFolderError, write_atomically
from neuralpde.testing_packing import laid_out, packed, unpacked
from operators.domains import Domain

__all__ = ["ReplayError", "load_counterexample", "replay", "save_counterexample"]

FORMAT = "neuralpde counter-example, version 1"
# Of larger objects `replay` prints the shape only.
SHOWN = 200


class ReplayError(ValueError):
    """A counter-example that cannot be written or read; the text names the cause and the cure."""


def save_counterexample(folder: str | os.PathLike[str], name: str, /, **objects: Any) -> Path:
    """Write objects to `folder`/`name`.json, whole or not at all, over an earlier one of the same name; returns the path.

    So a law that saves whenever it fails leaves the last example that Hypothesis tried, which is the minimal one.

        save_counterexample(".neuralpde", "mass of Heat", domain=mesh, x=x, t=0.5)

    Numbers are decimal, as short as gives the same bits; NaN keeps its payload; tensors of more than 5,000 entries are base64.

    Args:
        name: of the law; anything but letters, digits, . _ and - becomes - in the file's name.
        objects: tensors on any device (loaded on the CPU), NumPy arrays, graphs, meshes (without their `cleaning`), point
            clouds, grids, sparse operators, dtypes, numbers, text, None, and tuples, lists and dictionaries of these. For a
            module give `module.state_dict()`.

    Raises:
        ReplayError: an object of another kind, or a folder that cannot be written.
    """
    path = Path(folder) / f"{_file_name(name)}.json"
    try:
        held = {key: packed(value, key) for key, value in objects.items()}
    except (TypeError, RecursionError) as error:
        raise ReplayError(f"cannot save {name!r}: {error}") from error
    text = laid_out({"format": FORMAT, "name": name, "torch": str(__version__), "objects": held}) + "\n"
    try:
        write_atomically(path, lambda temporary: _write(temporary, text))
    except RunFolderError as error:
        raise ReplayError(f"cannot write {path} ({error.__cause__}): choose a folder that you may write to") from error
    return path


def load_counterexample(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The objects that `save_counterexample` wrote, by name.

    Raises:
        ReplayError: there is no such file, it is damaged, or something else wrote it.
    """
    objects: dict[str, Any] = _read(path)["objects"]
    return objects


def replay(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Print what a counter-example holds, and return it as `load_counterexample` does."""
    content = _read(path)
    print(f"{content['name']} ({os.fspath(path)}, written with torch {content['torch']})")
    for name, value in content["objects"].items():
        print(f"{name} = {_shown(value)}")
    objects: dict[str, Any] = content["objects"]
    return objects


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="surrogatepass")


def _file_name(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:100] or "law"
    # Two laws must not share a file because their names differ in a space.
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The file's content with its objects unpacked."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8", errors="surrogatepass"))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ReplayError(f"{path} is no {FORMAT}: give the path that the failing law printed")
        objects = {key: unpacked(value) for key, value in content["objects"].items()}
        return {"name": str(content["name"]), "torch": str(content["torch"]), "objects": objects}
    except OSError as error:
        raise ReplayError(f"cannot read {path} ({error.strerror or error}): run the failing law again to write it") from error
    except ReplayError:
        raise
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RuntimeError,
        ArithmeticError,
        StopIteration,
        struct.error,
    ) as error:
        raise ReplayError(
            f"{path} is damaged or not a counter-example ({type(error).__name__}: {error}): run the failing law again to write it"
        ) from error


def _shown(value: Any) -> str:
    """A tensor with its numbers, a domain with its tensors, as long as they are few."""
    if isinstance(value, Tensor):
        head = f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
        return f"{head} {value.tolist()}" if value.numel() <= SHOWN else head
    if isinstance(value, Domain):
        parts = {key: part for key, part in vars(value).items() if isinstance(part, Tensor)}
        return repr(value) + "".join(f"\n    {key} = {_shown(part)}" for key, part in parts.items())
    if isinstance(value, (tuple, list)) and any(isinstance(item, (Tensor, Domain)) for item in value):
        return "".join(f"\n  [{k}] {_shown(item)}" for k, item in enumerate(value))
    return repr(value)
