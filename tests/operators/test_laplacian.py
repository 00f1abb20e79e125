"""Every Laplacian is symmetric, positive semi-definite, kills constants, and agrees with independent references."""

import math
import pickle
import warnings
from copy import deepcopy

import numpy as np
import potpourri3d
import pytest
import scipy.sparse as sp
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
    adjacency_of,
    combinatorial_laplacian,
    cotangent_laplacian,
    icosphere,
    normalized_adjacency,
    normalized_laplacian,
    random_walk_laplacian,
    robust_laplacian,
    symmetric_laplacian,
    torus,
)
from operators.magnetic import magnetic_laplacian
from operators.pattern import SparsityPattern

ON_GRAPHS = [combinatorial_laplacian, symmetric_laplacian, random_walk_laplacian]
ON_MESHES = [cotangent_laplacian, robust_laplacian]
U = roundoff(torch.float64)
on_graphs = pytest.mark.parametrize("build", ON_GRAPHS)
on_meshes = pytest.mark.parametrize("build", ON_MESHES)
DOMAINS = [(build, graphs()) for build in ON_GRAPHS] + [(build, meshes()) for build in ON_MESHES]
everywhere = pytest.mark.parametrize(("build", "domains"), DOMAINS, ids=[build.__name__ for build, _ in DOMAINS])


def dense(operator):
    """The entries as stored, without a product."""
    return torch.from_numpy(operator.to_scipy().toarray())


def size(operator):
    """|A|, entrywise."""
    return abs(operator.to_scipy())


def adjacency_matrix(graph):
    """The dense W of a graph, self-loops left out, repeated edges summed, by NumPy."""
    W = np.zeros((graph.nodes, graph.nodes))
    np.add.at(W, tuple(graph.edge_index.numpy()[::-1]), graph.edge_weight.double().numpy())
    np.fill_diagonal(W, 0)
    return W


# Laws of every Laplacian, besides those of tests/test_operator_laws.py ------------------------------------------------


@pytest.mark.parametrize("build", ON_MESHES)
@given(mesh=meshes())
def test_symmetrized_is_symmetric_to_the_last_bit_with_the_same_spectrum(build, mesh):
    L = build(mesh)
    S = dense(L.symmetrized().stiffness)
    assert torch.equal(S, S.T)
    root = L.mass.sqrt()
    eigenvalues = torch.linalg.eigvalsh(dense(L.stiffness) / root[:, None] / root)
    assert_within(torch.linalg.eigvalsh(S), eigenvalues, 32 * len(S) * U * L.norm_bound())


@everywhere
@given(data=st.data())
def test_spectrum_is_not_negative_and_below_the_norm_bound(build, domains, data):
    L = build(data.draw(domains))
    eigenvalues = torch.linalg.eigvalsh(dense(L.symmetrized().stiffness))
    slack = 8 * len(eigenvalues) * U * L.norm_bound()
    assert eigenvalues[0] >= -slack
    assert eigenvalues[-1] <= L.norm_bound() + slack


@everywhere
@given(data=st.data())
def test_kernel_is_the_constants_of_each_component(build, domains, data):
    """Of the symmetric normalisation, √degree instead."""
    domain = data.draw(domains)
    L = build(domain)
    scale = size(L.stiffness)
    _, component = sp.csgraph.connected_components(L.stiffness.to_scipy())
    kernel = torch.ones(L.shape[0], dtype=torch.float64)
    if build is symmetric_laplacian:
        degree = adjacency_matrix(domain).sum(1)
        kernel = torch.from_numpy(np.sqrt(np.where(degree > 0, degree, 1)))
    for label in range(component.max() + 1):
        x = (kernel * torch.from_numpy(component == label))[:, None]
        magnitude = torch.from_numpy(scale @ x.numpy()) / L.mass[:, None]
        assert_within(L @ x, 0.0, 8 * U * (2 + math.log2(L.shape[0])) * magnitude)


@on_graphs
@given(graph=graphs())
def test_isolated_node_has_a_zero_row_and_a_positive_mass(build, graph):
    L = build(graph)
    alone = adjacency_matrix(graph).sum(1) == 0
    assert (dense(L.stiffness)[alone] == 0).all()
    assert (L.mass > 0).all()


@everywhere
@given(data=st.data())
def test_self_adjoint_in_its_inner_product(build, domains, data):
    L = build(data.draw(domains))
    x = data.draw(fields(L.shape[0], 2, dtype=torch.complex128))
    y = data.draw(fields(L.shape[0], 2, dtype=torch.complex128))
    magnitude = (y.abs() * torch.from_numpy(size(L.stiffness) @ x.abs().numpy())).sum()
    assert L.adjoint() is L
    assert_within(L.inner(y, L @ x), L.inner(L @ y, x), 32 * U * magnitude)


