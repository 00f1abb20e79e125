"""Tables from the user's disk: columns by name, and what those that say where and when are usually called."""

from __future__ import annotations

import csv
import gzip
import importlib
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from neuralpde.station_checks import Floats, StationError

# What stands for nothing in a cell.
NOTHING = {"", "na", "n/a", "nan", "null", "none", "-", "m", "*", "."}
# Two positions of one station that differ by less than this many degrees are its position.
STAYED = 0.02


@dataclass(frozen=True)
class Table:
    """Columns of equal length, as texts or as numbers.

    Args:
        where: the file, for messages.
        columns: by name, in order.
    """

    where: str
    columns: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def texts(self, name: str) -> list[str]:
        """A column as texts, empty where there is nothing; whole numbers without a decimal point."""
        column = self.columns[name]
        if column.dtype.kind == "f":
            cells: list[float] = column.tolist()
            return ["" if math.isnan(one) else f"{one:.0f}" if one.is_integer() else str(one) for one in cells]
        return ["" if one is None else str(one).strip() for one in column.tolist()]

    def numbers(self, name: str) -> Floats:
        """A column as numbers, NaN where there is nothing; a StationError names the cell that is none."""
        column = self.columns[name]
        if column.dtype.kind in "fiub":
            return column.astype(np.float64)
        if column.dtype.kind in "Mm":
            raise StationError(f"{self.where}: column {name} holds times, not numbers: leave it out")
        found = np.empty(len(column))
        for row, cell in enumerate(column.tolist()):
            text = "" if cell is None else str(cell).strip()
            if text.lower() in NOTHING:
                found[row] = math.nan
                continue
            try:
                # Python reads 1_5 as 15.
                found[row] = float(text.replace("_", "?"))
            except ValueError as error:
                cure = "write decimal points, not commas" if "," in text else "leave it empty if nothing was measured"
                raise StationError(
                    f"{self.where}: row {row + 1} of column {name} is {text!r}, which is no number: {cure}"
                ) from error
        return found


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are called; each that is None is looked for under its usual names."""

    station: str | None = None
    time: str | None = None
    latitude: str | None = None
    longitude: str | None = None
    elevation: str | None = None
    variable: str | None = None
    value: str | None = None

    def within(self, table: Table) -> Columns:
        """The names in this table, None for those that it has not.

        Raises:
            StationError: a name that was given, and that the table has not.
        """
        lower = {name.strip().lower(): name for name in reversed(table.columns)}
        found: dict[str, str | None] = {}
        for field in fields(self):
            given = getattr(self, field.name)
            if given is not None and given not in table.columns:
                raise StationError(f"{table.where} has no column {given}: it has {', '.join(table.columns)}")
            usual = next((lower[name] for name in USUAL[field.name] if name in lower), None)
            found[field.name] = given if given is not None else usual
        return Columns(**found)

    @property
    def names(self) -> set[str]:
        """Those that there are."""
        return {getattr(self, field.name) for field in fields(self)} - {None}


USUAL = {
    "station": ("station", "station_id", "stationid", "site", "site_id", "id", "sensor", "usaf", "numer_sta", "name"),
    "time": ("time", "datetime", "date_time", "timestamp", "valid_time", "valid", "date", "day"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon", "lng", "long"),
    "elevation": ("elevation", "elev", "altitude", "alt", "height", "alt_m", "elev(m)"),
    "variable": ("variable", "element", "parameter"),
    "value": ("value",),
}


@dataclass(frozen=True)
class Sites:
    """Where stations stand.

    Args:
        where: the file, for messages.
        places: id -> (latitude, longitude, elevation), NaN where unknown.
    """

    where: str
    places: dict[str, tuple[float, float, float]]

    @classmethod
    def of(cls, table: Table, columns: Columns | None = None) -> Sites:
        """From a table with a row for each station, or with many rows that agree.

        Raises:
            StationError: a column is missing, or a station moves.
        """
        named = (columns or Columns()).within(table)
        missing = [name for name in ("station", "latitude", "longitude") if getattr(named, name) is None]
        if missing:
            raise StationError(
                f"{table.where} has no column {missing[0]} (or {', '.join(USUAL[missing[0]][1:4])}), only "
                f"{', '.join(table.columns)}: name it with Columns, or give a table of stations"
            )
        axes = [table.numbers(str(name)) for name in (named.latitude, named.longitude)]
        height = table.numbers(named.elevation) if named.elevation else np.full(len(table), math.nan)
        places: dict[str, tuple[float, float, float]] = {}
        rows = zip(table.texts(str(named.station)), *(axis.tolist() for axis in (*axes, height)), strict=True)
        for station, latitude, longitude, elevation in rows:
            place = places.setdefault(station, (latitude, longitude, elevation))
            if max(abs(place[0] - latitude), abs(place[1] - longitude)) > STAYED:
                raise StationError(
                    f"{table.where}: station {station} stands at ({place[0]:g}, {place[1]:g}) and at ({latitude:g}, "
                    f"{longitude:g}): give the two places different names"
                )
        return cls(table.where, places)

    def find(self, ids: Sequence[str]) -> tuple[Floats, Floats, Floats]:
        """Latitudes, longitudes and elevations of these stations.

        Raises:
            StationError: a station is not listed.
        """
        unknown = [station for station in ids if station not in self.places]
        if unknown:
            raise StationError(
                f"{self.where} does not say where {len(unknown)} stations stand, the first is {unknown[0]!r}: add them to the "
                "table of stations, or leave them out"
            )
        columns = np.array([self.places[station] for station in ids], np.float64).reshape(-1, 3).T
        return columns[0], columns[1], columns[2]


def read_table(path: Path | str, header: Sequence[str] | None = None) -> Table:
    """A table from a CSV (commas, semicolons or tabs; .gz too) or parquet file.

    Args:
        header: names of the columns, if the file has no row of them.

    Raises:
        FileNotFoundError: there is none. ImportError: parquet without pyarrow. StationError: it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}: check the path")
    if path.is_dir():
        raise StationError(f"{path} is a folder: name the files in it")
    return _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path, header)


