"""Triangulations of spheres: hulls are Delaunay, Lloyd's iteration evens them out."""

import numpy as np
import pytest
import scipy.spatial
import torch

from neuralpde.testing import assert_within, roundoff
from operators.checks import DomainError
from operators.domains import TriangleMesh
from operators.shapes import icosphere
from operators.sphere_meshes import centroidal, centroidal_icosphere, spherical_delaunay
from operators.spherical_dual import spherical_dual

U = roundoff(torch.float64)


def scattered(n, seed=0):
    points = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 3)))
    return points / points.norm(dim=1, keepdim=True)


def off_centre(mesh):
    """How far vertices lie from the centroids of their cells, over the size of the cells: (root of the mean square, largest)."""
    dual = spherical_dual(mesh)
    moved = spherical_dual(centroidal(mesh, 1)).centres - dual.centres
    distance = torch.linalg.vector_norm(moved, dim=1) / (dual.cell_areas / dual.radius**2).sqrt()
    return float(distance.square().mean().sqrt()), float(distance.max())


def test_a_hull_is_delaunay_and_keeps_the_points():
    points = 3 * scattered(200)
    mesh = spherical_delaunay(points)
    assert mesh.vertices is points or torch.equal(mesh.vertices, points)
    dual = spherical_dual(mesh)
    # No vertex lies nearer to a circumcentre than the corners of its face.
    nearest = torch.cdist(dual.circumcentres, dual.centres).min(1).values
    corner = torch.linalg.vector_norm(dual.circumcentres - dual.centres[dual.faces[:, 0]], dim=1)
    assert_within(nearest, corner, 1e-9)
    assert torch.equal(dual.faces, mesh.faces), "faces are counter-clockwise as seen from outside"


@pytest.mark.parametrize(
    ("points", "says"),
    [
        (torch.eye(3, dtype=torch.float64), "at least four"),
        (torch.cat([scattered(20), 0.3 * scattered(3)]), "3 of the points lie inside"),
        (scattered(20)[:, :2], "shape"),
        (torch.full((5, 3), torch.nan, dtype=torch.float64), "NaN|finite"),
    ],
)
def test_points_without_a_hull_are_refused(points, says):
    with pytest.raises(DomainError, match=says):
        spherical_delaunay(points)


def test_lloyd_moves_vertices_to_the_centroids_of_their_cells_across_flips():
    mesh = spherical_delaunay(scattered(150))
    before, after = off_centre(mesh)[0], off_centre(centroidal(mesh, 40))[0]
    assert before > 0.2
    assert after < before / 8
    evened = spherical_dual(centroidal(mesh, 40))
    assert float(evened.cell_areas.std() / evened.cell_areas.mean()) < 0.25
    assert centroidal(mesh, 0).vertices.shape == mesh.vertices.shape


def test_one_step_goes_to_the_centroids_of_the_voronoi_polygons():
    # Scattered points make obtuse faces, whose circumcentres lie outside.
    mesh = spherical_delaunay(scattered(400))
    points = mesh.vertices.numpy()
    voronoi = scipy.spatial.SphericalVoronoi(points, 1.0)
    voronoi.sort_vertices_of_regions()
    expected = []
    for region in voronoi.regions:
        corners = voronoi.vertices[region]
        following, middle = np.roll(corners, -1, axis=0), corners.mean(0)
        area = np.linalg.norm(np.cross(corners - middle, following - middle), axis=1)
        centroid = (area[:, None] * (corners + following + middle)).sum(0)
        expected.append(centroid / np.linalg.norm(centroid))
    moved = np.linalg.norm(np.array(expected) - points, axis=1)
    off = np.linalg.norm(centroidal(mesh, 1).vertices.numpy() - np.array(expected), axis=1)
    # Both take flat triangles, and not the same: second order in the size of a cell.
    assert off.mean() < 0.05 * moved.mean()
    assert off.max() < 0.2 * moved.max()


def test_an_icosahedron_is_centroidal_already():
    mesh = icosphere(0, 2.0)
    assert_within(centroidal(mesh, 3).vertices, mesh.vertices, 64 * U)


def test_the_kinks_of_an_icosphere_go():
    plain, relaxed = off_centre(icosphere(3))[1], off_centre(centroidal_icosphere(3))[1]
    assert plain > 0.03
    assert relaxed < plain / 100
    mesh = centroidal_icosphere(3, 2.0, dtype=torch.float32)
    assert mesh.num_nodes == icosphere(3).num_nodes
    assert mesh.vertices.dtype == torch.float32
    assert_within(torch.linalg.vector_norm(mesh.vertices.double(), dim=1), 2.0, 1e-6)


@pytest.mark.parametrize("bad", [-1, 2.5, True])
def test_bad_counts_are_refused(bad):
    with pytest.raises(DomainError, match="iterations must be a whole number"):
        centroidal(icosphere(0), bad)
    with pytest.raises(DomainError, match="refinements must lie in"):
        centroidal_icosphere(bad)
    with pytest.raises(DomainError, match="no gradient"):
        centroidal(TriangleMesh(icosphere(0).vertices.requires_grad_(), icosphere(0).faces))
