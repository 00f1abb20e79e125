"""`neuralpde reproduce unigraph-heat`: the toy experiment of R-UniGraph, on held-out graphs and as published."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from neuralpde.files import RunFolderError
from neuralpde.run_folder import RunFolder, row
from neuralpde.toy_heat import TRAINED_STEPS, GridHeat, parted, score, toy_heat
from neuralpde.toy_heat_figure import draw, rolled_out, watched
from neuralpde.toy_heat_methods import Schedule, ToyMethod
from neuralpde.toy_heat_networks import METHODS

Name = Literal["persistence", "implicit-euler", "stencil", "gcn", "unitary", "r-unigraph", "learned-t-max", "separable", "ours"]
NAMES: tuple[Name, ...] = get_args(Name)
TABLE, SEEN = "unigraph-heat", "unigraph-heat-seen"
# R-UniGraph's table, with MRE of the field before the real part is taken.
PUBLISHED = {"gcn": (1.08e-2, 5.99e-2), "unitary": (0.14e-2, 8.86e-2), "r-unigraph": (0.11e-2, 2.07e-2)}
UNITS = {
    "mse": "mean over nodes",
    "mre": "difference of mean Rayleigh quotients, before the real part is taken",
    "readout_mre": "difference of mean Rayleigh quotients, of the real part",
}
BATCH = 64


@dataclass(frozen=True)
class UniGraphSettings:
    """The settings of `neuralpde reproduce unigraph-heat`; the text under each is its help."""

    methods: tuple[Name, ...] = NAMES
    """What to put into the table, several after one flag."""
    seeds: int = 3
    """Train with so many seeds of the weights; the data are the same for all."""
    graphs: int = 2000
    """Graphs to draw, those held out included; the paper's number is 10,000."""
    epochs: int = 4
    """Epochs of training; gcn takes more, see --published."""
    published: bool = False
    """Train at the published learning rate 1e-4, gcn no longer than the others; with --graphs 10000 --epochs 450 for days."""
    data_seed: int = 0
    """Seed of graphs and sources."""
    json: Path | None = None
    """Also write the table's rows to this file."""
    out: Path = Path("runs/unigraph-heat")
    """The run folder. Every finished seed is kept there."""
    resume: bool = False
    """Continue the run in OUT: what is finished is not trained again. Seeds and methods may be added."""
    threads: int = 1
    """Torch threads. Results are reproducible bit for bit only at one and the same number."""

    def __post_init__(self) -> None:
        for name in ("seeds", "graphs", "epochs", "threads"):
            if getattr(self, name) < 1:
                raise RunFolderError(f"--{name} must be at least 1, not {getattr(self, name)}")
        if self.data_seed < 0:
            raise RunFolderError(f"--data-seed must not be negative, not {self.data_seed}")
        if not self.methods:
            raise RunFolderError("--methods needs at least one method, for example --methods stencil ours")

    @property
    def folder(self) -> RunFolder:
        """Where the run is kept."""
        return RunFolder(self.out, self.resume, self.json, self.threads)


