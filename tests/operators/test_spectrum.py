"""Eigenpairs agree with closed forms and dense solvers, with multiplicities, and their values have gradients."""

import math
import pickle

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import operators.spectrum as spectrum
from neuralpde.testing import assert_within, fields, graphs, meshes, roundoff
from operators.checks import ConvergenceError, DomainError, FieldError
from operators.connection import connection_laplacian
from operators.domains import Graph, TriangleMesh
from operators.laplacian import Laplacian, combinatorial_laplacian, random_walk_laplacian, symmetric_laplacian
from operators.magnetic import magnetic_laplacian
from operators.mass import consistent_mass
from operators.shapes import grid, icosphere, torus
from operators.sparse import SparseOperator
from operators.spectrum import DENSE_NODES, Eigenpairs, eigenpairs
from operators.surface import cotangent_laplacian, robust_laplacian

U = roundoff(torch.float64)


def graph_of(pairs, n):
    """The undirected graph of unit weights."""
    index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    return Graph(torch.cat([index, index.flip(0)], 1), n, torch.ones(2 * index.shape[1], dtype=torch.float64))


def path_pairs(n):
    return [(i, i + 1) for i in range(n - 1)]


def path_spectrum(n):
    return 2 - 2 * np.cos(math.pi * np.arange(n) / n)


def cycle_spectrum(n):
    return 2 - 2 * np.cos(2 * math.pi * np.arange(n) / n)


def sums(a, b):
    """The spectrum of a grid product is all sums of its factors' eigenvalues."""
    return (a[:, None] + b).reshape(-1)


def product_pairs(first, m, second, n):
    return [(i * n + k, j * n + k) for i, j in first for k in range(n)] + [
        (k * n + i, k * n + j) for i, j in second for k in range(m)
    ]


def ring(n):
    return [*path_pairs(n), (n - 1, 0)]


CUBE = [(i, i ^ (1 << b)) for i in range(512) for b in range(9) if i < i ^ (1 << b)]
CLOSED_FORMS = {
    "path": (graph_of(path_pairs(350), 350), path_spectrum(350)),
    "cycle": (graph_of(ring(400), 400), cycle_spectrum(400)),
    "complete": (graph_of([(i, j) for i in range(310) for j in range(i)], 310), np.array([0.0] + [310.0] * 309)),
    "hypercube": (graph_of(CUBE, 512), np.array([2.0 * i.bit_count() for i in range(512)])),
    "grid": (graph_of(product_pairs(path_pairs(20), 20, path_pairs(17), 17), 340), sums(path_spectrum(20), path_spectrum(17))),
    "flat torus": (graph_of(product_pairs(ring(24), 24, ring(24), 24), 576), sums(cycle_spectrum(24), cycle_spectrum(24))),
    "squares": (
        graph_of([(4 * i + a, 4 * i + (a + 1) % 4) for i in range(100) for a in range(4)], 400),
        np.array([0.0, 2, 2, 4] * 100),
    ),
    "no edges": (graph_of([], 400), np.zeros(400)),
}
on_closed_forms = pytest.mark.parametrize("name", CLOSED_FORMS)


def dense_spectrum(laplacian, mass=None):
    M = np.diag(laplacian.mass.double().numpy()) if mass is None else mass.to_scipy().toarray()
    return scipy.linalg.eigh(laplacian.stiffness.to_scipy().toarray(), M, eigvals_only=True)


def assert_pairs(pairs, laplacian, mass=None):
    """Vᴴ M V = I, M V = weighted, and C V = M V Λ, each to round-off."""
    n, k = pairs.vectors.shape
    V = pairs.vectors
    M = sp.diags_array(laplacian.mass.numpy()) if mass is None else mass.to_scipy()
    weighted = torch.from_numpy(M @ V.numpy())
    assert_within(pairs.weighted, weighted, 32 * n * U * float(weighted.abs().max()))
    assert_within(V.mH @ pairs.weighted, torch.eye(k), 32 * n * U)
    root = laplacian.mass.sqrt()[:, None]
    residual = (laplacian.stiffness(V) - pairs.weighted * pairs.values) / root
    assert_within(residual.norm(dim=0), 0.0, 1e-9 * pairs.values.abs() + 128 * math.sqrt(n) * U * laplacian.norm_bound())
    assert (pairs.values.diff() >= 0).all()


