"""A run as one HTML file: numbers, pictures and fields that move on the surface, readable without a network.

A field becomes one byte a value, code = round(255 (u - lo) / (hi - lo)), where [lo, hi] is the range of a
movie's first panel: u is kept to within (hi - lo) / 510, and values outside are clipped.
"""

import base64
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from matplotlib import colormaps, ticker
from numpy.typing import NDArray

MAX_FRAMES = 60  # a byte a value: 60 frames of 10,000 vertices are 0.8 MB of text a panel
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
DIGITS = r"[-+−]?(\d[\d,]*)?\.?\d+(e[-+−]?\d+)?"
UNIT = r"(%|[×a-zµμ/²³]{1,4})"
NUMBER = re.compile(rf"[<>≤≥≈~×]?\s?{DIGITS}(\s?±\s?{DIGITS})?\s?{UNIT}?|[-+−]?(nan|inf|∞)|[-–—]?", re.I)


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; columns of numbers are right-aligned, rows in `emphasis` are bold."""

    title: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    emphasis: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Picture:
    """A PNG file, embedded."""

    title: str
    caption: str
    path: Path


@dataclass(frozen=True, eq=False)
class MeshMovie:
    """Fields on one surface, side by side: vertices (n, 3), faces (m, 3), times (T,), each panel (T, n).

    All panels share the camera and the colour scale: the range of the *first* panel, which must be finite.
    A frame of another panel that holds a NaN or an infinity is drawn in grey and says so.
    """

    title: str
    caption: str
    vertices: NDArray[np.floating[Any]]
    faces: NDArray[np.integer[Any]]
    times: NDArray[np.floating[Any]]
    panels: Mapping[str, NDArray[np.floating[Any]]]


def write_report(
    path: Path,
    *,
    title: str,
    lead: str,
    facts: Mapping[str, str],
    tables: Sequence[Table],
    pictures: Sequence[Picture],
    movies: Sequence[MeshMovie],
) -> None:
    """Write the report to `path`, whole or not at all: an older report survives any failure.

    Raises ValueError where a table, picture or movie does not fit together, before anything is written.
    """
    sections = [
        ("Numbers", "tables", [_table(table, f"table-{i}") for i, table in enumerate(tables)]),
        ("Fields on the surface", "movies", [_movie(movie) for movie in movies]),
        ("Pictures", "pictures", [_picture(picture) for picture in pictures]),
    ]
    page = _fill(
        "report.html",
        title=escape(title),
        lead="".join(f"<p>{escape(part)}</p>" for part in lead.split("\n\n") if part.strip()),
        facts="".join(
            f"<div class={'long' if len(v) > 24 else 'short'}><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>"
            for k, v in facts.items()
        ),
        sections="".join(
            f'<section class="{kind}"><h2>{heading}</h2>\n<div class="items">{"".join(items)}</div></section>'
            for heading, kind, items in sections
            if items
        ),
        style=_asset("report.css"),
        script=_asset("viewer.js"),
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _asset(name: str) -> str:
    return (resources.files(__package__) / "report_assets" / name).read_text(encoding="utf-8")


def _fill(template: str, **parts: str) -> str:
    return Template(_asset(template)).substitute(parts)


def _table(table: Table, key: str) -> str:
    width = len(table.header)
    for i, row in enumerate(table.rows):
        if len(row) != width:
            raise ValueError(f"table {table.title!r}: row {i} has {len(row)} cells, the header has {width}")
    if strange := sorted(i for i in table.emphasis if not 0 <= i < len(table.rows)):
        raise ValueError(f"table {table.title!r}: emphasis names rows {strange} of {len(table.rows)}")
    columns = [[row[j].strip() for row in table.rows] for j in range(width)]
    kinds = [' class="number"' if any(c) and all(map(NUMBER.fullmatch, c)) else "" for c in columns]
    body = ""
    for i, row in enumerate([table.header, *table.rows], start=-1):
        body += '<tr class="emphasis">' if i in table.emphasis else "<tr>"
        for j, cell in enumerate(row):
            tag = "th" if i < 0 or j == 0 else "td"
            body += f"<{tag}{kinds[j]}>{escape(cell)}</{tag}>"
        body += "</tr></thead><tbody>\n" if i < 0 else "</tr>\n"
    return f"""
<article>
<h3 id="{key}">{escape(table.title)}</h3>
<div class="scroll" role="region" aria-labelledby="{key}" tabindex="0">
<table aria-labelledby="{key}"><thead>{body}</tbody></table></div>
<p class="note">{escape(table.caption)}</p>
</article>
"""


def _picture(picture: Picture) -> str:
    data = picture.path.read_bytes()
    if not data.startswith(PNG_SIGNATURE):
        raise ValueError(f"picture {picture.title!r}: {picture.path} is not a PNG file")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    return f"""
<figure{' class="wide"' if width > 1.9 * height else ""}><h3>{escape(picture.title)}</h3>
<img alt="{escape(picture.title)}: {escape(picture.caption)}"
 width="{width}" height="{height}" src="data:image/png;base64,{_base64(data)}">
