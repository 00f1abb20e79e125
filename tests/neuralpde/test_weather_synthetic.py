"""Made-up weather: the waves move at their speed, seasons and days go round, and the command writes what it says."""

import io
import math

import numpy as np
import pytest
import torch
from rich.console import Console

from neuralpde.climatology import SeasonalClimatology, climatology_of
from neuralpde.files import RunFolderError
from neuralpde.shallow_water import EARTH_ROTATION
from neuralpde.testing import assert_within
from neuralpde.weather_forecasts import ClimatologyForecast, Persistence, score
from neuralpde.weather_metrics import area_mean
from neuralpde.weather_record import Variable, regular_times
from neuralpde.weather_store import open_weather
from neuralpde.weather_synthetic import RossbyHaurwitzWaves, SyntheticWeather, make_weather
from neuralpde.weather_windows import Windows
from neuralpde.weather_writing import verify_weather
from operators.surface import cotangent_laplacian

SMALL = SyntheticWeather(rows=9, columns=16, days=20)


def test_a_frame_depends_on_settings_and_number_alone():
    weather = SMALL.record()
    assert (len(weather), weather.step_hours, weather.place.shape) == (80, 6.0, (9, 16))
    whole = weather.nodes()
    assert torch.equal(whole[:, 17:40:3], weather.between(weather.times[17], weather.times[40]).every(3).nodes())
    longer = SyntheticWeather(rows=9, columns=16, days=30).record()
    assert torch.equal(longer.nodes(0, 80), whole)
    other = SyntheticWeather(rows=9, columns=16, days=20, seed=1).record()
    assert (other.nodes() - whole).abs().amax((0, 1, 2)).min() > 1


def test_each_wave_is_a_harmonic_that_moves_at_its_own_speed():
    place = SyntheticWeather(rows=65, columns=128).record().place
    laplacian = cotangent_laplacian(place.mesh)
    longitude = torch.deg2rad(place.positions[1])
    start, later = regular_times("2000-01-01", 1.0, 2)[:, None]
    for seed in range(6):
        waves = RossbyHaurwitzWaves(place, 1, seed)
        field, moved = waves.at(start).T, waves.at(later).T
        assert_within(area_mean(field.square(), place.areas), 1.0, 1e-9)
        eigenvalue = float((field * (laplacian.stiffness @ field)).sum() / (laplacian.mass[:, None] * field.square()).sum())
        degree = round((math.sqrt(1 + 4 * eigenvalue) - 1) / 2)
        assert eigenvalue == pytest.approx(degree * (degree + 1), rel=0.02)
        # The zonal number is that of the largest Fourier coefficient of a row.
        row = place.to_grid(field)[20, :, 0]
        m = int(torch.fft.rfft(row).abs().argmax())
        air = 0.03 * EARTH_ROTATION
        speed = m * (air - 2 * (EARTH_ROTATION + air) / (degree * (degree + 1)))
        rows = [place.to_grid(x)[20, :, 0] for x in (field, moved)]
        turned = [torch.fft.rfft(x)[m] for x in rows]
        assert float((turned[1] / turned[0]).angle()) == pytest.approx(-speed * 3600, abs=1e-9)
    assert longitude.max() < 2 * math.pi


def test_it_is_forecast_better_by_climatology_than_by_persistence_in_the_end():
    weather = SyntheticWeather(rows=9, columns=16, days=500).record()
    variables = [Variable("geopotential", 500), Variable("2m_temperature")]
    train, test = weather.select(variables).loaded().split("2019-03-01", inputs=1)
    climatology = climatology_of(train)
    assert isinstance(climatology, SeasonalClimatology)
    windows = Windows(test, 1, 16)
    persistence, average = (score(f, windows, climatology).rmse for f in (Persistence(), ClimatologyForecast(climatology)))
    assert (persistence[0] < average[0]).all()
    assert (average[-1] < persistence[-1]).all()


def test_the_command(tmp_path):
    pytest.importorskip("xarray", reason="pip install 'neuralpde-toolkit[weather]'")
    pytest.importorskip("zarr", reason="pip install 'neuralpde-toolkit[weather]'")
    settings = SyntheticWeather(out=tmp_path / "weather.zarr", rows=5, columns=8, days=3)
    console = Console(width=120, file=io.StringIO())
    checksum = make_weather(settings, console)
    assert checksum in console.file.getvalue()
    assert "12 frames, one every 6 hours from 2018-01-01T00:00 to 2018-01-03T18:00" in console.file.getvalue()
    assert verify_weather(settings.out) == checksum
    stored = open_weather(settings.out)
    expected = settings.record()
    assert torch.equal(stored.select(expected.variables).fields(), expected.fields())
    assert np.array_equal(stored.times, expected.times)
    with pytest.raises(RunFolderError, match="there already"):
        make_weather(settings, console)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 2},
        {"columns": 2},
        {"days": 0},
        {"waves": 0},
        {"hours": 0},
        {"hours": 1e9},
        {"hours": 1 / 7},
        {"hours": 1e-9},
        {"noise": -1},
        {"seed": -1},
    ],
)
def test_bad_settings_are_refused(change):
    with pytest.raises(RunFolderError, match=f"--{next(iter(change))} must"):
        SyntheticWeather(**change)
