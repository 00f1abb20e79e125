"""Weather in WeatherBench 2's layout, from zarr and NetCDF, opened lazily."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralpde.weather_record import Moment, Source, Times, Variable, WeatherError, WeatherRecord, find_variable, moment, moments
from neuralpde.weather_samples import era5_sample
from operators.lat_lon import LatLon

# What files call their axes.
NAMES = {
    "time": ("time", "valid_time"),
    "level": ("level", "pressure_level", "isobaricInhPa", "plev"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon"),
    "number": ("number", "realization", "member", "ensemble"),
}
# The kinds of NumPy types that fields may have: real and whole numbers.
NUMBERS = "fiu"


@dataclass(frozen=True, eq=False)
class StoreSource(Source):
    """An open dataset along (number,) time, (level,) latitude, longitude in any order; a channel is (name, index of level)."""

    dataset: Any
    channels: tuple[tuple[str, int | None], ...]

    @property
    def members(self) -> int:
        return int(self.dataset.sizes.get("number", 1))

    def read(self, frames: range, channels: Sequence[int]) -> Tensor:
        wanted = [self.channels[channel] for channel in channels]
        columns: dict[tuple[str, int | None], Any] = {}
        for name in dict.fromkeys(name for name, _ in wanted):
            levels = [level for other, level in wanted if other == name and level is not None]
            array = self.dataset[name].isel(time=slice(frames.start, frames.stop, frames.step))
            axes = ["number", "time", *(["level"] if levels else []), "latitude", "longitude"]
            if levels:
                array = array.isel(level=levels)
            values = self._values(array, axes)
            for index, level in enumerate(levels or [None]):
                columns[name, level] = values[:, :, index] if levels else values
        # Contiguous, as sums round differently in another order of memory.
        return torch.from_numpy(np.ascontiguousarray(np.stack([columns[channel] for channel in wanted], axis=-1), np.float32))

    def _values(self, array: Any, axes: Sequence[str]) -> Any:
        try:
            if "number" not in array.dims:
                array = array.expand_dims(number=self.members)
            return array.transpose(*axes).to_numpy()
        except Exception as error:
            # Each backend raises what it likes at damaged pieces.
            where = self.dataset.encoding.get("source", "the store")
            told = f"{type(error).__name__}: {error}"
            raise WeatherError(f"{array.name} of {where} cannot be read ({told}): it is damaged, fetch it again") from error


def open_weather(
    path: Path | str,
    variables: Sequence[Variable] | None = None,
    start: Moment | None = None,
    stop: Moment | None = None,
) -> WeatherRecord:
    """A record over a store in WeatherBench 2's layout; values are read when they are asked for, and never converted.

    Args:
        path: a zarr folder or address, a NetCDF file, or one of the .npz samples.
        variables: those wanted, in this order; all that lie along time, latitude and longitude (and level) by name if absent.
        start, stop: the span, start ≤ time < stop.

    Raises:
        ImportError: without xarray and zarr, `pip install 'neuralpde-toolkit[weather]'`.
        FileNotFoundError: there is nothing at the path.
        WeatherError: an axis or a variable is missing, times are not regular over the span, an axis is not in degrees.
        DomainError: latitudes or longitudes that are out of order or repeated.
    """
    if variables is not None and not variables:
        raise WeatherError("no variable is named: name at least one, or leave the choice out for all of them")
    if str(path).endswith(".npz"):
        sample = era5_sample(path).between(start, stop)
        return sample if variables is None else sample.select(variables)
    dataset = _renamed(_opened(path), path)
    times = dataset["time"].to_numpy()
    if not np.issubdtype(times.dtype, np.datetime64):
        raise WeatherError(f"the times of {path} are of type {times.dtype}, not of the Gregorian calendar: convert them")
    times = moments(times)
    first, last = _span(times, start, stop, path)
    present = _channels(dataset)
    if not present:
        raise WeatherError(
            f"{path} has no variable along time, latitude and longitude, only {', '.join(map(str, dataset.data_vars))}"
        )
    wanted = [variable for variable, _ in present]
    if variables is not None:
        _check_forecasts(dataset, variables, path)
        chosen = [present[find_variable(variable, wanted)] for variable in variables]
    else:
        chosen = present
    place = LatLon(torch.from_numpy(_axis(dataset, "latitude")), torch.from_numpy(_axis(dataset, "longitude")))
    source = StoreSource(dataset, tuple(channel for _, channel in chosen))
    return WeatherRecord.over(source, place, tuple(variable for variable, _ in chosen), times[first:last], first)


def xarray_module() -> Any:
    """The package xarray, with zarr, or an ImportError that says how to get them."""
    try:
        importlib.import_module("zarr")
        return importlib.import_module("xarray")
    except ImportError as error:
        raise ImportError(f"weather stores need {error.name}: pip install 'neuralpde-toolkit[weather]'") from error


def _opened(path: Path | str) -> Any:
    xarray = xarray_module()
    # Path("gs://bucket") is gs:/bucket.
    path = re.sub(r"^(\w{2,}):/+", r"\1://", str(path))
    remote = "://" in path
    settings: dict[str, Any] = {"chunks": None, "decode_timedelta": False}
    try:
        if remote:
            return xarray.open_dataset(path, engine="zarr", **settings)
        folder = Path(path)
        if not folder.exists():
            raise FileNotFoundError(f"there is no store at {path}: pass a zarr folder, a NetCDF file or an .npz sample")
        if not folder.is_dir():
            return xarray.open_dataset(folder, **settings)
        if not any((folder / name).exists() for name in (".zgroup", ".zmetadata", "zarr.json")):
            raise WeatherError(f"{path} is a folder but no zarr store: pass the folder that holds .zgroup or zarr.json")
        return xarray.open_dataset(folder, engine="zarr", consolidated=(folder / ".zmetadata").exists(), **settings)
    except (FileNotFoundError, WeatherError, ImportError):
        raise
    except Exception as error:
        # Each backend raises what it likes at damaged files.
        raise WeatherError(f"{path} cannot be opened as zarr or NetCDF ({type(error).__name__}: {error})") from error


def _renamed(dataset: Any, path: Path | str) -> Any:
    axes = {*dataset.dims}
    renaming = {}
    for ours, theirs in NAMES.items():
        found = next((name for name in theirs if name in axes), None)
        if found is not None:
            renaming[found] = ours
        elif ours in ("time", "latitude", "longitude"):
            raise WeatherError(
                f"{path} has no axis {ours} (or {', '.join(theirs[1:])}), only {', '.join(map(str, sorted(axes)))}"
            )
    # Forecast files carry both a time of start, as axis, and a time of validity, which is no axis.
    taken = [ours for theirs, ours in renaming.items() if ours != theirs and ours in dataset.variables]
    dataset = dataset.drop_vars(taken).rename({theirs: ours for theirs, ours in renaming.items() if ours != theirs})
    missing = [ours for ours in ("time", "latitude", "longitude") if ours not in dataset.coords]
    if missing:
        raise WeatherError(f"the axis {missing[0]} of {path} has no coordinates: write them with the data")
    return dataset


def _channels(dataset: Any) -> list[tuple[Variable, tuple[str, int | None]]]:
    found: list[tuple[Variable, tuple[str, int | None]]] = []
    # Backends list variables in an order of their own.
    for name, array in sorted(dataset.data_vars.items()):
        axes = {*array.dims} - {"number"}
        units = str(array.attrs.get("units", ""))
        if array.dtype.kind not in NUMBERS:
            continue
        if axes == {"time", "latitude", "longitude"}:
            found.append((Variable(str(name), None, units), (str(name), None)))
        elif axes == {"time", "level", "latitude", "longitude"}:
            levels = _axis(dataset, "level") if "level" in dataset.coords else np.arange(dataset.sizes["level"])
            found += [(Variable(str(name), float(level), units), (str(name), index)) for index, level in enumerate(levels)]
    return found


def _check_forecasts(dataset: Any, variables: Sequence[Variable], path: Path | str) -> None:
    """Say why a variable that is in the file cannot be read."""
    usual = {"time", "level", "latitude", "longitude", "number"}
    for variable in variables:
        if variable.name in dataset.data_vars:
            axes = {*dataset[variable.name].dims}
            if axes - usual or not {"time", "latitude", "longitude"} <= axes:
                told = ", ".join(map(str, dataset[variable.name].dims))
                raise WeatherError(f"{variable.name} of {path} lies along ({told}): wanted is (time, level, latitude, longitude)")
            kind = dataset[variable.name].dtype
            if kind.kind not in NUMBERS:
                raise WeatherError(f"{variable.name} of {path} is of type {kind}, not of real numbers: choose another variable")


def _axis(dataset: Any, name: str) -> Any:
    units = str(dataset[name].attrs.get("units", ""))
    if units.lower().startswith("rad"):
        raise WeatherError(f"{name} is in {units}, wanted are degrees: convert it, and call its units degrees")
    return dataset[name].to_numpy().astype(np.float64)


def _span(times: Times, start: Moment | None, stop: Moment | None, path: Path | str) -> tuple[int, int]:
    inside = np.ones(len(times), bool)
    if start is not None:
        inside &= times >= moment(start)
    if stop is not None:
        inside &= times < moment(stop)
    chosen = np.flatnonzero(inside)
    if len(chosen) == 0:
        ends = f"it runs from {times[0]} to {times[-1]}" if len(times) else "it has no frame"
        raise WeatherError(f"{path} has no frame between {start} and {stop}: {ends}")
    return int(chosen[0]), int(chosen[-1]) + 1
