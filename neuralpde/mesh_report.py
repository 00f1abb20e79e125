"""The table of a MeshPDE run as text and as a page with pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table as TextTable

from neuralpde.files import read_tensors
from neuralpde.heat_data import GIVEN_FRAMES
from neuralpde.mesh_case import Case
from neuralpde.mesh_report_figures import Fields, error_curves, error_map, loss_curves, rayleigh_curves
from neuralpde.mesh_results import METRICS, Result, kept_frames
from neuralpde.report import MeshMovie, Picture, Table, write_report
from neuralpde.run_folder import RunFolder

TITLES = {"nrmse": "NRMSE", "rayleigh_error": "Rayleigh error", "smape": "SMAPE"}
Rows = Sequence[Mapping[str, Any]]


def number(value: float | None) -> str:
    """A cell: "diverged" where there is no finite value."""
    if value is None or not math.isfinite(value):
        return "diverged"
    size = abs(value)
    if 0 < size < 1e-3 or size >= 1e5:
        return f"{value:.1e}"
    return f"{value:.4f}" if size < 1 else f"{value:.2f}" if size < 1000 else f"{value:.0f}"


def drift(value: float | None) -> str:
    """A cell of mass."""
    return "diverged" if value is None or not math.isfinite(value) else f"{value:.0e}"


def accuracy_table(table: str, rows: Rows) -> Table:
    """A line a method, the paper's numbers beside."""
    cells = []
    for method, by_metric in _by_method(rows).items():
        line = [method]
        for metric in METRICS:
            one = by_metric[metric]
            line.append(_spread(one))
            if metric != "smape":
                line.append("" if one["published"] is None else f"{one['published']:g}")
        line.append(drift(by_metric["mass_error"]["value"]))
        cells.append([*line, f"{by_metric['parameters']['value']:,.0f}", f"{by_metric['seconds']['value']:.1f}"])
    header = ["method", "NRMSE", "paper", "Rayleigh error", "paper", "SMAPE", "mass error", "parameters", "seconds"]
    caption = (
        "Summed over the steps after five given frames; means over all rollouts on the test meshes, ± the standard deviation "
        "over seeds; smaller is better. NRMSE: root mean square error over the root mean square of the truth; zero scores one a "
        "step. Rayleigh error: how far the field's roughness is from the truth's. Mass error: the largest distance of the "
        "field's integral from the truth's, relative to that of |y|. Seconds: fitting and all rollouts of a seed."
    )
    return Table(table, caption, header, cells, frozenset(k for k, line in enumerate(cells) if line[0] == "ours"))


def _spread(one: Mapping[str, Any]) -> str:
    return number(one["value"]) + (f" ± {number(one['std'])}" if one["value"] is not None and one["n"] > 1 else "")


def mesh_table(rows: Rows, meshes: Sequence[str]) -> Table:
    """NRMSE and Rayleigh error on each test mesh."""
    header = ["method", *[f"{TITLES[metric]}, {mesh}" for mesh in meshes for metric in METRICS[:2]]]
    cells = []
    for method, by_metric in _by_method(rows).items():
        cells.append([method, *[number(by_metric[metric]["meshes"][mesh]) for mesh in meshes for metric in METRICS[:2]]])
    ours = frozenset(k for k, line in enumerate(cells) if line[0] == "ours")
    return Table("Each test mesh", "Means over the rollouts on that mesh, and over seeds.", header, cells, ours)


