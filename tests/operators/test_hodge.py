"""Hodge Laplacians: self-adjoint, of the kernel that topology asks for; 1-forms split into three orthogonal parts."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import aspect, assert_within, fields, meshes, roundoff
from operators.checks import ConvergenceError, DomainError, FieldError
from operators.domains import TriangleMesh
from operators.exterior import barycentric_stars, codifferential, exterior_derivative, hodge_stars, unit_stars
from operators.hodge import HodgeDecomposition, hodge_decomposition, hodge_laplacian
from operators.shapes import grid, icosphere, torus
from operators.surface import cotangent_laplacian
from operators.topology import Connectivity

U = roundoff(torch.float64)
on_any_mesh = pytest.mark.parametrize("stars", [barycentric_stars, unit_stars])
degrees = pytest.mark.parametrize("degree", [0, 1, 2])


def dense(operator):
    return torch.from_numpy(operator.to_scipy().toarray())


def spectrum(laplacian):
    return torch.linalg.eigvalsh(dense(laplacian.symmetrized().stiffness))


def cycle(n):
    return np.stack([np.arange(n), (np.arange(n) + 1) % n], axis=1)


def annulus(n=6):
    angle = 2 * np.pi * np.arange(n) / n
    ring = np.column_stack([np.cos(angle), np.sin(angle)])
    (a, b) = cycle(n).T
    faces = np.concatenate([np.column_stack([a, a + n, b + n]), np.column_stack([a, b + n, b])])
    return TriangleMesh(torch.from_numpy(np.concatenate([ring, 2 * ring])), torch.from_numpy(faces))


def moebius(n=7):
    angle = 2 * np.pi * np.arange(n) / n
    centre = np.column_stack([2 * np.cos(angle), 2 * np.sin(angle), 0 * angle])
    across = np.column_stack([np.cos(angle) * np.cos(angle / 2), np.sin(angle) * np.cos(angle / 2), np.sin(angle / 2)])
    low, high = np.arange(n), np.arange(n) + n
    next_low, next_high = np.r_[low[1:], high[0]], np.r_[high[1:], low[0]]
    faces = np.concatenate([np.column_stack([low, next_low, next_high]), np.column_stack([low, next_high, high])])
    return TriangleMesh(torch.from_numpy(np.concatenate([centre - across / 2, centre + across / 2])), torch.from_numpy(faces))


def twice(mesh):
    n = mesh.num_nodes
    return TriangleMesh(torch.cat([mesh.vertices, mesh.vertices + 9.0]), torch.cat([mesh.faces, mesh.faces + n]))


SURFACES = {
    "sphere": (icosphere(1), (1, 0, 1)),
    "torus": (torus(7, 5), (1, 2, 1)),
    "disc": (grid(4, 4), (1, 0, 0)),
    "annulus": (annulus(), (1, 1, 0)),
    "Möbius band": (moebius(), (1, 1, 0)),
    "two spheres": (twice(icosphere(0)), (2, 0, 2)),
    "two tori": (twice(torus(5, 4)), (2, 4, 2)),
}


# Laplacians -----------------------------------------------------------------------------------------------------------


@given(mesh=meshes())
def test_on_functions_it_is_the_cotangent_laplacian(mesh):
    expected, L = cotangent_laplacian(mesh), hodge_laplacian(mesh, 0)
    magnitude = abs(expected.stiffness.to_scipy()).sum(1)
    assert_within(dense(L.stiffness), dense(expected.stiffness), 8 * U * torch.from_numpy(magnitude)[:, None])
    assert_within(L.mass, expected.mass, 8 * len(mesh.faces) * U * expected.mass)


def test_on_functions_it_is_the_cotangent_laplacian_of_real_meshes(real_mesh):
    expected = cotangent_laplacian(real_mesh).stiffness.to_scipy()
    difference = abs(hodge_laplacian(real_mesh, 0).stiffness.to_scipy() - expected)
    assert (difference.max(1).toarray().ravel() <= 8 * U * abs(expected).sum(1)).all()


@on_any_mesh
@degrees
@given(data=st.data())
def test_is_the_dense_formula_symmetric_to_the_last_bit_and_positive_semi_definite(stars, degree, data):
    mesh = data.draw(meshes())
    s0, s1, s2 = (np.diag(stars(mesh)[k].numpy()) for k in range(3))
    d0, d1 = (exterior_derivative(mesh, k).to_scipy().toarray() for k in range(2))
    inverse = [np.diag(1 / np.diag(s)) for s in (s0, s1)]
    terms = (
        [d0.T @ s1 @ d0],
        [s1 @ d0 @ inverse[0] @ d0.T @ s1, d1.T @ s2 @ d1],
        [s2 @ d1 @ inverse[1] @ d1.T @ s2],
    )[degree]
    L = hodge_laplacian(mesh, degree, stars)
    diagonal = np.sqrt(np.diag(sum(terms)))
    # |C_ij| ≤ √(C_ii C_jj) for a semi-definite C.
    bound = 32 * len(mesh.faces) * U * torch.from_numpy(np.outer(diagonal, diagonal))
    assert_within(dense(L.stiffness), torch.from_numpy(sum(terms)), bound)
    assert torch.equal(L.mass, stars(mesh)[degree])
    C = L.stiffness.to_scipy()
    assert (C != C.T).nnz == 0
    values = spectrum(L)
    assert values[0] >= -8 * len(values) * U * L.norm_bound()


@on_any_mesh
@given(data=st.data())
def test_action_is_that_of_derivatives_and_codifferentials(stars, data):
    mesh = data.draw(meshes())
    form = data.draw(fields(mesh.edges.shape[1], 1))
    d0, d1 = exterior_derivative(mesh, 0), exterior_derivative(mesh, 1)
    one, two = codifferential(mesh, 1, stars), codifferential(mesh, 2, stars)
    size = [abs(operator.to_scipy()) for operator in (d0, d1, one, two)]
    magnitude = (size[0] @ size[2] + size[3] @ size[1]) @ form.abs().numpy()
    L = hodge_laplacian(mesh, 1, stars)
    assert_within(L @ form, d0 @ (one @ form) + two @ (d1 @ form), 32 * U * torch.from_numpy(magnitude))


@on_any_mesh
@given(data=st.data())
def test_spectrum_on_1_forms_is_that_on_functions_and_on_2_forms(stars, data):
    """d₀ and δ₂ carry the eigenforms of Δ₀ and Δ₂ with λ > 0 to those of Δ₁."""
    mesh = data.draw(meshes(slivers=False))
    L0, L1, L2 = (hodge_laplacian(mesh, k, stars) for k in range(3))
    small = 1e3 * U * L1.norm_bound()
    lower, upper = spectrum(L0), spectrum(L2)
    expected = torch.sort(torch.cat([lower[lower > small], upper[upper > small]])).values
    values = spectrum(L1)
    assert_within(values[len(values) - len(expected) :], expected, small)
    assert_within(values[: len(values) - len(expected)], 0.0, small)


@on_any_mesh
@pytest.mark.parametrize("name", SURFACES)
def test_dimensions_of_the_kernels_are_the_betti_numbers(stars, name):
    mesh, betti = SURFACES[name]
    for degree in range(3):
        values = spectrum(hodge_laplacian(mesh, degree, stars))
        assert int((values < 1e-9 * values[-1]).sum()) == betti[degree]


@given(mesh=meshes())
def test_dimensions_of_the_kernels_follow_from_the_ranks_of_the_derivatives(mesh):
    """b_k = dim ker d_k − rank d_{k−1}, on surfaces that are no manifolds too; b₀ − b₁ + b₂ = n − E + m follows."""
    ranks = [0, *(int(np.linalg.matrix_rank(exterior_derivative(mesh, k).to_scipy().toarray())) for k in range(2)), 0]
    counts = (mesh.num_nodes, mesh.edges.shape[1], len(mesh.faces))
    for degree in range(3):
        values = spectrum(hodge_laplacian(mesh, degree, unit_stars))
        # With whole entries and so few cells, the least eigenvalue above zero is far from round-off.
        assert int((values < 1e-9).sum()) == counts[degree] - ranks[degree + 1] - ranks[degree]


@pytest.mark.parametrize(("degree", "copies"), [(0, 1), (1, 2), (2, 1)])
def test_spectrum_on_the_sphere_is_l_times_l_plus_1(degree, copies):
    """Functions and 2-forms have l(l + 1) 2l + 1 times, 1-forms twice as often, from l = 1 on."""
    L = hodge_laplacian(icosphere(3), degree)
    closed = [value for k in range(4) for value in [k * (k + 1)] * (copies * (2 * k + 1)) if k or degree != 1]
    matrix = sp.csc_array(L.symmetrized().stiffness.to_scipy())
    start = np.random.default_rng(0).normal(size=matrix.shape[0])
    # More than are compared: of a repeated eigenvalue at the end, Lanczos may miss a copy.
    found = np.sort(scipy.sparse.linalg.eigsh(matrix, k=len(closed) + 9, sigma=-1.0, v0=start, return_eigenvectors=False))
    found = found[: len(closed)]
    # 642 vertices: the error is of second order in the length of the edges, 3 % at l = 3.
    np.testing.assert_allclose(found, closed, rtol=0.03, atol=1e-9)


@degrees
def test_is_a_laplacian_that_solves_moves_and_is_pickled(degree):
    L = hodge_laplacian(icosphere(1), degree)
    b = torch.randn(2, L.shape[0], 3, dtype=torch.float64)
    y = L.solve(0.5, b)
    assert_within(y + 0.5 * (L @ y), b, 32 * U * (1 + L.norm_bound()) * b.abs().max())
    assert torch.equal(pickle.loads(pickle.dumps(L)) @ b, L @ b)
    there = hodge_laplacian(torus(9, 7), degree, unit_stars).on(torus(5, 4))
    assert torch.equal(there.mass, torch.ones(there.shape[0], dtype=torch.float64))
    narrow = hodge_laplacian(icosphere(1, dtype=torch.float32), degree)
    assert narrow.dtype == torch.float32
    bound = 64 * roundoff(torch.float32) * dense(L.stiffness).abs().max()
    assert_within(dense(narrow.stiffness), dense(L.stiffness), bound)


@degrees
@pytest.mark.parametrize("stars", [hodge_stars, barycentric_stars])
def test_is_differentiable_in_the_vertices(degree, stars):
    mesh = icosphere(0)
    form = torch.randn(hodge_laplacian(mesh, degree).shape[0], 1, dtype=torch.float64)

    def energy(vertices):
        L = hodge_laplacian(TriangleMesh(vertices, mesh.faces), degree, stars)
        return L.inner(form, L @ form)

    bent = mesh.vertices + 0.05 * torch.randn_like(mesh.vertices)
    assert torch.autograd.gradcheck(energy, bent.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("unit", [1e-14, 1e14])
def test_values_beyond_float32_are_refused_with_the_cure(unit):
    """The stiffness of Δ₂ is in 1/length⁴: a molecule in metres would get infinities, a continent zeros."""
    mesh = TriangleMesh(icosphere(1).vertices * unit, icosphere(1).faces)
    assert hodge_laplacian(mesh, 2).norm_bound() > 0
    with pytest.raises(DomainError, match=r"leaves the range of torch\.float32: use float64 or change the unit of length"):
        hodge_laplacian(mesh.to(torch.float32), 2)


def test_a_gradient_that_the_decomposition_would_lose_is_refused():
    mesh = TriangleMesh(icosphere(1).vertices.clone().requires_grad_(), icosphere(1).faces)
    with pytest.raises(DomainError, match="no gradient in the points"):
        HodgeDecomposition(mesh)


@pytest.mark.parametrize("degree", [1, 2])
def test_a_mesh_that_is_not_delaunay_is_refused_with_its_cure(degree):
    with pytest.raises(DomainError, match=r"⋆1 is no inner product.*use barycentric_stars or unit_stars"):
        hodge_laplacian(grid(4, 4), degree)
    assert hodge_laplacian(grid(4, 4), 0).shape == (16, 16)
    with pytest.raises(DomainError, match="must be 0 or 1 or 2 here, not 3"):
        hodge_laplacian(grid(4, 4), 3)


# Decomposition --------------------------------------------------------------------------------------------------------


def assert_decomposed(mesh, form, stars, slack):
    """The parts add up, are orthogonal, and are closed or coclosed as they should be; `slack` is in units of round-off."""
    parts, star = hodge_decomposition(mesh, form, stars), stars(mesh)[1][:, None]
    norm = (star * form.square()).sum().sqrt()
    for a, b in ((parts.exact, parts.coexact), (parts.exact, parts.harmonic), (parts.coexact, parts.harmonic)):
        assert_within((star * a * b).sum(), 0.0, slack * U * norm**2)
    total = parts.exact + parts.coexact + parts.harmonic
    assert_within(((total - form).square() * star).sum().sqrt(), 0.0, 8 * U * norm)
    squares = sum((star * part.square()).sum() for part in parts[:3])
    assert_within(squares, float(norm**2), 4 * slack * U * norm**2)
    d1, d0 = exterior_derivative(mesh, 1), exterior_derivative(mesh, 0)
    curl = (d1 @ parts.exact).abs().max() / (torch.from_numpy(abs(d1.to_scipy()) @ parts.exact.abs().numpy()).max() + 1e-300)
    assert curl <= 32 * U
    assert torch.equal(parts.exact, d0 @ parts.potential)
    return parts


@on_any_mesh
@given(data=st.data())
def test_parts_are_orthogonal_and_add_up(stars, data):
    mesh = data.draw(meshes(slivers=False))
    form = data.draw(fields(mesh.edges.shape[1], 1, exact=True))
    assert_decomposed(mesh, form, stars, 1e4)


@on_any_mesh
@given(data=st.data())
def test_parts_are_the_projections_that_dense_least_squares_finds(stars, data):
    mesh = data.draw(meshes(slivers=False))
    form = data.draw(fields(mesh.edges.shape[1], 2, exact=True))
    root = stars(mesh)[1].sqrt().numpy()[:, None]
    d0, d1 = (exterior_derivative(mesh, k).to_scipy().toarray() for k in range(2))
    parts = hodge_decomposition(mesh, form, stars)
    for part, basis in ((parts.exact, root * d0), (parts.coexact, d1.T / root)):
        q = scipy.linalg.orth(basis, rcond=1e-9)
        expected = q @ (q.T @ (root * form.numpy())) / root
        amplified = aspect(mesh) ** 2 if stars is barycentric_stars else 1.0
        assert_within(part, torch.from_numpy(expected), 1e4 * U * amplified * (1 + form.abs().max()))


def test_harmonic_parts_of_real_meshes_are_orthogonal_and_of_the_dimension_of_the_first_homology(real_mesh):
    connectivity = Connectivity(real_mesh.arrays[1], real_mesh.num_nodes)
    components, component = connectivity.components()
    manifold = connectivity.sides_of_edge.max() <= 2 and connectivity.non_manifold_vertices().size == 0
    holed = np.unique(component[connectivity.sides[connectivity.boundary_sides, 0]]).size
    euler = real_mesh.num_nodes - real_mesh.edges.shape[1] + len(real_mesh.faces)
    # b₂ counts the closed components of an oriented manifold; b₁ follows from Euler's formula.
    b1 = components + (components - holed) - euler
    generator = torch.Generator().manual_seed(0)
    forms = torch.randn(real_mesh.edges.shape[1], (b1 if manifold else 0) + 2, generator=generator, dtype=torch.float64)
    star = unit_stars(real_mesh)[1][:, None]
    parts = hodge_decomposition(real_mesh, forms, unit_stars)
    norm = forms.square().sum().sqrt()
    for a, b in ((parts.exact, parts.coexact), (parts.exact, parts.harmonic), (parts.coexact, parts.harmonic)):
        assert_within((star * a).T @ b, 0.0, 1e-10 * norm)
    if manifold:
        values = torch.linalg.svdvals(parts.harmonic)
        assert int((values > 1e-8 * norm).sum()) == b1


@pytest.mark.parametrize("stars", [hodge_stars, barycentric_stars, unit_stars])
def test_each_part_of_a_part_is_itself(stars):
    mesh = SURFACES["torus"][0] if stars is not hodge_stars else icosphere(2)
    split = HodgeDecomposition(mesh, stars)
    form = torch.randn(2, mesh.edges.shape[1], 3, dtype=torch.float64)
    parts = split(form)
    for k in range(3):
        again = split(parts[k])
        for other in range(3):
            assert_within(again[other], parts[k] if other == k else 0.0, 1e5 * U * form.abs().max())


@pytest.mark.parametrize("unit", [1e-14, 1e14])
def test_parts_do_not_depend_on_the_unit_of_the_star(unit):
    mesh, form = torus(6, 5), torch.randn(90, 1, dtype=torch.float64)
    once = HodgeDecomposition(mesh, unit_stars)(form)
    scaled = HodgeDecomposition(mesh, lambda mesh: replace(unit_stars(mesh), edges=unit * unit_stars(mesh).edges))(form)
    for name in ("exact", "coexact", "harmonic", "potential"):
        assert_within(getattr(scaled, name), getattr(once, name), 1e-10)


def test_no_forms_have_no_parts():
    parts = HodgeDecomposition(torus(6, 5), unit_stars)(torch.zeros(2, 90, 0, dtype=torch.float64))
    assert [part.shape for part in parts] == [(2, 90, 0)] * 3 + [(2, 30, 0), (2, 60, 0)]


def test_a_gradient_field_is_exact_and_its_potential_is_found_up_to_a_constant():
    mesh = icosphere(2)
    height = mesh.vertices[:, 2:]
    parts = hodge_decomposition(mesh, exterior_derivative(mesh, 0) @ height)
    assert_within(parts.potential - parts.potential.mean(), height - height.mean(), 1e-11)
    assert_within(parts.coexact, 0.0, 1e-11)
    assert_within(parts.harmonic, 0.0, 1e-11)


def test_potentials_give_the_parts():
    mesh = torus(9, 7)
    form = torch.randn(mesh.edges.shape[1], 1, dtype=torch.float64)
    parts = hodge_decomposition(mesh, form, barycentric_stars)
    assert_within(codifferential(mesh, 2, barycentric_stars) @ parts.copotential, parts.coexact, 1e-12)


def test_is_linear_in_complex_batches_and_differentiable_to_second_order():
    mesh = annulus()
    split = HodgeDecomposition(mesh, barycentric_stars)
    count = mesh.edges.shape[1]
    a, b = torch.randn(2, 3, count, 2, dtype=torch.float64)
    both = split(torch.complex(a, b))
    for whole, real, imaginary in zip(both, split(a), split(b), strict=True):
        assert_within(whole, torch.complex(real, imaginary), 1e-13)
    form = torch.randn(count, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(split, form)
    assert torch.autograd.gradgradcheck(lambda x: split(x).harmonic.square(), form)


def test_a_pickle_splits_alike():
    mesh = annulus()
    form = torch.randn(mesh.edges.shape[1], 1, dtype=torch.float64)
    split = HodgeDecomposition(mesh, barycentric_stars)
    parts = split(form)
    for here, there in zip(parts, pickle.loads(pickle.dumps(split))(form), strict=True):
        assert torch.equal(here, there)


def test_float32_forms_are_solved_in_float64_and_returned_as_they_came():
    mesh = icosphere(2, dtype=torch.float32)
    form = torch.randn(mesh.edges.shape[1], 1)
    parts = hodge_decomposition(mesh, form)
    assert all(part.dtype == torch.float32 for part in parts)
    assert_within(parts.harmonic, 0.0, 1e3 * roundoff(torch.float32) * form.abs().max())


def test_thin_triangles_are_decomposed_too():
    """Angles of 1e-4: the weights span eight orders of magnitude."""
    mesh = grid(9, 9)
    thin = TriangleMesh(mesh.vertices * torch.tensor([1.0, 1e-4, 1.0]), mesh.faces)
    form = torch.randn(mesh.edges.shape[1], 1, dtype=torch.float64)
    parts = hodge_decomposition(thin, form, barycentric_stars)
    star = barycentric_stars(thin)[1][:, None]
    norm = (star * form.square()).sum()
    assert_within((star * parts.exact * parts.coexact).sum(), 0.0, 1e-9 * norm)
    assert_within((star * parts.harmonic.square()).sum().sqrt(), 0.0, 1e-6 * norm.sqrt())


def test_forms_that_do_not_fit_are_refused():
    mesh = icosphere(1)
    with pytest.raises(FieldError, match=r"form must have shape \(\.\.\., 120, c\)"):
        hodge_decomposition(mesh, torch.ones(42, 1, dtype=torch.float64))
    with pytest.raises(ConvergenceError, match="not finite"):
        hodge_decomposition(mesh, torch.full((120, 1), torch.nan, dtype=torch.float64))
    with pytest.raises(DomainError, match="⋆1 is no inner product"):
        HodgeDecomposition(grid(4, 4))
