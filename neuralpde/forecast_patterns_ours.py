"""`ours` where only fields are known: a metriplectic flow on the leading patterns, and the rest as the past tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from neuralpde.climatology import Climatology
from neuralpde.forecast_baselines import DampedPersistence, persisting
from neuralpde.forecast_case import ForecastCase
from neuralpde.forecast_method import ForecastMethod, Learned, Told
from neuralpde.forecast_patterns import MetriplecticGenerator, Patterns
from neuralpde.forecast_shrinkage import Shrinkage, combined
from neuralpde.weather_forecasts import Forecast
from neuralpde.weather_record import Times
from neuralpde.weather_windows import Windows

# Patterns are found from so many frames at most, evenly spread.
MOST_SAMPLES = 800


@dataclass(frozen=True)
class PatternOurs(ForecastMethod):
    """The mean of flows on few, some and more patterns and of `DampedPersistence`. Each flow forecasts

    climatology + a₁ (flow on the patterns) + a₂ (the rest of the anomaly) + a₃, a₄ (its change over the last step and over all
    frames given), with factors a by lead time and variable. A short past cannot tell which of them is best; their mean errs less.

    The factors are fitted to forecasts of parts of the training span whose generator never saw that part, so that they tell what
    the generator is worth on weather that it does not know.

    Args:
        patterns: their number m in each flow.
        lag: in hours, of the pairs that the generator is fitted to; one step where steps are longer.
        parts: of the training span.
        windows: that the factors are fitted to, about, in each part.
    """

    name: ClassVar[str] = "ours"

    patterns: tuple[int, ...] = (5, 10, 20)
    lag: float = 6.0
    parts: int = 3
    windows: int = 200

    def fit(self, case: ForecastCase, seed: int, checkpoint: Path, told: Told) -> Learned:
        damped = DampedPersistence().fit(case, seed, checkpoint, told)
        flows = [self._fit(case, m, told) for m in self.patterns]
        mean = MeanForecast([damped.forecast, *(flow.forecast for flow in flows)])
        return Learned(mean, damped.parameters + sum(flow.parameters for flow in flows))

    def _fit(self, case: ForecastCase, count: int, told: Told) -> Learned:
        anomalies = case.train.nodes() - case.climatology.at(case.train.times)
        lag = max(1, round(self.lag / case.train.step_hours))
        cuts = np.linspace(0, len(case.train), self.parts + 1).round().astype(int)
        shrinkage = Shrinkage(case.weights)
        fitted = False
        for part, (start, stop) in enumerate(pairwise(cuts)):
            told(part, self.parts, f"{count} patterns")
            leads = min(case.leads, stop - start - case.inputs)
            if leads < case.leads:
                continue
            others = [piece for piece in (anomalies[:, :start], anomalies[:, stop:]) if piece.shape[1]]
            forecast = self._flow(case, others, count, lag)
            record = case.train.between(case.train.times[start], case.train.times[stop - 1] + case.train.step)
            starts = record.members * (len(record) - case.inputs - case.leads + 1)
            for batch in Windows(record, case.inputs, case.leads, max(1, starts // self.windows)).batches(16):
                truth = batch.targets - case.climatology.at(batch.times)
                shrinkage.add(forecast.predictors(batch.inputs, batch.times), truth)
                fitted = True
        forecast = self._flow(case, [anomalies], count, lag)
        if fitted:
            forecast.factors = shrinkage.solve()
        m = len(forecast.patterns.deviation)
        factors = 0 if forecast.factors is None else forecast.factors.numel()
        return Learned(forecast, m * m + forecast.patterns.patterns.numel() + factors)

    def _flow(self, case: ForecastCase, anomalies: Sequence[Tensor], count: int, lag: int) -> PatternForecast:
        frames = torch.cat([piece.flatten(0, 1) for piece in anomalies])
        patterns = Patterns(frames[:: -(-len(frames) // MOST_SAMPLES)], case.weights, count)
        series = [z for piece in anomalies for z in patterns.coordinates(piece)]
        return PatternForecast(case.climatology, patterns, MetriplecticGenerator(series, lag), case.train.step)


class MeanForecast(Forecast):
    """The mean of several forecasts."""

    def __init__(self, forecasts: Sequence[Forecast]) -> None:
        self.forecasts = forecasts

    def __call__(self, inputs: Tensor, times: Times) -> Tensor:
        return torch.stack([forecast(inputs, times) for forecast in self.forecasts]).mean(0)


class PatternForecast(Forecast):
    """See `PatternOurs`."""

    factors: Tensor | None = None

    def __init__(
        self, climatology: Climatology, patterns: Patterns, generator: MetriplecticGenerator, step: np.timedelta64
    ) -> None:
        self.climatology, self.patterns, self.generator, self.step = climatology, patterns, generator, step

    def predictors(self, inputs: Tensor, times: Times) -> Tensor:
        """(B, L, n, c, 4)."""
        leads, given = times.shape[1], inputs.shape[1]
        past = times[:, :1] - self.step * np.arange(given, 0, -1)
        anomalies = inputs - self.climatology.at(past)
        now = persisting(self.climatology, inputs, times, self.step)
        z = self.patterns.coordinates(anomalies[:, -1])
        flow = self.patterns.fields(torch.einsum("lij,bj->bli", self.generator.propagators(leads), z))
        rest = now - self.patterns.fields(z)[:, None]
        changes = [(anomalies[:, -1] - anomalies[:, k])[:, None].expand_as(now) for k in (max(0, given - 2), 0)]
        return torch.stack([flow, rest, *changes], dim=-1)

    def __call__(self, inputs: Tensor, times: Times) -> Tensor:
        predictors = self.predictors(inputs, times)
        climatology = self.climatology.at(times)
        if self.factors is None:
            return climatology + predictors[..., 0]
        return climatology + combined(predictors, self.factors[: times.shape[1]])
