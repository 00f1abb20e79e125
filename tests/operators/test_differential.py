"""Gradient and divergence are adjoint, their product is minus the Laplacian, and linear functions have constant gradients."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import aspect, assert_within, fields, graphs, meshes, roundoff
from operators import (
    DomainError,
    FieldError,
    Graph,
    Laplacian,
    SparseOperator,
    TriangleMesh,
    combinatorial_laplacian,
    cotangent_laplacian,
    dirichlet_energy,
    grid,
    icosphere,
    random_walk_laplacian,
    robust_laplacian,
    torus,
)
from operators.differential import Gradient, edge_gradient, face_gradient, vertex_gradient

U = roundoff(torch.float64)


def of_graph(graph):
    return edge_gradient(combinatorial_laplacian(graph))


def of_walk(graph):
    return edge_gradient(random_walk_laplacian(graph))


def of_robust(mesh):
    return edge_gradient(robust_laplacian(mesh))


def of_cotangent(mesh):
    return edge_gradient(cotangent_laplacian(mesh))


EDGES = [(of_graph, graphs()), (of_walk, graphs()), (of_robust, meshes()), (of_cotangent, meshes())]
GRADIENTS = [*EDGES, (face_gradient, meshes()), (vertex_gradient, meshes())]
everywhere = pytest.mark.parametrize(("build", "domains"), GRADIENTS, ids=[build.__name__ for build, _ in GRADIENTS])
on_edges = pytest.mark.parametrize(("build", "domains"), EDGES, ids=[build.__name__ for build, _ in EDGES])
on_surfaces = pytest.mark.parametrize("build", [face_gradient, vertex_gradient])
few = settings(max_examples=8)


def size(operator):
    return torch.from_numpy(abs(operator.to_scipy()).toarray())


def magnetic_matrix(n=5):
    """A Hermitian stiffness by hand: ring with a phase of 0.7 an edge."""
    i = torch.arange(n)
    j, w = (i + 1) % n, 1.0 + i.double()
    value = -w * torch.exp(1j * torch.tensor(0.7, dtype=torch.float64))
    diagonal = (w + w.roll(1)).to(torch.complex128)
    return SparseOperator.from_entries(
        torch.cat([i, j, i]), torch.cat([j, i, i]), torch.cat([value, value.conj().resolve_conj(), diagonal]), (n, n)
    )


# Laws of every gradient -----------------------------------------------------------------------------------------------


@everywhere
@given(data=st.data(), dtype=st.sampled_from([torch.float64, torch.complex128]))
def test_divergence_is_minus_the_adjoint_of_the_gradient(build, domains, data, dtype):
    G = build(data.draw(domains))
    div = G.divergence()
    f, u = data.draw(fields(G.shape[1], 2, dtype=dtype)), data.draw(fields(G.shape[0], 2, dtype=dtype))
    magnitude = (G.weight.abs()[:, None] * u.abs() * (size(G.stencil) @ f.abs())).sum()
    # Two row sums, two sums over rows: √N of the catalogue would be for random signs.
    bound = (32 + 4 * sum(G.shape)) * U * magnitude
    assert_within(G.inner(G @ f, u), -div.inner(f, div @ u), bound)
    assert_within(G.inner(u, G @ f), -div.inner(div @ u, f), bound)


@everywhere
@few
@given(data=st.data())
def test_adjoint_of_the_adjoint_is_the_operator(build, domains, data):
    G = build(data.draw(domains))
    f, u = data.draw(fields(G.shape[1], 1)), data.draw(fields(G.shape[0], 1))
    assert torch.equal(G.adjoint() @ u, -(G.divergence() @ u))
    assert torch.equal(G.adjoint().adjoint() @ f, G @ f)
    assert torch.equal(G.divergence().adjoint() @ f, -(G @ f))
    assert G.adjoint().shape == G.divergence().shape == G.shape[::-1]


@everywhere
@few
@given(data=st.data())
def test_gradient_of_a_constant_is_zero(build, domains, data):
    G = build(data.draw(domains))
    f = torch.full((G.shape[1], 1), 0.375, dtype=torch.float64)
    assert_within(G @ f, 0.0, (8 + 4 * G.shape[1]) * U * size(G.stencil) @ f)


@everywhere
@few
@given(data=st.data())
def test_norm_bound_holds_where_the_weights_are_not_negative(build, domains, data):
    G = build(data.draw(domains))
    if (G.weight < 0).any():
        return
    scaled = G.weight.sqrt()[:, None] * G.matrix() * G.mass.rsqrt()
    norm = torch.linalg.matrix_norm(scaled, 2) if scaled.numel() else torch.zeros(())
    assert float(norm) <= G.norm_bound() * (1 + 32 * max(G.shape) * U)
    assert G.divergence().norm_bound() == G.adjoint().norm_bound() == G.norm_bound()


# On edges -------------------------------------------------------------------------------------------------------------


@on_edges
@given(data=st.data())
def test_div_grad_on_edges_is_minus_the_laplacian(build, domains, data):
    domain = data.draw(domains)
    L = {of_graph: combinatorial_laplacian, of_walk: random_walk_laplacian, of_robust: robust_laplacian}.get(
        build, cotangent_laplacian
    )(domain)
    G = edge_gradient(L)
    x = data.draw(fields(L.shape[0], 2))
    bound = 32 * U * (size(L.stiffness) @ x.abs()) / L.mass[:, None]
    assert_within(G.divergence() @ (G @ x), -(L @ x), bound * (1 + L.shape[0] / 32))


@given(graph=graphs())
def test_each_edge_once_from_the_smaller_end_to_the_larger(graph):
    G = of_graph(graph)
    i, j = np.triu(combinatorial_laplacian(graph).stiffness.to_scipy().toarray(), 1).nonzero()
    x = torch.arange(graph.nodes, dtype=torch.float64)[:, None] ** 2
    keep = G.weight != 0
    assert torch.equal((G @ x)[keep], x[torch.from_numpy(j)] - x[torch.from_numpy(i)])


def test_the_rows_of_a_symmetrized_laplacian_are_refused_with_the_cure():
    with pytest.raises(DomainError, match=r"do not sum to zero.*before symmetrized\(\)"):
        edge_gradient(robust_laplacian(torus(8, 6)).symmetrized())


def test_a_magnetic_laplacian_has_a_covariant_gradient():
    C = magnetic_matrix()
    L = Laplacian(C, torch.arange(1.0, 6.0, dtype=torch.float64))
    G = edge_gradient(L)
    x, u = (torch.randn(n, 2, dtype=torch.complex128) for n in (5, G.shape[0]))
    assert_within(G.divergence() @ (G @ x), -(L @ x), 64 * U * (size(C) @ x.abs()))
    assert_within(G.inner(G @ x, u), -L.inner(x, G.divergence() @ u), 256 * U)


def test_a_signed_laplacian_has_the_sum_along_its_negative_edge():
    C = SparseOperator.from_scipy(np.array([[3.0, 2.0, -1.0], [2.0, 2.0, 0.0], [-1.0, 0.0, 1.0]]))
    G = edge_gradient(Laplacian(C, torch.ones(3, dtype=torch.float64)))
    x = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64)
    rows = (G @ x)[G.weight != 0]
    assert torch.equal(rows, torch.tensor([[3.0], [3.0]], dtype=torch.float64))
    assert torch.equal(G.divergence().matrix() @ G.matrix(), -C.matrix())


def test_edge_gradient_is_differentiable_in_learned_weights():
    ends = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    u = torch.randn(2, 1, dtype=torch.float64)

    def flow(w):
        L = combinatorial_laplacian(Graph(ends, 3, w.repeat_interleave(2)))
        return edge_gradient(L).divergence() @ u, edge_gradient(L).inner(u, u)

    assert torch.autograd.gradcheck(flow, torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True))


# On faces and vertices ------------------------------------------------------------------------------------------------


@given(data=st.data())
def test_div_grad_on_faces_is_minus_the_cotangent_laplacian(data):
    mesh = data.draw(meshes())
    G, L = face_gradient(mesh), cotangent_laplacian(mesh)
    x = data.draw(fields(mesh.num_nodes, 2))
    back = size(G.stencil).T @ (G.weight[:, None] * (size(G.stencil) @ x.abs())) / L.mass[:, None]
    assert_within(G.divergence() @ (G @ x), -(L @ x), 32 * U * aspect(mesh) * back)
    assert torch.equal(G.mass, L.mass)


@on_surfaces
@pytest.mark.parametrize("columns", [2, 3])
@given(mesh=meshes(planar=True), slope=st.tuples(st.integers(-8, 8), st.integers(-8, 8)))
def test_gradient_of_a_linear_function_in_the_plane_is_its_slope(build, columns, mesh, slope):
    mesh = TriangleMesh(mesh.vertices[:, :columns], mesh.faces)
    G = build(mesh)
    a = torch.tensor([*slope, 0][:columns], dtype=torch.float64)
    centred = mesh.vertices - mesh.vertices.mean(0)
    x = (centred @ a)[:, None] + 0.5 * centred.abs().max()
    bound = 32 * U * aspect(mesh) * (size(G.stencil) @ x.abs())
    assert_within(G @ x, a.repeat(G.shape[0] // columns)[:, None], bound + 32 * U * aspect(mesh) * a.abs().sum())


@given(data=st.data())
def test_face_gradient_is_tangent_to_the_face_and_explains_the_differences_along_its_edges(data):
    mesh = data.draw(meshes())
    G = face_gradient(mesh)
    x = data.draw(fields(mesh.num_nodes, 1))
    g = G.vectors(G @ x)[..., 0]
    points = mesh.vertices - mesh.vertices.mean(0)
    a, b = (points[mesh.faces[:, k]] - points[mesh.faces[:, 0]] for k in (1, 2))
    steepest = G.vectors(size(G.stencil) @ x.abs())[..., 0]
    for edge, k in ((a, 1), (b, 2)):
        difference = x[mesh.faces[:, k], 0] - x[mesh.faces[:, 0], 0]
        bound = 32 * U * aspect(mesh) * (steepest * edge.abs()).sum(1)
        assert_within((g * edge).sum(1), difference, bound)
    normal = torch.linalg.cross(a, b)
    reach = steepest.norm(dim=1) * a.norm(dim=1) * b.norm(dim=1)
    assert_within((g * normal).sum(1), 0.0, 32 * U * aspect(mesh) * reach)


@given(data=st.data())
def test_vertex_gradient_is_the_mean_of_face_gradients_by_area(data):
    mesh = data.draw(meshes())
    F, V = face_gradient(mesh), vertex_gradient(mesh)
    x = data.draw(fields(mesh.num_nodes, 2))
    area, faces = F.weight[:: F.axes, None, None], mesh.faces

    def averaged(on_faces):
        total = on_faces.new_zeros(mesh.num_nodes, 3, 2)
        for k in range(3):
            total.index_add_(0, faces[:, k], area * on_faces / 3)
        return total / V.mass[:, None, None]

    bound = 32 * U * aspect(mesh) * averaged(F.vectors(size(F.stencil) @ x.abs()))
    assert_within(V.vectors(V @ x), averaged(F.vectors(F @ x)), bound * (1 + mesh.num_nodes / 32))


@on_surfaces
@given(data=st.data())
def test_gradient_turns_with_the_surface_and_ignores_translation(build, data):
    mesh = data.draw(meshes())
    x = data.draw(fields(mesh.num_nodes, 1))
    turn = torch.from_numpy(np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0])
    G = build(mesh)
    g = G.vectors(G @ x)[..., 0]
    moved = build(TriangleMesh(mesh.vertices @ turn + 3 * mesh.vertices.abs().max(), mesh.faces))
    # Entries of the stencil may cancel within it, at a corner between equal faces: the largest row stands for all.
    steepest = float((size(G.stencil) @ x.abs()).max())
    assert_within(moved.vectors(moved @ x)[..., 0], g @ turn, 256 * U * aspect(mesh) * steepest)


@on_surfaces
@given(mesh=meshes(), power=st.integers(-30, 30))
def test_gradient_scales_with_the_inverse_unit_bitwise_for_powers_of_two(build, mesh, power):
    scaled = build(TriangleMesh(mesh.vertices * 2.0**power, mesh.faces))
    assert torch.equal(scaled.matrix(), build(mesh).matrix() * 2.0**-power)


@on_surfaces
@pytest.mark.parametrize(
    ("dtype", "unit"), [(torch.float64, 1e58), (torch.float64, 1e-58), (torch.float32, 1e13), (torch.float32, 1e-13)]
)
def test_extreme_units_of_length_neither_overflow_nor_vanish(build, dtype, unit):
    mesh = icosphere(1)
    G, expected = build(TriangleMesh((mesh.vertices * unit).to(dtype), mesh.faces)), build(mesh)
    x = torch.randn(42, 1, dtype=torch.float64)
    torch.testing.assert_close((G @ x.to(dtype)).double() * unit, expected @ x, rtol=0, atol=64 * roundoff(dtype) * 10)
    flow = (G.divergence() @ (G @ x.to(dtype))).double() * unit**2
    torch.testing.assert_close(flow, expected.divergence() @ (expected @ x), rtol=0, atol=64 * roundoff(dtype) * 200)


@on_surfaces
@given(mesh=meshes(slivers=False, dtype=torch.float32))
def test_float32_surface_gives_the_float64_gradient_rounded(build, mesh):
    narrow, wide = build(mesh), build(mesh.to(torch.float64))
    assert narrow.dtype == torch.float32
    assert torch.equal(narrow.stencil.values, wide.stencil.values.float())
    assert torch.equal(narrow.weight, wide.weight.float())


@on_surfaces
@pytest.mark.parametrize("dimension", [2, 3])
def test_gradient_is_differentiable_in_the_vertices(build, dimension):
    vertices = torch.tensor([[0.0, 0, 0], [1, 0.1, 0.2], [0.3, 1, 0.1], [1.4, 0.9, -0.3]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [1, 3, 2]])
    x = torch.randn(4, 1, dtype=torch.float64)

    def values(v):
        G = build(TriangleMesh(v, faces))
        return G @ x, G.divergence() @ (G @ x)

    at = vertices[:, :dimension].clone().requires_grad_()
    assert torch.autograd.gradcheck(values, at)
    assert torch.autograd.gradgradcheck(values, at)


def test_gradient_converges_to_that_on_the_sphere():
    """x ↦ z has the gradient ẑ − (ẑ·n) n on the unit sphere."""
    errors = []
    for refinements in (2, 3, 4):
        mesh = icosphere(refinements)
        G = face_gradient(mesh)
        g = G.vectors(G @ mesh.vertices[:, 2:])[..., 0]
        n = mesh.vertices[mesh.faces].mean(1)
        n = n / n.norm(dim=1, keepdim=True)
        exact = torch.tensor([0.0, 0, 1], dtype=torch.float64) - n[:, 2:] * n
        errors.append(float((g - exact).norm(dim=1).max()))
    assert errors[1] < 0.6 * errors[0]
    assert errors[2] < 0.6 * errors[1] < 0.06


# The object -----------------------------------------------------------------------------------------------------------


@everywhere
@few
@given(data=st.data())
def test_result_of_a_batch_is_the_batch_of_results(build, domains, data):
    G = build(data.draw(domains))
    x = data.draw(fields(G.shape[1], 2, batch=(2,)))
    bound = 8 * U * (size(G.stencil) @ x.abs())
    assert_within(G @ x, torch.stack([G @ member for member in x]), bound)


@pytest.mark.parametrize("build", [of_robust, face_gradient, vertex_gradient])
def test_a_copy_a_pickle_and_another_precision_give_the_same_result(build):
    G = build(icosphere(1))
    x = torch.randn(42, 2, dtype=torch.float64)
    for operator in (G, G.divergence(), G.adjoint()):
        y = x if operator is G else G @ x
        for copy in (deepcopy(operator), pickle.loads(pickle.dumps(operator))):
            assert torch.equal(copy @ y, operator @ y)
        assert operator.state_dict() == {}
        narrow = deepcopy(operator).to(torch.float32)
        assert (narrow @ y.float()).dtype == torch.float32
        torch.testing.assert_close(narrow @ y.float(), (operator @ y).float(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("build", [of_robust, face_gradient, vertex_gradient])
def test_on_builds_the_same_kind_on_another_surface_in_this_precision(build):
    G, expected = build(icosphere(1)).to(torch.float32), build(torus(8, 6))
    for moved in (G.on(torus(8, 6)), G.divergence().on(torus(8, 6)).adjoint().adjoint().gradient):
        assert moved.dtype == torch.float32
        assert torch.equal(moved.stencil.values, expected.stencil.values.float())
    g = torch.randn(expected.shape[0], 1)
    assert torch.equal(G.adjoint().on(torus(8, 6)) @ g, -(G.divergence().on(torus(8, 6)) @ g))
    assert pickle.loads(pickle.dumps(G)).on(torus(8, 6)).shape == expected.shape
    with pytest.raises(NotImplementedError, match="built from tensors"):
        Gradient(G.stencil, G.weight, G.mass).on(torus(8, 6))


def test_vectors_and_flat_undo_each_other_and_refuse_what_does_not_fit():
    G = face_gradient(grid(3, 3))
    u = torch.randn(2, G.shape[0], 4, dtype=torch.float64)
    assert G.vectors(u).shape == (2, 8, 3, 4)
    assert torch.equal(G.flat(G.vectors(u)), u)
    assert torch.equal(G.vectors(u)[:, 5, 1], u[:, 3 * 5 + 1])
    with pytest.raises(FieldError, match=r"shape \(\.\.\., 24, c\)"):
        G.vectors(u[:, 1:])
    with pytest.raises(FieldError, match=r"shape \(\.\.\., 8, 3, c\)"):
        G.flat(u)
    with pytest.raises(FieldError, match=r"shape \(\.\.\., 9, c\)"):
        G @ u
    with pytest.raises(DomainError, match="do not fit"):
        Gradient(G.stencil, G.weight[1:], G.mass)


def test_laws_on_every_real_mesh(real_mesh):
    n, L = real_mesh.num_nodes, cotangent_laplacian(real_mesh)
    x = torch.randn(n, 2, dtype=torch.float64)
    for G in (face_gradient(real_mesh), of_cotangent(real_mesh), vertex_gradient(real_mesh)):
        u = torch.randn(G.shape[0], 2, dtype=torch.float64)
        div, scale = G.divergence(), abs(G.stencil.to_scipy())
        slope = torch.from_numpy(scale @ x.abs().numpy())
        magnitude = (G.weight.abs()[:, None] * u.abs() * slope).sum()
        assert_within(G.inner(G @ x, u), -div.inner(x, div @ u), 4 * sum(G.shape) ** 0.5 * U * magnitude)
        constant = torch.from_numpy(scale.sum(1))[:, None]
        assert_within(G @ torch.ones(n, 1, dtype=torch.float64), 0.0, 64 * U * constant)
        if G.shape[0] != 3 * n or G.axes == 1:
            back = torch.from_numpy(scale.T @ (G.weight.abs()[:, None] * slope).numpy()) / L.mass[:, None]
            amplified = 1.0 if G.axes == 1 else aspect(real_mesh)
            assert_within(div @ (G @ x), -(L @ x), 32 * U * amplified * back)


def test_weights_of_a_gradient_are_its_own():
    L = combinatorial_laplacian(icosphere(0).graph())
    x = torch.randn(12, 1, dtype=torch.float64)
    before = dirichlet_energy(L, x)
    edge_gradient(L).weight.mul_(5)
    assert dirichlet_energy(L, x) == before
