"""The consistent difference layer in the place of the spatial difference layer, and in a flow."""

import pickle
from copy import deepcopy

import pytest
import torch
from consistent_stencils import disturbed, scattered
from hypothesis import given, settings
from hypothesis import strategies as st

from integrators import integrate
from neuralpde.difference import DifferenceFlow
from neuralpde.testing import assert_within, roundoff
from operators.checks import DomainError
from operators.consistent import ConsistentGradient, ConsistentLaplacian
from operators.consistent_difference import ConsistentDifference
from operators.difference import Differences

U = roundoff(torch.float64)


def quadratic(cloud):
    """A polynomial of degree 2, its gradient and −Δ."""
    x, y = cloud.points.T
    p = (1 + x - 2 * y + x * y - 3 * x**2 + y**2)[:, None]
    return p, torch.stack([1 + y - 6 * x, -2 + x + 2 * y], dim=1), 4.0


@settings(max_examples=6)
@given(seed=st.integers(0, 10**6), size=st.sampled_from([0.1, 1.0, 10.0]), positive=st.booleans(), hops=st.integers(1, 2))
def test_both_forms_are_exact_on_polynomials_for_any_parameters(seed, size, positive, hops):
    cloud = scattered(24, 2, seed)
    layer = disturbed(ConsistentDifference.learned(cloud, hops=hops, positive=positive), seed, size)
    p, slope, laplacian = quadratic(cloud)
    L, along = layer(p)
    i, j = layer.edges.pattern.row, layer.edges.pattern.col
    offsets = cloud.points[j] - cloud.points[i]
    # The direct derivative, not the difference of the values.
    slack = 1e3 * U * layer.gradient.moments.condition
    assert_within(along[:, 0], (slope[i] * offsets).sum(1), slack * float(layer.gradient.weights(p).detach().abs().sum(1).max()))
    assert_within(layer.vectors(p)[..., 0], slope, slack * float(layer.gradient.weights(p).detach().abs().sum(1).max()))
    size = layer.laplacian.weights(p).detach().abs().sum(1).amax()
    nodes = layer.laplacian.consistent if positive else slice(None)
    assert_within((L @ p)[nodes], laplacian, slack * float(size))


@pytest.mark.parametrize("positive", [False, True])
def test_a_flow_of_it_is_diffusion_and_drift_of_polynomials(positive):
    cloud = scattered(40, 2)
    flow = disturbed(DifferenceFlow(ConsistentDifference.learned(cloud, channels=2, positive=positive)), 0, 0.5)
    p, slope, laplacian = quadratic(cloud)
    e = flow.differences.direction.detach()
    exact = -flow.log_rate.detach().exp() * laplacian + flow.drift.detach() * (slope @ e)[:, None]
    nodes = flow.differences.laplacian.consistent if positive else slice(None)
    found = flow(torch.zeros(()), torch.cat([p, torch.ones_like(p)], dim=1))
    assert_within(found[nodes, :1], exact[nodes], 1e-9)
    assert_within(found[:, 1], 0.0, 1e-12)


def test_gradients_reach_every_parameter_and_the_flow_can_be_solved():
    flow = disturbed(DifferenceFlow(ConsistentDifference.learned(scattered(30, 2), positive=True, width=4), 0.01), 0, 0.5)
    x = torch.rand(2, 30, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    solution = integrate(flow, x, [0.0, 1e-3])
    solution.x[-1].square().sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in flow.parameters())


def test_untrained_it_is_least_squares():
    cloud = scattered(40, 2)
    layer = ConsistentDifference.learned(cloud)
    x = torch.sin(4 * cloud.points[:, :1])
    L, _ = layer(x)
    assert isinstance(layer, Differences)
    assert_within(L @ x, (ConsistentLaplacian(cloud) @ x).detach(), 1e-10)
    assert_within(layer.vectors(x), ConsistentGradient(cloud).vectors(x).detach(), 1e-11)


def test_batches_are_members_and_it_moves_and_copies():
    cloud = scattered(30, 2)
    layer = disturbed(ConsistentDifference.learned(cloud, channels=2, neighbours=lambda cloud: cloud.knn_graph(6)), 0, 1.0)
    x = torch.randn(3, 30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    L, along = layer(x)
    for k in range(3):
        one, lone = layer(x[k])
        assert_within((L @ x)[k], (one @ x[k]).detach(), 1e-9)
        assert_within(along[k], lone.detach(), 1e-11)
    assert along.shape == (3, layer.edges.pattern.nnz, 2)
    moved = layer.on(scattered(40, 2, 1))
    assert moved.direction is layer.direction
    p, slope, _ = quadratic(scattered(40, 2, 1))
    assert_within(moved.vectors(p.expand(-1, 2))[..., 0], slope, 1e-10)
    simple = disturbed(ConsistentDifference.learned(cloud), 0, 1.0)
    for twin in (deepcopy(simple), pickle.loads(pickle.dumps(simple))):
        assert torch.equal(twin(x[0, :, :1])[1], simple(x[0, :, :1])[1])
    single = deepcopy(simple).float()
    assert single(x[0, :, :1].float())[0].dtype == torch.float32


def test_both_must_live_on_one_cloud():
    with pytest.raises(DomainError, match="the gradient has 30 nodes, the Laplacian 20"):
        ConsistentDifference(ConsistentGradient(scattered(30, 2)), ConsistentLaplacian(scattered(20, 2)))
