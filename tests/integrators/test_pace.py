"""The step control of many groups is that of one, entry by entry."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from integrators.controller import INTEGRAL, PI, PID, Controller
from integrators.dopri5 import Dopri5
from integrators.method import Clock
from integrators.pace import Pace, beside, factors, fit
from integrators.solution import Statistics

ratios = st.one_of(st.floats(0, 1), st.floats(0, 1e9), st.just(0.0), st.just(1.0))
histories = st.tuples(ratios, st.none() | st.floats(0, 1), st.none() | st.floats(0, 1))


@given(st.lists(histories, min_size=1, max_size=9), st.integers(1, 8))
@pytest.mark.parametrize("controller", [INTEGRAL, PI, PID, Controller(0.6, -0.2, 0.1, 0.8, 0.1, 5.0)])
def test_factors(controller, rows, order):
    now, before, earlier = (
        torch.tensor([math.nan if r is None else r for r in column], dtype=torch.float64) for column in zip(*rows, strict=True)
    )
    expected = [controller.factor(r, order, a, b) for r, a, b in rows]
    assert factors(controller, now, order, before, earlier).tolist() == pytest.approx(expected, rel=1e-13)


def _row(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_factors_of_a_controller_of_ones_own():
    class Halve(Controller):
        def factor(self, ratio, order, before=None, earlier=None):
            return 0.5 if before is None else ratio

    found = factors(Halve(), *_row([0.3, 0.7]), 5, *_row([math.nan, 0.2], [1.0, 1.0]))
    assert found.tolist() == [0.5, 0.7]
    assert found.dtype == torch.float64


@given(st.lists(st.tuples(st.floats(1e-12, 20), st.floats(1e-9, 10)), min_size=1, max_size=9))
def test_fit(rows):
    h, left = torch.tensor(rows, dtype=torch.float64).T
    expected = [Dopri5().fit(None, p, 10.0 - r, 0.0, 10.0, 0.0) for p, r in rows]
    assert fit(h, 10.0 - (10.0 - left), torch.tensor(10.0)).tolist() == expected


@pytest.mark.parametrize(("t", "jumps"), [([0.0, 0.4, 1.0], (0.3, 0.7)), ([1.0, 0.0], (0.3,)), ([0.1, 0.3], ())])
@given(draw=st.data())
def test_every_group_walks_to_the_end(t, jumps, draw):
    """Whatever the errors: it ends a step at each jump, starts anew beyond it, and ends at the end."""
    clock = Clock(torch.tensor(t, dtype=torch.float64), jumps)
    pace = Pace(Dopri5(), clock, torch.tensor([1, 0, 3]))
    pace.proposal = torch.full((3,), 0.11, dtype=torch.float64)
    passed, stats, met = 0, Statistics(), []
    while bool(pace.active.any()):
        before = pace.time
        h = pace.propose()
        assert float(h[1]) == 0.0
        assert bool((clock.sign * (before + h) <= clock.sign * pace.ends[pace.stretch]).all())
        passed += 1
        worst = 1.0 if passed > 40 else 3.0
        ratio = torch.tensor([draw.draw(st.floats(0, worst)), math.nan, 0.5], dtype=torch.float64)
        good = pace.judge(ratio)
        assert good.tolist() == [bool(ratio[0] <= 1) and bool(pace.active[0]), False, bool(pace.active[2])]
        jumped = pace.move(good, ratio)
        met += [float(before[2] + h[2])] if bool(jumped[2]) else []
    assert pace.time.tolist() == [t[-1]] * 3
    inner = [s for s in jumps if min(t) < s < max(t)]
    assert met == [beside(s, -clock.sign) for s in sorted(inner, reverse=clock.sign < 0)]
    pace.write(stats)
    assert stats.accepted == sum(stats.samples.accepted)
    assert stats.samples.accepted[1] == 0
    assert stats.samples.t == [t[-1]] * 3


def test_a_group_that_failed_does_not_grow_at_once():
    pace = Pace(Dopri5(), Clock(torch.tensor([0.0, 9.0], dtype=torch.float64)), torch.ones(2, dtype=torch.int64))
    pace.proposal = torch.full((2,), 0.1, dtype=torch.float64)
    pace.propose()
    good = pace.judge(torch.tensor([2.0, 1e-6]).double())
    pace.move(good, torch.tensor([2.0, 1e-6]).double())
    assert pace.proposal[0] < 0.1 < pace.proposal[1]
    shorter = float(pace.proposal[0])
    pace.propose()
    pace.move(pace.judge(torch.tensor([1e-6, math.nan]).double()), torch.tensor([1e-6, math.nan]).double())
    assert float(pace.proposal[0]) == shorter
    assert pace.troubles.tolist() == [0, 1]
    assert pace.slowest == 0
