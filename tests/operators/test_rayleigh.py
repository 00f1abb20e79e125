"""The Rayleigh quotient measures roughness: scale-free, between 0 and λ_max, undefined for zero, blind to constants."""

import gc
import pickle
import weakref
from copy import deepcopy
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import assert_within, fields, graphs, meshes, roundoff
from operators import (
    FieldError,
    Graph,
    Laplacian,
    SparseOperator,
    adjacency_of,
    combinatorial_laplacian,
    cotangent_laplacian,
    dirichlet_energy,
    icosphere,
    mass_weighted_norm,
    rayleigh_quotient,
    robust_laplacian,
    symmetric_laplacian,
    torus,
)
from operators.rayleigh import edge_form

U = roundoff(torch.float64)


def exact_energy(C, x):
    """½ xᵀ C x in rational arithmetic, C being symmetric with the stored entries beside its diagonal and zero row sums."""
    x, C = x.detach().double().reshape(-1).tolist(), sp_upper(C)
    return sum(-Fraction(w) * (Fraction(x[i]) - Fraction(x[j])) ** 2 for i, j, w in C) / 2


def sp_upper(C):
    coo = C.to_scipy().tocoo()
    return [(i, j, w) for i, j, w in zip(*coo.coords, coo.data.tolist(), strict=True) if i < j]


def form_energy(L, x):
    """½ Σ_c xᴴ C x by NumPy in extended precision."""
    C = L.stiffness.to_scipy().toarray()
    wide = np.clongdouble if np.iscomplexobj(C) or x.is_complex() else np.longdouble
    x = x.detach().numpy().astype(wide)
    return float((x.conj() * (C.astype(wide) @ x)).sum().real / 2)


def hermitian(n=6):
    """A ring with unequal weights and a phase of 0.7 an edge, and a potential on its diagonal."""
    i = torch.arange(n)
    w = 1.0 + i.double()
    value = -w * torch.exp(1j * torch.tensor(0.7, dtype=torch.float64))
    diagonal = (w + w.roll(1)).to(torch.complex128)
    ends = torch.cat([i, (i + 1) % n, i]), torch.cat([(i + 1) % n, i, i])
    return SparseOperator.from_entries(*ends, torch.cat([value, value.conj().resolve_conj(), diagonal]), (n, n))


def grounded(L, potential=0.0):
    """L with its first node held at zero, a Dirichlet matrix, and a potential."""
    matrix = L.stiffness.to_scipy()[1:, 1:] + potential * np.eye(L.shape[0] - 1)
    return Laplacian(SparseOperator.from_scipy(matrix), L.mass[1:])


def signed():
    return SparseOperator.from_scipy(np.array([[3.0, 2.0, -1.0], [2.0, 2.0, 0.0], [-1.0, 0.0, 1.0]]))


ODD = {
    "magnetic": lambda: Laplacian(hermitian(), torch.arange(1.0, 7.0, dtype=torch.float64)),
    "signed": lambda: Laplacian(signed(), torch.ones(3, dtype=torch.float64)),
    "grounded": lambda: grounded(robust_laplacian(torus(4, 3)), 0.25),
    "grounded cotangent": lambda: grounded(cotangent_laplacian(torus(4, 3, 1.0, 0.1))),
    "symmetrized": lambda: robust_laplacian(torus(4, 3)).symmetrized(),
    "diagonal": lambda: Laplacian(SparseOperator.from_scipy(np.diag([1.0, 0.0, 2.0])), torch.ones(3, dtype=torch.float64)),
}
odd = pytest.mark.parametrize("build", list(ODD.values()), ids=list(ODD))
LAPLACIANS = st.one_of(graphs().map(combinatorial_laplacian), graphs().map(symmetric_laplacian), meshes().map(robust_laplacian))
dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])


def nonzero(data, L, dtype, **options):
    x = data.draw(fields(L.shape[0], 2, dtype=dtype, **options))
    return x if bool((x != 0).any()) else torch.ones_like(x)


@dtypes
@given(data=st.data())
def test_quotient_is_between_zero_and_the_norm_bound(dtype, data):
    L = data.draw(LAPLACIANS)
    quotient = rayleigh_quotient(L, nonzero(data, L, dtype))
    slack = 32 * L.shape[0] * U * L.norm_bound()
    assert quotient.dtype == torch.float64
    assert -slack <= quotient <= L.norm_bound() + slack


