import numpy as np
import pytest
import torch

from neuralpde.convection_data import sensors
from neuralpde.difference_regression_operators import (
    edge_features,
    least_squares_features,
    mesh_features,
    ring_features,
    standard_features,
)
from neuralpde.sensor_placement import Placement
from operators.difference_graph import DelaunayEdges, KNearest

PLACE = sensors(40, 3)


def all_features():
    return {
        "standard": standard_features(PLACE, KNearest(4)),
        "delaunay": standard_features(PLACE, DelaunayEdges()),
        "mesh": mesh_features(PLACE),
        "least squares": least_squares_features(PLACE),
        "ring": ring_features(PLACE, 4),
    }


@pytest.mark.parametrize("name", all_features())
def test_constants_have_no_differences(name) -> None:
    features = all_features()[name]
    assert features.shape == (3, 40, 40)
    assert float(features.sum(2).abs().max()) < 1e-9 * float(features.abs().max())


def test_standard_features_are_the_sums_over_neighbours() -> None:
    u = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    gx, gy, lap = (standard_features(PLACE, KNearest(4)) @ torch.from_numpy(u)).numpy()
    points = PLACE.points.numpy()
    source, target = PLACE.graph(4).edge_index.numpy()
    for i in range(40):
        slope, total = np.zeros(2), 0.0
        for j in source[target == i]:
            offset = points[j] - points[i]
            length = np.linalg.norm(offset)
            if length > 0:
                slope += offset / length * (u[j] - u[i])
            total += u[i] - u[j]
        assert np.allclose([gx[i], gy[i]], slope)
        assert np.isclose(lap[i], total)


@pytest.mark.parametrize("make", [mesh_features, least_squares_features, lambda place: ring_features(place, 6)])
def test_gradients_of_linear_functions_are_exact(make) -> None:
    place = Placement("random", torch.rand(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    u = 2 * place.points[:, 0] - 3 * place.points[:, 1]
    gx, gy, _ = make(place) @ u
    torch.testing.assert_close(gx, torch.full_like(gx, 2.0), rtol=0, atol=1e-8)
    torch.testing.assert_close(gy, torch.full_like(gy, -3.0), rtol=0, atol=1e-8)


def test_least_squares_differentiates_quadratics_and_coincident_sensors_share_it() -> None:
    x, y = PLACE.points.unbind(1)
    gx, gy, lap = least_squares_features(PLACE) @ (x**2 - 3 * x * y + 2 * y)
    torch.testing.assert_close(gx, 2 * x - 3 * y, rtol=0, atol=1e-8)
    torch.testing.assert_close(gy, 2 - 3 * x, rtol=0, atol=1e-8)
    torch.testing.assert_close(lap, torch.full_like(lap, -2.0), rtol=0, atol=1e-7)


def test_the_ring_of_a_regular_hexagon() -> None:
    """Its triangles are those of the plane: the exact gradient at the centre, equal weights of the Laplacian."""
    angle = torch.arange(6, dtype=torch.float64) * torch.pi / 3
    points = torch.cat([torch.zeros(1, 2, dtype=torch.float64), torch.stack([torch.cos(angle), torch.sin(angle)], dim=1)])
    features = ring_features(Placement("hexagon", points), 6)
    torch.testing.assert_close(features[2, 0], torch.tensor([6.0, -1, -1, -1, -1, -1, -1], dtype=torch.float64))
    torch.testing.assert_close(features[0, 0, 1:], torch.cos(angle) / 3)


def test_rings_of_sensors_in_a_line_and_of_copies_are_finite() -> None:
    line = torch.stack([torch.arange(8.0), 0.1 * torch.arange(8.0)], dim=1)
    points = torch.cat([line, line[:3], torch.tensor([[2.0, 3.0]])])
    features = ring_features(Placement("line", points), 4)
    assert bool(features.isfinite().all())
    assert float(features[2].abs().max()) < 10
    assert float(features[:2].abs().max()) < 1e2


def test_edge_features_name_every_neighbour_once() -> None:
    features = edge_features(PLACE, 4)
    joined = features.sum(0)
    source, target = PLACE.graph(4).edge_index
    expected = torch.eye(40, dtype=torch.float64)
    expected[target, source] = 1
    assert torch.equal(joined, expected)
    assert bool((features.sum(2) <= 1).all())
