"""`neuralpde reproduce blend`: node classification with BLEND, GRAND, ours, GCN and GAT, with the published numbers beside."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from neuralpde.files import RunFolderError
from neuralpde.node_data import Dataset, NodeData
from neuralpde.node_methods import Method, Prepared
from neuralpde.node_published import PUBLISHED
from neuralpde.node_settings import methods_of
from neuralpde.node_sources import load_nodes
from neuralpde.node_splits import Split, random_split
from neuralpde.node_training import Trained, train_nodes
from neuralpde.run_folder import RunFolder, row

Name = Literal["ours", "blend", "blend-knn", "grand-l", "grand-nl", "gcn", "gat"]
SplitName = Literal["planetoid", "random"]
UNITS = {
    "accuracy": "percent of test nodes",
    "parameters": "count",
    "nfe": "evaluations, products with A or layers in a training pass; once before training where A does not learn",
    "seconds_per_epoch": "CPU-seconds of forward, backward and step",
    "peak_mb": "MB resident, of the whole process",
}


@dataclass(frozen=True)
class BlendSettings:
    """The settings of `neuralpde reproduce blend`; the text under each is its help."""

    dataset: Dataset = Dataset.CORA
    """The graph."""
    split: SplitName = "planetoid"
    """planetoid: the published split, of the whole graph. random: a new split for every seed, of the largest component."""
    seeds: int = 20
    """Train with so many seeds; a random split's seed is that of its weights, too."""
    first_seed: int = 0
    """The first of them."""
    methods: tuple[Name, ...] = ("ours", "blend", "gcn", "gat")
    """What to train, several after one flag. grand-nl solves with a new A at every evaluation and takes the longest."""
    data: Path = Path("data")
    """Where the data are, in PyG's layout (Cora/raw/...); read only. What is not there is downloaded to it."""
    json: Path | None = None
    """Also write the table's rows to this file."""
    out: Path | None = None
    """The run folder, runs/blend-DATASET-SPLIT if absent. Every finished seed is kept there."""
    resume: bool = False
    """Continue the run in OUT: what is finished is not trained again. Seeds and methods may be added."""
    epochs: int | None = None
    """Epochs of every method, instead of its own."""
    published_solver: bool = False
    """Solve frozen flows by dopri5 at the published tolerances (rtol at least 1e-6: float32), not by their exponential."""
    threads: int = 1
    """Torch threads. Results are reproducible bit for bit only at one and the same number."""

    def __post_init__(self) -> None:
        for name in ("seeds", "threads", *(["epochs"] if self.epochs is not None else [])):
            if getattr(self, name) < 1:
                raise RunFolderError(f"--{name} must be at least 1, not {getattr(self, name)}")
        if self.first_seed < 0:
            raise RunFolderError(f"--first-seed must not be negative, not {self.first_seed}")
        if not self.methods:
            raise RunFolderError("--methods needs at least one method, for example --methods ours gcn")

    @property
    def table(self) -> str:
        """The table's name in the JSON rows."""
        return f"blend-{self.dataset.value}-{self.split}"

    @property
    def folder(self) -> Path:
        """Where the run folder is."""
        return self.out or Path("runs") / self.table

    @property
    def run_folder(self) -> RunFolder:
        """The run folder."""
        return RunFolder(self.folder, self.resume, self.json, self.threads)


def reproduce_blend(settings: BlendSettings, console: Console | None = None) -> list[dict[str, Any]]:
    """Train every method with every seed, print the table, write the rows. What is finished is kept; see `--resume`.

    Args:
        console: where the table goes; standard output if absent. Progress goes to standard error.

    Raises:
        RunFolderError, DomainError, FloatingPointError: with the cause and the cure.
    """
    console = console or Console()
    folder = settings.run_folder
    folder.check()
    torch.set_num_threads(settings.threads)
    data = load_nodes(settings.dataset, settings.data)
    if settings.split == "random":
        data = data.largest_component()
    splits = _splits(settings, data)
    chosen = _methods(settings)
    console.print(f"{data}; {settings.split} split")
    if data.isolated:
        console.print(f"{data.isolated:,} nodes are isolated: nothing flows to or from them")
    folder.make()
    rows = rows_of(settings, _trained(settings, data, splits, chosen))
    folder.finish(rows)
    print_table(settings, rows, console)
    return rows


def _splits(settings: BlendSettings, data: NodeData) -> dict[int, Split]:
    """The split of every seed; one that cannot be drawn is known before anything is trained."""
    if settings.split == "random":
        development = 5000 if settings.dataset is Dataset.CS else 1500
        return {seed: random_split(data.labels, seed, development) for seed in _seeds(settings)}
    if data.split is None:
        raise RunFolderError(f"{data.name} has no published split: use --split random")
    return dict.fromkeys(_seeds(settings), data.split)


