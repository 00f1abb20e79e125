"""The gate between attention and the random walk: its limits, its convexity, and that it learns."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import assert_within, fields, graphs, roundoff
from operators import DomainError, Graph
from operators.attention import ScaledDotProduct
from operators.diffusivity import FixedDiffusivity
from operators.gated import Gated
from operators.normalisation import Over, Softmax

U = roundoff(torch.float64)


def awake(graph, over=Over.ROWS):
    base = ScaledDotProduct(graph, 2, 3, 2, normalise=Softmax(over), self_loops=0.5)
    torch.nn.init.normal_(base.query.weight)
    return base


@pytest.mark.parametrize("over", Over)
@settings(max_examples=12)
@given(data=st.data())
def test_it_is_the_convex_combination_and_its_limits(over, data):
    graph = data.draw(graphs(directed=True))
    x, base = data.draw(fields(graph.nodes, 2)), awake(graph, over)
    A, P = base(x).values.detach(), FixedDiffusivity(graph, normalise=Softmax(over), self_loops=0.5)(x).values
    for gate in (0.2, 0.5):
        gated = Gated(base, gate)
        assert float(gated.gate.detach()) == pytest.approx(gate)
        assert_within(gated(x).values, (1 - gate) * A + gate * P, 8 * U)
    gated = Gated(base)
    for logit, limit in ((-800.0, A), (800.0, P)):
        torch.nn.init.constant_(gated.logit, logit)
        assert torch.equal(gated(x).values, limit)


def test_gate_and_base_both_learn():
    graph = Graph(torch.tensor([[0, 1, 2, 2], [2, 2, 0, 1]]), 3, torch.ones(4, dtype=torch.float64))
    gated, x = Gated(awake(graph)), torch.randn(3, 2, dtype=torch.float64)
    (gated(x) @ x).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in gated.parameters())
    assert {name for name, _ in gated.named_parameters()} == {"logit", "base.key.weight", "base.query.weight"}


def test_an_untrained_gate_of_an_untrained_attention_is_the_geometry():
    graph = Graph(torch.tensor([[0, 1, 2, 2], [2, 2, 0, 1]]), 3)
    x = torch.randn(3, 2)
    torch.testing.assert_close(Gated(ScaledDotProduct(graph, 2))(x).values, FixedDiffusivity(graph)(x).values)


def test_what_it_stands_on_shows_through():
    graph = Graph(torch.tensor([[0, 1], [1, 0]]), 2)
    base = ScaledDotProduct(graph, 2, normalise=Softmax(Over.COLUMNS))
    gated, t = Gated(base), torch.tensor(0.0)
    assert gated.over is Over.COLUMNS
    assert gated.laplacian is base.laplacian
    assert gated.rate is base.rate
    assert gated.edges is base.edges
    assert gated.jumps == ()
    assert gated.at(t) is gated
    assert torch.equal(gated.score(torch.ones(2, 2)), base.score(torch.ones(2, 2)))


@pytest.mark.parametrize("gate", [0.0, 1.0, -1.0, float("nan")])
def test_a_gate_that_cannot_move_is_refused(gate):
    base = FixedDiffusivity(Graph(torch.tensor([[0, 1], [1, 0]]), 2))
    with pytest.raises(DomainError, match=r"between 0 .* and 1"):
        Gated(base, gate)


def test_only_a_diffusivity_can_be_gated():
    with pytest.raises(DomainError, match="Gated changes a diffusivity such as ScaledDotProduct, not a Linear"):
        Gated(torch.nn.Linear(2, 2))
