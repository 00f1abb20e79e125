"""Exterior derivatives are exact incidence matrices, and codifferentials are their adjoints under the Hodge stars."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import aspect, assert_within, fields, meshes, roundoff
from operators.checks import DomainError
from operators.domains import TriangleMesh
from operators.exterior import barycentric_stars, codifferential, exterior_derivative, hodge_stars, unit_stars
from operators.shapes import grid, icosphere, torus
from operators.surface import cotangent_laplacian

U = roundoff(torch.float64)
on_any_mesh = pytest.mark.parametrize("stars", [barycentric_stars, unit_stars])


def dense(operator):
    return torch.from_numpy(operator.to_scipy().toarray())


def size(operator, x):
    """|A| |x|."""
    return torch.from_numpy(abs(operator.to_scipy()) @ x.abs().numpy())


# Exterior derivatives -------------------------------------------------------------------------------------------------


@given(mesh=meshes())
def test_derivatives_agree_with_loops_over_edges_and_faces(mesh):
    edges = [tuple(edge) for edge in mesh.edges.T.tolist()]
    d0, d1 = np.zeros((len(edges), mesh.num_nodes)), np.zeros((len(mesh.faces), len(edges)))
    for e, (i, j) in enumerate(edges):
        d0[e, i], d0[e, j] = -1, 1
    for t, (a, b, c) in enumerate(mesh.faces.tolist()):
        for i, j in ((a, b), (b, c), (c, a)):
            d1[t, edges.index((min(i, j), max(i, j)))] = 1 if i < j else -1
    assert torch.equal(dense(exterior_derivative(mesh, 0)), torch.from_numpy(d0))
    assert torch.equal(dense(exterior_derivative(mesh, 1)), torch.from_numpy(d1))


@given(mesh=meshes())
def test_derivative_of_a_derivative_is_exactly_zero(mesh):
    assert (dense(exterior_derivative(mesh, 1)) @ dense(exterior_derivative(mesh, 0)) == 0).all()


def test_derivative_of_a_derivative_is_exactly_zero_on_real_meshes(real_mesh):
    product = exterior_derivative(real_mesh, 1).to_scipy() @ exterior_derivative(real_mesh, 0).to_scipy()
    assert abs(product).max() == 0


@pytest.mark.parametrize("mesh", [icosphere(1), torus(7, 5)], ids=["sphere", "torus"])
def test_circulations_cancel_on_a_closed_oriented_surface(mesh):
    """Stokes: Σ_t (d₁ ω)_t is the circulation along the boundary, of which there is none."""
    assert (dense(exterior_derivative(mesh, 1)).sum(0) == 0).all()


def test_circulations_add_up_to_that_along_the_boundary():
    mesh = grid(5, 4)
    position = mesh.vertices
    i, j = mesh.edges
    # ω = x dy, integrated exactly along straight edges: ∮ ω is the area.
    form = ((position[i, 0] + position[j, 0]) / 2 * (position[j, 1] - position[i, 1]))[:, None]
    assert_within((exterior_derivative(mesh, 1) @ form).sum().abs(), mesh.area, 32 * U * form.abs().sum())


def test_turning_a_face_over_turns_its_circulation():
    mesh = grid(3, 3)
    turned = TriangleMesh(mesh.vertices, torch.cat([mesh.faces[:1].flip(1), mesh.faces[1:]]))
    d1, e1 = dense(exterior_derivative(mesh, 1)), dense(exterior_derivative(turned, 1))
    assert torch.equal(e1[0], -d1[0])
    assert torch.equal(e1[1:], d1[1:])


@pytest.mark.parametrize("degree", [2, -1, True, None])
def test_there_is_no_derivative_of_another_degree(degree):
    with pytest.raises(DomainError, match="degree of the form must be 0 or 1 here"):
        exterior_derivative(icosphere(0), degree)


# Hodge stars ----------------------------------------------------------------------------------------------------------


@given(mesh=meshes())
def test_hodge_stars_are_the_mass_and_the_weights_of_the_cotangent_laplacian(mesh):
    star, laplacian = hodge_stars(mesh), cotangent_laplacian(mesh)
    i, j = mesh.edges
    assert_within(star.vertices, laplacian.mass, 8 * len(mesh.faces) * U * laplacian.mass)
    assert torch.equal(star.edges, -dense(laplacian.stiffness)[i, j])
    assert_within((1 / star.faces).sum(), mesh.area, 32 * U * aspect(mesh) * mesh.area)


@given(mesh=meshes())
def test_barycentric_stars_are_positive_and_forget_the_unit_of_length(mesh):
    star = barycentric_stars(mesh)
    double = barycentric_stars(TriangleMesh(2 * mesh.vertices, mesh.faces))
    for degree in range(3):
        assert (star[degree] > 0).all()
        assert torch.equal(double[degree], star[degree] * (4.0, 1.0, 0.25)[degree])


def test_barycentric_stars_are_positive_on_real_meshes(real_mesh):
    star = barycentric_stars(real_mesh)
    for degree, count in enumerate((real_mesh.num_nodes, real_mesh.edges.shape[1], len(real_mesh.faces))):
        assert star[degree].shape == (count,)


def test_on_equilateral_triangles_both_geometric_stars_agree():
    mesh = icosphere(0)
    here, there = hodge_stars(mesh), barycentric_stars(mesh)
    for degree in range(3):
        assert_within(here[degree], there[degree], 32 * U * there[degree])


def test_a_mesh_that_is_not_delaunay_has_no_inner_product_of_1_forms():
    mesh = TriangleMesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0.5, 0.1, 0]], dtype=torch.float64), torch.tensor([[0, 1, 2]]))
    with pytest.raises(DomainError, match=r"⋆1 is no inner product: 1 of its 3 entries.*use barycentric_stars or unit_stars"):
        hodge_stars(mesh)[1]
    with pytest.raises(DomainError, match="must be 0 or 1 or 2"):
        hodge_stars(mesh)[3]


@pytest.mark.parametrize("stars", [hodge_stars, barycentric_stars])
def test_stars_are_differentiable_in_the_vertices(stars):
    mesh = icosphere(0)

    def values(vertices):
        star = stars(TriangleMesh(vertices, mesh.faces))
        return star.vertices, star.edges, star.faces

    bent = mesh.vertices + 0.1 * torch.randn_like(mesh.vertices)
    assert torch.autograd.gradcheck(values, bent.requires_grad_())


@pytest.mark.parametrize("stars", [hodge_stars, barycentric_stars, unit_stars])
def test_stars_and_derivatives_keep_the_precision_of_the_mesh(stars):
    narrow, wide = stars(icosphere(1, dtype=torch.float32)), stars(icosphere(1))
    for degree in range(3):
        assert narrow[degree].dtype == torch.float32
        assert_within(narrow[degree].double(), wide[degree], 64 * roundoff(torch.float32) * wide[degree])
    assert exterior_derivative(icosphere(1, dtype=torch.float32), 1).dtype == torch.float32


# Codifferentials ------------------------------------------------------------------------------------------------------


def assert_adjoint(mesh, degree, stars, alpha, beta):
    star = stars(mesh)
    lower = (star.vertices, star.edges)[degree - 1]
    upper = (star.edges, star.faces)[degree - 1]
    d, delta = exterior_derivative(mesh, degree - 1), codifferential(mesh, degree, stars)
    there = (upper[:, None] * (d @ alpha).conj() * beta).sum()
    here = (lower[:, None] * alpha.conj() * (delta @ beta)).sum()
    magnitude = (upper[:, None].abs() * size(d, alpha) * beta.abs()).sum()
    assert_within(there, here.item(), 32 * U * magnitude)


@on_any_mesh
@pytest.mark.parametrize("degree", [1, 2])
@given(data=st.data())
def test_codifferential_is_the_adjoint_of_the_derivative(stars, degree, data):
    mesh = data.draw(meshes())
    counts = (mesh.num_nodes, mesh.edges.shape[1], len(mesh.faces))
    alpha = data.draw(fields(counts[degree - 1], 1, dtype=torch.complex128))
    beta = data.draw(fields(counts[degree], 1, dtype=torch.complex128))
    assert_adjoint(mesh, degree, stars, alpha, beta)


@on_any_mesh
@pytest.mark.parametrize("degree", [1, 2])
def test_codifferential_is_the_adjoint_on_real_meshes(stars, degree, real_mesh):
    counts = (real_mesh.num_nodes, real_mesh.edges.shape[1], len(real_mesh.faces))
    alpha = torch.randn(counts[degree - 1], 1, dtype=torch.float64)
    beta = torch.randn(counts[degree], 1, dtype=torch.float64)
    assert_adjoint(real_mesh, degree, stars, alpha, beta)


@on_any_mesh
@given(data=st.data())
def test_codifferential_of_a_codifferential_is_zero(stars, data):
    mesh = data.draw(meshes())
    beta = data.draw(fields(len(mesh.faces), 1))
    once, twice = codifferential(mesh, 2, stars), codifferential(mesh, 1, stars)
    magnitude = size(twice, size(once, beta))
    assert_within(twice @ (once @ beta), 0.0, 32 * U * magnitude)


def test_the_divergence_needs_no_positive_star_but_that_of_2_forms_does():
    mesh = grid(4, 4)
    codifferential(mesh, 1)
    with pytest.raises(DomainError, match="⋆1 is no inner product"):
        codifferential(mesh, 2)


@given(mesh=meshes(planar=True))
def test_a_constant_planar_field_has_neither_curl_nor_inner_divergence(mesh):
    i, j = mesh.edges
    form = (mesh.vertices[j] - mesh.vertices[i])[:, :2]
    d1, divergence = exterior_derivative(mesh, 1), codifferential(mesh, 1)
    assert_within(d1 @ form, 0.0, 8 * U * size(d1, mesh.vertices.abs().max().expand(len(form), 1)))
    inner = torch.ones(mesh.num_nodes, dtype=torch.bool)
    inner[mesh.edges[:, dense(d1).abs().sum(0) == 1].reshape(-1)] = False
    magnitude = size(divergence, form) * 64 * U * aspect(mesh) ** 2
    assert_within((divergence @ form)[inner], 0.0, magnitude[inner])


@pytest.mark.parametrize("build", [exterior_derivative, codifferential])
def test_a_degree_is_an_integer_of_python_or_numpy(build):
    mesh = icosphere(0)
    for wrong in (1.0, "1", True, 3, -1, None):
        with pytest.raises(DomainError, match="degree of the form must be"):
            build(mesh, wrong)
    assert torch.equal(build(mesh, np.int64(1)).values, build(mesh, 1).values)
