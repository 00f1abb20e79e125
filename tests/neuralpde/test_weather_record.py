"""Weather over time: selections compose, splits do not leak, and gaps are refused by name."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.weather_record import InMemory, Variable, WeatherError, WeatherRecord, moment, regular_step, regular_times
from operators.lat_lon import LatLon

Z500, T850, T2M = (
    Variable("geopotential", 500, "m**2 s**-2"),
    Variable("temperature", 850, "K"),
    Variable("2m_temperature", units="K"),
)
GRID = LatLon(torch.linspace(90, -90, 5), torch.arange(0, 360, 60))


def record(count=12, members=2, hours=6.0):
    values = torch.arange(members * count * GRID.num_nodes * 3, dtype=torch.float32).reshape(members, count, -1, 3)
    return WeatherRecord.of(values, regular_times("2020-02-28", hours, count), GRID, [Z500, T850, T2M])


def test_a_record_says_what_it_is():
    weather = record()
    assert (len(weather), weather.members, weather.step_hours) == (12, 2, 6.0)
    assert str(weather.variables[0]) == "geopotential 500 hPa"
    assert str(weather.variables[2]) == "2m_temperature"
    assert weather.variables[0].units == "m**2 s**-2"
    assert weather.times[4] == np.datetime64("2020-02-29")
    assert weather.fields().shape == (2, 12, 5, 6, 3)
    assert weather.nodes(3, 5).shape == (2, 2, GRID.num_nodes, 3)


@given(first=st.integers(0, 11), count=st.integers(1, 12), stride=st.integers(1, 4), channels=st.permutations([0, 1, 2]))
def test_selections_are_those_of_the_whole(first, count, stride, channels):
    weather = record()
    whole = weather.nodes()[:, first : first + count][:, ::stride][..., channels[:2]]
    stop = None if first + count >= 12 else weather.times[first + count]
    chosen = weather.between(weather.times[first], stop).every(stride).select([weather.variables[i] for i in channels[:2]])
    assert torch.equal(chosen.nodes(), whole)
    assert torch.equal(chosen.loaded().nodes(), whole)
    assert chosen.step_hours == 6.0 * stride
    assert np.array_equal(chosen.times, weather.times[first : first + count : stride])
    joined = torch.cat([nodes for _, nodes in chosen.blocks(3)], dim=1)
    assert torch.equal(joined, whole)


def test_blocks_overlap_by_what_is_asked():
    weather = record()
    seen = [(block.start, block.stop, nodes.shape[1]) for block, nodes in weather.blocks(5, overlap=1)]
    assert seen == [(0, 5, 6), (5, 10, 6), (10, 12, 2)]


@pytest.mark.parametrize("cut", [0.75, "2020-03-01T06", np.datetime64("2020-03-01T06")])
def test_a_split_does_not_leak(cut):
    weather = record()
    train, test = weather.split(cut, inputs=2)
    assert (len(train), train.context) == (9, 0)
    assert (len(test), test.context) == (5, 2)
    assert train.times[-1] < test.times[test.context] == np.datetime64("2020-03-01T06")
    assert torch.equal(test.nodes(), weather.nodes()[:, 7:])
    assert test.between(test.times[1]).context == 1
    plain = weather.split(cut)[1]
    assert plain.times[0] > train.times[-1]


@pytest.mark.parametrize("cut", [0.0, 1.0, 0.01, "2019-01-01", "2021-01-01"])
def test_a_split_leaves_no_part_empty(cut):
    with pytest.raises(WeatherError, match=r"empty|between 0 and 1"):
        record().split(cut)


@pytest.mark.parametrize("inputs", [-1, 10, 1.5])
def test_inputs_lie_before_the_cut(inputs):
    with pytest.raises(WeatherError, match="before the cut"):
        record().split(0.5, inputs=inputs)


def test_missing_values_are_refused_by_name():
    weather = record()
    values = weather.fields().clone()
    values[1, 7, 2, 3, 1] = torch.nan
    with pytest.raises(WeatherError, match=r"1 values .* temperature 850 hPa at 2020-02-29T18.* grid point \(2, 3\)"):
        WeatherRecord.of(values, weather.times, GRID, weather.variables)
    # A lazy source is looked at when it is read, and only where.
    lazy = WeatherRecord.over(InMemory(values), GRID, weather.variables, weather.times)
    assert torch.isfinite(lazy.nodes(0, 7)).all()
    assert torch.isfinite(lazy.select([Z500]).nodes()).all()
    with pytest.raises(WeatherError, match="2020-02-29T18"):
        lazy.nodes(6, 9)
    huge = torch.full_like(values, 3e38)
    assert WeatherRecord.of(huge, weather.times, GRID, weather.variables).nodes(0, 1).max() > 1e38, "large is not missing"


def test_variables_are_found_or_listed():
    weather = record()
    assert weather.select([T2M, Z500]).variables == (T2M, Z500)
    assert weather.select([Variable("geopotential", 500)]).variables == (Z500,), "the units are those of the data"
    with pytest.raises(WeatherError, match="there is no geopotential 850 hPa: there are geopotential 500 hPa"):
        weather.select([Variable("geopotential", 850)])
    with pytest.raises(WeatherError, match="there is no wind: there are geopotential 500 hPa, temperature"):
        weather.select([Variable("wind")])
    with pytest.raises(WeatherError, match="no variable is selected"):
        weather.select([])
    in_pascals = WeatherRecord.of(weather.nodes()[..., :1], weather.times, GRID, [Variable("geopotential", 50000)])
    with pytest.raises(WeatherError, match="in Pa"):
        in_pascals.select([Z500])


def test_spans_are_checked():
    with pytest.raises(WeatherError, match="no frame lies between"):
        record().between("2021-01-01")
    with pytest.raises(WeatherError, match="not a time"):
        record().between("yesterday")
    with pytest.raises(WeatherError, match="NaT"):
        moment("NaT")
    with pytest.raises(WeatherError, match="stride"):
        record().every(0)
    with pytest.raises(WeatherError, match="then split"):
        record().split(0.5, inputs=1)[1].every(2)


def test_times_are_regular():
    times = regular_times("2020-01-01", 1.0, 6)
    assert regular_step(times) == np.timedelta64(1, "h")
    assert regular_step(times[:1]) == np.timedelta64(1, "D")
    with pytest.raises(WeatherError, match=r"1 of 4 time steps are not 1 hours long, the first from .*T01.* to .*T03"):
        regular_step(np.delete(times, 2))
    with pytest.raises(WeatherError, match=r"T03.* is followed by .*T03"):
        regular_step(times[[0, 1, 2, 3, 3, 4]])
    with pytest.raises(WeatherError, match="is followed by"):
        regular_step(times[::-1])
    with pytest.raises(WeatherError, match="no frame"):
        regular_step(times[:0])
    with pytest.raises(WeatherError, match="NaT"):
        regular_step(np.array(["2020-01-01", "NaT"], "datetime64[ns]"))


def test_shapes_are_checked():
    with pytest.raises(WeatherError, match=r"\(K, 12, 5, 6, 3\)"):
        WeatherRecord.of(torch.zeros(1, 11, 5, 6, 3), regular_times("2020-01-01", 1, 12), GRID, [Z500, T850, T2M])


@pytest.mark.parametrize("far", ["1600-01-01", "9999-12-31", np.datetime64("2300-01-01")])
def test_times_beyond_nanoseconds_do_not_wrap_around(far):
    with pytest.raises(WeatherError, match="outside of the years 1678 to 2261"):
        moment(far)
    with pytest.raises(WeatherError, match="outside of the years"):
        regular_times(far, 6, 3)


def test_a_number_is_no_time_and_a_long_row_of_times_ends():
    with pytest.raises(WeatherError, match="write it as a text"):
        moment(20200101)
    with pytest.raises(WeatherError, match="beyond the year 2262"):
        regular_times("2018-01-01", 24, 200000)
