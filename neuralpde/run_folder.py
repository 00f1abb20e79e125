"""A folder in which a reproduction keeps what it has finished, so that nothing is computed twice."""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from neuralpde.bench import machine
from neuralpde.files import RunFolderError, write_json


@dataclass(frozen=True)
class RunFolder:
    """Finished parts of a run, each a JSON file, and its table.

    Args:
        path: the folder.
        resume: continue what is there; else the folder must be empty or absent.
        json: where the table's rows go besides.
        threads: torch threads: results are the same bit for bit only at one and the same number.
    """

    path: Path
    resume: bool = False
    json: Path | None = None
    threads: int = 1

    def check(self) -> None:
        """Raise RunFolderError where a run cannot start or continue. Writes nothing."""
        if self.json is not None and self.json.is_dir():
            raise RunFolderError(f"{self.json} is a folder: give --json the name of a file")
        if self.json is not None and not os.access(self.json.resolve().parent, os.W_OK):
            raise RunFolderError(f"cannot write {self.json}: its folder is missing or read-only; choose another --json")
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError(f"{self.path} is not a folder: choose another with --out")
        if not self.resume and self.path.exists() and any(self.path.iterdir()):
            raise RunFolderError(f"{self.path} already holds a run: continue it with --resume, or choose another with --out")
        if self.resume and not self.parts.is_dir():
            raise RunFolderError(f"there is no run to resume in {self.path}: start it without --resume")

    def make(self) -> None:
        """Make the folder: what cannot be written should not be known only after an hour."""
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(f"cannot make {self.path} ({error.strerror}): choose another folder with --out") from error

    @property
    def parts(self) -> Path:
        """Where the finished parts are."""
        return self.path / "seeds"

    def kept(self, part: str, identity: str) -> dict[str, Any] | None:
        """What was kept as `part`, or None.

        Args:
            identity: everything that the part depends on, as text.

        Raises:
            RunFolderError: it is damaged, or was made with other settings, another version or another number of threads.
        """
        path = self.parts / f"{part}.json"
        if not path.exists():
            return None
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            found, result = dict(held["circumstances"]), dict(held["result"])
        except (ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{path} is damaged ({error}): delete it and resume, and it is computed anew") from error
        now = self._circumstances(identity)
        if found.get("identity") != now["identity"]:
            raise RunFolderError(
                f"{path} was made with other settings or data: give the same options, or choose another folder with --out"
            )
        for name, value in now.items():
            if found.get(name) != value:
                raise RunFolderError(
                    f"{path} was made with {name} {found.get(name)}, not {value}, and one table is of one kind: "
                    f"go on with {name} {found.get(name)}, or choose another folder with --out"
                )
        return result

    def keep(self, part: str, identity: str, result: Mapping[str, Any]) -> None:
        """Write a finished part atomically."""
        record = {"circumstances": self._circumstances(identity), "of": identity, "result": dict(result)}
        write_json(self.parts / f"{part}.json", record)

    def _circumstances(self, identity: str) -> dict[str, Any]:
        digest = sha256(identity.encode()).hexdigest()
        return {"identity": digest, "version": version("neuralpde-toolkit"), "threads": self.threads}

    def finish(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the table's rows with the command, version and machine that made them."""
        made = {"command": ["neuralpde", *sys.argv[1:]], "version": version("neuralpde-toolkit"), "device": machine()}
        for path in [self.path / "table.json", *([self.json] if self.json else [])]:
            write_json(path, {**made, "rows": list(rows)})


def row(table: str, method: str, metric: str, values: Sequence[float], unit: str, **more: Any) -> dict[str, Any]:
    """One number of a table: the mean and standard deviation of the values of all seeds."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    summary = {"value": statistics.fmean(values), "std": spread, "n": len(values), "unit": unit}
    return {"table": table, "method": method, "metric": metric, **summary, **more}
