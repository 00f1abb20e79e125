"""The main job's table, files and report."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table as TextTable

from neuralpde.files import write_json
from neuralpde.heat_data import GIVEN_FRAMES, Surface
from neuralpde.heat_figures import FLOWS, error_curves, error_map, loss_curves, rayleigh_curves
from neuralpde.heat_models import TITLES
from neuralpde.heat_rollout import STEPS, Outcome
from neuralpde.heat_settings import HeatSettings
from neuralpde.report import MeshMovie, Picture, Table, write_report

UNITS = {
    "nrmse": f"sum over {STEPS} steps",
    "rayleigh_error": f"sum over {STEPS} steps",
    "parameters": "count",
    "nfe": f"evaluations in a rollout of {STEPS} steps",
    "seconds": "training and rollouts",
}


def rows_of(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The table as data: over all unseen surfaces, and for each."""
    rows: list[dict[str, Any]] = []
    for outcome in outcomes:
        for metric in ("nrmse", "rayleigh_error"):
            by_surface: dict[str, list[float]] = getattr(outcome, metric)
            rows.append(_row("heat", outcome.name, metric, [v for values in by_surface.values() for v in values]))
            rows += [_row(f"heat-{name}", outcome.name, metric, values) for name, values in by_surface.items()]
        for metric in ("parameters", "nfe", "seconds"):
            rows.append(_row("heat", outcome.name, metric, [float(getattr(outcome, metric))]))
    return rows


def _row(table: str, method: str, metric: str, values: list[float]) -> dict[str, Any]:
    numbers = torch.tensor(values, dtype=torch.float64)
    spread = float(numbers.std()) if len(values) > 1 else 0.0
    return {
        "table": table,
        "method": method,
        "metric": metric,
        # JSON has no NaN: a method that diverged has no value.
        "value": float(numbers.mean()) if bool(torch.isfinite(numbers).all()) else None,
        "std": spread if math.isfinite(spread) else None,
        "n": len(values),
        "unit": UNITS[metric],
    }


def write_results(
    settings: HeatSettings,
    outcomes: Sequence[Outcome],
    losses: Mapping[str, Sequence[float]],
    trained_on: Sequence[Surface],
    tested_on: Sequence[Surface],
) -> list[dict[str, Any]]:
    """Write table.json, the figures and report.html; return the rows."""
    rows = rows_of(outcomes)
    record = {"command": ["neuralpde", *sys.argv[1:]], "version": version("neuralpde-toolkit"), "device": "cpu", "rows": rows}
    for path in [settings.out / "table.json", *([settings.json] if settings.json else [])]:
        write_json(path, record)
    figures = settings.out / "figures"
    loss_curves(figures / "loss.png", losses)
    rayleigh_curves(figures / "rayleigh.png", outcomes, tested_on)
    error_curves(figures / "error.png", outcomes, tested_on)
    for item in tested_on:
        error_map(figures / f"error-map-{item.name}.png", outcomes, item)
    write_report(
        settings.out / "report.html",
        title="Three neural PDEs learn heat on surfaces",
        lead=_lead(outcomes),
        facts=_facts(settings, trained_on, tested_on),
        tables=[_accuracy_table(outcomes), *_surface_tables(outcomes, tested_on), _invariant_table(outcomes)],
        pictures=_pictures(figures, tested_on),
        movies=[_movie(outcomes, item) for item in tested_on],
    )
    return rows


def _lead(outcomes: Sequence[Outcome]) -> str:
    by_name = {outcome.name: outcome for outcome in outcomes}
    scores = {name: by_name[name].mean("nrmse") for name in FLOWS}
    best = min(FLOWS, key=lambda name: scores[name] if math.isfinite(scores[name]) else math.inf)
    return (
        "Each model was trained by rolling out three frames through the integrator, on the training surfaces alone, and "
        f"then rolled out {STEPS} frames on surfaces it had never seen. Models are told the surface's masses, areas and "
        f"time step, never the rate of diffusion. The best of the three flows is “{TITLES[best]}”, with "
        f"{_number(scores[best])} NRMSE summed over {STEPS} steps; predicting zero scores {STEPS}, and one "
        f"rate fitted to the right stencil, which heat leaves nothing to add to, "
        f"scores {by_name['stencil'].mean('nrmse'):.2f}."
    )


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "diverged"
    return f"{value:.2f}" if abs(value) < 1e5 else f"{value:.1e}"


def _facts(settings: HeatSettings, trained_on: Sequence[Surface], tested_on: Sequence[Surface]) -> dict[str, str]:
    truth = {
        "surface": "M u_t = −C u on the surface, solved implicitly with fine steps",
        "published": "MeshPDE's scheme u ← u − dt S u, with S = M^-½ C M^-½",
    }[settings.truth.value]

    def describe(items: Sequence[Surface]) -> str:
        return ", ".join(f"{item.name} ({item.mesh.num_nodes:,} vertices, dt {item.dt:.2e})" for item in items)

    return {
        "Truth": truth,
        "Trained on": describe(trained_on),
        "Rolled out on": describe(tested_on),
        "Training": f"{settings.steps} steps of Adam, {settings.batch} windows a step, seed {settings.seed}",
    }


