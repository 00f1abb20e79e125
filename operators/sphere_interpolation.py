"""Fields from one triangulation of a sphere to points anywhere on it, such as the nodes of another grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from operators.checks import DomainError, as_points, check_no_gradient
from operators.domains import TriangleMesh
from operators.sparse import SparseOperator

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Relative to the three volumes' sum: what rounding may put a point on an edge outside of both its faces.
OUTSIDE = 1e-9


def sphere_interpolation(mesh: TriangleMesh, points: Tensor) -> SparseOperator:
    """The matrix P (m, n) whose rows are the linear weights of the vertices of the face that each point lies over.

    The weights are those of the point's central projection onto the flat face: not negative, of sum 1; a vertex gets its own
    value. Fields on HEALPix from a latitude–longitude grid: `sphere_interpolation(grid.mesh, healpix.mesh.vertices)`.

    Args:
        mesh: a triangulated sphere about the origin, or a part of one.
        points: (m, 3), of any length but zero.

    Raises:
        DomainError: a point that no face of the mesh lies under.
    """
    points = as_points(points, "points", (3,))
    check_no_gradient(points, "sphere_interpolation")
    targets = points.detach().to("cpu", torch.float64).numpy()
    length = np.linalg.norm(targets, axis=1, keepdims=True)
    if (length == 0).any():
        raise DomainError(f"point {int((length == 0).argmax())} is the centre of the sphere: it has no direction")
    vertices, faces = mesh.arrays
    face, weights = _locate(vertices, faces, targets / length)
    rows = np.repeat(np.arange(len(targets)), 3)
    return SparseOperator.from_entries(
        torch.from_numpy(rows),
        torch.from_numpy(faces[face].reshape(-1)),
        torch.from_numpy(weights.reshape(-1)),
        (len(targets), len(vertices)),
    ).to(mesh.vertices.dtype)


def _locate(vertices: Floats, faces: Ints, points: Floats) -> tuple[Ints, Floats]:
    """The face under each point, and the weights (m, 3) of its corners."""
    corners = vertices[faces]
    centres = corners.mean(1)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    tree: Any = cKDTree(centres)
    face = np.zeros(len(points), np.int64)
    weights = np.full((len(points), 3), -np.inf)
    left, count = np.arange(len(points)), min(8, len(faces))
    while True:
        near = tree.query(points[left], k=count)[1].reshape(len(left), count)
        for column in range(count):
            found = _weights(corners[near[:, column]], points[left])
            better = found.min(1) > weights[left].min(1)
            weights[left[better]], face[left[better]] = found[better], near[better, column]
        left = left[weights[left].min(1) < -OUTSIDE]
        if len(left) == 0:
            weights = weights.clip(min=0.0)
            return face, weights / weights.sum(1, keepdims=True)
        if count == len(faces):
            direction = ", ".join(f"{x:.4g}" for x in points[left[0]])
            raise DomainError(f"{len(left)} points lie over no face of the mesh, the first in direction ({direction})")
        # Long thin faces near a pole have far-off centres.
        count = min(8 * count, len(faces))


def _weights(corners: Floats, points: Floats) -> Floats:
    """The weights (m, 3) of the corners (m, 3, 3) in each point; negative outside and for faces on the far side."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    volumes = np.stack([_volume(points, b, c), _volume(a, points, c), _volume(a, b, points)], axis=1)
    volumes *= np.sign(_volume(a, b, c))[:, None]
    total = volumes.sum(1, keepdims=True)
    # A point above the face is a positive combination of its corners; one on the far side would be a negative one.
    return np.where(total > 0, volumes / np.where(total > 0, total, 1.0), -np.inf)


def _volume(a: Floats, b: Floats, c: Floats) -> Floats:
    volume: Floats = np.einsum("ij,ij->i", np.cross(a, b), c)
    return volume