def reproduce_unigraph(settings: UniGraphSettings, console: Console | None = None) -> list[dict[str, Any]]:
    """Train every method with every seed, score held-out and trained graphs, print the tables, write rows and picture.

    Args:
        console: where the tables go; standard output if absent. Progress goes to standard error.

    Raises:
        RunFolderError, FloatingPointError: with the cause and the cure.
    """
    console = console or Console()
    folder = settings.folder
    folder.check()
    torch.set_num_threads(settings.threads)
    try:
        items = toy_heat(settings.graphs, settings.data_seed)
    except ValueError as error:
        raise RunFolderError(f"--graphs: {error}") from error
    folder.make()
    seen, held_out = parted(items)
    samples = TRAINED_STEPS * sum(len(item.frames) for item in seen)
    schedule = Schedule(-(-samples * settings.epochs // BATCH), settings.published)
    console.print(f"trained on {_described(seen)}; held out: {_described(held_out)}")
    methods = {method.name: method() for method in METHODS}
    chosen = [methods[name] for name in dict.fromkeys(settings.methods)]
    results = _results(settings, folder, chosen, schedule, seen, held_out)
    rows = rows_of(results)
    folder.finish(rows)
    curves = {name: parts[0]["curve"] for name, parts in results.items()}
    draw(settings.out / "rayleigh.png", curves, rows, TABLE)
    for table, title in ((TABLE, "graphs that are not trained on"), (SEEN, "as published, graphs that are trained on")):
        print_table(table, title, rows, console)
    console.print(f"picture: {settings.out / 'rayleigh.png'}")
    return rows


def _described(items: Sequence[GridHeat]) -> str:
    count = sum(len(item.frames) for item in items)
    return f"{count:,} grids of side {', '.join(str(item.side) for item in items)}"


def _results(
    settings: UniGraphSettings,
    folder: RunFolder,
    methods: Sequence[ToyMethod],
    schedule: Schedule,
    seen: Sequence[GridHeat],
    held_out: Sequence[GridHeat],
) -> dict[str, list[dict[str, Any]]]:
    results: dict[str, list[dict[str, Any]]] = {}
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as progress:
        for method in methods:
            seeds = settings.seeds if method.random else 1
            task = progress.add_task(method.name, total=seeds, note="")
            results[method.name] = []
            for seed in range(seeds):
                identity = f"{settings.graphs} {settings.data_seed} {schedule} {method!r} {seed}"
                part = f"{method.name}-{seed}"

                def told(step: int, steps: int, loss: float, task: Any = task, seed: int = seed) -> None:
                    progress.update(task, completed=seed + step / steps, note=f"seed {seed}, loss {loss:.2e}")

                result = folder.kept(part, identity)
                if result is None:
                    checkpoint = folder.path / "checkpoints" / f"{part}.safetensors"
                    began = time.process_time()
                    learned = method.fit(seen, schedule, seed, checkpoint, told)
                    result = {
                        "held_out": asdict(score(held_out, learned.predict)),
                        "seen": asdict(score(seen, learned.predict)),
                        "curve": rolled_out(watched(), learned.predict),
                        "parameters": learned.parameters,
                        "seconds": time.process_time() - began,
                    }
                    folder.keep(part, identity, result)
                results[method.name].append(result)
                progress.update(task, completed=seed + 1)
            progress.update(task, note="")
    return results


def rows_of(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The tables as data; `published` beside a number is the paper's, which is of trained graphs."""
    rows = []
    for method, parts in results.items():
        published = dict(zip(("mse", "mre"), PUBLISHED.get(method, ()), strict=False))
        for table, graphs in ((TABLE, "held_out"), (SEEN, "seen")):
            for metric, unit in UNITS.items():
                values = [float(part[graphs][metric]) for part in parts]
                rows.append(row(table, method, metric, values, unit, published=published.get(metric)))
        rows.append(row(TABLE, method, "parameters", [float(part["parameters"]) for part in parts], "count"))
        rows.append(row(TABLE, method, "seconds", [float(part["seconds"]) for part in parts], "CPU-seconds of training"))
    return rows


def print_table(table: str, title: str, rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print a line a method, in units of 1e-2, the paper's numbers beside ours."""
    found = {(each["method"], each["metric"]): each for each in rows if each["table"] == table}
    printed = Table(title=f"{table}: {title}; ×1e-2")
    for name in ("method", "MSE", "MRE", "of Re z", "paper"):
        printed.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    for method in dict.fromkeys(method for method, _ in found):
        numbers = [_percent(found[method, metric]) for metric in UNITS]
        published = PUBLISHED.get(method)
        paper = "" if published is None else "/".join(f"{100 * value:.2f}" for value in published)
        printed.add_row(method, *numbers, paper)
    console.print(printed)


def _percent(found: Mapping[str, Any]) -> str:
    spread = f"±{100 * found['std']:.1g}" if found["n"] > 1 else ""
    return f"{100 * found['value']:.2g}{spread}"
