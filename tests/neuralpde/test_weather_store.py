"""Stores in WeatherBench 2's layout: read lazily, in any order of axes, and refused with the cause where they cannot be."""

import importlib
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from neuralpde.weather_record import Variable, WeatherError
from neuralpde.weather_store import open_weather
from operators import DomainError

INSTALL = "pip install 'neuralpde-toolkit[weather]'"
xarray = pytest.importorskip("xarray", reason=INSTALL)
pytest.importorskip("zarr", reason=INSTALL)

Z500, T2M = Variable("geopotential", 500), Variable("2m_temperature")
COUNT = 24


def dataset():
    """Two variables as in WeatherBench 2, six hours apart."""
    random = np.random.default_rng(0)
    coordinates = {
        "time": np.datetime64("2020-01-01", "ns") + np.arange(COUNT) * np.timedelta64(6, "h"),
        "level": [500, 850],
        "latitude": np.linspace(-90, 90, 7),
        "longitude": np.arange(0, 360, 45.0),
    }
    deep, flat = (COUNT, 2, 7, 8), (COUNT, 7, 8)
    return xarray.Dataset(
        {
            "geopotential": (("time", "level", "latitude", "longitude"), random.normal(5e4, 1e3, deep), {"units": "m**2 s**-2"}),
            "2m_temperature": (("time", "latitude", "longitude"), random.normal(280, 5, flat).astype("f4"), {"units": "K"}),
            "land_sea_mask": (("latitude", "longitude"), np.zeros((7, 8))),
        },
        coordinates,
    )


def stored(data, folder, **options):
    path = folder / "store.zarr"
    data.to_zarr(path, zarr_format=2, consolidated=True, **options)
    return path


@pytest.mark.parametrize("kind", ["v2", "v3", "netcdf", "longitude first", "short names"])
def test_stores_are_read(tmp_path, kind):
    data = dataset()
    truth = data.copy()
    path = tmp_path / "store.zarr"
    if kind == "longitude first":
        data = data.transpose("longitude", "latitude", "level", "time")
    if kind == "short names":
        data = data.rename(time="valid_time", latitude="lat", longitude="lon", level="pressure_level")
    if kind == "netcdf":
        pytest.importorskip("h5netcdf", reason=INSTALL)
        path = tmp_path / "store.nc"
        data.to_netcdf(path, engine="h5netcdf")
    elif kind == "v3":
        data.to_zarr(path, zarr_format=3, consolidated=False)
    else:
        data.to_zarr(path, zarr_format=2, consolidated=True)
    weather = open_weather(path)
    assert [str(v) for v in weather.variables] == ["2m_temperature", "geopotential 500 hPa", "geopotential 850 hPa"]
    assert [v.units for v in weather.variables] == ["K", "m**2 s**-2", "m**2 s**-2"]
    assert (weather.members, len(weather), weather.step_hours) == (1, COUNT, 6.0)
    chosen = open_weather(path, [T2M, Variable("geopotential", 850)], start="2020-01-02", stop="2020-01-04T06")
    assert np.array_equal(chosen.times, truth.time.values[4:13])
    expected = np.stack([truth["2m_temperature"].values, truth.geopotential.values[:, 1]], axis=-1)[4:13]
    assert torch.equal(chosen.fields()[0], torch.from_numpy(expected.astype("f4")))
    both = weather.select([Variable("geopotential", 850), T2M, Z500]).fields()[0]
    expected = [truth.geopotential.values[:, 1], truth["2m_temperature"].values, truth.geopotential.values[:, 0]]
    assert torch.equal(both, torch.from_numpy(np.stack(expected, axis=-1).astype("f4")))
    assert torch.equal(weather.fields()[0], both[..., [1, 2, 0]])
    assert torch.equal(chosen.every(2).nodes(1, 3), chosen.nodes()[:, 2:6:2])
    assert chosen.place.num_nodes == 5 * 8 + 2


def test_members_are_trajectories(tmp_path):
    data = dataset()[["2m_temperature"]]
    data = xarray.concat([data, data + 1], dim="number").assign_coords(number=[0, 1])
    weather = open_weather(stored(data, tmp_path))
    assert weather.members == 2
    assert torch.equal(weather.nodes()[1], (weather.nodes()[0].double() + 1).float())


def test_only_what_is_asked_for_is_read(tmp_path):
    data = dataset()
    encoding = {"geopotential": {"chunks": (6, 2, 7, 8)}, "2m_temperature": {"chunks": (6, 7, 8)}}
    path = stored(data, tmp_path, encoding=encoding)
    for chunk in (path / "2m_temperature").glob("[0-9]*"):
        if not chunk.name.startswith("1."):
            chunk.write_bytes(b"damaged")
    weather = open_weather(path)
    assert torch.isfinite(weather.nodes(6, 12)).all()
    assert torch.isfinite(weather.select([Z500]).nodes()).all()
    train, test = weather.split("2020-01-03T12")
    assert (len(train), len(test)) == (10, 14), "nothing is read for a split"


def test_a_record_goes_to_other_processes(tmp_path):
    weather = open_weather(stored(dataset(), tmp_path), [Z500]).split(0.5)[1]
    assert torch.equal(pickle.loads(pickle.dumps(weather)).nodes(), weather.nodes())


