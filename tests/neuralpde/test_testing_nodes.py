"""The generated graphs are what they say, and their files are those that PyG's own readers read."""

import numpy as np
import pytest
import torch

from neuralpde.testing_nodes import node_blocks, write_arrays, write_citations
from operators import DomainError


def test_blocks_prefer_their_own_kind():
    data = node_blocks(600, 3)
    source, target = data.graph.edge_index
    alike = (data.labels[source] == data.labels[target]).double().mean()
    assert 0.7 < float(alike) < 0.9
    assert data.isolated >= 2
    assert data.split.train.sum() == 12


def test_files_are_read_by_pyg_itself(tmp_path):
    from torch_geometric.io import read_npz, read_planetoid_data

    data = node_blocks(800, 3)
    mine = data.features.to_scipy().toarray()
    citations = read_planetoid_data(str(write_citations(data, tmp_path)), "cora")
    arrays = read_npz(str(write_arrays(data, tmp_path, "Photo", "photo.npz") / "photo.npz"))
    for read in (citations, arrays):
        assert np.array_equal(read.x.numpy(), mine)
        assert torch.equal(read.y, data.labels)
        assert {tuple(e) for e in read.edge_index.T.tolist()} == {tuple(e) for e in data.graph.edge_index.T.tolist()}


def test_too_few_nodes_are_refused():
    with pytest.raises(DomainError, match="at least eight"):
        node_blocks(20, 4)
