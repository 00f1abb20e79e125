"""Hourly measurements as NOAA's centre for environmental information publishes them: ISD-Lite, global hourly, LCD."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralpde.station_checks import Floats, StationError
from neuralpde.station_files import assembled
from neuralpde.station_record import StationRecord
from neuralpde.station_table import Sites, Table, open_text, read_table
from neuralpde.station_times import parse_times
from neuralpde.weather_record import Variable

Files = Path | str | Sequence[Path | str]

# Fields 5 to 12 of ISD-Lite, with the factor that they were multiplied by.
LITE = (
    (Variable("t", units="degC"), 10.0), (Variable("td", units="degC"), 10.0), (Variable("slp", units="hPa"), 10.0),
    (Variable("wind_direction", units="degree"), 1.0), (Variable("wind_speed", units="m s**-1"), 10.0),
    (Variable("sky", units="code"), 1.0), (Variable("rain_1h", units="mm"), 10.0), (Variable("rain_6h", units="mm"), 10.0),
)  # fmt: skip
# Column, part of the cell, part with its quality, what stands for missing, factor.
HOURLY = {
    "t": (Variable("t", units="degC"), "TMP", 0, 1, 9999, 10.0),
    "td": (Variable("td", units="degC"), "DEW", 0, 1, 9999, 10.0),
    "slp": (Variable("slp", units="hPa"), "SLP", 0, 1, 99999, 10.0),
    "wind_direction": (Variable("wind_direction", units="degree"), "WND", 0, 1, 999, 1.0),
    "wind_speed": (Variable("wind_speed", units="m s**-1"), "WND", 3, 4, 9999, 10.0),
}
# Suspect or erroneous, by the data set's own checks.
DOUBTFUL = {"2", "3", "6", "7"}
LCD = {
    "t": "HourlyDryBulbTemperature",
    "td": "HourlyDewPointTemperature",
    "humidity": "HourlyRelativeHumidity",
    "wind_speed": "HourlyWindSpeed",
    "wind_direction": "HourlyWindDirection",
    "slp": "HourlySeaLevelPressure",
    "rain_1h": "HourlyPrecipitation",
}
AMERICAN = {
    "t": "degF",
    "td": "degF",
    "humidity": "%",
    "wind_speed": "mph",
    "wind_direction": "degree",
    "slp": "inHg",
    "rain_1h": "in",
}
METRIC = {
    "t": "degC",
    "td": "degC",
    "humidity": "%",
    "wind_speed": "m s**-1",
    "wind_direction": "degree",
    "slp": "hPa",
    "rain_1h": "mm",
}
# Summaries of a day or a month, among the reports of an hour.
SUMMARIES = {"SOD", "SOM"}


def read_isd_lite(
    files: Files, stations: Path | str | Sites, variables: Sequence[str] = ("t",), name: str = "isd-lite"
) -> StationRecord:
    """ISD-Lite: a file for each station and year, of fixed width, with no coordinates; times in UTC on the hour.

    Args:
        files: named USAF-WBAN-YEAR, .gz or not.
        stations: `isd-history.csv`, or a table with columns station (USAF-WBAN), latitude, longitude.
        variables: of t, td (°C), slp (hPa), wind_direction (°), wind_speed (m/s), sky (code), rain_1h, rain_6h (mm; −0.1 is a
            trace).

    Raises:
        StationError: a name or a line of another layout, a station that the table has not.
    """
    names = [str(one) for one, _ in LITE]
    index = _positions(name, names, variables)
    ids: list[str] = []
    stamps: list[str] = []
    rows: list[NDArray[np.float64]] = []
    for path in paths_of(files):
        found = re.match(r"([0-9A-Z]{6})-(\d{5})-\d{4}", path.name)
        if not found:
            raise StationError(f"{path} is not named as files of ISD-Lite are, USAF-WBAN-YEAR: keep their names")
        numbers = _lite(path)
        ids += [f"{found[1]}-{found[2]}"] * len(numbers)
        stamps += [f"{y:04.0f}-{m:02.0f}-{d:02.0f}T{h:02.0f}" for y, m, d, h in numbers[:, :4].tolist()]
        rows.append(np.where(numbers[:, 4:] == -9999, np.nan, numbers[:, 4:]) / np.array([factor for _, factor in LITE]))
    sites = stations if isinstance(stations, Sites) else history(read_table(stations))
    values = np.concatenate(rows)[:, index]
    return assembled(name, ids, parse_times(stamps, name), values, [LITE[i][0] for i in index], sites)


def read_global_hourly(files: Files, variables: Sequence[str] = ("t",), name: str = "global-hourly") -> StationRecord:
    """ISD as CSV ("global hourly"): cells such as "+0123,1", a value times ten and a code of quality; times in UTC.

    Reports come at any minute: `record.resampled(1)` makes them hourly. What the codes call suspect or erroneous is not seen; of
    several reports of one minute the first with a value counts.

    Args:
        variables: of t, td (°C), slp (hPa), wind_direction (°), wind_speed (m/s).
    """
    picked = [list(HOURLY.values())[index] for index in _positions(name, list(HOURLY), variables)]
    tables = [read_table(path) for path in paths_of(files)]
    columns = [
        np.concatenate([_coded(table, column, part, quality, missing, factor) for table in tables])
        for _, column, part, quality, missing, factor in picked
    ]
    values = np.stack(columns, axis=1)
    return _reports(name, tables, values, [one[0] for one in picked], np.timedelta64(0, "ns"))


def read_lcd(
    files: Files,
    utc_offset: float | Mapping[str, float],
    variables: Sequence[str] = ("t",),
    metric: bool = False,
    name: str = "lcd",
) -> StationRecord:
    """Local climatological data as CSV: hourly reports in *local standard time*, with flags beside the numbers.

    Summaries of days and months among the rows are left out; so is what is flagged as suspect (72s). T, a trace of rain, is 0.

    Args:
        utc_offset: hours that local standard time is ahead of UTC, −5 for New York; or one for each station.
        variables: of t, td, humidity, wind_speed, wind_direction, slp, rain_1h.
        metric: whether values are in °C, m/s, hPa and mm, as in the second version, and not in °F, mph, inHg and inches.
    """
    picked = [list(LCD)[index] for index in _positions(name, list(LCD), variables)]
    units = METRIC if metric else AMERICAN
    kept, columns = [], []
    for path in paths_of(files):
        table = read_table(path)
        _need(table, ("STATION", "DATE", "LATITUDE", "LONGITUDE", *(LCD[one] for one in picked)))
        kind = table.texts("REPORT_TYPE") if "REPORT_TYPE" in table.columns else [""] * len(table)
        hourly = np.array([one not in SUMMARIES for one in kind])
        table = Table(table.where, {key: column[hourly] for key, column in table.columns.items()})
        kept.append(table)
        columns.append(np.array([[_flagged(cell) for cell in table.texts(LCD[one])] for one in picked], np.float64).T)
    values = np.concatenate([part.reshape(-1, len(picked)) for part in columns])
    ids = [station for table in kept for station in table.texts("STATION")]
    if isinstance(utc_offset, Mapping):
        unknown = sorted({station for station in ids if station not in utc_offset})
        if unknown:
            raise StationError(f"{name}: no utc_offset is given for station {unknown[0]}: add it")
        hours = np.array([utc_offset[station] for station in ids], np.float64)
    else:
        hours = np.full(len(ids), float(utc_offset))
    if not (np.abs(hours) <= 14).all():
        raise StationError(f"{name}: utc_offset is in hours, within 14 of zero, not {hours[~(np.abs(hours) <= 14)][0]:g}")
    ahead = np.round(hours * 3600e9).astype("timedelta64[ns]")
    return _reports(name, kept, values, [Variable(one, units=units[one]) for one in picked], ahead)


def history(table: Table) -> Sites:
    """The stations of `isd-history.csv`, or of a table with columns station, latitude, longitude."""
    if not {"USAF", "WBAN", "LAT", "LON"} <= set(table.columns):
        return Sites.of(table)
    ids = [f"{usaf.zfill(6)}-{wban.zfill(5)}" for usaf, wban in zip(table.texts("USAF"), table.texts("WBAN"), strict=True)]
    height = table.numbers("ELEV(M)") if "ELEV(M)" in table.columns else np.full(len(ids), np.nan)
    rows = zip(table.numbers("LAT").tolist(), table.numbers("LON").tolist(), height.tolist(), strict=True)
    return Sites(table.where, dict(zip(ids, rows, strict=True)))


def paths_of(files: Files) -> list[Path]:
    """One file or several."""
    paths = [Path(files)] if isinstance(files, (str, Path)) else [Path(one) for one in files]
    if not paths:
        raise StationError("no file is named: give at least one")
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}: check the path")
    return paths


def _lite(path: Path) -> Floats:
    rows = []
    try:
        with open_text(path) as file:
            for number, line in enumerate(file, 1):
                cells = line.split()
                if cells and len(cells) != 12:
                    raise StationError(
                        f"{path}: line {number} has {len(cells)} fields, and ISD-Lite 12: it is another file, or damaged"
                    )
                if cells:
                    rows.append([float(cell) for cell in cells])
    except (UnicodeDecodeError, zlib.error, OSError, EOFError) as error:
        raise StationError(f"{path} cannot be read ({error}): fetch it again") from error
    except StationError:
        raise
    except ValueError as error:
        raise StationError(f"{path}: line {len(rows) + 1} holds no numbers ({error}): fetch the file again") from error
    if not rows:
        raise StationError(f"{path} is empty: fetch it again, or leave it out")
    return np.array(rows)


def _coded(table: Table, column: str, part: int, quality: int, missing: float, factor: float) -> Floats:
    _need(table, ("STATION", "DATE", "LATITUDE", "LONGITUDE", column))
    found = np.full(len(table), math.nan)
    for row, cell in enumerate(table.texts(column)):
        parts = cell.split(",")
        if not cell:
            continue
        try:
            value = float(parts[part])
            if abs(value) != missing and parts[quality] not in DOUBTFUL:
                found[row] = value / factor
        except (ValueError, IndexError) as error:
            raise StationError(f"{table.where}: row {row + 1} of {column} is {cell!r}, not as in global hourly data") from error
    return found


def _flagged(cell: str) -> float:
    if cell == "T":
        return 0.0
    if cell.endswith("s"):
        return math.nan
    number = re.match(r"[-+]?\d*\.?\d+", cell)
    return float(number[0]) if number else math.nan


def _reports(
    name: str, tables: Sequence[Table], values: Floats, variables: Sequence[Variable], ahead: np.timedelta64 | NDArray[Any]
) -> StationRecord:
    ids = [station for table in tables for station in table.texts("STATION")]
    local = np.concatenate([parse_times(table.columns["DATE"], table.where) for table in tables])
    times = (local - ahead).astype("datetime64[ns]")
    places: dict[str, tuple[float, float, float]] = {}
    for table in tables:
        for station, place in Sites.of(table).places.items():
            places.setdefault(station, place)
    # Rows of nothing would only add times.
    some: NDArray[np.bool_] = np.asarray(~np.isnan(values).all(axis=1))
    kept = [station for station, keep in zip(ids, some.tolist(), strict=True) if keep]
    if not kept:
        raise StationError(f"{name}: nothing was measured of {', '.join(map(str, variables))}: choose other variables")
    return assembled(name, kept, times[some], values[some], variables, Sites(name, places), repeats=True)


def _need(table: Table, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise StationError(
            f"{table.where} has no column {missing[0]}, only {', '.join(list(table.columns)[:12])}: it has another layout"
        )


def _positions(name: str, names: Sequence[str], variables: Sequence[str]) -> list[int]:
    unknown = [variable for variable in variables if variable not in names]
    if unknown or not variables:
        raise StationError(f"{name} has no variable {unknown[0] if unknown else 'without a name'}: it has {', '.join(names)}")
    return [list(names).index(variable) for variable in variables]
