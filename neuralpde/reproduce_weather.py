"""`neuralpde reproduce weather`: forecasts of simulated and real weather, every method on the same frames."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from neuralpde.files import RunFolderError, write_tensors
from neuralpde.forecast_figures import draw
from neuralpde.forecast_method import ForecastMethod
from neuralpde.forecast_sets import Prepared, britain, ensemble, shallow_water, shorter, weatherbench
from neuralpde.run_folder import RunFolder, row
from neuralpde.shallow_water_set import ShallowWaterSet
from neuralpde.weather_forecasts import score

SetName = Literal["shallow-water", "era5-t2m", "era5-z500-t850", "wb2"]


@dataclass(frozen=True)
class WeatherSettings:
    """The settings of `neuralpde reproduce weather`; the text under each is its help."""

    set: SetName = "shallow-water"
    """shallow-water: simulated here. era5-t2m, era5-z500-t850: the real samples. wb2: a store in WeatherBench 2's layout."""
    data: Path = Path("data")
    """The sample's .npz file or its folder; the store (zarr or NetCDF) for wb2. Not needed for shallow-water."""
    seeds: int = 3
    """Train the networks with so many seeds."""
    methods: tuple[str, ...] = ()
    """Methods to run beside persistence and climatology, several after one flag; all of the set's if absent."""
    steps: int | None = None
    """Training steps of the networks, instead of their own."""
    variables: tuple[str, ...] = ("geopotential:500", "temperature:850")
    """wb2: the variables, as name:level or name."""
    cut: str | None = None
    """wb2: where testing begins, for example 2020-01-01; the last quarter of the store if absent."""
    days: int | None = None
    """wb2: how far ahead, 10 days if absent. shallow-water: the length of trajectories, 25 days if absent."""
    trajectories: int = 12
    """shallow-water: how many are simulated; a third of them is for testing."""
    refinements: int = 3
    """shallow-water: of the icosphere that is observed (642 nodes); the truth is simulated on one refined once more."""
    spin_up_days: int = 15
    """shallow-water: simulated before the first frame."""
    out: Path | None = None
    """The run folder, runs/weather-SET if absent. The simulation and every finished method and seed are kept there."""
    resume: bool = False
    """Continue the run in OUT: what is finished is not computed again."""
    json: Path | None = None
    """Also write the table's rows to this file."""
    threads: int = 1
    """Torch threads. Results are reproducible bit for bit only at one and the same number."""

    def __post_init__(self) -> None:
        for name in ("seeds", "threads", "trajectories", *(n for n in ("steps", "days") if getattr(self, n) is not None)):
            if getattr(self, name) < 1:
                raise RunFolderError(f"--{name} must be at least 1, not {getattr(self, name)}")

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.out or Path("runs") / f"weather-{self.set}"

    @property
    def water(self) -> ShallowWaterSet:
        """The simulated set."""
        return ShallowWaterSet(
            refinements=self.refinements,
            truth_refinements=self.refinements + 1,
            trajectories=self.trajectories,
            test_trajectories=max(1, self.trajectories // 3),
            days=self.days or 25,
            spin_up_days=self.spin_up_days,
        )


def reproduce_weather(settings: WeatherSettings, console: Console | None = None) -> list[dict[str, Any]]:
    """Learn from the training span, forecast the test span, print RMSE and ACC by lead time, write rows and pictures.

    Args:
        console: where the table goes; standard output if absent. Progress goes to standard error.

    Raises:
        RunFolderError, WeatherError: with the cause and the cure.
    """
    console = console or Console()
    run = RunFolder(settings.folder, settings.resume, settings.json, settings.threads)
    run.check()
    torch.set_num_threads(settings.threads)
    columns = (TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as progress:
        prepared = shorter(_prepare(settings, run, progress), settings.methods, settings.steps)
        run.make()
        results = {method.name: _results(settings, run, prepared, method, progress) for method in prepared.methods}
    rows = _rows(prepared, results)
    run.finish(rows)
    print_table(prepared, rows, console)
    pictures = draw(run.path, prepared.case, rows, prepared.shown)
    console.print(f"Rows and pictures: {run.path} ({', '.join(path.name for path in pictures)})")
    return rows


def _prepare(settings: WeatherSettings, run: RunFolder, progress: Progress) -> Prepared:
    if settings.set == "era5-t2m":
        return britain(settings.data)
    if settings.set == "era5-z500-t850":
        return ensemble(settings.data)
    if settings.set == "wb2":
        return weatherbench(settings.data, settings.variables, settings.cut, settings.days or 10)
    data = settings.water
    run.make()
    task = progress.add_task("simulating", total=data.days + data.spin_up_days, note="days")

    def told(day: int, days: int) -> None:
        progress.update(task, completed=day, total=days)

    return shallow_water(data, run.path / "shallow-water.safetensors", told)


def _results(
    settings: WeatherSettings, run: RunFolder, prepared: Prepared, method: ForecastMethod, progress: Progress
) -> list[dict[str, Any]]:
    seeds = range(settings.seeds) if method.random else range(1)
    task = progress.add_task(method.name, total=len(seeds), note="")
    identity = f"{prepared.case.fingerprint()} {method!r}"
    results = []
    for seed in seeds:
        part = f"{method.name}-{seed}"
        kept = run.kept(part, identity)
        if kept is None:
            kept = _computed(run, prepared, method, seed, progress, task)
            run.keep(part, identity, kept)
        results.append(kept)
        progress.advance(task)
    progress.update(task, note="")
    return results


def _computed(
    run: RunFolder, prepared: Prepared, method: ForecastMethod, seed: int, progress: Progress, task: TaskID
) -> dict[str, Any]:
    def told(step: int, steps: int, note: str) -> None:
        progress.update(task, note=f"seed {seed}, {step}/{steps}, {note}")

    case, began = prepared.case, time.process_time()
    learned = method.fit(case, seed, run.path / "weights" / f"{method.name}-{seed}.safetensors", told)
    fitted = time.process_time()
    progress.update(task, note=f"seed {seed}, forecasting")
    windows = case.windows
    scores = score(learned.forecast, windows, case.climatology)
    if seed == 0:
        first = windows.batch([0])
        forecast = learned.forecast(first.inputs, first.times)
        write_tensors(run.path / "forecasts" / f"{method.name}.safetensors", {"x": forecast}, {})
    return {
        "rmse": scores.rmse.tolist(),
        "acc": scores.acc.tolist(),
        "forecasts": len(windows),
        "parameters": learned.parameters,
        "fit_seconds": fitted - began,
        "forecast_seconds": time.process_time() - fitted,
    }


def _rows(prepared: Prepared, results: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    rows, case = [], prepared.case
    table = f"weather-{case.name}"
    for method, parts in results.items():
        for channel, variable in enumerate(case.train.variables):
            for lead, hours in enumerate(case.lead_hours):
                for metric, unit in (("rmse", variable.units), ("acc", "1")):
                    values = [part[metric][lead][channel] for part in parts]
                    rows.append(row(table, method, metric, values, unit, lead_hours=hours, variable=str(variable)))
        for metric, unit in (("parameters", "count"), ("fit_seconds", "CPU-seconds"), ("forecast_seconds", "CPU-seconds")):
            rows.append(row(table, method, metric, [part[metric] for part in parts], unit))
    return rows


def print_table(prepared: Prepared, rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """A table for each variable: methods down, lead times across, RMSE and below it ACC."""
    case = prepared.case
    if prepared.note:
        console.print(prepared.note)
    for variable in case.train.variables:
        title = f"weather-{case.name}: {variable}, RMSE in {variable.units} and ACC, {len(case.windows)} forecasts"
        table = Table(title=title)
        table.add_column("method", no_wrap=True)
        for hours in prepared.shown:
            table.add_column(f"{hours:g} h", justify="right", no_wrap=True)
        found = {(r["method"], r["metric"], r["lead_hours"]): r["value"] for r in rows if r.get("variable") == str(variable)}
        for method in prepared.methods:
            cells = [(found[method.name, "rmse", hours], found[method.name, "acc", hours]) for hours in prepared.shown]
            table.add_row(method.name, *(f"{error:.3g}\n{correlation:.2f}" for error, correlation in cells))
        console.print(table)
