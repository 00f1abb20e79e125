"""A magnetic Laplacian is Hermitian and positive semi-definite; only the flux through cycles moves its spectrum."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import assert_within, fields, graphs, roundoff
from operators.checks import DomainError
from operators.domains import Graph
from operators.laplacian import combinatorial_laplacian
from operators.magnetic import magnetic_laplacian, normalized_magnetic_laplacian

U = roundoff(torch.float64)
CHARGES = st.sampled_from([0.25, 0.0, 0.1, 1 / 3, -0.5, 2.7])
builds = pytest.mark.parametrize("build", [magnetic_laplacian, normalized_magnetic_laplacian])


@st.composite
def digraphs(draw, **kwargs):
    """Directed graphs: edges of a drawn graph, some in one direction only."""
    graph = draw(graphs(**kwargs))
    count = graph.edge_index.shape[1]
    keep = torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=torch.bool)
    return Graph(graph.edge_index[:, keep], graph.nodes, graph.edge_weight[keep])


def cycle(n):
    nodes = torch.arange(n)
    return Graph(torch.stack([nodes, (nodes + 1) % n]), n, torch.ones(n, dtype=torch.float64))


def reference(graph, charge):
    """D_s − W_s ⊙ exp(iΘ), dense, by NumPy."""
    A = np.zeros((graph.nodes, graph.nodes))
    np.add.at(A, tuple(graph.edge_index.numpy()), graph.edge_weight.numpy())
    np.fill_diagonal(A, 0)
    share = (A + A.T) / 2
    phase = 2 * np.pi * charge * (A - A.T)
    return np.diag(share.sum(1)) - share * np.exp(1j * phase), share, phase


def spectrum(laplacian):
    return torch.linalg.eigvalsh(torch.from_numpy(laplacian.stiffness.to_scipy().toarray()))


@given(graph=digraphs(), charge=CHARGES)
def test_agrees_with_the_dense_formula(graph, charge):
    L = magnetic_laplacian(graph, charge)
    expected, share, phase = reference(graph, charge)
    # Repeated edges may be summed in another order; the phase multiplies that rounding by 2πq w.
    amplified = 1 + torch.from_numpy(np.abs(phase)).max()
    assert_within(L.matrix(), torch.from_numpy(expected), 8 * U * amplified * (share.sum() + 1))


@builds
@given(graph=digraphs(), charge=CHARGES)
def test_is_hermitian_to_the_last_bit_and_positive_semi_definite(build, graph, charge):
    L = build(graph, charge)
    C = L.stiffness.to_scipy()
    assert (C != C.conj().T).nnz == 0
    values = spectrum(L)
    assert values[0] >= -8 * len(values) * U * (1 + values[-1])


@given(data=st.data(), charge=CHARGES)
def test_quadratic_form_is_the_weighted_sum_of_squared_transported_differences(data, charge):
    graph = data.draw(digraphs(weights=["ones", "dyadic"]))
    x = data.draw(fields(graph.nodes, 1, dtype=torch.complex128))
    L = magnetic_laplacian(graph, charge)
    _, share, phase = reference(graph, charge)
    z = x.numpy()[:, 0]
    expected = (share * np.abs(z[:, None] - np.exp(1j * phase) * z[None, :]) ** 2).sum() / 2
    magnitude = (share * (np.abs(z)[:, None] + np.abs(z)) ** 2).sum()
    assert_within(L.inner(x, L @ x).real, float(expected), 32 * U * (1 + np.abs(phase).max()) * magnitude)


@given(graph=digraphs())
def test_charge_zero_forgets_direction(graph):
    expected = combinatorial_laplacian(graph.undirected()).matrix()
    assert_within(magnetic_laplacian(graph, 0).matrix(), expected.to(torch.complex128), 8 * U * expected.abs().sum())


@pytest.mark.parametrize("n", [3, 4, 7, 12])
@pytest.mark.parametrize("charge", [0.0, 0.1, 0.25, 1 / 3, 0.5])
def test_spectrum_of_a_directed_cycle_is_its_closed_form(n, charge):
    """With degree 1 (½ each way) and the phase 2πq along each step: λ_k = 1 − cos(2π (k/n + q))."""
    expected = sorted(1 - math.cos(2 * math.pi * (k / n + charge)) for k in range(n))
    assert_within(spectrum(magnetic_laplacian(cycle(n), charge)), torch.tensor(expected, dtype=torch.float64), 32 * n * U)


@pytest.mark.parametrize(("n", "charge", "dimension"), [(3, 0.25, 0), (3, 1 / 3, 1), (4, 0.25, 1), (4, 0.1, 0), (5, 0.2, 1)])
def test_kernel_is_trivial_unless_the_flux_is_a_whole_turn(n, charge, dimension):
    values = spectrum(magnetic_laplacian(cycle(n), charge))
    assert int((values < 1e-12).sum()) == dimension


@given(data=st.data(), charge=CHARGES)
def test_a_tree_has_no_flux_so_that_its_spectrum_is_that_without_direction(data, charge):
    n = data.draw(st.integers(1, 9))
    parents = [data.draw(st.integers(0, i - 1)) for i in range(1, n)]
    pairs = [(i, p) if data.draw(st.booleans()) else (p, i) for i, p in enumerate(parents, 1)]
    index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    tree = Graph(index, n, torch.ones(n - 1, dtype=torch.float64))
    L = magnetic_laplacian(tree, charge)
    assert_within(spectrum(L), spectrum(magnetic_laplacian(tree, 0.0)), 32 * n * U * L.norm_bound())


@given(graph=digraphs(), charge=CHARGES)
def test_reversing_every_edge_conjugates(graph, charge):
    reverse = Graph(graph.edge_index.flip(0), graph.nodes, graph.edge_weight)
    assert torch.equal(magnetic_laplacian(reverse, charge).matrix(), magnetic_laplacian(graph, charge).matrix().conj())


@builds
@given(graph=digraphs(), charge=CHARGES)
def test_isolated_node_has_a_zero_row_and_a_positive_mass(build, graph, charge):
    L = build(graph, charge)
    _, share, _ = reference(graph, charge)
    alone = torch.from_numpy(share.sum(1) == 0)
    assert (L.matrix()[alone] == 0).all()
    assert (L.matrix()[:, alone] == 0).all()
    assert (L.mass > 0).all()


@given(graph=digraphs(weights=["ones", "dyadic"]), charge=CHARGES)
def test_normalized_agrees_with_the_dense_formula_and_its_spectrum_lies_in_0_2(graph, charge):
    _, share, phase = reference(graph, charge)
    degree = share.sum(1)
    root = 1 / np.sqrt(np.where(degree > 0, degree, 1))
    expected = np.diag((degree > 0).astype(float)) - root[:, None] * share * np.exp(1j * phase) * root
    L = normalized_magnetic_laplacian(graph, charge)
    assert_within(L.matrix(), torch.from_numpy(expected), 32 * U * (1 + np.abs(phase).max()))
    assert spectrum(L)[-1] <= 2 + 32 * graph.nodes * U


@builds
def test_repeated_edges_add_up_and_self_loops_drop_out(build):
    weight = torch.tensor([0.5, 0.5, 3.0, 1.0], dtype=torch.float64)
    untidy = Graph(torch.tensor([[0, 0, 1, 2], [1, 1, 1, 0]]), 3, weight)
    tidy = Graph(torch.tensor([[0, 2], [1, 0]]), 3, torch.ones(2, dtype=torch.float64))
    assert torch.equal(build(untidy).matrix(), build(tidy).matrix())


@builds
def test_on_keeps_the_charge_and_a_pickle_the_values(build):
    L = build(cycle(5), charge=0.1)
    assert torch.equal(L.on(cycle(7)).matrix(), build(cycle(7), charge=0.1).matrix())
    x = torch.ones(5, 2, dtype=torch.complex128)
    assert torch.equal(pickle.loads(pickle.dumps(L)) @ x, L @ x)


def test_float32_weights_give_a_complex64_operator():
    L = magnetic_laplacian(Graph(torch.tensor([[0, 1], [1, 2]]), 3))
    assert L.stiffness.values.dtype == torch.complex64
    assert (L @ torch.ones(2, 3, 1)).dtype == torch.complex64


def test_solve_inverts_identity_plus_a_multiple():
    L = magnetic_laplacian(cycle(6), 0.2)
    b = torch.randn(2, 6, 3, dtype=torch.complex128)
    y = L.solve(0.7, b)
    assert_within(y + 0.7 * (L @ y), b, 32 * 6 * U * b.abs().max())


def test_negative_weight_and_infinite_charge_are_refused_with_their_cure():
    with pytest.raises(DomainError, match=r"1 edges have negative weight.*signed_laplacian\(graph\.undirected\(\)\)"):
        magnetic_laplacian(Graph(torch.tensor([[0], [1]]), 2, torch.tensor([-1.0])))
    with pytest.raises(DomainError, match=r"finite number, not inf: 0\.25 is the usual choice"):
        magnetic_laplacian(cycle(3), math.inf)