@pytest.mark.parametrize(("build", "domains"), [DOMAINS[0], DOMAINS[2], DOMAINS[3]])
@given(data=st.data())
def test_quadratic_form_is_the_weighted_sum_of_squared_differences(build, domains, data):
    domain = data.draw(domains)
    L, x = build(domain), data.draw(fields(domain.num_nodes, 1))
    if isinstance(domain, Graph):
        W = adjacency_matrix(domain)
    else:
        W = -potpourri3d.cotan_laplacian(*domain.arrays, 0.0).toarray()
        np.fill_diagonal(W, 0)
    difference = x.numpy() - x.numpy().T
    expected = (W * difference**2).sum() / 2
    magnitude = float((x.abs().T @ torch.from_numpy(size(L.stiffness) @ x.abs().numpy())).sum())
    amplified = 1.0 if isinstance(domain, Graph) else 4 * aspect(domain)
    assert_within(L.inner(x, L @ x), float(expected), 32 * U * amplified * magnitude)


# Laws of graphs -------------------------------------------------------------------------------------------------------


@given(graph=graphs())
def test_combinatorial_agrees_with_scipy(graph):
    expected = torch.from_numpy(sp.csgraph.laplacian(adjacency_matrix(graph)))
    assert_within(combinatorial_laplacian(graph).matrix(), expected, 32 * U * expected.abs().sum(1, keepdim=True))


@given(graph=graphs(weights=["ones", "dyadic"]))
def test_combinatorial_is_exact_on_dyadic_weights(graph):
    expected = torch.from_numpy(sp.csgraph.laplacian(adjacency_matrix(graph)))
    assert torch.equal(combinatorial_laplacian(graph).matrix(), expected)


@given(graph=graphs())
def test_symmetric_agrees_with_scipy_and_its_spectrum_lies_in_0_2(graph):
    W = adjacency_matrix(graph)
    L = symmetric_laplacian(graph).matrix()
    assert_within(L, torch.from_numpy(sp.csgraph.laplacian(W, normed=True)), 32 * U)
    eigenvalues = torch.linalg.eigvalsh(L)
    assert eigenvalues.max() <= 2 + 32 * len(L) * U


@given(graph=graphs())
def test_random_walk_is_identity_minus_the_transition_matrix(graph):
    W = adjacency_matrix(graph)
    degree = W.sum(1)
    transition = W / np.where(degree > 0, degree, 1)[:, None]
    assert_within(
        random_walk_laplacian(graph).matrix(),
        torch.from_numpy(np.diag((degree > 0).astype(float)) - transition),
        32 * U,
    )


def test_spectrum_of_a_cycle_is_its_closed_form():
    n = 12
    ring = torch.stack([torch.arange(n), (torch.arange(n) + 1) % n])
    graph = Graph(torch.cat([ring, ring.flip(0)], 1), n, torch.ones(2 * n, dtype=torch.float64))
    expected = sorted(2 - 2 * math.cos(2 * math.pi * k / n) for k in range(n))
    eigenvalues = torch.linalg.eigvalsh(combinatorial_laplacian(graph).matrix())
    assert_within(eigenvalues, torch.tensor(expected, dtype=torch.float64), 8 * n * U * 4)


@on_graphs
def test_even_cycle_reaches_two_in_the_normalized_spectrum(build):
    square = Graph(torch.tensor([[0, 1, 2, 3, 1, 2, 3, 0], [1, 2, 3, 0, 0, 1, 2, 3]]), 4, torch.ones(8, dtype=torch.float64))
    expected = 4.0 if build is combinatorial_laplacian else 2.0
    assert build(square).largest_eigenvalue() == pytest.approx(expected, rel=1e-12)


@on_graphs
def test_directed_graph_is_refused_with_its_cure(build):
    with pytest.raises(DomainError, match=r"directed.*graph\.undirected\(\)"):
        build(Graph(torch.tensor([[0], [1]]), 2))


@on_graphs
def test_unequal_weights_in_the_two_directions_are_a_directed_graph(build):
    with pytest.raises(DomainError, match=r"directed.*graph\.undirected\(\)"):
        build(Graph(torch.tensor([[0, 1], [1, 0]]), 2, torch.tensor([1.0, 2.0])))


@on_graphs
def test_negative_weight_is_refused_with_its_cure(build):
    with pytest.raises(DomainError, match=r"2 edges have negative weight.*drop the edges or take the absolute values"):
        build(Graph(torch.tensor([[0, 1], [1, 0]]), 2, torch.tensor([-1.0, -1.0])))


