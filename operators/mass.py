"""Areas as masses: lumped in thirds, by mixed Voronoi cells, and the consistent mass matrix of linear elements."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.domains import TriangleMesh
from operators.sparse import SparseOperator


def face_corners(mesh: TriangleMesh) -> Tensor:
    """The corners of every face about the centroid, (m, 3, d) in float64; differentiable in the vertices."""
    vertices = mesh.vertices.double()
    return (vertices - vertices.mean(0))[mesh.faces]


def face_areas(mesh: TriangleMesh) -> Tensor:
    """The area of every face, (m,) in the mesh's dtype; differentiable in the vertices."""
    return (twice_area(face_corners(mesh)) / 2).to(mesh.vertices.dtype)


def twice_area(corners: Tensor) -> Tensor:
    """|(p₁ − p₀) × (p₂ − p₀)| of triangles in two or three dimensions; (m, 3, d) → (m,)."""
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    if corners.shape[2] == 2:
        return (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).abs()
    area: Tensor = torch.linalg.vector_norm(torch.linalg.cross(a, b), dim=1)
    return area


def lumped_mass(mesh: TriangleMesh) -> Tensor:
    """M_i = a third of the area of the faces at vertex i: positive, of sum the area.

    The mass of `cotangent_laplacian`; the row sums of `consistent_mass`. Differentiable in the vertices.

    Returns:
        (n,), in squared units of the coordinates.
    """
    third = twice_area(face_corners(mesh)) / 6
    return _on_vertices(mesh, third[:, None].expand(-1, 3))


def mixed_voronoi_mass(mesh: TriangleMesh) -> Tensor:
    """M_i = the area of the points nearer to vertex i than to another corner of their face, made safe on obtuse faces.

    A corner of a non-obtuse face has ⅛ (|b|² cot β + |c|² cot γ) of it, with b, c the two edges at the corner and β, γ
    the angles opposite to them; an obtuse face gives half its area to the obtuse corner and a quarter to each other
    (Meyer, Desbrun, Schröder and Barr 2003, fig. 4). Positive, of sum the area. Differentiable in the vertices.

    Returns:
        (n,), in squared units of the coordinates.
    """
    corners = face_corners(mesh)
    doubled = twice_area(corners)
    following, preceding = corners.roll(-1, 1) - corners, corners.roll(1, 1) - corners
    # (m, 3): the dot product at each corner; its sign tells an obtuse angle, over 2A it is the cotangent.
    dot = (following * preceding).sum(2)
    cotangent = dot / doubled[:, None]
    after, before = following.square().sum(2), preceding.square().sum(2)
    voronoi = (after * cotangent.roll(1, 1) + before * cotangent.roll(-1, 1)) / 8
    obtuse = dot < 0
    share = torch.where(obtuse, doubled[:, None] / 4, doubled[:, None] / 8)
    return _on_vertices(mesh, torch.where(obtuse.any(1, keepdim=True), share, voronoi))


def consistent_mass(mesh: TriangleMesh) -> SparseOperator:
    """M_ij = ∫ φ_i φ_j, the Galerkin mass of piecewise linear functions: uᵀ M v = ∫ u v, exactly.

    A face of area A adds A/6 to the diagonal of its corners and A/12 between them, so the rows sum to `lumped_mass`.
    Symmetric to the last bit, positive definite. Differentiable in the vertices.

    Returns:
        (n, n), in squared units of the coordinates.
    """
    n, faces = mesh.num_nodes, mesh.faces
    twelfth = twice_area(face_corners(mesh)) / 24
    ends = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(1).values
    # One triangle is summed and mirrored: in two orders of summation, the two would differ in the last bit.
    half = SparseOperator.from_entries(ends[:, 0], ends[:, 1], twelfth.repeat(3), (n, n))
    i, j = half.pattern.row, half.pattern.col
    nodes = torch.arange(n, device=faces.device)
    diagonal = twelfth.new_zeros(n).index_add(0, faces.reshape(-1), (2 * twelfth).repeat_interleave(3))
    entries = torch.cat([half.values, half.values, diagonal]).to(mesh.vertices.dtype)
    return SparseOperator.from_entries(torch.cat([i, j, nodes]), torch.cat([j, i, nodes]), entries, (n, n))


def _on_vertices(mesh: TriangleMesh, shares: Tensor) -> Tensor:
    """Σ of the shares (m, 3) of the corners at every vertex, in the mesh's dtype."""
    total = shares.new_zeros(mesh.num_nodes).index_add(0, mesh.faces.reshape(-1), shares.reshape(-1))
    return total.to(mesh.vertices.dtype)
