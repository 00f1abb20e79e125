"""Places of weather: grids, pixels and meshes offer the same, and areas are those of the unit sphere."""

import math

import pytest
import torch

from neuralpde.testing import assert_within
from neuralpde.weather_place import MeshNodes, Place
from operators import DomainError, icosphere
from operators.healpix import Healpix
from operators.lat_lon import LatLon

PLACES = [
    LatLon(torch.linspace(90, -90, 9), torch.arange(0, 360, 20)),
    Healpix(4),
    MeshNodes(icosphere(2, 6.4e6)),
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: type(place).__name__)
def test_places_offer_the_same(place: Place):
    n = place.num_nodes
    assert place.mesh.num_nodes == n
    assert place.areas.dtype == torch.float64
    # Barycentric areas are those of the flat faces, which miss a little of the sphere.
    assert float(place.areas.sum()) == pytest.approx(4 * math.pi, rel=0.05)
    field = torch.randn(2, *place.shape, 3)
    assert place.to_nodes(field).shape == (2, n, 3)
    assert place.to_grid(place.to_nodes(field)).shape == field.shape
    latitude, longitude = (torch.deg2rad(x) for x in place.positions)
    points = torch.nn.functional.normalize(place.mesh.vertices.double(), dim=1)
    assert_within(torch.sin(latitude), points[:, 2], 1e-7)
    off_pole = torch.cos(latitude) > 1e-6
    assert_within((torch.cos(latitude) * torch.sin(longitude))[off_pole], points[off_pole, 1], 1e-7)


def test_areas_may_be_given():
    mesh = icosphere(0)
    assert MeshNodes(mesh, torch.ones(12)).areas.tolist() == [1.0] * 12
    for areas in (torch.ones(11), -torch.ones(12), torch.zeros(12), torch.full((12,), torch.nan)):
        with pytest.raises(DomainError, match="areas"):
            MeshNodes(mesh, areas)
