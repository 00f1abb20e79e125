"""Latitude–longitude grids: closed spheres with one vertex a pole, weights by area, fields there and back."""

import copy
import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.linalg import eigsh

from neuralpde.testing import assert_within, roundoff
from operators.checks import DomainError, FieldError
from operators.laplacian import Laplacian
from operators.lat_lon import LatLon, latitude_weights, unit_vectors
from operators.mass import lumped_mass
from operators.surface import cotangent_laplacian


def with_poles(rows, columns):
    return LatLon(torch.linspace(90, -90, rows, dtype=torch.float64), torch.arange(columns) * (360 / columns))


def without_poles(rows, columns):
    half = 90 / rows
    return LatLon(torch.linspace(-90 + half, 90 - half, rows, dtype=torch.float64), torch.arange(columns) * (360 / columns))


BRITAIN = LatLon(torch.linspace(58, 50, 9), torch.linspace(-10, 2, 13))


@st.composite
def global_grids(draw):
    """Rows rising or falling, with either pole or none, columns eastward or westward from anywhere, evenly spaced or not."""
    rows, columns = draw(st.integers(3, 9)), draw(st.integers(4, 12))
    south, north = draw(st.booleans()), draw(st.booleans())
    spacing = 180 / (rows - 1 + (not south) / 2 + (not north) / 2)
    latitude = -90 + (0 if south else spacing / 2) + spacing * np.arange(rows)
    random = np.random.default_rng(draw(st.integers(0, 99)))
    longitude = 360 / columns * (np.arange(columns) + 0.2 * draw(st.booleans()) * random.uniform(-1, 1, columns))
    longitude = np.mod(longitude + draw(st.floats(-360, 360)) + 180, 360) - 180 * draw(st.booleans())
    turns = [1, -1]
    latitude, longitude = latitude[:: draw(st.sampled_from(turns))], longitude[:: draw(st.sampled_from(turns))]
    return LatLon(torch.from_numpy(latitude.copy()), torch.from_numpy(longitude.copy()))


def euler(mesh):
    return mesh.num_nodes - mesh.edges.shape[1] + len(mesh.faces)


def outward(mesh):
    points, faces = mesh.arrays
    a, b, c = points[faces[:, 0]], points[faces[:, 1]], points[faces[:, 2]]
    return (np.cross(b - a, c - a) * (a + b + c)).sum(1)


def is_closed_and_oriented(mesh):
    walked = {(f[k - 1], f[k]) for f in mesh.faces.tolist() for k in range(3)}
    return len(walked) == 3 * len(mesh.faces) and all((j, i) in walked for i, j in walked)


@given(grid=global_grids())
def test_a_global_grid_is_a_closed_sphere_that_faces_outwards(grid):
    mesh = grid.mesh
    assert grid.wraps
    assert euler(mesh) == 2
    assert is_closed_and_oriented(mesh)
    assert (outward(mesh) > 0).all()
    assert_within(mesh.vertices.norm(dim=1), 1.0, 4 * roundoff(torch.float64))
    assert (mesh.vertices[:, 2].abs() == 1).sum() == 2, "one vertex at each pole"
    assert mesh.num_nodes == grid.num_nodes
    assert float(grid.areas.sum()) == pytest.approx(4 * math.pi, rel=1e-13)
    assert float(grid.weights.mean()) == pytest.approx(1, rel=1e-13)


