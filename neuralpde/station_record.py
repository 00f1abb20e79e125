"""Measurements from stations over time: where each stands, what was measured when, and what was not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralpde.sensor_placement import Placement
from neuralpde.station_checks import Floats, StationError, as_texts, check_stations, check_times, check_values
from neuralpde.weather_record import HOUR, Moment, Times, Variable, moment, moments
from operators.checks import is_integer

EPOCH = np.datetime64(0, "ns")


@dataclass(frozen=True, eq=False)
class StationRecord:
    """c variables at n stations at T times, with gaps.

    Make one with `StationRecord.of`, `read_stations`, the readers of NOAA's layouts, or `SyntheticStations`. Nothing is ever
    filled in: `seen` says what was measured.

    Args:
        placement: latitude and longitude of the stations.
        ids: their names, each once.
        variables: the channels, with their units.
        times: (T,) datetime64 in UTC; they increase, and their steps may differ.
        values: (T, n, c) in float64, zero where nothing was seen.
        seen: (T, n, c) bool.
        elevation: (n,) in m above the sea, NaN where unknown; None if nobody knows.
    """

    placement: Placement
    ids: tuple[str, ...]
    variables: tuple[Variable, ...]
    times: Times
    values: Tensor
    seen: Tensor
    elevation: Tensor | None = None

    @classmethod
    def of(
        cls,
        name: str,
        values: Any,
        times: Any,
        latitude: Any,
        longitude: Any,
        variables: Sequence[Variable | str],
        ids: Sequence[Any] | None = None,
        elevation: Any = None,
        missing: Sequence[float] = (),
    ) -> StationRecord:
        """From arrays, checked.

        Args:
            values: (T, n, c), or (T, n) of one variable; NaN where nothing was measured.
            times: (T,) datetime64, or texts such as 2020-01-31T18, in UTC.
            latitude, longitude: (n,) in degrees.
            variables: c names, or variables with units; values are checked against the units K, degC, degF, Pa, hPa, %, m s**-1,
                degree and mm.
            ids: n names; numbers from 0 on if absent.
            missing: values that mean that nothing was measured, such as -9999.

        Raises:
            StationError: shapes that do not fit; stations twice, at one place, or without coordinates; times that are missing,
                twice or out of order; infinities; what looks like an undeclared marker of missing values; values that
                contradict their unit; a variable that was never measured.

        Warns:
            StationWarning: single values that no place on Earth has.
        """
        array = _numbers(name, "values", values)
        array = array[..., None] if array.ndim == 2 else array
        places = [_numbers(name, "coordinates", axis).reshape(-1) for axis in (latitude, longitude)]
        stamps = _as_times(name, times)
        wanted = (len(stamps), len(places[0]), len(variables))
        if array.shape != wanted or len(places[1]) != wanted[1]:
            raise StationError(
                f"{name}: values must have shape (times, stations, variables) = {wanted}, with as many longitudes, not "
                f"{array.shape} and {len(places[1])}"
            )
        if min(wanted) < 1 or wanted[1] < 2:
            raise StationError(f"{name}: at least one time, two stations and one variable are needed, not {wanted}")
        names = as_texts(range(wanted[1]) if ids is None else ids)
        if len(names) != wanted[1]:
            raise StationError(f"{name}: {len(names)} names are given for {wanted[1]} stations")
        check_times(name, stamps)
        check_stations(name, names, *places)
        channels = tuple(one if isinstance(one, Variable) else Variable(one) for one in variables)
        if len(set(map(str, channels))) != len(channels):
            raise StationError(f"{name}: a variable occurs twice among {', '.join(map(str, channels))}")
        seen = ~np.isnan(array) & ~np.isin(array, _numbers(name, "markers of missing values", missing))
        check_values(name, array, seen, channels)
        heights = None if elevation is None else torch.from_numpy(_numbers(name, "elevations", elevation).reshape(-1))
        return cls(
            Placement(name, torch.from_numpy(np.stack(places, axis=1)), earth=True),
            names,
            channels,
            stamps,
            torch.from_numpy(np.where(seen, array, 0.0)),
            torch.from_numpy(seen),
            heights,
        )

    def __post_init__(self) -> None:
        shape = (len(self.times), self.placement.num_nodes, len(self.variables))
        if self.values.shape != shape or self.seen.shape != shape or self.seen.dtype != torch.bool:
            raise StationError(
                f"values and seen (bool) must have shape {shape}, not {tuple(self.values.shape)}: use StationRecord.of"
            )
        if len(self.ids) != shape[1] or (self.elevation is not None and self.elevation.shape != shape[1:2]):
            raise StationError(f"ids and elevations must be those of {shape[1]} stations")

    def __len__(self) -> int:
        return len(self.times)

    def __repr__(self) -> str:
        span = f"{self.times[0].astype('datetime64[m]')} to {self.times[-1].astype('datetime64[m]')}" if len(self) else "never"
        told = ", ".join(f"{v} [{v.units}]" if v.units else str(v) for v in self.variables)
        return (
            f"StationRecord({self.name}: {told} at {self.placement.num_nodes} stations, {len(self)} times from {span}, "
            f"{100 * (1 - self.coverage):.1f} % missing)"
        )

    @property
    def name(self) -> str:
        return self.placement.name

    @property
    def hours(self) -> Tensor:
        """The times (T,) in hours since 1970-01-01 UTC, float64."""
        return torch.from_numpy((self.times - EPOCH) / HOUR)

    @property
    def coverage(self) -> float:
        """The share of values that were seen."""
        return float(self.seen.double().mean()) if self.seen.numel() else 0.0

    def select(self, variables: Sequence[str]) -> StationRecord:
        """These variables alone, in this order."""
        names = [str(variable) for variable in self.variables]
        unknown = [name for name in variables if name not in names]
        if unknown or not variables:
            raise StationError(
                f"{self.name}: there is no variable {unknown[0] if unknown else ''!r}: there are {', '.join(names)}"
            )
        chosen = [names.index(name) for name in variables]
        picked = tuple(self.variables[i] for i in chosen)
        return replace(self, variables=picked, values=self.values[..., chosen], seen=self.seen[..., chosen])

    def take(self, stations: Tensor | Sequence[int] | Sequence[str]) -> StationRecord:
        """Some of the stations, by index or by name, in this order."""
        nodes = torch.as_tensor([self._index(one) for one in (stations.tolist() if isinstance(stations, Tensor) else stations)])
        return replace(
            self,
            placement=self.placement.take(nodes),
            ids=tuple(self.ids[i] for i in nodes.tolist()),
            values=self.values[:, nodes],
            seen=self.seen[:, nodes],
            elevation=None if self.elevation is None else self.elevation[nodes],
        )

    def covered(self, share: float = 0.5) -> StationRecord:
        """The stations of which at least this share of the values of each variable was seen."""
        kept = (self.seen.double().mean(0).amin(1) >= share).nonzero()[:, 0]
        if len(kept) < 2:
            raise StationError(f"{self.name}: fewer than two stations have {share:.0%} of their values: ask for less")
        return self.take(kept)

    def between(self, start: Moment | None = None, stop: Moment | None = None) -> StationRecord:
        """The frames with start ≤ time < stop."""
        first = 0 if start is None else int(np.searchsorted(self.times, moment(start)))
        last = len(self) if stop is None else int(np.searchsorted(self.times, moment(stop)))
        if first >= last:
            raise StationError(
                f"{self.name}: no frame lies between {start} and {stop}: it runs from {self.times[0]} to {self.times[-1]}"
            )
        return self.frames(slice(first, last))

    def frames(self, chosen: slice | Tensor) -> StationRecord:
        """Some of the frames, in order of time: a slice, or (T,) bool."""
        index = torch.arange(len(self))[chosen]
        return replace(self, times=self.times[index.numpy()], values=self.values[index], seen=self.seen[index])

    def every(self, stride: int) -> StationRecord:
        """Every `stride`-th frame."""
        if not is_integer(stride) or stride < 1:
            raise StationError(f"stride must be a whole number from 1 on, not {stride!r}")
        return self.frames(slice(None, None, stride))

    def resampled(self, hours: float, reach: float | None = None) -> StationRecord:
        """On regular times, one every `hours` from the first full one on: each value the last seen in (t − reach, t].

        No value is taken from after its time, so that a forecast from these frames sees nothing of what it forecasts.

        Args:
            reach: in hours; `hours` if absent.
        """
        reach = hours if reach is None else reach
        if not hours > 0 or not reach > 0:
            raise StationError(f"hours and reach must be above zero, not {hours} and {reach}")
        if not hours < 1e6 or not reach < 1e6:
            raise StationError(f"hours and reach must be below a million, not {hours:g} and {reach:g}")
        step = round(hours * 3600 * 10**9)
        stamps = self.times.astype(np.int64)
        # Some more frames than were measured are usual where the record has gaps; without a bound they fill the memory.
        most = max(100 * len(self), 1_000_000)
        if step < 1 or (int(stamps[-1]) - int(stamps[0])) / step > most:
            raise StationError(
                f"{self.name}: a time every {hours:g} h from {self.times[0]} to {self.times[-1]} is more than {most} times: take "
                "longer steps"
            )
        targets = np.arange(-(-stamps[0] // step), stamps[-1] // step + 1) * step
        if len(targets) == 0:
            raise StationError(f"{self.name}: no multiple of {hours:g} h lies within the record: take shorter steps")
        # The last frame at or before each new time in which this value was seen.
        order = torch.arange(len(self))[:, None, None]
        last = torch.where(self.seen, order, -1).cummax(0).values
        upto = torch.from_numpy(np.searchsorted(stamps, targets, side="right") - 1)
        source = last[upto]
        age = torch.from_numpy(targets)[:, None, None] - torch.from_numpy(stamps)[source.clamp(min=0)]
        seen = (source >= 0) & (age < reach * 3600e9)
        values = torch.where(seen, self.values.gather(0, source.clamp(min=0)), 0.0)
        return replace(self, times=targets.astype("datetime64[ns]"), values=values, seen=seen)

    def hide(self, mask: Tensor) -> StationRecord:
        """Without the values where the mask, broadcast to (T, n, c), is true."""
        seen = self.seen & ~mask
        return replace(self, values=torch.where(seen, self.values, 0.0), seen=seen)

    def within(self, variable: str, low: float, high: float) -> StationRecord:
        """Without the values of a variable that lie outside of [low, high]."""
        channel = [str(one) for one in self.variables].index(str(self.select([variable]).variables[0]))
        outside = torch.zeros_like(self.seen)
        outside[..., channel] = (self.values[..., channel] < low) | (self.values[..., channel] > high)
        return self.hide(outside)

    def _index(self, station: Any) -> int:
        if isinstance(station, str):
            if station not in self.ids:
                raise StationError(f"{self.name}: there is no station {station}: there are {', '.join(self.ids[:5])} and more")
            return self.ids.index(station)
        index = int(station)
        if not 0 <= index < len(self.ids):
            raise StationError(f"{self.name}: there is no station number {index}: there are {len(self.ids)}")
        return index


def _numbers(name: str, what: str, given: Any) -> Floats:
    try:
        array = np.asarray(given)
        if array.dtype.kind == "c":
            raise StationError(f"{name}: {what} are complex: give real numbers")
        return np.array(array, np.float64)
    except StationError:
        raise
    except (ValueError, TypeError) as error:
        raise StationError(f"{name}: {what} must be numbers ({error})") from error


def _as_times(name: str, times: Any) -> Times:
    array = np.asarray(times)
    if array.ndim != 1:
        raise StationError(f"{name}: times must have shape (T,), not {array.shape}")
    if array.dtype.kind not in "MUSO":
        raise StationError(f"{name}: times are of type {array.dtype}: give datetime64 in UTC, or texts such as 2020-01-31T18:00")
    try:
        return moments(array if array.dtype.kind == "M" else np.array([str(one) for one in array.tolist()], "datetime64[ns]"))
    except ValueError as error:
        raise StationError(f"{name}: a time cannot be read ({error}): write it as 2020-01-31T18:00") from error
