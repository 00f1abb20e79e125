"""The list of a data folder's files with their checksums."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuralpde.files import RunFolderError, write_json
from neuralpde.mesh_data_file import digest

MANIFEST = "MANIFEST.json"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """MANIFEST.json of a folder: what each file holds, and its SHA-256.

    Args:
        folder: the data folder, with or without a manifest.
    """

    folder: Path

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.folder / MANIFEST

    def entries(self) -> dict[str, dict[str, Any]]:
        """What is listed, by the names of the files; nothing without a manifest.

        Raises:
            RunFolderError: it is damaged.
        """
        if not self.path.exists():
            return {}
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            listed: dict[str, dict[str, Any]] = content["files"]
            if content["format"] != FORMAT or not all(isinstance(entry["sha256"], str) for entry in listed.values()):
                raise ValueError("it is of another format")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunFolderError(
                f"{self.path} is damaged ({error}): delete it and run again, and its files are made anew"
            ) from error
        return listed

    def record(self, path: Path, **about: Any) -> None:
        """List a file that has just been written, or list it anew."""
        self.write(self.entries() | {path.name: {"sha256": digest(path), **about}})

    def forget(self, paths: Iterable[Path]) -> None:
        """List some files no more."""
        names = {path.name for path in paths}
        self.write({name: entry for name, entry in self.entries().items() if name not in names})

    def write(self, entries: dict[str, dict[str, Any]]) -> None:
        """Write the whole list atomically, in the order of names."""
        write_json(self.path, {"format": FORMAT, "files": dict(sorted(entries.items()))})

    def lists(self, path: Path) -> bool:
        """Whether a file is listed."""
        return path.name in self.entries()

    def fits(self, path: Path) -> bool:
        """Whether a file is there and has the listed checksum; True if it is not listed, and nothing is known."""
        entry = self.entries().get(path.name)
        return entry is None or (path.exists() and digest(path) == entry["sha256"])

    def faults(self) -> list[str]:
        """A line for each listed file that is missing or has changed."""
        found = []
        for name, entry in self.entries().items():
            path = self.folder / name
            if not path.exists():
                found.append(f"{name} is missing")
            elif digest(path) != entry["sha256"]:
                found.append(f"{name} has changed since it was made")
        return found
