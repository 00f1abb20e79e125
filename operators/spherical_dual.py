"""The geometry of a Delaunay triangulation of a sphere and of its circumcentric (Voronoi) dual."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.checks import DomainError
from operators.domains import TriangleMesh
from operators.exterior import incidence
from operators.sparse import SparseOperator

# Dual edges shorter than this fraction of their edge carry no wind: four vertices on a circle.
SHORTEST = 1e-6


@dataclass(frozen=True, eq=False)
class SphericalDual:
    """Lengths and areas, on a sphere of the given radius, of great-circle triangles and of the cells of their vertices.

    The cell of a vertex holds the points nearer to it than to other vertices; its corners are circumcentres of faces, its sides
    cross the edges at right angles, at their midpoints. Everything is in float64 and differentiable in the vertices.

    Attributes:
        radius: R, in units of length.
        edges: (2, E), from row 0, the lower index, to row 1; the order of `mesh.edges`.
        faces: (m, 3), those of the mesh, counter-clockwise as seen from outside.
        centres: (n, 3), unit vectors to the vertices.
        circumcentres: (m, 3), unit vectors.
        midpoints: (E, 3), unit vectors to the midpoints of the edges.
        normals: (E, 3), unit tangents at the midpoints, along the edge: across the side between two cells.
        edge_lengths: d, (E,), from vertex to vertex.
        side_lengths: l, (E,), of the sides of cells, positive.
        cell_areas: (n,). They add up to 4πR², as those of the faces do.
        face_areas: (m,).
        kites: (m, 3), the area that a face shares with the cells of its corners. A corner's may be negative where a circumcentre
            lies outside its face; sums over cells and faces are what they should be.
    """

    radius: float
    edges: Tensor
    faces: Tensor
    centres: Tensor
    circumcentres: Tensor
    midpoints: Tensor
    normals: Tensor
    edge_lengths: Tensor
    side_lengths: Tensor
    cell_areas: Tensor
    face_areas: Tensor
    kites: Tensor

    @property
    def winding(self) -> SparseOperator:
        """d₁ (m, E): the circulation counter-clockwise around the faces."""
        return incidence(self.edges, self.faces, len(self.centres), 1, torch.float64)


def spherical_dual(mesh: TriangleMesh, radius: float | None = None) -> SphericalDual:
    """The dual of a Delaunay triangulation of a sphere about the origin.

    Args:
        mesh: such as `icosphere(4)`; faces may be oriented either way.
        radius: of the sphere that lengths and areas are measured on; by default that of the mesh.

    Raises:
        DomainError: the mesh is no sphere about the origin, not closed, covers it more than once, or is not Delaunay.
    """
    vertices = mesh.vertices.double()
    if vertices.shape[1] != 3:
        raise DomainError("a mesh in the plane is no sphere: its vertices must have three coordinates")
    distance = torch.linalg.vector_norm(vertices, dim=1)
    least, most = float(distance.detach().min()), float(distance.detach().max())
    if most - least > 1e-5 * most:
        raise DomainError(
            f"this is no sphere about the origin: its vertices lie {least:.6g} to {most:.6g} away from it. Subtract the centre, "
            "then project with TriangleMesh(v / v.norm(dim=1, keepdim=True), faces)"
        )
    if radius is None:
        radius = float(distance.detach().mean())
    if not (math.isfinite(radius) and radius > 0):
        raise DomainError(f"the radius must be positive and finite, not {radius}")
    x = vertices / distance[:, None]
    edges, faces = mesh.edges, _outward(mesh, x)

    corners = x[faces]
    a, b, c = corners.unbind(1)
    circumcentres = _unit(torch.linalg.cross(b - a, c - a))
    # Side k of a face runs from its corner k to the next; the face lies on its left.
    following = corners.roll(-1, 1)
    middle, along = _unit(corners + following), _unit(following - corners)
    left = torch.linalg.cross(middle, along)
    height = torch.atan2(_dot(circumcentres[:, None], left), _dot(circumcentres[:, None], middle))
    length = 2 * torch.asin((_norm(following - corners) / 2).clamp(max=1.0))
    # A triangle with a right angle between legs p and q has the area E with tan E/2 = tan p/2 · tan q/2.
    triangles = 2 * torch.atan(torch.tan(length / 4) * torch.tan(height / 2))
    kites = triangles + triangles.roll(1, 1)

    edge_of_side = torch.from_numpy(mesh.connectivity.edge_of_side.reshape(-1, 3)).to(faces.device)
    flipped = (faces != mesh.faces).any(1)
    # (a, b, c) turned over is (a, c, b): its sides are the third, the second and the first.
    edge_of_side = torch.where(flipped[:, None], edge_of_side.flip(1), edge_of_side)
    sides = x.new_zeros(edges.shape[1]).index_add(0, edge_of_side.reshape(-1), height.reshape(-1))
    start, end = x[edges[0]], x[edges[1]]
    lengths = 2 * torch.asin((_norm(end - start) / 2).clamp(max=1.0))
    _check_covering(float(kites.detach().sum()))
    _check_delaunay(sides.detach(), lengths.detach())
    cells = x.new_zeros(len(x)).index_add(0, faces.reshape(-1), kites.reshape(-1))
    square = radius**2
    return SphericalDual(
        radius=radius,
        edges=edges,
        faces=faces,
        centres=x,
        circumcentres=circumcentres,
        midpoints=_unit(start + end),
        normals=_unit(end - start),
        edge_lengths=radius * lengths,
        side_lengths=radius * sides,
        cell_areas=square * cells,
        face_areas=square * kites.sum(1),
        kites=square * kites,
    )


def _outward(mesh: TriangleMesh, x: Tensor) -> Tensor:
    """The faces, counter-clockwise as seen from outside, after checking that they close up around the origin."""
    shared = mesh.connectivity.sides_of_edge
    if not (shared == 2).all():
        raise DomainError(
            f"this is no closed surface: {int((shared != 2).sum())} of its edges have not exactly two faces. Weld it with "
            "mesh.clean(), or triangulate the points anew with spherical_delaunay(vertices)"
        )
    volume = torch.linalg.det(x.detach()[mesh.faces])
    if bool((volume.abs() <= 1e-14).any()):
        raise DomainError("a face lies in a plane through the origin: triangulate the points with spherical_delaunay(vertices)")
    faces = torch.where((volume > 0)[:, None], mesh.faces, mesh.faces[:, [0, 2, 1]])
    turns = incidence(mesh.edges, faces, mesh.num_nodes, 1, torch.float64).adjoint().row_sums()
    if bool((turns != 0).any()):
        raise DomainError(
            f"the surface folds over itself as seen from the origin, at {int((turns != 0).sum())} edges: subtract the centre, "
            "or triangulate the points anew with spherical_delaunay(vertices)"
        )
    return faces


def _check_covering(area: float) -> None:
    turns = area / (4 * math.pi)
    if abs(turns - 1) > 1e-6:
        raise DomainError(f"the surface covers the sphere {turns:.3g} times instead of once: it is in several pieces, or winds")


def _check_delaunay(sides: Tensor, edges: Tensor) -> None:
    bad = ~(sides > SHORTEST * edges)
    if bool(bad.any()):
        raise DomainError(
            f"the mesh is not strictly Delaunay: {int(bad.sum())} of its {len(sides)} edges have a dual edge without positive "
            f"length (the least is {float((sides / edges).min()):.2g} of its edge). Triangulate anew with "
            "spherical_delaunay(vertices), and move a vertex where four lie on one circle, as the corners of a cube do"
        )


def _unit(vectors: Tensor) -> Tensor:
    return vectors / _norm(vectors)[..., None]


def _norm(vectors: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return norm


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1)