@on_graphs
@given(data=st.data())
def test_undirected_cures_every_directed_graph(build, data):
    graph = data.draw(graphs())
    keep = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=graph.edge_index.shape[1], max_size=graph.edge_index.shape[1]))
    )
    half = Graph(graph.edge_index[:, keep.bool()], graph.nodes, graph.edge_weight[keep.bool()])
    assert build(half.undirected()).shape == (graph.nodes, graph.nodes)


# The object -----------------------------------------------------------------------------------------------------------


@everywhere
@given(data=st.data())
def test_a_copy_a_pickle_and_a_float32_copy_give_the_same_result(build, domains, data):
    L = build(data.draw(domains))
    x = data.draw(fields(L.shape[0], 2))
    # A shift far beyond 1/λ is singular to round-off on a sliver.
    shift = 0.5 / max(L.norm_bound(), 1.0)
    L.solve(shift, x)
    for copy in (deepcopy(L), pickle.loads(pickle.dumps(L))):
        assert torch.equal(copy @ x, L @ x)
        assert torch.equal(copy.solve(shift, x), L.solve(shift, x))
    narrow = deepcopy(L).to(torch.float32)
    assert torch.equal(narrow.stiffness.values, L.stiffness.values.float())
    assert (narrow @ x.float()).dtype == torch.float32


def test_nothing_of_the_domain_is_saved_in_a_checkpoint():
    assert robust_laplacian(icosphere(1)).state_dict() == {}


@on_meshes
def test_on_builds_the_same_kind_on_another_surface_in_this_precision(build):
    L = build(icosphere(1)).to(torch.float32)
    moved = L.on(torus(8, 6))
    assert moved.dtype == torch.float32
    assert torch.equal(moved.stiffness.values, build(torus(8, 6)).stiffness.values.float())
    for derived in (L.symmetrized(), normalized_laplacian(robust_laplacian(icosphere(1)))):
        assert derived.on(torus(8, 6)).shape == (48, 48)
        assert (derived.on(torus(8, 6)).mass == 1).all()
    assert L.complement().on(torus(8, 6)).shape == (48, 48)


def test_on_without_a_recipe_says_what_to_build_instead():
    L = combinatorial_laplacian(Graph(torch.tensor([[0, 1], [1, 0]]), 2))
    with pytest.raises(NotImplementedError, match=r"built from tensors.*robust_laplacian\(mesh\)"):
        Laplacian(L.stiffness, L.mass).on(icosphere(0))


@given(data=st.data())
def test_complement_is_identity_minus_laplacian(data):
    L = symmetric_laplacian(data.draw(graphs()))
    A = L.complement()
    n = L.shape[0]
    assert_within(A.matrix() + L.matrix(), torch.eye(n), 4 * U)
    assert torch.linalg.matrix_norm(A.matrix(), 2) <= A.norm_bound() + 32 * n * U
    assert A.adjoint() is A


@given(data=st.data())
def test_normalized_laplacian_and_adjacency_add_up_to_the_identity_where_there_are_neighbours(data):
    L = combinatorial_laplacian(data.draw(graphs()))
    degree = adjacency_of(L).row_sums()
    total = normalized_laplacian(L).matrix() + normalized_adjacency(L).matrix()
    assert_within(total, torch.diag((degree > 0).double()), 8 * U)
    values = torch.linalg.eigvalsh(normalized_adjacency(L).matrix())
    assert values.abs().max() <= 1 + 32 * len(values) * U


@given(mesh=meshes())
def test_normalized_laplacian_forgets_the_unit_of_length(mesh):
    there, here = robust_laplacian(mesh), robust_laplacian(TriangleMesh(mesh.vertices * 4, mesh.faces))
    assert torch.equal(normalized_laplacian(there).matrix(), normalized_laplacian(here).matrix())


def test_negative_cotangent_weights_are_refused_with_their_cure():
    obtuse = TriangleMesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0.5, 0.1, 0]], dtype=torch.float64), torch.tensor([[0, 1, 2]]))
    with pytest.raises(DomainError, match=r"negative \(obtuse triangles.*use robust_laplacian\(mesh\)"):
        adjacency_of(cotangent_laplacian(obtuse))


@pytest.mark.parametrize("n", [20, 162])
def test_largest_eigenvalue_agrees_with_the_dense_spectrum(n):
    L = robust_laplacian(icosphere(2) if n == 162 else torus(5, 4))
    assert L.shape[0] == n
    expected = torch.linalg.eigvalsh(L.symmetrized().matrix())[-1]
    assert L.largest_eigenvalue() == pytest.approx(float(expected), rel=1e-5)
    assert robust_laplacian(icosphere(2) if n == 162 else torus(5, 4)).largest_eigenvalue() == L.largest_eigenvalue()


