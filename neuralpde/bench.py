"""Timing alternatives beside each other, and the rows that come of it."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from neuralpde.files import write_json


@dataclass(frozen=True)
class Row:
    """One measured number; `value` is None where the alternative cannot do it, and `note` says why."""

    table: str
    method: str
    metric: str
    value: float | None
    unit: str
    baseline: str | None = None
    n: int | None = None
    note: str | None = None


def interleaved(
    candidates: Mapping[str, Callable[[], object]], repeats: int, title: str, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """The median seconds of each candidate by the clock, run in turns so that a busy machine slows all of them alike.

    In each turn a candidate runs twice and the second run counts: the first finds the memory as another candidate left it,
    and fetching fresh pages from the system would drown what is measured. In a loop, as in a solver, memory is warm.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    # Not on the screen while it measures: the bar's own thread would be measured too.
    with Progress(console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task(title, total=repeats)
        for _ in range(repeats):
            for name, candidate in candidates.items():
                candidate()
                start = clock()
                candidate()
                seconds[name].append(clock() - start)
            bar.advance(task)
            bar.refresh()
    return {name: statistics.median(values) for name, values in seconds.items()}


def machine() -> str:
    """What the numbers were measured on, in words."""
    return f"{platform.machine()} CPU, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads, torch {torch.__version__}"


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write the rows as JSON, atomically."""
    record: dict[str, Any] = {
        "command": ["neuralpde", *sys.argv[1:]],
        "version": version("neuralpde-toolkit"),
        "device": machine(),
        "rows": [{key: value for key, value in asdict(row).items() if value is not None or key == "value"} for row in rows],
    }
    write_json(path, record)
