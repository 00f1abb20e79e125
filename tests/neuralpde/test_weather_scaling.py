"""Scaling: weighted means and spreads as NumPy has them, from the training span alone."""

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralpde.testing import assert_within
from neuralpde.weather_record import Variable, WeatherError, WeatherRecord, regular_times
from neuralpde.weather_scaling import Scaling
from operators.lat_lon import LatLon

GRID = LatLon(torch.linspace(90, -90, 7), torch.arange(0, 360, 45))
VARIABLES = [Variable("geopotential", 500), Variable("2m_temperature")]


def weather(count=130, members=2) -> WeatherRecord:
    wander = torch.randn(members, count, GRID.num_nodes, 2, dtype=torch.float64).cumsum(1)
    values = torch.tensor([54000.0, 280.0]) + torch.tensor([300.0, 5.0]) * wander
    return WeatherRecord.of(values.float(), regular_times("2020-01-01", 6, count), GRID, VARIABLES)


def moments(x: Tensor) -> np.ndarray:
    weight = np.broadcast_to(GRID.areas.numpy()[:, None], x.shape)
    mean = np.average(x.numpy(), axis=(0, 1, 2), weights=weight)
    return np.stack([mean, np.sqrt(np.average((x.numpy() - mean) ** 2, axis=(0, 1, 2), weights=weight))])


@pytest.mark.parametrize("count", [2, 64, 65, 128, 130])
def test_moments_are_those_of_numpy(count):
    record = weather(count)
    scaling, x = Scaling.of(record), record.nodes().double()
    expected = torch.from_numpy(np.concatenate([moments(x), moments(x.diff(dim=1))]))
    actual = torch.stack([scaling.mean, scaling.std, scaling.increment_mean, scaling.increment_std])
    assert_within(actual / expected[[1, 1, 3, 3]], expected / expected[[1, 1, 3, 3]], 3e-5)


def test_it_is_undone():
    record = weather()
    scaling, x = Scaling.of(record), record.nodes()
    y = scaling.normalise(x)
    assert_within(torch.from_numpy(moments(y.double())), torch.tensor([[0.0, 0.0], [1.0, 1.0]]), 2e-4)
    assert_within(scaling.restore(y) / x, 1.0, 1e-6)
    change = x.diff(dim=1)
    assert_within(scaling.restore_increment(scaling.normalise_increment(change)), change, 1e-3)
    wide = scaling.to(torch.float64)
    assert wide.normalise(x.double()).dtype == torch.float64


def test_it_knows_the_training_span_alone():
    record = weather()
    changed = record.fields().clone()
    changed[:, 100:] *= 7
    train = WeatherRecord.of(changed, record.times, GRID, VARIABLES).split(record.times[100])[0]
    assert torch.equal(Scaling.of(train).std, Scaling.of(record.split(record.times[100])[0]).std)


def test_what_cannot_be_scaled_is_refused():
    with pytest.raises(WeatherError, match="two frames"):
        Scaling.of(weather(2).split(0.5)[0])
    flat = WeatherRecord.of(torch.ones(1, 3, GRID.num_nodes, 1), regular_times("2020-01-01", 6, 3), GRID, VARIABLES[1:])
    with pytest.raises(WeatherError, match="2m_temperature is constant"):
        Scaling.of(flat)