def open_text(path: Path) -> TextIO:
    """A text file, or one that gzip packed."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def first_line(path: Path) -> str:
    """Of a text file; a StationError if it is none."""
    try:
        with open_text(path) as file:
            return file.readline()
    except (UnicodeDecodeError, zlib.error, OSError, EOFError) as error:
        raise StationError(f"{path} cannot be read as text ({error}): fetch it again, or save it in UTF-8") from error


def _read_csv(path: Path, header: Sequence[str] | None) -> Table:
    try:
        with open_text(path) as file:
            first = file.readline()
            file.seek(0)
            mark = max(",;\t", key=first.count)
            rows = [row for row in csv.reader(file, delimiter=mark) if row]
    except (UnicodeDecodeError, csv.Error, zlib.error, OSError, EOFError) as error:
        raise StationError(f"{path} cannot be read as a table of text ({error}): save it as CSV in UTF-8") from error
    names = list(header) if header is not None else [name.strip() for name in rows.pop(0)] if rows else []
    if not rows:
        raise StationError(f"{path} has no rows: check the file")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise StationError(f"{path} has several columns named {twice!r}: rename them")
    for number, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise StationError(f"{path}: row {number} has {len(row)} cells, and the table {len(names)} columns: repair that row")
    return Table(str(path), {name: np.array(column, object) for name, column in zip(names, zip(*rows, strict=True), strict=True)})


def _read_parquet(path: Path) -> Table:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError("parquet files need pyarrow: pip install pyarrow, or save the table as CSV") from error
    try:
        table = parquet.read_table(path)
        columns = {str(name): _column(table.column(name)) for name in table.column_names}
    except Exception as error:
        # Arrow raises what it likes at damaged files.
        raise StationError(f"{path} cannot be read as parquet ({type(error).__name__}: {error}): write it again") from error
    return Table(str(path), columns)


def _column(column: Any) -> NDArray[Any]:
    values = column.to_numpy()
    return np.asarray(values)
