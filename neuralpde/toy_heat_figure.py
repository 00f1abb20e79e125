"""The picture of the toy experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from neuralpde.files import write_atomically
from neuralpde.toy_heat import SOURCES, STEP, GridHeat, Predictor, diffused, rayleigh

STEPS = 19
FIELDS = 16
STYLE = {
    "persistence": ("0.6", ":"),
    "implicit-euler": ("0.3", "--"),
    "stencil": ("tab:olive", "--"),
    "gcn": ("tab:brown", "-"),
    "unitary": ("tab:purple", "-"),
    "r-unigraph": ("tab:pink", "-"),
    "learned-t-max": ("tab:orange", "-"),
    "separable": ("tab:green", "-."),
    "ours": ("tab:blue", "-"),
}


def watched(side: int = 9) -> GridHeat:
    """Fields at t = 0, ½, ..., 9½ on one graph, (16, 20, n, 1)."""
    random = np.random.default_rng(0)
    start = np.zeros((FIELDS, side * side))
    for field in start:
        field[random.choice(side * side, SOURCES, replace=False)] = 1.0
    path = diffused(side, start, np.arange(STEPS + 1) * STEP)
    return GridHeat(side, torch.from_numpy(path).float()[..., None])


def quotients(item: GridHeat, frames: Tensor) -> list[float]:
    """The mean Rayleigh quotient of the fields at each time; frames (K, T, n, 1)."""
    means: list[float] = rayleigh(item, frames).mean(0).tolist()
    return means


def rolled_out(item: GridHeat, predict: Predictor) -> list[float]:
    """The mean Rayleigh quotient of each frame of a rollout from x(0): Re z is what is fed back."""
    x, path = item.frames[:, 0], [item.frames[:, 0]]
    with torch.no_grad():
        for _ in range(item.frames.shape[1] - 1):
            z = predict(item, x)
            x = z.real if z.is_complex() else z
            path.append(x)
    return quotients(item, torch.stack(path, dim=1))


def draw(path: Path, curves: Mapping[str, Sequence[float]], rows: Sequence[Mapping[str, Any]], table: str) -> None:
    """Left, Rayleigh quotients along rollouts beside the truth's; right, error beside Rayleigh error of every method."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    truth = watched()
    times = np.arange(STEPS + 1) * STEP
    exact = quotients(truth, truth.frames)
    left.plot(times, exact, color="black", linewidth=7, alpha=0.2, label="truth")
    for name, values in curves.items():
        colour, line = STYLE[name]
        left.plot(times, values, color=colour, linestyle=line, label=name)
    left.axvspan(1.5, 2.0, color="0.9", zorder=0)
    left.set(xlabel="t (shaded: the step that is scored)", ylabel="Rayleigh quotient", ylim=(0, 1.35 * max(exact)))
    left.set_title(f"rollouts on a graph that is not trained on, {truth.side} × {truth.side}", fontsize=10)
    _scatter(right, rows, table)
    for axes in (left, right):
        axes.grid(alpha=0.25)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=9)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=130))
    plt.close(figure)


def _scatter(axes: Axes, rows: Sequence[Mapping[str, Any]], table: str) -> None:
    found = {(row["method"], row["metric"]): row for row in rows if row["table"] == table}
    for name, (colour, _) in STYLE.items():
        if (name, "mse") not in found:
            continue
        mse, mre = found[name, "mse"], found[name, "mre"]
        axes.loglog(max(mse["value"], 1e-16), max(mre["value"], 1e-9), "o", color=colour, markersize=8)
        if mse["published"] is not None:
            axes.loglog(mse["published"], mre["published"], "o", color=colour, markersize=13, fillstyle="none")
    axes.set(xlabel="mean squared error", ylabel="error of the mean Rayleigh quotient")
    axes.set_title("held-out graphs; rings: the paper's numbers", fontsize=10)
