"""Errors of forecasts at sensors, by lead and by sensor, from seen and scored targets only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from neuralpde.sensor_case import SensorCase
from neuralpde.sensor_method import Forecaster

METRICS = ("mae", "mse")
# Windows forecast at once: enough to fill the processor, little memory.
TOGETHER = 64


@dataclass(frozen=True)
class Score:
    """The errors of one forecaster in one case.

    Args:
        absolute, squared: the sums over windows, sensors and channels, at each lead.
        count: how many values are summed at each lead.
        sensors: the mean absolute error of each sensor over all leads; NaN where nothing was scored.
        diverged: the share of windows whose forecast is not finite.
    """

    absolute: list[float]
    squared: list[float]
    count: list[float]
    sensors: list[float]
    diverged: float

    def value(self, metric: str, horizon: int) -> float:
        """The mean over leads 1..horizon; NaN if one of the forecasts is not finite."""
        sums = self.absolute if metric == "mae" else self.squared
        return _ratio(sum(sums[:horizon]), sum(self.count[:horizon]))

    def at(self, metric: str) -> list[float]:
        """The metric at each lead."""
        sums = self.absolute if metric == "mae" else self.squared
        return [_ratio(*pair) for pair in zip(sums, self.count, strict=True)]

    def record(self) -> dict[str, Any]:
        """As JSON, which knows no NaN."""
        return {name: _written(value) for name, value in asdict(self).items()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Score:
        """The inverse of `record`."""
        return cls(**{name: _read(value) for name, value in record.items()})


@torch.no_grad()
def score(forecaster: Forecaster, case: SensorCase) -> Score:
    """Forecast every window of a case, and compare with what was seen.

    Raises:
        ValueError: a forecast of the wrong shape.
    """
    scored = torch.ones(case.placement.num_nodes, dtype=torch.bool) if case.scored is None else case.scored
    absolute, squared, count = (torch.zeros(case.horizon, case.placement.num_nodes, dtype=torch.float64) for _ in range(3))
    diverged = 0
    for start in range(0, len(case.values), TOGETHER):
        part = case.some(slice(start, start + TOGETHER))
        targets, seen = part.targets
        path = forecast(forecaster, part)
        diverged += int((~path.isfinite()).flatten(1).any(1).sum())
        mask = seen & scored[:, None]
        error = torch.where(mask, path.double() - targets.double(), 0.0).abs()
        absolute += error.sum((0, 3))
        squared += error.square().sum((0, 3))
        count += mask.sum((0, 3))
    return Score(
        absolute.sum(1).tolist(),
        squared.sum(1).tolist(),
        count.sum(1).tolist(),
        (absolute.sum(0) / count.sum(0)).tolist(),
        diverged / max(1, len(case.values)),
    )


def forecast(forecaster: Forecaster, case: SensorCase) -> Tensor:
    """The forecast (K, h, n, c) of a case from its inputs alone."""
    path = forecaster.forecast(case.inputs)
    expected = (len(case.values), case.horizon, *case.values.shape[2:])
    if path.shape != expected:
        raise ValueError(f"{type(forecaster).__name__} forecast {tuple(path.shape)}, not {expected}")
    return path


def mean_error(forecaster: Forecaster, cases: Sequence[SensorCase], metric: str = "mae") -> float:
    """The metric over all leads, the mean over cases: what settings are chosen by on validation cases; infinite if not finite."""
    values = [score(forecaster, case).value(metric, case.horizon) for case in cases]
    mean = sum(values) / max(1, len(values))
    return mean if math.isfinite(mean) else math.inf


def _ratio(total: float, count: float) -> float:
    return total / count if count and math.isfinite(total) else math.nan


def _written(value: Any) -> Any:
    if isinstance(value, list):
        return [_written(item) for item in value]
    return value if math.isfinite(value) else None


def _read(value: Any) -> Any:
    if isinstance(value, list):
        return [_read(item) for item in value]
    return math.nan if value is None else float(value)
