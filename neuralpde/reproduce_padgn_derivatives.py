"""`neuralpde reproduce padgn-derivatives`: directional derivatives at scattered points, Tables 1 and 9 of PA-DGN."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from neuralpde.directional import (
    FUNCTIONS,
    PlaneFunction,
    Ripples,
    directional_task,
    drawn_points,
    leak_free_split,
    published_split,
)
from neuralpde.directional_method import (
    DirectionalMethod,
    FiniteGradient,
    LeastSquares,
    MeshOperator,
    StandardOperator,
    Told,
    squared_error,
)
from neuralpde.directional_networks import DifferenceLayer, GraphNet, Mlp, OneWeight
from neuralpde.directional_ours import LearnedKernel
from neuralpde.files import RunFolderError
from neuralpde.run_folder import RunFolder, row

Name = Literal["fin-grad", "standard-op", "mesh-op", "least-squares", "mlp", "gn", "one-w", "sdl", "ours"]
NAMES: tuple[Name, ...] = get_args(Name)
TABLE = "padgn-derivatives"
NODES, SPARSE_NODES, SPARSER = 200, 400, (350, 300, 250, 200)
SPARSE_NAMES = ("fin-grad", "mesh-op", "least-squares", "sdl", "ours")
UNIT = "squared slope, mean over edges"
PUBLISHED = {
    f"{TABLE}-f1": {"fin-grad": 6.42e-2, "mlp": 2.12e-2, "gn": 1.05e-2, "one-w": 1.41e-2, "sdl": 0.97e-2},
    f"{TABLE}-f2": {"fin-grad": 5.90e-2, "mlp": 2.29e-2, "gn": 2.17e-2, "one-w": 6.73e-2, "sdl": 1.26e-2},
}
PUBLISHED_SPARSE = {
    "fin-grad": {350: 2.88e-2, 300: 3.42e-2, 250: 3.96e-2, 200: 4.99e-2},
    "sdl": {350: 1.03e-2, 300: 1.14e-2, 250: 1.40e-2, 200: 1.76e-2},
}
SEEN = "every edge of a placement never trained on"


@dataclass(frozen=True)
class DerivativesSettings:
    """The settings of `neuralpde reproduce padgn-derivatives`; the text under each is its help."""

    methods: tuple[Name, ...] = NAMES
    """What to put into the tables, several after one flag."""
    seeds: int = 3
    """Placements of the sensors; each has its own split and weights."""
    nodes: int = NODES
    """Sensors of Table 1."""
    steps: int = 4000
    """Training steps of the networks in batches of 64 edges; the difference layer takes twice as many."""
    published: bool = False
    """Train as the paper does, 42,000 steps in batches of 16 edges at a rate of 1e-3: an hour and more."""
    leak_free: bool = True
    """Also split by undirected edges: as published, the reverse of a test edge is usually trained on. Other edges of its sender
    are trained on still; only in Table 9 all sensors are new."""
    sparse: bool = True
    """Also Table 9: trained on 400 sensors, then applied to others, fewer, without training."""
    json: Path | None = None
    """Also write the tables' rows to this file."""
    out: Path = Path("runs/padgn-derivatives")
    """The run folder. Every finished seed is kept there."""
    resume: bool = False
    """Continue the run in OUT: what is finished is not computed again. Seeds and methods may be added."""
    threads: int = 1
    """Torch threads. Results are reproducible bit for bit only at one and the same number."""

    def __post_init__(self) -> None:
        for name, least in (("seeds", 1), ("nodes", 20), ("steps", 1), ("threads", 1)):
            if getattr(self, name) < least:
                raise RunFolderError(f"--{name} must be at least {least}, not {getattr(self, name)}")
        if self.nodes > 2500:
            raise RunFolderError(f"--nodes must be at most 2500, the points of the grid, not {self.nodes}")
        if not self.methods:
            raise RunFolderError("--methods needs at least one method, for example --methods least-squares ours")

    @property
    def folder(self) -> RunFolder:
        """Where the run is kept."""
        return RunFolder(self.out, self.resume, self.json, self.threads)

    @property
    def chosen(self) -> list[DirectionalMethod]:
        """The methods, each once."""
        learner = {"steps": 42_000, "learning_rate": 1e-3, "batch": 16} if self.published else {"steps": self.steps}
        layer = learner if self.published else {"steps": 2 * self.steps}
        every: list[DirectionalMethod] = [
            FiniteGradient(),
            StandardOperator(),
            MeshOperator(),
            LeastSquares(),
            Mlp(**learner),
            GraphNet(**learner),
            OneWeight(**learner),
            DifferenceLayer(**layer),
            LearnedKernel(),
        ]
        by_name = {method.name: method for method in every}
        return [by_name[name] for name in dict.fromkeys(self.methods)]


Fit = Callable[[DirectionalMethod, int, Path, Told], dict[str, Any]]


