"""Corrections: zero at the start, within their bound, and network corrections serve any placement."""

import math

import pytest
import torch
from consistent_stencils import disturbed, scattered

from neuralpde.testing import assert_within, roundoff
from operators.checks import DomainError
from operators.consistent_corrections import FreeCorrection, NetworkCorrection
from operators.consistent_moments import Moments
from operators.domains import PointCloud

U = roundoff(torch.float64)


def network(**options):
    return NetworkCorrection(2, 2, **options).double()


@pytest.mark.parametrize("options", [{}, {"hops": 3}, {"channels": 2}, {"positions": 0.5}, {"positions": 2.0, "channels": 1}])
def test_zero_at_the_start_and_every_parameter_learns(options):
    moments = Moments(scattered(20, 2))
    made = network(**options)
    x = torch.randn(3, 20, options.get("channels", 0), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    field = x if x.shape[-1] else None
    assert bool((made(moments, field) == 0).all())
    z = disturbed(made, 0, 1.0)(moments, field)
    assert z.shape == (*(x.shape[:1] if x.shape[-1] else ()), *moments.neighbours.shape, 2)
    assert bool((z.abs() < 4).all())
    z.square().sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in made.parameters())


def test_without_a_bound_it_is_free():
    moments = Moments(scattered(20, 2))
    made = disturbed(network(bound=math.inf), 0, 10.0)
    assert float(made(moments, None).detach().abs().max()) > 4


def test_it_reads_shape_not_size_and_place_only_if_asked():
    cloud = scattered(20, 2)
    there = PointCloud(4 * cloud.points + 8)
    blind, placed = disturbed(network(), 0, 1.0), disturbed(network(positions=1.0), 0, 1.0)
    here, moved = Moments(cloud), Moments(there)
    assert_within(blind(moved, None), blind(here, None).detach(), 1e6 * U)
    assert float((placed(moved, None) - placed(here, None)).detach().abs().max()) > 0.1


def test_a_second_block_sees_two_steps_away():
    cloud = scattered(40, 2)
    moments = Moments(cloud, 6)
    x = torch.zeros(40, 1, dtype=torch.float64)
    own = set(moments.neighbours[0].tolist()) | {0}
    second = {j for i in own for j in moments.neighbours[i].tolist()} - own
    x = torch.randn(40, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    for hops, reach in ((1, own), (2, own | second)):
        z = disturbed(network(hops=hops, channels=1), 0, 0.5)(moments, x)
        (slope,) = torch.autograd.grad(z[0].sum(), x)
        assert set(slope[:, 0].nonzero()[:, 0].tolist()) == reach


def test_padding_tells_nothing():
    cloud = scattered(20, 2)
    graph = cloud.knn_graph(6)
    moments = Moments(cloud, graph)
    assert not bool(moments.valid.all())
    made = disturbed(network(hops=2), 0, 1.0)
    z = made(moments, None)
    moments.local[~moments.valid] = 7.0
    assert torch.equal(made(moments, None)[moments.valid], z[moments.valid])


def test_a_flat_field_has_a_gradient():
    moments = Moments(scattered(20, 2))
    made = disturbed(network(channels=1), 0, 1.0)
    for size in (0.0, 1e-300, 1e-100, 1e100):
        x = torch.full((20, 1), 1.0, dtype=torch.float64) * size
        x[0] *= 2
        x.requires_grad_()
        z = made(moments, x)
        z.sum().backward()
        assert bool(torch.isfinite(z).all())
        assert bool(torch.isfinite(x.grad).all())


def test_what_they_refuse():
    with pytest.raises(DomainError, match="must be positive integers"):
        NetworkCorrection(2, 2, width=0)
    with pytest.raises(DomainError, match="bound and positions must be positive"):
        NetworkCorrection(2, 2, bound=0.0)
    with pytest.raises(DomainError, match="bound and positions must be positive"):
        NetworkCorrection(2, 2, positions=-1.0)
    with pytest.raises(DomainError, match="2 dimensions, the points have 3"):
        network()(Moments(scattered(20, 3)), None)
    with pytest.raises(DomainError, match="belong to another placement"):
        FreeCorrection(Moments(scattered(20, 2)), 1)(Moments(scattered(21, 2)), None)
