"""Masses add up to the area, and the consistent one integrates products of linear functions exactly."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import aspect, assert_within, fields, meshes, roundoff
from operators import TriangleMesh, cotangent_laplacian, grid, icosphere
from operators.mass import consistent_mass, face_areas, lumped_mass, mixed_voronoi_mass

U = roundoff(torch.float64)
LUMPED = [lumped_mass, mixed_voronoi_mass]
lumped = pytest.mark.parametrize("build", LUMPED)


def triangle(*points, dtype=torch.float64):
    return TriangleMesh(torch.tensor(points, dtype=dtype), torch.tensor([[0, 1, 2]]))


def dense(operator):
    return torch.from_numpy(operator.to_scipy().toarray())


@lumped
@given(mesh=meshes())
def test_lumped_masses_are_positive_and_add_up_to_the_area(build, mesh):
    mass = build(mesh)
    assert mass.shape == (mesh.num_nodes,)
    assert (mass > 0).all()
    assert_within(mass.sum(), mesh.area, 32 * U * mesh.num_nodes * aspect(mesh) * mesh.area)


@given(mesh=meshes())
def test_face_areas_are_half_the_cross_product(mesh):
    p, f = mesh.arrays
    expected = np.linalg.norm(np.cross(p[f[:, 1]] - p[f[:, 0]], p[f[:, 2]] - p[f[:, 0]]), axis=1) / 2
    assert_within(face_areas(mesh), torch.from_numpy(expected), 32 * U * aspect(mesh) * torch.from_numpy(expected))


@given(mesh=meshes())
def test_lumped_mass_is_that_of_the_cotangent_laplacian(mesh):
    expected = cotangent_laplacian(mesh).mass
    assert_within(lumped_mass(mesh), expected, 32 * U * aspect(mesh) * expected)


@pytest.mark.parametrize(
    ("points", "shares"),
    [
        (((0, 0), (1, 0), (0.5, 3**0.5 / 2)), (1 / 3, 1 / 3, 1 / 3)),
        (((0, 0), (1, 0), (0, 1)), (1 / 2, 1 / 4, 1 / 4)),
        (((0, 0), (4, 0), (2, 0.5)), (1 / 4, 1 / 4, 1 / 2)),
        # The circumcentre of an isosceles triangle of base 2 and height 2 lies 3/4 above the base.
        (((-1, 0), (1, 0), (0, 2)), (11 / 32, 11 / 32, 10 / 32)),
    ],
)
def test_mixed_voronoi_shares_of_a_triangle_by_hand(points, shares):
    mesh = triangle(*points)
    assert_within(mixed_voronoi_mass(mesh), mesh.area * torch.tensor(shares, dtype=torch.float64), 16 * U * mesh.area)


def test_mixed_voronoi_area_is_the_measure_of_the_nearest_points():
    """Counted on a fine lattice inside one acute triangle."""
    mesh = triangle((0, 0), (1, 0), (0.4, 0.8))
    a, b = torch.meshgrid(torch.arange(400) / 400, torch.arange(400) / 400, indexing="ij")
    inside = (a + b < 1).flatten()
    weights = torch.stack([1 - a - b, a, b], -1).reshape(-1, 3)[inside].double() + torch.tensor([-2, 1, 1]) / 1200
    nearest = torch.cdist(weights @ mesh.vertices, mesh.vertices).argmin(1)
    share = torch.bincount(nearest, minlength=3) / len(nearest)
    # One lattice row of cells lies on the borders between the three.
    assert_within(mixed_voronoi_mass(mesh) / mesh.area, share.double(), 4 / 400)


@given(mesh=meshes())
def test_consistent_mass_is_symmetric_to_the_last_bit_with_the_lumped_mass_as_row_sums(mesh):
    M, thirds = consistent_mass(mesh), lumped_mass(mesh)
    matrix = dense(M)
    assert torch.equal(matrix, matrix.T)
    assert_within(M.row_sums(), thirds, 32 * U * aspect(mesh) * mesh.num_nodes * thirds)
    assert_within(matrix.sum(), mesh.area, 32 * U * mesh.num_nodes * aspect(mesh) * mesh.area)


@given(mesh=meshes(slivers=False))
def test_consistent_mass_lies_between_a_quarter_and_all_of_the_lumped(mesh):
    """So it is positive definite: on each face the matrix (1 + δ)/12 has the eigenvalues 1/12, 1/12 and 4/12."""
    root = lumped_mass(mesh).rsqrt()
    eigenvalues = torch.linalg.eigvalsh(dense(consistent_mass(mesh)) * root[:, None] * root)
    slack = 64 * mesh.num_nodes * U * aspect(mesh)
    assert 0.25 - slack <= eigenvalues[0]
    assert eigenvalues[-1] <= 1 + slack


@given(data=st.data())
def test_consistent_mass_integrates_products_of_linear_functions(data):
    """Edge midpoints integrate quadratics exactly: ∫ u v = A/3 Σ u v at the three midpoints of a face."""
    mesh = data.draw(meshes())
    u, v = data.draw(fields(mesh.num_nodes, 1)), data.draw(fields(mesh.num_nodes, 1))
    area = face_areas(mesh)[:, None]
    middle = [(x[mesh.faces] + x[mesh.faces.roll(1, 1)])[..., 0] / 2 for x in (u, v)]
    expected = (area / 3 * middle[0] * middle[1]).sum()
    magnitude = float((u.abs().T @ (consistent_mass(mesh) @ v.abs())).sum())
    bound = 32 * U * (mesh.num_nodes + aspect(mesh)) * magnitude
    assert_within((u.T @ (consistent_mass(mesh) @ v)).sum(), expected, bound)


def test_consistent_mass_of_a_right_triangle_by_hand():
    expected = torch.tensor([[2.0, 1, 1], [1, 2, 1], [1, 1, 2]], dtype=torch.float64) / 24
    assert_within(dense(consistent_mass(triangle((0, 0), (1, 0), (0, 1)))), expected, 2 * U)


@given(mesh=meshes(), power=st.integers(-30, 30))
def test_masses_scale_with_the_square_of_the_unit_bitwise_for_powers_of_two(mesh, power):
    scaled = TriangleMesh(mesh.vertices * 2.0**power, mesh.faces)
    for build in LUMPED:
        assert torch.equal(build(scaled), build(mesh) * 4.0**power)
    assert torch.equal(dense(consistent_mass(scaled)), dense(consistent_mass(mesh)) * 4.0**power)


@given(mesh=meshes())
def test_masses_ignore_rotation_and_translation(mesh):
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    moved = TriangleMesh(mesh.vertices @ torch.from_numpy(turn) + 3 * mesh.vertices.abs().max(), mesh.faces)
    # The cotangent at a corner magnifies rounding once more than an area does; a right angle may fall on either side.
    for build, amplified in ((lumped_mass, 128), (mixed_voronoi_mass, 1024)):
        assert_within(build(moved), build(mesh), amplified * U * aspect(mesh) * build(mesh).max())


@lumped
def test_planar_coordinates_in_two_columns_give_the_same_mass(build):
    sheared = grid(5, 4, 1.0, 0.3).vertices @ torch.tensor([[1.0, 0.4, 0], [-0.3, 0.9, 0], [0, 0, 1]], dtype=torch.float64)
    mesh = TriangleMesh(sheared, grid(5, 4).faces)
    flat = TriangleMesh(mesh.vertices[:, :2], mesh.faces)
    assert_within(build(flat), build(mesh), 64 * U * build(mesh))
    assert_within(dense(consistent_mass(flat)), dense(consistent_mass(mesh)), 8 * U * mesh.area)


@pytest.mark.parametrize("dimension", [2, 3])
def test_masses_are_differentiable_in_the_vertices(dimension):
    mesh = TriangleMesh(
        torch.tensor([[0.0, 0, 0], [1, 0.1, 0.2], [0.3, 1, 0.1], [1.4, 0.9, -0.3]], dtype=torch.float64)[:, :dimension],
        torch.tensor([[0, 1, 2], [1, 3, 2]]),
    )
    for build in (lumped_mass, mixed_voronoi_mass, lambda mesh: consistent_mass(mesh).values, face_areas):
        at = mesh.vertices.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda v, build=build: build(TriangleMesh(v, mesh.faces)), at)
        assert torch.autograd.gradgradcheck(lambda v, build=build: build(TriangleMesh(v, mesh.faces)), at)


@given(mesh=meshes(slivers=False, dtype=torch.float32))
def test_float32_surface_gives_the_float64_mass_rounded(mesh):
    for build in (*LUMPED, lambda mesh: consistent_mass(mesh).values):
        assert torch.equal(build(mesh), build(mesh.to(torch.float64)).float())


def test_offset_in_float32_costs_no_more_than_the_rounding_of_the_coordinates():
    near = icosphere(2).vertices.float()
    there = (near + 1024).sub(1024)
    far, back = (TriangleMesh(v, icosphere(2).faces) for v in (there + 1024, there))
    torch.testing.assert_close(lumped_mass(far), lumped_mass(back), rtol=1e-6, atol=0)


def test_masses_of_every_real_mesh(real_mesh):
    thirds, n = lumped_mass(real_mesh), real_mesh.num_nodes
    for build in LUMPED:
        mass = build(real_mesh)
        assert (mass > 0).all()
        assert_within(mass.sum(), real_mesh.area, 8 * U * n * real_mesh.area)
    M = consistent_mass(real_mesh)
    matrix = M.to_scipy()
    assert (matrix != matrix.T).nnz == 0
    assert_within(M.row_sums(), thirds, 32 * U * thirds)
    x = torch.randn(n, 1, dtype=torch.float64)
    energy = float((x.T @ (M @ x)).sum())
    assert 0.25 * (1 - 1e-12) <= energy / float((thirds[:, None] * x * x).sum()) <= 1 + 1e-12
