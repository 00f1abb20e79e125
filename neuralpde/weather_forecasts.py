"""Forecasts that need no model, and the scores of any."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from neuralpde.climatology import Climatology
from neuralpde.weather_metrics import Scores
from neuralpde.weather_record import Times
from neuralpde.weather_windows import Windows


class Forecast(ABC):
    """From the last frames to those at later times."""

    @abstractmethod
    def __call__(self, inputs: Tensor, times: Times) -> Tensor:
        """The frames (B, L, n, c) at `times` (B, L), from inputs (B, given, n, c) just before them."""


class Persistence(Forecast):
    """The weather stays as it was last seen."""

    def __call__(self, inputs: Tensor, times: Times) -> Tensor:
        return inputs[:, -1:].expand(-1, times.shape[1], -1, -1)


class ClimatologyForecast(Forecast):
    """The weather is as it is on average at that time."""

    def __init__(self, climatology: Climatology) -> None:
        self.climatology = climatology

    def __call__(self, inputs: Tensor, times: Times) -> Tensor:
        return self.climatology.at(times)


def score(forecast: Forecast, windows: Windows, climatology: Climatology, size: int = 32) -> Scores:
    """RMSE, ACC and bias of a forecast over all windows, weighted by the areas of their place.

    A row at a pole is one node here. Its mean stands for it, as is exact for what has one value at a pole; components of the wind
    there, which turn with longitude, are lost, where WeatherBench 2 counts each.

    Args:
        windows: of the test span.
        climatology: of the training span; anomalies are the differences from it.
        size: the windows that are forecast at a time.
    """
    scores = Scores(windows.record.place.areas)
    for batch in windows.batches(size):
        scores.add(forecast(batch.inputs, batch.times), batch.targets, climatology.at(batch.times))
    return scores
