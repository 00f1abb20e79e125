"""Interpolation is exact for linear functions of the face; lifting is undone by averaging, and keeps constants."""

import pytest
import torch

from neuralpde.sphere_lifting import Lifting, check_refinements, hats, observation, rotated
from neuralpde.testing import roundoff
from operators import DomainError, icosphere
from operators.lat_lon import LatLon
from operators.sphere_meshes import centroidal_icosphere
from operators.spherical_dual import spherical_dual

U = roundoff(torch.float64)


def spheres():
    fine, coarse = rotated(centroidal_icosphere(3), (0.4, 0.7)), centroidal_icosphere(2)
    return fine, spherical_dual(fine).cell_areas, coarse


def test_hats_find_the_point_itself_on_the_ray():
    fine, _, coarse = spheres()
    there = hats(coarse, fine.vertices) @ coarse.vertices
    # The flat face lies inside the sphere, on the same ray.
    assert torch.allclose(torch.nn.functional.normalize(there, dim=1), fine.vertices, atol=64 * U)


def test_hats_on_the_thin_triangles_of_a_grid_near_its_poles():
    grid = LatLon(torch.linspace(90, -90, 31), torch.arange(60) * 6.0)
    points = centroidal_icosphere(3).vertices
    there = hats(grid.mesh, points) @ grid.mesh.vertices
    assert torch.allclose(torch.nn.functional.normalize(there, dim=1), points, atol=256 * U)


def test_a_hole_is_refused():
    mesh = icosphere(1)
    with pytest.raises(DomainError, match="lie in no face"):
        hats(type(mesh)(mesh.vertices, mesh.faces[1:]), icosphere(3).vertices)


def test_averages_of_the_lifted_field_are_the_field():
    fine, areas, coarse = spheres()
    lifting = Lifting(fine, areas, coarse)
    u = torch.randn(4, coarse.num_nodes, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(lifting.restrict(lifting(u)), u, atol=1e6 * U)
    one = torch.ones(coarse.num_nodes, 1, dtype=torch.float64)
    assert torch.allclose(lifting(one), torch.ones(fine.num_nodes, 1, dtype=torch.float64), atol=1e6 * U)


def test_lifting_a_smooth_field_is_nearer_than_linear_interpolation():
    fine, areas, coarse = spheres()
    x = fine.vertices
    field = (x[:, :1] * x[:, 1:2] + x[:, 2:] ** 3).double()
    seen = observation(fine, areas, coarse)
    lifted = Lifting(fine, areas, coarse)(seen.restrict(field))
    linear = seen.prolong(seen.restrict(field))
    assert (lifted - field).norm() < 0.1 * (linear - field).norm()


def test_refinements_and_sizes_are_checked():
    check_refinements(3, 4)
    for wrong in ((0, 1), (3, 2), (5, 6), (2.0, 3)):
        with pytest.raises(DomainError, match="refinements"):
            check_refinements(*wrong)
    fine, _, coarse = spheres()
    with pytest.raises(DomainError, match="no more than the fine"):
        Lifting(coarse, spherical_dual(coarse).cell_areas, fine)
