"""The Voronoi dual of a sphere: areas and lengths against independent formulas and SciPy; what is no sphere is refused."""

import math

import numpy as np
import pytest
import scipy.spatial
import torch
from hypothesis import given
from spheres import spheres

from neuralpde.testing import assert_within, roundoff
from operators.checks import DomainError
from operators.domains import TriangleMesh
from operators.shapes import grid, icosphere, torus
from operators.spherical_dual import spherical_dual

U = roundoff(torch.float64)


def unit(vectors):
    return torch.nn.functional.normalize(vectors, dim=-1)


def angle(a, b):
    return torch.atan2(torch.linalg.vector_norm(torch.linalg.cross(a, b), dim=-1), (a * b).sum(-1))


@given(mesh=spheres())
def test_lengths_are_angles_and_sides_cross_edges_at_their_midpoints(mesh):
    dual = spherical_dual(mesh)
    i, j = dual.edges
    assert torch.equal(dual.edges, mesh.edges)
    assert_within(dual.edge_lengths, dual.radius * angle(dual.centres[i], dual.centres[j]), 64 * U * dual.radius)
    # Every edge has a face to its left and one to its right; between their circumcentres lies the side.
    turns = dual.winding.to_scipy().toarray()
    left, right = turns.argmax(0), turns.argmin(0)
    one, other = dual.circumcentres[left], dual.circumcentres[right]
    # A circumcentre's error is that of the face over the sine of its angles.
    thin = float(dual.edge_lengths.max() / dual.edge_lengths.min()) ** 3 * 256 * U
    assert_within(dual.side_lengths, dual.radius * angle(one, other), thin * dual.radius)
    assert_within((dual.normals * one).sum(1), 0.0, thin)
    assert_within((dual.normals * dual.midpoints).sum(1), 0.0, 8 * U)
    assert (((one - other) * torch.linalg.cross(dual.midpoints, dual.normals)).sum(1) > 0).all()


@given(mesh=spheres())
def test_areas_are_those_of_scipy_and_of_girard(mesh):
    dual = spherical_dual(mesh)
    thin = float(dual.edge_lengths.max() / dual.edge_lengths.min()) ** 3 * 1024 * U * dual.radius**2
    voronoi = scipy.spatial.SphericalVoronoi(dual.centres.numpy(), 1.0, threshold=1e-9)
    voronoi.sort_vertices_of_regions()
    assert_within(dual.cell_areas, dual.radius**2 * torch.from_numpy(voronoi.calculate_areas()), thin)
    a, b, c = dual.centres[dual.faces].unbind(1)
    # tan E/2 = a·(b×c) / (1 + a·b + b·c + c·a)
    triple = (a * torch.linalg.cross(b, c)).sum(1)
    excess = 2 * torch.atan2(triple, 1 + (a * b).sum(1) + (b * c).sum(1) + (c * a).sum(1))
    assert (triple > 0).all()
    assert_within(dual.face_areas, dual.radius**2 * excess, thin)
    assert_within(dual.kites.sum(1), dual.face_areas, 8 * U * dual.radius**2)
    assert_within(dual.cell_areas.sum(), 4 * math.pi * dual.radius**2, thin)


def test_on_an_icosahedron_all_is_known():
    dual = spherical_dual(icosphere(0), 2.0)
    assert_within(dual.kites, 4 * math.pi * 4 / 60, 64 * U)
    assert_within(dual.edge_lengths, 2 * math.atan(2.0), 64 * U)
    # Between the centres of two faces of an icosahedron, as seen from its own centre: the edge of a dodecahedron.
    assert_within(dual.side_lengths, 2 * math.acos(math.sqrt(5) / 3), 64 * U)


def test_size_orientation_and_precision_of_the_mesh_do_not_matter():
    mesh = icosphere(2)
    dual = spherical_dual(mesh, 3.0)
    for other in (
        TriangleMesh(1024 * mesh.vertices, mesh.faces.flip(1)),
        TriangleMesh(mesh.vertices, mesh.faces.roll(1, 1)),
    ):
        same = spherical_dual(other, 3.0)
        assert_within(same.side_lengths, dual.side_lengths, 64 * U)
        assert_within(same.cell_areas, dual.cell_areas, 64 * U)
    rounded = spherical_dual(mesh.to(torch.float32), 3.0)
    assert rounded.cell_areas.dtype == torch.float64
    assert_within(rounded.cell_areas, dual.cell_areas, 1e-6)
    assert spherical_dual(icosphere(1, 2.5)).radius == pytest.approx(2.5)


def test_is_differentiable_in_the_vertices():
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(12, 3)))
    mesh = icosphere(0)
    faces = mesh.faces

    def geometry(vertices):
        dual = spherical_dual(TriangleMesh(unit(vertices), faces), 1.0)
        return dual.edge_lengths, dual.side_lengths, dual.cell_areas, dual.kites, dual.circumcentres, dual.normals

    assert torch.autograd.gradcheck(geometry, (mesh.vertices + 0.1 * noise).requires_grad_())


def cube():
    points = torch.tensor([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=torch.float64)
    hull = scipy.spatial.ConvexHull(points.numpy())
    return TriangleMesh(points, torch.from_numpy(hull.simplices.astype(np.int64)))


def moved(mesh, amplitude):
    noise = torch.from_numpy(np.random.default_rng(1).normal(size=mesh.vertices.shape))
    return TriangleMesh(unit(mesh.vertices + amplitude * noise), mesh.faces)


def doubled(mesh):
    turn = torch.linalg.qr(torch.from_numpy(np.random.default_rng(0).normal(size=(3, 3))))[0]
    vertices = torch.cat([mesh.vertices, mesh.vertices @ turn])
    return TriangleMesh(vertices, torch.cat([mesh.faces, mesh.faces + mesh.num_nodes]))


@pytest.mark.parametrize(
    ("mesh", "radius", "says"),
    [
        (torus(), None, "no sphere about the origin"),
        (TriangleMesh(icosphere(2).vertices + 0.2, icosphere(2).faces), None, "no sphere about the origin"),
        (TriangleMesh(grid(4, 4).vertices[:, :2], grid(4, 4).faces), None, "three coordinates"),
        (TriangleMesh(icosphere(1).vertices, icosphere(1).faces[:-1]), None, "no closed surface: 3 of its edges"),
        (moved(icosphere(1), 0.1), None, "not strictly Delaunay"),
        (moved(icosphere(2), 0.5), None, "folds over itself"),
        (cube(), None, "four lie on one circle"),
        (doubled(icosphere(1)), None, "covers the sphere 2 times"),
        (icosphere(0), -1.0, "radius must be positive"),
        (icosphere(0), math.nan, "radius must be positive"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_no_sphere_is_refused(mesh, radius, says):
    with pytest.raises(DomainError, match=says):
        spherical_dual(mesh, radius)
