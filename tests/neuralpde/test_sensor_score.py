"""Errors against a plain loop."""

import math

import pytest
import torch
from sensor_cases import case

from neuralpde.sensor_case import SensorCase
from neuralpde.sensor_method import Forecaster
from neuralpde.sensor_score import Score, forecast, mean_error, score


class Constant(Forecaster):
    def __init__(self, value=0.0, extra=0):
        self.value, self.extra = value, extra

    def forecast(self, given):
        assert not hasattr(given, "targets")
        return torch.full((len(given.values), given.wanted.shape[1] + self.extra, *given.values.shape[2:]), self.value)


def partly_seen():
    one = case(windows=70)
    seen = one.seen.clone()
    seen[:, 6:] = torch.rand(70, 4, 8, 1, generator=torch.Generator().manual_seed(0)) > 0.3
    scored = torch.arange(8) < 5
    return SensorCase("test", one.placement, torch.where(seen, one.values, 0.0), seen, one.times, 6, scored)


def test_only_seen_and_scored_targets_count():
    one = partly_seen()
    found = score(Constant(0.25), one)
    errors = [
        abs(0.25 - float(one.values[k, 6 + lead, i, 0]))
        for lead in range(3)
        for k in range(70)
        for i in range(5)
        if bool(one.seen[k, 6 + lead, i, 0])
    ]
    assert found.value("mae", 3) == pytest.approx(sum(errors) / len(errors), rel=1e-6)
    assert found.value("mse", 3) == pytest.approx(sum(e * e for e in errors) / len(errors), rel=1e-6)
    assert [math.isnan(value) for value in found.sensors] == [False] * 5 + [True] * 3
    assert found.diverged == 0
    assert len(found.at("mae")) == 4


def test_what_diverges_has_no_value():
    found = score(Constant(math.inf), case(windows=3))
    assert math.isnan(found.value("mae", 2))
    assert found.diverged == 1
    assert mean_error(Constant(math.nan), [case(windows=3)]) == math.inf


def test_it_is_kept_as_json():
    for value in (0.1, math.nan):
        found = score(Constant(value), partly_seen())
        again = Score.from_record(found.record())
        assert again.record() == found.record()


def test_a_wrong_shape_is_told():
    with pytest.raises(ValueError, match="Constant forecast"):
        forecast(Constant(extra=1), case(windows=2))


def test_the_mean_over_cases():
    cases = [case("one", windows=4), case("other", 30, windows=9)]
    expected = sum(score(Constant(), one).value("mae", 4) for one in cases) / 2
    assert mean_error(Constant(), cases) == pytest.approx(expected)
