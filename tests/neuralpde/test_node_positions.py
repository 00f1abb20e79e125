"""DeepWalk's limit is the published matrix's factor; encodings are cached where they are dense."""

import numpy as np
import pytest
import torch

from neuralpde.node_positions import DeepWalkLimit, SparsePageRank, positions_of
from neuralpde.testing_nodes import node_blocks
from operators import DomainError, Graph
from operators.page_rank import page_rank

GRAPH = node_blocks(90, isolated=2).graph


def test_it_factors_the_limit():
    """Where all eigenpairs are taken, U reproduces M up to its discarded eigenvalues, in absolute value of each."""
    n, window = 90, 3
    u = DeepWalkLimit(60, window, rank=88)(GRAPH).double().numpy()
    weight = np.zeros((n, n))
    weight[tuple(GRAPH.edge_index.numpy())] = 1
    degree = weight.sum(1)
    inverse = np.divide(1, degree, out=np.zeros(n), where=degree > 0)
    values, vectors = np.linalg.eigh(np.sqrt(inverse)[:, None] * weight * np.sqrt(inverse))
    powers = sum(values.clip(0, 1) ** r for r in range(1, window + 1)) / window
    kernel = np.sqrt(inverse)[:, None] * (vectors * powers) @ vectors.T * np.sqrt(inverse)
    limit = np.log(np.maximum(degree.sum() * kernel, 1))
    values, vectors = np.linalg.eigh(limit)
    largest = np.argsort(-abs(values))[:60]
    expected = (vectors[:, largest] * abs(values[largest])) @ vectors[:, largest].T
    rest = np.sort(abs(values))[-61]
    assert np.abs(u @ u.T - expected).max() < 0.1 * rest + 1e-3 * abs(values).max()


def test_neighbours_are_near_and_isolated_nodes_at_zero():
    u = DeepWalkLimit(16)(GRAPH)
    assert u.shape == (90, 16)
    assert u.dtype == torch.float32
    assert float(u[-2:].abs().max()) < 1e-5
    unit = torch.nn.functional.normalize(u, dim=1)
    source, target = GRAPH.edge_index
    assert (unit[source] * unit[target]).sum(1).mean() > 2 * (unit @ unit.T).mean()
    assert torch.equal(u, DeepWalkLimit(16)(GRAPH))


def test_graphs_without_a_limit_are_refused():
    with pytest.raises(DomainError, match="no 128 dimensions: take at most 88"):
        DeepWalkLimit(128)(GRAPH)
    with pytest.raises(DomainError, match="undirected"):
        DeepWalkLimit(2)(Graph(torch.tensor([[0, 1], [1, 2]]), 8))
    with pytest.raises(DomainError, match="and an edge"):
        DeepWalkLimit(2)(Graph(torch.zeros(2, 0, dtype=torch.int64), 8))


def test_sparse_page_rank_is_page_rank():
    found = SparsePageRank(tolerance=1e-7)(GRAPH).to_scipy().toarray()
    assert np.allclose(found, page_rank(GRAPH.to(torch.float64)).numpy(), atol=1e-5)


def test_dense_positions_are_kept(tmp_path):
    once = positions_of(DeepWalkLimit(16), GRAPH, tmp_path)
    files = list(tmp_path.rglob("*"))
    assert files
    assert torch.equal(positions_of(DeepWalkLimit(16), GRAPH, tmp_path), once)
    assert list(tmp_path.rglob("*")) == files
    positions_of(SparsePageRank(), GRAPH, tmp_path)
    assert list(tmp_path.rglob("*")) == files
    assert torch.equal(positions_of(DeepWalkLimit(16), GRAPH, None), once)
