"""The ERA5 samples as records: on small files of the same arrays, and on the real ones where there are any."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from neuralpde.climatology import DailyClimatology, climatology_of
from neuralpde.weather_forecasts import ClimatologyForecast, Persistence, score
from neuralpde.weather_record import Variable, WeatherError
from neuralpde.weather_samples import era5_ensemble, era5_sample, era5_uk
from neuralpde.weather_windows import Windows
from operators import DomainError

SENSORS = Path(os.environ.get("NEURALPDE_DATA", "data")) / "sensors"
UK, ENSEMBLE = SENSORS / "era5_t2m_uk_hourly_201903.npz", SENSORS / "era5_ens10_z_t_500_850_global3deg.npz"
real = pytest.mark.skipif(
    not (UK.exists() and ENSEMBLE.exists()), reason="no ERA5 samples: set NEURALPDE_DATA to the data folder"
)


def uk_arrays():
    t2m = np.random.default_rng(0).normal(280, 2, (30, 3, 5)).astype(np.float32)
    return {
        "t2m": t2m,
        "lat": np.linspace(58, 57.5, 3, dtype=np.float32),
        "lon": np.linspace(-10, -9, 5, dtype=np.float32),
        "time0": np.array("2019-03-01T00"),
        "freq": np.array("1h"),
    }


def ensemble_arrays():
    random = np.random.default_rng(0)
    times = np.array("2017-01-01", "datetime64[ns]") + np.arange(4) * np.timedelta64(12, "h")
    return {
        "z": random.normal(5e4, 100, (2, 4, 2, 5, 6)).astype(np.float32),
        "t": random.normal(260, 5, (2, 4, 2, 5, 6)).astype(np.float32),
        "level": np.array([850.0, 500.0]),
        "time": times.astype("<U48"),
        "lat": np.linspace(90, -90, 5, dtype=np.float32),
        "lon": np.arange(0, 360, 60, dtype=np.float32),
        "member": np.arange(2),
    }


def written(folder, arrays, **changed):
    path = folder / "sample.npz"
    np.savez(path, **{name: array for name, array in {**arrays, **changed}.items() if array is not None})
    return path


def test_arrays_become_records(tmp_path):
    arrays = uk_arrays()
    weather = era5_uk(written(tmp_path, arrays))
    assert (weather.members, len(weather), weather.step_hours) == (1, 30, 1.0)
    assert torch.equal(weather.fields()[0, ..., 0], torch.from_numpy(arrays["t2m"]))
    assert weather.times[25] == np.datetime64("2019-03-02T01")
    assert weather.variables[0].units == "K"
    arrays = ensemble_arrays()
    path = written(tmp_path, arrays)
    weather = era5_ensemble(path, [Variable("temperature", 850), Variable("geopotential", 500)])
    assert (weather.members, len(weather), weather.step_hours) == (2, 4, 12.0)
    assert torch.equal(weather.fields()[..., 0], torch.from_numpy(arrays["t"][:, :, 0]))
    assert torch.equal(weather.fields()[..., 1], torch.from_numpy(arrays["z"][:, :, 1]))
    assert len(era5_ensemble(path).variables) == 4
    assert era5_sample(path).members == 2


def test_either_sample_is_told_by_its_arrays(tmp_path):
    assert era5_sample(written(tmp_path, uk_arrays())).step_hours == 1.0


@pytest.mark.parametrize(
    ("changed", "error", "told"),
    [
        ({"t2m": None}, WeatherError, "no array t2m"),
        ({"freq": np.array("1D")}, WeatherError, "no hourly fields"),
        ({"lat": np.linspace(58, 57, 4)}, WeatherError, "must have shape"),
        ({"lat": np.array([58, 57.5, 57.75])}, DomainError, "rise or fall"),
        ({"t2m": np.full((30, 3, 5), np.nan, np.float32)}, WeatherError, "450 values are missing"),
        ({"time0": np.array("March")}, WeatherError, "not a time"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, changed, error, told):
    with pytest.raises(error, match=told):
        era5_uk(written(tmp_path, uk_arrays(), **changed))


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*absent.npz"):
        era5_uk(tmp_path / "absent.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(WeatherError, match="damaged"):
        era5_sample(tmp_path / "broken.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    with pytest.raises(WeatherError, match="damaged or no"):
        era5_uk(tmp_path / "array.npz")
    with pytest.raises(WeatherError, match="member, time, level"):
        era5_ensemble(written(tmp_path, ensemble_arrays(), z=np.zeros((4, 2, 5, 6), np.float32)))


@real
def test_the_real_samples():
    weather = era5_uk(UK)
    assert (len(weather), weather.place.shape, weather.place.wraps) == (744, (33, 49), False)
    train, test = weather.split("2019-03-25", inputs=1)
    climatology = climatology_of(train)
    assert isinstance(climatology, DailyClimatology)
    windows = Windows(test, 1, 24)
    persistence = score(Persistence(), windows, climatology).rmse[:, 0]
    assert 0.3 < persistence[0] < 1 < persistence[11] < 5, "kelvin, after an hour and half a day"
    assert persistence[23] < persistence[11], "tomorrow at the same hour"
    assert 1 < score(ClimatologyForecast(climatology), windows, climatology).rmse[0, 0] < 3

    weather = era5_ensemble(ENSEMBLE)
    assert (weather.members, len(weather), weather.place.shape, weather.step_hours) == (10, 4, (61, 120), 12.0)
    means = weather.nodes().double().mean((0, 1))
    mean = dict(
        zip(map(str, weather.variables), ((weather.place.areas[:, None] * means).sum(0) / (4 * np.pi)).tolist(), strict=True)
    )
    # The globe in January: 5.6 km and 1.5 km high in the mean, colder above.
    assert 5400 < mean["geopotential 500 hPa"] / 9.80665 < 5800
    assert 1380 < mean["geopotential 850 hPa"] / 9.80665 < 1500
    assert 245 < mean["temperature 500 hPa"] < 262 < mean["temperature 850 hPa"] < 285
    assert torch.equal(weather.place.to_grid(weather.nodes())[:, :, 1:-1], weather.fields()[:, :, 1:-1])
    field = weather.fields()
    assert (weather.place.to_grid(weather.nodes()) - field).abs().max() / field.abs().max() < 1e-6, (
        "polar rows are constant in ERA5"
    )
