"""Pictures and report of the directional derivatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.collections import LineCollection

from neuralpde.directional import FUNCTIONS, directional_task, drawn_points
from neuralpde.files import write_atomically
from neuralpde.report import Picture, Table, write_report

Rows = Sequence[Mapping[str, Any]]


def write_directional_report(folder: Path, rows: Rows, nodes: int) -> None:
    """Write the pictures and report.html to the run folder."""
    figures = folder / "figures"
    placement_picture(figures / "placement.png", nodes)
    error_picture(figures / "error.png", rows)
    tables = [_table(name, [each for each in rows if each["table"] == name]) for name in dict.fromkeys(r["table"] for r in rows)]
    write_report(
        folder / "report.html",
        title="Directional derivatives at scattered points",
        lead=(
            "From values at scattered points each method estimates the slope along every edge of the nearest-neighbour graph. "
            "It learns from the true slopes of 70 % of the edges, is chosen on 10 % and scored on 20 %.\n\n"
            "The networks are trained more briefly than in the paper. Least squares learns nothing."
        ),
        facts={"placements": str(max(each["n"] for each in rows)), "nodes": str(nodes)},
        tables=tables,
        pictures=[
            Picture("The task", "The first placement, each edge coloured by the true slope.", figures / "placement.png"),
            Picture("Errors", "Mean squared error on the test edges; the spread is over placements.", figures / "error.png"),
        ],
        movies=[],
    )


def _table(name: str, rows: Rows) -> Table:
    body = []
    for each in rows:
        if each["metric"] == "mse":
            label = each["method"] + (f", {each['nodes']} nodes" if "nodes" in each else "")
            spread = f" ± {100 * each['std']:.2g}" if each["n"] > 1 else ""
            paper = "" if each["published"] is None else f"{100 * each['published']:.2f}"
            body.append([label, f"{100 * each['value']:.3g}{spread}", paper])
    ours = frozenset(k for k, line in enumerate(body) if line[0].startswith("ours"))
    return Table(name, "Mean squared error × 100.", ["method", "MSE ×1e-2", "paper"], body, ours)


def placement_picture(path: Path, nodes: int) -> None:
    """The first placement with its edges, coloured by the slopes of both functions."""
    figure, axes = plt.subplots(1, len(FUNCTIONS), figsize=(10, 4.6), layout="constrained")
    for axis, function in zip(axes, FUNCTIONS, strict=True):
        task = directional_task(function, drawn_points(nodes, 0))
        ends = task.cloud.points[task.graph.edge_index.T].numpy()
        lines = LineCollection(list(ends), array=task.slopes.numpy(), cmap="coolwarm", linewidths=1.5)
        axis.add_collection(lines)
        axis.scatter(*task.cloud.points.T.numpy(), c="0.2", s=6, zorder=2)
        axis.set(title=function.name, aspect="equal")
        figure.colorbar(lines, ax=axis, shrink=0.8)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))
    plt.close(figure)


def error_picture(path: Path, rows: Rows) -> None:
    """The error of every method, a panel for each table of one number a method, on a logarithmic scale."""
    kept = [each for each in rows if each["metric"] == "mse" and "nodes" not in each]
    tables = list(dict.fromkeys(each["table"] for each in kept))
    figure, axes = plt.subplots(1, len(tables), figsize=(3.4 * len(tables), 4), layout="constrained", squeeze=False, sharey=True)
    for axis, table in zip(axes[0], tables, strict=True):
        chosen = [each for each in kept if each["table"] == table]
        # Exact up to rounding is drawn at the floor of the picture.
        heights = [max(each["value"], 1e-8) for each in chosen]
        colours = ["tab:blue" if each["method"] == "ours" else "0.6" for each in chosen]
        axis.bar([each["method"] for each in chosen], heights, color=colours, bottom=1e-9)
        axis.set(yscale="log", title=table.removeprefix("padgn-derivatives-"))
        axis.tick_params(axis="x", rotation=70)
    axes[0][0].set_ylabel("mean squared error")
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))
    plt.close(figure)
