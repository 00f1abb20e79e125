"""Rows that need no model: persistence, climatology, persistence of the anomaly, and that scaled back as the past tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Tensor

from neuralpde.climatology import Climatology
from neuralpde.forecast_case import ForecastCase
from neuralpde.forecast_method import ForecastMethod, Learned, Told
from neuralpde.forecast_shrinkage import Shrinkage, combined
from neuralpde.weather_forecasts import ClimatologyForecast, Forecast, Persistence
from neuralpde.weather_record import Times


@dataclass(frozen=True)
class PersistenceMethod(ForecastMethod):
    """The weather stays as it was last seen."""

    name: ClassVar[str] = "persistence"

    def fit(self, case: ForecastCase, seed: int, checkpoint: Path, told: Told) -> Learned:
        return Learned(Persistence())


@dataclass(frozen=True)
class ClimatologyMethod(ForecastMethod):
    """The weather is as it was on average over the training span."""

    name: ClassVar[str] = "climatology"

    def fit(self, case: ForecastCase, seed: int, checkpoint: Path, told: Told) -> Learned:
        return Learned(ClimatologyForecast(case.climatology))


@dataclass(frozen=True)
class DampedPersistence(ForecastMethod):
    """climatology(t + s) + a(s) (x(t) − climatology(t)), with a(s) fitted to the training span by lead time and variable."""

    name: ClassVar[str] = "damped-persistence"

    def fit(self, case: ForecastCase, seed: int, checkpoint: Path, told: Told) -> Learned:
        windows = case.training_windows(case.leads)
        shrinkage = Shrinkage(case.weights)
        step = case.train.step
        for batch in windows.batches(32):
            truth = batch.targets - case.climatology.at(batch.times)
            shrinkage.add(persisting(case.climatology, batch.inputs, batch.times, step)[..., None], truth)
        weights = padded(shrinkage.solve(), case.leads)
        return Learned(_Damped(case.climatology, weights, step), weights.numel())


class _Damped(Forecast):
    def __init__(self, climatology: Climatology, weights: Tensor, step: np.timedelta64) -> None:
        self.climatology, self.weights, self.step = climatology, weights, step

    def __call__(self, inputs: Tensor, times: Times) -> Tensor:
        anomaly = persisting(self.climatology, inputs, times, self.step)
        return self.climatology.at(times) + combined(anomaly[..., None], self.weights[: times.shape[1]])


def persisting(climatology: Climatology, inputs: Tensor, times: Times, step: np.timedelta64) -> Tensor:
    """The anomaly of the last given frame at every lead time, (B, L, n, c)."""
    now = inputs[:, -1] - climatology.at(times[:, 0] - step)
    return now[:, None].expand(-1, times.shape[1], -1, -1)


def padded(weights: Tensor, leads: int) -> Tensor:
    """Weights (l, c, j) continued to `leads` lead times, which the training span is too short to fit, by those of the last."""
    missing = leads - len(weights)
    return weights if missing <= 0 else weights[[*range(len(weights)), *[len(weights) - 1] * missing]]