def test_kills_constants_tells_the_symmetrized_from_the_plain():
    L = robust_laplacian(torus(8, 6))
    assert L.kills_constants
    assert not L.symmetrized().kills_constants


def test_to_wide_is_the_laplacian_itself_or_a_kept_float64_copy():
    L = robust_laplacian(icosphere(1)).to(torch.float32)
    x = torch.ones(42, 1)
    assert L.to_wide(x) is L
    wide = L.to_wide(x.double())
    assert wide.dtype == torch.float64
    assert L.to_wide(x.double()) is wide
    assert torch.equal(wide.mass, L.mass.double())


@pytest.mark.parametrize("mass", [[1.0, 0.0], [1.0, -1.0], [1.0, math.nan], [1.0, math.inf]])
def test_mass_must_be_positive_and_finite(mass):
    C = combinatorial_laplacian(Graph(torch.tensor([[0, 1], [1, 0]]), 2)).stiffness
    with pytest.raises(DomainError, match="positive and finite: clean the mesh"):
        Laplacian(C, torch.tensor(mass))


def test_shapes_of_stiffness_and_mass_must_agree():
    C = combinatorial_laplacian(Graph(torch.tensor([[0, 1], [1, 0]]), 2)).stiffness
    with pytest.raises(DomainError, match=r"must be \(n, n\) and \(n,\)"):
        Laplacian(C, torch.ones(3))


@pytest.mark.parametrize("method", ["__matmul__", "solve"])
def test_a_field_that_does_not_fit_is_refused_before_any_product(method):
    L = robust_laplacian(icosphere(0))
    call = (lambda x: L @ x) if method == "__matmul__" else (lambda x: L.solve(1.0, x))
    with pytest.raises(FieldError, match=r"shape \(\.\.\., 12, c\).*x\[\.\.\., None\]"):
        call(torch.ones(12, dtype=torch.float64))
    with pytest.raises(FieldError, match=r"float32 but the operator torch\.float64.*operator\.to\(x\.dtype\)"):
        call(torch.ones(12, 1))
    with pytest.raises(FieldError, match=r"on meta but the operator on cpu.*\.to\(device\)"):
        call(torch.ones(12, 1, dtype=torch.float64, device="meta"))


# Complex Hermitian and learned stiffness ------------------------------------------------------------------------------


def gauged(L):
    """Φ L Φᴴ with unit phases: complex Hermitian, with the spectrum of L."""
    phase = torch.exp(1j * torch.arange(L.shape[0], dtype=torch.float64))
    return Laplacian(L.stiffness.scaled(phase, phase.conj()), L.mass)


@everywhere
@settings(max_examples=10)
@given(data=st.data())
def test_a_hermitian_laplacian_obeys_the_laws_of_a_real_one(build, domains, data):
    L = build(data.draw(domains))
    H = gauged(L)
    n = L.shape[0]
    assert H.dtype == torch.complex128
    assert H.norm_bound() == pytest.approx(L.norm_bound(), rel=32 * U * n)
    assert H.largest_eigenvalue() == pytest.approx(L.largest_eigenvalue(), rel=1e-5, abs=32 * n * U * L.norm_bound())
    S = dense(H.symmetrized().stiffness)
    assert_within(S, S.conj().T, 8 * U * L.norm_bound())
    assert_within(H.diagonal(), L.diagonal(), 32 * U * L.diagonal())
    x = data.draw(fields(n, 2))
    bound = 32 * U * torch.from_numpy(size(L.stiffness) @ x.abs().numpy()) / L.mass[:, None]
    phase = torch.exp(1j * torch.arange(n, dtype=torch.float64))[:, None]
    assert (H @ x).dtype == torch.complex128
    assert_within(H @ (phase * x), phase * (L @ x), bound)


