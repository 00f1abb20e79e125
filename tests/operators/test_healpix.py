"""HEALPix: rings of equal areas, a nested order whose children surround their parent, and a closed mesh."""

import math

import numpy as np
import pytest
import torch

from neuralpde.testing import assert_within
from operators.checks import DomainError, FieldError
from operators.healpix import Healpix
from operators.mass import lumped_mass
from operators.surface import robust_laplacian

# Number in ring order of the nested pixels, nside 2, as the authors' library has it.
NESTED_2 = (
    "13 5 4 0 15 7 6 1 17 9 8 2 19 11 10 3 28 20 27 12 30 22 21 14 32 24 23 16 34 26 25 18 44 37 36 29 45 39 38 31 46 41 40 33 "
    "47 43 42 35"
)


@pytest.mark.parametrize("nside", [1, 2, 3, 4, 8])
def test_rings_are_those_of_the_definition(nside):
    latitude, longitude = Healpix(nside).positions
    z = torch.sin(torch.deg2rad(latitude))
    assert len(torch.unique(z.round(decimals=12))) == 4 * nside - 1
    assert (z.diff() <= 1e-15).all(), "from north to south"
    assert_within(z + z.flip(0), 0.0, 1e-15)
    # Rings bound equal areas: a cap of i rings has 2 i (i + 1) pixels, the boundary z = 1 - i² / (3 nside²) lies on its ring.
    first = torch.tensor([2 * i * (i - 1) for i in range(1, nside + 1)])
    assert_within(z[first], 1 - torch.arange(1, nside + 1, dtype=torch.float64) ** 2 / (3 * nside**2), 1e-14)
    assert float(longitude[0]) == pytest.approx(45)
    assert (longitude >= 0).all()
    assert (longitude < 360).all()


def test_the_nested_order_is_that_of_the_authors():
    ring, nested = Healpix(2), Healpix(2, nested=True)
    expected = torch.tensor([int(x) for x in NESTED_2.split()])
    assert_within(torch.stack(nested.positions), torch.stack(ring.positions)[:, expected], 1e-13)


@pytest.mark.parametrize("nside", [1, 2, 4, 8])
def test_children_lie_in_their_parent(nside):
    parents = Healpix(nside, nested=True).mesh.vertices
    children = Healpix(2 * nside, nested=True).mesh.vertices
    # 4 p ... 4 p + 3 lie in pixel p: no centre is nearer than that of the parent.
    nearest = torch.cdist(children, parents).argmin(1)
    assert torch.equal(nearest, torch.arange(len(children)) // 4)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("nside", [1, 2, 4, 8])
def test_the_mesh_is_a_closed_sphere(nside, nested):
    mesh = Healpix(nside, nested).mesh
    assert mesh.num_nodes == 12 * nside**2
    assert mesh.num_nodes - mesh.edges.shape[1] + len(mesh.faces) == 2
    points, faces = mesh.arrays
    assert (np.linalg.det(points[faces]) > 0).all(), "outwards"
    assert Healpix(nside).areas.sum() == pytest.approx(4 * math.pi)


def test_the_mesh_approaches_the_sphere():
    missing, wrong = [], []
    for nside in (2, 4, 8):
        mesh = Healpix(nside).mesh
        missing.append(1 - float(lumped_mass(mesh).sum()) / (4 * math.pi))
        laplacian = robust_laplacian(mesh)
        root = laplacian.mass.numpy() ** -0.5
        values = np.linalg.eigvalsh(root[:, None] * laplacian.stiffness.to_scipy().toarray() * root)[1:9]
        wrong.append(np.abs(values / np.array([2, 2, 2, 6, 6, 6, 6, 6]) - 1).max())
    for errors in (missing, wrong):
        assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert wrong[-1] < 0.02


@pytest.mark.parametrize("nside", [1, 4])
def test_orders_are_exchanged(nside):
    ring, nested = Healpix(nside), Healpix(nside, nested=True)
    field = torch.randn(2, 12 * nside**2, 3)
    assert torch.equal(nested.reordered(ring.reordered(field)), field)
    where = ring.mesh.vertices
    assert_within(ring.reordered(where), nested.mesh.vertices, 1e-15)


def test_pixels_are_nodes():
    pixels, field = Healpix(2), torch.randn(3, 48, 1)
    assert pixels.to_nodes(field) is field
    assert pixels.to_grid(field) is field
    assert pixels.shape == (48,)
    with pytest.raises(FieldError, match="48"):
        pixels.to_nodes(torch.zeros(47, 1))


@pytest.mark.parametrize("nside", [0, -1, 2.0, True, 4096])
def test_bad_sizes_are_refused(nside):
    with pytest.raises(DomainError, match="nside"):
        Healpix(nside)


def test_the_nested_order_needs_a_power_of_two():
    with pytest.raises(DomainError, match="nested=False"):
        Healpix(3, nested=True)
    with pytest.raises(DomainError, match="power of two"):
        Healpix(3).reordered(torch.zeros(108, 1))
