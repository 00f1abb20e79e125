"""Stations without data: a temperature that the wind carries over them, with days, gaps and irregular times."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from neuralpde.station_checks import StationError
from neuralpde.station_record import StationRecord
from neuralpde.weather_record import Variable, regular_times


@dataclass(frozen=True)
class SyntheticStations:
    """Temperature at random stations: waves that a wind carries, relaxed and renewed, and the hour of the day.

        T(x, t) = 283 + 4 sin(2π (t − 9) / 24) + Σ_k a_k(t) cos(k · (x − U t) + φ_k) + noise,

    where each a_k is an autoregressive process in time of a memory of two days. Neighbours and a forecast upwind are worth
    something; a station alone is not enough.

    Args:
        stations: scattered evenly over 4° x 6°.
        frames: of `hours` each, before any is left out.
        wind: U, (east, north) in km/h.
        noise: of a measurement, in K.
        missing: share of values that are not measured, at random.
        outages: share of frames that no station reports, so that times are irregular.
        variables: 1, or 2 for a pressure beside the temperature.
    """

    stations: int = 30
    frames: int = 480
    hours: float = 1.0
    wind: tuple[float, float] = (30.0, 12.0)
    noise: float = 0.1
    missing: float = 0.0
    outages: float = 0.0
    variables: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.stations < 2 or self.frames < 1 or self.variables not in (1, 2) or not self.hours > 0:
            raise StationError("stations are at least 2, frames at least 1, variables 1 or 2, and hours above zero")
        if not (0 <= self.missing < 1 and 0 <= self.outages < 1):
            raise StationError(f"missing and outages are shares in [0, 1), not {self.missing:g} and {self.outages:g}")

    def record(self) -> StationRecord:
        """The measurements, the same for the same settings."""
        rng = np.random.default_rng(self.seed)
        latitude, longitude = 46 + 4 * rng.random(self.stations), -4 + 6 * rng.random(self.stations)
        north = 111.2 * (latitude - 48)
        east = 111.2 * math.cos(math.radians(48)) * (longitude + 1)
        time = np.arange(self.frames) * self.hours
        waves = 2 * math.pi / rng.uniform(250, 900, 12)
        heading, phase = rng.uniform(0, 2 * math.pi, 12), rng.uniform(0, 2 * math.pi, 12)
        wave = np.stack([waves * np.cos(heading), waves * np.sin(heading)])
        along = np.stack([east, north], axis=1) @ wave - (time[:, None] * (np.array(self.wind) @ wave))[:, None]
        kept = math.exp(-self.hours / 48)
        size = np.empty((self.frames, 12))
        size[0] = rng.standard_normal(12)
        for frame in range(1, self.frames):
            size[frame] = kept * size[frame - 1] + math.sqrt(1 - kept**2) * rng.standard_normal(12)
        weather = (size[:, None] * np.cos(along + phase)).sum(-1)
        values = [283 + 4 * np.sin(2 * math.pi * (time[:, None] - 9) / 24) + weather]
        channels = [Variable("t", units="K")]
        if self.variables == 2:
            values.append(1013 - 2 * (size[:, None] * np.sin(along + phase)).sum(-1))
            channels.append(Variable("p", units="hPa"))
        field = np.stack(values, axis=-1)
        field += self.noise * rng.standard_normal(field.shape)
        field[rng.random(field.shape) < self.missing] = np.nan
        reported = rng.random(self.frames) >= self.outages
        # Two times at least, however many are left out.
        reported[[0, -1]] = True
        times = regular_times("2020-01-01", self.hours, self.frames)
        return StationRecord.of("synthetic", field[reported], times[reported], latitude, longitude, channels)
