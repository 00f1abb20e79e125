"""Pictures of the main job."""

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
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from numpy.typing import NDArray

from neuralpde.files import write_atomically
from neuralpde.heat_data import GIVEN_FRAMES, Surface
from neuralpde.heat_models import TITLES
from neuralpde.heat_rollout import Outcome
from neuralpde.metrics import PublishedRayleigh
from operators import TriangleMesh, robust_laplacian

FLOWS = ("relaxed", "beltrami", "difference")
STYLE = {
    "truth": ("black", "-"),
    "persistence": ("0.6", ":"),
    "stencil": ("0.4", "--"),
    "gcn": ("tab:brown", "-"),
    "unitary": ("tab:purple", "-"),
    "truncated": ("tab:pink", "-"),
    "relaxed": ("tab:blue", "-"),
    "beltrami": ("tab:orange", "-"),
    "difference": ("tab:green", "-"),
}


def loss_curves(path: Path, losses: Mapping[str, Sequence[float]]) -> None:
    """Training loss of every learned model, relative to persistence."""
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    for name, values in losses.items():
        colour, line = STYLE[name]
        window = max(1, len(values) // 40)
        smooth = np.convolve(values, np.ones(window) / window, mode="valid")
        axes.semilogy(np.arange(len(smooth)) + window, smooth, color=colour, linestyle=line, label=TITLES[name])
    axes.axhline(1.0, color="0.6", linestyle=":", label="persistence")
    axes.set(xlabel="training step", ylabel="squared error / persistence's (running mean)")
    axes.legend(fontsize=8, ncols=2)
    axes.grid(alpha=0.25)
    save(figure, path)


def rayleigh_curves(path: Path, outcomes: Sequence[Outcome], surfaces: Sequence[Surface]) -> None:
    """The Rayleigh quotient along the first rollout on each unseen surface, beside the truth's."""

    def draw(axes: Axes, item: Surface) -> None:
        quotient = PublishedRayleigh(robust_laplacian(item.mesh))
        steps = np.arange(GIVEN_FRAMES - 1, item.frames.shape[1])
        truth = quotient(item.frames[0, GIVEN_FRAMES - 1 :].double())
        lines = {"truth": truth}
        lines |= {o.name: quotient(o.path[item.name][..., None].double()) for o in outcomes if o.name in STYLE}
        for name, values in lines.items():
            colour, line = STYLE[name]
            # The truth is a wide band, so that a model that follows it is seen on top of it.
            look: dict[str, Any] = {"linewidth": 6, "alpha": 0.25} if name == "truth" else {"linewidth": 1.6}
            axes.plot(steps, values, color=colour, linestyle=line, label=TITLES.get(name, name), **look)
        low, high = float(truth.min()), float(truth.max())
        axes.set(xlabel="frame", ylabel="Rayleigh quotient", title=item.name)
        axes.set_ylim(max(0.0, low - 0.25 * (high - low)), high + 0.25 * (high - low))
        axes.grid(alpha=0.25)

    _grid(path, surfaces, draw)


def error_curves(path: Path, outcomes: Sequence[Outcome], surfaces: Sequence[Surface]) -> None:
    """The relative error of every method along the first rollout on each unseen surface."""

    def draw(axes: Axes, item: Surface) -> None:
        truth = item.frames[0, GIVEN_FRAMES:, :, 0].double()
        for outcome in outcomes:
            if outcome.name not in STYLE:
                continue
            error = (outcome.path[item.name][1:].double() - truth).norm(dim=1) / truth.norm(dim=1)
            colour, line = STYLE[outcome.name]
            frames = np.arange(GIVEN_FRAMES, item.frames.shape[1])
            axes.semilogy(frames, error.clamp(min=1e-8), color=colour, linestyle=line, label=TITLES[outcome.name])
        axes.set(xlabel="frame", ylabel="relative error", title=item.name)
        axes.grid(alpha=0.25)

    _grid(path, surfaces, draw)


def error_map(path: Path, outcomes: Sequence[Outcome], item: Surface) -> None:
    """The last frame of the truth, and the error of persistence, GCN and the three flows there."""
    truth = item.frames[0, -1, :, 0].double().numpy()
    shown = [o for o in outcomes if o.name in ("persistence", "gcn", *FLOWS)]
    errors = {o.name: np.abs(o.path[item.name][-1].double().numpy() - truth) for o in shown}
    top = max(float(np.abs(truth).max()), 1e-12)
    # Errors span decades between methods, so their scale is logarithmic, and shared.
    field_scale = ScalarMappable(Normalize(0, top), "viridis")
    error_scale = ScalarMappable(LogNorm(1e-4 * top, top, clip=True), "magma")
    panels = [("truth, last frame", truth, field_scale)]
    panels += [(f"error, {TITLES[name]}\nmax {e.max():.1e}", e, error_scale) for name, e in errors.items()]
    columns = 3
    lines = -(-len(panels) // columns)
    figure = plt.figure(figsize=(3.4 * columns, 3.7 * lines), layout="constrained")
    for k, (title, values, scale) in enumerate(panels):
        axes = figure.add_subplot(lines, columns, k + 1, projection="3d")
        paint(axes, item.mesh, values, scale)
        axes.set_title(title, fontsize=10)
        figure.colorbar(scale, ax=axes, orientation="horizontal", shrink=0.75, pad=0.0, aspect=30)
    save(figure, path)


def paint(axes: Any, mesh: TriangleMesh, values: NDArray[Any], scale: ScalarMappable) -> None:
    """Draw a mesh in the colours of its vertices' values, (n,), with a little light."""
    points, faces = mesh.arrays
    # Looking along the direction of least extent shows the most of a surface.
    centred = points - points.mean(0)
    _, _, axes_of_inertia = np.linalg.svd(centred, full_matrices=False)
    turned = centred @ axes_of_inertia.T
    turned = turned[:, [0, 2, 1]]
    corners = turned[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    light = np.abs(normals @ np.array([0.3, -0.8, 0.5])) / np.maximum(np.linalg.norm(normals, axis=1), 1e-300)
    shade = 0.75 + 0.25 * np.clip(light, 0, 1)
    colours = np.asarray(scale.to_rgba(values[faces].mean(1)))
    colours[:, :3] *= shade[:, None]
    axes.add_collection3d(Poly3DCollection(corners, facecolors=colours, linewidths=0))
    low, high = turned.min(0), turned.max(0)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
    axes.set_box_aspect(np.maximum(high - low, 1e-6 * np.max(high - low)), zoom=1.2)
    axes.view_init(elev=18, azim=-75)
    axes.set_axis_off()


def _grid(path: Path, surfaces: Sequence[Surface], draw: Callable[[Axes, Surface], None]) -> None:
    figure, grid = plt.subplots(1, len(surfaces), figsize=(5.2 * len(surfaces), 4.4), layout="constrained", squeeze=False)
    for axes, item in zip(grid[0], surfaces, strict=True):
        draw(axes, item)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure atomically, and close it."""
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=130))
    plt.close(figure)
