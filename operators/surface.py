"""Laplacians of surfaces: the plain cotangent formula, and the robust intrinsic Delaunay one."""

from __future__ import annotations

import numpy as np
import robust_laplacian as native
import scipy.sparse as sp
import torch
from torch import Tensor

from operators.checks import DomainError
from operators.domains import TriangleMesh
from operators.laplacian import Laplacian, stiffness_of
from operators.sparse import SparseOperator


def cotangent_laplacian(mesh: TriangleMesh) -> Laplacian:
    """The cotangent Laplacian of the surface as triangulated, with barycentric lumped mass.

    C_ij = −½ (cot α_ij + cot β_ij), M_i = a third of the area of the faces at i (Pinkall and Polthier 1993).
    Weights are negative where α + β > π: no maximum principle there; `robust_laplacian` has one. Linear functions
    are in the kernel at interior vertices of a planar mesh. Differentiable in the vertex positions.
    """
    vertices, faces = mesh.vertices.double(), mesh.faces
    vertices = vertices - vertices.mean(0)
    corners = vertices[faces]
    rows, columns, weights = [], [], []
    for k in range(3):
        i, j = faces[:, (k + 1) % 3], faces[:, (k + 2) % 3]
        to_i, to_j = corners[:, (k + 1) % 3] - corners[:, k], corners[:, (k + 2) % 3] - corners[:, k]
        half_cotangent = (to_i * to_j).sum(1) / (2 * _twice_area(to_i, to_j))
        rows.append(torch.minimum(i, j))
        columns.append(torch.maximum(i, j))
        weights.append(half_cotangent)
    n = mesh.num_nodes
    # One triangle is summed and mirrored: in two orders of summation, the two would differ in the last bit.
    half = SparseOperator.from_entries(torch.cat(rows), torch.cat(columns), torch.cat(weights), (n, n))
    i, j = half.pattern.row, half.pattern.col
    adjacency = SparseOperator.from_entries(torch.cat([i, j]), torch.cat([j, i]), half.values.repeat(2), (n, n))
    third = _twice_area(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 6
    mass = third.new_zeros(n).index_add(0, faces.reshape(-1), third.repeat_interleave(3))
    dtype = mesh.vertices.dtype
    stiffness = stiffness_of(adjacency)
    return Laplacian(SparseOperator(stiffness.pattern, stiffness.values.to(dtype)), mass.to(dtype), cotangent_laplacian)


def robust_laplacian(mesh: TriangleMesh) -> Laplacian:
    """The intrinsic Delaunay cotangent Laplacian of the tufted cover, with lumped mass (Sharp and Crane 2020).

    All weights are non-negative, so that heat obeys the maximum principle on any triangulation, manifold or not.
    The price is linear precision where an obtuse triangle meets the boundary.
    """
    points, faces = mesh.arrays
    # The native code loses all digits on a small shape far from the origin, and overflows on a huge one.
    centred = points - points.mean(axis=0)
    size = float(np.abs(centred).max())
    stiffness, mass = native.mesh_laplacian(centred / size, faces)
    coo = sp.coo_array(sp.triu(stiffness, k=1))
    # Co-circular quadrilaterals come out as +2e-8 relative; the weight is zero in exact arithmetic.
    weights = np.maximum(-coo.data, 0.0)
    area = mass.diagonal() * size**2
    if not (np.isfinite(weights).all() and np.isfinite(area).all()):
        raise DomainError("the robust Laplacian is not finite on this mesh: clean it with clean_mesh(vertices, faces)")
    keep = weights > 0
    rows, columns = (torch.from_numpy(index[keep].astype(np.int64)) for index in coo.coords)
    half = torch.from_numpy(weights[keep])
    n = mesh.num_nodes
    adjacency = SparseOperator.from_entries(
        torch.cat([rows, columns]), torch.cat([columns, rows]), torch.cat([half, half]), (n, n)
    )
    laplacian = Laplacian(stiffness_of(adjacency), torch.from_numpy(area), robust_laplacian)
    return laplacian.to(device=mesh.vertices.device, dtype=mesh.vertices.dtype)


def _twice_area(a: Tensor, b: Tensor) -> Tensor:
    """|a × b| in two or three dimensions; (m, d) × 2 → (m,)."""
    if a.shape[1] == 2:
        return (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).abs()
    area: Tensor = torch.linalg.vector_norm(torch.linalg.cross(a, b), dim=1)
    return area
