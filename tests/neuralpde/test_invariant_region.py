"""Bounds that hold once they hold."""

import math

import pytest
import torch

from integrators import RK4, SolveError, integrate
from neuralpde.heat import Heat
from neuralpde.invariant_region import InvariantRegion
from neuralpde.invariants import Law
from neuralpde.monitor import Monitor
from neuralpde.reaction import FisherKPP
from neuralpde.rhs import FromFunction
from operators import Boundary, Grid, grid_laplacian


def path(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None, None]


def test_the_distance_is_that_of_the_worst_node_of_any_part():
    region = InvariantRegion((0.0, -1.0), (2.0, math.inf))
    u = torch.tensor([[-0.5], [1.0], [2.25]], dtype=torch.float64)
    v = torch.tensor([[-1.5], [7.0], [0.0]], dtype=torch.float64)
    assert float(region.measure((u, v))) == 0.5
    assert float(region.measure((u[1:2], v[1:]))) == 0.0
    assert float(region.scale((u, v))) == 7.0
    assert region.name == "region [0, 2] × [-1, inf]"
    batch = torch.stack([u, u.abs() / 4])
    assert InvariantRegion((0.0,), (2.0,)).measure(batch).tolist() == [0.5, 0.0]


def test_leaving_breaks_it_and_coming_in_does_not():
    region = InvariantRegion()
    assert region.violation(path(1.0, 0.5, 0.0)) == 0.0
    assert region.violation(path(1.0, -0.5, 0.0)) == 0.5
    # From outside anything goes, until it is inside.
    assert region.violation(path(-1.0, -2.0, 0.5)) == 0.0
    assert region.violation(path(-1.0, -2.0, 0.5, -0.25)) == 0.25


def test_backwards_what_has_left_does_not_come_in_again():
    region = InvariantRegion().under(Law.NON_DECREASING)
    assert region.violation(path(1.0, -0.5, -2.0, -0.25)) == 0.0
    assert region.violation(path(1.0, -0.5, 0.5)) == 0.5


def test_two_flows_that_keep_a_box_keep_it_together():
    L = grid_laplacian(Grid(5, 1.0, Boundary.PERIODIC))
    both = FisherKPP(L, 0.1) + FisherKPP(L, 0.2, 3.0)
    (region,) = both.invariants
    assert (region.lows, region.highs, region.law) == ((0.0,), (1.0,), Law.NON_INCREASING)
    assert not region.same_quantity(InvariantRegion((0.0,), (2.0,)))
    assert (FisherKPP(L) + Heat(L)).invariants == ()


def test_a_monitor_stops_a_flow_that_leaves():
    f = FromFunction(lambda t, u: -torch.ones_like(u))
    with pytest.raises(SolveError, match=r"region \[0, inf\]"):
        integrate(f, torch.full((3, 1), 0.5), [0.0, 1.0], RK4(dt=0.1), monitor=Monitor([InvariantRegion()], tolerance=1e-3))
