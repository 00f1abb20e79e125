"""`neuralpde reproduce padgn-stations`: hours ahead at weather stations, every method on the same frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from neuralpde.files import RunFolderError
from neuralpde.run_folder import RunFolder
from neuralpde.sensor_case import SensorCase
from neuralpde.sensor_rows import chosen, station_methods
from neuralpde.sensor_table import run_sensor_table
from neuralpde.station_cases import StationCases, StationSplit, to_cases
from neuralpde.station_data_command import variable_of
from neuralpde.station_degraded import hidden, irregular, latest
from neuralpde.station_files import read_stations
from neuralpde.station_record import StationRecord
from neuralpde.station_samples import BRITAIN, MOLENE, STRBOOK, era5_uk_sensors, molene, noaa_strbook
from neuralpde.station_synthetic import SyntheticStations

SetName = Literal["molene", "era5-uk", "noaa", "synthetic", "file"]
NOTE = (
    "Networks are trained briefly; the paper's stations cannot be had, so its numbers (Tables 3 and 6) are of other data and are "
    "not shown. A bound method (joint-var) has no number at stations that it never saw."
)


@dataclass(frozen=True)
class StationsSettings:
    """The settings of `neuralpde reproduce padgn-stations`; the text under each is its help."""

    set: SetName = "molene"
    """molene: 44 stations in Brittany, hourly. era5-uk: ERA5's temperature at points drawn over Britain, hourly. noaa: 137
    stations in the United States, daily. synthetic: simulated here. file: your own."""
    data: Path = Path("data")
    """The set's .npz file or the folder that holds it; your own file (CSV, parquet, npz, NetCDF) for file. Not needed for
    synthetic."""
    variables: tuple[str, ...] = ()
    """The variables, several after one flag; of molene t, of noaa Tmax, of a file all if absent. Of a file also name:unit
    (t:degC), against whose unit values are checked."""
    stations: Path | None = None
    """file: a table with columns station, latitude, longitude, where the file does not say where stations are."""
    missing: tuple[float, ...] = ()
    """file: values that mean that nothing was measured, such as -9999; several after one flag."""
    hours: float | None = None
    """file: make the times regular, so many hours apart, by the last value seen."""
    sensors: int = 100
    """era5-uk: how many points are drawn."""
    seeds: int = 3
    """Train the networks with so many seeds."""
    methods: tuple[str, ...] = ()
    """Methods to run beside persistence, several after one flag; all if absent."""
    steps: int | None = None
    """Training steps of the networks, instead of their own."""
    given: int = 12
    """Frames that a forecast is made from."""
    horizon: int = 12
    """Frames to forecast."""
    held_out: float = 0.2
    """The share of stations that nobody trains on and everybody forecasts."""
    hidden: float = 0.3
    """The share of the given values that is hidden in the degraded test."""
    apart: bool = False
    """Also test hidden values and irregular times each by itself."""
    stride: int | None = None
    """Frames between the starts of windows; 4 of noaa, else 1, if absent."""
    out: Path | None = None
    """The run folder, runs/padgn-stations-SET if absent. Every finished method and seed is kept there."""
    resume: bool = False
    """Continue the run in OUT: what is finished is not computed again."""
    json: Path | None = None
    """Also write the table's rows to this file."""
    threads: int = 1
    """Torch threads. Results are reproducible bit for bit only at one and the same number."""

    def __post_init__(self) -> None:
        given = (name for name in ("steps", "stride") if getattr(self, name) is not None)
        for name in ("seeds", "threads", "given", "horizon", *given):
            if getattr(self, name) < 1:
                raise RunFolderError(f"--{name} must be at least 1, not {getattr(self, name)}")
        for name in ("held_out", "hidden"):
            if not 0 < getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise RunFolderError(f"--{flag} must lie between 0 and 1, not {getattr(self, name):g}")

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.out or Path("runs") / f"padgn-stations-{self.set}"

    @property
    def horizons(self) -> tuple[int, ...]:
        """Of the printed errors."""
        return (*(h for h in (1, 6) if h < self.horizon), self.horizon)


def reproduce_stations(settings: StationsSettings, console: Console | None = None) -> list[dict[str, Any]]:
    """Learn from the first two thirds, choose on the next sixth, forecast the last: tables, rows, a report with pictures.

    Tests: the training stations; stations that nobody trained on (`-held-out`); irregular times and missing values
    (`-degraded`): the given frames are drawn from half as many again, so that steps differ, and a share of their values is
    hidden. With `apart` also each alone (`-irregular`, `-missing`).

    Args:
        console: where the table goes; standard output if absent. Progress goes to standard error.

    Raises:
        RunFolderError, StationError, FileNotFoundError: with the cause and the cure.
    """
    folder = RunFolder(settings.folder, settings.resume, settings.json, settings.threads)
    folder.check()
    cases, tests = station_tests(station_record(settings), settings)
    methods = chosen(station_methods(len(cases.ids)), settings.methods, settings.steps)
    return run_sensor_table(
        f"padgn-stations-{settings.set}",
        methods,
        [latest(cases.train, settings.given)],
        [latest(cases.validation, settings.given)],
        tests,
        folder,
        seeds=settings.seeds,
        horizons=settings.horizons,
        title=f"Forecasts at stations: {settings.set}",
        note=NOTE,
        console=console,
    )


def station_record(settings: StationsSettings) -> StationRecord:
    """The set's measurements."""
    if settings.set == "molene":
        return molene(found(settings.data, MOLENE), settings.variables or ("t",))
    if settings.set == "era5-uk":
        return era5_uk_sensors(found(settings.data, BRITAIN), settings.sensors)
    if settings.set == "noaa":
        return noaa_strbook(found(settings.data, STRBOOK), settings.variables or ("Tmax",))
    if settings.set == "file":
        wanted = [variable_of(text) for text in settings.variables]
        record = read_stations(settings.data, settings.stations, wanted or None, settings.missing)
        return record if settings.hours is None else record.resampled(settings.hours)
    return SyntheticStations().record()


def station_tests(record: StationRecord, settings: StationsSettings) -> tuple[StationCases, dict[str, list[SensorCase]]]:
    """The cases, given half as many frames again as a method sees, and the tests made of them."""
    more = settings.given + settings.given // 2
    stride = settings.stride or (4 if settings.set == "noaa" else 1)
    split = StationSplit(given=more, horizon=settings.horizon, held_out=settings.held_out, stride=stride)
    cases = to_cases(record, split)
    if cases.held_out is None:
        raise RunFolderError("no station is held out: give a larger --held-out")

    def shorter(case: SensorCase) -> SensorCase:
        return latest(case, settings.given)

    def uneven(case: SensorCase) -> SensorCase:
        return irregular(case, settings.given, seed=1)

    def sparser(case: SensorCase) -> SensorCase:
        return hidden(case, settings.hidden, seed=2)

    made = {"": shorter(cases.test), "held-out": shorter(cases.held_out), "degraded": sparser(uneven(cases.test))}
    if settings.apart:
        made |= {"missing": sparser(shorter(cases.test)), "irregular": uneven(cases.test)}
    return cases, {name: [case] for name, case in made.items()}


def found(path: Path, name: str) -> Path:
    """The file itself, or the file of that name in a folder."""
    if path.is_dir():
        for inside in (path / name, path / "sensors" / name):
            if inside.is_file():
                return inside
        raise RunFolderError(f"{name} is not in {path}: give its folder or the file itself with --data")
    if not path.is_file():
        raise RunFolderError(f"there is no {path}: give the folder that holds {name}, or the file itself, with --data")
    return path
