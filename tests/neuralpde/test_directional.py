"""The task of directional derivatives: its geometry, its slopes, and what its splits separate."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.directional import (
    FUNCTIONS,
    Ripples,
    directional_task,
    drawn_points,
    grid_points,
    leak_free_split,
    published_split,
)
from neuralpde.files import RunFolderError


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_gradients_are_those_of_the_values(function):
    points = drawn_points(20, 3).requires_grad_()
    (slope,) = torch.autograd.grad(function.value(points).sum(), points)
    torch.testing.assert_close(function.gradient(points.detach()), slope, rtol=0, atol=1e-14)


def test_slopes_are_limits_of_difference_quotients_at_the_sender():
    task = directional_task(Ripples(), drawn_points(60, 1))
    start = task.cloud.points[task.graph.edge_index[0]]
    step = 1e-5
    ahead, behind = (Ripples().value(start + sign * step * task.directions) for sign in (1, -1))
    # The error of a central quotient is h²/6 f''', and rounding ε/h.
    torch.testing.assert_close(task.slopes, (ahead - behind) / (2 * step), rtol=0, atol=1e-9)


def test_the_graph_joins_four_nearest_both_ways():
    task = directional_task(Ripples(), drawn_points(200, 0))
    pairs = set(map(tuple, task.graph.edge_index.T.tolist()))
    assert all((j, i) in pairs and i != j for i, j in pairs)
    assert torch.bincount(task.graph.edge_index[0]).min() >= 4
    # 970 in the paper, but for which points are drawn.
    assert 930 < len(pairs) < 1010


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), nodes=st.integers(30, 120))
def test_splits_are_partitions_and_the_leak_free_one_separates_reverses(seed, nodes):
    task = directional_task(Ripples(), drawn_points(nodes, seed))
    edges = task.graph.edge_index
    for split in (published_split(task, seed), leak_free_split(task, seed)):
        together = torch.cat([split.train, split.validation, split.test])
        assert torch.equal(together.sort().values, torch.arange(edges.shape[1]))
        assert abs(len(split.train) - 0.7 * edges.shape[1]) <= 2
        assert abs(len(split.test) - 0.2 * edges.shape[1]) <= 2
    test = set(map(tuple, edges[:, split.test].T.tolist()))
    rest = set(map(tuple, edges[:, torch.cat([split.train, split.validation])].T.tolist()))
    assert not {(j, i) for i, j in test} & rest


def test_the_published_split_leaks():
    task = directional_task(Ripples(), drawn_points(200, 0))
    split, edges = published_split(task, 0), task.graph.edge_index
    train = set(map(tuple, edges[:, split.train].T.tolist()))
    leaked = [(j, i) in train for i, j in edges[:, split.test].T.tolist()]
    assert 0.6 < sum(leaked) / len(leaked) < 0.8


def test_points_are_drawn_without_replacement():
    points = drawn_points(2500, 5)
    assert torch.equal(points[torch.argsort(points[:, 0] * 100 + points[:, 1])], grid_points())
    assert not torch.equal(drawn_points(50, 0), drawn_points(50, 1))
    with pytest.raises(RunFolderError, match="cannot be drawn"):
        drawn_points(2501, 0)