<figcaption class="note">{escape(picture.caption)}</figcaption>
</figure>
"""


def _movie(movie: MeshMovie) -> str:
    data, clipped = _encode(movie)
    lo, hi = data["range"]
    outside = ", ".join(f"{100 * share:.2g} % of “{name}”" for name, share in clipped.items() if share)
    clip = f"values outside take the colour of the nearer end ({outside})" if outside else "none lies outside"
    ends = " to ".join(f"{x if abs(x) > 1e-6 * (hi - lo) else 0.0:.3g}" for x in (lo, hi))
    scale = f"Colours: the range of “{next(iter(movie.panels))}”, {ends}; {clip}."
    return _fill(
        "movie.html",
        title=escape(movie.title),
        caption=escape(f"{movie.caption} {scale}"),
        last=str(len(data["labels"]) - 1),
        data=json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
    )


def _encode(movie: MeshMovie) -> tuple[dict[str, Any], dict[str, float]]:
    """Return what the viewer reads, and the share of each panel's values that are finite but out of range."""
    vertices, faces, times, panels = _checked(movie)
    keep = np.unique(np.linspace(0, len(times) - 1, min(len(times), MAX_FRAMES)).round().astype(np.intp))
    panels = {name: panel[keep] for name, panel in panels.items()}
    truth = next(iter(panels.values()))
    lo, hi = float(truth.min()), float(truth.max())
    if hi - lo <= 1e-12 * max(abs(lo), abs(hi)):  # a constant field: any range around it will do
        lo, hi = lo - 0.5 * (abs(lo) or 1.0), hi + 0.5 * (abs(lo) or 1.0)
    encoded, clipped = [], {}
    for name, panel in panels.items():
        finite = np.isfinite(panel)
        codes = np.rint(255 * ((np.where(finite, panel, lo).clip(lo, hi) - lo) / (hi - lo)))
        clipped[name] = float(np.mean(finite & ((panel < lo) | (panel > hi))))
        broken = np.flatnonzero(~finite.all(axis=1)).tolist()
        encoded.append({"name": name, "broken": broken, "values": _base64(codes.astype(np.uint8))})
    origin, extent = vertices.min(axis=0), float(np.ptp(vertices, axis=0).max()) or 1.0
    places = ticker.MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(lo, hi)
    ticks = [float(x) for x in places if abs(2 * x - lo - hi) <= 1.01 * (hi - lo)]
    return {
        "count": len(vertices),
        "positions": _base64(np.rint(65535 * ((vertices - origin) / extent)).astype("<u2")),
        "origin": origin.tolist(),
        "extent": extent,
        "faces": _base64(faces.astype("<u2" if len(vertices) <= 65536 else "<u4")),
        "view": _view(vertices).ravel().round(6).tolist(),
        "labels": _labels(times[keep].tolist()),
        "range": [lo, hi],
        "ticks": [[(x - lo) / (hi - lo), label] for x, label in zip(ticks, _labels(ticks), strict=True)],
        "colours": _base64(np.rint(255 * colormaps["viridis"](np.arange(256))[:, :3]).astype(np.uint8)),
        "panels": encoded,
    }, clipped


def _checked(movie: MeshMovie) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], dict[str, NDArray[Any]]]:
    def need(fits: object, what: str) -> None:
        if not fits:
            raise ValueError(f"movie {movie.title!r}{what}")

    vertices, times = np.asarray(movie.vertices, float), np.asarray(movie.times, float)
    faces, n = np.asarray(movie.faces), len(movie.vertices)
    need(n and vertices.shape == (n, 3), f": vertices must have shape (n, 3), got {vertices.shape}")
    need(faces.size and faces.shape == (len(faces), 3), f": faces must have shape (m, 3), got {faces.shape}")
    need(np.issubdtype(faces.dtype, np.integer), f": faces must be integers, got {faces.dtype}")
    need(0 <= faces.min() <= faces.max() < n, f": faces name {faces.min()} to {faces.max()}, n = {n}")
    need(times.size and times.ndim == 1, f": times must have shape (T,), got {times.shape}")
    need(np.isfinite(vertices).all() and np.isfinite(times).all(), ": vertices and times must be finite")
    need(movie.panels, ": it needs at least one panel")
    panels = {name: np.asarray(panel, float) for name, panel in movie.panels.items()}
    for name, panel in panels.items():
        shapes = f"{panel.shape}, expected (T, n) = {(len(times), n)}"
        need(panel.shape == (len(times), n), f", panel {name!r}: shape {shapes}")
    first, truth = next(iter(panels.items()))
    need(np.isfinite(truth).all(), f", panel {first!r}: it sets the colour scale, so it must be finite")
    return vertices, faces, times, panels


def _view(vertices: NDArray[Any]) -> Any:
    """Return a rotation, rows right, up, towards the eye: three-quarter with y up; a sheet faces the eye."""
    spread, axes = np.linalg.eigh(np.cov(vertices.T, bias=True))
    right, toward = (axes[:, k] * np.sign(axes[np.abs(axes[:, k]).argmax(), k]) for k in (2, 0))
    sheet = spread[0] < 0.02 * spread[1]
    base = np.stack([right, np.cross(toward, right), toward]) if sheet else np.eye(3)
    yaw, pitch = (-0.35, 0.5) if sheet else (-0.6, 0.35)
    (c, s), (k, z) = (np.cos(yaw), np.sin(yaw)), (np.cos(pitch), np.sin(pitch))
    turn = np.array([[1, 0, 0], [0, k, -z], [0, z, k]]) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return turn @ base


def _labels(numbers: Sequence[float]) -> list[str]:
    """Write numbers with the fewest digits, three at least, that keep different ones different."""
    digits = next(d for d in range(3, 18) if len({f"{x:.{d}g}" for x in numbers}) == len(set(numbers)))
    return [f"{x:.{digits}g}" for x in numbers]


def _base64(data: bytes | NDArray[Any]) -> str:
    return base64.b64encode(data if isinstance(data, bytes) else data.tobytes()).decode("ascii")
