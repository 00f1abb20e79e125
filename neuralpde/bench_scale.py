"""`neuralpde bench scale`: from a mesh file to the gradient of an implicit step, at growing sizes, with peak memory."""

from __future__ import annotations

import math
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from integrators import BackwardEuler, integrate
from neuralpde.bench import Row, machine, write_rows
from neuralpde.files import RunFolderError
from neuralpde.heat import Heat
from operators import bumpy, load_mesh, robust_laplacian, torus

STAGES = ("load and validate", "robust Laplacian", "factor and step", "gradient")


@dataclass(frozen=True)
class ScaleBench:
    """The settings of `neuralpde bench scale`."""

    json: Path | None = None
    """Also write the rows to this file."""
    vertices: tuple[int, ...] = (62_500, 250_000, 1_000_000)
    """Sizes of the bumpy torus, each measured in a process of its own."""
    threads: int = 1
    """Torch threads."""

    def __post_init__(self) -> None:
        if not self.vertices or min(self.vertices) < 64:
            raise RunFolderError(f"--vertices must name sizes of at least 64, not {self.vertices}")


@dataclass(frozen=True)
class Scale:
    """What one size took: seconds by stage, and the peak of resident memory in GiB of the whole process."""

    vertices: int
    seconds: tuple[float, ...]
    peak: float
    idle: float
    """The part of the peak that the process held before it loaded the mesh."""


def bench_scale(settings: ScaleBench) -> list[Row]:
    """Measure every size, print the table, write the JSON, and return the rows."""
    console = Console()
    table = Table(title="One process from file to gradient", box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
    for column in ("vertices", *(f"{stage}, s" for stage in STAGES), "peak, GiB", "kB per vertex"):
        # Words wrap on a narrow terminal, numbers are never cut.
        table.add_column(column.replace(" ", "\n"), justify="right", no_wrap=True)
    rows = []
    with TemporaryDirectory() as folder:
        for vertices in settings.vertices:
            with console.status(f"{vertices:,} vertices"):
                scale = _in_a_process(Path(folder) / "torus.ply", vertices, settings.threads)
            each = (scale.peak - scale.idle) * 2**20 / scale.vertices
            table.add_row(f"{scale.vertices:,}", *(f"{s:.1f}" for s in scale.seconds), f"{scale.peak:.2f}", f"{each:.1f}")
            name = f"{scale.vertices} vertices"
            rows += [Row("scale", name, stage, s, "s") for stage, s in zip(STAGES, scale.seconds, strict=True)]
            rows.append(Row("scale", name, "peak", scale.peak, "GiB"))
            rows.append(Row("scale", name, "peak per vertex", each, "kB", note="beyond what the process held at its start"))
    table.caption = "kB per vertex: beyond what the process held at its start"
    console.print(table)
    console.print(machine())
    if settings.json is not None:
        write_rows(settings.json, rows)
    return rows


def _in_a_process(path: Path, vertices: int, threads: int) -> Scale:
    # The peak belongs to a process, so each size needs a fresh one; the mesh is made outside of it.
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            pool.submit(_make, path, vertices).result()
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(measure, path, threads).result()
    except BrokenProcessPool as error:
        raise RunFolderError(f"the process with {vertices:,} vertices was killed: out of memory?") from error


def _make(path: Path, vertices: int) -> None:
    across = round(math.sqrt(0.64 * vertices))
    bumpy(torus(round(vertices / across), across)).save(path)


def measure(path: Path, threads: int = 1) -> Scale:
    """Load, validate, build the robust Laplacian, factor, take one implicit step of heat and its gradient."""
    torch.set_num_threads(threads)
    idle = _peak()
    marks = [time.perf_counter()]
    mesh = load_mesh(path)
    marks.append(time.perf_counter())
    heat = Heat(robust_laplacian(mesh))
    marks.append(time.perf_counter())
    start = mesh.vertices[:, :1].clone().requires_grad_()
    step = 0.001 * mesh.area
    solution = integrate(heat, start, [0.0, step], BackwardEuler(dt=step))
    marks.append(time.perf_counter())
    (slope,) = torch.autograd.grad(solution.x[-1].square().sum(), start)
    marks.append(time.perf_counter())
    if not bool(torch.isfinite(slope).all()):
        raise RunFolderError(f"the gradient on {path} is not finite")
    seconds = tuple(after - before for before, after in pairwise(marks))
    return Scale(mesh.num_nodes, seconds, _peak(), idle)


def _peak() -> float:
    # Linux counts in kilobytes, macOS in bytes.
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
