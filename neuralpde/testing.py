"""Hypothesis strategies for graphs, surfaces and fields, and the tolerances that the laws of this project use.

They need the `test` extra; `import neuralpde` does not import them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor

from operators.checks import real_dtype
from operators.domains import Graph, TriangleMesh

__all__ = ["aspect", "assert_within", "damaged_meshes", "fields", "graphs", "meshes", "roundoff"]

Floats = NDArray[np.float64]
Faces = NDArray[np.int64]

_WEIGHTS = {
    "ones": st.just(1.0),
    "dyadic": st.integers(0, 32).map(lambda k: k / 8),
    "wide": st.floats(-6, 6).map(lambda e: 10.0**e),
}
_BASES: dict[str, tuple[list[tuple[float, float, float]], list[tuple[int, int, int]]]] = {
    "triangle": ([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(0, 1, 2)]),
    "square": ([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], [(0, 1, 2), (0, 2, 3)]),
    "fan": (
        [(0, 0, 0), (2, 0, 0), (1, 2, 0), (-1, 1.5, 0), (-2, -0.5, 0), (0, -2, 0)],
        [(0, 1, 2), (0, 2, 3), (0, 3, 4), (0, 4, 5), (0, 5, 1)],
    ),
    "tetrahedron": ([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)], [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]),
    "bow-tie": ([(0, 0, 0), (1, 0, 0), (1, 1, 0), (-1, 0, 0), (-1, -1, 0)], [(0, 1, 2), (0, 3, 4)]),
    "three faces at one edge": (
        [(0, 0, 0), (0, 0, 1), (1, 0, 0), (-1, 1, 0.5), (-1, -1, 0.25)],
        [(0, 1, 2), (0, 1, 3), (1, 0, 4)],
    ),
    "five faces at one edge": (
        [(0, 0, 0), (0, 0, 1), (1, 0, 0), (-1, 1, 0.5), (-1, -1, 0.25), (0.5, 1, -0.25), (0.25, -1.5, 0.75)],
        [(0, 1, 2), (0, 1, 3), (1, 0, 4), (0, 1, 5), (1, 0, 6)],
    ),
    "Möbius band": (
        [(2, 0, -0.5), (2, 0, 0.5), (-1, 1.75, -0.5), (-1, 1.75, 0.5), (-1.25, -1.75, -0.25), (-0.75, -1.75, 0.25)],
        [(0, 1, 2), (1, 3, 2), (2, 3, 4), (3, 5, 4), (4, 5, 1), (5, 0, 1)],
    ),
}
_PLANAR = ("triangle", "square", "fan", "bow-tie")


def roundoff(dtype: torch.dtype) -> float:
    """u, the unit round-off of a real or complex dtype: 6e-8 for float32, 1.1e-16 for float64."""
    return torch.finfo(real_dtype(dtype)).eps / 2


def assert_within(actual: Tensor, expected: Tensor | float, bound: Tensor | float) -> None:
    """Assert |actual − expected| ≤ bound entrywise, NaN counting as a violation; the message names the worst entry."""
    error = (actual.detach() - expected).abs().to(torch.float64)
    limit = torch.as_tensor(bound, dtype=torch.float64).detach().expand_as(error)
    bad = ~(error <= limit)
    if bool(bad.any()):
        worst = int(torch.where(bad, (error - limit).nan_to_num(torch.inf), -torch.inf).argmax())
        raise AssertionError(
            f"{int(bad.sum())} of {bad.numel()} entries are off: at flat index {worst} the error is "
            f"{float(error.reshape(-1)[worst]):.3e}, the bound {float(limit.reshape(-1)[worst]):.3e}"
        )


def aspect(mesh: TriangleMesh) -> float:
    """max |x| over the least height of a triangle: how much the geometry magnifies the rounding of coordinates."""
    points, faces = mesh.arrays
    return float(np.abs(points).max() / _heights(points, faces).min())


@st.composite
def graphs(
    draw: st.DrawFn,
    *,
    min_nodes: int = 1,
    max_nodes: int = 12,
    weights: Sequence[str] = ("ones", "dyadic", "wide"),
    simple: bool = False,
    directed: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Graph:
    """Undirected graphs: isolated nodes, several components, and (unless `simple`) self-loops and repeated edges.

    Edges are drawn as a list of pairs, so shrinking removes edges; paths, stars, complete and bipartite graphs, and unions
    of two, come besides. `weights` names "ones", "dyadic" (multiples of ⅛, zero included, whose sums are exact) and "wide"
    (1e-6 to 1e6). `directed`: each edge in one direction only, unless it is drawn in both.
    """
    n = draw(st.integers(min_nodes, max_nodes), label="nodes")
    ends = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))
    pairs = draw(st.one_of(st.lists(ends, max_size=2 * n), st.sampled_from(_named_graphs(n))), label="edges")
    if simple:
        pairs = sorted({p if directed else (min(p), max(p)) for p in pairs if p[0] != p[1]})
    weight = draw(
        st.sampled_from(list(weights)).flatmap(lambda kind: _lists(_WEIGHTS[kind], len(pairs))), label="weights"
    )
    both = [(i, j, w) for (i, j), w in zip(pairs, weight, strict=True)]
    if not directed:
        both += [(j, i, w) for i, j, w in both if i != j]
    both = draw(st.permutations(both), label="order") if len(both) < 12 else both
    index = torch.tensor([[i for i, _, _ in both], [j for _, j, _ in both]], dtype=torch.int64)
    return Graph(index.reshape(2, -1), n, torch.tensor([w for _, _, w in both], dtype=dtype))


@st.composite
def meshes(
    draw: st.DrawFn,
    *,
    max_edits: int = 6,
    planar: bool = False,
    slivers: bool = True,
    dtype: torch.dtype = torch.float64,
) -> TriangleMesh:
    """Small valid surfaces: closed, bounded, non-manifold, non-orientable, obtuse, near-degenerate, in pieces.

    A tiny base mesh and a list of edits, so shrinking removes edits. An edit that would make a triangle flatter than
    1e-6 (1e-2 without `slivers`) or two vertices coincide is left out. `planar`: z = 0, faces counter-clockwise.
    """
    name = draw(st.sampled_from(_PLANAR if planar else list(_BASES)), label="base")
    points, faces = np.array(_BASES[name][0], dtype=np.float64), np.array(_BASES[name][1], dtype=np.int64)
    thinnest = 1e-6 if slivers else 1e-2
    for edit in draw(st.lists(_edits(planar, slivers), max_size=max_edits), label="edits"):
        changed = _edited(points, faces, edit)
        if _usable(*changed, thinnest, planar):
            points, faces = changed
    scale = draw(st.sampled_from([0, -20, 20]), label="scale 2^k")
    offset = draw(st.sampled_from([0.0, 1.0, 1024.0]), label="offset in sizes")
    if dtype == torch.float64:
        points = (points + offset) * 2.0**scale
    return TriangleMesh(torch.from_numpy(points).to(dtype), torch.from_numpy(faces))


@st.composite
def damaged_meshes(draw: st.DrawFn) -> tuple[TriangleMesh, Floats, Faces, dict[str, int]]:
    """A valid mesh, and vertices and faces that become it again if a list of damages is taken back, counted by kind.

    "split": a corner of a face is a vertex of its own at the same place; "repeat": a face names a vertex twice; "flat": a
    face without area; "duplicate": a face again, turned or turned over; "stray": a vertex without a face. With none
    drawn the arrays are the mesh, so shrinking ends there.
    """
    mesh = draw(meshes(slivers=False))
    points, faces = mesh.arrays[0].copy(), mesh.arrays[1].copy()
    added = dict.fromkeys(["split", "repeat", "flat", "duplicate", "stray"], 0)
    for defect, which in draw(st.lists(st.tuples(st.sampled_from(list(added)), st.integers(0, 99)), max_size=6), label="damage"):
        added[defect] += 1
        corner, face = faces[which % len(faces), which % 3], mesh.faces[which % len(mesh.faces)].numpy()
        if defect == "split":
            points = np.concatenate([points, points[corner][None]])
            faces[which % len(faces), which % 3] = len(points) - 1
        elif defect == "repeat":
            faces = np.concatenate([faces, [[face[0], face[1], face[0]]]])
        elif defect == "flat":
            points = np.concatenate([points, (points[face[0]] * 0.75 + points[face[1]] * 0.25)[None]])
            faces = np.concatenate([faces, [[face[0], face[1], len(points) - 1]]])
        elif defect == "duplicate":
            faces = np.concatenate([faces, np.roll(face, which)[None] if which % 2 else face[::-1][None]])
        else:
            points = np.concatenate([points, points[:1] + np.array([0, 0, 37 + len(points)])])
    return mesh, points, faces, added


@st.composite
def fields(
    draw: st.DrawFn,
    nodes: int,
    channels: int | None = None,
    *,
    batch: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float64,
    exact: bool = False,
) -> Tensor:
    """Fields (*batch, nodes, channels): small dyadic numbers first, then zero, constant and arbitrary floats to 1e6.

    `exact` keeps to small multiples of ⅛, on which sums and products are exact. A complex dtype draws two parts.
    """
    c = draw(st.integers(1, 3), label="channels") if channels is None else channels
    shape = (*batch, nodes, c)
    if dtype.is_complex:
        part = fields(nodes, c, batch=batch, dtype=real_dtype(dtype), exact=exact)
        return torch.complex(draw(part), draw(part))
    dyadic = arrays(np.float64, shape, elements=st.integers(-64, 64).map(lambda k: k / 8))
    # Products of smaller numbers leave float32's range, which is no round-off.
    anything = st.floats(-1000000, 1000000, width=32 if dtype == torch.float32 else 64).map(
        lambda v: v if abs(v) > 1e-6 else 0.0
    )
    kinds = [dyadic, st.just(np.zeros(shape)), st.just(np.full(shape, 0.375))]
    if not exact:
        kinds.append(arrays(np.float64, shape, elements=anything))
    return torch.from_numpy(draw(st.one_of(kinds), label="field").copy()).to(dtype)


def _lists(elements: st.SearchStrategy[float], size: int) -> st.SearchStrategy[list[float]]:
    return st.lists(elements, min_size=size, max_size=size)


def _named_graphs(n: int) -> list[list[tuple[int, int]]]:
    half = n // 2
    halves = zip(_connected(half), _connected(n - half), strict=True)
    unions = [one + [(i + half, j + half) for i, j in other] for one, other in halves]
    return [[], *_connected(n), *unions]


def _connected(n: int) -> list[list[tuple[int, int]]]:
    star, path = [(0, i) for i in range(1, n)], [(i, i + 1) for i in range(n - 1)]
    complete = [(i, j) for i in range(n) for j in range(i)]
    bipartite = [(i, j) for i in range(0, n, 2) for j in range(1, n, 2)]
    return [path, star, complete, bipartite]


def _edits(planar: bool, slivers: bool) -> st.SearchStrategy[tuple[Any, ...]]:
    which, eighths = st.integers(0, 99), st.integers(-8, 8).map(lambda k: k / 8)
    thin = st.sampled_from([0.25, 0.1, 1e-3, 1e-6] if slivers else [0.25, 0.1])
    depth = st.just(0.0) if planar else eighths
    return st.one_of(
        st.tuples(st.just("subdivide"), which),
        st.tuples(st.just("move"), which, st.tuples(eighths, eighths, depth)),
        st.tuples(st.just("sliver"), which, thin),
        st.tuples(st.just("flip"), which),
        st.tuples(st.just("detach"), which),
        st.tuples(st.just("copy"), st.integers(4, 9)),
    )


def _edited(points: Floats, faces: Faces, edit: tuple[Any, ...]) -> tuple[Floats, Faces]:
    kind, which = edit[0], edit[1] % len(points if edit[0] == "move" else faces)
    if kind == "move":
        moved = points.copy()
        moved[which] += edit[2]
        return moved, faces
    if kind == "copy":
        if len(faces) > 20:
            return points, faces
        return np.concatenate([points, points + np.array([edit[1], 0, 0])]), np.concatenate(
            [faces, faces + len(points)]
        )
    if kind == "flip":
        flipped = faces.copy()
        flipped[which] = flipped[which, ::-1]
        return points, flipped
    if kind == "detach":
        # A component of its own, if every corner has another face to stay with.
        n, rest = len(points), np.delete(faces, which, axis=0)
        if not np.isin(faces[which], rest).all():
            return points, faces
        return np.concatenate([points, points[faces[which]] + np.array([-8, 0, 0])]), np.concatenate([rest, [[n, n + 1, n + 2]]])
    a, b, c = faces[which]
    thin = edit[2] if kind == "sliver" else 1 / 3
    new = points[a] * thin + points[b] * (1 - thin) / 2 + points[c] * (1 - thin) / 2
    n = len(points)
    return np.concatenate([points, new[None]]), np.concatenate(
        [np.delete(faces, which, axis=0), [[a, b, n], [b, c, n], [c, a, n]]]
    )


def _usable(points: Floats, faces: Faces, thinnest: float, planar: bool) -> bool:
    if len(np.unique(points, axis=0)) < len(points):
        return False
    heights, longest = _heights(points, faces), float(np.ptp(points, axis=0).max())
    if not bool((heights > thinnest / 4 * longest).all()):
        return False
    if planar:
        a, b, c = (points[faces[:, k], :2] for k in range(3))
        signed = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
        # All counter-clockwise: then the fan around an inner vertex closes, and linear functions are harmonic there.
        return bool((signed > 0).all())
    return True


def _heights(points: Floats, faces: Faces) -> Floats:
    a, b, c = (points[faces[:, k]] for k in range(3))
    longest = np.max([np.linalg.norm(e, axis=1) for e in (b - a, c - b, a - c)], axis=0)
    heights: Floats = np.linalg.norm(np.cross(b - a, c - a), axis=1) / longest
    return heights
