"""The Laplacian of a sampled surface has the spectrum of the surface, and refuses points that are none."""

import pickle
import warnings
from copy import deepcopy

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import assert_within, roundoff
from operators.checks import DomainError, DomainWarning
from operators.domains import PointCloud
from operators.point_cloud import point_cloud_laplacian

U = roundoff(torch.float64)
HARMONICS = np.array([degree * (degree + 1) for degree in range(4) for _ in range(2 * degree + 1)])


def sphere(n, seed=0):
    """Random points of the unit sphere."""
    points = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return points / torch.linalg.vector_norm(points, dim=1, keepdim=True)


def spiral(n):
    """Evenly spaced points of the unit sphere."""
    i = torch.arange(n, dtype=torch.float64) + 0.5
    angle, height = torch.pi * (1 + 5**0.5) * i, 1 - 2 * i / n
    radius = (1 - height**2).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), height], dim=1)


def eigenvalues(L, count=16):
    """The least eigenvalues of C x = λ M x, by SciPy."""
    mass = sp.diags_array(L.mass.double().numpy())
    return np.sort(scipy.sparse.linalg.eigsh(L.stiffness.to_scipy(), k=count, M=mass, sigma=-0.1, return_eigenvectors=False))


# Laws -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "tolerance"), [(sphere(500), 0.15), (sphere(3000), 0.1), (spiral(1000), 0.03)], ids=["500", "3000", "even"]
)
def test_sphere_has_the_eigenvalues_of_spherical_harmonics(points, tolerance):
    L = point_cloud_laplacian(PointCloud(points))
    found = eigenvalues(L)
    assert abs(found[0]) < 1e-8
    assert np.abs(found[1:] / HARMONICS[1:] - 1).max() < tolerance
    assert abs(float(L.mass.sum()) / (4 * np.pi) - 1) < 0.02


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), n=st.integers(40, 200), neighbours=st.integers(5, 25), flat=st.booleans())
def test_stiffness_is_symmetric_kills_constants_and_has_no_negative_weight(seed, n, neighbours, flat):
    points = sphere(n, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DomainWarning)
        L = point_cloud_laplacian(PointCloud(points[:, :2] if flat else points), neighbours)
    C = L.stiffness.to_scipy().copy()
    assert (C != C.T).nnz == 0
    assert L.kills_constants
    assert (L.mass > 0).all()
    C.setdiag(0)
    assert C.max() <= 0
    x = torch.randn(n, 2, dtype=torch.float64)
    assert float(L.inner(x, L @ x)) >= 0


def test_renaming_the_points_keeps_the_spectrum_though_not_the_entries():
    points, order = sphere(400), torch.randperm(400)
    here, there = (eigenvalues(point_cloud_laplacian(PointCloud(p))) for p in (points, points[order]))
    assert np.abs(there[1:] / here[1:] - 1).max() < 0.05


@pytest.mark.parametrize("power", [-150, -20, 20, 150])
def test_unit_and_origin_do_not_matter(power):
    points = sphere(100)
    here = point_cloud_laplacian(PointCloud(points), 15)
    there = point_cloud_laplacian(PointCloud(points * 2.0**power), 15)
    assert torch.equal(there.stiffness.values, here.stiffness.values)
    assert torch.equal(there.mass, here.mass * 4.0**power)
    moved = point_cloud_laplacian(PointCloud(points + 1024), 15)
    # 1e-9: coordinates rounded at 1024 move the points by 1e-13, and the least angles magnify that.
    assert_within(moved.mass, here.mass, 1e-9 * here.mass.max())


def test_points_of_the_plane_may_come_in_two_columns():
    points = torch.rand(200, 2, dtype=torch.float64)
    flat = point_cloud_laplacian(PointCloud(points))
    space = point_cloud_laplacian(PointCloud(torch.cat([points, torch.zeros(200, 1)], dim=1)))
    assert torch.equal(flat.stiffness.values, space.stiffness.values)
    assert torch.equal(flat.mass, space.mass)


