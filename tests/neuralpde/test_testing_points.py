"""Clouds are scattered as asked, every scatter occurs, samples lie on their surface, and they shrink to a few even points."""

from functools import cache

import pytest
import torch
from drawing import drawn, least, shares

from neuralpde.testing_points import Flatten, Gather, Scatter, Shake, Twin, point_clouds, scatter_of, surface_samples
from operators import PointCloud, point_cloud_laplacian

S = Scatter


@cache
def clouds():
    return drawn(point_clouds(), 120)


@pytest.mark.parametrize("scatter", S)
def test_every_scatter_occurs_as_often_as_stated(scatter):
    assert 0.1 <= shares(clouds(), scatter_of)[scatter] < 0.9


def test_points_are_distinct_and_of_the_asked_numbers():
    for cloud in [*clouds(), *drawn(surface_samples(), 30)]:
        assert cloud.report().coincident_points == 0
        assert cloud.points.dtype == torch.float64
    assert {cloud.points.shape[1] for cloud in clouds()} == {2, 3}
    assert min(cloud.num_nodes for cloud in clouds()) == 1
    assert max(cloud.num_nodes for cloud in clouds()) >= 20
    for cloud in drawn(point_clouds(dimensions=[4], min_points=3, max_points=5, dtype=torch.float32), 30):
        assert cloud.points.shape[1] == 4
        assert 3 <= cloud.num_nodes <= 5
        assert cloud.points.dtype == torch.float32


@pytest.mark.parametrize("scatter", S)
@pytest.mark.parametrize("strategy", [point_clouds, surface_samples])
def test_scatter_can_be_demanded_and_excluded(strategy, scatter):
    if (strategy, scatter) != (surface_samples, S.LINE):
        assert all(scatter in scatter_of(cloud) for cloud in drawn(strategy(always=[scatter]), 8))
    assert not any(scatter in scatter_of(cloud) for cloud in drawn(strategy(never=[scatter]), 8))


def test_several_wishes_at_once():
    for cloud in drawn(point_clouds(always=[S.CLUSTERED, S.TWINS, S.LINE]), 8):
        assert {S.CLUSTERED, S.TWINS, S.LINE} <= scatter_of(cloud)


def test_wishes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="always and never TWINS"):
        drawn(point_clouds(always=[S.TWINS], never=[S.TWINS]), 1)
    with pytest.raises(ValueError, match="six points with any `always`"):
        drawn(point_clouds(always=[S.TWINS], max_points=5), 1)
    with pytest.raises(ValueError, match="ask point_clouds"):
        drawn(surface_samples(always=[S.LINE]), 1)
    with pytest.raises(ValueError, match="ask for float64"):
        drawn(point_clouds(always=[S.OFFSET], dtype=torch.float32), 1)
    with pytest.raises(ValueError, match="two dimensions or more"):
        drawn(point_clouds(dimensions=[1]), 1)


def on_a_known_surface(points):
    x, y, z = points.T
    ring = (x * x + y * y).sqrt()
    heights = [z - x / 2, z - (x * x - y * y) / 2, points.norm(dim=1) - 1, ((ring - 2) ** 2 + z * z).sqrt() - 1]
    return [float(height.abs().max()) < 1e-12 for height in heights]


def test_samples_lie_on_their_surfaces():
    """In the precision of numbers of the surface's size; and each of the four is drawn."""
    here = drawn(surface_samples(never=[S.SCALED, S.OFFSET]), 50)
    found = [on_a_known_surface(cloud.points) for cloud in here]
    assert all(map(any, found))
    assert all(sum(column) >= 1 for column in zip(*found, strict=True))


@pytest.mark.filterwarnings("ignore:the 20 nearest neighbours:operators.checks.DomainWarning")
def test_samples_have_a_point_cloud_laplacian():
    for cloud in drawn(surface_samples(never=[S.CLUSTERED, S.TWINS]), 10):
        assert bool((point_cloud_laplacian(cloud, neighbours=8).mass > 0).all())


def test_shrinking_leaves_few_lattice_points():
    assert least(point_clouds(), lambda cloud: True).points.tolist() == [[0, 0]]
    square = least(point_clouds(), lambda cloud: cloud.report().rank == 2)
    assert square.points.tolist() == [[0, 0], [0, 1], [1, 0]]
    twins = least(point_clouds(), lambda cloud: S.TWINS in scatter_of(cloud))
    assert twins.num_nodes <= 6
    assert sum(float(x) != round(float(x)) for x in twins.points.flatten()) == 1, "one point beside a lattice point"
    assert least(surface_samples(), lambda cloud: True).num_nodes == 12


def test_what_the_edits_do():
    lattice = PointCloud(torch.cartesian_prod(*[torch.arange(3.0, dtype=torch.float64)] * 2)).array
    assert scatter_of(PointCloud(torch.from_numpy(lattice))) == set()
    for edit, expected in ((Gather(0), S.CLUSTERED), (Twin(0, 1e-3), S.TWINS), (Flatten(1e-3), S.LINE)):
        assert scatter_of(PointCloud(torch.from_numpy(edit(lattice)))) == {expected}
    shaken = Shake(0.1, 3)(lattice)
    assert 0.05 < abs(shaken - lattice).max() <= 0.1
    assert (Shake(0.1, 3)(lattice) == shaken).all()
