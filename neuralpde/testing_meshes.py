"""Hypothesis strategies for triangle meshes of selectable hardness, and for damaged ones."""

from __future__ import annotations

import math
from collections.abc import Collection
from enum import Enum
from functools import cache
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuralpde.testing_bounds import heights_of
from neuralpde.testing_surfaces import (
    BASES,
    PLANAR,
    Copy,
    Detach,
    Edit,
    Flip,
    Move,
    Pinch,
    Remove,
    Sliver,
    Squeeze,
    Subdivide,
    Surface,
    usable,
)
from operators.domains import TriangleMesh
from operators.report import MeshReport, report_mesh

__all__ = ["Hardness", "damaged_meshes", "hardness_of", "meshes"]

Floats = NDArray[np.float64]
Faces = NDArray[np.int64]


class Hardness(Enum):
    """What makes a mesh hard for an operator; `hardness_of` tells which of them a mesh has."""

    OBTUSE = "an angle over 90°"
    SLIVER = "a triangle less high than 1/400 of the extent of the mesh; drawn ones go down to 1e-6"
    BOUNDARY = "an edge with one face"
    CLOSED = "no such edge"
    NON_MANIFOLD = "an edge of three faces or more, or pieces that meet in one vertex only"
    NON_ORIENTABLE = "a one-sided piece, such as a Möbius band"
    FLIPPED = "an orientable surface whose neighbouring faces disagree about the outside"
    HANDLE = "a manifold, orientable surface with a hole through it, as a torus has"
    COMPONENTS = "several components"
    SCALED = "an extent below 1e-3 or above 1e5; drawn ones are scaled by 2^±20"
    OFFSET = "more than 100 extents away from the origin"


H = Hardness


def hardness_of(mesh: TriangleMesh) -> set[Hardness]:
    """Which kinds of hardness this mesh has."""
    return _hardness(mesh.report(), *mesh.arrays)


def _hardness(report: MeshReport, points: Floats, faces: Faces) -> set[Hardness]:
    slack = 1e-4  # what an offset of 1024 sizes leaves of a right angle, in degrees
    told = {
        H.OBTUSE: (report.largest_angle_degrees or 0.0) > 90 + slack,
        H.SLIVER: bool((heights_of(points, faces) <= report.extent / 400).any()),
        H.BOUNDARY: not report.closed,
        H.CLOSED: report.closed,
        H.NON_MANIFOLD: not report.manifold,
        H.NON_ORIENTABLE: not report.orientable,
        H.FLIPPED: report.orientable and not report.consistently_oriented,
        H.HANDLE: report.manifold and report.orientable and _genus_twice(report) > 0,
        H.COMPONENTS: report.components > 1,
        H.SCALED: not 1e-3 <= report.extent <= 1e5,
        H.OFFSET: report.distance_from_origin > 100 * report.extent,
    }
    return {hardness for hardness, present in told.items() if present}


def _genus_twice(report: MeshReport) -> int:
    return 2 * report.components - report.boundary_loops - report.euler_characteristic


@st.composite
def meshes(
    draw: st.DrawFn,
    *,
    always: Collection[Hardness] = (),
    never: Collection[Hardness] = (),
    max_edits: int = 6,
    planar: bool = False,
    slivers: bool = True,
    dtype: torch.dtype = torch.float64,
) -> TriangleMesh:
    """Small valid surfaces: closed, bounded, non-manifold, non-orientable, obtuse, near-degenerate, in pieces, far away.

    A tiny base mesh and a list of edits; an edit that would make a triangle flatter than 1e-6 of the extent (1e-2 without
    `slivers`), make two vertices coincide or break a wish below is left out. So nothing is drawn in vain, and a failing example
    shrinks to the first base mesh that fails, with only the edits that matter: a single triangle, if it can.

    Args:
        always: hardness that every mesh has. `never`: hardness that none has. An operator for closed manifolds is tested
            on `meshes(never=[Hardness.BOUNDARY, Hardness.NON_MANIFOLD])`. Without wishes every kind occurs: SLIVER,
            NON_ORIENTABLE, FLIPPED, CLOSED and NON_MANIFOLD in at least one of 20 meshes, the others in one of 5.
        max_edits: of how many edits at most; each adds a vertex or two, or (a copy) doubles a mesh of up to 20 faces.
        planar: z = 0, faces counter-clockwise.
        slivers: False is short for never=[Hardness.SLIVER].
        dtype: float32 meshes are neither scaled nor offset, where they would have no digits left.

    Raises:
        ValueError: wishes that no mesh fulfils, such as CLOSED and BOUNDARY.
    """
    wanted, barred = frozenset(always), frozenset(never) | (frozenset() if slivers else {H.SLIVER})
    names = [name for name in (PLANAR if planar else BASES) if _suits(name, wanted, barred, planar)]
    if not names:
        raise ValueError(f"no {'planar ' * planar}mesh has always {_told(wanted)} and never {_told(barred)}: ask for less")
    if dtype != torch.float64 and wanted & {H.SCALED, H.OFFSET}:
        raise ValueError(f"{dtype} meshes are neither scaled nor offset, where they would have no digits left: ask for float64")
    base = _base(draw(st.sampled_from(names), label="base"))
    thin = st.sampled_from([1e-3, 1e-6])
    points, faces = _forced(base, wanted, barred, draw(thin, label="height") if H.SLIVER in wanted else 1e-3)
    thinnest, wishes = 1e-2 if H.SLIVER in barred else 1e-6, bool(wanted or barred - {H.SLIVER})
    for edit in draw(st.lists(_edits(planar, H.SLIVER not in barred), max_size=max_edits), label="edits"):
        changed = edit(points, faces)
        if usable(*changed, thinnest, planar) and not (wishes and _amiss(changed, wanted, barred)):
            points, faces = changed
    scale = draw(st.sampled_from(_allowed([0], [-20, 20], H.SCALED, wanted, barred)), label="scale 2^k")
    offset = draw(st.sampled_from(_allowed([0.0, 1.0], [1024.0], H.OFFSET, wanted, barred)), label="offset in sizes")
    if dtype == torch.float64:
        size = float(np.ptp(points, axis=0).max())
        far = 2.0 ** max(0, math.ceil(math.log2(size / 8))) if offset > 1 else 1.0
        points = (points + offset * far) * 2.0**scale
    return TriangleMesh(torch.from_numpy(points).to(dtype), torch.from_numpy(faces))


