"""Made-up weather in WeatherBench 2's layout, for tests and first steps: planetary waves, seasons, days and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from neuralpde.files import RunFolderError
from neuralpde.shallow_water import EARTH_ROTATION
from neuralpde.weather_record import HOUR, Source, Times, Variable, WeatherRecord, regular_times
from neuralpde.weather_writing import write_weather
from operators.lat_lon import LatLon

DAY_HOURS, YEAR_HOURS = 24.0, 24 * 365.25
EPOCH = np.datetime64("2000-01-01", "ns")

# With the size of their waves.
VARIABLES = (
    (Variable("2m_temperature", units="K"), 4.0),
    (Variable("geopotential", 500, "m**2 s**-2"), 700.0),
    (Variable("geopotential", 850, "m**2 s**-2"), 400.0),
    (Variable("temperature", 500, "K"), 3.0),
    (Variable("temperature", 850, "K"), 5.0),
)


@dataclass(frozen=True)
class SyntheticWeather:
    """The settings of `neuralpde data weather`; the text under each is its help."""

    out: Path = Path("weather.zarr")
    """The zarr store to write; it must not be there yet."""
    rows: int = 33
    """Latitudes, both poles included."""
    columns: int = 64
    """Longitudes."""
    start: str = "2018-01-01"
    """The first frame."""
    days: int = 730
    """How long it runs."""
    hours: float = 6.0
    """The time between two frames."""
    waves: int = 8
    """Planetary waves, each of a random size and phase, and of the speed that its shape gives it."""
    noise: float = 0.05
    """The standard deviation of noise without memory, relative to that of the waves."""
    seed: int = 0
    """Of waves and noise."""

    def __post_init__(self) -> None:
        for name, fewest in (("rows", 3), ("columns", 3), ("days", 1), ("waves", 1)):
            if getattr(self, name) < fewest:
                raise RunFolderError(f"--{name} must be at least {fewest}, not {getattr(self, name)}")
        if not (math.isfinite(self.hours) and 0 < self.hours <= 24 * self.days):
            raise RunFolderError(f"--hours must be positive and not longer than the days, not {self.hours}")
        if abs(self.hours * 60 - round(self.hours * 60)) > 1e-6 or self.hours < 1 / 61:
            raise RunFolderError(f"--hours must be a whole number of minutes, not {self.hours}")
        if self.seed < 0:
            raise RunFolderError(f"--seed must be at least 0, not {self.seed}")
        if not (math.isfinite(self.noise) and self.noise >= 0):
            raise RunFolderError(f"--noise must not be negative, not {self.noise}")

    def record(self) -> WeatherRecord:
        """The weather, made frame by frame when it is read; a frame depends on the settings and its number alone."""
        longitude = torch.arange(self.columns, dtype=torch.float64) * (360 / self.columns)
        place = LatLon(torch.linspace(90, -90, self.rows, dtype=torch.float64), longitude)
        times = regular_times(self.start, self.hours, round(self.days * 24 / self.hours))
        variables = tuple(variable for variable, _ in VARIABLES)
        return WeatherRecord.over(_SyntheticSource(self, place, times), place, variables, times)


@dataclass(frozen=True, eq=False)
class _SyntheticSource(Source):
    settings: SyntheticWeather
    place: LatLon
    times: Times

    @property
    def members(self) -> int:
        return 1

    def read(self, frames: range, channels: Sequence[int]) -> Tensor:
        times = self.times[frames.start : frames.stop : frames.step]
        latitude, longitude = (torch.deg2rad(x) for x in self.place.positions)
        hours = torch.from_numpy((times - EPOCH) / HOUR)[:, None]
        season = torch.cos(2 * math.pi * hours / YEAR_HOURS) * torch.sin(latitude)
        noon = -torch.cos(2 * math.pi * hours / DAY_HOURS + longitude) * torch.cos(latitude)
        cold = torch.sin(latitude).square()
        # Temperature follows the waves of the height by half a day.
        wave, warm = self._waves.at(times), self._waves.at(times - np.timedelta64(12, "h"))
        values = torch.stack(
            [
                299 - 42 * cold - 12 * season + 4 * noon + 4 * warm,
                57500 - 6500 * cold - 1200 * season + 700 * wave,
                14700 - 1900 * cold - 350 * season + 400 * wave,
                268 - 26 * cold - 7 * season + 3 * warm,
                291 - 34 * cold - 10 * season + 5 * warm,
            ],
            dim=-1,
        )
        spread = self.settings.noise * torch.tensor([size for _, size in VARIABLES], dtype=torch.float64)
        for index, frame in enumerate(frames):
            random = np.random.default_rng([self.settings.seed, 8, frame])
            values[index] += spread * torch.from_numpy(random.normal(size=values.shape[1:]))
        return self.place.to_grid(values[None, ..., list(channels)]).float()

    @cached_property
    def _waves(self) -> RossbyHaurwitzWaves:
        return RossbyHaurwitzWaves(self.place, self.settings.waves, self.settings.seed)


class RossbyHaurwitzWaves:
    """A sum of waves a cos^m φ (sin φ)^{l − m} cos(m λ − σ t + θ), l = m or m + 1, of unit mean square.

    Each is a spherical harmonic of degree l, and moves as a Rossby–Haurwitz wave in a solid rotation ω of the air:
    σ = m (ω − 2 (Ω + ω) / (l (l + 1))), in rad/s (Haurwitz 1940, J. Mar. Res. 3, 254–267).

    Args:
        place: whose nodes they are on.
        count: the number of waves.
        seed: of m, l, a and θ.
    """

    def __init__(self, place: LatLon, count: int, seed: int) -> None:
        random = np.random.default_rng([seed, 7])
        latitude, self.longitude = (torch.deg2rad(x) for x in place.positions)
        weight = place.areas / place.areas.sum()
        omega = 0.03 * EARTH_ROTATION
        self.waves = []
        for _ in range(count):
            m, odd = int(random.integers(2, 8)), int(random.integers(0, 2))
            degree = m + odd
            speed = m * (omega - 2 * (EARTH_ROTATION + omega) / (degree * (degree + 1)))
            shape = torch.cos(latitude) ** m * torch.sin(latitude) ** odd
            shape = random.uniform(0.5, 1.0) * shape / (weight * shape.square()).sum().sqrt()
            self.waves.append((m, speed, random.uniform(0, 2 * math.pi), shape))
        power = sum(float((weight * shape.square()).sum()) / 2 for _, _, _, shape in self.waves)
        self.size = 1 / math.sqrt(power)

    def at(self, times: Times) -> Tensor:
        """The fields (T, n) at these times."""
        seconds = torch.from_numpy((times - EPOCH) / np.timedelta64(1, "s"))[:, None]
        total = torch.zeros(len(times), len(self.longitude), dtype=torch.float64)
        for m, speed, phase, shape in self.waves:
            total += shape * torch.cos(m * self.longitude - speed * seconds + phase)
        return self.size * total


def make_weather(settings: SyntheticWeather, console: Console | None = None) -> str:
    """Write the store of the settings, say what it holds, and return its checksum."""
    console = console or Console()
    record = settings.record()
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("writing", total=len(record))
        checksum = write_weather(record, settings.out, lambda frames: bar.update(task, completed=frames))
    rows, columns = record.place.shape
    console.print(
        f"{settings.out}: {', '.join(map(str, record.variables))}; {len(record)} frames, one every {settings.hours:g} hours from "
        f"{record.times[0].astype('datetime64[m]')} to {record.times[-1].astype('datetime64[m]')}; {rows} x {columns} points; "
        f"sha256 {checksum}",
        markup=False,
        soft_wrap=True,
    )
    return checksum
