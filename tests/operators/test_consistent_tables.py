"""Tables of neighbours against SciPy's distances and matrix powers."""

import numpy as np
import pytest
import torch
from consistent_stencils import scattered
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import shortest_path

from operators.checks import DomainError
from operators.consistent_tables import graph_tables, nearest_tables
from operators.domains import Graph, PointCloud


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 6))
def test_nearest_tables_double_up_to_fourfold(seed, count):
    cloud = scattered(20, 2, seed)
    distance = torch.cdist(cloud.points, cloud.points)
    nodes = torch.tensor([3, 0, 11])
    sizes = []
    for table_of in nearest_tables(cloud, count, 2):
        table = table_of(nodes)
        sizes.append(table.shape[1])
        expected = distance[nodes].argsort(dim=1)[:, 1 : table.shape[1] + 1]
        assert torch.equal(table.sort(dim=1).values, expected.sort(dim=1).values)
    assert sizes == [count, 2 * count, min(4 * count, 19)][: len(sizes)]
    assert sizes[-1] == min(4 * count, 19)


@settings(max_examples=20)
@given(data=st.data(), hops=st.integers(1, 3))
def test_graph_tables_are_what_leads_to_a_node_in_so_many_steps(data, hops):
    n = data.draw(st.integers(1, 8))
    pairs = data.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=14))
    index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    source, target = index.numpy()
    steps = shortest_path(coo_array((np.ones(len(source)), (target, source)), shape=(n, n)).tocsr(), unweighted=True)
    nodes = torch.arange(n).flip(0)
    tables = list(graph_tables(Graph(index, n), n, hops))
    assert len(tables) == 3
    for more, table_of in enumerate(graph_tables(Graph(index, n), n, hops)):
        table = table_of(nodes)
        for node, row in zip(nodes.tolist(), table.tolist(), strict=True):
            reached = {j for j in range(n) if j != node and steps[node, j] <= hops + more}
            assert sorted(j for j in row if j >= 0) == sorted(reached)


def test_what_they_refuse():
    with pytest.raises(DomainError, match="the graph has 3 nodes, the cloud 4"):
        next(graph_tables(Graph(torch.tensor([[0], [1]]), 3), 4, 1))
    with pytest.raises(DomainError, match="neighbours must be a Graph or an integer from 5"):
        next(nearest_tables(PointCloud(torch.rand(10, 2)), 3, 5))


@pytest.mark.parametrize("hops", [1, 2])
def test_a_hub_is_refused_before_it_takes_the_memory(hops):
    n = 6000
    spokes = torch.stack([torch.arange(1, n), torch.zeros(n - 1, dtype=torch.int64)])
    graph = Graph(torch.cat([spokes, spokes.flip(0)], dim=1), n)
    with pytest.raises(DomainError, match=r"36000000 pairs, over the limit|35994000 pairs, over the limit"):
        next(graph_tables(graph, n, hops))(torch.arange(n))
