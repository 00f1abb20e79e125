"""Finding and repairing what makes a triangle list unfit for operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from operators.checks import DomainError, as_index, as_points

# A triangle whose height is below this share of its longest edge has no usable cotangent in float64.
FLATNESS = 1e-8


@dataclass(frozen=True, eq=False)
class CleanMesh:
    """A repaired mesh and what the repair did.

    `vertex_map` (old n,) gives each old vertex its new index, −1 if it was dropped; the counts say what was removed.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    vertex_map: NDArray[np.int64]
    welded: int
    degenerate_faces: int
    duplicate_faces: int
    unreferenced: int


def first_defect(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> str | None:
    """Describe the first defect that would make an operator silently wrong, or None."""
    repeated = np.flatnonzero(_repeated(faces))
    if repeated.size:
        return f"{repeated.size} faces repeat a vertex, the first is face {repeated[0]} {faces[repeated[0]].tolist()}"
    flat = np.flatnonzero(_flat(vertices, faces))
    if flat.size:
        return f"{flat.size} faces have no area, the first is face {flat[0]} {faces[flat[0]].tolist()}"
    duplicates = np.flatnonzero(_duplicate(faces))
    if duplicates.size:
        return (
            f"{duplicates.size} faces are named twice, the first is face {duplicates[0]} {faces[duplicates[0]].tolist()}, "
            "so that area would be counted double"
        )
    unreferenced = np.flatnonzero(np.bincount(faces.ravel(), minlength=len(vertices)) == 0)
    if unreferenced.size:
        return f"{unreferenced.size} vertices belong to no face, the first is vertex {unreferenced[0]}: they have no area"
    return None


def coincident_vertices(vertices: NDArray[np.float64]) -> int:
    """The number of vertices at exactly the position of an earlier one."""
    return len(vertices) - len(np.unique(vertices, axis=0))


def clean_mesh(vertices: Any, faces: Any) -> CleanMesh:
    """Weld coincident vertices; drop repeated-index, zero-area and duplicate faces and unreferenced vertices.

    Args:
        vertices: (n, 2) or (n, 3) floats, finite.
        faces: integers (m, 3) in [0, n).

    Raises:
        DomainError: input that has no repair (non-finite coordinates, indices out of range, nothing left).
    """
    points = as_points(torch.as_tensor(vertices), "vertices", (2, 3)).detach().cpu().numpy().astype(np.float64)
    triangles = as_index(torch.as_tensor(faces), "faces", None, 3, len(points)).cpu().numpy()
    count = len(points)
    _, first, inverse = np.unique(points, axis=0, return_index=True, return_inverse=True)
    weld = first[inverse.reshape(-1)]
    triangles = weld[triangles]
    flat = _repeated(triangles)
    flat[~flat] |= _flat(_in_space(points), triangles[~flat])
    triangles = triangles[~flat]
    duplicate = _duplicate(triangles)
    triangles = triangles[~duplicate]
    if len(triangles) == 0:
        raise DomainError("no face is left after cleaning: every triangle was degenerate")
    used = np.unique(triangles)
    new_index = np.full(count, -1, dtype=np.int64)
    new_index[used] = np.arange(len(used))
    vertex_map = new_index[weld]
    welded = int((weld != np.arange(count)).sum())
    unreferenced = int((vertex_map < 0).sum())
    return CleanMesh(
        points[used], new_index[triangles], vertex_map, welded, int(flat.sum()), int(duplicate.sum()), unreferenced
    )


def _in_space(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points if points.shape[1] == 3 else np.column_stack([points, np.zeros(len(points))])


def _repeated(faces: NDArray[np.int64]) -> NDArray[np.bool_]:
    repeated: NDArray[np.bool_] = (
        (faces[:, 0] == faces[:, 1]) | (faces[:, 1] == faces[:, 2]) | (faces[:, 2] == faces[:, 0])
    )
    return repeated


def _flat(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.bool_]:
    if len(faces) == 0:
        return np.zeros(0, dtype=bool)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    longest = np.max([np.linalg.norm(e, axis=1) for e in (b - a, c - b, a - c)], axis=0)
    twice_area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    flat: NDArray[np.bool_] = twice_area <= FLATNESS * longest**2
    return flat


def _duplicate(faces: NDArray[np.int64]) -> NDArray[np.bool_]:
    if len(faces) == 0:
        return np.zeros(0, dtype=bool)
    _, first = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    duplicate = np.ones(len(faces), dtype=bool)
    duplicate[first] = False
    return duplicate
