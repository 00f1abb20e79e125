"""Stations and grids in NetCDF files."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuralpde.station_checks import StationError
from neuralpde.station_files import read_stations
from neuralpde.station_netcdf import read_netcdf
from neuralpde.station_synthetic import SyntheticStations

RECORD = SyntheticStations(stations=5, frames=20, missing=0.2).record()


def dataset(**change: Any) -> Any:
    xarray: Any = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    values = np.where(RECORD.seen, RECORD.values, np.nan)[..., 0]
    latitude, longitude = RECORD.placement.points.T.numpy()
    data = xarray.Dataset(
        {"t": (("station", "time"), values.T, {"units": "kelvin"}), "count": (("time",), np.arange(20))},
        {
            "time": RECORD.times,
            "lat": ("station", latitude),
            "lon": ("station", longitude),
            "station_id": ("station", [f"s{one}" for one in RECORD.ids]),
        },
    )
    return data.assign(**change)


def written(path: Path, data: Any) -> Path:
    data.to_netcdf(path, engine="h5netcdf")
    return path


def test_stations(tmp_path: Path) -> None:
    record = read_stations(written(tmp_path / "s.nc", dataset()))
    assert np.array_equal(record.times, RECORD.times)
    assert torch.equal(record.values, RECORD.values)
    assert torch.equal(record.seen, RECORD.seen)
    assert record.ids == tuple(f"s{one}" for one in RECORD.ids)
    assert record.variables[0].units == "K"
    with pytest.raises(StationError, match="no variable count"):
        read_netcdf(tmp_path / "s.nc", ["count"])


def test_each_point_of_a_grid_is_a_station(tmp_path: Path) -> None:
    xarray: Any = pytest.importorskip("xarray")
    values = 280 + np.arange(24.0).reshape(4, 2, 3)
    values[:, 1, 2] = np.nan
    data = xarray.Dataset(
        {"t": (("time", "latitude", "longitude"), values)},
        {"time": RECORD.times[:4], "latitude": [50.0, 51.0], "longitude": [0.0, 1.0, 2.0]},
    )
    record = read_netcdf(written(tmp_path / "g.nc", data))
    assert record.ids == ("0", "1", "2", "3", "4")
    assert record.placement.points[4].tolist() == [51.0, 1.0]
    assert torch.equal(record.values[..., 0], torch.from_numpy(values.reshape(4, 6)[:, :5]))


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_netcdf(tmp_path / "none.nc")
    (tmp_path / "bad.nc").write_text("hello")
    with pytest.raises(StationError, match="cannot be opened"):
        read_netcdf(tmp_path / "bad.nc")
    for name, data, told in (
        ("lat", dataset().drop_vars("lat"), "no variable latitude"),
        ("time", dataset().assign_coords(time=np.arange(20)), "Gregorian"),
        ("layout", dataset().drop_vars("t"), "no numbers along time"),
    ):
        with pytest.raises(StationError, match=told):
            read_netcdf(written(tmp_path / f"{name}.nc", data))


def test_without_xarray(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ImportError, match="pip install"):
        read_netcdf("some.nc")