# Closed forms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("refinements", "error"), [(3, 0.03), (4, 0.008), (5, 0.002)])
def test_sphere_has_l_times_l_plus_1_with_multiplicity_2l_plus_1(refinements, error):
    """Up to l = 4 on icospheres of 642, 2562 and 10242 vertices: measured 2.7 %, 0.67 %, 0.17 %."""
    values = eigenpairs(robust_laplacian(icosphere(refinements)), 26).values
    expected = torch.tensor([l * (l + 1.0) for l in range(5) for _ in range(2 * l + 1)])  # noqa: E741
    assert abs(values[0]) < 1e-9
    assert_within(values[1:25], expected[1:], error * expected[1:])
    # The next one belongs to l = 5, so that no copy is missing and none too many.
    assert values[25] > 25


def torus_spectrum(radius, tube, k, n=65):
    """Of the round torus: −(w f′)′/t² + m² f/w = λ w f with w = R + t cos θ, for each wave number m around the axis.

    Fourier collocation in θ; 41 points give the same to 3e-13.
    """
    w = radius + tube * np.cos(2 * np.pi * np.arange(n) / n)
    waves = 1j * np.fft.fftfreq(n, 1 / n)[:, None]
    derivative = np.fft.ifft(waves * np.fft.fft(np.eye(n), axis=0), axis=0).real
    bending = derivative.T @ (w[:, None] * derivative) / tube**2
    modes = [scipy.linalg.eigh(bending + np.diag(m * m / w), np.diag(w), eigvals_only=True) for m in range(12)]
    return np.sort(np.concatenate([modes[0], *modes[1:], *modes[1:]]))[:k]


