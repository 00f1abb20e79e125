"""Interpolation on a sphere: exact on vertices and for constants, of second order, and refused outside a region."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import assert_within
from operators.checks import DomainError
from operators.domains import TriangleMesh
from operators.healpix import Healpix
from operators.lat_lon import LatLon
from operators.shapes import icosphere
from operators.sphere_interpolation import sphere_interpolation


def lat_lon(rows):
    return LatLon(torch.linspace(90, -90, rows, dtype=torch.float64), torch.arange(2 * rows) * (180 / rows)).mesh


def scattered(count, seed=0):
    return torch.nn.functional.normalize(
        torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    )


def smooth(points):
    x, y, z = torch.nn.functional.normalize(points).T
    return (x * y + z**3 - 0.5 * x)[:, None]


@pytest.mark.parametrize("mesh", [lat_lon(9), icosphere(1, 3.0), Healpix(4).mesh], ids=["lat-lon", "icosphere", "healpix"])
def test_vertices_get_their_own_value(mesh):
    P = sphere_interpolation(mesh, mesh.vertices)
    u = torch.randn(mesh.num_nodes, 2, dtype=torch.float64)
    assert_within(P(u), u, 1e-12)
    inside_out = TriangleMesh(mesh.vertices, mesh.faces.flip(1))
    points = scattered(40)
    assert_within(sphere_interpolation(inside_out, points)(u), sphere_interpolation(mesh, points)(u), 1e-12)


@given(seed=st.integers(0, 99), scale=st.sampled_from([1e-3, 1.0, 6.4e6]))
def test_weights_are_those_of_a_mean(seed, scale):
    P = sphere_interpolation(lat_lon(7), scale * scattered(50, seed)).to_scipy()
    assert P.min() >= 0
    assert abs(P.sum(1) - 1).max() < 1e-14
    assert (P.toarray() > 0).sum(1).max() <= 3


def test_linear_functions_are_met_on_the_faces():
    # The point itself, projected to the flat face, is the mean of its corners.
    mesh, points = lat_lon(9), scattered(200)
    on_faces = sphere_interpolation(mesh, points)(mesh.vertices)
    assert_within(torch.nn.functional.normalize(on_faces), points, 1e-13)


@pytest.mark.parametrize("make", [lat_lon, lambda n: Healpix(n // 2).mesh])
def test_it_is_of_second_order(make):
    points = scattered(2000)
    errors = [
        float((sphere_interpolation(mesh, points)(smooth(mesh.vertices)) - smooth(points)).square().mean().sqrt())
        for mesh in (make(8), make(16), make(32))
    ]
    assert errors[0] > 3.2 * errors[1] > 10 * errors[2]


def test_points_outside_are_refused():
    region = LatLon(torch.linspace(50, 58, 9), torch.linspace(-10, 2, 13)).mesh
    inside = torch.tensor([[0.6, -0.04, 0.8]], dtype=torch.float64)
    assert_within(sphere_interpolation(region, inside).row_sums(), 1.0, 1e-14)
    for outside in ([0.0, 0.0, 1.0], [-0.6, 0.04, -0.8]):
        with pytest.raises(DomainError, match="1 points lie over no face"):
            sphere_interpolation(region, torch.cat([inside, torch.tensor([outside], dtype=torch.float64)]))
    with pytest.raises(DomainError, match="centre of the sphere"):
        sphere_interpolation(region, torch.zeros(1, 3))
    with pytest.raises(DomainError, match="gradient"):
        sphere_interpolation(region, inside.clone().requires_grad_())
