"""A round is a function of its step and its carry alone, and what it gives is put together from the rows of many rounds."""

import pytest
import torch

from integrators.dopri5 import Dopri5
from integrators.gradients import Run
from integrators.method import Step
from integrators.ragged import _Samples
from integrators.rounds import Round, Rounds, where
from integrators.watch import Watch

DOUBLE = torch.float64
K = torch.tensor([[0.5], [3.0], [40.0]], dtype=DOUBLE)
TIMES = torch.tensor([0.0, 0.2, 0.5, 1.0], dtype=DOUBLE)


def decay(t, x):
    return -K * (x - torch.where(t < 0.6, torch.sin(9 * t), 2.0))


@pytest.fixture
def run():
    x0 = torch.tensor([[1.0, 2.0], [0.5, 0.1], [-1.0, 3.0]], dtype=DOUBLE)
    return Run(Rounds(pair=Dopri5(rtol=1e-5), groups=_Samples(x0)), decay, x0, TIMES, Watch(jumps=(0.6,)))


def march(run):
    return list(run.method.steps(run.f, run.x0, run.clock, run.watch, run.stats))


def test_a_round_repeated_is_the_same_bit_by_bit(run):
    for step, carry, trial in march(run):
        again = run.method.repeat(run.f, step, carry, run.clock)
        for a, b in zip(trial.carry, again.carry, strict=True):
            assert torch.equal(a, b)


def test_a_round_repeated_from_the_round_before_is_the_same_bit_by_bit(run):
    """As from a checkpoint: also where a jump was passed in between."""
    rounds = march(run)
    assert any(step.fresh is not None for step, _, _ in rounds)
    carry = run.method.start(run.f, 0.0, run.x0)
    for step, _, trial in rounds:
        carry = run.method.repeat(run.f, step, carry, run.clock).carry
        assert torch.equal(carry[0], trial.carry[0])
        assert torch.equal(carry[1], trial.carry[1])


def test_groups_that_stay_are_exactly_as_before(run):
    stayed = 0
    for step, carry, trial in march(run):
        rows = step.lengths == 0
        assert torch.equal(step.arrivals[rows], step.times[rows])
        assert torch.equal(trial.carry[0][rows], carry[0][rows])
        stayed += int(rows.sum())
    assert stayed > 10


def test_every_row_of_every_output_comes_from_one_round(run):
    found = torch.zeros(len(TIMES), 3)
    for step, carry, trial in march(run):
        for j, x in run.method.outputs(run.f, step, carry, trial, run.clock):
            found[j] += (x != 0).all(1)
    assert found.tolist() == [[0.0] * 3] + [[1.0] * 3] * 3


def test_steps_of_other_methods_are_refused(run):
    with pytest.raises(TypeError, match="a round is repeated from a Round"):
        run.method.repeat(run.f, Step(0.0, 0.1, 0.0), (run.x0, run.x0), run.clock)
    with pytest.raises(TypeError, match="outputs of a round"):
        next(run.method.outputs(run.f, Step(0.0, 0.1, 0.0), (run.x0,), None, run.clock))


def test_a_round_is_a_step_and_shows_when_it_began(run):
    first, *_, last = (step for step, _, _ in march(run))
    assert isinstance(first, Round)
    assert first.before == 0.0
    assert last.before != 0.0


def test_where_of_tuples():
    rows, one = torch.tensor([[True], [False]]), torch.ones(2, 1)
    a, b = where(rows, (one, 2j * one), (0 * one, 0j * one))
    assert a.tolist() == [[1.0], [0.0]]
    assert b.tolist() == [[2j], [0.0]]