@pytest.mark.parametrize("build", [cotangent_laplacian, robust_laplacian])
@pytest.mark.parametrize(("around", "error"), [(40, 0.035), (80, 0.009)])
def test_torus_has_the_spectrum_of_its_ordinary_differential_equation(build, around, error):
    """Twenty eigenvalues of 960 and 3840 vertices, with multiplicities: measured 3.2 % and 0.8 %."""
    values = eigenpairs(build(torus(around, 3 * around // 5, 2.0, 1.0)), 20).values
    expected = torch.from_numpy(torus_spectrum(2.0, 1.0, 20))
    assert abs(values[0]) < 1e-9
    assert_within(values[1:], expected[1:], error * expected[1:])


@pytest.mark.parametrize("mass", ["lumped", "consistent"])
def test_rectangle_has_the_cosines_of_neumann(mass):
    mesh = grid(40, 30, 2.0, 1.0)
    L = cotangent_laplacian(mesh)
    values = eigenpairs(L, 12, mass=consistent_mass(mesh) if mass == "consistent" else None).values
    expected = np.sort([(math.pi * i / 2) ** 2 + (math.pi * j) ** 2 for i in range(12) for j in range(8)])[:12]
    # Linear elements: λ h²/12 for waves along an edge, a few times that across; 1.5 % at h = 1/29 and λ = 60.
    assert_within(values[1:], torch.from_numpy(expected[1:]), 0.015 * torch.from_numpy(expected[1:]))
    # Lumping makes eigenvalues too small, the consistent mass too large (the min-max principle).
    assert ((values[1:] - torch.from_numpy(expected[1:]) > 0) == (mass == "consistent")).all()


def test_rectangle_converges_with_the_square_of_the_edge_length():
    errors = []
    for n in (10, 20, 40):
        values = eigenpairs(cotangent_laplacian(grid(n + 1, n + 1)), 2).values
        errors.append(abs(float(values[1]) - math.pi**2))
    assert errors[1] == pytest.approx(errors[0] / 4, rel=0.05)
    assert errors[2] == pytest.approx(errors[1] / 4, rel=0.05)


@on_closed_forms
@pytest.mark.parametrize("k", [1, 7, 40])
@pytest.mark.parametrize("largest", [False, True])
def test_graph_has_its_closed_form_with_multiplicities(name, k, largest):
    graph, closed = CLOSED_FORMS[name]
    L = combinatorial_laplacian(graph)
    assert L.shape[0] > DENSE_NODES
    closed = torch.from_numpy(np.sort(closed)[-k:] if largest else np.sort(closed)[:k])
    pairs = eigenpairs(L, k, largest=largest)
    assert_within(pairs.values, closed, 32 * math.sqrt(L.shape[0]) * U * max(1.0, L.norm_bound()))
    assert_pairs(pairs, L)


def test_bipartite_graph_reaches_two_and_an_odd_cycle_does_not():
    even, odd = (symmetric_laplacian(graph_of(ring(n), n)) for n in (400, 401))
    assert_within(eigenpairs(even, 1, largest=True).values, 2.0, 1e-13)
    assert_within(eigenpairs(odd, 1, largest=True).values, 1 - math.cos(math.pi * 400 / 401), 1e-13)


def test_magnetic_cycle_has_shifted_cosines():
    """A flux of 2πqn through a directed n-cycle shifts every wave number by qn."""
    n, charge = 401, 0.1
    ahead = torch.stack([torch.arange(n), (torch.arange(n) + 1) % n])
    L = magnetic_laplacian(Graph(ahead, n, torch.ones(n, dtype=torch.float64)), charge)
    # Each directed edge weighs ½.
    expected = np.sort(1 - np.cos(2 * math.pi * (np.arange(n) / n - charge)))
    pairs = eigenpairs(L, 9)
    assert_within(pairs.values, torch.from_numpy(expected[:9]), 1e-13)
    assert_pairs(pairs, L)


# Against dense solvers ------------------------------------------------------------------------------------------------


@given(data=st.data())
def test_small_domains_agree_with_the_dense_spectrum(data):
    domain = data.draw(st.one_of(graphs(), meshes()))
    build = (
        random_walk_laplacian
        if isinstance(domain, Graph)
        else data.draw(st.sampled_from([cotangent_laplacian, robust_laplacian]))
    )
    L = build(domain)
    k = data.draw(st.integers(1, L.shape[0]))
    largest = data.draw(st.booleans())
    dense = torch.linalg.eigvalsh(L.symmetrized().matrix())
    pairs = eigenpairs(L, k, largest=largest)
    assert_within(pairs.values, dense[-k:] if largest else dense[:k], 64 * L.shape[0] * U * L.norm_bound())


def sphere_pair():
    """Two spheres, so that every eigenvalue doubles."""
    mesh = icosphere(2)
    return TriangleMesh(torch.cat([mesh.vertices, mesh.vertices + 3]), torch.cat([mesh.faces, mesh.faces + mesh.num_nodes]))


@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("case", ["connection", "consistent", "two spheres", "Hermitian mass"])
def test_lanczos_agrees_with_the_dense_spectrum(case, largest):
    mesh = sphere_pair() if case == "two spheres" else torus(24, 15)
    L = connection_laplacian(mesh) if case in ("connection", "Hermitian mass") else cotangent_laplacian(mesh)
    mass = None
    if case == "consistent":
        mass = consistent_mass(mesh)
    if case == "Hermitian mass":
        # A congruence by the phases i^k of a positive definite matrix.
        M, phase = consistent_mass(mesh), 1j ** torch.arange(mesh.num_nodes)
        mass = SparseOperator(M.pattern, M.values * phase[M.pattern.row] * phase[M.pattern.col].conj())
    dense = dense_spectrum(L, mass)
    for k in (1, 6, 19):
        pairs = eigenpairs(L, k, largest=largest, mass=mass)
        bound = 64 * math.sqrt(L.shape[0]) * U * 4 * L.norm_bound()
        assert_within(pairs.values, torch.from_numpy(dense[-k:] if largest else dense[:k]), bound)
        assert_pairs(pairs, L, mass)


def test_every_real_mesh_has_a_zero_for_each_component(real_mesh):
    L = robust_laplacian(real_mesh)
    components, label = sp.csgraph.connected_components(L.stiffness.to_scipy())
    k = min(components + 3, L.shape[0])
    pairs = eigenpairs(L, k)
    assert_pairs(pairs, L)
    zero = 64 * math.sqrt(L.shape[0]) * U * L.norm_bound()
    assert_within(pairs.values[:components], 0.0, zero)
    # The kernel's projector is that onto the indicators of the components.
    inside = torch.from_numpy(label)[:, None] == torch.arange(components)
    area = (L.mass[:, None] * inside).sum(0)
    x = inside.double() / area.sqrt()
    kernel = Eigenpairs(pairs.values[:components], pairs.vectors[:, :components], pairs.weighted[:, :components])
    amplified = zero / float(pairs.values[components]) if k > components else U
    assert_within(kernel.project(x).norm(dim=0), 1.0, 1e-9 + amplified)


def test_a_missed_copy_is_found_in_the_complement(monkeypatch):
    """An iteration that returns too few copies of a repeated eigenvalue is put right."""
    L = robust_laplacian(icosphere(3))
    honest = eigenpairs(L, 9)
    search = spectrum._Search.__call__

    def forgetful(self, count, known):
        found = search(self, count + 2, known)
        if known is not None:
            return search(self, count, known)
        # Drop one of the three copies of l = 1, and of the five of l = 2.
        _, y = spectrum._rayleigh_ritz(self.pencil, found, count + 2, self.largest)
        return np.delete(y, [1, 6], axis=1)

    monkeypatch.setattr(spectrum._Search, "__call__", forgetful)
    assert_within(eigenpairs(L, 9).values, honest.values, 1e-9)


# The object -----------------------------------------------------------------------------------------------------------


def test_same_in_every_run_and_signs_are_canonical():
    L = robust_laplacian(torus(24, 15))
    first, second = eigenpairs(L, 8), eigenpairs(L, 8)
    assert torch.equal(first.values, second.values)
    assert torch.equal(first.vectors, second.vectors)
    size = first.vectors.abs()
    pivot = (size >= 0.9 * size.max(0).values).double().argmax(0)
    assert (first.vectors[pivot, torch.arange(8)] > 0).all()
    phases = eigenpairs(connection_laplacian(torus(24, 15)), 3).vectors
    pivot = (phases.abs() >= 0.9 * phases.abs().max(0).values).double().argmax(0)
    assert_within(phases[pivot, torch.arange(3)].imag, 0.0, 1e-15 * float(phases.abs().max()))


def test_project_reconstruct_and_filter_are_the_spectral_calculus():
    L = robust_laplacian(icosphere(1))
    everything = eigenpairs(L, 42)
    x = torch.randn(3, 42, 2, dtype=torch.float64)
    assert_within(everything.reconstruct(everything.project(x)), x, 1e-12)
    assert_within(everything.filter(lambda w: w, x), L @ x, 32 * 42 * U * L.norm_bound() * float(x.abs().sum()))
    few = eigenpairs(L, 4)
    smooth = few.filter(torch.ones_like, x)
    assert_within(few.filter(torch.ones_like, smooth), smooth, 1e-12)
    assert_within(L.inner(smooth, x - smooth), 0.0, 1e-12)
    each = few.filter(lambda w: torch.exp(-w[:, None] * torch.tensor([0.0, 1.0], dtype=torch.float64)), x)
    assert_within(each[..., 0], smooth[..., 0], 1e-12)
    assert_within(few.project(x + 1j * x), few.project(x) * (1 + 1j), 1e-12)


def test_norm_of_the_coefficients_is_that_of_the_field():
    mesh = torus(8, 6)
    L, M = cotangent_laplacian(mesh), consistent_mass(mesh)
    x = torch.randn(48, 1, dtype=torch.float64)
    coefficients = eigenpairs(L, 48, mass=M).project(x)
    assert_within((coefficients**2).sum(), (x * M(x)).sum(), 1e-12)


def test_float32_is_computed_in_float64_and_returned_in_float32():
    L = robust_laplacian(icosphere(3))
    narrow = eigenpairs(L.to(torch.float32), 9)
    assert narrow.values.dtype == narrow.vectors.dtype == narrow.weighted.dtype == torch.float32
    assert_within(narrow.values.double(), eigenpairs(robust_laplacian(icosphere(3)), 9).values, 1e-5 * 12)
    wide = narrow.to(torch.float64)
    assert wide.vectors.dtype == torch.float64
    assert wide.to("cpu").values.dtype == torch.float64
    assert torch.equal(pickle.loads(pickle.dumps(wide)).vectors, wide.vectors)
    assert eigenpairs(connection_laplacian(icosphere(1)), 2).to(torch.float32).vectors.dtype == torch.complex64


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_unit_of_length_scales_the_values_and_vectors(scale):
    mesh = torus(24, 15)
    here, there = (
        eigenpairs(robust_laplacian(mesh), 6),
        eigenpairs(robust_laplacian(TriangleMesh(mesh.vertices * scale, mesh.faces)), 6),
    )
    assert_within(there.values * scale**2, here.values, 1e-9)
    # The first is constant and simple.
    assert_within(there.vectors[:, 0] * scale, here.vectors[:, 0], 1e-9)


# Gradients ------------------------------------------------------------------------------------------------------------


def test_gradient_of_eigenvalues_in_the_vertices_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(3)
    mesh = torus(6, 5)
    # Unequal, so that every eigenvalue is simple.
    vertices = mesh.vertices + 0.05 * torch.randn(30, 3, dtype=torch.float64, generator=generator)

    def values(v):
        return eigenpairs(cotangent_laplacian(TriangleMesh(v, mesh.faces)), 6).values[1:]

    assert torch.autograd.gradcheck(values, (vertices.requires_grad_(),), eps=1e-6, atol=1e-5, rtol=1e-4, fast_mode=True)


def test_gradient_in_a_consistent_mass_and_of_a_complex_stiffness():
    mesh = torus(6, 5)
    L, M = connection_laplacian(mesh), consistent_mass(mesh)
    generator = torch.Generator().manual_seed(3)
    weight = torch.rand(L.shape[0], dtype=torch.float64, generator=generator) + 0.5

    def values(w, m):
        # Congruent scaling keeps both Hermitian.
        C = L.stiffness.scaled(w.to(torch.complex128), w.to(torch.complex128))
        return eigenpairs(Laplacian(C, L.mass), 3, mass=M.scaled(m, m)).values

    m = torch.ones(30, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(values, (weight.requires_grad_(), m), atol=1e-5, rtol=1e-4, fast_mode=True)


def test_largest_of_a_complex_stiffness_in_a_consistent_mass_are_the_dense_ones():
    mesh = torus(20, 16)
    L, M = connection_laplacian(mesh), consistent_mass(mesh)
    dense = scipy.linalg.eigh(L.stiffness.to_scipy().toarray(), M.to_scipy().toarray(), eigvals_only=True)
    assert_within(eigenpairs(L, 4, mass=M, largest=True).values, torch.from_numpy(dense[-4:]), 1e-10 * dense[-1])


def test_sum_over_a_multiplet_is_differentiable_although_its_members_are_not():
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    L = robust_laplacian(icosphere(1))
    grown = Laplacian(SparseOperator(L.stiffness.pattern, L.stiffness.values * scale), L.mass)
    total = eigenpairs(grown, 4).values[1:].sum()
    (slope,) = torch.autograd.grad(total, scale)
    assert_within(slope, total, 1e-12)
    with torch.no_grad():
        assert not eigenpairs(grown, 4).values.requires_grad


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, -1, 13, 2.0, True, None])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(DomainError, match="k must be an integer from 1 to n = 12"):
        eigenpairs(robust_laplacian(icosphere(0)), k)


@pytest.mark.parametrize("n", [12, 642])
def test_bad_matrices_are_refused(n):
    L = robust_laplacian(icosphere(0 if n == 12 else 3))
    pattern, values = L.stiffness.pattern, L.stiffness.values

    def changed(new):
        return Laplacian(SparseOperator(pattern, new), L.mass)

    with pytest.raises(DomainError, match="holds NaN or infinity"):
        eigenpairs(changed(values * math.nan), 2)
    with pytest.raises(DomainError, match="symmetric"):
        eigenpairs(changed(values * (1 + (pattern.row > pattern.col))), 2)
    with pytest.raises(DomainError, match="not positive semi-definite"):
        eigenpairs(changed(-values), 2)
    identity = SparseOperator.from_scipy(sp.eye_array(n), torch.float64)
    with pytest.raises(DomainError, match="mass must be a SparseOperator"):
        eigenpairs(L, 2, mass=L)
    with pytest.raises(DomainError, match="diagonal is not positive"):
        eigenpairs(L, 2, mass=SparseOperator(identity.pattern, -identity.values))
    off = sp.diags_array([np.full(n - 1, 2.0), np.ones(n), np.full(n - 1, 2.0)], offsets=[-1, 0, 1])
    with pytest.raises(DomainError, match=r"mass is not positive definite|is the mass positive definite"):
        eigenpairs(L, 2, mass=SparseOperator.from_scipy(off, torch.float64), largest=True)


def test_no_convergence_says_so(monkeypatch):
    def stopped(*arguments, **settings):
        raise spectrum.spla.ArpackNoConvergence("no", np.zeros(0), np.zeros((0, 0)))

    monkeypatch.setattr(spectrum.spla, "eigsh", stopped)
    with pytest.raises(ConvergenceError, match=r"too close together; ask for a different number"):
        eigenpairs(robust_laplacian(icosphere(3)), 3)


def test_large_residuals_are_an_error_and_not_a_result(monkeypatch):
    monkeypatch.setattr(spectrum, "_lanczos", lambda pencil, k, largest: (np.zeros(k), np.eye(len(pencil.root))[:, :k]))
    with pytest.raises(ConvergenceError, match=r"has the residual .* above"):
        eigenpairs(robust_laplacian(icosphere(3)), 3)


@settings(max_examples=5)
@given(data=st.data())
def test_fields_that_do_not_fit_are_refused(data):
    pairs = eigenpairs(robust_laplacian(icosphere(0)), 4)
    with pytest.raises(FieldError, match=r"shape \(\.\.\., 12, c\)"):
        pairs.project(data.draw(fields(11)))
    with pytest.raises(FieldError, match=r"coefficients must have shape \(\.\.\., 4, c\)"):
        pairs.reconstruct(data.draw(fields(12)))
    with pytest.raises(FieldError, match="filter must map"):
        pairs.filter(lambda w: w.sum(), data.draw(fields(12)))


def test_no_eigenvalue_is_negative_so_that_its_root_is_a_number():
    for build, k in ((robust_laplacian, 6), (combinatorial_laplacian, 42)):
        mesh = icosphere(1)
        pairs = eigenpairs(build(mesh if build is robust_laplacian else mesh.graph()), k)
        assert (pairs.values >= 0).all()
        x = torch.ones(42, 1, dtype=torch.float64)
        assert torch.isfinite(pairs.filter(lambda w: torch.cos(w.sqrt()), x)).all()
