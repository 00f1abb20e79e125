"""Beltrami flow stays in the convex hull of its start, and starts as diffusion."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde import (
    BeltramiFlow,
    Dopri5,
    Graph,
    Law,
    MaximumPrinciple,
    ScaledDotProduct,
    bumpy,
    combinatorial_laplacian,
    icosphere,
    integrate,
    random_walk_laplacian,
    robust_laplacian,
    torus,
)
from neuralpde.testing import assert_within, fields, graphs, meshes, roundoff

LAPLACIANS = st.one_of(
    graphs(min_nodes=2, weights=("ones", "dyadic")).map(combinatorial_laplacian),
    graphs(min_nodes=2).map(random_walk_laplacian),
    meshes(slivers=False).map(robust_laplacian),
)
NOW = torch.zeros((), dtype=torch.float64)


def build(laplacian, channels: int, *, trained: float = 0.0, heads: int = 1) -> BeltramiFlow:
    """A flow whose attention is as sharp as `trained`."""
    flow = BeltramiFlow(ScaledDotProduct(laplacian, channels, width=3, heads=heads), rate=0.7)
    with torch.no_grad():
        flow.diffusivity.query.weight.normal_(std=trained)
    return flow


@pytest.mark.parametrize("rtol", [1e-3, 1e-6])
@given(data=st.data(), trained=st.sampled_from([0.0, 0.5, 3.0]), heads=st.integers(1, 2))
def test_every_channel_stays_in_its_hull(rtol, data, trained, heads):
    laplacian = data.draw(LAPLACIANS)
    flow = build(laplacian, 2, trained=trained, heads=heads)
    z = data.draw(fields(laplacian.shape[0], 2, exact=True))
    horizon = 3 / max(float(flow.diffusivity.rate.max()), 1e-30)
    with torch.no_grad():
        path = integrate(flow, z, [0.0, horizon / 2, horizon], Dopri5(rtol=rtol, atol=rtol * 1e-3)).x
    (principle,) = flow.invariants
    assert isinstance(principle, MaximumPrinciple)
    assert principle.law is Law.NON_INCREASING
    largest = z.abs().amax(dim=-2)
    slack = 20 * rtol * torch.maximum(largest, largest.max() / 10) + 1e-12
    assert bool((path <= z.amax(dim=-2) + slack).all())
    assert bool((path >= z.amin(dim=-2) - slack).all())


def test_untrained_flow_is_diffusion_and_trained_is_not():
    laplacian = robust_laplacian(bumpy(icosphere(1)))
    z = torch.randn(42, 2, dtype=torch.float64)
    size = 0.7 * laplacian.norm_bound() * float(z.abs().max())
    assert_within(build(laplacian, 2)(NOW, z), -0.7 * (laplacian @ z), 64 * roundoff(z.dtype) * size)
    assert bool((build(laplacian, 2, trained=1.0)(NOW, z) + 0.7 * (laplacian @ z)).abs().max() > 1e-3)


@given(data=st.data())
def test_zero_query_is_diffusion(data):
    laplacian = data.draw(LAPLACIANS)
    flow = build(laplacian, 2)
    z = data.draw(fields(laplacian.shape[0], 2))
    size = flow.diffusivity.rate.max() * z.abs().max()
    assert_within(flow(NOW, z), -0.7 * (laplacian @ z), 64 * laplacian.shape[0] * roundoff(z.dtype) * size)


def test_paper_form_on_a_random_walk():
    """dz/dt = α (A(z) − I) z."""
    laplacian = random_walk_laplacian(torus(9, 5).graph())
    flow = build(laplacian, 2, trained=1.0)
    z = torch.randn(45, 2, dtype=torch.float64)
    expected = 0.7 * (flow.diffusivity(z).matrix() - torch.eye(45, dtype=z.dtype)) @ z
    assert_within(flow(NOW, z), expected, 1e-13)


@given(data=st.data())
def test_permutation_equivariance(data):
    graph: Graph = data.draw(graphs(min_nodes=2))
    order = torch.tensor(data.draw(st.permutations(range(graph.nodes))))
    # Node i of the first graph is node order[i] of the second.
    renamed = Graph(order[graph.edge_index], graph.nodes, graph.edge_weight)
    flow = build(random_walk_laplacian(graph), 2, trained=1.0)
    z = data.draw(fields(graph.nodes, 2, exact=True))
    moved = torch.empty_like(z)
    moved[order] = z
    ours, theirs = flow(NOW, z), flow.on(renamed)(NOW, moved)[order]
    assert_within(theirs, ours, 1e-11 * float(z.abs().max()))


def test_on_shares_parameters_and_changes_the_operator():
    flow = build(robust_laplacian(icosphere(1)), 2)
    moved = flow.on(torus(9, 5))
    assert moved.diffusivity.key.weight is flow.diffusivity.key.weight
    assert moved.log_rate is flow.log_rate
    assert moved(NOW, torch.randn(45, 2, dtype=torch.float64)).shape == (45, 2)
    assert flow(NOW, torch.randn(3, 42, 2, dtype=torch.float64)).shape == (3, 42, 2)
    (principle,) = moved.invariants
    assert principle.laplacian is moved.diffusivity.edges.laplacian


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_rate_must_be_positive(rate):
    with pytest.raises(ValueError, match="rate must be positive and finite"):
        BeltramiFlow(ScaledDotProduct(robust_laplacian(icosphere(0)), 1), rate)
