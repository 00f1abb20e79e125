"""The table of a run at sensors as text, and as a page with pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table as TextTable

from neuralpde.files import read_tensors
from neuralpde.report import Picture, Table, write_report
from neuralpde.sensor_case import SensorCase
from neuralpde.sensor_report_figures import error_curves, sensor_maps, traces
from neuralpde.sensor_result import Result, table_name
from neuralpde.sensor_score import METRICS
from neuralpde.sensor_table import drawn_name, drawn_windows

Rows = Sequence[Mapping[str, Any]]
Tests = Mapping[str, Sequence[SensorCase]]
CAPTION = (
    "MAE and MSE: mean absolute and mean square error of the first h forecast frames, ± the standard deviation over seeds and "
    "placements; smaller is better. Change: of the first metric, from persistence, at each horizon. s: processor seconds of "
    "fitting and forecasting. "
)
RISE = "Rise: of the first metric, from the first table, at each horizon. "


def number(value: float | None) -> str:
    """A cell: "diverged" where there is no finite value."""
    if value is None or not math.isfinite(value):
        return "diverged"
    size = abs(value)
    if 0 < size < 1e-3 or size >= 1e5:
        return f"{value:.1e}"
    return f"{value:.4f}" if size < 1 else f"{value:.3f}" if size < 100 else f"{value:.0f}"


def _spread(one: Mapping[str, Any]) -> str:
    """A value and what varies over seeds and placements, with as many decimals."""
    text = number(one["value"])
    if not one["std"] or "e" in text:
        return text
    return f"{text} ± {one['std']:.{len(text.partition('.')[2])}f}"


def lines(table: str, test: str, rows: Rows, horizons: Sequence[int], metric: str) -> tuple[list[str], list[list[str]]]:
    """Header and lines of one test's table, a line a method."""
    name, last = table_name(table, test), horizons[-1]
    chosen = {(one["method"], one["metric"], one["horizon"]): one for one in rows if one["table"] == name and "horizon" in one}
    sizes = {(one["method"], one["metric"]): one["value"] for one in rows if "horizon" not in one}
    other = next(one for one in METRICS if one != metric)
    papers = any(one["published"] is not None for one in chosen.values())
    header = ["method", *(f"{metric.upper()} 1..{h}" if h > 1 else f"{metric.upper()} 1" for h in horizons)]
    header += [f"{other.upper()} 1..{last}", "change", *(["paper"] if papers else []), *(["rise"] if test else []), "params", "s"]
    cells = []
    for method in dict.fromkeys(method for method, _, _ in chosen):
        main = [chosen[method, metric, h] for h in horizons]
        line = [method, *(_spread(one) for one in main), number(chosen[method, other, last]["value"])]
        gains = [one["against_persistence"] for one in main]
        line.append("" if method == "persistence" else _percents([None if gain is None else -gain for gain in gains]))
        if papers:
            given = [chosen[method, which, h]["published"] for which in METRICS for h in horizons]
            line.append(" / ".join(f"{value:g}" for value in given if value is not None))
        if test:
            line.append(_percents([one["against_complete"] for one in main]))
        seconds = sizes[method, "fit_seconds"] + sizes[method, "forecast_seconds"]
        cells.append([*line, f"{sizes[method, 'parameters']:,.0f}", f"{seconds:.1f}"])
    return header, cells


