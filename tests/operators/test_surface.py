"""Laplacians of surfaces: their own laws, closed forms, and every real mesh."""

import math

import numpy as np
import potpourri3d
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import aspect, assert_within, fields, meshes, roundoff
from operators import (
    TriangleMesh,
    adjacency_of,
    cotangent_laplacian,
    grid,
    icosphere,
    robust_laplacian,
)

ON_MESHES = [cotangent_laplacian, robust_laplacian]
U = roundoff(torch.float64)
on_meshes = pytest.mark.parametrize("build", ON_MESHES)


def dense(operator):
    """The entries as stored, without a product."""
    return torch.from_numpy(operator.to_scipy().toarray())


def size(operator):
    """|A|, entrywise."""
    return abs(operator.to_scipy())


def turned(mesh, seed=0):
    """The mesh under a random rotation."""
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return TriangleMesh(mesh.vertices @ torch.from_numpy(rotation), mesh.faces)


# Laws of surfaces -----------------------------------------------------------------------------------------------------


@on_meshes
@given(mesh=meshes(slivers=False))
def test_total_mass_is_the_area(build, mesh):
    L = build(mesh)
    assert_within(L.mass.sum(), mesh.area, 32 * U * mesh.num_nodes * aspect(mesh) * mesh.area)


@given(mesh=meshes())
def test_cotangent_agrees_with_potpourri3d(mesh):
    centred = mesh.vertices - mesh.vertices.mean(0)
    C = cotangent_laplacian(mesh).stiffness.to_scipy().toarray()
    expected = potpourri3d.cotan_laplacian(centred.numpy(), mesh.faces.numpy(), 0.0).toarray()
    bound = 32 * U * aspect(mesh) * np.abs(expected).max()
    assert_within(torch.from_numpy(C), torch.from_numpy(expected), bound)


@given(mesh=meshes())
def test_robust_weights_are_never_negative(mesh):
    C = dense(robust_laplacian(mesh).stiffness)
    assert (C - torch.diag(C.diagonal()) <= 0).all()
    assert (adjacency_of(robust_laplacian(mesh)).values > 0).all()


@settings(max_examples=100)
@given(data=st.data())
def test_robust_energy_is_at_most_the_cotangent_energy(data):
    """Rippa (1990): of all triangulations the Delaunay one has the least Dirichlet energy."""
    mesh = data.draw(meshes(slivers=False))
    x = data.draw(fields(mesh.num_nodes, 1))
    robust, plain = (build(mesh).stiffness.to_scipy() for build in (robust_laplacian, cotangent_laplacian))
    energy, other = ((x.T.numpy() @ (C @ x.numpy())).item() for C in (robust, plain))
    magnitude = float((x.abs().T.numpy() @ (abs(plain) @ x.abs().numpy())).item())
    assert energy <= other + 64 * U * aspect(mesh) * magnitude


@on_meshes
@given(mesh=meshes())
def test_robust_and_cotangent_ignore_rotation_and_translation(build, mesh):
    L, R = build(mesh), build(turned(mesh))
    T = build(TriangleMesh(mesh.vertices + mesh.vertices.abs().max() * 3, mesh.faces))
    scale = float(abs(L.stiffness.to_scipy()).max())
    for moved in (R, T):
        assert_within(dense(moved.stiffness), dense(L.stiffness), 128 * U * aspect(mesh) * scale)
        assert_within(moved.mass, L.mass, 128 * U * aspect(mesh) * L.mass.max())


@on_meshes
@given(mesh=meshes(), power=st.integers(-30, 30))
def test_scaling_by_a_power_of_two_keeps_the_stiffness_bitwise_and_squares_the_mass(build, mesh, power):
    L, S = build(mesh), build(TriangleMesh(mesh.vertices * 2.0**power, mesh.faces))
    assert torch.equal(dense(S.stiffness), dense(L.stiffness))
    assert torch.equal(S.mass, L.mass * 4.0**power)


@given(data=st.data())
def test_cotangent_kills_linear_functions_inside_a_plane(data):
    mesh = data.draw(meshes(planar=True))
    L = cotangent_laplacian(mesh)
    pairs = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]).sort(1).values
    edges, count = torch.unique(pairs, dim=0, return_counts=True)
    inside = torch.ones(mesh.num_nodes, dtype=torch.bool)
    inside[edges[count == 1].reshape(-1)] = False
    magnitude = torch.from_numpy(size(L.stiffness) @ mesh.vertices.abs().numpy())
    assert_within(L.stiffness(mesh.vertices)[inside], 0.0, 32 * U * aspect(mesh) * magnitude[inside])


