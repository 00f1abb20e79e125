"""What weather is like on average: by day of the year and hour, by hour of the day, or over all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralpde.weather_record import HOUR, Times, WeatherError, WeatherRecord
from operators.checks import is_integer

DAYS = 366
# Fewer days than this make a mean by hour noisier than the cycle it is to show.
FEWEST_DAYS = 5

Minutes = NDArray[np.int64]


class Climatology(ABC):
    """A mean field for each time."""

    @abstractmethod
    def at(self, times: Times) -> Tensor:
        """The mean fields (*times.shape, n, c) in float32 for times of any shape."""


@dataclass(frozen=True, eq=False)
class MeanClimatology(Climatology):
    """The same mean (n, c) at all times."""

    mean: Tensor

    @classmethod
    def of(cls, train: WeatherRecord) -> MeanClimatology:
        """Over time and trajectories of the training span."""
        sums, counts = _sums(train, 1, lambda times: np.zeros(len(times), np.int64))
        return cls((sums[0] / counts[0]).float())

    def at(self, times: Times) -> Tensor:
        return self.mean.expand(*np.shape(times), *self.mean.shape)


@dataclass(frozen=True, eq=False)
class DailyClimatology(Climatology):
    """A mean for each time of the day: moments (m,) in minutes after midnight, means (m, n, c)."""

    moments: Minutes
    means: Tensor

    @classmethod
    def of(cls, train: WeatherRecord) -> DailyClimatology:
        """Over days and trajectories of the training span."""
        moments = np.unique(minute_of_day(train.times))
        sums, counts = _sums(train, len(moments), lambda times: _find(minute_of_day(times), moments))
        return cls(moments, (sums / counts[:, None, None]).float())

    def at(self, times: Times) -> Tensor:
        return self.means[torch.as_tensor(_find(minute_of_day(times), self.moments))]


@dataclass(frozen=True, eq=False)
class SeasonalClimatology(Climatology):
    """A mean for each day of the year and time of the day: moments (m,) in minutes, means (m, 366, n, c)."""

    moments: Minutes
    means: Tensor

    @classmethod
    def of(cls, train: WeatherRecord, window: int = 61) -> SeasonalClimatology:
        """Over years and trajectories of the training span, smoothed over neighbouring days.

        The frames that lie d days off have the weight max(0, 1 − |d| / (window // 2)), around the turn of the year too, as in
        the climatology of WeatherBench 2 with its window of 61 days (Rasp et al. 2024, J. Adv. Model. Earth Syst. 16); every
        frame counts once, so that the leap day has a quarter of the frames of its neighbours and the same weight for each.

        Args:
            window: an odd number of days; 1 does not smooth.

        Raises:
            WeatherError: some day of the year has no frame within the window.
        """
        if not is_integer(window) or window % 2 == 0 or not 1 <= window < DAYS:
            raise WeatherError(f"window must be an odd number of days below {DAYS}, not {window!r}")
        moments = np.unique(minute_of_day(train.times))
        count = len(moments) * DAYS
        sums, counts = _sums(train, count, lambda times: _find(minute_of_day(times), moments) * DAYS + day_of_year(times))
        kernel = torch.from_numpy(_day_weights(window))
        n, c = sums.shape[-2:]
        smooth = kernel @ sums.reshape(len(moments), DAYS, n * c)
        weights = torch.einsum("de,me->md", kernel, counts.reshape(len(moments), DAYS))
        if bool((weights <= 0).any()):
            moment, day = (weights <= 0).nonzero()[0].tolist()
            raise WeatherError(
                f"no frame at minute {moments[moment]} lies near day {day + 1} of the year: train on a whole year, widen the "
                "window, or use DailyClimatology.of(train)"
            )
        return cls(moments, (smooth / weights[..., None]).float().reshape(len(moments), DAYS, n, c))

    def at(self, times: Times) -> Tensor:
        moment = torch.as_tensor(_find(minute_of_day(times), self.moments))
        return self.means[moment, torch.as_tensor(day_of_year(times))]


def climatology_of(train: WeatherRecord) -> Climatology:
    """The finest climatology that the training span carries.

    By day of the year and hour from a whole year on, else by hour where every hour is there on five days, else the mean.
    """
    span = train.times[-1] - train.times[0] + train.step
    if span >= 365 * 24 * HOUR and train.step <= 31 * 24 * HOUR:
        return SeasonalClimatology.of(train)
    counts = np.unique(minute_of_day(train.times), return_counts=True)[1]
    if len(counts) > 1 and counts.min() >= FEWEST_DAYS:
        return DailyClimatology.of(train)
    return MeanClimatology.of(train)


def minute_of_day(times: Times) -> Minutes:
    """Minutes after midnight (UTC)."""
    times = np.asarray(times)
    _check_moments(times)
    minutes: Minutes = ((times - times.astype("datetime64[D]")) // np.timedelta64(1, "m")).astype(np.int64)
    return minutes


def day_of_year(times: Times) -> Minutes:
    """0 on the first of January, 365 on the last of December of a leap year."""
    times = np.asarray(times)
    _check_moments(times)
    days: Minutes = (times.astype("datetime64[D]") - times.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64)
    return days


def _check_moments(times: Times) -> None:
    if np.isnat(times).any():
        raise WeatherError("a time is missing (NaT)")


def _sums(train: WeatherRecord, count: int, group: Callable[[Times], Minutes]) -> tuple[Tensor, Tensor]:
    """Sums (count, n, c) of the frames of each group in float64, and how many they are (count,)."""
    sums = torch.zeros(count, train.place.num_nodes, len(train.variables), dtype=torch.float64)
    counts = torch.zeros(count, dtype=torch.float64)
    for block, nodes in train.blocks():
        groups = torch.from_numpy(group(train.times[block]))
        sums.index_add_(0, groups, nodes.double().sum(0))
        counts.index_add_(0, groups, torch.full((len(groups),), float(train.members), dtype=torch.float64))
    return sums, counts


def _day_weights(window: int) -> NDArray[np.float64]:
    """(366, 366), round the year."""
    apart = np.abs(np.arange(DAYS)[:, None] - np.arange(DAYS))
    apart = np.minimum(apart, DAYS - apart)
    half = window // 2
    return np.eye(DAYS) if half == 0 else np.maximum(0.0, 1.0 - apart / half)


def _find(minutes: Minutes, moments: Minutes) -> Minutes:
    index = np.minimum(np.searchsorted(moments, minutes), len(moments) - 1)
    wrong = moments[index] != minutes
    if wrong.any():
        raise WeatherError(
            f"the climatology knows no time {minutes[wrong].reshape(-1)[0] / 60:g} h after midnight, only "
            f"{', '.join(f'{m / 60:g}' for m in moments[:24])}: forecast for times of day that the training span has"
        )
    return index