@dtypes
@given(data=st.data(), power=st.integers(-60, 60))
def test_quotient_ignores_the_scale_of_the_field_bitwise_for_powers_of_two(dtype, data, power):
    L = data.draw(LAPLACIANS)
    x = nonzero(data, L, dtype)
    assert torch.equal(rayleigh_quotient(L, x * 2.0**power), rayleigh_quotient(L, x))
    assert_within(rayleigh_quotient(L, -3 * x), rayleigh_quotient(L, x), 64 * L.shape[0] * U * L.norm_bound())


@pytest.mark.parametrize("scale", [1e-250, 1e-150, 1e150, 1e250])
def test_quotient_of_a_huge_or_tiny_field_neither_overflows_nor_vanishes(scale):
    L = robust_laplacian(icosphere(1))
    x = torch.randn(3, 42, 2, dtype=torch.float64)
    torch.testing.assert_close(rayleigh_quotient(L, scale * x), rayleigh_quotient(L, x), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_largest_and_the_least_number_are_measured_too(dtype):
    """No power of two above the largest number exists: to scale by it would make zero of the field."""
    graph = Graph(torch.tensor([[0, 1], [1, 0]]), 2, torch.ones(2, dtype=torch.float64))
    L = combinatorial_laplacian(graph).to(dtype)
    largest, least = torch.finfo(dtype).max, torch.finfo(dtype).smallest_normal
    for size in (largest, least):
        x = torch.tensor([[size], [0.0]], dtype=dtype)
        assert rayleigh_quotient(L, x) == 1
        assert mass_weighted_norm(L.mass, x) == size
    assert dirichlet_energy(L, torch.tensor([[largest], [0.0]], dtype=dtype)) == torch.inf


@pytest.mark.parametrize("double", [lambda v: v.mul_(2), lambda v: v.data.mul_(2), lambda v: np.multiply(v, 2, v.numpy())])
def test_the_energy_follows_values_that_are_written_in_place(double):
    L, x = robust_laplacian(icosphere(0)), torch.randn(12, 1, dtype=torch.float64)
    before = dirichlet_energy(L, x)
    double(L.stiffness.values)
    assert dirichlet_energy(L, x) == 2 * before


def test_a_norm_refuses_a_field_of_another_shape_or_precision():
    L = robust_laplacian(icosphere(0))
    with pytest.raises(FieldError, match="shape"):
        mass_weighted_norm(L.mass, torch.ones(12, dtype=torch.float64))
    with pytest.raises(FieldError, match="nothing is converted silently"):
        mass_weighted_norm(L.mass, torch.ones(12, 1))


@pytest.mark.parametrize("build", [robust_laplacian, lambda mesh: robust_laplacian(mesh).symmetrized()])
def test_quotient_of_an_eigenvector_is_its_eigenvalue(build):
    L = build(icosphere(1))
    root = L.mass.sqrt()
    values, vectors = torch.linalg.eigh(L.symmetrized().matrix())
    quotients = rayleigh_quotient(L, (vectors / root[:, None]).T[..., None])
    assert_within(quotients, values, 64 * len(values) * U * float(values[-1]))


@given(data=st.data())
def test_energy_is_half_the_weighted_squared_differences(data):
    L = data.draw(graphs().map(combinatorial_laplacian))
    x = data.draw(fields(L.shape[0], 2, batch=(2,)))
    W = adjacency_of(L).matrix()
    difference = (x[:, :, None] - x[:, None]).square().sum(-1)
    size = x.square().sum(-1)
    magnitude = (W * (size[:, :, None] + size[:, None])).sum((-1, -2))
    assert_within(dirichlet_energy(L, x), (W * difference).sum((-1, -2)) / 4, 32 * U * magnitude)


@dtypes
@given(data=st.data())
def test_norm_is_that_of_the_inner_product(dtype, data):
    L = data.draw(LAPLACIANS)
    x = data.draw(fields(L.shape[0], 2, dtype=dtype))
    norm = mass_weighted_norm(L.mass, x)
    assert_within(norm**2, L.inner(x, x).real, 32 * L.shape[0] * U * norm**2)


@dtypes
def test_derivatives_of_both_orders(dtype):
    L = robust_laplacian(icosphere(0))
    x = torch.randn(2, 12, 1, dtype=dtype, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rayleigh_quotient(L, x), x)
    assert torch.autograd.gradgradcheck(lambda x: rayleigh_quotient(L, x), x)
    assert torch.autograd.gradcheck(lambda x: dirichlet_energy(L, x), x)


@pytest.mark.parametrize("x", [torch.zeros(12, 1), torch.zeros(12, 0), torch.stack([torch.ones(12, 1), torch.zeros(12, 1)])])
def test_a_zero_field_is_refused(x):
    with pytest.raises(FieldError, match=r"zero field is undefined \(0/0\): mask the field"):
        rayleigh_quotient(robust_laplacian(icosphere(0)), x.double())


def test_nan_stays_nan_and_an_empty_batch_empty():
    L = robust_laplacian(icosphere(0))
    assert rayleigh_quotient(L, torch.full((12, 1), torch.nan, dtype=torch.float64)).isnan()
    assert rayleigh_quotient(L, torch.zeros(0, 12, 1, dtype=torch.float64)).shape == (0,)


@pytest.mark.parametrize("measure", [dirichlet_energy, rayleigh_quotient])
def test_fields_that_do_not_fit_are_refused(measure):
    with pytest.raises(FieldError, match=r"must have shape \(\.\.\., 12, c\)"):
        measure(robust_laplacian(icosphere(0)), torch.ones(11, 1, dtype=torch.float64))


# Against cancellation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 1.0, 1e4, 1e8])
@given(data=st.data())
def test_energy_is_right_relative_to_itself_whatever_constant_is_added(dtype, offset, data):
    """Weights ≥ 0: every term is positive, so that the error is a few units of each edge's own term."""
    domain = data.draw(st.one_of(graphs(), meshes()))
    L = (combinatorial_laplacian if isinstance(domain, Graph) else robust_laplacian)(domain)
    L = L.to(dtype)
    x = torch.randn(L.shape[0], 1, dtype=dtype) + offset
    expected = float(exact_energy(L.stiffness, x))
    bound = (8 + 2 * L.shape[0]) * roundoff(dtype) * expected
    assert_within(dirichlet_energy(L, x).double(), expected, bound + 1e-35)
    if expected > 0:
        norm = float((L.mass.double()[:, None] * x.double() ** 2).sum())
        assert_within(rayleigh_quotient(L, x).double(), 2 * expected / norm, 4 * bound / norm)


@given(data=st.data())
def test_energy_of_cotangent_weights_of_both_signs_is_right_relative_to_its_terms(data):
    mesh = data.draw(meshes())
    L = cotangent_laplacian(mesh)
    x = torch.randn(mesh.num_nodes, 1, dtype=torch.float64) + 1e8
    terms = sum(abs(Fraction(w)) * (Fraction(float(x[i])) - Fraction(float(x[j]))) ** 2 for i, j, w in sp_upper(L.stiffness))
    expected = float(exact_energy(L.stiffness, x))
    assert_within(dirichlet_energy(L, x), expected, (8 + 2 * mesh.num_nodes) * U * float(terms))


def test_gradient_is_right_relative_to_the_differences():
    L = robust_laplacian(icosphere(2))
    noise = torch.round(torch.randn(162, 2, dtype=torch.float64) * 1024) / 1024
    x = (noise + 1e8).requires_grad_()
    (slope,) = torch.autograd.grad(dirichlet_energy(L, x), x)
    magnitude = torch.from_numpy(abs(L.stiffness.to_scipy()) @ (2 * noise.abs().max().expand(162, 2).numpy()))
    assert_within(slope, L.stiffness(noise), 32 * U * magnitude)


def test_gradient_away_from_one_extreme_value_keeps_its_digits():
    L = robust_laplacian(icosphere(2))
    x = torch.randn(162, 1, dtype=torch.float64)
    x[0] = 1e12
    far = torch.from_numpy((L.stiffness.to_scipy()[[0]].toarray() == 0)[0])
    (slope,) = torch.autograd.grad(dirichlet_energy(L, x.requires_grad_()), x)
    assert_within(slope[far], L.stiffness(x.detach())[far], 64 * U * L.norm_bound())


def test_a_widened_float32_laplacian_still_kills_constants():
    L = robust_laplacian(icosphere(2)).to(torch.float32)
    x = torch.randn(162, 1, dtype=torch.float64) + 1e8
    centred = dirichlet_energy(L.to_wide(x), x - 1e8)
    torch.testing.assert_close(dirichlet_energy(L.to_wide(x), x), centred, rtol=1e-6, atol=0)


def test_energy_of_a_constant_is_exactly_zero():
    for L in (cotangent_laplacian(torus(8, 6)), robust_laplacian(torus(8, 6)).to(torch.float32)):
        assert dirichlet_energy(L, torch.full((48, 2), 1e8 / 3, dtype=L.dtype)) == 0
        assert rayleigh_quotient(L, torch.full((48, 2), 1e30 / 3, dtype=L.dtype)) == 0


@pytest.mark.parametrize(("scale", "finite"), [(1e150, True), (1e152, True), (1e160, False), (1e300, False)])
@pytest.mark.parametrize("build", [robust_laplacian, cotangent_laplacian, lambda mesh: robust_laplacian(mesh).symmetrized()])
def test_energy_of_a_huge_field_is_right_or_infinite_and_that_of_a_constant_zero(build, scale, finite):
    L = build(torus(5, 4, 1.0, 0.1))
    x = torch.randn(20, 2, dtype=torch.float64)
    energy = dirichlet_energy(L, scale * x)
    if finite:
        torch.testing.assert_close(energy / scale / scale, dirichlet_energy(L, x), rtol=1e-12, atol=0)
    else:
        assert energy == torch.inf
        norm = mass_weighted_norm(L.mass, scale * x)
        torch.testing.assert_close(norm / scale, mass_weighted_norm(L.mass, x), rtol=1e-12, atol=0)
    if L.kills_constants:
        assert dirichlet_energy(L, torch.full((20, 1), scale, dtype=torch.float64)) == 0


# Any Hermitian stiffness ----------------------------------------------------------------------------------------------


@dtypes
@odd
def test_energy_of_other_hermitian_matrices_is_the_quadratic_form(build, dtype):
    L = build()
    x = torch.randn(L.shape[0], 2, dtype=dtype)
    size = torch.from_numpy(abs(L.stiffness.to_scipy()).toarray())
    bound = 16 * U * (x.abs() * (size @ x.abs())).sum()
    energy = dirichlet_energy(L, x)
    assert energy.dtype == torch.float64
    assert_within(energy, form_energy(L, x), bound)
    norm = float((L.mass[:, None] * x.abs() ** 2).sum())
    assert_within(rayleigh_quotient(L, x), 2 * form_energy(L, x) / norm, 4 * bound / norm)
    assert torch.autograd.gradcheck(lambda x: dirichlet_energy(L, x), x.requires_grad_())
    assert torch.autograd.gradgradcheck(lambda x: rayleigh_quotient(L, x), x)


def test_the_kernel_of_a_signed_and_of_a_flat_magnetic_matrix_has_no_energy_at_any_size():
    flip = torch.tensor([[1.0], [-1.0], [1.0]], dtype=torch.float64) * 1e8
    assert dirichlet_energy(ODD["signed"](), flip) == 0
    n = 6
    i = torch.arange(n - 1)
    value = -torch.exp(1j * 0.7 * torch.ones(n - 1, dtype=torch.float64))
    diagonal = torch.full((n,), 2.0, dtype=torch.complex128)
    diagonal[0] = diagonal[-1] = 1
    nodes = torch.arange(n)
    ends = torch.cat([i, i + 1, nodes]), torch.cat([i + 1, i, nodes])
    C = SparseOperator.from_entries(*ends, torch.cat([value, value.conj().resolve_conj(), diagonal]), (n, n))
    path = Laplacian(C, torch.ones(n, dtype=torch.float64))
    x = 1e8 * torch.exp(-1j * 0.7 * nodes.double())[:, None]
    # The field itself is rounded, by u of its size, before it is squared.
    assert float(dirichlet_energy(path, x)) <= n * (8 * U * 1e8) ** 2


@given(data=st.data())
def test_edge_form_is_the_matrix(data):
    L = data.draw(LAPLACIANS)
    form = edge_form(L.stiffness)
    B = form.incidence.matrix()
    matrix = B.T @ torch.diag(form.weights) @ B
    if form.surplus is not None:
        matrix = matrix + torch.diag(form.surplus)
    size = torch.from_numpy(abs(L.stiffness.to_scipy()).toarray())
    assert_within(matrix, L.stiffness.matrix(), 8 * len(B.T) * U * size.sum(1, keepdim=True))


# Channels, batches, weights -------------------------------------------------------------------------------------------


@dtypes
@given(data=st.data())
def test_channels_and_samples_are_measured_each_alone(dtype, data):
    L = data.draw(LAPLACIANS)
    x = torch.randn(2, L.shape[0], 3, dtype=dtype)
    for measure in (dirichlet_energy, rayleigh_quotient, lambda L, x, **how: mass_weighted_norm(L.mass, x, **how)):
        alone = torch.stack([torch.stack([measure(L, x[b, :, k : k + 1]) for k in range(3)]) for b in range(2)])
        torch.testing.assert_close(measure(L, x, per_channel=True), alone, rtol=1e-12, atol=1e-13 * float(L.norm_bound() + 1))
        joint = torch.stack([measure(L, member) for member in x])
        torch.testing.assert_close(measure(L, x), joint, rtol=1e-12, atol=1e-13 * float(L.norm_bound() + 1))
    energies = dirichlet_energy(L, x, per_channel=True)
    torch.testing.assert_close(energies.sum(-1), dirichlet_energy(L, x))


def test_plain_quotient_leaves_the_mass_out():
    L = robust_laplacian(icosphere(1))
    x = torch.randn(2, 42, 3, dtype=torch.float64)
    unit = Laplacian(L.stiffness, torch.ones(42, dtype=torch.float64))
    torch.testing.assert_close(rayleigh_quotient(L, x, plain=True), rayleigh_quotient(unit, x), rtol=1e-13, atol=0)


def test_a_zero_channel_is_refused_and_a_norm_of_zero_has_a_derivative():
    L = robust_laplacian(icosphere(0))
    x = torch.zeros(12, 2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(FieldError, match=r"zero channel is undefined \(0/0\)"):
        rayleigh_quotient(L, x.detach() + torch.tensor([0.0, 1.0]), per_channel=True)
    for measure in (lambda x: mass_weighted_norm(L.mass, x), lambda x: dirichlet_energy(L, x)):
        assert measure(x) == 0
        assert torch.equal(torch.autograd.grad(measure(x), x)[0], torch.zeros(12, 2, dtype=torch.float64))


# Learned values and the cache -----------------------------------------------------------------------------------------


@odd
def test_derivatives_in_the_stiffness(build):
    """Along Hermitian matrices, by their upper triangle and diagonal."""
    L = build()
    pattern = L.stiffness.pattern
    upper = (pattern.row <= pattern.col).nonzero().squeeze(1)
    partner = {pair: k for k, pair in enumerate(zip(pattern.row.tolist(), pattern.col.tolist(), strict=True))}
    mirror = torch.tensor([partner[int(pattern.col[k]), int(pattern.row[k])] for k in upper])
    beside = pattern.row[upper] != pattern.col[upper]
    x = torch.randn(2, L.shape[0], 2, dtype=torch.float64)

    def energies(half):
        values = torch.zeros_like(L.stiffness.values).index_add(0, upper, half)
        values = values.index_add(0, mirror[beside], half[beside].conj())
        learned = Laplacian(SparseOperator(pattern, values), L.mass)
        return dirichlet_energy(learned, x), rayleigh_quotient(learned, x, per_channel=True)

    half = L.stiffness.values[upper].clone()
    if not half.is_complex():
        assert torch.autograd.gradcheck(energies, half.requires_grad_())
        return
    step, direction = 1e-6, torch.where(beside, torch.randn(len(half), dtype=half.dtype), torch.randn(len(half)) + 0j)
    (slope,) = torch.autograd.grad(energies(half.requires_grad_())[0].sum(), half)
    above, below = (energies((half + sign * step * direction).detach())[0].sum() for sign in (1, -1))
    expected = (above - below) / (2 * step)
    torch.testing.assert_close((slope.conj() * direction).real.sum(), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("build", [lambda: robust_laplacian(icosphere(0)).stiffness, signed, hermitian])
def test_a_batch_of_learned_matrices_has_an_energy_each(build):
    C, factors = build(), torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    mass, many = torch.ones(C.shape[0], dtype=torch.float64), SparseOperator(C.pattern, factors * C.values)
    L, batch = Laplacian(C, mass), Laplacian(many, mass)
    x = torch.randn(C.shape[0], 3, dtype=torch.float64)
    torch.testing.assert_close(dirichlet_energy(batch, x), factors[:, 0] * dirichlet_energy(L, x))


def test_changed_and_moved_values_are_noticed():
    L = robust_laplacian(icosphere(1))
    x = torch.randn(42, 2, dtype=torch.float64)
    energy = dirichlet_energy(L, x)
    L.stiffness.values.mul_(2)
    torch.testing.assert_close(dirichlet_energy(L, x), 2 * energy, rtol=1e-14, atol=0)
    narrow = deepcopy(L).to(torch.float32)
    assert dirichlet_energy(narrow, x.float()).dtype == torch.float32
    L.to(torch.float32)
    torch.testing.assert_close(dirichlet_energy(L, x.float()), 2 * energy.float(), rtol=1e-5, atol=0)


def test_nothing_of_the_cache_is_saved_and_it_goes_with_the_laplacian():
    L = robust_laplacian(icosphere(1))
    x = torch.randn(42, 2, dtype=torch.float64)
    before = len(pickle.dumps(L))
    energy = dirichlet_energy(L, x)
    assert len(pickle.dumps(L)) == before
    assert L.state_dict() == {}
    for copy in (deepcopy(L), pickle.loads(pickle.dumps(L))):
        assert torch.equal(dirichlet_energy(copy, x), energy)
    form = weakref.ref(edge_form(L.stiffness))
    assert edge_form(L.stiffness) is form()
    del L
    gc.collect()
    assert form() is None


def test_transforms_and_inference_mode():
    x = torch.randn(3, 12, 2, dtype=torch.float64)
    L = robust_laplacian(icosphere(0))
    with torch.inference_mode():
        dirichlet_energy(L, x)
    slopes = torch.func.vmap(torch.func.grad(lambda x: dirichlet_energy(L, x)))(x)
    assert_within(slopes, L.stiffness(x), 64 * U * L.norm_bound())
    fresh = robust_laplacian(icosphere(0))
    assert torch.equal(torch.func.grad(lambda x: dirichlet_energy(fresh, x))(x[0]), slopes[0])
    assert torch.equal(dirichlet_energy(fresh, x), dirichlet_energy(L, x))
    _, change = torch.func.jvp(lambda x: dirichlet_energy(L, x), (x,), (torch.ones_like(x) * x,))
    torch.testing.assert_close(change, 2 * dirichlet_energy(L, x))


def test_transforms_in_the_values():
    L = robust_laplacian(icosphere(0))
    x = torch.randn(12, 2, dtype=torch.float64)

    def energy(factor):
        return dirichlet_energy(Laplacian(SparseOperator(L.stiffness.pattern, factor * L.stiffness.values), L.mass), x)

    one, expected = torch.ones((), dtype=torch.float64), dirichlet_energy(L, x)
    torch.testing.assert_close(torch.func.grad(energy)(one), expected)
    torch.testing.assert_close(torch.func.jvp(energy, (one,), (one,))[1], expected)
    with torch.autograd.forward_ad.dual_level():
        dual = energy(torch.autograd.forward_ad.make_dual(one, one))
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(dual).tangent, expected)


def test_energy_in_blocks_is_the_energy(monkeypatch):
    L = cotangent_laplacian(torus(8, 6))
    x = torch.randn(2, 48, 3, dtype=torch.float64)
    whole = dirichlet_energy(L, x)
    monkeypatch.setattr("operators.rayleigh.BLOCK", 100)
    torch.testing.assert_close(dirichlet_energy(L, x), whole, rtol=1e-14, atol=0)


def test_energy_and_quotient_on_every_real_mesh(real_mesh):
    noise = torch.randn(real_mesh.num_nodes, 2, dtype=torch.float64)
    x = noise + 1e8
    for build in (cotangent_laplacian, robust_laplacian):
        L = build(real_mesh)
        coo = L.stiffness.to_scipy().tocoo()
        upper = coo.row < coo.col
        difference = x.numpy()[coo.row[upper]].astype(np.longdouble) - x.numpy()[coo.col[upper]]
        terms = -coo.data[upper, None].astype(np.longdouble) * difference**2
        magnitude = float(abs(terms).sum())
        bound = 64 * U * magnitude
        assert_within(dirichlet_energy(L, x), float(terms.sum() / 2), bound)
        norm = float(L.inner(x, x))
        assert_within(rayleigh_quotient(L, x), float(terms.sum()) / norm, 4 * bound / norm)
        assert torch.equal(rayleigh_quotient(L, x * 2.0**40), rayleigh_quotient(L, x))