def _accuracy_table(outcomes: Sequence[Outcome]) -> Table:
    rows = [
        [
            TITLES[o.name],
            _number(o.mean("nrmse")),
            _number(o.mean("rayleigh_error")),
            f"{o.parameters:,}",
            f"{o.nfe:,.0f}",
            f"{o.seconds:.1f}",
        ]
        for o in outcomes
    ]
    return Table(
        f"Unseen surfaces, summed over {STEPS} steps",
        "NRMSE: root mean square error over the field's root mean square, of each step. Rayleigh error: how far the "
        "field's roughness is from the truth's. Both are means over all rollouts; smaller is better. NFE: evaluations "
        "of the right-hand side in one rollout. The three neural PDEs are bold.",
        ["method", "NRMSE", "Rayleigh error", "parameters", "NFE", "seconds"],
        rows,
        frozenset(k for k, o in enumerate(outcomes) if o.name in FLOWS),
    )


def _surface_tables(outcomes: Sequence[Outcome], tested_on: Sequence[Surface]) -> list[Table]:
    if len(tested_on) < 2:
        return []
    header = ["method", *[f"{metric}, {s.name}" for s in tested_on for metric in ("NRMSE", "Rayleigh error")]]
    rows = []
    for o in outcomes:
        cells = [sum(v[s.name]) / len(v[s.name]) for s in tested_on for v in (o.nrmse, o.rayleigh_error)]
        rows.append([TITLES[o.name], *[_number(cell) for cell in cells]])
    flows = frozenset(k for k, o in enumerate(outcomes) if o.name in FLOWS)
    return [Table("Each unseen surface", "Means over the rollouts on that surface.", header, rows, flows)]


def _invariant_table(outcomes: Sequence[Outcome]) -> Table:
    rows = []
    for o in outcomes:
        worst: dict[str, Any] = {}
        for check in o.checks:
            if check.invariant not in worst or check.violation > worst[check.invariant].violation:
                worst[check.invariant] = check
        for check in worst.values():
            verdict = "holds" if check.holds else "broken"
            rows.append(
                [TITLES[o.name], check.invariant, check.law, f"{check.violation:.1e}", f"{check.tolerance:.1e}", verdict]
            )
    rows.append([TITLES["difference"], "none declared", "", "", "", ""])
    return Table(
        "Invariants of the trained flows",
        "Each flow declares what its exact solution keeps; this is the worst violation measured along the rollouts on "
        "unseen surfaces, relative to the quantity's largest possible value. Broken laws are to be expected only of the "
        "truncated flow, whose exponential is cut off.",
        ["flow", "invariant", "law", "worst violation", "tolerance", "verdict"],
        rows,
    )


def _pictures(figures: Path, tested_on: Sequence[Surface]) -> list[Picture]:
    maps = [
        Picture(f"Error at the last frame, {item.name}", "Left: the truth.", figures / f"error-map-{item.name}.png")
        for item in tested_on
    ]
    return [
        Picture("Learning", "Training loss; 1 is predicting no change.", figures / "loss.png"),
        Picture("Smoothness", "Rayleigh quotient along the first rollout.", figures / "rayleigh.png"),
        Picture("Error along the rollout", "Relative error of the first rollout.", figures / "error.png"),
        *maps,
    ]


def _movie(outcomes: Sequence[Outcome], item: Surface) -> MeshMovie:
    points, faces = item.mesh.arrays
    panels = {"truth": item.frames[0, GIVEN_FRAMES - 1 :, :, 0].numpy()}
    panels |= {TITLES[o.name]: o.path[item.name].numpy() for o in outcomes if o.name in FLOWS}
    times = item.times(STEPS + 1, GIVEN_FRAMES - 1).numpy()
    return MeshMovie(f"Rollout on {item.name}", "The first rollout: truth beside prediction.", points, faces, times, panels)


def print_table(outcomes: Sequence[Outcome], tested_on: Sequence[Surface], console: Console) -> None:
    """Print the table of all methods."""
    table = _accuracy_table(outcomes)
    text = TextTable(title=f"{table.title}: {', '.join(item.name for item in tested_on)}")
    for k, column in enumerate(table.header):
        text.add_column(column, justify="left" if k == 0 else "right")
    for k, row in enumerate(table.rows):
        text.add_row(*row, style="bold" if k in table.emphasis else "")
    console.print(text)
    broken = [(o.name, c) for o in outcomes for c in o.checks if not c.holds and o.name != "truncated"]
    for name, check in broken:
        console.print(f"{TITLES[name]}: {check.invariant} ({check.law}) is broken by {check.violation:.1e}")
    if not broken:
        console.print("every invariant that the trained flows declare holds on the unseen surfaces")
