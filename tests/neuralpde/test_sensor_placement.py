"""Sensors on a plane and on the Earth: distances against the haversine formula, neighbours against all pairs."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neuralpde.sensor_placement import EARTH_RADIUS, Placement
from operators import DomainError


def haversine(points: Tensor) -> Tensor:
    """All distances in km."""
    latitude, longitude = torch.deg2rad(points).unbind(1)
    dlat, dlon = latitude[:, None] - latitude, longitude[:, None] - longitude
    a = torch.sin(dlat / 2) ** 2 + torch.cos(latitude)[:, None] * torch.cos(latitude) * torch.sin(dlon / 2) ** 2
    return 2 * EARTH_RADIUS * torch.asin(a.sqrt().clamp(max=1))


def scattered(n: int, seed: int, everywhere: bool = True) -> Placement:
    rng = np.random.default_rng(seed)
    if everywhere:
        points = np.stack([np.degrees(np.arcsin(rng.uniform(-1, 1, n))), rng.uniform(-180, 360, n)], axis=1)
    else:
        points = np.stack([rng.uniform(50, 52, n), rng.uniform(179, 181, n)], axis=1)
    return Placement("scattered", torch.from_numpy(points), earth=True)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 40), seed=st.integers(0, 999), k=st.integers(1, 5))
def test_distances_and_neighbours_are_along_the_surface(n: int, seed: int, k: int) -> None:
    placement = scattered(n, seed)
    edges = placement.graph(k).edge_index
    truth = haversine(placement.points)
    source, target = edges
    # A metre: the haversine of a short distance and the chord of a long one cancel to about 1e-8 of the radius.
    assert torch.allclose(placement.distances(edges), truth[source, target], atol=1e-3, rtol=0)
    assert torch.allclose(torch.linalg.vector_norm(placement.offsets(edges), dim=1), truth[source, target], atol=1e-3, rtol=0)
    present = torch.zeros(n, n, dtype=torch.bool)
    present[source, target] = True
    assert torch.equal(present, present.T)
    others = truth.clone().fill_diagonal_(math.inf)
    reach = others.sort(1).values[:, min(k, n - 1) - 1]
    nearest = others < reach[:, None] - 1e-3
    assert bool(present[nearest].all())
    assert not bool(present[~((others <= reach[:, None] + 1e-3) | (others <= reach + 1e-3))].any())


def test_offsets_point_east_and_north() -> None:
    placement = Placement("three", torch.tensor([[50.0, 179.9], [50.0, -179.9], [50.2, 179.9]], dtype=torch.float64), earth=True)
    offsets = placement.offsets(torch.tensor([[1, 2], [0, 0]]))
    # 0.2 degrees along the parallel and along the meridian.
    east, north = math.radians(0.2) * EARTH_RADIUS * math.cos(math.radians(50)), math.radians(0.2) * EARTH_RADIUS
    assert torch.allclose(offsets, torch.tensor([[east, 0.02], [0.0, north]], dtype=torch.float64), atol=2e-2)


def test_the_plane_keeps_small_distances() -> None:
    placement = scattered(30, 0, everywhere=False)
    plane = torch.cdist(placement.plane, placement.plane)
    # The projection stretches by r² / 6 R² at r = 130 km from its centre.
    assert float((plane - haversine(placement.points)).abs().max()) < 3e-4 * float(plane.max())


def test_a_plane_is_itself() -> None:
    points = torch.rand(10, 2, dtype=torch.float64)
    placement = Placement("plane", points)
    edges = placement.graph(3).edge_index
    assert torch.equal(placement.plane, points)
    assert torch.equal(placement.offsets(edges), points[edges[0]] - points[edges[1]])
    assert torch.allclose(placement.distances(edges), torch.linalg.vector_norm(placement.offsets(edges), dim=1))


def test_poles_have_directions() -> None:
    placement = Placement(
        "poles", torch.tensor([[90.0, 0.0], [89.0, 30.0], [-90.0, 0.0], [-89.0, 0.0]], dtype=torch.float64), earth=True
    )
    edges = torch.tensor([[1, 3, 0], [0, 2, 1]])
    assert torch.isfinite(placement.offsets(edges)).all()
    assert torch.allclose(placement.distances(edges), torch.full((3,), math.radians(1) * EARTH_RADIUS, dtype=torch.float64))


def test_take_copy_and_pickle() -> None:
    placement = scattered(6, 1)
    part = placement.take(torch.tensor([4, 0]), "part")
    assert part.name == "part"
    assert torch.equal(part.points, placement.points[[4, 0]])
    assert placement.num_nodes == 6
    assert len(placement.graph(9).edge_index[0]) == 30
    for other in (copy.deepcopy(placement), pickle.loads(pickle.dumps(placement))):
        assert torch.equal(other.plane, placement.plane)


@pytest.mark.parametrize(
    ("points", "earth", "told"),
    [
        ([[0.0, 0.0]], False, "shape"),
        ([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], False, "shape"),
        ([[0.0, 0.0], [math.nan, 1.0]], False, "sensor 1 is not finite"),
        ([[100.0, 0.0], [0.0, 1.0]], True, "latitude, longitude"),
        ([[48000.0, 2000.0], [48100.0, 1.0]], True, "latitude, longitude"),
    ],
    ids=["one", "space", "nan", "swapped", "milli"],
)
def test_bad_points(points: list[list[float]], earth: bool, told: str) -> None:
    with pytest.raises(DomainError, match=told):
        Placement("bad", torch.tensor(points), earth)


def test_no_plane_around_the_globe() -> None:
    placement = Placement("globe", torch.tensor([[0.0, 0.0], [0.0, 180.0]]), earth=True)
    with pytest.raises(DomainError, match="no common plane"):
        _ = placement.plane
