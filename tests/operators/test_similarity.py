"""Attention by angle: the dense cosine and correlation, blind to lengths, finite at zero."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import assert_gradients, assert_within, fields, graphs, roundoff
from operators import DomainError, Graph
from operators.similarity import Cosine, Pearson, direction

U = roundoff(torch.float64)
both = pytest.mark.parametrize("kind", [Cosine, Pearson])


def awake(kind, graph, heads=2):
    diffusivity = kind(graph, 2, 3, heads)
    torch.nn.init.normal_(diffusivity.query.weight)
    return diffusivity


def dense(diffusivity, x):
    """The scores (heads, n, n) in NumPy, one pair of nodes at a time."""
    K, Q = (layer.weight.detach().numpy() for layer in (diffusivity.key, diffusivity.query))
    n, heads = len(x), diffusivity.heads
    scores = np.zeros((heads, n, n))
    for h in range(heads):
        for i in range(n):
            for j in range(n):
                k, q = K[3 * h : 3 * h + 3] @ x[i].numpy(), Q[3 * h : 3 * h + 3] @ x[j].numpy()
                if isinstance(diffusivity, Pearson):
                    k, q = k - k.mean(), q - q.mean()
                scores[h, i, j] = k @ q / (max(np.linalg.norm(k), 1e-5) * max(np.linalg.norm(q), 1e-5))
    return torch.from_numpy(scores)


@both
@settings(max_examples=10)
@given(data=st.data())
def test_scores_are_the_dense_formula(kind, data):
    graph = data.draw(graphs(max_nodes=6))
    diffusivity, x = awake(kind, graph), data.draw(fields(graph.nodes, 2, exact=True))
    row, col = diffusivity.edges.pattern.row, diffusivity.edges.pattern.col
    expected = dense(diffusivity, x)[:, row, col]
    # Where the mean takes nearly everything of a vector away, its direction keeps few digits.
    slack = 64 * U * (1 + x.abs().max()) if kind is Cosine else 1e-8
    assert_within(diffusivity.score(x), expected, slack)


@both
def test_scores_do_not_depend_on_the_length_of_the_field(kind):
    graph = Graph(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]), 4, torch.ones(4, dtype=torch.float64))
    diffusivity, x = awake(kind, graph), torch.randn(4, 2, dtype=torch.float64)
    for size in (1e-3, 1e6, 1e200):
        assert_within(diffusivity.score(size * x), diffusivity.score(x).detach(), 64 * U)
    assert (diffusivity.score(x).abs() <= 1 + 8 * U).all()


@both
def test_correlation_is_one_where_keys_and_queries_are_one(kind):
    loops = Graph(torch.tensor([[0, 1, 2], [0, 1, 2]]), 3, torch.ones(3, dtype=torch.float64))
    untrained = kind(loops, 2, 3)
    assert_within(untrained.score(torch.randn(3, 2, dtype=torch.float64)), 1.0, 16 * U)


def test_pearson_does_not_see_a_constant_added_to_a_key():
    graph = Graph(torch.tensor([[0, 1, 2], [1, 2, 0]]), 3, torch.ones(3, dtype=torch.float64))
    pearson = awake(Pearson, graph, 1)
    key, query = (torch.randn(3, 3, dtype=torch.float64) for _ in range(2))
    torch.testing.assert_close(pearson.pairs(key + 5, query - 2), pearson.pairs(key, query))
    cosine = awake(Cosine, graph, 1)
    assert not torch.allclose(cosine.pairs(key + 5, query), cosine.pairs(key, query), atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_directions_are_unit_vectors_of_any_length_and_short_ones_fade(dtype):
    x = torch.tensor([3.0, 4.0], dtype=dtype)
    largest = 2.0**13 if dtype == torch.float16 else 2.0**125
    for size in (2.0**-10, 1.0, largest):
        assert_within(direction(size * x).double(), torch.tensor([0.6, 0.8], dtype=torch.float64), 4 * roundoff(dtype))
    assert torch.equal(direction(torch.zeros(2, dtype=dtype)), torch.zeros(2, dtype=dtype))
    if dtype != torch.float16:
        torch.testing.assert_close(direction(1e-6 * x / 5), x / 5 * 0.1)


def test_derivatives_of_a_direction_also_where_it_fades():
    for x in (torch.randn(4, 3, dtype=torch.float64), 1e-7 * torch.randn(4, 3, dtype=torch.float64)):
        assert_gradients(direction, x)
    zero = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(direction(zero).sum(), zero, create_graph=True)
    torch.testing.assert_close(slope, torch.full((2,), 1e5, dtype=torch.float64))


def test_a_width_of_one_has_no_correlation():
    graph = Graph(torch.tensor([[0, 1], [1, 0]]), 2)
    with pytest.raises(DomainError, match="width of at least 2"):
        Pearson(graph, 3, 1)
    with pytest.raises(DomainError, match="width must be at least 1"):
        Cosine(graph, 3, 0)
