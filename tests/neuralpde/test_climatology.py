"""Climatologies: means over the frames that they name, of the training span alone, smoothed around the year."""

import numpy as np
import pytest
import torch

from neuralpde.climatology import (
    DailyClimatology,
    MeanClimatology,
    SeasonalClimatology,
    climatology_of,
    day_of_year,
    minute_of_day,
)
from neuralpde.testing import assert_within
from neuralpde.weather_place import MeshNodes
from neuralpde.weather_record import Variable, WeatherError, WeatherRecord, regular_times
from operators import icosphere

PLACE = MeshNodes(icosphere(0))
SIZE = torch.linspace(0.5, 1.5, 12, dtype=torch.float64)[:, None]


def weather(count, hours=6.0, start="2019-01-01", noise=0.0, members=1) -> WeatherRecord:
    """A cycle of the year and one of the day, of a size of their own at each node."""
    times = regular_times(start, hours, count)
    values = cycles(times)[None].expand(members, -1, -1, -1)
    return WeatherRecord.of((values + noise * torch.randn(values.shape)).float(), times, PLACE, [Variable("2m_temperature")])


def cycles(times):
    days = torch.from_numpy((times - np.datetime64("2019-01-01", "ns")) / np.timedelta64(1, "D"))[..., None, None]
    return SIZE * (10 * torch.cos(2 * torch.pi * days / 365.25) + 3 * torch.sin(2 * torch.pi * days))


def test_calendar():
    times = np.array(
        ["2019-01-01T00:30", "2019-12-31T18:00", "2020-12-31T23:59", "2020-03-01T00:00", "2019-03-01"], "datetime64[ns]"
    )
    assert minute_of_day(times).tolist() == [30, 1080, 1439, 0, 0]
    assert day_of_year(times).tolist() == [0, 364, 365, 60, 59]
    assert day_of_year(times.reshape(5, 1)).shape == (5, 1)


def test_the_mean():
    record = weather(17, noise=1.0, members=3)
    climatology = MeanClimatology.of(record)
    assert_within(climatology.mean, record.nodes().mean((0, 1)), 1e-5)
    assert climatology.at(record.times[:6].reshape(2, 3)).shape == (2, 3, 12, 1)


def test_by_hour_of_the_day():
    record = weather(24 * 9, hours=1.0, noise=1.0, members=2)
    climatology = DailyClimatology.of(record)
    expected = record.nodes().reshape(2, 9, 24, 12, 1).mean((0, 1))
    assert_within(climatology.at(record.times[:24]), expected, 1e-5)
    later = np.datetime64("2030-07-01T05", "ns").reshape(1, 1)
    assert torch.equal(climatology.at(later)[0, 0], climatology.at(record.times[5]))
    with pytest.raises(WeatherError, match=r"no time 0.5 h after midnight"):
        climatology.at(np.datetime64("2019-01-01T00:30", "ns"))


@pytest.mark.parametrize("window", [1, 15, 61])
def test_by_day_of_the_year_is_a_weighted_mean(window):
    record = weather(4 * 800, noise=2.0, members=2)
    climatology = SeasonalClimatology.of(record, window)
    x = record.nodes().double().mean(0)
    days, minutes = day_of_year(record.times), minute_of_day(record.times)
    for time in np.array(["2019-01-03T06", "2020-02-29T18", "2024-07-15T00", "2019-12-31T12"], "datetime64[ns]"):
        apart = np.abs(days - day_of_year(time))
        apart = np.minimum(apart, 366 - apart)
        weight = (apart == 0) * 1.0 if window == 1 else np.maximum(0, 1 - apart / (window // 2))
        weight = torch.from_numpy(weight * (minutes == minute_of_day(time)))
        expected = torch.einsum("t,tnc->nc", weight, x) / weight.sum()
        assert_within(climatology.at(time), expected, 1e-5)


def test_a_smooth_year_is_found_again():
    record = weather(4 * 365 * 2, noise=1.0)
    climatology = climatology_of(record)
    assert isinstance(climatology, SeasonalClimatology)
    new = regular_times("2021-03-01", 6.0, 400)
    # A triangle of half width 30 days flattens the cycle of a year by (2π · 30 / 365)² / 12, and 60 days' noise averages out.
    assert_within(climatology.at(new), cycles(new), 0.35 + 1.0)
    assert float((climatology.at(new) - cycles(new)).square().mean().sqrt()) < 0.35


def test_the_finest_that_the_record_carries():
    assert isinstance(climatology_of(weather(4 * 365)), SeasonalClimatology)
    assert isinstance(climatology_of(weather(4 * 364)), DailyClimatology)
    assert isinstance(climatology_of(weather(20)), DailyClimatology)
    assert isinstance(climatology_of(weather(19)), MeanClimatology), "an hour that is there on four days only"
    assert isinstance(climatology_of(weather(300, hours=24.0)), MeanClimatology)
    assert isinstance(climatology_of(weather(400, hours=24.0)), SeasonalClimatology)


def test_it_knows_the_training_span_alone():
    record = weather(4 * 500, noise=1.0)
    changed = record.fields().clone()
    changed[:, 4 * 400 :] += 100
    other = WeatherRecord.of(changed, record.times, PLACE, record.variables)
    for kind in (MeanClimatology, DailyClimatology, SeasonalClimatology):
        ones = [kind.of(x.split(record.times[4 * 400])[0]).at(record.times[-9:]) for x in (record, other)]
        assert torch.equal(*ones)


def test_what_cannot_be_is_refused():
    with pytest.raises(WeatherError, match="train on a whole year"):
        SeasonalClimatology.of(weather(4 * 100))
    for window in (0, 2, 367, 3.0):
        with pytest.raises(WeatherError, match="odd number of days"):
            SeasonalClimatology.of(weather(4 * 365), window)


def test_a_missing_time_is_refused():
    for numbered in (minute_of_day, day_of_year):
        with pytest.raises(WeatherError, match="NaT"):
            numbered(np.array(["2020-01-01", "NaT"], "datetime64[ns]"))
