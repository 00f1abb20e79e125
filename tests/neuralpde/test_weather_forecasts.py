"""Persistence and climatology as forecasts, and what they score."""

import numpy as np
import pytest
import torch

from neuralpde.climatology import DailyClimatology, MeanClimatology, climatology_of
from neuralpde.testing import assert_within
from neuralpde.weather_forecasts import ClimatologyForecast, Forecast, Persistence, score
from neuralpde.weather_metrics import Scores
from neuralpde.weather_synthetic import SyntheticWeather
from neuralpde.weather_windows import Windows

WEATHER = SyntheticWeather(rows=7, columns=12, days=40).record().loaded()
TRAIN, TEST = WEATHER.split("2018-02-01", inputs=2)


class Perfect(Forecast):
    """Knows."""

    def __call__(self, inputs, times):
        index = ((times - WEATHER.times[0]) / WEATHER.step).astype(int)
        return WEATHER.nodes()[0][torch.from_numpy(index)]


def test_scores_are_those_of_all_windows_at_once():
    windows = Windows(TEST, 2, 4)
    climatology = climatology_of(TRAIN)
    assert isinstance(climatology, DailyClimatology)
    batch = windows.batch(range(len(windows)))
    last = batch.inputs[:, -1:].expand(-1, 4, -1, -1)
    expected = Scores(TEST.place.areas).add(last, batch.targets, climatology.at(batch.times))
    for size in (1, 5, 1000):
        found = score(Persistence(), windows, climatology, size)
        assert_within(found.rmse / expected.rmse, 1.0, 1e-12)
        assert_within(found.acc, expected.acc, 1e-12)
    # A day ahead the sun stands where it stood.
    assert found.rmse[3, 0] < found.rmse[1, 0]


def test_climatology_scores_the_spread_and_no_correlation():
    windows = Windows(TEST, 2, 2)
    climatology = MeanClimatology.of(TRAIN)
    found = score(ClimatologyForecast(climatology), windows, climatology)
    assert found.acc.tolist() == np.zeros((2, 5)).tolist()
    assert (found.rmse > 0).all()


def test_a_perfect_forecast_is_scored_as_such():
    found = score(Perfect(), Windows(TEST, 2, 3), climatology_of(TRAIN))
    assert found.rmse.abs().max() == 0
    assert_within(found.acc, 1.0, 1e-12)


def test_persistence_needs_no_memory():
    inputs = torch.randn(2, 3, 4, 1)
    times = np.zeros((2, 5), "datetime64[ns]")
    assert torch.equal(Persistence()(inputs, times), inputs[:, -1:].repeat(1, 5, 1, 1))


def test_a_forecast_of_another_shape_is_refused():
    class Short(Persistence):
        def __call__(self, inputs, times):
            return super().__call__(inputs, times)[:, :1]

    with pytest.raises(ValueError, match="shape"):
        score(Short(), Windows(TEST, 2, 3), climatology_of(TRAIN))
