"""Weather over time: variables on a sphere or a region at regular times, read when they are asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralpde.weather_place import Place
from operators.checks import is_integer

Times = NDArray[np.datetime64]
Moment = str | np.datetime64

HOUR = np.timedelta64(3600 * 10**9, "ns")


class WeatherError(ValueError):
    """Weather data that cannot be used as they are; the text names the cause and the cure."""


@dataclass(frozen=True)
class Variable:
    """A channel: a variable, at a pressure level where it has levels.

    Args:
        name: as in WeatherBench 2, for example "geopotential" or "2m_temperature".
        level: in hPa; None for a variable of the surface.
        units: of its values, which are never converted, for example "m**2 s**-2" or "K"; no part of its identity.
    """

    name: str
    level: float | None = None
    units: str = ""

    def __str__(self) -> str:
        return self.name if self.level is None else f"{self.name} {self.level:g} hPa"

    def matches(self, other: Variable) -> bool:
        """Whether the two are the same channel, whatever the units are called."""
        return (self.name, self.level) == (other.name, other.level)


class Source(ABC):
    """What holds the values."""

    @property
    @abstractmethod
    def members(self) -> int:
        """The number K of trajectories at the same times: the members of an ensemble, 1 without one."""

    @abstractmethod
    def read(self, frames: range, channels: Sequence[int]) -> Tensor:
        """The values (K, len(frames), *spatial, len(channels)) in float32."""


@dataclass(frozen=True, eq=False)
class InMemory(Source):
    """Values (K, T, *spatial, c) that are here already."""

    values: Tensor

    @property
    def members(self) -> int:
        return self.values.shape[0]

    def read(self, frames: range, channels: Sequence[int]) -> Tensor:
        chosen = self.values[:, frames.start : frames.stop : frames.step]
        if tuple(channels) != tuple(range(self.values.shape[-1])):
            chosen = chosen[..., list(channels)]
        return chosen.float()


@dataclass(frozen=True, eq=False)
class WeatherRecord:
    """Variables on the nodes of a place at regular times; nothing is read before it is asked for.

    Make one with `open_weather`, `era5_uk`, `era5_ensemble` or `WeatherRecord.of`.

    Args:
        source: of the values.
        place: of the nodes.
        variables: the channels c.
        times: (T,) datetime64, one every `step`.
        step: between two frames.
        frames: which frames of the source these are.
        channels: which channels of the source these are.
        context: how many of the first frames lie before the record proper: a forecast may start from them, never aim at them.
    """

    source: Source
    place: Place
    variables: tuple[Variable, ...]
    times: Times
    step: np.timedelta64
    frames: range
    channels: tuple[int, ...]
    context: int = 0

    @classmethod
    def of(cls, values: Tensor, times: Times, place: Place, variables: Sequence[Variable]) -> WeatherRecord:
        """From values (K, T, n, c) on nodes or (K, T, *place.shape, c) on a grid, K trajectories at the same times.

        Raises:
            WeatherError: shapes that do not fit, values that are not finite, times that are not regular.
        """
        if values.ndim == 4 and values.shape[2] == place.num_nodes and len(place.shape) > 1:
            values = place.to_grid(values)
        expected = (len(times), *place.shape, len(variables))
        if values.shape[1:] != expected:
            wanted = ", ".join(map(str, expected))
            raise WeatherError(
                f"the values must have shape (K, {wanted}), as times, place and variables say, not {tuple(values.shape)}"
            )
        times = moments(times)
        record = cls.over(InMemory(values), place, tuple(variables), times)
        record.fields()
        return record

    @classmethod
    def over(cls, source: Source, place: Place, variables: tuple[Variable, ...], times: Times, start: int = 0) -> WeatherRecord:
        """Over a source whose frames from `start` on are at these times."""
        frames = range(start, start + len(times))
        return cls(source, place, variables, times, regular_step(times), frames, tuple(range(len(variables))))

    def __len__(self) -> int:
        return len(self.times)

    @property
    def members(self) -> int:
        """The number K of trajectories at the same times: the members of an ensemble, 1 without one."""
        return self.source.members

    @property
    def step_hours(self) -> float:
        """The time between two frames, in hours."""
        return float(self.step / HOUR)

    def fields(self, start: int = 0, stop: int | None = None) -> Tensor:
        """The frames [start, stop) as they lie in the source, (K, T, *place.shape, c) in float32.

        Raises:
            WeatherError: a value is missing or not finite.
        """
        values = self.source.read(self.frames[start:stop], self.channels)
        # Testing the sum is several times faster than testing every value, and right where it says yes.
        if not bool(torch.isfinite(values.sum())):
            self._refuse_gaps(values, start)
        return values

    def nodes(self, start: int = 0, stop: int | None = None) -> Tensor:
        """The frames [start, stop) on the nodes, (K, T, n, c) in float32; raises as `fields`."""
        return self.place.to_nodes(self.fields(start, stop))

    def blocks(self, size: int = 64, overlap: int = 0) -> Iterator[tuple[slice, Tensor]]:
        """All frames on the nodes, `size` at a time and with them the first `overlap` of the next: (slice, (K, T, n, c)).

        The slice is that of the frames without the overlap.
        """
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield slice(start, stop), self.nodes(start, min(stop + overlap, len(self)))

    def select(self, variables: Sequence[Variable]) -> WeatherRecord:
        """These channels alone, in this order."""
        chosen = [find_variable(wanted, self.variables) for wanted in variables]
        if not chosen:
            raise WeatherError("no variable is selected: name at least one")
        channels = tuple(self.channels[i] for i in chosen)
        return replace(self, variables=tuple(self.variables[i] for i in chosen), channels=channels)

    def between(self, start: Moment | None = None, stop: Moment | None = None) -> WeatherRecord:
        """The frames with start ≤ time < stop."""
        first = 0 if start is None else int(np.searchsorted(self.times, moment(start)))
        last = len(self) if stop is None else int(np.searchsorted(self.times, moment(stop)))
        if first >= last:
            raise WeatherError(
                f"no frame lies between {start} and {stop}: the record runs from {self.times[0]} to {self.times[-1]}"
            )
        return self._cut(first, last, max(0, self.context - first))

    def every(self, stride: int) -> WeatherRecord:
        """Every `stride`-th frame."""
        if not is_integer(stride) or stride < 1:
            raise WeatherError(f"stride must be a whole number from 1 on, not {stride!r}")
        if self.context:
            raise WeatherError("take every few frames first, then split")
        return replace(self, times=self.times[::stride], frames=self.frames[::stride], step=self.step * stride)

    def split(self, cut: Moment | float, inputs: int = 0) -> tuple[WeatherRecord, WeatherRecord]:
        """What lies before the cut, for training, and what lies at it or after, for testing.

        Windows are taken within each part, so that no target of training is a target of testing. Statistics belong to the first.

        Args:
            cut: a time, or the fraction of frames that comes first.
            inputs: the frames before the cut that stand at the head of the second part: its first forecast may start from
                them, as they are known by then.
        """
        if isinstance(cut, (int, float, np.number)):
            if not 0 < cut < 1:
                raise WeatherError(f"the fraction of training frames must lie between 0 and 1, not {cut}")
            index = round(cut * len(self))
        else:
            index = int(np.searchsorted(self.times, moment(cut)))
        if not 0 < index < len(self):
            raise WeatherError(f"the cut {cut} leaves one part empty: the record runs from {self.times[0]} to {self.times[-1]}")
        if not is_integer(inputs) or not 0 <= inputs <= index:
            raise WeatherError(f"{inputs!r} inputs do not lie before the cut, where there are {index} frames")
        return self._cut(0, index, self.context), self._cut(index - inputs, len(self), inputs)

    def loaded(self) -> WeatherRecord:
        """The same record, in memory."""
        span, channels = range(len(self)), tuple(range(len(self.variables)))
        return replace(self, source=InMemory(self.fields()), frames=span, channels=channels)

    def _cut(self, first: int, last: int, context: int) -> WeatherRecord:
        return replace(self, times=self.times[first:last], frames=self.frames[first:last], context=context)

    def _refuse_gaps(self, values: Tensor, start: int) -> None:
        bad = ~torch.isfinite(values)
        if not bool(bad.any()):
            return
        first = bad.nonzero()[0].tolist()
        raise WeatherError(
            f"{int(bad.sum())} values are missing or not finite, the first of {self.variables[first[-1]]} at "
            f"{self.times[start + first[1]]}, grid point {tuple(first[2:-1])}: choose a span and variables without gaps"
        )


def find_variable(wanted: Variable, present: Sequence[Variable]) -> int:
    """The index of the variable, or a WeatherError that says what there is."""
    for index, variable in enumerate(present):
        if variable.matches(wanted):
            return index
    same = [variable for variable in present if variable.name == wanted.name]
    if wanted.level is not None and any(variable.level == 100 * wanted.level for variable in same):
        raise WeatherError(
            f"there is no {wanted}, but one at level {100 * wanted.level:g}: these levels are in Pa, ask for that one"
        )
    raise WeatherError(f"there is no {wanted}: there are {', '.join(map(str, same or present))}")


def regular_times(start: Moment, hours: float, count: int) -> Times:
    """`count` times from `start` on, one every `hours`."""
    first, steps = moment(start), np.round(np.arange(count) * hours * float(HOUR / np.timedelta64(1, "ns")))
    if count and abs(first.astype(np.int64) + steps[-1]) >= 2.0**63:
        raise WeatherError(f"{count} times every {hours:g} h from {start} on end beyond the year 2262: take fewer")
    times: Times = first + steps.astype("timedelta64[ns]")
    return times


def moments(times: Any) -> Times:
    """Times in nanoseconds; a WeatherError where these do not reach, before 1678 and after 2261."""
    times = np.asarray(times)
    found: Times = times.astype("datetime64[ns]")
    back = found.astype(times.dtype)
    wrong = (back != times) & ~np.isnat(times)
    if wrong.any():
        raise WeatherError(f"the time {times[wrong].reshape(-1)[0]} lies outside of the years 1678 to 2261, which times can have")
    return found


def moment(value: Any) -> np.datetime64:
    """A time from a text such as "2020-01-01" or "2020-01-01T06"."""
    if not isinstance(value, (str, np.datetime64)):
        raise WeatherError(f"{value!r} is not a time: write it as a text, 2020-01-31 or 2020-01-31T18")
    try:
        exact: Any = np.datetime64(value)
    except ValueError as error:
        raise WeatherError(f"{value!r} is not a time: write it as 2020-01-31 or 2020-01-31T18") from error
    if np.isnat(exact):
        raise WeatherError("a time is missing (NaT)")
    found: Any = moments(exact)[()]
    return np.datetime64(found)


def regular_step(times: Times) -> np.timedelta64:
    """The time between two frames; a WeatherError names the first gap or repetition.

    Of a single frame it is one day, by convention.
    """
    if len(times) == 0:
        raise WeatherError("there is no frame at all")
    if np.isnat(times).any():
        raise WeatherError(f"time {int(np.isnat(times).argmax())} is missing (NaT)")
    if len(times) == 1:
        return np.timedelta64(24 * HOUR)
    steps = np.diff(times)
    for index, step in enumerate(steps):
        if step <= np.timedelta64(0, "ns"):
            raise WeatherError(
                f"times must rise, each once, but {times[index]} is followed by {times[index + 1]}: sort the frames"
            )
    step = np.median(steps.astype(np.int64)).astype("timedelta64[ns]")
    uneven = np.flatnonzero(steps != step)
    if len(uneven):
        i = int(uneven[0])
        raise WeatherError(
            f"{len(uneven)} of {len(steps)} time steps are not {step / HOUR:g} hours long, the first from {times[i]} to "
            f"{times[i + 1]}: choose a span without gaps (start=, stop=), or fill them"
        )
    return np.timedelta64(step)
