"""Pictures of forecasts: errors and correlations by lead time, and maps of truth, forecast and error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from neuralpde.files import read_tensors, write_atomically
from neuralpde.forecast_case import ForecastCase
from neuralpde.weather_place import Place
from operators.lat_lon import unit_vectors

STYLE = {
    "persistence": ("0.55", ":"),
    "climatology": ("0.55", "--"),
    "damped-persistence": ("0.3", "-."),
    "gcn": ("tab:brown", "-"),
    "r-unimesh": ("tab:purple", "-"),
    "simulator": ("tab:green", "-"),
    "ours": ("tab:blue", "-"),
}


def draw(folder: Path, case: ForecastCase, rows: Sequence[Mapping[str, Any]], shown: Sequence[float]) -> list[Path]:
    """All pictures of a run, into its folder; → their paths."""
    pictures = [curves(folder / "lead-times.png", case, rows)]
    forecast = folder / "forecasts" / "ours.safetensors"
    if forecast.is_file():
        pictures.append(maps(folder / "map.png", case, read_tensors(forecast)[0]["x"].numpy(), shown))
    return pictures


def curves(path: Path, case: ForecastCase, rows: Sequence[Mapping[str, Any]]) -> Path:
    """RMSE above, ACC below, by lead time, a column a variable."""
    variables = case.train.variables
    figure, grid = plt.subplots(2, len(variables), figsize=(4.6 * len(variables), 6.4), layout="constrained", squeeze=False)
    for column, variable in enumerate(variables):
        for axes, metric in zip(grid[:, column], ("rmse", "acc"), strict=True):
            chosen = [r for r in rows if r.get("variable") == str(variable) and r["metric"] == metric]
            for method in dict.fromkeys(r["method"] for r in chosen):
                if metric == "acc" and method == "climatology":
                    continue
                points = [(r["lead_hours"], r["value"]) for r in chosen if r["method"] == method]
                colour, line = STYLE.get(method, ("tab:green", "-"))
                marker = "." if len(points) < 5 else ""
                axes.plot(*zip(*points, strict=True), color=colour, linestyle=line, marker=marker, label=method)
            axes.set_xlabel("lead time in hours")
            axes.set_ylabel(f"RMSE in {variable.units}" if metric == "rmse" else "ACC")
            axes.grid(alpha=0.25)
        # A method that diverges must not press the others flat.
        mine = [r for r in rows if r.get("variable") == str(variable) and r["metric"] == "rmse"]
        reference = [r["value"] for r in mine if r["method"] in STYLE]
        grid[0, column].set_ylim(0, 2.2 * float(np.median(reference)) if reference else None)
        grid[0, column].set_title(str(variable))
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    return _save(figure, path)


def maps(path: Path, case: ForecastCase, forecast: NDArray[np.float32], shown: Sequence[float]) -> Path:
    """Truth, forecast and error of the first variable, from the first start that is scored, at some of the lead times."""
    hours = [shown[0], shown[len(shown) // 2], shown[-1]] if len(shown) > 2 else list(shown)
    truth = case.windows.batch([0]).targets.numpy()
    variable = case.train.variables[0]
    picked = [case.lead_hours.index(h) for h in hours]
    low, high = (float(f(truth[0, picked, :, 0])) for f in (np.min, np.max))
    # One scale for all errors, the size of the weather's own variation.
    spread = 2 * float(np.std(truth[0, :, :, 0] - truth[0, :, :, 0].mean(0)))
    around = np.ptp(case.train.place.positions[1].numpy()) > 300
    figure, grid = plt.subplots(
        3,
        len(picked),
        figsize=(4.4 * len(picked), 7.2),
        layout="constrained",
        squeeze=False,
        subplot_kw={"projection": "mollweide"} if around else {},
    )
    for column, lead in enumerate(picked):
        fields = (truth[0, lead, :, 0], forecast[0, lead, :, 0], forecast[0, lead, :, 0] - truth[0, lead, :, 0])
        for line, (axes, values, name) in enumerate(zip(grid[:, column], fields, ("truth", "ours", "error"), strict=True)):
            scale = ("RdBu_r", -spread, spread) if line == 2 else ("viridis", low, high)
            drawn = _paint(axes, case.train.place, values, *scale, around=around)
            axes.set_title(f"{name}, {case.lead_hours[lead]:g} h", fontsize=10)
            if column == len(picked) - 1:
                figure.colorbar(drawn, ax=list(grid[line]), shrink=0.8, label=variable.units)
    figure.suptitle(f"{case.name}: {variable}")
    return _save(figure, path)


def _paint(axes: Any, place: Place, values: NDArray[np.float32], colours: str, low: float, high: float, *, around: bool) -> Any:
    latitude, longitude = (angle.numpy() for angle in place.positions)
    if around:
        east, north = np.linspace(-180, 180, 361), np.linspace(-90, 90, 181)
    else:
        east, north = (np.linspace(a.min(), a.max(), 160) for a in (longitude, latitude))
    columns, lines = np.meshgrid(east, north)
    tree = cKDTree(unit_vectors(*place.positions).numpy())
    points = unit_vectors(*(torch.from_numpy(angle.reshape(-1)) for angle in (lines, columns))).numpy()
    distance, near = (np.asarray(found).reshape(*lines.shape, 3) for found in tree.query(points, k=3))
    weight = 1 / np.maximum(distance, 1e-6) ** 2
    field = (weight * values[near.astype(np.int64)]).sum(-1) / weight.sum(-1)
    scale = np.pi / 180 if around else 1.0
    look = {"cmap": colours, "vmin": low, "vmax": high, "shading": "auto", "rasterized": True}
    drawn = axes.pcolormesh(columns * scale, lines * scale, field, **look)
    axes.tick_params(labelsize=6)
    if around:
        axes.set_xticklabels([])
        axes.grid(alpha=0.3)
    return drawn


def _save(figure: Figure, path: Path) -> Path:
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))
    plt.close(figure)
    return path
