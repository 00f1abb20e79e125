"""Pictures of fields on surfaces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neuralpde.files import write_atomically
from operators import FieldError, TriangleMesh


def save_fields(
    path: str | Path,
    mesh: TriangleMesh,
    fields: Mapping[str, Tensor],
    *,
    limits: tuple[float, float] | None = None,
    colours: str = "viridis",
    view: tuple[float, float] = (20.0, -60.0),
) -> None:
    """Draw scalar fields on a surface side by side, with one scale of colours, to a picture file.

        npde.save_fields("heat.png", mesh, {"t = 0": solution.x[0], "t = 1": solution.x[-1]})

    Args:
        path: the file; its ending says the format (.png, .pdf, .svg).
        fields: title → field, (n,) or (n, 1).
        limits: the values at the ends of the scale; the least and largest of all fields if absent.
        colours: a colour map of Matplotlib.
        view: elevation and azimuth of the eye, in degrees.

    Raises:
        FieldError: a field of other nodes, or of several channels.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    if not isinstance(fields, Mapping):
        raise TypeError(f"fields must name each field, as in {{'t = 0': u}}, not a {type(fields).__name__}")
    if not fields:
        raise FieldError("there is no field to draw: pass a title and a field, as in {'t = 0': u}")
    values = {title: _values(title, u, mesh.num_nodes) for title, u in fields.items()}
    finite = np.concatenate([v[np.isfinite(v)] for v in values.values()])
    least, most = limits or ((float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0))
    points, faces = mesh.arrays
    figure = Figure(figsize=(3.2 * len(values) + 1, 3.4), layout="constrained")
    panels = figure.subplots(1, len(values), subplot_kw={"projection": "3d"}, squeeze=False)[0]
    norm = Normalize(least, most)
    for panel, (title, field) in zip(panels, values.items(), strict=True):
        depth = points[:, 2] if points.shape[1] == 3 else np.zeros(len(points))
        surface = panel.plot_trisurf(points[:, 0], points[:, 1], depth, triangles=faces, cmap=colours, norm=norm, linewidth=0)
        surface.set_array(field[faces].mean(axis=1))
        panel.set(aspect="equal", title=title)
        panel.view_init(*view)
        panel.set_axis_off()
    figure.colorbar(ScalarMappable(norm, colours), ax=list(panels), shrink=0.7)
    path = Path(path)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110, format=path.suffix.lstrip(".") or "png"))


def _values(title: str, u: Tensor, nodes: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if u.numel() != nodes or u.is_complex():
        raise FieldError(f"{title}: a real field of shape ({nodes},) or ({nodes}, 1) is drawn, not {u.dtype} {tuple(u.shape)}")
    flat: np.ndarray[tuple[int], np.dtype[np.float64]] = u.detach().reshape(-1).to("cpu", torch.float64).numpy()
    return flat
