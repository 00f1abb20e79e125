"""The rows that need no training, and the operators they stand on."""

import numpy as np
import pytest
import torch
from torch_geometric.utils import get_laplacian, to_dense_adj

from neuralpde.toy_heat import grid_graph, pairs, parted, score, toy_heat
from neuralpde.toy_heat_methods import Dense, ImplicitEuler, Persistence, Schedule, Stencil, adjacency, self_looped
from operators import symmetric_laplacian


@pytest.fixture(scope="module")
def items():
    return toy_heat(300, 0)


def fitted(method, items, tmp_path):
    seen, held_out = parted(items)
    learned = method.fit(seen, Schedule(1), 0, tmp_path / "unused", lambda *told: None)
    return learned, score(held_out, learned.predict)


def test_persistence_has_the_numbers_of_the_published_unitary_row(items, tmp_path):
    # What is measured about the data: a strictly unitary model that reads out the field as it is scores the same.
    learned, persistence = fitted(Persistence(), items, tmp_path)
    assert learned.parameters == 0
    assert persistence.mse == pytest.approx(0.0013, abs=2e-4)
    assert persistence.mre == pytest.approx(0.089, abs=4e-3)


def test_implicit_euler_is_a_linear_solve(items, tmp_path):
    learned, found = fitted(ImplicitEuler(), items, tmp_path)
    item = items[1]
    x, _ = pairs(item, [3])
    W = to_dense_adj(item.graph.edge_index)[0].double().numpy()
    L = np.diag(W.sum(1)) - W
    system = np.eye(len(L)) + 0.5 * L / np.linalg.eigvalsh(L)[-1]
    expected = np.linalg.solve(system, x[..., 0].double().numpy().T).T
    np.testing.assert_allclose(learned.predict(item, x)[..., 0], expected, atol=1e-6)
    assert found.mse < 2e-5


def test_stencil_is_the_least_squares_fit(items, tmp_path):
    learned, found = fitted(Stencil(), items, tmp_path)
    seen, _ = parted(items)
    columns, targets = [], []
    for item in seen:
        x, y = pairs(item, range(3))
        neighbours = torch.from_numpy(normalized(item.graph)).float() @ x
        columns.append(np.stack([x.flatten(), neighbours.flatten()], axis=1))
        targets.append(y.flatten())
    (a, b), *_ = np.linalg.lstsq(np.concatenate(columns).astype(float), np.concatenate(targets).astype(float), rcond=None)
    x = items[0].frames[:1, 3]
    expected = a * x + b * torch.from_numpy(normalized(items[0].graph)).float() @ x
    torch.testing.assert_close(learned.predict(items[0], x), expected, rtol=1e-5, atol=1e-6)
    assert learned.parameters == 2
    assert found.mse < 6e-5


def normalized(graph):
    edge_index, weight = get_laplacian(graph.edge_index, normalization="sym", num_nodes=graph.nodes)
    return np.eye(graph.nodes) - to_dense_adj(edge_index, edge_attr=weight)[0].double().numpy()


def test_operators_of_the_networks():
    graph = grid_graph(5)
    A = adjacency(graph)
    np.testing.assert_allclose(A.matrix(), normalized(graph), atol=1e-6)
    W = to_dense_adj(graph.edge_index)[0].double().numpy() + np.eye(25)
    root = 1 / np.sqrt(W.sum(1))
    np.testing.assert_allclose(Dense(self_looped(graph)).matrix(), root[:, None] * W * root, atol=1e-6)
    for operator in (A, Dense(self_looped(graph))):
        assert np.abs(np.linalg.eigvalsh(operator.matrix().double().numpy())).max() <= operator.norm_bound() + 1e-6
        assert operator.on(grid_graph(6)).shape == (36, 36)
        assert operator.adjoint() is operator


def test_dense_products_are_the_sparse_ones():
    graph = grid_graph(6)
    dense, sparse = adjacency(graph), symmetric_laplacian(graph).complement()
    x = torch.randn(4, 36, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(dense @ x, sparse @ x, rtol=1e-6, atol=1e-6)
    z = torch.complex(x, x.flip(0))
    torch.testing.assert_close(dense @ z, sparse @ z, rtol=1e-6, atol=1e-6)
