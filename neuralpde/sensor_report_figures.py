"""Pictures of forecasts at sensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from neuralpde.heat_figures import save
from neuralpde.sensor_case import SensorCase
from neuralpde.sensor_placement import Placement
from neuralpde.sensor_score import Score

# Colours for what learns; grey for what is told or fitted in closed form.
COLOURS = {
    "ours": "tab:blue",
    "pa-dgn": "tab:red",
    "sdl": "tab:pink",
    "rgn": "tab:green",
    "rgn-standard-op": "tab:olive",
    "rgn-mesh-op": "tab:cyan",
    "gn": "tab:brown",
    "gru": "tab:orange",
    "mlp": "tab:purple",
}
DASHES = ("--", ":", "-.", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))


def looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colours and lines of the methods, ours on top."""
    plain = [name for name in names if name not in COLOURS]
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        if name in COLOURS:
            ours = name == "ours"
            found[name] = {"color": COLOURS[name], "linewidth": 2.4 if ours else 1.4, "zorder": 5 if ours else 3}
        else:
            k = plain.index(name)
            shade = 0.2 + 0.5 * k / max(1, len(plain) - 1)
            found[name] = {"color": str(shade), "linestyle": DASHES[k % len(DASHES)], "linewidth": 1.2}
    return found


def error_curves(path: Path, scores: Mapping[str, Score]) -> None:
    """The mean absolute error of each method at each lead."""
    figure, axes = plt.subplots(figsize=(8, 4.4), layout="constrained")
    finite = {name: np.asarray(one.at("mae")) for name, one in scores.items()}
    finite = {name: values for name, values in finite.items() if np.isfinite(values).all()}
    reference = finite.get("persistence")
    for name, values in finite.items():
        # One that explodes would flatten all the others.
        if reference is None or name == "ours" or values.max() < 4 * reference.max():
            axes.plot(np.arange(1, len(values) + 1), values, marker=".", label=name, **looks(list(scores))[name])
    axes.set(xlabel="lead in frames", ylabel="mean absolute error", ylim=(0, None))
    axes.grid(alpha=0.25)
    if finite:
        axes.legend(fontsize=8, ncols=3)
    save(figure, path)


def sensor_maps(path: Path, placement: Placement, errors: Mapping[str, Sequence[float]]) -> None:
    """The error of each sensor, a map a method, one scale."""
    count = max(1, len(errors))
    across, up = (placement.points[:, 1], placement.points[:, 0]) if placement.earth else placement.points.T
    figure, grid = plt.subplots(1, count, figsize=(3.3 * count, 3.6), layout="constrained", squeeze=False)
    values = {name: np.asarray(of, dtype=float) for name, of in errors.items()}
    finite = np.concatenate([of[np.isfinite(of)] for of in values.values()]) if values else np.zeros(0)
    top = float(np.quantile(finite, 0.98)) if len(finite) else 1.0
    shown: Any = None
    for axes, (name, of) in zip(grid[0], values.items(), strict=False):
        scored = np.isfinite(of)
        axes.scatter(across[~scored], up[~scored], color="0.85", s=8)
        shown = axes.scatter(across[scored], up[scored], c=of[scored], s=26, cmap="magma_r", vmin=0, vmax=max(top, 1e-12))
        mean = f"mean {of[scored].mean():.3g}" if scored.any() else "not scored"
        axes.set_title(f"{name}\n{mean}", fontsize=10)
        _fit(axes, placement, up)
    if shown is not None:
        figure.colorbar(shown, ax=list(grid[0]), shrink=0.8, label="mean absolute error")
    save(figure, path)


def traces(path: Path, case: SensorCase, paths: Mapping[str, Tensor]) -> None:
    """Some windows of one sensor, first channel: given, truth and forecasts (windows, h, n, c)."""
    windows = len(case.values)
    sensor = _seen_most(case)
    figure, grid = plt.subplots(1, windows, figsize=(5.0 * windows, 3.8), layout="constrained", squeeze=False, sharey=True)
    for k, axes in enumerate(grid[0]):
        time = case.times[k].numpy() - float(case.times[k, case.given - 1])
        values = np.where(case.seen[k, :, sensor, 0].numpy(), case.values[k, :, sensor, 0].numpy(), np.nan)
        axes.plot(time[: case.given], values[: case.given], "o", color="black", markersize=3.5, label="given")
        axes.plot(time[case.given - 1 :], values[case.given - 1 :], color="black", linewidth=6, alpha=0.18, label="what followed")
        finite = values[np.isfinite(values)]
        # A window in which this sensor was silent shows the forecasts alone, about the mean.
        low, high = (finite.min(), finite.max()) if len(finite) else (-1.0, 1.0)
        for name, look in looks(list(paths)).items():
            axes.plot(time[case.given :], paths[name][k, :, sensor, 0].double().numpy().clip(-1e6, 1e6), label=name, **look)
        margin = 0.5 * (high - low) + 1e-3
        axes.set(xlabel="time after the last given frame", ylim=(low - margin, high + margin))
        axes.grid(alpha=0.25)
    grid[0][0].set_ylabel(f"sensor {sensor}, unit {case.unit}")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=8, fontsize=8)
    save(figure, path)


def _fit(axes: Axes, placement: Placement, up: Tensor) -> None:
    axes.tick_params(labelsize=7)
    # A degree of longitude is shorter than one of latitude.
    axes.set_aspect(1 / max(0.1, float(np.cos(np.deg2rad(float(up.mean()))))) if placement.earth else 1)


def _seen_most(case: SensorCase) -> int:
    seen = case.seen[..., 0].sum((0, 1)).double()
    if case.scored is not None:
        seen = seen.masked_fill(~case.scored, -1.0)
    return int(seen.argmax())
