"""Graphs, features, labels and splits belong together, and stay together."""

from dataclasses import replace

import pytest
import torch

from neuralpde.node_data import NodeData, row_normalised
from neuralpde.testing_nodes import node_blocks
from operators import DomainError, Graph, SparseOperator

BLOCKS = node_blocks(800)


def same(one, other):
    """Equal content, whatever the order of the edges."""
    dense = [x if isinstance(x, torch.Tensor) else x.to_scipy().toarray() for x in (one.features, other.features)]
    assert torch.equal(*(torch.as_tensor(x).double() for x in dense))
    assert torch.equal(one.labels, other.labels)
    assert {tuple(e) for e in one.graph.edge_index.T.tolist()} == {tuple(e) for e in other.graph.edge_index.T.tolist()}


def test_the_largest_component_keeps_its_own_rows():
    data = node_blocks(120, isolated=5)
    part = data.largest_component()
    kept = torch.unique(part.graph.edge_index)
    assert part.isolated == 0
    assert torch.equal(kept, torch.arange(part.nodes))
    assert part.nodes <= 115
    assert part.split is None
    # Degrees, labels and features of a node go together.
    degrees = [torch.bincount(d.graph.edge_index[0], minlength=d.nodes) for d in (data, part)]
    rows = [torch.cat([torch.stack([d.labels, e], 1), dense(d).long()], 1) for d, e in zip((data, part), degrees, strict=True)]
    missing = {tuple(r) for r in rows[1].tolist()} - {tuple(r) for r in rows[0].tolist()}
    assert not missing


def dense(data):
    return torch.as_tensor(data.features.to_scipy().toarray())


def test_dense_features_do_as_sparse_ones_do():
    full = replace(BLOCKS, features=dense(BLOCKS).float())
    same(full.largest_component(), BLOCKS.largest_component())
    assert torch.allclose(row_normalised(full.features), dense(replace(BLOCKS, features=row_normalised(BLOCKS.features))).float())


def test_the_fingerprint_is_of_the_content():
    assert node_blocks(120).fingerprint() == node_blocks(120).fingerprint()
    changed = BLOCKS.labels.clone()
    changed[-1] = 0 if changed[-1] else 1
    assert replace(BLOCKS, labels=changed).fingerprint() != BLOCKS.fingerprint()
    assert replace(BLOCKS, split=None).fingerprint() != BLOCKS.fingerprint()


def test_parts_that_do_not_belong_together_are_refused():
    n = BLOCKS.nodes
    with pytest.raises(DomainError, match="a row a node"):
        replace(BLOCKS, features=torch.ones(n - 1, 4))
    with pytest.raises(DomainError, match="finite"):
        replace(BLOCKS, features=torch.full((n, 4), float("nan")))
    with pytest.raises(DomainError, match=r"int64 of shape \(800,\)"):
        replace(BLOCKS, labels=BLOCKS.labels[:-1])
    with pytest.raises(DomainError, match="int64"):
        replace(BLOCKS, labels=BLOCKS.labels.float())
    with pytest.raises(DomainError, match="from 0 on"):
        replace(BLOCKS, labels=BLOCKS.labels - 1)
    with pytest.raises(DomainError, match="different graphs"):
        NodeData("Small", Graph(torch.tensor([[0, 1], [1, 0]]), 2), torch.ones(2, 1), torch.tensor([0, 1]), BLOCKS.split)


def test_isolated_nodes_are_counted():
    data = NodeData("Pair", Graph(torch.tensor([[0, 1], [1, 0]]), 4), torch.ones(4, 1), torch.tensor([0, 1, 0, 1]))
    assert data.isolated == 2
    assert "4 nodes, 1 edges" in repr(data)


def test_sparse_features_stay_sparse():
    words = SparseOperator.from_entries(torch.tensor([0, 1]), torch.tensor([0, 3]), torch.ones(2), (2, 40))
    data = NodeData("Words", Graph(torch.tensor([[0, 1], [1, 0]]), 2), words, torch.tensor([0, 1]))
    assert isinstance(data.largest_component().features, SparseOperator)
