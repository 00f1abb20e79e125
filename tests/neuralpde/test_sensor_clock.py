"""What is forecast on anomalies is told the clock."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from sensor_cases import case, fit, with_gaps

from neuralpde.sensor_baselines import Climatology, Persistence
from neuralpde.sensor_clock import ClockGru, OnAnomalies
from neuralpde.sensor_score import score


@dataclass(frozen=True)
class ClockPersistence(OnAnomalies):
    name: ClassVar[str] = "clock-persistence"
    random: ClassVar[bool] = False

    def inner(self):
        return Persistence()


def test_the_clocks_mean_comes_back(tmp_path):
    one = case()
    clock = fit(Climatology(), folder=tmp_path)
    # The clock's mean and a constant anomaly of each window and sensor.
    usual = clock.forecast(replace(one.inputs, wanted=one.times))
    shifted = replace(one, values=usual + torch.randn(40, 1, 8, 1, generator=torch.Generator().manual_seed(0)))
    assert score(fit(ClockPersistence(), folder=tmp_path), shifted).value("mae", 4) < 1e-6


def test_gaps_stay_gaps(tmp_path):
    found = fit(ClockGru(steps=3), folder=tmp_path)
    one = with_gaps(case(windows=3))
    assert bool(found.forecast(one.inputs).isfinite().all())
    assert found.parameters > 37889
