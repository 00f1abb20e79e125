"""Nested dissection is a permutation of any graph, fills in little on surfaces, and never crawls."""

import time

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg
from hypothesis import given

from neuralpde.testing import graphs
from operators.ordering import nested_dissection
from operators.shapes import grid, icosphere


def adjacency(edge_index, nodes):
    return sp.csr_array((np.ones(edge_index.shape[1]), tuple(np.asarray(edge_index))), shape=(nodes, nodes))


def fill(matrix, order):
    """The entries of the factors a node."""
    ordered = sp.csc_array(matrix[order][:, order])
    factor = scipy.sparse.linalg.splu(ordered, permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return factor.nnz / matrix.shape[0]


@given(graph=graphs(min_nodes=1, max_nodes=60))
def test_every_node_comes_once(graph):
    order = nested_dissection(adjacency(graph.edge_index, graph.nodes))
    assert sorted(order) == list(range(graph.nodes))


@pytest.mark.parametrize("mesh", [icosphere(5), grid(100, 100)], ids=["sphere", "grid"])
def test_fill_grows_as_n_log_n_and_is_far_below_that_of_minimum_bandwidth(mesh):
    graph = adjacency(mesh.graph().edge_index, mesh.num_nodes)
    system = sp.csr_array(sp.diags_array(1.0 + graph.sum(axis=1)) - graph)
    entries = fill(system, nested_dissection(graph))
    assert entries < 8 * np.log2(mesh.num_nodes)
    assert entries < 0.75 * fill(system, sp.csgraph.reverse_cuthill_mckee(graph))


@pytest.mark.parametrize("name", ["path", "star", "empty", "complete", "many pieces"])
def test_extreme_graphs_take_no_extreme_time(name):
    n = 300 if name == "complete" else 30_000
    i = np.arange(n)
    edges = {
        "path": (i[:-1], i[1:]),
        "star": (0 * i[1:], i[1:]),
        "empty": (i[:0], i[:0]),
        "complete": tuple(np.triu_indices(300, 1)),
        "many pieces": (i[:-1:2], i[1::2]),
    }[name]
    pairs = np.concatenate([np.stack(edges), np.stack(edges)[::-1]], axis=1)
    start = time.process_time()
    order = nested_dissection(adjacency(pairs, n))
    # A fraction of a second; a loop over levels or pieces would take minutes.
    assert time.process_time() - start < 60
    assert sorted(order) == list(range(n))
