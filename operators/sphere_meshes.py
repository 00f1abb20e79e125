"""Triangulations of a sphere: Delaunay from points, and relaxed until vertices are the centroids of their Voronoi cells."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import ConvexHull, QhullError
from torch import Tensor

from operators.checks import DomainError, as_points, check_no_gradient, is_integer
from operators.domains import TriangleMesh
from operators.refine import subdivide
from operators.shapes import icosphere
from operators.spherical_dual import SphericalDual, spherical_dual


def spherical_delaunay(points: Tensor) -> TriangleMesh:
    """The Delaunay triangulation of points (n, 3) on a sphere about the origin, in the same order: their convex hull.

    Raises:
        DomainError: points in one plane, or inside the hull of the others, or twice on it.
    """
    points = as_points(points, "points", (3,))
    check_no_gradient(points, "spherical_delaunay")
    array = points.detach().to("cpu", torch.float64).numpy()
    try:
        faces = ConvexHull(array).simplices.astype(np.int64)
    except (QhullError, ValueError) as error:
        raise DomainError("the points have no hull with an inside: at least four of them must not lie in one plane") from error
    inside = len(array) - len(np.unique(faces))
    if inside:
        raise DomainError(
            f"{inside} of the points lie inside the hull of the others, or twice on it: put them on one sphere with "
            "points / points.norm(dim=1, keepdim=True), each once"
        )
    a, b, c = (array[faces[:, k]] for k in range(3))
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), a - array.mean(0)) < 0
    faces[inward] = faces[inward][:, ::-1]
    return TriangleMesh(points, torch.from_numpy(faces).to(points.device))


def centroidal(mesh: TriangleMesh, iterations: int = 20) -> TriangleMesh:
    """The sphere with every vertex moved to the centroid of its Voronoi cell, again and again (Lloyd 1982).

    This smooths the spacing of vertices: what is short across goes in some twenty iterations, a slow change over the whole sphere
    takes very many. Errors of schemes on the dual, such as `CGrid`, fall by factors. Vertices keep their order; faces are
    exchanged where the moved vertices are no longer Delaunay.

    Args:
        mesh: a Delaunay triangulation of a sphere about the origin.
        iterations: how often every vertex moves.

    Raises:
        DomainError: those of `spherical_dual`.
    """
    if not is_integer(iterations) or iterations < 0:
        raise DomainError(f"iterations must be a whole number from 0 on, not {iterations!r}")
    check_no_gradient(mesh.vertices, "centroidal")
    dtype = mesh.vertices.dtype
    dual = spherical_dual(mesh)
    for _ in range(iterations):
        vertices, faces = dual.radius * _centroids(dual), dual.faces
        try:
            dual = spherical_dual(TriangleMesh(vertices, faces))
        except DomainError:
            dual = spherical_dual(spherical_delaunay(vertices))
    return TriangleMesh((dual.radius * dual.centres).to(dtype), dual.faces)


def centroidal_icosphere(
    refinements: int = 3, radius: float = 1.0, *, iterations: int = 20, dtype: torch.dtype = torch.float64
) -> TriangleMesh:
    """An icosphere of 10·4^refinements + 2 vertices, made `centroidal` after each refinement: without its twelve seams.

    The plain `icosphere` has kinks along the edges of the icosahedron, of a size that no refinement lessens.
    """
    if not is_integer(refinements) or not 0 <= refinements <= 9:
        raise DomainError(f"refinements must lie in 0..9 (9 gives 2.6 million vertices), not {refinements!r}")
    mesh = icosphere(0, radius)
    for _ in range(refinements):
        finer = subdivide(mesh).mesh
        vertices = radius * torch.nn.functional.normalize(finer.vertices, dim=1)
        mesh = centroidal(TriangleMesh(vertices, finer.faces), iterations)
    return TriangleMesh(mesh.vertices.to(dtype), mesh.faces)


def _centroids(dual: SphericalDual) -> Tensor:
    """The directions of the centroids of the cells, of flat triangles between vertex, midpoint and circumcentre."""
    here = dual.centres[dual.faces]
    there = here.roll(-1, 1)
    middle = torch.nn.functional.normalize(here + there, dim=-1)
    centre = dual.circumcentres[:, None].expand_as(here)
    # Signed, as a circumcentre may lie outside its face.
    left = torch.linalg.cross(middle, there - here)
    sign = torch.sign((centre * left).sum(-1, keepdim=True))
    total = torch.zeros_like(dual.centres)
    for corner, faces in ((here, dual.faces), (there, dual.faces.roll(-1, 1))):
        area = torch.linalg.vector_norm(torch.linalg.cross(middle - corner, centre - corner), dim=-1, keepdim=True)
        moment = sign * area * (corner + middle + centre)
        total = total.index_add(0, faces.reshape(-1), moment.reshape(-1, 3))
    return torch.nn.functional.normalize(total, dim=1)
