"""A diffusivity in stages: each time has its own, and an integrator ends its steps where they change."""

import pickle
from copy import deepcopy

import pytest
import torch

from integrators import Dopri5, integrate
from neuralpde.beltrami import BeltramiFlow
from operators import DomainError, Graph, combinatorial_laplacian
from operators.attention import ScaledDotProduct
from operators.diffusivity import FixedDiffusivity
from operators.gated import Gated
from operators.normalisation import Over, Softmax
from operators.stages import Stages

RING = Graph(torch.tensor([[0, 1, 2, 3, 1, 2, 3, 0], [1, 2, 3, 0, 0, 1, 2, 3]]), 4, torch.ones(8, dtype=torch.float64))
BACK = Graph(RING.edge_index[:, :4], 4, torch.ones(4, dtype=torch.float64))


def time(t):
    return torch.tensor(t, dtype=torch.float64)


def awake():
    base = ScaledDotProduct(RING, 2, 3)
    torch.nn.init.normal_(base.query.weight)
    return base


def test_each_time_has_its_stage():
    stages = [awake() for _ in range(3)]
    diffusivity = Stages(stages, [1.0, 2.5])
    assert diffusivity.jumps == (1.0, 2.5)
    for t, k in ((-1.0, 0), (0.999, 0), (1.0, 1), (2.4, 1), (2.5, 2), (99.0, 2)):
        assert diffusivity.at(time(t)) is stages[k]
    assert len(list(diffusivity.parameters())) == 6


def test_stages_of_stages_and_what_is_made_of_them():
    early, late, last = awake(), awake(), awake()
    diffusivity = Gated(Stages([Stages([early, late], [1.0]), last], [2.0]))
    assert diffusivity.jumps == (1.0, 2.0)
    x = torch.randn(4, 2, dtype=torch.float64)
    for t, stage in ((0.5, early), (1.5, late), (2.5, last)):
        now = diffusivity.at(time(t))
        torch.testing.assert_close(now(x).values, (stage(x).values + FixedDiffusivity(RING)(x).values) / 2)
        assert now.logit is diffusivity.logit


def test_a_flow_through_stages_is_one_solve_after_the_other():
    one, two = FixedDiffusivity(RING), FixedDiffusivity(BACK)
    flow = BeltramiFlow(Stages([one, two], [0.7]))
    x = torch.randn(4, 2, dtype=torch.float64)
    solver = Dopri5(rtol=1e-9, atol=1e-11)
    whole = integrate(flow, x, time([0.0, 2.0]), solver).final
    half = torch.matrix_exp(0.7 * (one(x).matrix() - torch.eye(4))) @ x
    expected = torch.matrix_exp(1.3 * (two(x).matrix() - torch.eye(4))) @ half
    torch.testing.assert_close(whole.detach(), expected, rtol=1e-7, atol=1e-8)


def test_every_stage_learns_from_the_end():
    flow = BeltramiFlow(Stages([awake(), awake()], [0.5]))
    x = torch.randn(4, 2, dtype=torch.float64)
    integrate(flow, x, time([0.0, 1.0]), Dopri5(rtol=1e-5)).final.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in flow.parameters())


def test_copies_and_other_graphs():
    diffusivity = Stages([awake(), awake()], [1.0])
    x = torch.randn(4, 2, dtype=torch.float64)
    for copy in (deepcopy(diffusivity), pickle.loads(pickle.dumps(diffusivity))):
        assert torch.equal(copy.at(time(2.0))(x).values, diffusivity.at(time(2.0))(x).values)
    moved = diffusivity.on(Graph(torch.tensor([[0, 1], [1, 0]]), 2, torch.ones(2, dtype=torch.float64)))
    assert moved.at(time(2.0))(x[:2]).shape == (2, 2)
    assert moved.edges.weight.shape == (2,)
    assert all(a is b for a, b in zip(moved.parameters(), diffusivity.parameters(), strict=True))
    assert moved.over is Over.ROWS


def test_without_a_time_it_has_no_value():
    diffusivity = Stages([awake()], [])
    for ask in (diffusivity, diffusivity.score):
        with pytest.raises(DomainError, match=r"without a time: call stages\.at\(t\)"):
            ask(torch.zeros(4, 2, dtype=torch.float64))


def test_stages_that_do_not_fit_are_refused():
    one = FixedDiffusivity(RING)
    for times in ([], [1.0, 2.0]):
        with pytest.raises(DomainError, match=f"2 stages need 1 times between them, not {len(times)}"):
            Stages([one, one], times)
    with pytest.raises(DomainError, match="0 stages need"):
        Stages([], [])
    for times in ([2.0, 1.0], [1.0, 1.0], [float("nan"), 1.0], [0.0, float("inf")]):
        with pytest.raises(DomainError, match="must be finite and rise"):
            Stages([one, one, one], times)
    with pytest.raises(DomainError, match="stage 1 must be a diffusivity"):
        Stages([one, None], [1.0])
    with pytest.raises(DomainError, match="stage 1 has other nodes"):
        Stages([one, FixedDiffusivity(Graph(torch.tensor([[0], [1]]), 2))], [1.0])
    with pytest.raises(DomainError, match="normalised over something else"):
        Stages([one, FixedDiffusivity(RING, normalise=Softmax(Over.COLUMNS))], [1.0])
    with pytest.raises(DomainError, match="another rate"):
        Stages([one, FixedDiffusivity(combinatorial_laplacian(RING))], [1.0])
