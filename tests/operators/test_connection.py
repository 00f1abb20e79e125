"""The connection Laplacian is Hermitian, sees no frames, is flat where the surface is, and curved where it is not."""

import pickle
import warnings

import numpy as np
import potpourri3d
import pytest
import scipy.sparse as sp
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from neuralpde.testing import aspect, assert_within, meshes, roundoff
from operators.checks import DomainError
from operators.connection import connection_laplacian, tangent_basis
from operators.domains import Graph, TriangleMesh
from operators.laplacian import combinatorial_laplacian
from operators.shapes import grid, icosphere, torus
from operators.surface import cotangent_laplacian, robust_laplacian
from operators.topology import Connectivity

U = roundoff(torch.float64)


def unit_weights(mesh):
    """The graph Laplacian, whose weights are never negative."""
    return combinatorial_laplacian(mesh.graph())


WEIGHTS = pytest.mark.parametrize("weights", [cotangent_laplacian, unit_weights])


def dense(operator):
    return torch.from_numpy(operator.to_scipy().toarray())


def spectrum(laplacian):
    return torch.linalg.eigvalsh(dense(laplacian.symmetrized().stiffness))


def defect(mesh):
    """Why the mesh is no consistently oriented manifold, or None."""
    connectivity = Connectivity(mesh.arrays[1], mesh.num_nodes)
    if connectivity.sides_of_edge.max() > 2:
        return "an edge of more than two faces"
    if connectivity.non_manifold_vertices().size:
        return "a vertex of more than one fan"
    return None if len(np.unique(connectivity.sides, axis=0)) == len(connectivity.sides) else "inconsistent orientation"


@st.composite
def surfaces(draw, **kwargs):
    """Oriented manifold meshes."""
    mesh = draw(meshes(**kwargs))
    assume(defect(mesh) is None)
    return mesh


def accepted(mesh):
    """The mesh, or a skip once it is refused for its defect."""
    reason = defect(mesh)
    if reason:
        with pytest.raises(DomainError, match=r"cut|split|orient"):
            connection_laplacian(mesh)
        pytest.skip(reason)
    return mesh


def around(matrix, faces):
    """The entries of a sparse matrix along the sides of each face, (m, 3)."""
    return np.stack([np.asarray(matrix[faces[:, k], faces[:, (k + 1) % 3]]).ravel() for k in range(3)], axis=1)


# Laws -----------------------------------------------------------------------------------------------------------------


@WEIGHTS
@given(mesh=surfaces())
def test_is_hermitian_to_the_last_bit_with_the_weights_and_mass_of_the_functions(weights, mesh):
    L, scalar = connection_laplacian(mesh, weights), weights(mesh)
    C = L.stiffness.to_scipy()
    assert (C != C.conj().T).nnz == 0
    size = dense(scalar.stiffness).abs()
    assert_within(dense(L.stiffness).abs(), size, 8 * U * size)
    assert torch.equal(L.mass, scalar.mass)


@given(mesh=surfaces())
def test_is_positive_semi_definite_where_no_weight_is_negative(mesh):
    values = spectrum(connection_laplacian(mesh, unit_weights))
    assert values[0] >= -8 * len(values) * U * values[-1]


def test_is_positive_semi_definite_on_real_meshes_where_no_weight_is_negative(real_mesh):
    L = connection_laplacian(accepted(real_mesh), unit_weights)
    # u ↦ |u| makes it no greater than on functions (Kato), where the weights of a graph give PSD; one random field tells.
    x = torch.randn(L.shape[0], 4, dtype=torch.complex128)
    energy = (x.conj() * (L @ x)).sum(0)
    absolute = unit_weights(real_mesh)
    kato = (x.abs() * (absolute @ x.abs().double())).sum(0)
    magnitude = 32 * U * (abs(L.stiffness.to_scipy()) @ x.abs().numpy()).sum()
    assert (energy.real >= kato - magnitude).all()
    assert_within(energy.imag, 0.0, magnitude)


