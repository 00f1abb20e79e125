"""`neuralpde data stations`: measurements of the user's own, checked, shown, and made ready for the sensor tables."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from neuralpde.files import RunFolderError
from neuralpde.sensor_leaks import leaks_of_cases
from neuralpde.station_cases import StationSplit, to_cases
from neuralpde.station_checks import StationError, StationWarning
from neuralpde.station_figures import draw_stations
from neuralpde.station_files import read_stations, write_stations
from neuralpde.station_ghcn import read_ghcn_daily
from neuralpde.station_noaa import read_global_hourly, read_isd_lite, read_lcd
from neuralpde.station_record import StationRecord
from neuralpde.station_synthetic import SyntheticStations
from neuralpde.weather_record import Variable


class Layout(Enum):
    """What the files are."""

    TABLE = "table"
    ISD_LITE = "isd-lite"
    GLOBAL_HOURLY = "global-hourly"
    LCD = "lcd"
    GHCN_DAILY = "ghcn-daily"


@dataclass(frozen=True)
class StationDataSettings:
    """The settings of `neuralpde data stations`; the text under each is its help."""

    files: tuple[Path, ...] = ()
    """Files to read, several after one flag; without any, made-up stations."""
    layout: Layout = Layout.TABLE
    """table: one CSV, parquet, npz or NetCDF file. The others are layouts of NOAA's, of several files."""
    stations: Path | None = None
    """A table of stations (station, latitude, longitude), isd-history.csv or ghcnd-stations.txt, where the files need one."""
    variables: tuple[str, ...] = ()
    """Variables, as name or name:unit (t:degC), against whose unit values are checked; all, or the temperature, if absent."""
    missing: tuple[float, ...] = ()
    """Values that mean that nothing was measured, such as -9999."""
    utc_offset: float | None = None
    """lcd: hours that local standard time is ahead of UTC, -5 for New York; the files do not say it."""
    metric: bool = False
    """lcd: values are in degrees Celsius, hPa, m/s and mm."""
    hours: float | None = None
    """Bring the record to regular times, one every so many hours: the last value seen since the one before."""
    given: int = 12
    """Frames that a forecast is to be made from."""
    horizon: int = 12
    """Frames to be forecast."""
    out: Path | None = None
    """Write the checked record to this .npz file."""
    picture: Path | None = None
    """Draw a map, series and gaps into this .png, .svg or .pdf file."""

    def __post_init__(self) -> None:
        if min(self.given, self.horizon) < 1:
            raise RunFolderError("--given and --horizon must be at least 1")
        if self.layout is Layout.TABLE and len(self.files) > 1:
            raise RunFolderError(f"a table is one file, not {len(self.files)}: put them together, or name their --layout")
        if self.layout is not Layout.TABLE and not self.files:
            raise RunFolderError(f"--files is missing: name the files of layout {self.layout.value}")
        if self.layout is Layout.ISD_LITE and self.stations is None:
            raise RunFolderError("--stations is missing: isd-lite files do not say where stations are; give isd-history.csv")
        if self.layout is Layout.LCD and self.utc_offset is None:
            raise RunFolderError("--utc-offset is missing: lcd files are in local standard time; give -5 for New York, 0 for UTC")
        if self.out is not None and self.out.suffix != ".npz":
            raise RunFolderError(f"--out must be an .npz file, not {self.out.name}")

    def read(self) -> StationRecord:
        """The record, checked."""
        if not self.files:
            return SyntheticStations(missing=0.05).record()
        wanted = [variable_of(text) for text in self.variables]
        names = [str(variable) for variable in wanted]
        match self.layout:
            case Layout.TABLE:
                return read_stations(self.files[0], self.stations, wanted or None, self.missing)
            case Layout.ISD_LITE:
                return read_isd_lite(self.files, self.stations or "", names or ("t",))
            case Layout.GLOBAL_HOURLY:
                return read_global_hourly(self.files, names or ("t",))
            case Layout.LCD:
                return read_lcd(self.files, self.utc_offset or 0.0, names or ("t",), self.metric)
            case Layout.GHCN_DAILY:
                return read_ghcn_daily(self.files, self.stations, names or ("TMAX", "TMIN"))


def show_station_data(settings: StationDataSettings, console: Console | None = None) -> StationRecord:
    """Read, check and show a record; write it and draw it where asked to.

    Args:
        console: where the summary goes; standard output if absent. Warnings go to standard error.

    Raises:
        StationError: what is wrong with the measurements. RunFolderError: a file that cannot be written.
    """
    console = console or Console()
    beside = Console(stderr=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", StationWarning)
        record = settings.read()
    for warning in caught:
        beside.print(f"warning: {warning.message}", soft_wrap=True, markup=False)
    if settings.hours is not None:
        record = record.resampled(settings.hours)
    console.print(_table(record))
    told, split = _windows(record, settings)
    console.print(told, soft_wrap=True, markup=False)
    if settings.out is not None:
        write_stations(record, settings.out)
        console.print(f"written: {settings.out}", soft_wrap=True, markup=False)
    if settings.picture is not None:
        draw_stations(settings.picture, record, split)
        console.print(f"drawn: {settings.picture}", soft_wrap=True, markup=False)
    return record


def variable_of(text: str) -> Variable:
    """A variable from name or name:unit."""
    name, _, units = text.partition(":")
    if not name:
        raise StationError(f"{text!r} is no variable: write name or name:unit, for example t:degC")
    return Variable(name, units=units)


def _table(record: StationRecord) -> Table:
    steps = record.hours.diff()
    usual = f", usually every {float(steps.median()):g} h, at most {float(steps.max()):g} h apart" if len(steps) else ""
    start, stop = (str(record.times[i])[:16] for i in (0, -1))
    # Square brackets, as in t [degC], would be taken for a style.
    name = escape(record.name)
    table = Table(title=f"{name}: {len(record.ids)} stations, {len(record)} times from {start} to {stop}{usual}")
    for heading in ("variable", "unit"):
        table.add_column(heading)
    for heading in ("values", "missing", "least", "median", "most"):
        table.add_column(heading, justify="right")
    for channel, variable in enumerate(record.variables):
        seen = record.seen[..., channel]
        values = record.values[..., channel][seen]
        numbers: Sequence[float] = [float(values.min()), float(torch.median(values)), float(values.max())]
        share = 100 * (1 - float(seen.double().mean()))
        names = escape(str(variable)), escape(variable.units)
        table.add_row(*names, str(len(values)), f"{share:.1f} %", *(f"{one:.5g}" for one in numbers))
    return table


def _windows(record: StationRecord, settings: StationDataSettings) -> tuple[str, StationSplit | None]:
    """How many windows there are to learn and test from, and that nothing leaks between them; the split, if it can be made."""
    split = StationSplit(settings.given, settings.horizon)
    try:
        cases = to_cases(record, split)
    except StationError as error:
        return f"not ready for learning: {error}", None
    leaks = leaks_of_cases(lambda one: to_cases(one, split), record)
    counts = " + ".join(str(len(case.values)) for case in (cases.train, cases.validation, cases.test))
    found = "; ".join(map(str, leaks)) if leaks else "none found"
    return (
        f"windows of {split.given} + {split.horizon} frames: {counts} (training, validation, test), {len(cases.held_ids)} "
        f"stations held out; leaks: {found}"
    ), split
