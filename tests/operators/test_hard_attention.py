"""Dropped edges: the right ones, never the last, and weights that still learn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import assert_within, fields, graphs, roundoff
from operators import DomainError, Graph
from operators.attention import ScaledDotProduct
from operators.diffusivity import FixedDiffusivity
from operators.gat import GAT
from operators.hard_attention import HardAttention
from operators.normalisation import Over, Softmax

U = roundoff(torch.float64)


def awake(graph, over=Over.ROWS):
    base = ScaledDotProduct(graph, 2, 3, 2, normalise=Softmax(over))
    torch.nn.init.normal_(base.query.weight)
    return base


@pytest.mark.parametrize("over", Over)
@settings(max_examples=12)
@given(data=st.data(), quantile=st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.999]))
def test_it_is_the_dense_definition(over, data, quantile):
    graph = data.draw(graphs(directed=True, min_nodes=2))
    x, base = data.draw(fields(graph.nodes, 2, exact=True)), awake(graph, over)
    hard, pattern = HardAttention(base, quantile), base.edges.pattern
    a = base(x).values.detach().numpy()
    own = (pattern.row if over is Over.ROWS else pattern.col).numpy()
    threshold = np.sort(a)[int(quantile * len(a))]
    kept = np.array([a[e] >= threshold or a[e] == a[own == own[e]].max() for e in range(len(a))])
    expected = np.array([a[e] / a[kept & (own == own[e])].sum() if kept[e] else 0.0 for e in range(len(a))])
    assert_within(hard(x).values, torch.from_numpy(expected), 16 * (4 + len(a)) * U)
    assert {own[e] for e in range(len(a)) if expected[e] > 0} == set(own)


def test_distinct_entries_are_dropped_in_the_fraction_asked_for():
    n = 10
    complete = torch.cartesian_prod(torch.arange(n), torch.arange(n)).T
    base = awake(Graph(complete, n, torch.ones(n * n, dtype=torch.float64)))
    x = torch.randn(3, n, 2, dtype=torch.float64)
    kept = HardAttention(base, 0.3)(x).values > 0
    # A row's largest is never among the least 30 of 100 here.
    assert kept.sum(-1).tolist() == [70, 70, 70]


def test_all_edges_in_evaluation():
    graph = Graph(torch.tensor([[0, 1, 2, 2], [2, 2, 0, 1]]), 3)
    base, x = awake(graph), torch.randn(3, 2)
    hard = HardAttention(base, 0.6)
    assert (hard(x).values == 0).any()
    assert torch.equal(hard.eval()(x).values, base(x).values)
    assert (hard.train()(x).values == 0).any()


@pytest.mark.parametrize("over", Over)
def test_the_weights_keep_their_gradient(over):
    """In the authors' code the retained weights are computed without one."""
    graph = Graph(torch.cartesian_prod(torch.arange(5), torch.arange(5)).T, 5, torch.ones(25, dtype=torch.float64))
    hard = HardAttention(GAT(graph, 2, 3, 2, normalise=Softmax(over)), 0.5)
    x = torch.randn(5, 2, dtype=torch.float64)
    A = hard(x)
    assert 0 < int((A.values == 0).sum()) <= 12
    (A @ x).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in hard.parameters())
    small = x.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: hard(x) @ x, small, eps=1e-7)


def test_equal_entries_go_together_or_stay():
    ring = Graph(torch.tensor([[0, 1, 2, 3, 1, 2, 3, 0], [1, 2, 3, 0, 0, 1, 2, 3]]), 4)
    assert torch.equal(HardAttention(FixedDiffusivity(ring), 0.9)(torch.zeros(4, 1)).values, torch.full((8,), 0.5))


@pytest.mark.parametrize("quantile", [-0.1, 1.0, float("nan")])
def test_quantiles_that_leave_nothing_are_refused(quantile):
    base = FixedDiffusivity(Graph(torch.tensor([[0, 1], [1, 0]]), 2))
    with pytest.raises(DomainError, match="quantile must be at least 0"):
        HardAttention(base, quantile)
    with pytest.raises(DomainError, match="HardAttention changes a diffusivity"):
        HardAttention(None, 0.5)
