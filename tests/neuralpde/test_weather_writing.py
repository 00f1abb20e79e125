"""Written stores: WeatherBench 2's layout, whole or not at all, with a checksum that notices a change."""

import numpy as np
import pytest
import torch

from neuralpde import weather_writing
from neuralpde.files import RunFolderError
from neuralpde.weather_place import MeshNodes
from neuralpde.weather_record import InMemory, Variable, WeatherError, WeatherRecord, regular_times
from neuralpde.weather_store import open_weather
from neuralpde.weather_writing import verify_weather, write_weather
from operators import icosphere
from operators.lat_lon import LatLon

INSTALL = "pip install 'neuralpde-toolkit[weather]'"
xarray = pytest.importorskip("xarray", reason=INSTALL)
zarr = pytest.importorskip("zarr", reason=INSTALL)

GRID = LatLon(torch.linspace(87, -87, 5), torch.arange(-180, 180, 60))
VARIABLES = [
    Variable("temperature", 850, "K"),
    Variable("2m_temperature", None, "K"),
    Variable("temperature", 500, "K"),
]


def weather(count=150, members=1):
    values = torch.randn(members, count, 5, 6, 3)
    return WeatherRecord.of(values, regular_times("2020-01-01", 6, count), GRID, VARIABLES)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("block", [1, 2**26])
def test_what_is_written_is_read(tmp_path, monkeypatch, members, block):
    monkeypatch.setattr(weather_writing, "BYTES_A_BLOCK", block)
    record, path, told = weather(members=members), tmp_path / "folder" / "store.zarr", []
    checksum = write_weather(record, str(path), told.append)
    assert told == ([64, 128, 150] if block == 1 else [150])
    again = open_weather(path)
    assert (again.members, again.place.shape) == (members, (5, 6))
    assert np.array_equal(again.times, record.times)
    assert torch.equal(again.select(VARIABLES).fields(), record.fields())
    assert [v.units for v in again.variables] == ["K"] * 3
    assert verify_weather(path) == checksum
    assert not list(path.parent.glob(".*")), "no temporary is left"


def test_the_layout_is_weatherbenchs(tmp_path):
    write_weather(weather(), tmp_path / "store.zarr")
    with xarray.open_zarr(tmp_path / "store.zarr", chunks=None) as data:
        assert data.temperature.dims == ("time", "level", "latitude", "longitude")
        assert data["2m_temperature"].dims == ("time", "latitude", "longitude")
        assert data.level.values.tolist() == [500, 850]
        assert data.temperature.dtype == np.float32
    assert zarr.open_group(tmp_path / "store.zarr", mode="r")["temperature"].chunks == (64, 2, 5, 6)


def test_a_change_is_noticed(tmp_path):
    path = tmp_path / "store.zarr"
    write_weather(weather(), path)
    zarr.open_group(path, mode="r+")["2m_temperature"][140, 2, 2] += 1e-3
    with pytest.raises(WeatherError, match="damaged"):
        verify_weather(path)
    del zarr.open_group(path, mode="r+").attrs["neuralpde_sha256"]
    zarr.consolidate_metadata(path, zarr_format=2)
    with pytest.raises(WeatherError, match="no checksum"):
        verify_weather(path)


def test_half_a_store_is_never_left(tmp_path, monkeypatch):
    monkeypatch.setattr(weather_writing, "BYTES_A_BLOCK", 1)
    values = torch.zeros(1, 150, 5, 6, 3)
    values[0, 149] = torch.nan
    lazy = WeatherRecord.over(InMemory(values), GRID, tuple(VARIABLES), regular_times("2020-01-01", 6, 150))
    with pytest.raises(WeatherError, match="missing"):
        write_weather(lazy, tmp_path / "store.zarr")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_refused(tmp_path):
    path = tmp_path / "store.zarr"
    write_weather(weather(3), path)
    with pytest.raises(RunFolderError, match="there already"):
        write_weather(weather(3), path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write"):
        write_weather(weather(3), tmp_path / "file" / "store.zarr")
    mesh = WeatherRecord.of(torch.zeros(1, 3, 12, 1), regular_times("2020-01-01", 6, 3), MeshNodes(icosphere(0)), VARIABLES[1:2])
    with pytest.raises(WeatherError, match="interpolate to a LatLon"):
        write_weather(mesh, tmp_path / "mesh.zarr")
    partial = [*VARIABLES[:2], Variable("geopotential", 500)]
    some = WeatherRecord.of(torch.zeros(1, 3, 5, 6, 3), regular_times("2020-01-01", 6, 3), GRID, partial)
    with pytest.raises(WeatherError, match=r"at all of the levels \[500, 850\]"):
        write_weather(some, tmp_path / "some.zarr")
