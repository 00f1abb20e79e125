"""Pictures and report of the Laplacians of random functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm

from neuralpde.files import write_atomically
from neuralpde.laplacian_983 import MODES, SPREAD, Torus, periodic_functions
from neuralpde.report import Picture, Table, write_report

Rows = Sequence[Mapping[str, Any]]
Results = Mapping[str, Sequence[Mapping[str, Any]]]


def write_laplacian_report(folder: Path, rows: Rows, results: Results, torus: Torus) -> None:
    """Write the pictures and report.html to the run folder."""
    figures = folder / "figures"
    task_picture(figures / "function.png", torus)
    error_maps(figures / "error-map.png", results, torus)
    write_report(
        folder / "report.html",
        title="The Laplacian of random functions on scattered nodes",
        lead=(
            "Each method gives the Laplacian of a random periodic function from its values at the nodes of a mesh. It learns "
            "from other functions at the same nodes, and is scored on functions that it has not seen; then at other nodes too, "
            "but for those methods that belong to a placement.\n\n"
            "The spectrum of the functions is not printed in the paper. It was chosen so that the cotangent Laplacian has its "
            "published error, which makes the other published numbers comparable only roughly. It is Gaussian, as is the kernel "
            "whose lengths `ours` learns: that favours ours. sdl multiplies the cotangent weights of the mesh, sdl-graph the "
            "plain differences of the graph, as the layer does that was published."
        ),
        facts={
            "placements": str(max(each["n"] for each in rows)),
            "nodes": str(torus.num_nodes),
            "waves": f"up to {MODES} an axis, Gaussian envelope of width {SPREAD}",
        },
        tables=[_table(name, rows) for name in dict.fromkeys(each["table"] for each in rows)],
        pictures=[
            Picture("A function and its Laplacian", "At the nodes of the first placement.", figures / "function.png"),
            Picture("Errors", "Root mean square error at each node over the test functions.", figures / "error-map.png"),
        ],
        movies=[],
    )


def _table(name: str, rows: Rows) -> Table:
    found = {(each["method"], each["metric"]): each for each in rows if each["table"] == name}
    metrics = list(dict.fromkeys(metric for _, metric in found))
    body = []
    for method in dict.fromkeys(method for method, _ in found):
        cells = []
        for metric in metrics:
            each = found[method, metric]
            cells.append(f"{each['value']:.3g}" + (f" ± {each['std']:.1g}" if each["n"] > 1 else ""))
            if metric in ("mse", "rne"):
                cells.append("" if each["published"] is None else f"{each['published']:g}")
        body.append([method, *cells])
    header = ["method", *[title for m in metrics for title in ((m, f"{m}, paper") if m in ("mse", "rne") else (m,))]]
    ours = frozenset(k for k, line in enumerate(body) if line[0] == "ours")
    return Table(name, "Mean squared and relative error on the test functions.", header, body, ours)


def task_picture(path: Path, torus: Torus) -> None:
    """One function and its Laplacian."""
    values, laplacians = periodic_functions(1, 0).at(torus.points)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    for axis, field, title in zip(axes, (values[0], laplacians[0]), ("f", "∆f"), strict=True):
        limit = float(field.abs().max())
        drawn = axis.scatter(*torus.points.T.numpy(), c=field.numpy(), s=14, cmap="coolwarm", vmin=-limit, vmax=limit)
        axis.set(title=title, aspect="equal")
        figure.colorbar(drawn, ax=axis, shrink=0.8)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))
    plt.close(figure)


def error_maps(path: Path, results: Results, torus: Torus) -> None:
    """The error of every method at every node of the first placement, all in one logarithmic scale."""
    fields = {name: np.maximum(parts[0]["by_node"], 1e-6) for name, parts in results.items()}
    norm = LogNorm(min(f.min() for f in fields.values()), max(f.max() for f in fields.values()))
    columns = min(4, len(fields))
    lines = -(-len(fields) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3.2 * columns, 3.2 * lines), layout="constrained", squeeze=False)
    for axis in axes.flat[len(fields) :]:
        axis.axis("off")
    for axis, (name, field) in zip(axes.flat, fields.items(), strict=False):
        drawn = axis.scatter(*torus.points.T.numpy(), c=field, s=8, norm=norm, cmap="viridis")
        axis.set(title=name, aspect="equal", xticks=[], yticks=[])
    figure.colorbar(drawn, ax=axes.ravel().tolist(), shrink=0.7)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))
    plt.close(figure)