def test_a_copy_a_pickle_another_cloud_and_float32():
    L = point_cloud_laplacian(PointCloud(sphere(100)), 12)
    x = torch.randn(100, 2, dtype=torch.float64)
    for copy in (deepcopy(L), pickle.loads(pickle.dumps(L))):
        assert torch.equal(copy @ x, L @ x)
    moved = L.to(torch.float32).on(PointCloud(sphere(120)))
    expected = point_cloud_laplacian(PointCloud(sphere(120)), 12)
    assert torch.equal(moved.stiffness.values, expected.stiffness.values.float())
    narrow = point_cloud_laplacian(PointCloud(sphere(100).float()), 12)
    assert narrow.dtype == torch.float32
    assert narrow.kills_constants


# Points that are no surface -------------------------------------------------------------------------------------------


def test_a_count_may_come_from_numpy():
    cloud = PointCloud(sphere(50))
    assert torch.equal(point_cloud_laplacian(cloud, np.int64(12)).mass, point_cloud_laplacian(cloud, 12).mass)


@pytest.mark.parametrize("neighbours", [0, 1, 2, -1, 50, 2**40, 10.0, True, None])
def test_a_count_out_of_range_never_reaches_the_native_code(neighbours):
    with pytest.raises(DomainError, match=r"neighbours must be an integer from 3 to 49 .*not"):
        point_cloud_laplacian(PointCloud(sphere(50)), neighbours)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_fewer_than_four_points_are_no_surface(n):
    with pytest.raises(DomainError, match="a surface needs at least 4 points"):
        point_cloud_laplacian(PointCloud(sphere(n)), 3)


@pytest.mark.parametrize("distance", [0.0, 1e-12, 1e-9])
def test_coincident_points_are_refused_with_the_cure(distance):
    points = sphere(100)
    twice = torch.cat([points, points[3:5] + distance])
    with pytest.raises(DomainError, match=r"4 points coincide.*the first is 3 with 100: .*torch\.unique\(points, dim=0"):
        point_cloud_laplacian(PointCloud(twice), 12)


def test_many_copies_of_one_point_are_refused():
    with pytest.raises(DomainError, match="51 points coincide"):
        point_cloud_laplacian(PointCloud(torch.cat([sphere(20), sphere(20)[:1].expand(50, 3)])), 12)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.ones(40, 3), "all points coincide"),
        (torch.arange(40.0)[:, None] * torch.tensor([1.0, 2.0, 3.0]), "on one line"),
        (torch.rand(40, 4), "have 2 or 3 coordinates, not 4"),
        (torch.rand(40, 1), "have 2 or 3 coordinates, not 1"),
    ],
    ids=["all the same", "collinear", "four dimensions", "one dimension"],
)
def test_points_without_a_surface_are_refused(points, message):
    with pytest.raises(DomainError, match=message):
        point_cloud_laplacian(PointCloud(points.double()), 12)


def test_a_volume_is_noticed():
    with pytest.warns(DomainWarning, match=r"fill a volume.*knn_graph"):
        point_cloud_laplacian(PointCloud(torch.rand(300, 3, dtype=torch.float64)), 12)


def test_a_curve_is_noticed():
    t = torch.linspace(0, 20, 2000, dtype=torch.float64)
    with pytest.warns(DomainWarning, match=r"along a curve.*knn_graph"):
        point_cloud_laplacian(PointCloud(torch.stack([t.cos(), t.sin(), t / 5], dim=1)))


@pytest.mark.parametrize("distance", [10.0, 1e3])
def test_a_point_astray_is_noticed(distance):
    points = torch.cat([sphere(500), torch.tensor([[distance, 0, 0]], dtype=torch.float64)])
    with pytest.warns(DomainWarning, match=r"point 500 is \d+ times as far.*outlier"):
        L = point_cloud_laplacian(PointCloud(points))
    assert torch.isfinite(L.stiffness.values).all()


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
def test_a_noisy_surface_passes_without_a_warning(noise):
    points = sphere(2000) + noise * torch.randn(2000, 3, dtype=torch.float64)
    assert point_cloud_laplacian(PointCloud(points)).shape == (2000, 2000)


def test_a_gradient_that_would_be_lost_is_refused():
    points = sphere(60).requires_grad_()
    with pytest.raises(DomainError, match="no gradient in the points: detach them"):
        point_cloud_laplacian(PointCloud(points), 12)
    with torch.no_grad():
        assert point_cloud_laplacian(PointCloud(points), 12).shape == (60, 60)