@st.composite
def damaged_meshes(draw: st.DrawFn) -> tuple[TriangleMesh, Floats, Faces, dict[str, int]]:
    """A valid mesh, and vertices and faces that become it again if a list of damages is taken back, counted by kind.

    "split": a corner of a face is a vertex of its own at the same place; "repeat": a face names a vertex twice; "flat": a
    face without area; "duplicate": a face again, turned or turned over; "stray": a vertex without a face. A failing example
    shrinks to the one damage that matters, on a single triangle; without any the arrays are the mesh.
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


def _base(name: str) -> Surface:
    points, faces = BASES[name]
    return np.array(points, dtype=np.float64), np.array(faces, dtype=np.int64)


@cache
def _suits(name: str, wanted: frozenset[Hardness], barred: frozenset[Hardness], planar: bool) -> bool:
    """Whether this base can be made as hard as wanted, and not harder."""
    surface = _forced(_base(name), wanted, barred, 1e-3)
    return usable(*surface, 1e-2 if H.SLIVER in barred else 1e-6, planar) and not _amiss(surface, wanted, barred)


def _forced(surface: Surface, wanted: frozenset[Hardness], barred: frozenset[Hardness], thin: float) -> Surface:
    """The surface with an edit for every hardness that is wanted and can be added to it."""
    wanted = wanted | {H.BOUNDARY} if H.CLOSED in barred else wanted
    widest = int(heights_of(*surface).argmax())
    edits: list[tuple[Hardness, Edit]] = [
        (H.BOUNDARY, Remove(0)),
        (H.NON_MANIFOLD, Pinch(closed=H.BOUNDARY in barred or H.CLOSED in wanted)),
        (H.FLIPPED, Flip(0)),
        (H.SLIVER, Squeeze(thin) if H.OBTUSE in barred else Sliver(widest, thin)),
        (H.OBTUSE, Subdivide(widest)),
        (H.COMPONENTS, Copy(4)),
    ]
    for hardness, edit in edits:
        if hardness in wanted and hardness not in _hardness(report_mesh(*surface), *surface):
            surface = edit(*surface)
    return surface


def _amiss(surface: Surface, wanted: frozenset[Hardness], barred: frozenset[Hardness]) -> bool:
    # Where the mesh lies and how large it is are decided at the end.
    placed = {H.SCALED, H.OFFSET}
    has = _hardness(report_mesh(*surface), *surface)
    return not (wanted - placed <= has) or bool((barred - placed) & has)


def _allowed(
    easy: list[Any], hard: list[Any], hardness: Hardness, wanted: frozenset[Hardness], barred: frozenset[Hardness]
) -> Any:
    """The choices that are left."""
    return hard if hardness in wanted else easy if hardness in barred else easy + hard


def _told(wishes: frozenset[Hardness]) -> str:
    return ", ".join(sorted(wish.name for wish in wishes)) or "(no wish)"


@cache
def _edits(planar: bool, slivers: bool) -> st.SearchStrategy[Edit]:
    which, eighths = st.integers(0, 99), st.integers(-8, 8).map(lambda k: k / 8)
    thin = st.sampled_from([0.25, 0.1, 1e-3, 1e-6] if slivers else [0.25, 0.1])
    depth = st.just(0.0) if planar else eighths
    return st.one_of(
        st.builds(Subdivide, which),
        st.builds(Move, which, st.tuples(eighths, eighths, depth)),
        st.builds(Sliver, which, thin),
        st.builds(Flip, which),
        st.builds(Detach, which),
        st.builds(Copy, st.integers(4, 9)),
    )
