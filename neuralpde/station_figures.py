"""Pictures of stations: where they stand and which are neighbours, what was measured when, and how the record is divided."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neuralpde.files import write_atomically
from neuralpde.station_cases import StationSplit
from neuralpde.station_checks import StationError
from neuralpde.station_record import StationRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPANS = (("train", "0.96"), ("validation", "0.90"), ("test", "0.82"))
GAP = "tab:red"


def draw_stations(
    path: Path | str, record: StationRecord, split: StationSplit | None = None, neighbours: int = 4, frame: int | None = None
) -> Path:
    """A map of a record's first variable with the graph of neighbours, a few of its series, and when which station was silent.

    Held-out stations are squares.

    Args:
        path: of the picture, atomically written; .png, .svg or .pdf.
        split: to mark spans of time and held-out stations.
        frame: of the map; the one with the most values if absent.
    """
    # Matplotlib takes a second to load: here, not with the package.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise StationError(f"a picture is a .png, .svg or .pdf file, not {path.name}")
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    halves: Any = figure.subfigures(1, 2, width_ratios=(1, 1.15))
    left, right = halves
    held = split.stations(len(record.ids))[1] if split is not None else torch.empty(0, dtype=torch.long)
    shown = int(record.seen[..., 0].sum(1).argmax()) if frame is None else range(len(record))[frame]
    _map(left.subplots(), record, held, neighbours, shown)
    series, silence = right.subplots(2, 1, sharex=True, height_ratios=(1.3, 1))
    for axes in (series, silence):
        _spans(axes, record, split)
    _series(series, record)
    _silence(silence, record)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=130, format=path.suffix[1:]))
    return path


def _map(axes: Any, record: StationRecord, held: torch.Tensor, neighbours: int, frame: int) -> None:
    from matplotlib.collections import LineCollection

    plane = record.placement.plane.numpy()
    edges = record.placement.graph(neighbours).edge_index
    once = edges[:, edges[0] < edges[1]].T.numpy()
    axes.add_collection(LineCollection(list(plane[once]), colors="0.8", linewidths=0.8, zorder=1))
    seen, values = record.seen[frame, :, 0].numpy(), record.values[frame, :, 0].numpy()
    is_held = np.isin(np.arange(len(plane)), held.numpy())
    limits: dict[str, Any] = {"vmin": values[seen].min(), "vmax": values[seen].max()} if seen.any() else {}
    dots = None
    for chosen, marker, told in ((~is_held, "o", "station"), (is_held, "s", "held out")):
        some = chosen & seen
        if some.any():
            dots = axes.scatter(
                *plane[some].T,
                c=values[some],
                cmap="viridis",
                marker=marker,
                s=42,
                edgecolors="k",
                linewidths=0.5,
                label=told,
                **limits,
            )
        if (chosen & ~seen).any():
            x, y = plane[chosen & ~seen].T
            axes.scatter(x, y, facecolors="none", marker=marker, s=42, edgecolors=GAP, label=f"{told}, not seen")
    variable = record.variables[0]
    if dots is not None:
        axes.figure.colorbar(
            dots, ax=axes, shrink=0.6, label=f"{variable} in {variable.units}" if variable.units else str(variable)
        )
    axes.set_aspect("equal")
    axes.set_xlabel("km east")
    axes.set_ylabel("km north")
    axes.set_title(f"{record.name}, {str(record.times[frame])[:16]}")
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4)


def _series(axes: Axes, record: StationRecord) -> None:
    """The stations furthest apart on a line through the first principal direction: the ends and the middle."""
    plane = record.placement.plane
    along = (plane - plane.mean(0)) @ torch.linalg.svd(plane - plane.mean(0), full_matrices=False).Vh[0]
    order = along.argsort()
    # Without the doubles of a record of two stations, in order.
    picked = dict.fromkeys([int(order[0]), int(order[len(order) // 2]), int(order[-1])])
    for station, colour in zip(picked, ("tab:blue", "tab:orange", "tab:green"), strict=False):
        values = np.where(record.seen[:, station, 0], record.values[:, station, 0], np.nan)
        axes.plot(record.times, values, color=colour, linewidth=0.8, label=record.ids[station])
    variable = record.variables[0]
    axes.set_ylabel(f"{variable} in {variable.units}" if variable.units else str(variable))
    axes.legend(fontsize=8, title="station", title_fontsize=8, loc="best")


def _silence(axes: Axes, record: StationRecord) -> None:
    time, station = (~record.seen[..., 0]).nonzero().unbind(1)
    axes.plot(record.times[time.numpy()], station.numpy(), "|", color=GAP, markersize=3)
    axes.set_ylim(-1, len(record.ids))
    axes.set_ylabel("station without a value")
    if len(time) == 0:
        axes.text(0.5, 0.5, "nothing is missing", transform=axes.transAxes, ha="center", color="0.4")
    axes.tick_params(axis="x", labelrotation=25)


def _spans(axes: Axes, record: StationRecord, split: StationSplit | None) -> None:
    if split is None:
        return
    for (name, grey), span in zip(SPANS, split.spans(len(record)), strict=True):
        if len(span):
            start, stop = record.times[span.start], record.times[span.stop - 1]
            axes.axvspan(start, stop, color=grey, zorder=0)
            axes.text(start, 1.01, f" {name}", transform=axes.get_xaxis_transform(), fontsize=8, va="bottom")