def print_table(table: str, rows: Rows, tests: Tests, horizons: Sequence[int], metric: str, console: Console) -> None:
    """Print a table for each test."""
    for test, cases in tests.items():
        header, cells = lines(table, test, rows, horizons, metric)
        title = f"{table_name(table, test)}: {_described(cases)}, unit {cases[0].unit}"
        text = TextTable(title=title, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
        for k, column in enumerate(header):
            text.add_column(column, justify="left" if k == 0 else "right", no_wrap=True)
        for line in cells:
            text.add_row(*line, style="bold" if line[0] == "ours" else "")
        console.print(text)


def write_sensor_report(
    table: str,
    title: str,
    note: str,
    results: Mapping[str, Sequence[Result]],
    rows: Rows,
    train: Sequence[SensorCase],
    tests: Tests,
    horizons: Sequence[int],
    metric: str,
    folder: Path,
    prefix: str = "",
) -> Path:
    """Write the pictures and the report, a page that needs no network; → its path."""
    figures = folder / "figures"
    kept = {name: read_tensors(folder / "forecasts" / f"{prefix}{name}-0.safetensors")[0] for name in results}
    tables, pictures = [], []
    for test, cases in tests.items():
        header, cells = lines(table, test, rows, horizons, metric)
        emphasis = frozenset(k for k, line in enumerate(cells) if line[0] == "ours")
        tables.append(
            Table(f"{table_name(table, test)}, unit {cases[0].unit}", CAPTION + RISE * bool(test), header, cells, emphasis)
        )
        label, name, case = test or "test", f"{prefix}{test or 'test'}", cases[0]
        scores = {method: of_seeds[0].scores[test] for method, of_seeds in results.items() if of_seeds[0].scores.get(test)}
        first = {method: of_case[case.name] for method, of_case in scores.items() if case.name in of_case}
        if not first:
            continue
        error_curves(figures / f"{name}-lead.png", first)
        caption = f"Mean absolute error at each lead, {case.name}, first seed; diverging forecasts are left out."
        pictures.append(Picture(f"Error against lead: {label}", caption, figures / f"{name}-lead.png"))
        shown = shown_methods(first)
        sensor_maps(figures / f"{name}-map.png", case.placement, {method: first[method].sensors for method in shown})
        caption = f"Mean absolute error of every sensor over all leads, {case.name}, first seed. Grey sensors are not scored."
        pictures.append(Picture(f"Error of each sensor: {label}", caption, figures / f"{name}-map.png"))
        paths = {method: kept[method][drawn_name(test)] for method in shown}
        traces(figures / f"{name}-traces.png", case.some(drawn_windows(case)), paths)
        caption = (
            "Given frames (dots), what followed (black) and forecasts at one sensor, in the first, a middle and the last window."
        )
        pictures.append(Picture(f"Example forecasts: {label}", caption, figures / f"{name}-traces.png"))
    page = folder / f"{prefix}report.html"
    lead = (
        "Every method was given the same frames of the same sensors, learned from the training windows, chose its settings on "
        "the validation windows, and forecast the tests once. Networks are trained briefly."
    )
    write_report(
        page,
        title=title,
        lead=f"{lead}\n\n{note}",
        facts=_facts(train, tests, results),
        tables=tables,
        pictures=pictures,
        movies=[],
    )
    return page


def shown_methods(scores: Mapping[str, Any]) -> list[str]:
    """At most five methods for maps and traces: persistence, ours, and the best of the others, in the table's order."""
    means = {name: one.value("mae", len(one.count)) for name, one in scores.items()}
    fixed = [name for name in ("persistence", "ours") if name in means]
    others = sorted((name for name in means if name not in fixed and math.isfinite(means[name])), key=lambda name: means[name])
    chosen = {*fixed, *others[: 5 - len(fixed)]}
    return [name for name in scores if name in chosen and math.isfinite(means[name])]


def _percents(values: Sequence[float | None]) -> str:
    if all(value is None for value in values):
        return ""
    return " ".join("—" if value is None else f"{100 * value:+.0f}" for value in values) + " %"


def _described(cases: Sequence[SensorCase]) -> str:
    first = cases[0]
    scored = first.placement.num_nodes if first.scored is None else int(first.scored.sum())
    windows = sum(len(case.values) for case in cases)
    placements = f"{len(cases)} placements of " if len(cases) > 1 else ""
    return f"{placements}{scored} sensors, {windows} windows, {first.given} frames in, {first.horizon} out"


def _facts(train: Sequence[SensorCase], tests: Tests, results: Mapping[str, Sequence[Result]]) -> dict[str, str]:
    seeds = max(len(of_seeds) for of_seeds in results.values())
    facts = {"Trained on": _described(train), "Seeds": f"{seeds} of each random method"}
    return facts | {f"Tested on {test}" if test else "Tested on": _described(cases) for test, cases in tests.items()}
