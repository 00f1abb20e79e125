"""The small real samples of ERA5: hourly temperature over Britain and Ireland, and a global ensemble."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralpde.weather_record import Times, Variable, WeatherError, WeatherRecord, regular_times
from operators.lat_lon import LatLon

TEMPERATURE_2M = Variable("2m_temperature", units="K")
# The names in the file, and those of WeatherBench 2.
ENSEMBLE_VARIABLES = {"z": ("geopotential", "m**2 s**-2"), "t": ("temperature", "K")}


def era5_uk(path: Path | str) -> WeatherRecord:
    """Hourly temperature at 2 m of March 2019 on a grid of 0.25° over Britain and Ireland, from `era5_t2m_uk_hourly_201903.npz`.

    A record of K = 1 trajectory, in kelvin, on a grid that does not wrap.
    """
    arrays = _arrays(path, ("t2m", "lat", "lon", "time0", "freq"))
    values = arrays["t2m"]
    if str(arrays["freq"]) != "1h" or values.ndim != 3:
        raise WeatherError(f"{path} holds no hourly fields (time, lat, lon)")
    times = regular_times(str(arrays["time0"]), 1.0, len(values))
    return _record(path, torch.from_numpy(values)[None, ..., None], times, arrays, [TEMPERATURE_2M])


def era5_ensemble(path: Path | str, variables: Sequence[Variable] | None = None) -> WeatherRecord:
    """Geopotential and temperature at 500 and 850 hPa, ten members, 3° global, from `era5_ens10_z_t_500_850_global3deg.npz`.

    A record of K = 10 trajectories of four frames, twelve hours apart, with both poles as rows.

    Args:
        variables: those wanted, in this order; all of them if absent.
    """
    arrays = _arrays(path, (*ENSEMBLE_VARIABLES, "level", "time", "lat", "lon"))
    found, fields = [], []
    for key, (name, units) in ENSEMBLE_VARIABLES.items():
        if arrays[key].ndim != 5 or arrays[key].shape[2] != len(arrays["level"]):
            raise WeatherError(f"{path}: {key} must lie along (member, time, level, lat, lon)")
        for index, level in enumerate(arrays["level"]):
            found.append(Variable(name, int(level), units))
            fields.append(torch.from_numpy(arrays[key][:, :, index]))
    times = arrays["time"].astype("datetime64[ns]")
    record = _record(path, torch.stack(fields, dim=-1), times, arrays, found)
    return record if variables is None else record.select(variables)


def era5_sample(path: Path | str) -> WeatherRecord:
    """Either sample, told apart by its arrays."""
    return era5_ensemble(path) if "member" in _arrays(path) else era5_uk(path)


def _arrays(path: Path | str, needed: Sequence[str] = ()) -> dict[str, Any]:
    arrays = _loaded(path)
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise WeatherError(f"{path} has no array {', '.join(missing)}: it is not the file that this reads")
    return arrays


def _loaded(path: Path | str) -> dict[str, Any]:
    try:
        # Given the name, np.load leaves a damaged file open.
        with Path(path).open("rb") as file, np.load(file) as arrays:
            return dict(arrays)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}: pass the path of the .npz sample") from error
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, TypeError) as error:
        raise WeatherError(f"{path} is damaged or no .npz file ({error}): fetch it again") from error


def _record(
    path: Path | str, values: Tensor, times: Times, arrays: dict[str, Any], variables: Sequence[Variable]
) -> WeatherRecord:
    place = LatLon(torch.from_numpy(arrays["lat"]), torch.from_numpy(arrays["lon"]))
    try:
        return WeatherRecord.of(values, times, place, variables)
    except WeatherError as error:
        raise WeatherError(f"{path}: {error}") from error
