"""Stations from NetCDF files: along time and station, or each point of a grid."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuralpde.station_checks import StationError, as_texts
from neuralpde.station_record import StationRecord
from neuralpde.weather_record import Variable

LATITUDE, LONGITUDE, TIME = ("latitude", "lat"), ("longitude", "lon"), ("time", "valid_time")
NAMES = ("station_id", "station_name", "station", "platform_id", "id")
# CF conventions write units in several ways.
UNITS = {
    "celsius": "degC", "degree_celsius": "degC", "degrees_celsius": "degC", "c": "degC", "kelvin": "K", "m/s": "m s**-1",
    "m s-1": "m s**-1", "percent": "%", "pascal": "Pa", "hpa": "hPa", "mbar": "hPa", "degrees": "degree",
}  # fmt: skip


def read_netcdf(
    path: Path | str, variables: Sequence[Variable | str] | None = None, missing: Sequence[float] = (), name: str | None = None
) -> StationRecord:
    """Stations from a NetCDF file, after the CF conventions' orthogonal layout, or the points of a grid that ever have a value.

    Raises:
        ImportError: without xarray and h5netcdf. FileNotFoundError: there is no file. StationError: another layout, damage.
    """
    path = Path(path)
    try:
        xarray: Any = importlib.import_module("xarray")
    except ImportError as error:
        raise ImportError("NetCDF files need xarray: pip install 'neuralpde-toolkit[weather]'") from error
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: check the path")
    try:
        with xarray.open_dataset(path, decode_timedelta=False) as opened:
            data = opened.load()
    except Exception as error:
        # Each backend raises what it likes at damaged files.
        raise StationError(f"{path} cannot be opened as NetCDF ({type(error).__name__}: {error})") from error
    latitude, longitude, time = (_named(data, names, path) for names in (LATITUDE, LONGITUDE, TIME))
    times = data[time].to_numpy()
    if times.ndim != 1 or times.dtype.kind != "M":
        raise StationError(
            f"{path}: {time} must be an axis of Gregorian times, as units such as 'hours since 2020-01-01' make it"
        )
    axis = data[time].dims[0]
    places = data[latitude].dims
    gridded = len(places) == 1 and data[longitude].dims != places
    spatial = (*places, *data[longitude].dims) if gridded else places
    if (not gridded and data[longitude].dims != places) or axis in spatial:
        raise StationError(
            f"{path}: latitude and longitude must lie along stations, or be the two axes of a grid, not along {places}"
        )
    present = [
        str(key) for key, array in data.data_vars.items() if {*array.dims} == {axis, *spatial} and array.dtype.kind in "fiu"
    ]
    if not present:
        kinds = ", ".join(f"{key} {tuple(array.dims)}" for key, array in data.data_vars.items())
        raise StationError(
            f"{path} has no numbers along {axis} and {', '.join(map(str, spatial))}, only {kinds}: rearrange it so"
        )
    picked = [one if isinstance(one, Variable) else Variable(one) for one in (present if variables is None else variables)]
    unknown = [str(one) for one in picked if str(one) not in present]
    if unknown:
        raise StationError(f"{path} has no variable {unknown[0]} at stations: it has {', '.join(present)}")
    channels = [one if one.units else Variable(one.name, units=_unit(data[one.name])) for one in picked]
    values = np.stack([data[one.name].transpose(axis, *spatial).to_numpy().reshape(len(times), -1) for one in picked], axis=-1)
    where = [data[key].to_numpy().astype(np.float64) for key in (latitude, longitude)]
    if gridded:
        where = [part.reshape(-1) for part in np.meshgrid(*where, indexing="ij")]
    where = [part.reshape(-1) for part in where]
    ids = _ids(data, spatial, values.shape[1], gridded)
    kept: Any = ~np.isnan(values.astype(np.float64)).all(axis=(0, 2)) if gridded else np.ones(values.shape[1], bool)
    chosen = [station for station, keep in zip(ids, kept, strict=True) if keep]
    return StationRecord.of(
        name or path.stem, values[:, kept], times, where[0][kept], where[1][kept], channels, chosen, missing=missing
    )


def _named(data: Any, names: Sequence[str], path: Path) -> str:
    for name in names:
        if name in data.variables:
            return name
    raise StationError(f"{path} has no variable {' or '.join(names)}, only {', '.join(map(str, data.variables))}")


def _unit(array: Any) -> str:
    unit = str(array.attrs.get("units", ""))
    return UNITS.get(unit.lower(), unit)


def _ids(data: Any, spatial: Sequence[Any], count: int, gridded: bool) -> tuple[str, ...]:
    if not gridded:
        for name in NAMES:
            if name in data.variables and data[name].dims == tuple(spatial):
                raw = data[name].to_numpy().reshape(-1).tolist()
                return as_texts([one.decode() if isinstance(one, bytes) else one for one in raw])
    return as_texts(range(count))
