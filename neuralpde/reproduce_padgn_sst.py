"""`neuralpde reproduce padgn-sst`: the Pacific's surface temperature months ahead, every method on the same frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from neuralpde.files import RunFolderError
from neuralpde.reproduce_padgn_stations import found
from neuralpde.run_folder import RunFolder
from neuralpde.sensor_rows import chosen, sst_methods
from neuralpde.sensor_table import run_sensor_table
from neuralpde.station_cases import StationSplit, to_cases
from neuralpde.station_samples import PACIFIC, pacific_sst

NOTE = (
    "Months of the tropical Pacific stand in for the paper's days of the North Atlantic, whose numbers (Table 7) are therefore "
    "not shown. Its test set was also its validation set; here the test is untouched. Networks are trained briefly."
)


@dataclass(frozen=True)
class SstSettings:
    """The settings of `neuralpde reproduce padgn-sst`; the text under each is its help."""

    data: Path = Path("data")
    """sst_pacific_monthly_1970_2003.npz or the folder that holds it."""
    sensors: int = 200
    """How many points at sea are drawn."""
    seeds: int = 3
    """Train the networks with so many seeds."""
    methods: tuple[str, ...] = ()
    """Methods to run beside persistence, several after one flag; all if absent."""
    steps: int | None = None
    """Training steps of the networks, instead of their own."""
    given: int = 5
    """Months that a forecast is made from."""
    horizon: int = 25
    """Months to forecast."""
    held_out: float = 0.2
    """The share of sensors that nobody trains on and everybody forecasts."""
    out: Path = Path("runs/padgn-sst")
    """The run folder. Every finished method and seed is kept there."""
    resume: bool = False
    """Continue the run in OUT: what is finished is not computed again."""
    json: Path | None = None
    """Also write the table's rows to this file."""
    threads: int = 1
    """Torch threads. Results are reproducible bit for bit only at one and the same number."""

    def __post_init__(self) -> None:
        for name in ("seeds", "threads", "given", "horizon", *(["steps"] if self.steps is not None else [])):
            if getattr(self, name) < 1:
                raise RunFolderError(f"--{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.held_out < 1:
            raise RunFolderError(f"--held-out must lie between 0 and 1, not {self.held_out:g}")

    @property
    def horizons(self) -> tuple[int, ...]:
        """Of the printed errors: the first month, the paper's 15 and 25 steps."""
        return (*(h for h in (1, 15) if h < self.horizon), self.horizon)


def reproduce_sst(settings: SstSettings, console: Console | None = None) -> list[dict[str, Any]]:
    """Learn from the first two thirds, choose on the next sixth, forecast the last, also at sensors that nobody trained on.

    Args:
        console: where the table goes; standard output if absent. Progress goes to standard error.

    Raises:
        RunFolderError, StationError, FileNotFoundError: with the cause and the cure.
    """
    folder = RunFolder(settings.out, settings.resume, settings.json, settings.threads)
    folder.check()
    record = pacific_sst(found(settings.data, PACIFIC), settings.sensors)
    cases = to_cases(record, StationSplit(given=settings.given, horizon=settings.horizon, held_out=settings.held_out))
    if cases.held_out is None:
        raise RunFolderError("no sensor is held out: give a larger --held-out")
    methods = chosen(sst_methods(len(cases.ids)), settings.methods, settings.steps)
    return run_sensor_table(
        "padgn-sst",
        methods,
        [cases.train],
        [cases.validation],
        {"": [cases.test], "held-out": [cases.held_out]},
        folder,
        seeds=settings.seeds,
        horizons=settings.horizons,
        title="Sea-surface temperature: months ahead",
        note=NOTE,
        console=console,
    )