def test_precision_of_a_hermitian_laplacian_changes_without_losing_the_imaginary_part():
    H = gauged(robust_laplacian(icosphere(0)))
    narrow = deepcopy(H).to(torch.float32)
    assert narrow.stiffness.values.dtype == torch.complex64
    assert narrow.mass.dtype == torch.float32
    assert torch.equal(narrow.stiffness.values, H.stiffness.values.to(torch.complex64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls complex modules a new feature
        assert deepcopy(H).to(torch.complex64).mass.dtype == torch.float32
    assert narrow.to_wide(torch.ones(12, 1, dtype=torch.complex128)).stiffness.values.dtype == torch.complex128
    assert narrow.solve(0.5, torch.ones(12, 1)).dtype == torch.complex64


def test_mass_must_be_real():
    C = combinatorial_laplacian(Graph(torch.tensor([[0, 1], [1, 0]]), 2)).stiffness
    with pytest.raises(DomainError, match="every mass must be real, positive and finite"):
        Laplacian(C, torch.ones(2, dtype=torch.complex64))


def test_nothing_on_the_way_from_values_and_mass_is_detached():
    L = robust_laplacian(icosphere(0)).to(torch.float32)
    values, mass = L.stiffness.values.clone().requires_grad_(), L.mass.clone().requires_grad_()
    x = torch.randn(12, 1)

    def built():
        # Not leaves, as an assembly from vertices gives them.
        return Laplacian(SparseOperator(L.stiffness.pattern, 1 * values), 1 * mass)

    uses = {
        "product": lambda L: L @ x,
        "inner": lambda L: L.inner(x, L @ x),
        "diagonal": lambda L: L.diagonal(),
        "symmetrized": lambda L: L.symmetrized() @ x,
        "to": lambda L: L.to(torch.float64) @ x.double(),
        "to_wide": lambda L: L.to_wide(x.double()) @ x.double(),
        "solve": lambda L: L.solve(0.5, x),
        "complement": lambda L: L.complement() @ x,
    }
    for name, use in uses.items():
        gradients = torch.autograd.grad(use(built()).square().sum(), (values, mass))
        assert all(bool((g != 0).any()) for g in gradients), name


def test_what_is_kept_of_the_values_is_renewed_when_they_change():
    L = robust_laplacian(icosphere(0)).to(torch.float32)
    x = torch.ones(12, 1, dtype=torch.float64)
    bound, wide = L.norm_bound(), L.to_wide(x)
    L.stiffness.values.mul_(2)
    assert L.norm_bound() == pytest.approx(2 * bound)
    assert torch.equal(L.to_wide(x).stiffness.values, 2 * wide.stiffness.values)
    L.mass.mul_(4)
    assert L.norm_bound() == pytest.approx(bound / 2)


@everywhere
@settings(max_examples=10)
@given(data=st.data())
def test_diagonal_is_that_of_the_matrix(build, domains, data):
    L = build(data.draw(domains))
    assert_within(L.diagonal(), L.matrix().diagonal(), 8 * U * L.diagonal().abs())


@pytest.mark.parametrize("write", [lambda v: v.data.mul_(2), lambda v: np.multiply(v.numpy(), 2, out=v.numpy())])
def test_what_is_kept_sees_writes_that_no_version_counts(write):
    L = cotangent_laplacian(icosphere(1)).to(torch.float32)
    bound, wide = L.norm_bound(), L.to_wide(torch.ones(1, dtype=torch.float64)).matrix()
    write(L.stiffness.values)
    assert L.norm_bound() == 2 * bound
    assert torch.equal(L.to_wide(torch.ones(1, dtype=torch.float64)).matrix(), 2 * wide)


def test_what_is_kept_in_inference_mode_still_serves_gradients():
    L = cotangent_laplacian(icosphere(1)).to(torch.float32)
    x = torch.randn(42, 1, dtype=torch.float64, requires_grad=True)
    with torch.inference_mode():
        L.to_wide(x)
        L.norm_bound()
        L.solve(0.1, x.detach().float())
    L.to_wide(x)(x).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    L.solve(0.1, x.float()).sum().backward()


def test_adjacency_passes_gradients_and_refuses_complex_weights_and_batches():
    w = torch.rand(2, dtype=torch.float64, requires_grad=True)
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])

    def adjacency(w):
        return adjacency_of(combinatorial_laplacian(Graph(edges, 3, w.repeat_interleave(2)))).values

    assert torch.autograd.gradcheck(adjacency, w)
    with pytest.raises(DomainError, match="complex"):
        adjacency_of(magnetic_laplacian(Graph(edges, 3)))
    L = combinatorial_laplacian(Graph(edges, 3))
    batch = Laplacian(SparseOperator(L.stiffness.pattern, L.stiffness.values.expand(2, -1)), L.mass)
    with pytest.raises(DomainError, match="batch"):
        adjacency_of(batch)


def test_a_laplacian_of_no_nodes_has_norm_zero():
    """As that of the triangles of a graph without triangles, `graph_hodge_laplacian(tree, 2)`."""
    pattern = SparsityPattern(*torch.zeros(2, 0, dtype=torch.int64), (0, 0))
    L = Laplacian(SparseOperator(pattern, torch.zeros(0)), torch.zeros(0))
    assert L.norm_bound() == L.largest_eigenvalue() == 0
