"""Laplacians of surfaces: the plain cotangent formula, and the robust intrinsic Delaunay one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import robust_laplacian as native
import scipy.sparse as sp
import torch
from torch import Tensor

from operators.checks import DomainError, DomainWarning
from operators.domains import TriangleMesh
from operators.laplacian import Laplacian, stiffness_of
from operators.sparse import SparseOperator

# The first is the default of Sharp and Crane. On a mesh of slivers it would multiply the area: then less, and at last none.
MOLLIFICATIONS = (1e-5, 1e-8, 1e-11, 0.0)
AREA_GAINED = 1e-3


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
        rows.append(i)
        columns.append(j)
        weights.append(half_cotangent)
    n, dtype = mesh.num_nodes, mesh.vertices.dtype
    stiffness = stiffness_of_edges(torch.cat(rows), torch.cat(columns), torch.cat(weights), n, dtype)
    third = _twice_area(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 6
    mass = third.new_zeros(n).index_add(0, faces.reshape(-1), third.repeat_interleave(3))
    return Laplacian(stiffness, mass.to(dtype), cotangent_laplacian)


def robust_laplacian(mesh: TriangleMesh) -> Laplacian:
    """The intrinsic Delaunay cotangent Laplacian of the tufted cover, with lumped mass (Sharp and Crane 2020).

    All weights are non-negative, so that heat obeys the maximum principle on any triangulation, manifold or not.
    The price is linear precision where an obtuse triangle meets the boundary: there `intrinsic_delaunay_laplacian`
    keeps linear functions in the kernel and has negative weights instead. No operator has both.

    Where four vertices of two faces lie on one circle, both ways to split them are Delaunay and round-off decides: C does
    not depend on it, M does, so a turned or renamed surface may get other masses there, of the same sum.

    The edges of a surface with slivers are lengthened by up to 1e-5 of their mean ("mollified"), less where that would
    change the area by a thousandth. Not differentiable in the vertices: the library below is not.

    Raises:
        DomainError: vertices that require a gradient, which would be lost without a word.

    Warns:
        DomainWarning: triangles so thin that the total mass is off by more than a thousandth all the same.
    """
    if mesh.vertices.requires_grad and torch.is_grad_enabled():
        # Another operator in its place, equal only on closed surfaces, would make the value depend on who asks for a gradient.
        raise DomainError(
            "robust_laplacian has no gradient in the vertices: use intrinsic_delaunay_laplacian(mesh), which has one and "
            "is the same operator on closed surfaces, or cotangent_laplacian(mesh); or build it under torch.no_grad()"
        )
    points, faces = mesh.arrays
    # The native code loses all digits on a small shape far from the origin, and overflows on a huge one.
    centred = points - points.mean(axis=0)
    size = float(np.abs(centred).max())
    for mollification in MOLLIFICATIONS:
        stiffness, mass = native.mesh_laplacian(centred / size, faces, mollification)
        area = mass.diagonal() * size**2
        gained = abs(float(area.sum()) / mesh.area - 1)
        if gained <= AREA_GAINED:
            break
    if gained > AREA_GAINED:
        warnings.warn(
            f"the triangles are so thin that the mass of the robust Laplacian misses the area by {gained:.1g} of it: "
            "remesh the surface, or use intrinsic_delaunay_laplacian(mesh)",
            DomainWarning,
            stacklevel=2,
        )
    return laplacian_of_native(stiffness, area, mesh.vertices, robust_laplacian)


def laplacian_of_native(
    stiffness: Any, area: np.ndarray[Any, np.dtype[np.float64]], points: Tensor, recipe: Callable[[Any], Laplacian]
) -> Laplacian:
    """The Laplacian of a stiffness matrix and areas from the native library, in the precision of the points.

    Raises:
        DomainError: values that are not finite.
    """
    coo = sp.coo_array(sp.triu(stiffness, k=1))
    # Co-circular quadrilaterals come out as +2e-8 relative; the weight is zero in exact arithmetic.
    weights = np.maximum(-coo.data, 0.0)
    if not (np.isfinite(weights).all() and np.isfinite(area).all()):
        raise DomainError("the robust Laplacian is not finite here: remove coincident points and triangles without area")
    rows, columns = (torch.from_numpy(index[weights > 0].astype(np.int64)) for index in coo.coords)
    edges = stiffness_of_edges(rows, columns, torch.from_numpy(weights[weights > 0]), len(area), torch.float64)
    laplacian = Laplacian(edges, torch.from_numpy(area), recipe)
    return laplacian.to(device=points.device, dtype=points.dtype)


def stiffness_of_edges(i: Tensor, j: Tensor, weights: Tensor, n: int, dtype: torch.dtype) -> SparseOperator:
    """C = D − W for edges {i, j} of weight w, (E,) each: repeated edges add up, loops drop out. Differentiable in w."""
    proper = i != j
    i, j, weights = i[proper], j[proper], weights[proper]
    # One triangle is summed and mirrored: in two orders of summation, the two would differ in the last bit.
    half = SparseOperator.from_entries(torch.minimum(i, j), torch.maximum(i, j), weights, (n, n))
    i, j = half.pattern.row, half.pattern.col
    adjacency = SparseOperator.from_entries(torch.cat([i, j]), torch.cat([j, i]), half.values.repeat(2), (n, n))
    stiffness = stiffness_of(adjacency)
    return SparseOperator(stiffness.pattern, stiffness.values.to(dtype))


def _twice_area(a: Tensor, b: Tensor) -> Tensor:
    """|a × b| in two or three dimensions; (m, d) × 2 → (m,)."""
    if a.shape[1] == 2:
        return (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).abs()
    area: Tensor = torch.linalg.vector_norm(torch.linalg.cross(a, b), dim=1)
    return area