def print_table(table: str, rows: Rows, meshes: Sequence[str], console: Console) -> None:
    """Print the table, and each mesh beside; narrower than in the report."""
    summary = TextTable(title=f"{table}: sums over the steps, test meshes", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    by_mesh = TextTable(title="NRMSE / Rayleigh error on each test mesh", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for text, columns in (
        (summary, ("method", "NRMSE", "RE", "paper", "SMAPE", "mass", "params", "s")),
        (by_mesh, ("method", *meshes)),
    ):
        for k, column in enumerate(columns):
            text.add_column(column, justify="left" if k == 0 else "right", no_wrap=k == 0)
    for method, by_metric in _by_method(rows).items():
        style = "bold" if method == "ours" else ""
        nrmse, roughness = by_metric["nrmse"], by_metric["rayleigh_error"]
        summary.add_row(
            method,
            _spread(nrmse),
            number(roughness["value"]),
            " / ".join(f"{one['published']:g}" for one in (nrmse, roughness) if one["published"] is not None),
            number(by_metric["smape"]["value"]),
            drift(by_metric["mass_error"]["value"]),
            f"{by_metric['parameters']['value']:,.0f}",
            f"{by_metric['seconds']['value']:.1f}",
            style=style,
        )
        both = [f"{number(nrmse['meshes'][mesh])} / {number(roughness['meshes'][mesh])}" for mesh in meshes]
        by_mesh.add_row(method, *both, style=style)
    console.print(summary)
    console.print(by_mesh)


def write_mesh_report(
    table: str,
    results: Mapping[str, Sequence[Result]],
    rows: Rows,
    train: Sequence[Case],
    test: Sequence[Case],
    folder: RunFolder,
) -> None:
    """Write the pictures and report.html to the run folder."""
    figures = folder.path / "figures"
    paths = {name: read_tensors(folder.path / "fields" / f"{name}-0.safetensors")[0] for name in results}
    pictures = []
    if any(result[0].losses for result in results.values()):
        loss_curves(figures / "loss.png", results)
        pictures.append(
            Picture("Learning", "Training loss of the first seed, running mean; 1 is persistence.", figures / "loss.png")
        )
    rayleigh_curves(figures / "rayleigh.png", results, test)
    error_curves(figures / "error.png", results, test)
    pictures += [
        Picture("Roughness", "Rayleigh quotient along the first rollout, the truth as a wide band.", figures / "rayleigh.png"),
        Picture("Error along the rollout", "NRMSE of each step, mean over rollouts, first seed.", figures / "error.png"),
    ]
    shown = shown_methods(results)
    movies = []
    for case in test:
        fields: Fields = {name: paths[name][case.scene.name] for name in shown}
        name = case.scene.name
        error_map(figures / f"error-map-{name}.png", fields, case)
        caption = "Top left: the truth; then the absolute error of each method."
        pictures.append(Picture(f"The last frame on {name}", caption, figures / f"error-map-{name}.png"))
        movies.append(_movie(fields, case))
    write_report(
        folder.path / "report.html",
        title=f"Rollouts on unseen meshes: {table}",
        lead=(
            "Every method learned from the training meshes alone and was rolled out on meshes that it had never seen, from "
            f"{GIVEN_FRAMES} given frames. Trivial predictors and stencils fitted in closed form are part of the table: what "
            "they reach needs no learning."
        ),
        facts=_facts(train, test, results),
        tables=[accuracy_table(table, rows), mesh_table(rows, [case.scene.name for case in test])],
        pictures=pictures,
        movies=movies,
    )


def shown_methods(results: Mapping[str, Sequence[Result]]) -> list[str]:
    """At most five methods for error maps: persistence, ours, and the best of the others, in the table's order."""
    finite = {name: of_seeds[0].mean("nrmse") for name, of_seeds in results.items()}
    fixed = [name for name in ("persistence", "ours", "r-unimesh") if name in results]
    others = sorted(
        (name for name in results if name not in (*fixed, "zero") and math.isfinite(finite[name])), key=lambda name: finite[name]
    )
    chosen = {*fixed, *others[: 5 - len(fixed)]}
    return [name for name in results if name in chosen]


def _movie(fields: Fields, case: Case) -> MeshMovie:
    points, faces = case.scene.mesh.arrays
    steps = kept_frames(case.clean.shape[1] - GIVEN_FRAMES)
    frames = [GIVEN_FRAMES + step for step in steps]
    panels = {"truth": case.clean[0, frames, :, 0].numpy()} | {name: path.numpy() for name, path in fields.items()}
    times = case.scene.dt * np.asarray(frames, dtype=float)
    return MeshMovie(f"Rollout on {case.scene.name}", "The first rollout, truth beside prediction.", points, faces, times, panels)


def _by_method(rows: Rows) -> dict[str, dict[str, Mapping[str, Any]]]:
    grouped: dict[str, dict[str, Mapping[str, Any]]] = {}
    for one in rows:
        grouped.setdefault(one["method"], {})[one["metric"]] = one
    return grouped


def _facts(train: Sequence[Case], test: Sequence[Case], results: Mapping[str, Sequence[Result]]) -> dict[str, str]:
    def described(cases: Sequence[Case]) -> str:
        return ", ".join(f"{c.scene.name} ({c.scene.mesh.num_nodes:,} vertices, dt {c.scene.dt:.2e})" for c in cases)

    steps = test[0].clean.shape[1] - GIVEN_FRAMES
    seeds = max(len(of_seeds) for of_seeds in results.values())
    return {
        "Trained on": described(train) or "nothing",
        "Rolled out on": described(test),
        "Rollouts": f"{test[0].clean.shape[0]} on each mesh, of {steps} steps",
        "Seeds": f"{seeds} of each random method",
    }
