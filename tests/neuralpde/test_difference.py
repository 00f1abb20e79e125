"""An untrained difference flow is diffusion; what it learns are weights and a drift."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde import DifferenceFlow, SpatialDifference, combinatorial_laplacian, icosphere, robust_laplacian, torus
from neuralpde.testing import assert_within, fields, graphs, meshes, roundoff

LAPLACIANS = st.one_of(
    graphs(min_nodes=2, weights=("ones", "dyadic")).map(combinatorial_laplacian),
    meshes(slivers=False).map(robust_laplacian),
)
NOW = torch.zeros((), dtype=torch.float64)


@given(data=st.data(), rate=st.floats(1e-3, 1e3))
def test_untrained_flow_is_diffusion(data, rate):
    laplacian = data.draw(LAPLACIANS)
    flow = DifferenceFlow(SpatialDifference(laplacian), rate)
    x = data.draw(fields(laplacian.shape[0], 1))
    size = rate * laplacian.stiffness.diagonal() / laplacian.mass
    bound = 64 * laplacian.shape[0] * roundoff(x.dtype) * float(size.max()) * float(x.abs().max())
    assert_within(flow(NOW, x), -rate * (laplacian @ x), bound)
    assert flow.invariants == ()
    assert flow.linear is None


def test_right_hand_side_is_the_sum_over_edges():
    """dx_i/dt = −κ Σ_j b_ij w1 (x_i − w2 x_j) + β Σ_j b_ij v1 (x_j − v2 x_i), edge by edge."""
    laplacian = robust_laplacian(icosphere(0))
    layer = SpatialDifference(laplacian)
    flow = DifferenceFlow(layer, 0.5)
    with torch.no_grad():
        layer.head.weight.normal_()
        layer.head.bias.normal_()
        flow.drift.fill_(0.3)
    x = torch.randn(12, 1, dtype=torch.float64)
    w1, w2, v1, v2 = layer.weights(x)
    expected = torch.zeros_like(x)
    edges = layer.edges
    for k, (i, j) in enumerate(zip(edges.pattern.row.tolist(), edges.pattern.col.tolist(), strict=True)):
        expected[i] -= 0.5 * edges.values[k] * w1[k] * (x[i] - w2[k] * x[j])
        expected[i] += 0.3 * edges.values[k] * v1[k] * (x[j] - v2[k] * x[i])
    assert_within(flow(NOW, x), expected.detach(), 1e-12 * float(expected.detach().abs().max()))


def test_gradients_reach_every_parameter():
    flow = DifferenceFlow(SpatialDifference(robust_laplacian(icosphere(1))))
    with torch.no_grad():
        flow.differences.head.weight.normal_()
        flow.drift.fill_(0.3)
    flow(NOW, torch.randn(42, 1, dtype=torch.float64)).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in flow.parameters())


def test_on_shares_parameters_and_changes_the_operator():
    flow = DifferenceFlow(SpatialDifference(robust_laplacian(icosphere(1))))
    moved = flow.on(torus(9, 5))
    assert [id(p) for p in moved.parameters()] == [id(p) for p in flow.parameters()]
    assert moved(NOW, torch.randn(2, 45, 1, dtype=torch.float64)).shape == (2, 45, 1)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_rate_must_be_positive(rate):
    with pytest.raises(ValueError, match="rate must be positive and finite"):
        DifferenceFlow(SpatialDifference(robust_laplacian(icosphere(0))), rate)
