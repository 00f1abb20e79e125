"""Attention by distance: the dense Gaussian kernels, of features, positions and points of a space."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import assert_gradients, assert_within, fields, graphs, roundoff
from operators import DomainError, FieldError, Graph
from operators.exponential_kernel import ExponentialKernel
from operators.position_space import Euclidean, PoincareBall, PositionSpace

U = roundoff(torch.float64)
TRIANGLE = Graph(torch.tensor([[0, 1, 2, 2], [1, 2, 0, 1]]), 4, torch.ones(4, dtype=torch.float64))


@dataclass(frozen=True)
class Circle(PositionSpace):
    """Angles, with the way round as their distance; nothing beyond π."""

    def distance(self, u, v):
        return torch.minimum((u - v).abs(), 2 * math.pi - (u - v).abs()).sum(-1)

    def log(self, u, v):
        raise NotImplementedError

    def exp(self, u, velocity):
        raise NotImplementedError

    def check(self, u, name="positions"):
        if bool((u.abs() > math.pi).any()):
            raise DomainError(f"{name} are no angles")


def awake(kernel):
    for parameter in kernel.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return kernel


def projected(kernel, z, i, j, head):
    """σ² exp(−|q_j − k_i|² / (2 ℓ²)) in NumPy."""
    K, Q = (layer.weight.detach().numpy()[3 * head : 3 * head + 3] for layer in (kernel.key, kernel.query))
    return scaled(kernel, float(np.sum((K @ z[i].numpy() - Q @ z[j].numpy()) ** 2)), head)


def scaled(kernel, square, head):
    sigma, length = (math.exp(float(p.detach()[head])) for p in (kernel.scale.log_sigma, kernel.scale.log_length))
    return sigma**2 * math.exp(-square / (2 * length**2))


@settings(max_examples=8)
@given(data=st.data())
def test_scores_are_the_dense_product_of_kernels(data):
    graph = data.draw(graphs(max_nodes=5))
    u, x = (data.draw(fields(graph.nodes, c, exact=True)) / 8 for c in (1, 2))
    positions = data.draw(st.sampled_from([None, 1, Euclidean()]))
    diffusivity = awake(ExponentialKernel(graph, 3 if positions is None else 2, 3, 2, positions=positions))
    scores, pattern = diffusivity.score((u, x)).detach(), diffusivity.edges.pattern
    for e, (i, j) in enumerate(zip(pattern.row.tolist(), pattern.col.tolist(), strict=True)):
        for head in range(2):
            expected = projected(diffusivity.features, torch.cat([u, x], -1) if positions is None else x, i, j, head)
            if positions == 1:
                expected *= projected(diffusivity.positions, u, i, j, head)
            elif positions is not None:
                expected *= scaled(diffusivity.positions, float((u[i] - u[j]).square().sum()), head)
            # An exponent of size d²/2ℓ² errs by as many u.
            assert scores[head, e].item() == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_a_space_of_ones_own_measures_the_positions():
    kernel = ExponentialKernel(TRIANGLE, 1, positions=Circle())
    with torch.no_grad():
        kernel.features.key.weight.zero_()
        kernel.features.query.weight.zero_()
    u = torch.tensor([[3.0], [-3.0], [0.0], [1.0]], dtype=torch.float64)
    scores = kernel.score((u, torch.zeros(4, 1, dtype=torch.float64)))[0]
    entries = dict(
        zip(zip(kernel.edges.pattern.row.tolist(), kernel.edges.pattern.col.tolist(), strict=True), scores.tolist(), strict=True)
    )
    assert entries[1, 0] == pytest.approx(math.exp(-((2 * math.pi - 6) ** 2) / 2))
    assert entries[2, 1] == pytest.approx(math.exp(-9 / 2))
    with pytest.raises(DomainError, match="positions are no angles"):
        kernel((u + 1, torch.zeros(4, 1, dtype=torch.float64)))


def test_points_of_the_ball_are_told_apart_by_hyperbolic_distance():
    kernel = ExponentialKernel(TRIANGLE, 1, heads=2, positions=PoincareBall())
    with torch.no_grad():
        kernel.features.key.weight.zero_()
        kernel.features.query.weight.zero_()
    u = torch.tensor([[0.0, 0.9], [0.0, 0.95], [0.1, 0.0], [0.0, 0.0]], dtype=torch.float64)
    scores, pattern = kernel.score((u, torch.zeros(4, 1, dtype=torch.float64))), kernel.edges.pattern
    for e, (i, j) in enumerate(zip(pattern.row.tolist(), pattern.col.tolist(), strict=True)):
        norm = [1 - float(u[k].square().sum()) for k in (i, j)]
        distance = math.acosh(1 + 2 * float((u[i] - u[j]).square().sum()) / (norm[0] * norm[1]))
        assert_within(scores[:, e], math.exp(-(distance**2) / 2), 1e-12)
    assert_gradients(lambda u: kernel.score((u, u[:, :1])), u)


def test_points_outside_the_ball_are_refused():
    kernel = ExponentialKernel(TRIANGLE, 1, positions=PoincareBall())
    u = torch.tensor([[0.0, 0.9], [0.8, 0.8], [0.1, 0.0], [0.0, 0.0]], dtype=torch.float64)
    with pytest.raises(DomainError, match="outside the open unit ball"):
        kernel((u, torch.zeros(4, 1, dtype=torch.float64)))


def test_an_untrained_kernel_prefers_what_is_near():
    star = Graph(torch.tensor([[1, 2], [0, 0]]), 3)
    A = ExponentialKernel(star, 1, width=8)(torch.tensor([[0.0], [0.1], [9.0]]))
    assert A.matrix()[0, 1] > 0.6


def test_scores_of_far_features_are_zero_and_of_equal_ones_sigma_squared():
    kernel = ExponentialKernel(TRIANGLE, 2, heads=2)
    with torch.no_grad():
        kernel.features.scale.log_sigma.copy_(torch.tensor([0.5, -0.5]))
    x = torch.ones(4, 2, dtype=torch.float64)
    assert_within(kernel.score(x), torch.tensor([[math.e], [1 / math.e]], dtype=torch.float64), 8 * U)
    far = 1e6 * torch.randn(4, 2, dtype=torch.float64)
    off = kernel.edges.pattern.row != kernel.edges.pattern.col
    assert (kernel.score(far)[:, off] == 0).all()


def test_each_kernel_learns_its_own_scale():
    graph = Graph(torch.tensor([[0, 1, 2, 2], [2, 2, 0, 1]]), 3, torch.ones(4, dtype=torch.float64))
    kernel = awake(ExponentialKernel(graph, 2, 3, 2, positions=1))
    u, x = (torch.randn(3, c, dtype=torch.float64) for c in (1, 2))
    (kernel((u, x)) @ x).square().sum().backward()
    names = {name for name, parameter in kernel.named_parameters() if parameter.grad.abs().sum() > 0}
    parts = ("key.weight", "query.weight", "scale.log_sigma", "scale.log_length")
    assert names == {f"{side}.{part}" for side in ("features", "positions") for part in parts}


def test_states_that_do_not_fit_are_refused():
    with pytest.raises(FieldError, match="has a kernel of positions"):
        ExponentialKernel(TRIANGLE, 2, positions=1)(torch.zeros(4, 3, dtype=torch.float64))
    for wrong in ((1, 1), (2, 2)):
        z = tuple(torch.zeros(4, c, dtype=torch.float64) for c in wrong)
        with pytest.raises(FieldError, match="ExponentialKernel reads"):
            ExponentialKernel(TRIANGLE, 2, positions=1)(z)
    with pytest.raises(DomainError, match="channels must be at least 1"):
        ExponentialKernel(TRIANGLE, 2, positions=0)
