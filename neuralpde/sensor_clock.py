"""Networks that know no time, on anomalies from the clock's mean, so that they are told the hour and the day of the year too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from neuralpde.sensor_baselines import Climatology
from neuralpde.sensor_case import Given, SensorCase
from neuralpde.sensor_method import Forecaster, SensorMethod, Told
from neuralpde.sensor_networks import Gru


@dataclass(frozen=True)
class OnAnomalies(SensorMethod):
    """A method that learns and forecasts what is left when the clock's mean (`Climatology`) is taken away.

    A subclass says which, and gives it a name.
    """

    def inner(self) -> SensorMethod:
        """The method that forecasts anomalies."""
        raise NotImplementedError

    def fit(
        self, train: Sequence[SensorCase], validation: Sequence[SensorCase], seed: int, checkpoint: Path, told: Told
    ) -> Forecaster:
        clock = Climatology().fit(train, validation, seed, checkpoint, told)
        first, second = ([_anomaly(case, clock) for case in cases] for cases in (train, validation))
        return _Anomalies(clock, self.inner().fit(first, second, seed, checkpoint, told))


class _Anomalies(Forecaster):
    def __init__(self, clock: Forecaster, learned: Forecaster) -> None:
        self.clock, self.learned = clock, learned

    @property
    def parameters(self) -> int:
        return self.clock.parameters + self.learned.parameters

    def forecast(self, given: Given) -> Tensor:
        usual = _usual(self.clock, given, given.times)
        values = torch.where(given.seen, given.values - usual, 0.0)
        return self.learned.forecast(replace(given, values=values)) + self.clock.forecast(given)


def _anomaly(case: SensorCase, clock: Forecaster) -> SensorCase:
    usual = _usual(clock, case.inputs, case.times)
    return replace(case, values=torch.where(case.seen, case.values - usual, 0.0))


def _usual(clock: Forecaster, given: Given, times: Tensor) -> Tensor:
    """The clock's mean at any times (K, T)."""
    return clock.forecast(replace(given, wanted=times))


@dataclass(frozen=True)
class ClockGru(OnAnomalies):
    """`Gru` on anomalies.

    Args:
        steps: of training.
    """

    name: ClassVar[str] = "gru-clock"

    steps: int = 250

    def inner(self) -> SensorMethod:
        return Gru(steps=self.steps)
