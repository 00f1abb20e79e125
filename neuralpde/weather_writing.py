"""Weather records written as zarr in WeatherBench 2's layout, whole or not at all, with a checksum of their content."""

from __future__ import annotations

import hashlib
import importlib
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from neuralpde.files import RunFolderError
from neuralpde.weather_record import Times, WeatherError, WeatherRecord
from neuralpde.weather_store import StoreSource, open_weather, xarray_module
from operators.lat_lon import LatLon

CHECKSUM = "neuralpde_sha256"
FRAMES_A_CHUNK = 64
# Each block that is appended costs a tenth of a second of opening and closing.
BYTES_A_BLOCK = 2**26


def write_weather(record: WeatherRecord, path: Path | str, told: Callable[[int], None] = lambda frames: None) -> str:
    """Write a record on a latitude–longitude grid as a zarr store in WeatherBench 2's layout, whole or not at all.

    Args:
        told: called with the number of frames written so far.

    Returns:
        The checksum of its content, which is kept in the store for `verify_weather`.

    Raises:
        RunFolderError: the path is taken, or cannot be written.
        WeatherError: the place is no grid; a variable is there at some levels only; a value is missing.
    """
    xarray, path = xarray_module(), Path(path)
    place = record.place
    if not isinstance(place, LatLon):
        raise WeatherError(
            f"the layout is of latitudes and longitudes, and a {type(place).__name__} has none: interpolate to a LatLon first"
        )
    if path.exists():
        raise RunFolderError(f"{path} is there already: choose another path, or delete it")
    digest = ContentDigest(record)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        frame_bytes = 4 * len(record.variables) * record.members * math.prod(place.shape)
        size = FRAMES_A_CHUNK * max(1, BYTES_A_BLOCK // (FRAMES_A_CHUNK * frame_bytes))
        for start in range(0, len(record), size):
            stop = min(start + size, len(record))
            values = record.fields(start, stop)
            digest.add(values)
            block = _dataset(xarray, record, place, values.numpy(), record.times[start:stop])
            if start == 0:
                encoding: dict[str, Any] = {name: {"chunks": _chunks(array)} for name, array in block.data_vars.items()}
                encoding["time"] = {"units": "hours since 1900-01-01", "dtype": "float64"}
                block.to_zarr(temporary, mode="w", zarr_format=2, consolidated=True, encoding=encoding)
            else:
                block.to_zarr(temporary, append_dim="time", zarr_format=2, consolidated=True)
            told(stop)
        zarr: Any = importlib.import_module("zarr")
        zarr.open_group(temporary, mode="r+").attrs[CHECKSUM] = digest.text
        zarr.consolidate_metadata(temporary, zarr_format=2)
        os.replace(temporary, path)
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return digest.text


class ContentDigest:
    """SHA-256 of variables, units, times, grid and values, whatever the order of variables and the chunks that hold them."""

    def __init__(self, record: WeatherRecord) -> None:
        names = [(variable.name, float(variable.level or 0), variable.units) for variable in record.variables]
        self._order = sorted(range(len(names)), key=names.__getitem__)
        self._digest = hashlib.sha256(repr([names[i] for i in self._order]).encode())
        self._digest.update(record.times.astype("<i8").tobytes())
        for coordinate in record.place.positions:
            self._digest.update(coordinate.numpy().astype("<f8").tobytes())

    def add(self, values: Tensor) -> None:
        """The next frames (K, T, rows, columns, c)."""
        ordered = values[..., self._order].transpose(0, 1).contiguous()
        self._digest.update(ordered.numpy().astype("<f4").tobytes())

    @property
    def text(self) -> str:
        """Of all that was added, in hexadecimal."""
        return self._digest.hexdigest()


def verify_weather(path: Path | str) -> str:
    """The checksum of a store that `write_weather` wrote; a WeatherError if its content is no longer what was written."""
    record = open_weather(path)
    source = record.source
    written = source.dataset.attrs.get(CHECKSUM) if isinstance(source, StoreSource) else None
    if written is None:
        raise WeatherError(f"{path} has no checksum: it was not written by this program")
    digest = ContentDigest(record)
    for start in range(0, len(record), FRAMES_A_CHUNK):
        digest.add(record.fields(start, min(start + FRAMES_A_CHUNK, len(record))))
    if digest.text != written:
        raise WeatherError(f"{path} holds {digest.text[:12]}, but was written as {written[:12]}: it is damaged, make it anew")
    return digest.text


def _dataset(xarray: Any, record: WeatherRecord, place: LatLon, values: Any, times: Times) -> Any:
    outer: tuple[str, ...] = ("number",)
    coordinates: dict[str, Any] = {"number": np.arange(record.members)}
    if record.members == 1:
        values, outer, coordinates = values[0], (), {}
    levels = sorted({variable.level for variable in record.variables if variable.level is not None})
    arrays: dict[str, Any] = {}
    for name in dict.fromkeys(variable.name for variable in record.variables):
        channels = {v.level: i for i, v in enumerate(record.variables) if v.name == name}
        units = next(v.units for v in record.variables if v.name == name)
        if None in channels:
            arrays[name] = ((*outer, "time", "latitude", "longitude"), values[..., channels[None]], {"units": units})
            continue
        if set(channels) != set(levels):
            raise WeatherError(f"{name} must be there at all of the levels {levels}, as all variables share one axis of levels")
        stacked = np.stack([values[..., channels[level]] for level in levels], axis=-3)
        arrays[name] = ((*outer, "time", "level", "latitude", "longitude"), stacked, {"units": units})
    coordinates["time"] = times
    coordinates["latitude"] = ("latitude", place.latitude.numpy(), {"units": "degrees_north"})
    coordinates["longitude"] = ("longitude", place.longitude.numpy(), {"units": "degrees_east"})
    if levels:
        coordinates["level"] = ("level", np.array(levels), {"units": "hPa"})
    return xarray.Dataset(arrays, coordinates)


def _chunks(array: Any) -> tuple[int, ...]:
    sizes = {"time": FRAMES_A_CHUNK, "number": 1}
    return tuple(sizes.get(axis, size) for axis, size in zip(array.dims, array.shape, strict=True))
