"""Station records from the user's disk: CSV and parquet, long or wide, npz and NetCDF."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralpde.files import write_atomically
from neuralpde.station_checks import Floats, StationError, as_texts
from neuralpde.station_netcdf import read_netcdf
from neuralpde.station_record import StationRecord
from neuralpde.station_samples import read_arrays
from neuralpde.station_table import NOTHING, Columns, Sites, Table, read_table
from neuralpde.station_times import parse_times
from neuralpde.weather_record import Times, Variable

NETCDF = (".nc", ".nc4", ".cdf", ".netcdf", ".h5")
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
# What arrays of an npz file are called.
ARRAYS = {
    "times": ("times", "time"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon"),
    "ids": ("ids", "station_id", "id", "stations"),
    "variables": ("variables", "vars"),
    "units": ("units",),
    "elevation": ("elevation", "alt_m", "altitude"),
}


def read_stations(
    path: Path | str,
    stations: Path | str | Sites | None = None,
    variables: Sequence[Variable | str] | None = None,
    missing: Sequence[float] = (),
    columns: Columns | None = None,
    name: str | None = None,
) -> StationRecord:
    """Measurements from a file.

    - CSV or parquet, long: a row for each station and time, with columns station, time, latitude, longitude (elevation), and
      one for each variable; or columns variable and value.
    - CSV or parquet, wide: a row for each time, a column for each station; of one variable, with a table of stations.
    - npz: arrays values (T, n) or (T, n, c), time, latitude, longitude, and if you like variables, units, ids, elevation;
      what `write_stations` writes.
    - NetCDF: variables along time and station, with latitude and longitude of the stations; or a grid, each point of which
      becomes a station.

    NOAA's own layouts are read by `read_isd_lite`, `read_global_hourly`, `read_lcd` and `read_ghcn_daily`.

    Args:
        stations: a table with columns station, latitude, longitude (elevation), if the file does not say where stations are; or
            `Sites.of(read_table(path), Columns(...))` of one whose columns have other names.
        variables: those wanted; with units, values are checked against them. All that are numbers if absent.
        missing: values that mean that nothing was measured, such as -9999.
        columns: what columns are called, if not as usual.
        name: of the record; the file's if absent.

    Raises:
        FileNotFoundError: there is no file. ImportError: parquet without pyarrow, NetCDF without xarray.
        StationError: as `StationRecord.of`, and: a column is missing, a cell is no number, a station measures twice at one time.
    """
    path = Path(path)
    name = name or path.name.split(".")[0]
    if path.suffix == ".npz":
        return _from_arrays(path, name, variables, missing)
    if path.suffix in NETCDF:
        return read_netcdf(path, variables, missing, name)
    table = read_table(path)
    sites = Sites.of(read_table(stations)) if isinstance(stations, (str, Path)) else stations
    named = (columns or Columns()).within(table)
    if named.time is None:
        raise StationError(f"{path} has no column of times, only {', '.join(table.columns)}: name it with Columns(time=...)")
    if named.station is None:
        return _from_wide(table, str(named.time), sites, variables, missing, name)
    return _from_long(table, named, sites, variables, missing, name)


def write_stations(record: StationRecord, path: Path | str) -> None:
    """Write a record as .npz, atomically; `read_stations` reads it back unchanged."""
    path = Path(path)
    if path.suffix != ".npz":
        raise StationError(f"records are written as .npz files, not {path.name}")
    arrays: dict[str, NDArray[Any]] = {
        "values": np.where(record.seen.numpy(), record.values.numpy(), np.nan),
        "times": record.times.astype("datetime64[ns]"),
        "latitude": record.placement.points[:, 0].numpy(),
        "longitude": record.placement.points[:, 1].numpy(),
        "variables": np.array([str(variable) for variable in record.variables]),
        "units": np.array([variable.units for variable in record.variables]),
        "ids": np.array(record.ids),
    }
    if record.elevation is not None:
        arrays["elevation"] = record.elevation.numpy()

    def write(temporary: Path) -> None:
        # Given a name, np.savez appends .npz to it.
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    write_atomically(path, write)


def assembled(
    name: str,
    ids: Sequence[str],
    times: Times,
    values: Floats,
    variables: Sequence[Variable],
    sites: Sites,
    missing: Sequence[float] = (),
    repeats: bool = False,
) -> StationRecord:
    """A record from N measurements in any order.

    Args:
        ids, times: of each measurement.
        values: (N, c), NaN where nothing was measured.
        repeats: whether a station may report several times at one time; the first report of each variable then counts.

    Raises:
        StationError: two measurements of one station at one time, if `repeats` is false.
    """
    stations, column = np.unique(np.array(ids, str), return_inverse=True)
    stamps, row = np.unique(times, return_inverse=True)
    if np.isnat(stamps).any():
        raise StationError(f"{name}: a time is missing: drop its rows")
    cell = row.reshape(-1) * len(stations) + column.reshape(-1)
    dense = np.full((len(stamps) * len(stations), values.shape[1]), np.nan)
    if repeats:
        # Later writes win: the first reports come last, and only what they measured.
        for channel in range(values.shape[1]):
            seen = np.flatnonzero(~np.isnan(values[:, channel]))[::-1]
            dense[cell[seen], channel] = values[seen, channel]
    else:
        order = np.argsort(cell, kind="stable")
        twice = np.flatnonzero(np.diff(cell[order]) == 0)
        if len(twice):
            first = order[twice[0]]
            raise StationError(
                f"{name}: {len(twice)} measurements are of the same station and time as another, the first of station "
                f"{ids[first]} at {times[first].astype('datetime64[s]')}: keep one of each"
            )
        dense[cell] = values
    known = [str(station) for station in stations]
    latitude, longitude, elevation = sites.find(known)
    return StationRecord.of(
        name,
        dense.reshape(len(stamps), len(stations), -1),
        stamps,
        latitude,
        longitude,
        variables,
        known,
        None if np.isnan(elevation).all() else elevation,
        missing,
    )


def chosen(present: Sequence[str], wanted: Sequence[Variable | str] | None, where: str) -> list[Variable]:
    """The wanted among the variables present, or all of them."""
    variables = [one if isinstance(one, Variable) else Variable(one) for one in (present if wanted is None else wanted)]
    for variable in variables:
        if str(variable) not in present:
            raise StationError(f"{where} has no variable {variable}: it has {', '.join(present) or 'none'}")
    if not variables:
        raise StationError(f"{where} has no variable: name at least one")
    return variables


def _from_long(
    table: Table,
    named: Columns,
    sites: Sites | None,
    wanted: Sequence[Variable | str] | None,
    missing: Sequence[float],
    name: str,
) -> StationRecord:
    ids, times = table.texts(str(named.station)), parse_times(table.columns[str(named.time)], table.where)
    sites = sites if sites is not None else Sites.of(table, named)
    if named.variable is not None and named.value is not None:
        kinds = np.array(table.texts(named.variable))
        variables = chosen(sorted(set(kinds.tolist())), wanted, table.where)
        measured = table.numbers(named.value)
        values = np.full((len(table), len(variables)), np.nan)
        for channel, variable in enumerate(variables):
            values[kinds == str(variable), channel] = measured[kinds == str(variable)]
        kept = np.isin(kinds, [str(variable) for variable in variables])
        rows = np.flatnonzero(kept)
        _refuse_repeats(name, [ids[i] for i in rows], times[rows], kinds[rows])
        return assembled(name, [ids[i] for i in rows], times[rows], values[rows], variables, sites, missing, repeats=True)
    # A column without a name is the count of rows that some programs write.
    others = [column for column in table.columns if column not in {*named.names, ""}]
    if wanted is None:
        others = [column for column in others if _is_numeric(table, column)]
    variables = chosen(others, wanted, table.where)
    values = np.stack([table.numbers(str(variable)) for variable in variables], axis=1)
    return assembled(name, ids, times, values, variables, sites, missing)


def _from_wide(
    table: Table, time: str, sites: Sites | None, wanted: Sequence[Variable | str] | None, missing: Sequence[float], name: str
) -> StationRecord:
    if sites is None:
        raise StationError(
            f"{table.where} has no column of stations: name it with Columns(station=...), or, if each column is a station, give "
            "the table of stations"
        )
    if wanted is not None and len(wanted) != 1:
        raise StationError(f"{table.where} has a column for each station, of one variable: name that one, not {len(wanted)}")
    # A column without a name is the count of rows that some programs write.
    ids = [column for column in table.columns if column not in (time, "")]
    latitude, longitude, elevation = sites.find(ids)
    return StationRecord.of(
        name,
        np.stack([table.numbers(station) for station in ids], axis=1),
        parse_times(table.columns[time], table.where),
        latitude,
        longitude,
        ["value"] if wanted is None else wanted,
        ids,
        None if np.isnan(elevation).all() else elevation,
        missing,
    )


def _from_arrays(path: Path, name: str, wanted: Sequence[Variable | str] | None, missing: Sequence[float]) -> StationRecord:
    arrays = read_arrays(path, ("values",))
    found: dict[str, Any] = {
        ours: next((arrays[one] for one in theirs if one in arrays), None) for ours, theirs in ARRAYS.items()
    }
    lacking = [ours for ours in ("times", "latitude", "longitude") if found[ours] is None]
    if lacking:
        raise StationError(
            f"{path} has no array {lacking[0]}, only {', '.join(arrays)}: write times, latitude and longitude with it"
        )
    values = arrays["values"][..., None] if arrays["values"].ndim == 2 else arrays["values"]
    if values.ndim != 3:
        raise StationError(
            f"{path}: values must have shape (times, stations) or (times, stations, variables), not {values.shape}"
        )
    names = ["value"] if found["variables"] is None and values.shape[-1] == 1 else found["variables"]
    names = None if names is None else np.atleast_1d(names)
    if names is None or len(names) != values.shape[-1]:
        raise StationError(f"{path}: values have {values.shape[-1]} variables: name each in an array `variables`")
    units = [""] * len(names) if found["units"] is None else np.atleast_1d(found["units"])
    if len(units) != len(names):
        raise StationError(f"{path}: {len(units)} units are given for {len(names)} variables: write one for each, empty if none")
    present = [Variable(str(one), units=str(unit)) for one, unit in zip(names, units, strict=True)]
    picked = chosen([str(one) for one in present], wanted, str(path)) if wanted is not None else present
    index = [[str(one) for one in present].index(str(variable)) for variable in picked]
    # A unit that the file knows is kept where the caller gives none.
    variables = [one if one.units else present[i] for one, i in zip(picked, index, strict=True)]
    ids = None if found["ids"] is None else as_texts(found["ids"].tolist())
    return StationRecord.of(
        name,
        values[..., index],
        parse_times(found["times"], str(path)),
        found["latitude"],
        found["longitude"],
        variables,
        ids,
        found["elevation"],
        missing,
    )


def _is_numeric(table: Table, column: str) -> bool:
    """Whether a column holds numbers; a StationError if it holds some texts among more numbers."""
    try:
        return not bool(np.isnan(table.numbers(column)).all())
    except StationError as error:
        cells = [text for text in table.texts(column) if text.lower() not in NOTHING]
        if 2 * sum(bool(NUMBER.fullmatch(text)) for text in cells) > len(cells):
            raise StationError(f"{error}; or name the variables that are wanted, if {column} is none") from error
        return False


def _refuse_repeats(name: str, ids: Sequence[str], times: Times, kinds: NDArray[Any]) -> None:
    seen: set[tuple[str, Any, str]] = set()
    for key in zip(ids, times.tolist(), kinds.tolist(), strict=True):
        if key in seen:
            raise StationError(f"{name}: station {key[0]} has two values of {key[2]} at one time: keep one of each")
        seen.add(key)