def test_missing_values_are_refused_when_read(tmp_path):
    data = dataset()
    data["2m_temperature"][9, 3, 2] = np.nan
    weather = open_weather(stored(data, tmp_path))
    assert torch.isfinite(weather.nodes(0, 9)).all()
    with pytest.raises(WeatherError, match=r"2m_temperature at 2020-01-03T06.*\(3, 2\)"):
        weather.nodes()


def refused(tmp_path, data, error, told, **options):
    with pytest.raises(error, match=told):
        open_weather(stored(data, tmp_path), **options)


def test_gaps_in_time_are_named(tmp_path):
    data = dataset().drop_isel(time=[7, 8])
    path = stored(data, tmp_path)
    with pytest.raises(
        WeatherError, match=r"1 of 21 time steps are not 6 hours long, the first from 2020-01-02T12.* to 2020-01-03T06"
    ):
        open_weather(path)
    assert len(open_weather(path, start="2020-01-03T06")) == 15
    assert len(open_weather(path, stop="2020-01-02T13")) == 7


def test_repeated_times_are_named(tmp_path):
    refused(tmp_path, dataset().isel(time=[0, 1, 1, 2]), WeatherError, r"2020-01-01T06.* is followed by 2020-01-01T06")


def test_unsorted_latitudes_are_named(tmp_path):
    refused(tmp_path, dataset().isel(latitude=[0, 2, 1, 3]), DomainError, "latitudes must rise or fall")


def test_exchanged_axes_are_named(tmp_path):
    refused(tmp_path, dataset().rename(latitude="longitude", longitude="latitude"), DomainError, "exchanged")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data.drop_vars("latitude"), "axis latitude .* has no coordinates"),
        (lambda data: data.isel(time=0), "no axis time"),
        (lambda data: data.rename(latitude="y"), r"no axis latitude \(or lat\), only level, longitude, time, y"),
        (lambda data: data[["land_sea_mask"]].expand_dims(time=data.time, z=2), "no variable along time, latitude and longitude"),
        (lambda data: data.assign_coords(time=np.arange(COUNT)), "of type int64"),
    ],
)
def test_other_layouts_are_refused(tmp_path, change, told):
    refused(tmp_path, change(dataset()), WeatherError, told)


def test_variables_and_spans_are_looked_for(tmp_path):
    path = stored(dataset().assign_coords(level=[50000, 85000]), tmp_path)
    with pytest.raises(WeatherError, match="in Pa"):
        open_weather(path, [Z500])
    with pytest.raises(WeatherError, match="there is no wind: there are 2m_temperature, geo"):
        open_weather(path, [Variable("wind")])
    with pytest.raises(WeatherError, match=r"land_sea_mask of .* lies along \(latitude, longitude\)"):
        open_weather(path, [Variable("land_sea_mask")])
    with pytest.raises(WeatherError, match="no frame between 2021-01-01"):
        open_weather(path, start="2021-01-01")


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no store"):
        open_weather(tmp_path / "absent.zarr")
    with pytest.raises(WeatherError, match="no zarr store"):
        open_weather(tmp_path)
    (tmp_path / "broken.nc").write_bytes(b"not a file of this kind")
    with pytest.raises(WeatherError, match="cannot be opened"):
        open_weather(tmp_path / "broken.nc")
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(WeatherError, match="cannot be opened"):
        open_weather(tmp_path)


@pytest.mark.parametrize("absent", ["xarray", "zarr"])
def test_the_extra_is_named(monkeypatch, tmp_path, absent):
    monkeypatch.setitem(sys.modules, absent, None)
    importlib.invalidate_caches()
    with pytest.raises(ImportError, match=r"pip install 'neuralpde-toolkit\[weather\]'"):
        open_weather(tmp_path)


def test_a_damaged_piece_is_named(tmp_path):
    path = stored(dataset(), tmp_path)
    chunk = next((path / "2m_temperature").glob("[0-9]*"))
    chunk.write_bytes(chunk.read_bytes()[:40])
    with pytest.raises(WeatherError, match=r"2m_temperature of .*store\.zarr cannot be read .*fetch it again"):
        open_weather(path).nodes()


def test_no_variable_is_refused(tmp_path):
    with pytest.raises(WeatherError, match="no variable is named"):
        open_weather(stored(dataset(), tmp_path), [])


def test_radians_are_refused(tmp_path):
    data = dataset()
    data = data.assign_coords(latitude=("latitude", np.deg2rad(data.latitude.values), {"units": "radians"}))
    refused(tmp_path, data, WeatherError, "latitude is in radians, wanted are degrees")


@pytest.mark.parametrize("kind", ["U5", "complex64", "datetime64[ns]"])
def test_what_is_not_a_number_is_no_variable(tmp_path, kind):
    data = dataset()
    data["flag"] = (data["2m_temperature"].dims, np.zeros((COUNT, 7, 8)).astype(kind))
    path = stored(data, tmp_path)
    assert "flag" not in [variable.name for variable in open_weather(path).variables]
    with pytest.raises(WeatherError, match=r"flag of .* not of real numbers"):
        open_weather(path, [Variable("flag")])


@pytest.mark.parametrize("kind", [str, Path])
def test_an_address_stays_one(monkeypatch, kind):
    asked = []
    monkeypatch.setattr(xarray, "open_dataset", lambda path, **settings: asked.append(path) or dataset())
    assert len(open_weather(kind("gs://bucket/era5.zarr"))) == COUNT
    assert asked == ["gs://bucket/era5.zarr"], "a Path loses a slash"