def _methods(settings: BlendSettings) -> dict[str, Method]:
    known = methods_of(settings.dataset, settings.split)
    chosen: dict[str, Method] = {}
    for name in settings.methods:
        method = known[name]
        if settings.epochs is not None:
            method = replace(method, schedule=replace(method.schedule, epochs=settings.epochs))
        chosen[name] = method.as_published() if settings.published_solver else method
    return chosen


def _trained(
    settings: BlendSettings, data: NodeData, splits: Mapping[int, Split], methods: Mapping[str, Method]
) -> dict[str, list[Trained]]:
    results: dict[str, list[Trained]] = {}
    folder = settings.run_folder
    fingerprint = data.fingerprint()
    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    note = TextColumn("{task.fields[note]}")
    # Not refreshed while it measures: the bar's own thread would be measured too.
    with Progress(*columns, note, console=Console(stderr=True), auto_refresh=False) as progress:
        for name, method in methods.items():
            task = progress.add_task(name, total=settings.seeds, note="")
            identity = f"{fingerprint} {settings.split} {method}"
            given: Prepared | None = None
            results[name] = []
            for seed in _seeds(settings):

                def told(epoch: int, best: float, method: Method = method, seed: int = seed, task: Any = task) -> None:
                    note = f"seed {seed}, epoch {epoch}/{method.schedule.epochs}, validation {best:.1f} %"
                    progress.update(task, note=note, refresh=epoch % 10 == 0)

                kept = folder.kept(f"{name}-{seed}", identity)
                if kept is None:
                    if given is None:
                        progress.update(task, note="preparing", refresh=True)
                        given = method.prepare(data, settings.folder / "encodings")
                    kept = asdict(_train(method, given, splits[seed], seed, told))
                    folder.keep(f"{name}-{seed}", identity, kept)
                results[name].append(Trained(**kept))
                progress.advance(task)
                progress.refresh()
            progress.update(task, note=_summary([trained.accuracy for trained in results[name]]), refresh=True)
    return results


def _seeds(settings: BlendSettings) -> range:
    return range(settings.first_seed, settings.first_seed + settings.seeds)


def _train(method: Method, given: Prepared, split: Split, seed: int, told: Callable[[int, float], None]) -> Trained:
    return train_nodes(lambda: method.build(given), given.data.labels, split, method.schedule, seed, told)


def rows_of(settings: BlendSettings, results: Mapping[str, Sequence[Trained]]) -> list[dict[str, Any]]:
    """The table as data; `published` beside an accuracy is the paper's."""
    rows: list[dict[str, Any]] = []
    for method, trained in results.items():
        published = PUBLISHED.get((settings.dataset, settings.split), {}).get(method)
        for metric, unit in UNITS.items():
            values = [float(getattr(result, metric)) for result in trained]
            one = row(settings.table, method, metric, values, unit)
            if metric == "accuracy":
                one |= {
                    "validation": statistics.fmean(result.validation for result in trained),
                    "published": None if published is None else published.mean,
                }
            rows.append(one)
    return rows


def print_table(settings: BlendSettings, rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print a line a method, the paper's number beside ours."""
    seeds = "1 seed" if settings.seeds == 1 else f"{settings.seeds} seeds"
    table = Table(title=f"{settings.table}: test accuracy in %, selected on validation, {seeds}")
    for name in ("method", "accuracy", "paper", "valid.", "params", "NFE", "s/epoch", "MB"):
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    by_method: dict[str, dict[str, Mapping[str, Any]]] = {}
    for one in rows:
        by_method.setdefault(one["method"], {})[one["metric"]] = one
    for method, metrics in by_method.items():
        accuracy = metrics["accuracy"]
        published = PUBLISHED.get((settings.dataset, settings.split), {}).get(method)
        table.add_row(
            method,
            f"{accuracy['value']:.2f}" + (f"±{accuracy['std']:.2f}" if accuracy["n"] > 1 else ""),
            "" if published is None else str(published),
            f"{accuracy['validation']:.2f}",
            f"{metrics['parameters']['value']:,.0f}",
            f"{metrics['nfe']['value']:.0f}",
            f"{metrics['seconds_per_epoch']['value']:.3f}",
            f"{metrics['peak_mb']['value']:.0f}",
        )
    console.print(table)


def _summary(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"test {statistics.fmean(values):.2f}{spread} %"
