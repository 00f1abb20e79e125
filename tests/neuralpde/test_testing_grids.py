"""Grids have every number of axes, length, spacing and boundary, and shrink to one node."""

from functools import cache

import pytest
import torch
from drawing import drawn, least, shares

from neuralpde.testing_grids import grids
from operators import Boundary


@cache
def sample():
    return drawn(grids(), 200)


def kinds(grid):
    return [
        f"{len(grid.shape)} axes",
        *grid.boundary,
        *(["a single node along an axis"] if 1 in grid.shape else []),
        *(["more nodes than 30"] if grid.num_nodes > 30 else []),
        *(["two boundaries"] if len(set(grid.boundary)) > 1 else []),
        *(["far from isotropic"] if len(grid.shape) > 1 and grid.spacing.max() > 500 * grid.spacing.min() else []),
    ]


@pytest.mark.parametrize(
    "kind",
    [
        *Boundary,
        "1 axes",
        "2 axes",
        "3 axes",
        "a single node along an axis",
        "more nodes than 30",
        "two boundaries",
        "far from isotropic",
    ],
)
def test_every_kind_of_grid_occurs_in_a_tenth(kind):
    assert shares(sample(), kinds)[kind] >= 0.1


def test_options_are_kept():
    assert max(grid.num_nodes for grid in sample()) <= 64
    for grid in drawn(grids(dimensions=[2], boundaries=[Boundary.PERIODIC], min_side=3, max_nodes=12, dtype=torch.float32), 40):
        assert len(grid.shape) == 2
        assert min(grid.shape) >= 3
        assert grid.num_nodes <= 12
        assert set(grid.boundary) == {Boundary.PERIODIC}
        assert grid.spacing.dtype == torch.float32
    with pytest.raises(ValueError, match="max_nodes=7"):
        drawn(grids(dimensions=[3], min_side=2, max_nodes=7), 1)


def test_shrinking_leaves_one_node_or_what_matters():
    one = least(grids(), lambda grid: True)
    assert one.shape == (1,)
    assert one.spacing.tolist() == [1]
    assert one.boundary == (Boundary.NEUMANN,)
    circle = least(grids(), lambda grid: grid.num_nodes > 4 and Boundary.PERIODIC in grid.boundary)
    assert circle.shape == (5,)
    assert circle.spacing.tolist() == [1]