@given(data=st.data())
def test_other_frames_are_a_unitary_change_of_coordinates(data):
    """The corner that a face names first chooses the real axis; shuffled faces choose others."""
    mesh = data.draw(surfaces())
    order = data.draw(st.permutations(range(len(mesh.faces))))
    shifts = data.draw(st.lists(st.integers(0, 2), min_size=len(order), max_size=len(order)))
    faces = torch.stack([mesh.faces[f].roll(shift) for f, shift in zip(order, shifts, strict=True)])
    other = TriangleMesh(mesh.vertices, faces)
    here, there = dense(connection_laplacian(mesh).stiffness), dense(connection_laplacian(other).stiffness)
    basis, turned = tangent_basis(mesh), tangent_basis(other)
    # e₁ of the one frame in coordinates of the other: u_other = g u.
    gauge = torch.complex(*(turned * basis[:, :1]).sum(-1).unbind(-1))
    bound = 64 * len(mesh.faces) * U * aspect(mesh) ** 2 * here.abs().max()
    assert_within(gauge[:, None] * here * gauge.conj(), there, bound)


@given(mesh=surfaces(planar=True))
def test_on_a_planar_mesh_it_is_the_laplacian_of_functions_in_one_frame(mesh):
    L, scalar = connection_laplacian(mesh), cotangent_laplacian(mesh)
    axes = tangent_basis(mesh)[:, :, :2]
    gauge = torch.complex(axes[:, 0, 0], axes[:, 0, 1])
    bound = 64 * len(mesh.faces) * U * aspect(mesh) ** 2 * dense(scalar.stiffness).abs().max()
    assert_within(gauge[:, None] * dense(L.stiffness) * gauge.conj(), dense(scalar.stiffness).to(gauge.dtype), bound)


def test_constant_fields_are_the_kernel_of_a_flat_mesh_in_coordinates_too():
    mesh = grid(7, 5)
    L, basis = connection_laplacian(mesh), tangent_basis(mesh)
    for direction in torch.eye(3, dtype=torch.float64)[:2]:
        field = torch.complex(*(basis @ direction).unbind(-1))[:, None]
        assert_within(L @ field, 0.0, 64 * U * L.norm_bound())
    assert_within(spectrum(L), spectrum(cotangent_laplacian(mesh)), 64 * U * L.norm_bound())


def test_a_developable_surface_is_flat_until_one_walks_around_it():
    """A strip bent into an open half cylinder keeps the spectrum of the flat strip."""
    flat = grid(13, 4, 3.0, 1.0)
    bent = flat.vertices.clone()
    bent[:, 0], bent[:, 2] = torch.sin(flat.vertices[:, 0]), torch.cos(flat.vertices[:, 0])
    mesh = TriangleMesh(bent, flat.faces)
    assert_within(spectrum(connection_laplacian(mesh)), spectrum(cotangent_laplacian(mesh)), 1e-9)


@pytest.mark.parametrize(("refinements", "error"), [(1, 0.08), (2, 0.02), (3, 0.005)])
def test_spectrum_on_the_sphere_is_l_times_l_plus_1_minus_1_and_has_no_kernel(refinements, error):
    """∇*∇ = Δ₁ − Ric on vector fields: l(l + 1) − 1, 2l + 1 times over ℂ, from l = 1 on. No combed hair: no kernel."""
    found = spectrum(connection_laplacian(icosphere(refinements)))[:8]
    np.testing.assert_allclose(found, [1] * 3 + [5] * 5, rtol=error)


# An independent reference ---------------------------------------------------------------------------------------------


def reference(mesh):
    """The vertex connection Laplacian of geometry-central, after its flips to an intrinsic Delaunay triangulation."""
    return sp.csr_array(potpourri3d.MeshVectorHeatSolver(*mesh.arrays).get_connection_laplacian())


