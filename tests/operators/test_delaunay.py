"""The intrinsic Delaunay triangulation keeps the surface, its Laplacian keeps linear functions and has the least energy."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
import robust_laplacian as native
import scipy.sparse as sp
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial import Delaunay

import operators.delaunay as module
from neuralpde.testing import aspect, assert_within, fields, meshes, roundoff
from operators.checks import ConvergenceError
from operators.delaunay import COCIRCULAR, IntrinsicTriangulation, intrinsic_delaunay, intrinsic_delaunay_laplacian
from operators.domains import TriangleMesh
from operators.laplacian import adjacency_of
from operators.shapes import grid, icosphere, torus
from operators.surface import cotangent_laplacian, robust_laplacian

U = roundoff(torch.float64)
# A needle of a tetrahedron: its Delaunay triangulation has edges from a vertex to itself and faces glued to themselves.
NEEDLE = TriangleMesh(
    torch.tensor([[1.0, -0.1, 0.6], [0.8, -0.5, 0.4], [10.4, 0.9, -0.7], [-10.1, -0.6, 0.0]], dtype=torch.float64),
    torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]),
)
# A square split at its centre, drawn out so that the two triangles at the left and at the right are obtuse.
OBTUSE = TriangleMesh(
    torch.tensor([[0.0, 0, 0], [4, 0, 0], [4, 1, 0], [0, 1, 0], [1.7, 0.4, 0]], dtype=torch.float64),
    torch.tensor([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]),
)


def dense(operator):
    """The entries as stored, without a product."""
    return torch.from_numpy(operator.to_scipy().toarray())


def unflipped(mesh):
    """The triangulation as given, in the units that `intrinsic_delaunay` uses."""
    _, unit = intrinsic_delaunay(mesh)
    points = torch.from_numpy(mesh.arrays[0])
    return IntrinsicTriangulation.of((points - points.mean(0)) / unit, mesh.faces)


def co_circular(surface):
    """Whether some faces may as well be split the other way."""
    return bool((surface.angle_excess((surface.twin >= 0).nonzero()[:, 0]).abs() < 1e-6).any())


def angles(surface, n):
    """The sum of the angles at each vertex."""
    sides = surface.side.reshape(-1, 3, 2)
    here, back = sides, -sides.roll(1, 1)
    cross = here[..., 0] * back[..., 1] - here[..., 1] * back[..., 0]
    return torch.zeros(n, dtype=torch.float64).index_add(
        0, surface.origin, torch.atan2(cross, (here * back).sum(2)).reshape(-1)
    )


def interior(mesh):
    """Which vertices touch no edge of one face."""
    pairs = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]).sort(1).values
    edges, count = torch.unique(pairs, dim=0, return_counts=True)
    inside = torch.ones(mesh.num_nodes, dtype=torch.bool)
    inside[edges[count == 1].reshape(-1)] = False
    return inside, bool((count == 2).all())


def sheared(seed, shear, points=30):
    """Random points of a square, and the SciPy Delaunay triangulation of the same points drawn out: far from theirs."""
    positions = np.random.default_rng(seed).uniform(size=(points, 2))
    # Corners far out, so that the hull is the same four edges in every linear image.
    positions = np.concatenate([positions, [[-3, -3], [4, -3], [4, 4], [-3, 4]]])
    faces = Delaunay(positions @ np.array([[1, shear], [0, 1]])).simplices.astype(np.int64)
    return TriangleMesh(torch.from_numpy(positions), torch.from_numpy(faces))


def energy(L, x):
    """xᵀ C x."""
    return float((x * L.stiffness(x)).sum())


# The triangulation ----------------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(mesh=meshes())
def test_flips_end_at_a_delaunay_triangulation_of_the_same_surface(mesh):
    before, (after, _) = unflipped(mesh), intrinsic_delaunay(mesh)
    glued = (after.twin >= 0).nonzero()[:, 0]
    assert (after.angle_excess(glued) >= -COCIRCULAR).all()
    assert (after.areas() > 0).all()
    # A gluing: each side has one partner, of the same length, between the same vertices.
    assert torch.equal(after.twin[after.twin[glued]], glued)
    assert torch.equal(after.parallel[after.twin[glued]], after.parallel[glued])
    ends = torch.stack([after.origin, after.origin[module._next(torch.arange(len(after.origin)))]])
    there = ends[:, after.twin[glued]]
    assert torch.equal(torch.where(after.parallel[glued], there, there.flip(0)), ends[:, glued])
    # The surface is the same: as many glued sides, the same area, the same cone angles.
    assert int((before.twin >= 0).sum()) == len(glued)
    bound = 64 * U * mesh.num_nodes * aspect(mesh)
    lengths = torch.linalg.vector_norm(after.side, dim=1)
    assert_within(lengths[glued], lengths[after.twin[glued]], bound)
    assert_within(after.areas().sum(), before.areas().sum(), bound * before.areas().sum())
    assert_within(angles(after, mesh.num_nodes), angles(before, mesh.num_nodes), bound)


def test_edges_from_a_vertex_to_itself_and_faces_glued_to_themselves_are_handled():
    surface, _ = intrinsic_delaunay(NEEDLE)
    h = torch.arange(12)
    assert int((surface.origin == surface.origin[module._next(h)]).sum()) == 4
    assert int((surface.twin // 3 == h // 3).sum()) == 4
    points = NEEDLE.arrays[0] - NEEDLE.arrays[0].mean(0)
    expected, _ = native.mesh_laplacian(points, NEEDLE.arrays[1], 0.0)
    actual = dense(intrinsic_delaunay_laplacian(NEEDLE).stiffness)
    assert_within(actual, torch.from_numpy(expected.toarray()), 32 * U * aspect(NEEDLE) * abs(expected).max())


def test_flips_that_do_not_end_are_an_error_with_a_cure(monkeypatch):
    monkeypatch.setattr(module, "ROUNDS", 2)
    with pytest.raises(ConvergenceError, match=r"did not end after 2 rounds.*remesh.*robust_laplacian\(mesh\)"):
        intrinsic_delaunay_laplacian(sheared(0, 5.0))


@pytest.mark.parametrize("corners", [4, 30, 500])
def test_flips_end_where_every_corner_lies_on_one_circle(corners):
    angle = torch.arange(corners, dtype=torch.float64) * (2 * torch.pi / corners)
    i = torch.arange(1, corners - 1)
    fan = torch.stack([torch.zeros_like(i), i, i + 1], dim=1)
    L = intrinsic_delaunay_laplacian(TriangleMesh(torch.stack([angle.cos(), angle.sin()], dim=1), fan))
    # Inner chords weigh nothing, whichever they are: what is left is the boundary, the half cotangents of π/n.
    ring = torch.roll(torch.eye(corners, dtype=torch.float64), 1, 0)
    weight = 0.5 / np.tan(np.pi / corners)
    expected = weight * (2 * torch.eye(corners, dtype=torch.float64) - ring - ring.T)
    assert dense(L.stiffness).fill_diagonal_(0).max() <= 0
    # An angle of round-off size is magnified by the squared cotangent.
    assert_within(dense(L.stiffness), expected, 64 * U * corners**2 * weight + 2 * COCIRCULAR * weight**2 * 4)


# Independent references -----------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    base=st.sampled_from([icosphere(0), icosphere(1), torus(5, 4), NEEDLE]),
    stretch=st.tuples(*[st.sampled_from([0.01, 0.1, 0.5, 1.0, 3.0])] * 3),
    noise=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 10**6),
)
def test_agrees_with_the_native_operator_on_closed_manifold_surfaces_without_mollification(base, stretch, noise, seed):
    moves = noise * torch.randn(base.vertices.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mesh = TriangleMesh((base.vertices + moves) * torch.tensor(stretch, dtype=torch.float64), base.faces)
    points = mesh.arrays[0] - mesh.arrays[0].mean(0)
    expected, area = native.mesh_laplacian(points / np.abs(points).max(), mesh.arrays[1], 0.0)
    L = intrinsic_delaunay_laplacian(mesh)
    # The native code works with lengths, which lose a triangle's height twice; it flips within 1e-8 or so.
    slack = 64 * U * aspect(mesh) ** 2 + 1e-7
    assert_within(dense(L.stiffness), torch.from_numpy(expected.toarray()), slack * abs(expected).max())
    if not co_circular(intrinsic_delaunay(mesh)[0]):
        assert_within(L.mass, torch.from_numpy(area.diagonal() * np.abs(points).max() ** 2), slack * float(L.mass.sum()))


@given(seed=st.integers(0, 10**6), shear=st.floats(-8, 8))
def test_agrees_with_scipys_delaunay_triangulation_in_the_plane(seed, shear):
    mesh = sheared(seed, shear)
    best = TriangleMesh(mesh.vertices, torch.from_numpy(Delaunay(mesh.vertices.numpy()).simplices.astype(np.int64)))
    assume(aspect(best) < 1e4 and aspect(mesh) < 1e4)
    L, expected = intrinsic_delaunay_laplacian(mesh), cotangent_laplacian(best)
    bound = 64 * U * aspect(mesh) * aspect(best)
    assert_within(dense(L.stiffness), dense(expected.stiffness), bound)
    assert_within(L.mass, expected.mass, bound * expected.mass.sum())


def test_is_the_cotangent_laplacian_on_a_delaunay_surface():
    mesh = icosphere(2)
    L, plain = intrinsic_delaunay_laplacian(mesh), cotangent_laplacian(mesh)
    assert_within(dense(L.stiffness), dense(plain.stiffness), 32 * U * aspect(mesh))
    assert_within(L.mass, plain.mass, 32 * U * aspect(mesh) * plain.mass)


# Laws -----------------------------------------------------------------------------------------------------------------


@given(data=st.data())
def test_linear_functions_are_in_the_kernel_inside_a_plane_and_their_energy_is_the_area(data):
    mesh = data.draw(meshes(planar=True))
    L = intrinsic_delaunay_laplacian(mesh)
    inside, _ = interior(mesh)
    centred = mesh.vertices - mesh.vertices.mean(0)
    magnitude = torch.from_numpy(abs(L.stiffness.to_scipy()) @ centred.abs().numpy())
    bound = 32 * U * aspect(mesh) * mesh.num_nodes
    assert_within(L.stiffness(centred)[inside], 0.0, bound * magnitude[inside])
    for axis in (0, 1):
        x = centred[:, axis, None]
        assert_within(torch.tensor(energy(L, x)), mesh.area, bound * float((x.abs() * magnitude[:, axis, None]).sum()))


def test_linear_precision_and_non_negative_weights_exclude_each_other_at_an_obtuse_boundary():
    inside, _ = interior(OBTUSE)
    ours, robust = intrinsic_delaunay_laplacian(OBTUSE), robust_laplacian(OBTUSE)
    assert_within(ours.stiffness(OBTUSE.vertices)[inside], 0.0, 32 * U * 4)
    assert float(robust.stiffness(OBTUSE.vertices)[inside].abs().max()) > 0.1
    assert dense(ours.stiffness).fill_diagonal_(0).max() > 0.1
    assert dense(robust.stiffness).fill_diagonal_(0).max() == 0


@given(mesh=meshes())
def test_interior_weights_are_never_negative(mesh):
    C, triangulation = dense(intrinsic_delaunay_laplacian(mesh).stiffness), intrinsic_delaunay(mesh)[0]
    alone = (triangulation.twin < 0).nonzero()[:, 0]
    i, j = triangulation.origin[alone], triangulation.origin[module._next(alone)]
    C[i, j] = C[j, i] = 0
    assert C.fill_diagonal_(0).max() <= 0


@settings(max_examples=100)
@given(data=st.data())
def test_energy_is_at_most_that_of_the_triangulation_as_given(data):
    """Rippa (1990) in the plane, Bobenko and Springborn (2007) on surfaces."""
    mesh = data.draw(meshes())
    x = data.draw(fields(mesh.num_nodes, 1))
    least, plain = intrinsic_delaunay_laplacian(mesh), cotangent_laplacian(mesh)
    magnitude = float((x.abs().T.numpy() @ (abs(plain.stiffness.to_scipy()) @ x.abs().numpy())).item())
    assert energy(least, x) <= energy(plain, x) + 32 * U * aspect(mesh) * magnitude


@given(mesh=meshes())
def test_stiffness_is_symmetric_and_kills_constants(mesh):
    L = intrinsic_delaunay_laplacian(mesh)
    C = dense(L.stiffness)
    assert torch.equal(C, C.T)
    assert L.kills_constants
    eigenvalues = torch.linalg.eigvalsh(dense(L.symmetrized().stiffness))
    assert eigenvalues[0] >= -8 * len(C) * U * L.norm_bound()


@given(mesh=meshes())
def test_total_mass_is_the_area(mesh):
    L = intrinsic_delaunay_laplacian(mesh)
    assert_within(L.mass.sum(), mesh.area, 32 * U * mesh.num_nodes * aspect(mesh) * mesh.area)


@given(mesh=meshes(slivers=False), power=st.integers(-30, 30))
def test_scaling_by_a_power_of_two_keeps_the_stiffness_bitwise_and_squares_the_mass(mesh, power):
    L = intrinsic_delaunay_laplacian(mesh)
    scaled = intrinsic_delaunay_laplacian(TriangleMesh(mesh.vertices * 2.0**power, mesh.faces))
    assert torch.equal(dense(scaled.stiffness), dense(L.stiffness))
    assert torch.equal(scaled.mass, L.mass * 4.0**power)


@given(data=st.data())
def test_names_orientation_and_position_do_not_matter(data):
    mesh = data.draw(meshes(slivers=False))
    n, m = mesh.num_nodes, len(mesh.faces)
    L = intrinsic_delaunay_laplacian(mesh)
    order = torch.tensor(data.draw(st.permutations(range(n))))
    rank = torch.empty_like(order)
    rank[order] = torch.arange(n)
    flipped = torch.tensor(data.draw(st.lists(st.booleans(), min_size=m, max_size=m)))
    faces = torch.where(flipped[:, None], mesh.faces.flip(1), mesh.faces)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    others = [
        (TriangleMesh(mesh.vertices[order], rank[mesh.faces].roll(1, 0).roll(1, 1)), order),
        (TriangleMesh(mesh.vertices, faces), torch.arange(n)),
        (TriangleMesh(mesh.vertices @ torch.from_numpy(turn) + mesh.vertices.abs().max(), mesh.faces), torch.arange(n)),
    ]
    bound = 128 * U * aspect(mesh)
    for other, names in others:
        moved = intrinsic_delaunay_laplacian(other)
        C = dense(L.stiffness)
        assert_within(dense(moved.stiffness), C[names][:, names], bound * C.abs().max())
        if not co_circular(intrinsic_delaunay(mesh)[0]):
            assert_within(moved.mass, L.mass[names], bound * L.mass.sum())


@given(mesh=meshes(planar=True))
def test_planar_coordinates_in_two_columns_give_the_same_operator(mesh):
    there, here = (intrinsic_delaunay_laplacian(m) for m in (mesh, TriangleMesh(mesh.vertices[:, :2], mesh.faces)))
    assert torch.equal(dense(there.stiffness), dense(here.stiffness))
    assert torch.equal(there.mass, here.mass)


@given(mesh=meshes(slivers=False, dtype=torch.float32))
def test_float32_surface_gives_the_float64_operator_rounded(mesh):
    narrow, wide = intrinsic_delaunay_laplacian(mesh), intrinsic_delaunay_laplacian(mesh.to(torch.float64))
    assert narrow.dtype == torch.float32
    assert torch.equal(narrow.stiffness.values, wide.stiffness.values.float())
    assert torch.equal(narrow.mass, wide.mass.float())


# Gradients ------------------------------------------------------------------------------------------------------------

# A Möbius band, every second face of which is turned over.
MOBIUS = TriangleMesh(
    torch.tensor(
        [(2.1, -0.1, 0.1), (2.1, -0.5, 0.9), (0.3, 2.65, -1.2), (-2.3, 1.15, 0.5), (-3.55, -1.95, -1.45), (-1.45, -2.25, -0.05)],
        dtype=torch.float64,
    ),
    torch.tensor([(0, 1, 2), (2, 3, 1), (2, 3, 4), (4, 5, 3), (4, 5, 1), (1, 0, 5)]),
)


@pytest.mark.parametrize(
    "mesh", [NEEDLE, sheared(0, 5.0, points=6), MOBIUS], ids=["edges to themselves", "plane", "Möbius band"]
)
def test_gradients_in_the_vertices_pass_through_the_flips(mesh):
    surface, _ = intrinsic_delaunay(mesh)
    assert not torch.equal(surface.origin.reshape(-1, 3), mesh.faces), "this surface was meant to need flips"
    shared = surface.twin >= 0
    excess = surface.angle_excess(shared.nonzero()[:, 0])
    # Far enough from co-circular that no flip changes within the step of the differences.
    assert excess.abs().min() > 1e-4
    x = torch.randn(mesh.num_nodes, 2, dtype=torch.float64)

    def outputs(vertices):
        L = intrinsic_delaunay_laplacian(TriangleMesh(vertices, mesh.faces))
        return (x * L.stiffness(x)).sum(0), L.mass

    assert torch.autograd.gradcheck(outputs, mesh.vertices.clone().requires_grad_())
    assert torch.autograd.gradgradcheck(outputs, mesh.vertices.clone().requires_grad_())


def test_gradient_on_co_circular_faces_is_that_of_one_triangulation():
    mesh = grid(4, 4)
    x = torch.randn(16, 1, dtype=torch.float64)
    gradients = []
    for build in (intrinsic_delaunay_laplacian, cotangent_laplacian):
        vertices = mesh.vertices.clone().requires_grad_()
        L = build(TriangleMesh(vertices, mesh.faces))
        gradients += torch.autograd.grad((x * L.stiffness(x)).sum(), vertices)
    assert_within(gradients[0], gradients[1], 32 * U * 16 * gradients[1].abs().max())


# The object -----------------------------------------------------------------------------------------------------------


def test_a_copy_a_pickle_and_another_domain():
    L = intrinsic_delaunay_laplacian(NEEDLE)
    x = torch.randn(4, 2, dtype=torch.float64)
    for copy in (deepcopy(L), pickle.loads(pickle.dumps(L))):
        assert torch.equal(copy @ x, L @ x)
    moved = L.to(torch.float32).on(OBTUSE)
    assert torch.equal(moved.stiffness.values, intrinsic_delaunay_laplacian(OBTUSE).stiffness.values.float())


# Every real mesh ------------------------------------------------------------------------------------------------------


def test_every_real_mesh_has_its_laws_and_agrees_with_the_native_operator_where_closed(real_mesh):
    n = real_mesh.num_nodes
    before, (after, _) = unflipped(real_mesh), intrinsic_delaunay(real_mesh)
    L, plain = intrinsic_delaunay_laplacian(real_mesh), cotangent_laplacian(real_mesh)
    glued = (after.twin >= 0).nonzero()[:, 0]
    assert (after.angle_excess(glued) >= -COCIRCULAR).all()
    assert_within(L.mass.sum(), real_mesh.area, 8 * U * n * real_mesh.area)
    assert_within(angles(after, n), angles(before, n), 32 * U * aspect(real_mesh))
    C = L.stiffness.to_scipy()
    assert (C != C.T).nnz == 0
    assert L.kills_constants
    x = torch.randn(n, 1, dtype=torch.float64)
    magnitude = float((x.abs().T.numpy() @ (abs(plain.stiffness.to_scipy()) @ x.abs().numpy())).item())
    assert energy(L, x) <= energy(plain, x) + 32 * U * magnitude
    _, closed = interior(real_mesh)
    if closed:
        assert (adjacency_of(L).values > 0).all()
        points = real_mesh.arrays[0] - real_mesh.arrays[0].mean(0)
        size = np.abs(points).max()
        expected, area = native.mesh_laplacian(points / size, real_mesh.arrays[1], 0.0)
        # Co-circular faces weigh up to 1e-7 there. Their stiffness is the same however they are split, their mass is not.
        assert abs(C - sp.csr_array(expected)).max() <= 1e-7 * abs(expected).max()
        if not co_circular(after):
            assert_within(L.mass, torch.from_numpy(area.diagonal() * size**2), 1e-7 * L.mass)
        robust = robust_laplacian(real_mesh)
        # 1e-3: mollification lengthens the edges by 1e-5 of their mean, which the thinnest triangles magnify.
        assert abs(C - robust.stiffness.to_scipy()).max() <= 1e-3 * abs(C).max()