def reproduce_padgn_derivatives(settings: DerivativesSettings, console: Console | None = None) -> list[dict[str, Any]]:
    """Fit every method on the slopes of some edges, score it on others, print the tables, write rows, pictures and report.

    Args:
        console: where the tables go; standard output if absent. Progress goes to standard error.

    Raises:
        RunFolderError, FloatingPointError: with the cause and the cure.
    """
    console = console or Console()
    folder = settings.folder
    folder.check()
    torch.set_num_threads(settings.threads)
    folder.make()
    methods = settings.chosen
    rows: list[dict[str, Any]] = []
    columns = (TextColumn("{task.description:<26}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as progress:
        for function in FUNCTIONS:
            for leak_free in (False, True) if settings.leak_free else (False,):
                table = f"{TABLE}-{function.name}{'-leak-free' if leak_free else ''}"
                results = _results(settings, table, methods, _on_edges(function, settings.nodes, leak_free), folder, progress)
                rows += _rows_of(table, results)
        if settings.sparse:
            sparse = [method for method in methods if method.name in SPARSE_NAMES]
            table = f"{TABLE}-sparse"
            rows += _sparse_rows(table, _results(settings, table, sparse, _elsewhere, folder, progress))
    folder.finish(rows)
    # `import neuralpde` brings this module, but not matplotlib before something is drawn.
    from neuralpde.directional_figures import write_directional_report

    write_directional_report(settings.out, rows, settings.nodes)
    for table in dict.fromkeys(each["table"] for each in rows):
        _print(table, [each for each in rows if each["table"] == table and each["metric"] == "mse"], console)
    if not settings.published:
        console.print("the networks are trained briefly, see --steps and --published")
    console.print(f"report: {settings.out / 'report.html'}")
    return rows


def _on_edges(function: PlaneFunction, nodes: int, leak_free: bool) -> Fit:
    """Learn from some edges of a placement and be scored on others."""

    def fit(method: DirectionalMethod, seed: int, checkpoint: Path, told: Told) -> dict[str, Any]:
        task = directional_task(function, drawn_points(nodes, seed))
        split = (leak_free_split if leak_free else published_split)(task, seed)
        learned = method.fit(task, split, seed, checkpoint, told)
        return {"mse": squared_error(learned, task, split.test), "parameters": learned.parameters}

    return fit


def _elsewhere(method: DirectionalMethod, seed: int, checkpoint: Path, told: Told) -> dict[str, Any]:
    """Learn from 400 sensors and be scored on all edges of other, sparser placements."""
    function = Ripples()
    task = directional_task(function, drawn_points(SPARSE_NODES, seed))
    learned = method.fit(task, published_split(task, seed), seed, checkpoint, told)
    others = {nodes: directional_task(function, drawn_points(nodes, 1000 + seed)) for nodes in SPARSER}
    return {str(nodes): squared_error(learned, other) for nodes, other in others.items()}


def _results(
    settings: DerivativesSettings,
    table: str,
    methods: Sequence[DirectionalMethod],
    fit: Fit,
    folder: RunFolder,
    progress: Progress,
) -> dict[str, list[dict[str, Any]]]:
    results: dict[str, list[dict[str, Any]]] = {}
    task = progress.add_task(table.removeprefix(f"{TABLE}-"), total=len(methods) * settings.seeds, note="")
    for method in methods:
        results[method.name] = []
        for seed in range(settings.seeds):
            identity, part = f"{table} {settings.nodes} {method!r} {seed}", f"{table}-{method.name}-{seed}"

            def told(step: int, steps: int, note: str, what: str = f"{method.name}, seed {seed}") -> None:
                progress.update(task, note=f"{what}: step {step}/{steps}, {note}")

            kept = folder.kept(part, identity)
            if kept is None:
                began = time.process_time()
                # Named by all that it depends on: weights that were learned elsewhere are not continued.
                digest = sha256(identity.encode()).hexdigest()[:12]
                kept = fit(method, seed, folder.path / "checkpoints" / f"{part}-{digest}.safetensors", told)
                kept["seconds"] = time.process_time() - began
                folder.keep(part, identity, kept)
            results[method.name].append(kept)
            progress.advance(task)
    progress.update(task, note="")
    return results


def _rows_of(table: str, results: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    rows = []
    for method, parts in results.items():
        published = PUBLISHED.get(table, {}).get(method)
        rows.append(row(table, method, "mse", [part["mse"] for part in parts], UNIT, published=published))
        rows.append(row(table, method, "parameters", [float(part["parameters"]) for part in parts], "count"))
        rows.append(row(table, method, "seconds", [part["seconds"] for part in parts], "CPU-seconds"))
    return rows


def _sparse_rows(table: str, results: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    rows = []
    for method, parts in results.items():
        for nodes in SPARSER:
            published = PUBLISHED_SPARSE.get(method, {}).get(nodes)
            values = [float(part[str(nodes)]) for part in parts]
            rows.append(row(table, method, "mse", values, UNIT, nodes=nodes, published=published, scored=SEEN))
    return rows


def _print(table: str, rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """A line a method in units of 1e-2 and, below it, one of the paper's numbers; a column for each number of nodes."""
    counts = list(dict.fromkeys(each.get("nodes") for each in rows))
    printed = Table(title=f"{table}: MSE ×1e-2")
    printed.add_column("method", no_wrap=True)
    for nodes in counts:
        printed.add_column("MSE" if nodes is None else f"{nodes} nodes", justify="right", no_wrap=True)
    for method in dict.fromkeys(each["method"] for each in rows):
        found = [each for each in rows if each["method"] == method]
        printed.add_row(method, *map(percent, found), style="bold" if method == "ours" else "")
        if any(each["published"] is not None for each in found):
            printed.add_row("  paper", *(f"{100 * each['published']:.2f}" for each in found), style="dim")
    console.print(printed)


def percent(found: Mapping[str, Any]) -> str:
    """A number of a row in units of 1e-2, with its spread."""
    value, spread = 100 * found["value"], 100 * found["std"]
    digits = ".2f" if value >= 0.1 else ".1g"
    return f"{value:{digits}}" + (f" ± {spread:{digits}}" if found["n"] > 1 else "")