@given(grid=global_grids(), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_fields_go_to_the_nodes_and_back(grid, dtype):
    nodes = grid.to_nodes(torch.randn(2, *grid.shape, 3, dtype=dtype))
    assert nodes.shape == (2, grid.num_nodes, 3)
    field = grid.to_grid(nodes)
    again = grid.to_nodes(field)
    # An added pole is the mean of its row, again; a polar row is the mean of equal values, which rounds.
    assert_within(again, nodes, 2 * grid.shape[1] * roundoff(dtype) * nodes.abs().max())
    assert_within(grid.to_grid(again), field, 2 * grid.shape[1] * roundoff(dtype) * nodes.abs().max())


@given(grid=global_grids())
def test_nodes_lie_where_their_grid_points_do(grid):
    latitude, longitude = torch.meshgrid(torch.deg2rad(grid.latitude), torch.deg2rad(grid.longitude), indexing="ij")
    across = torch.cos(latitude)
    points = torch.stack([across * torch.cos(longitude), across * torch.sin(longitude), torch.sin(latitude)], dim=-1)
    assert torch.equal(grid.mesh.vertices, unit_vectors(*grid.positions))
    assert_within(grid.to_grid(grid.mesh.vertices), points, 1e-14)


def test_poles_are_welded_or_added():
    assert with_poles(5, 8).num_nodes == 3 * 8 + 2
    assert without_poles(4, 8).num_nodes == 4 * 8 + 2
    grid = with_poles(5, 8)
    field = torch.arange(40.0).reshape(5, 8, 1)
    nodes = grid.to_nodes(field)
    assert float(nodes[0, 0]) == pytest.approx(3.5)
    assert torch.equal(grid.to_grid(nodes)[0], torch.full((8, 1), 3.5))
    assert torch.equal(grid.to_grid(nodes)[1:-1], field[1:-1])
    grid = without_poles(4, 8)
    nodes = grid.to_nodes(field[:4])
    assert nodes[-2:, 0].tolist() == [3.5, 27.5]
    assert grid.areas[-2:].tolist() == [0, 0]
    assert torch.equal(grid.to_grid(nodes), field[:4]), "nothing is lost"
    # The ERA5 rows of 1.5 degrees: the protocol's 240 x 121.
    assert with_poles(121, 240).num_nodes == 119 * 240 + 2


def test_regions_stay_open():
    assert not BRITAIN.wraps
    assert BRITAIN.num_nodes == 9 * 13
    assert euler(BRITAIN.mesh) == 1
    assert (outward(BRITAIN.mesh) > 0).all()
    box = math.radians(13.0) * (math.sin(math.radians(58.5)) - math.sin(math.radians(49.5)))
    assert float(BRITAIN.areas.sum()) == pytest.approx(box, rel=1e-6), "half a cell beyond the outer points"
    band = LatLon(torch.linspace(-30, 30, 7), torch.arange(0, 360, 10))
    assert band.wraps
    assert euler(band.mesh) == 0
    cap = LatLon(torch.linspace(90, 60, 4), torch.arange(0, 360, 30))
    assert euler(cap.mesh) == 1
    assert cap.num_nodes == 1 + 3 * 12
    field = torch.randn(2, 9, 13, 1)
    assert torch.equal(BRITAIN.to_grid(BRITAIN.to_nodes(field)), field)


@pytest.mark.parametrize("latitude", [np.linspace(-90, 90, 121), np.linspace(-87.1875, 87.1875, 32), np.linspace(90, -90, 19)])
def test_weights_are_those_of_weatherbench(latitude):
    rising = np.deg2rad(np.sort(latitude))
    bounds = np.concatenate([[-np.pi / 2], (rising[1:] + rising[:-1]) / 2, [np.pi / 2]])
    expected = np.diff(np.sin(bounds))
    expected /= expected.mean()
    if latitude[0] > latitude[-1]:
        expected = expected[::-1]
    assert_within(latitude_weights(torch.from_numpy(latitude)), torch.from_numpy(expected.copy()), 1e-13)
    assert LatLon(torch.from_numpy(latitude), torch.arange(0, 360, 90)).cell_weights.shape == (4 * len(latitude),)


def test_weights_of_a_region_are_those_of_the_globe_around_it():
    whole = latitude_weights(torch.linspace(-90, 90, 721, dtype=torch.float64))
    part = latitude_weights(torch.linspace(50, 58, 33, dtype=torch.float64))
    assert_within(part, whole[560:593] / whole[560:593].mean(), 1e-12)


@pytest.mark.parametrize("make", [with_poles, without_poles])
def test_the_mesh_approaches_the_sphere(make):
    missing, wrong = [], []
    for rows in (9, 17, 33):
        mesh = make(rows, 2 * (rows - 1)).mesh
        missing.append(1 - float(lumped_mass(mesh).sum()) / (4 * math.pi))
        wrong.append(eigenvalue_errors(cotangent_laplacian(mesh)))
    for coarse, fine in pairwise(missing):
        assert 3.5 < coarse / fine < 4.8, "the missing area is of second order"
    for coarse, fine in pairwise(wrong):
        assert fine < coarse / 3
    assert wrong[-1] < 0.02


def eigenvalue_errors(laplacian: Laplacian):
    """The largest relative error of the 15 smallest nonzero eigenvalues, which are l (l + 1), each 2 l + 1 times."""
    n = len(laplacian.mass)
    stiffness = laplacian.stiffness.to_scipy().toarray()
    root = laplacian.mass.numpy() ** -0.5
    values = np.linalg.eigvalsh(root[:, None] * stiffness * root)[1:16] if n < 700 else sparse_values(stiffness, laplacian)
    exact = np.array([degree * (degree + 1) for degree in (1, 2, 3) for _ in range(2 * degree + 1)])
    return np.abs(values / exact - 1).max()


def sparse_values(stiffness, laplacian):
    mass = sp.diags_array(laplacian.mass.numpy(), format="csc")
    values = eigsh(sp.csc_array(stiffness), k=16, M=mass, sigma=-0.1, v0=np.ones(len(stiffness)))[0]
    return np.sort(values)[1:]


def test_a_spherical_harmonic_is_an_eigenfunction():
    grid = with_poles(33, 64)
    z = grid.mesh.vertices[:, 2:]
    y = 3 * z**2 - 1
    laplacian = cotangent_laplacian(grid.mesh)
    assert_within((y * (laplacian.stiffness @ y)).sum() / (laplacian.mass[:, None] * y * y).sum(), 6.0, 0.06)


def test_gradients_pass():
    grid = with_poles(4, 5)
    field = torch.randn(1, 4, 5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: grid.to_grid(grid.to_nodes(x)), (field,))


def test_grids_are_copied_and_pickled():
    grid = with_poles(4, 5)
    field = torch.randn(4, 5, 1)
    for other in (copy.deepcopy(grid), pickle.loads(pickle.dumps(grid))):
        assert torch.equal(other.to_nodes(field), grid.to_nodes(field))


@pytest.mark.parametrize(
    ("latitude", "longitude", "told"),
    [
        ([10, 30, 20], [0, 10], "rise or fall"),
        ([10, 20, 20], [0, 10], "20 at index 1 is followed by 20"),
        ([0, 50, 100], [0, 10], "beyond a pole"),
        ([0, float("nan")], [0, 10], "non-finite"),
        ([0], [0, 10], "two latitudes"),
        ([0, 10], [5], "two longitudes"),
        ([0, 10], [0, 90, 180, 270, 360], "360 is 0"),
        ([0, 10], [0, 20, 10, 30], "eastward or westward"),
        ([0, 10], [0, 10, 10], "each once"),
        ([[0, 10]], [0, 10], "shape"),
    ],
)
def test_bad_coordinates_are_refused(latitude, longitude, told):
    with pytest.raises(DomainError, match=told):
        LatLon(torch.tensor(latitude, dtype=torch.float64), torch.tensor(longitude, dtype=torch.float64))


def test_fields_of_another_shape_are_refused():
    grid = with_poles(4, 5)
    with pytest.raises(FieldError, match=r"\(..., 4, 5, c\)"):
        grid.to_nodes(torch.zeros(5, 4, 1))
    with pytest.raises(FieldError, match="not list"):
        grid.to_nodes([0.0])
    with pytest.raises(FieldError, match="nodes"):
        grid.to_grid(torch.zeros(20, 1))
