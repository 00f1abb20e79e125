"""Limits of steps and seconds, the history and the bar: each counts accepted steps, and a limit is a typed error."""

import math
import time

import pytest

from integrators.solution import SolveError, Statistics, Status
from integrators.watch import Watch


class Bar:
    def __init__(self):
        self.reached = []

    def reach(self, fraction):
        self.reached.append(fraction)


def test_steps_are_counted_and_kept_only_if_asked():
    for history in (False, True):
        watch, stats, bar = Watch(history=history), Statistics(), Bar()
        watch.bar = bar
        for k in range(3):
            watch.accepted(stats, 0.5 * k, 0.5, (k + 1) / 3)
        assert stats.accepted == 3
        assert stats.history == ([(0.0, 0.5), (0.5, 0.5), (1.0, 0.5)] if history else [])
        assert bar.reached == [1 / 3, 2 / 3, 1.0]


def test_the_step_limit_is_exact():
    watch, stats = Watch(max_steps=2), Statistics()
    watch.accepted(stats, 0.0, 0.5, 0.1)
    watch.accepted(stats, 0.5, 0.5, 0.2)
    with pytest.raises(SolveError, match=r"reached t = 1 and its limit of 2 steps: .*raise max_steps") as caught:
        watch.accepted(stats, 1.0, 0.5, 0.3)
    assert caught.value.status is Status.STEPS
    assert stats.accepted == 2


def test_the_time_limit_counts_from_the_making_of_the_watch():
    watch = Watch(max_seconds=0.01)
    watch.check_clock(0.0)
    time.sleep(0.02)
    for act in (lambda: watch.check_clock(0.7), lambda: watch.accepted(Statistics(), 0.2, 0.5, 0.5)):
        with pytest.raises(SolveError, match=r"reached t = 0\.7 and its limit of 0\.01 seconds: .*raise max_seconds") as caught:
            act()
        assert caught.value.status is Status.SECONDS


def test_without_limits_nothing_ends():
    watch, stats = Watch(), Statistics()
    assert (watch.max_steps, watch.max_seconds, watch.jumps, watch.dense) == (math.inf, math.inf, (), False)
    for k in range(100):
        watch.accepted(stats, float(k), 1.0, 0.0)
    watch.check_clock(0.0)
    assert stats.accepted == 100


@pytest.mark.parametrize("name", ["max_steps", "max_seconds"])
@pytest.mark.parametrize("value", [math.nan, -1, True, None, "5"])
def test_limits_that_are_none_are_refused(name, value):
    """NaN would be no limit at all."""
    with pytest.raises(ValueError, match=rf"{name} must be a number that is not negative, not"):
        Watch(**{name: value})