@pytest.mark.parametrize("mesh", [icosphere(2), torus(16, 12, 2.0, 0.9)], ids=["sphere", "torus"])
def test_spectrum_agrees_with_geometry_central_on_delaunay_meshes(mesh):
    C = connection_laplacian(mesh).stiffness.to_scipy()
    expected = np.linalg.eigvalsh(reference(mesh).toarray())
    np.testing.assert_allclose(np.linalg.eigvalsh(C.toarray()), expected, atol=1e-12 * expected[-1])


def test_transport_agrees_with_geometry_central_on_real_meshes(real_mesh):
    """The product of the transports around a face does not see the frames; ours is that of geometry-central.

    On the faces of which it flipped no edge, which its weights tell, and off the boundary, where it rescales angles to a
    half turn.
    """
    mesh = accepted(real_mesh)
    faces = mesh.arrays[1]
    ours, theirs = (around(sp.csr_array(m), faces) for m in (connection_laplacian(mesh).stiffness.to_scipy(), reference(mesh)))
    weight = np.abs(ours)
    same = ((weight > 1e-3) & (np.abs(np.abs(theirs) - weight) < 1e-9 * weight)).all(axis=1)
    connectivity = Connectivity(faces, mesh.num_nodes)
    boundary = np.zeros(mesh.num_nodes, dtype=bool)
    boundary[connectivity.sides[connectivity.boundary_sides]] = True
    same &= ~boundary[faces].any(axis=1)
    error = np.abs(ours[same].prod(axis=1) - theirs[same].prod(axis=1)) / weight[same].prod(axis=1)
    assert same.sum() > 10
    assert error.max() < 1e-10


# Frames ---------------------------------------------------------------------------------------------------------------


@given(mesh=surfaces())
def test_frames_are_orthonormal_and_right_handed(mesh):
    try:
        basis = tangent_basis(mesh)
    except DomainError:
        assume(False)
    assert_within(basis @ basis.mT, torch.eye(2, dtype=torch.float64), 32 * U)
    assert basis.shape == (mesh.num_nodes, 2, 3)


def test_frames_of_real_meshes_are_orthonormal_and_invert(real_mesh):
    mesh = accepted(real_mesh)
    basis = tangent_basis(mesh)
    assert_within(basis @ basis.mT, torch.eye(2, dtype=torch.float64), 32 * U)
    coordinates = torch.randn(mesh.num_nodes, 1, dtype=torch.complex128)
    vectors = (torch.view_as_real(coordinates[:, 0])[:, :, None] * basis).sum(1)
    back = torch.complex(*(basis * vectors[:, None]).sum(-1).unbind(-1))[:, None]
    assert_within(back, coordinates, 32 * U * coordinates.abs().max())


def test_a_rotation_field_of_the_sphere_is_an_eigenfield():
    """z × p is divergence-free with l = 1: ∇*∇ gives it back, so that frames and transport agree with space."""
    mesh = icosphere(3)
    basis = tangent_basis(mesh)
    vectors = torch.linalg.cross(torch.tensor([[0.0, 0, 1]], dtype=torch.float64).expand(mesh.num_nodes, 3), mesh.vertices)
    field = torch.complex(*(basis * vectors[:, None]).sum(-1).unbind(-1))[:, None]
    L = connection_laplacian(mesh)
    difference = L @ field - field
    # First order at the twelve vertices of degree five; 642 vertices.
    assert L.inner(difference, difference).real.sqrt() <= 0.03 * L.inner(field, field).real.sqrt()


# Machinery ------------------------------------------------------------------------------------------------------------


def test_float32_moves_and_is_pickled():
    L = connection_laplacian(icosphere(1, dtype=torch.float32), unit_weights)
    assert L.stiffness.values.dtype == torch.complex64
    x = torch.randn(2, 42, 3, dtype=torch.complex64)
    assert (L @ x).shape == (2, 42, 3)
    assert torch.equal(pickle.loads(pickle.dumps(L)) @ x, L @ x)
    moved = L.on(torus(5, 4))
    assert moved.stiffness.values.dtype == torch.complex64
    assert_within(spectrum(moved), spectrum(connection_laplacian(torus(5, 4), unit_weights)), 1e-5)