@given(mesh=meshes(planar=True))
def test_planar_coordinates_in_two_columns_give_the_same_operator(mesh):
    flat = TriangleMesh(mesh.vertices[:, :2], mesh.faces)
    for build in ON_MESHES:
        scale = float(abs(build(mesh).stiffness.to_scipy()).max())
        assert_within(dense(build(flat).stiffness), dense(build(mesh).stiffness), 64 * U * aspect(mesh) * scale)


@on_meshes
@given(mesh=meshes(slivers=False, dtype=torch.float32))
def test_float32_surface_gives_the_float64_operator_rounded(build, mesh):
    narrow, wide = build(mesh), build(mesh.to(torch.float64))
    assert narrow.dtype == torch.float32
    assert torch.equal(narrow.stiffness.values, wide.stiffness.values.float())
    assert torch.equal(narrow.mass, wide.mass.float())
    assert narrow.kills_constants


@on_meshes
def test_sphere_has_the_eigenvalues_of_spherical_harmonics(build):
    eigenvalues = torch.linalg.eigvalsh(build(icosphere(3)).symmetrized().matrix())[:16]
    expected = torch.tensor([float(degree * (degree + 1)) for degree in range(4) for _ in range(2 * degree + 1)])
    assert_within(eigenvalues[1:], expected[1:], 0.02 * expected[1:])
    assert abs(eigenvalues[0]) < 1e-10


@on_meshes
def test_rectangle_has_the_neumann_eigenvalues(build):
    eigenvalues = torch.linalg.eigvalsh(build(grid(25, 17, 1.0, 0.6)).symmetrized().matrix())[1:6]
    modes = sorted(math.pi**2 * (i**2 + (j / 0.6) ** 2) for i in range(5) for j in range(5))[1:6]
    assert_within(eigenvalues, torch.tensor(modes, dtype=torch.float64), 0.02 * max(modes))


def test_robust_is_the_cotangent_on_a_delaunay_surface():
    mesh = icosphere(2)
    robust, plain = robust_laplacian(mesh), cotangent_laplacian(mesh)
    assert_within(dense(robust.stiffness), dense(plain.stiffness), 256 * U * aspect(mesh))
    assert_within(robust.mass, plain.mass, 256 * U * aspect(mesh) * plain.mass)


def test_cotangent_is_differentiable_in_the_vertices():
    mesh = icosphere(0)
    x = torch.randn(12, 1, dtype=torch.float64)

    def energies(vertices):
        L = cotangent_laplacian(TriangleMesh(vertices, mesh.faces))
        return L.inner(x, L @ x), L.mass

    assert torch.autograd.gradcheck(energies, mesh.vertices.clone().requires_grad_())


def test_both_surface_laplacians_obey_their_laws_on_every_real_mesh(real_mesh):
    robust, plain = robust_laplacian(real_mesh), cotangent_laplacian(real_mesh)
    n = real_mesh.num_nodes
    x = torch.randn(n, 2, dtype=torch.float64)
    for L in (robust, plain):
        C, scale = L.stiffness.to_scipy(), size(L.stiffness)
        assert (C != C.T).nnz == 0
        assert_within(
            L.stiffness(torch.ones(n, 1, dtype=torch.float64)), 0.0, 16 * U * torch.from_numpy(scale.sum(1))[:, None]
        )
        rough = x.abs().numpy()
        assert float(L.inner(x, L @ x)) >= -8 * U * float((rough * (scale @ rough)).sum())
        smooth = L.solve(0.1 * real_mesh.area, x)
        assert float(L.inner(smooth, L @ smooth)) >= -8 * U * float(
            (smooth.abs().numpy() * (scale @ smooth.abs().numpy())).sum()
        )
    weights = robust.stiffness.to_scipy()
    weights.setdiag(0)
    assert weights.max() <= 0
    assert_within(plain.mass.sum(), real_mesh.area, 8 * U * n * real_mesh.area)
    # Mollification lengthens the edges of needles by up to 1e-5 of the mean edge.
    assert_within(robust.mass.sum(), real_mesh.area, 1e-3 * real_mesh.area)
    energy = float(robust.inner(x, robust @ x))
    assert energy <= float(plain.inner(x, plain @ x)) * (1 + 1e-3)


def test_cotangent_agrees_with_potpourri3d_on_every_real_mesh(real_mesh):
    centred = real_mesh.arrays[0] - real_mesh.arrays[0].mean(0)
    expected = potpourri3d.cotan_laplacian(centred, real_mesh.arrays[1], 0.0)
    difference = abs(cotangent_laplacian(real_mesh).stiffness.to_scipy() - expected)
    assert difference.max() <= 32 * U * aspect(real_mesh) * abs(expected).max()
