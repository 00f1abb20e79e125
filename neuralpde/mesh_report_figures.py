"""Pictures of MeshPDE's tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from numpy.typing import NDArray
from torch import Tensor

from neuralpde.heat_data import GIVEN_FRAMES
from neuralpde.heat_figures import paint, save
from neuralpde.mesh_case import Case
from neuralpde.mesh_results import Result
from neuralpde.metrics import PublishedRayleigh

Results = Mapping[str, Sequence[Result]]
Fields = Mapping[str, Tensor]
# Colours for what learns; grey for what is only fitted or told.
COLOURS = {
    "ours": "tab:blue",
    "r-unimesh": "tab:red",
    "unitary": "tab:purple",
    "gcn": "tab:brown",
    "mpnn": "tab:orange",
    "egnn": "tab:olive",
    "meshgraphnet": "tab:green",
    "spectral": "tab:cyan",
}
DASHES = ("--", ":", "-.", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))


def loss_curves(path: Path, results: Results) -> None:
    """The training loss of every network's first seed."""
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    for name, look in _looks(results).items():
        losses = results[name][0].losses
        if losses:
            window = max(1, len(losses) // 20)
            smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
            axes.semilogy(np.arange(len(smooth)) + window, smooth, label=name, **look)
    axes.set(xlabel="training step", ylabel="loss")
    axes.legend(fontsize=8, ncols=2)
    axes.grid(alpha=0.25)
    save(figure, path)


def rayleigh_curves(path: Path, results: Results, test: Sequence[Case]) -> None:
    """The Rayleigh quotient of every method's first rollout beside the truth's, on each test mesh."""

    def draw(axes: Axes, case: Case) -> None:
        truth = case.clean[0, GIVEN_FRAMES:].double()
        values = PublishedRayleigh(case.scene.robust.to_wide(truth))(truth).numpy()
        frames = np.arange(GIVEN_FRAMES, GIVEN_FRAMES + len(values))
        axes.plot(frames, values, color="black", linewidth=7, alpha=0.2, label="truth")
        for name, look in _looks(results).items():
            if name != "zero":
                axes.plot(frames, _finite(results[name][0].curves[case.scene.name]["rayleigh"]), label=name, **look)
        low, high = float(values.min()), float(values.max())
        margin = max(0.25 * (high - low), 0.02)
        axes.set(xlabel="frame", ylabel="Rayleigh quotient", title=case.scene.name, ylim=(max(0.0, low - margin), high + margin))
        axes.grid(alpha=0.25)

    _grid(path, test, draw)


def error_curves(path: Path, results: Results, test: Sequence[Case]) -> None:
    """The NRMSE of every method at every step, on each test mesh."""

    def draw(axes: Axes, case: Case) -> None:
        for name, look in _looks(results).items():
            values = _finite(results[name][0].curves[case.scene.name]["nrmse"])
            frames = np.arange(GIVEN_FRAMES, GIVEN_FRAMES + len(values))
            axes.semilogy(frames, np.clip(values, 1e-8, 1e3), label=name, **look)
        axes.set(xlabel="frame", ylabel="NRMSE", title=case.scene.name)
        axes.grid(alpha=0.25)

    _grid(path, test, draw)


def error_map(path: Path, fields: Fields, case: Case) -> None:
    """The last frame of the truth, and the absolute error of some methods there (first rollout)."""
    truth = case.clean[0, -1, :, 0].double().numpy()
    top = max(float(np.abs(truth).max()), 1e-12)
    low = min(float(truth.min()), 0.0)
    # Errors span decades between methods, so their scale is logarithmic, and shared.
    field_scale = ScalarMappable(Normalize(low, top), "viridis")
    error_scale = ScalarMappable(LogNorm(1e-4 * top, top, clip=True), "magma")
    panels: list[tuple[str, NDArray[Any], ScalarMappable]] = [("truth, last frame", truth, field_scale)]
    for name, path_of in fields.items():
        error = np.abs(path_of[-1].double().numpy() - truth)
        shown = np.nan_to_num(error, nan=np.inf).clip(0, 1e300)
        panels.append((f"error, {name}\nmax {error.max():.1e}", shown, error_scale))
    columns = 3
    lines = -(-len(panels) // columns)
    figure = plt.figure(figsize=(3.4 * columns, 3.7 * lines), layout="constrained")
    for k, (title, values, scale) in enumerate(panels):
        axes = figure.add_subplot(lines, columns, k + 1, projection="3d")
        paint(axes, case.scene.mesh, values, scale)
        axes.set_title(title, fontsize=10)
        figure.colorbar(scale, ax=axes, orientation="horizontal", shrink=0.75, pad=0.0, aspect=30)
    save(figure, path)


def _looks(results: Results) -> dict[str, dict[str, Any]]:
    """Colours and lines of the methods, ours on top."""
    plain = [name for name in results if name not in COLOURS]
    looks: dict[str, dict[str, Any]] = {}
    for name in results:
        if name in COLOURS:
            looks[name] = {
                "color": COLOURS[name],
                "linewidth": 2.4 if name == "ours" else 1.4,
                "zorder": 5 if name == "ours" else 3,
            }
        else:
            k = plain.index(name)
            shade = 0.25 + 0.5 * k / max(1, len(plain) - 1)
            looks[name] = {"color": str(shade), "linestyle": DASHES[k % len(DASHES)], "linewidth": 1.1}
    return looks


def _finite(values: Sequence[float]) -> NDArray[Any]:
    array = np.asarray(values, dtype=float)
    return np.where(np.isfinite(array), array, np.nan)


def _grid(path: Path, cases: Sequence[Case], draw: Callable[[Axes, Case], None]) -> None:
    figure, grid = plt.subplots(1, len(cases), figsize=(5.2 * len(cases), 4.8), layout="constrained", squeeze=False)
    for axes, case in zip(grid[0], cases, strict=True):
        draw(axes, case)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(2, 3 * len(cases)), fontsize=8)
    save(figure, path)
