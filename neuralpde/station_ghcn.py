"""Daily measurements of the Global Historical Climatology Network, in both of the layouts that NOAA publishes as CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuralpde.station_checks import StationError
from neuralpde.station_files import assembled
from neuralpde.station_noaa import Files, paths_of
from neuralpde.station_record import StationRecord
from neuralpde.station_table import Sites, Table, first_line, read_table
from neuralpde.station_times import parse_times
from neuralpde.weather_record import Variable

# Unit, and the factor that values were multiplied by.
ELEMENTS = {
    "TMAX": ("degC", 10.0), "TMIN": ("degC", 10.0), "TAVG": ("degC", 10.0), "TOBS": ("degC", 10.0), "PRCP": ("mm", 10.0),
    "SNOW": ("mm", 1.0), "SNWD": ("mm", 1.0), "AWND": ("m s**-1", 10.0),
}  # fmt: skip
BY_YEAR = ("ID", "DATE", "ELEMENT", "VALUE", "M_FLAG", "Q_FLAG", "S_FLAG", "OBS_TIME")


def read_ghcn_daily(
    files: Files,
    stations: Path | str | Sites | None = None,
    elements: Sequence[str] = ("TMAX", "TMIN"),
    name: str = "ghcn-daily",
) -> StationRecord:
    """GHCN-Daily: files of a station (a row for each day, a column for each element), or of a year (a row for each value).

    Values come in tenths and leave in °C, mm and m/s. What failed a check of quality is not seen. The time of a day is its
    midnight.

    Args:
        stations: `ghcnd-stations.txt`, or a table with columns station, latitude, longitude; needed for files of a year, which
            do not say where stations are, and of which only the stations listed there are read.
        elements: of TMAX, TMIN, TAVG, TOBS, PRCP, SNOW, SNWD, AWND.
    """
    unknown = [element for element in elements if element not in ELEMENTS]
    if unknown or not elements:
        raise StationError(f"there is no element {unknown[0] if unknown else ''!r}: there are {', '.join(ELEMENTS)}")
    sites = _sites(stations) if isinstance(stations, (str, Path)) else stations
    ids: list[str] = []
    days: list[str] = []
    rows: list[list[float]] = []
    known: dict[str, tuple[float, float, float]] = {} if sites is None else dict(sites.places)
    for path in paths_of(files):
        headed = "STATION" in first_line(path)
        table = read_table(path, None if headed else BY_YEAR)
        if not headed and sites is None:
            raise StationError(f"{path} does not say where its stations are: give stations='ghcnd-stations.txt'")
        if headed and sites is None:
            known |= Sites.of(table).places
        part = _of_station(table, elements) if headed else _of_year(table, elements, known)
        for station, day, values in part:
            ids.append(station)
            days.append(day)
            rows.append(values)
    if not rows:
        raise StationError(f"{name}: no file has {', '.join(elements)} of a station that is listed")
    variables = [Variable(element, units=ELEMENTS[element][0]) for element in elements]
    return assembled(name, ids, parse_times(days, name), np.array(rows), variables, Sites(name, known), repeats=True)


def _of_station(table: Table, elements: Sequence[str]) -> list[tuple[str, str, list[float]]]:
    columns = []
    for element in elements:
        if element not in table.columns:
            columns.append([math.nan] * len(table))
            continue
        values = table.numbers(element) / ELEMENTS[element][1]
        flags = table.texts(f"{element}_ATTRIBUTES") if f"{element}_ATTRIBUTES" in table.columns else [""] * len(table)
        # Measurement, quality, source.
        failed = np.array([[*flag.split(","), ""][1].strip() != "" for flag in flags])
        columns.append(np.where(failed, np.nan, values).tolist())
    if "DATE" not in table.columns:
        raise StationError(f"{table.where} has no column DATE: it has another layout")
    return list(zip(table.texts("STATION"), table.texts("DATE"), map(list, zip(*columns, strict=True)), strict=True))


def _of_year(
    table: Table, elements: Sequence[str], known: dict[str, tuple[float, float, float]]
) -> list[tuple[str, str, list[float]]]:
    place = {element: index for index, element in enumerate(elements)}
    cells = zip(
        *(table.texts(name) for name in ("ID", "DATE", "ELEMENT", "Q_FLAG")), table.numbers("VALUE").tolist(), strict=True
    )
    found = []
    for station, day, element, quality, value in cells:
        if element in place and not quality and station in known:
            row = [math.nan] * len(elements)
            row[place[element]] = value / ELEMENTS[element][1]
            found.append((station, day, row))
    return found


def _sites(path: Path | str) -> Sites:
    path = Path(path)
    if path.suffix != ".txt":
        return Sites.of(read_table(path))
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: check the path")
    places = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            places[line[:11].strip()] = (float(line[12:20]), float(line[21:30]), float(line[31:37]))
        except ValueError as error:
            raise StationError(f"{path}: line {number} is not as in ghcnd-stations.txt: {line[:40]!r}") from error
    return Sites(str(path), places)