def test_is_differentiable_in_the_vertices():
    mesh = icosphere(0)
    field = torch.randn(12, 1, dtype=torch.complex128)

    def energy(vertices):
        L = connection_laplacian(TriangleMesh(vertices, mesh.faces))
        return L.inner(field, L @ field).real

    bent = mesh.vertices + 0.05 * torch.randn_like(mesh.vertices)
    assert torch.autograd.gradcheck(energy, bent.requires_grad_(), fast_mode=True)


def test_several_components_do_not_meet():
    mesh = icosphere(0)
    pair = TriangleMesh(torch.cat([mesh.vertices, mesh.vertices + 5]), torch.cat([mesh.faces, mesh.faces + 12]))
    one = spectrum(connection_laplacian(mesh))
    assert_within(spectrum(connection_laplacian(pair)), one.repeat_interleave(2), 1e-12)


def triangles(points, faces):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TriangleMesh(torch.tensor(points, dtype=torch.float64), torch.tensor(faces))


TETRAHEDRON = [[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
REFUSED = {
    "inconsistent orientation": (
        triangles(TETRAHEDRON, [[0, 2, 1], [0, 1, 3], [0, 3, 2], [3, 2, 1]]),
        r"faces at 3 edges are oriented inconsistently.*orient the faces with mesh\.clean\(\)",
    ),
    "bow-tie": (
        triangles([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [-1, 0, 0], [-1, -1, 0]], [[0, 1, 2], [0, 3, 4]]),
        "1 vertices join surfaces that share no edge there, the first is vertex 0: .*split the vertex",
    ),
    "three faces at an edge": (
        triangles([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, -1, 0]], [[0, 1, 2], [1, 0, 3], [1, 0, 4]]),
        r"1 edges belong to more than two faces, the first is \(0, 1\).*delete the extra faces or cut",
    ),
    "Möbius band": (
        triangles(
            [[2.0, 0, -0.5], [2, 0, 0.5], [-1, 1.75, -0.5], [-1, 1.75, 0.5], [-1.25, -1.75, -0.25], [-0.75, -1.75, 0.25]],
            [[0, 1, 2], [1, 3, 2], [2, 3, 4], [3, 5, 4], [4, 5, 1], [5, 0, 1]],
        ),
        "cannot be oriented",
    ),
}


@pytest.mark.parametrize("build", [connection_laplacian, tangent_basis])
@pytest.mark.parametrize("name", REFUSED)
def test_a_surface_without_tangent_planes_is_refused_with_its_cure(build, name):
    mesh, message = REFUSED[name]
    with pytest.raises(DomainError, match=message):
        build(mesh)


def test_a_fold_without_a_normal_is_refused():
    """Two triangles back to back: every normal cancels; transport exists all the same."""
    folded = triangles([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 1e-13]], [[0, 1, 2], [1, 0, 3]])
    assert connection_laplacian(folded).shape == (4, 4)
    with pytest.raises(DomainError, match="faces at vertex 0 cancel, so that it has no normal"):
        tangent_basis(folded)


def test_weights_on_pairs_that_are_no_edges_are_refused():
    kite = triangles([[0.0, 0, 0], [1, 0.1, 0], [0, 0.3, 1], [1, -0.1, -0.2]], [[0, 1, 2], [1, 0, 3]])
    far = Graph(torch.tensor([[2, 3], [3, 2]]), 4, torch.ones(2, dtype=torch.float64))
    with pytest.raises(DomainError, match=r"1 weights join vertices that share no edge of the mesh.*cotangent_laplacian"):
        connection_laplacian(kite, lambda mesh: combinatorial_laplacian(far))
    with pytest.raises(DomainError, match="weights are for 12 nodes but the mesh has 4"):
        connection_laplacian(kite, lambda mesh: robust_laplacian(icosphere(0)))
