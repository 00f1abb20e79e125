"""Step control: what each controller does with an error, and what it makes of a solve."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from integrators.controller import INTEGRAL, PI, PID, Controller
from integrators.dopri5 import Dopri5
from integrators.integrate import integrate

presets = pytest.mark.parametrize("controller", [INTEGRAL, PI, PID], ids=["I", "PI", "PID"])
ratios = st.floats(1e-12, 1e6)


@given(ratio=ratios, order=st.integers(2, 8))
def test_integral_control_is_the_textbook_rule(ratio, order):
    expected = 0.9 * max(ratio, 1e-10) ** (-1 / order)
    assert INTEGRAL.factor(ratio, order) == pytest.approx(min(10.0, max(0.2, expected)))


@given(controller=st.sampled_from([INTEGRAL, PI, PID]), now=ratios, before=ratios, earlier=ratios, order=st.integers(2, 8))
def test_the_factor_stays_within_its_limits(controller, now, before, earlier, order):
    factor = controller.factor(now, order, before, earlier)
    assert 0.2 <= factor <= (10.0 if now <= 1 else 1.0)


@presets
@pytest.mark.parametrize("order", [2, 3, 5])
def test_every_controller_settles_at_the_same_error(controller, order):
    """Where r is safety^p in every step the length stays; it is reached from above and below on r = (h/h₀)^p."""
    goal = 0.9**order
    assert controller.factor(goal, order, goal, goal) == pytest.approx(1.0)
    for h in (0.3, 1.0):
        past = (None, None)
        for _ in range(60):
            ratio = h**order
            h *= controller.factor(ratio, order, *past)
            past = (ratio, past[0]) if ratio <= 1 else (None, None)
        assert h == pytest.approx(0.9, rel=1e-3)


@presets
def test_unknown_errors_count_as_the_goal(controller):
    goal = 0.9**5
    assert controller.factor(0.3, 5) == pytest.approx(controller.factor(0.3, 5, goal, goal))


@presets
def test_after_a_rejection_only_the_last_error_tells(controller):
    assert controller.factor(2.0, 5, 1e-8, 1e-8) == controller.factor(2.0, 5) == pytest.approx(0.9 * 2 ** (-1 / 5))


def test_pi_and_pid_do_not_stop_and_go_where_stability_limits_the_step():
    """Hairer and Wanner II, IV.2: the elementary controller rejects again and again on a decaying solution."""
    rates = torch.logspace(-1, 2, 50, dtype=torch.float64)
    f, x0 = lambda t, x: -rates * x, torch.ones(50, dtype=torch.float64)
    with torch.no_grad():
        runs = [integrate(f, x0, [0.0, 10.0], Dopri5(1e-4, 1e-4, controller=c)).stats for c in (INTEGRAL, PI, PID)]
    assert runs[0].rejected >= 20
    assert all(stats.rejected <= runs[0].rejected / 4 for stats in runs[1:])
    assert all(stats.accepted <= 1.05 * (runs[0].accepted + runs[0].rejected) for stats in runs[1:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"safety": 0.0}, "0 < safety ≤ 1"),
        ({"safety": 1.1}, "0 < safety ≤ 1"),
        ({"safety": math.nan}, "0 < safety ≤ 1"),
        ({"smallest": 1.0}, "smallest < 1 < largest"),
        ({"largest": 1.0}, "smallest < 1 < largest"),
        ({"integral": 0.0}, "integral must be positive"),
        ({"derivative": math.inf}, "must be finite"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Controller(**settings)


def test_a_controller_is_a_value():
    assert dataclasses.replace(PI) == PI == Controller()
    assert PI != PID
