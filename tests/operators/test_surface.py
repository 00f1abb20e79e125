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
    DomainError,
    DomainWarning,
    TriangleMesh,
    adjacency_of,
    cotangent_laplacian,
    grid,
    icosphere,
    robust_laplacian,
)
from operators.delaunay import intrinsic_delaunay, intrinsic_delaunay_laplacian

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


def test_gradient_of_the_cotangent_assembly_is_the_difference_quotient_of_the_robust_path():
    """On a closed surface that is Delaunay, with room to spare, the two are one operator in a neighbourhood."""
    sphere = icosphere(1)
    mesh = TriangleMesh(sphere.vertices + 0.02 * torch.randn(42, 3, dtype=torch.float64), sphere.faces)
    surface, _ = intrinsic_delaunay(mesh)
    assert torch.equal(surface.origin.reshape(-1, 3), mesh.faces)
    assert surface.angle_excess(torch.arange(len(surface.origin))).min() > 0.1
    x, weight = torch.randn(42, 2, dtype=torch.float64), torch.randn(42, dtype=torch.float64)

    def measured(build, vertices):
        L = build(TriangleMesh(vertices, mesh.faces))
        return torch.stack([*(x * L.stiffness(x)).sum(0), weight @ L.mass])

    vertices = mesh.vertices.clone().requires_grad_()
    jacobian = torch.autograd.functional.jacobian(lambda v: measured(cotangent_laplacian, v), vertices)
    step = 2.0**-14
    for _ in range(5):
        direction = torch.randn(42, 3, dtype=torch.float64)
        ahead, behind = (measured(robust_laplacian, mesh.vertices + s * step * direction) for s in (1, -1))
        slope = (jacobian * direction).sum((1, 2))
        # The error of central differences is a third derivative times the squared step, 4e-9: here up to 1e3 times that.
        assert_within((ahead - behind) / (2 * step), slope, 1e-5 * jacobian.abs().sum((1, 2)))


def test_robust_refuses_vertices_that_ask_for_a_gradient_it_has_not():
    mesh = icosphere(0)
    learned = TriangleMesh(mesh.vertices.clone().requires_grad_(), mesh.faces)
    with pytest.raises(DomainError, match=r"no gradient in the vertices: use intrinsic_delaunay_laplacian\(mesh\)"):
        robust_laplacian(learned)
    with torch.no_grad():
        assert torch.equal(robust_laplacian(learned).mass, robust_laplacian(mesh).mass)


def needle(height):
    """A closed surface of four triangles of this height over their longest edge, 1."""
    points = [[0, 0, 0], [1, 0, 0], [0.5, height, 0], [0.5, 0.3 * height, height]]
    return TriangleMesh(torch.tensor(points, dtype=torch.float64), torch.tensor([(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]))


@pytest.mark.parametrize("height", [1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
def test_robust_keeps_the_area_of_slivers(height):
    """The default of the library below multiplies it: by 100 at a height of 1e-5."""
    mesh = needle(height)
    robust, exact = robust_laplacian(mesh), intrinsic_delaunay_laplacian(mesh)
    assert_within(robust.mass.sum(), mesh.area, 1e-3 * mesh.area)
    assert_within(exact.mass.sum(), mesh.area, 32 * U * aspect(mesh) * mesh.area)
    # Lengths lose the height twice.
    assert_within(dense(robust.stiffness), dense(exact.stiffness), 8 * U / height**2 * float(exact.stiffness.values.abs().max()))


def test_robust_warns_where_slivers_are_beyond_it():
    with pytest.warns(DomainWarning, match=r"misses the area by .*remesh the surface"):
        L = robust_laplacian(needle(2e-8))
    assert torch.isfinite(L.stiffness.values).all()


def hard_surfaces():
    """Surfaces at the ends of what a mesh may be; what is beyond them the domain refuses."""
    sphere, one = icosphere(2), torch.tensor([[0, 1, 2]])
    thin = [torch.tensor([[0, 0, 0], [1, 0, 0], [0.5, height, 0]], dtype=torch.float64) for height in (0.05, 1e-6)]
    return {
        "huge": TriangleMesh(sphere.vertices * 1e50, sphere.faces),
        "tiny": TriangleMesh(sphere.vertices * 1e-50, sphere.faces),
        "far from the origin in float32": TriangleMesh((sphere.vertices + 100).float(), sphere.faces),
        "obtuse": TriangleMesh(thin[0], one),
        "a sliver": TriangleMesh(thin[1], one),
    }


@pytest.mark.parametrize("build", [*ON_MESHES, intrinsic_delaunay_laplacian])
@pytest.mark.parametrize("name", hard_surfaces())
def test_hard_surfaces_give_a_finite_operator_with_the_right_area(build, name):
    mesh = hard_surfaces()[name]
    L = build(mesh)
    assert L.kills_constants
    assert torch.isfinite(L @ torch.randn(L.shape[0], 1, dtype=L.dtype)).all()
    assert abs(float(L.mass.double().sum()) / mesh.area - 1) < 1e-3


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
    weights = robust.stiffness.to_scipy().copy()
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
