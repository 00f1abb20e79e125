"""Cases for learning and testing from a station record: spans of time and stations that do not leak into one another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuralpde.sensor_case import SensorCase
from neuralpde.station_checks import StationError
from neuralpde.station_record import StationRecord


@dataclass(frozen=True)
class StationScaling:
    """(x − mean) / std, each channel for itself; the mean and the standard deviation of what training sees, and of nothing else.

    Args:
        mean, std: (c,) float64.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, record: StationRecord) -> StationScaling:
        """Of the values that were seen.

        Raises:
            StationError: a variable that was never seen in this span, or that is constant.
        """
        means, stds = [], []
        for channel, variable in enumerate(record.variables):
            values = record.values[..., channel][record.seen[..., channel]]
            if len(values) < 2:
                raise StationError(
                    f"{record.name}: {variable} was not seen in the training span: take a longer one, or leave it out"
                )
            std = values.std(correction=0)
            if float(std) <= 1e-12 * max(1.0, float(values.abs().max())):
                raise StationError(f"{record.name}: {variable} is constant in the training span: leave it out")
            means.append(values.mean())
            stds.append(std)
        return cls(torch.stack(means), torch.stack(stds))

    def normalise(self, values: Tensor) -> Tensor:
        """Of (..., c)."""
        return (values - self.mean.to(values)) / self.std.to(values)

    def restore(self, values: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return values * self.std.to(values) + self.mean.to(values)


@dataclass(frozen=True)
class StationSplit:
    """How a record is divided. Time first: training, then validation, then test; then stations, some of which nobody trains on.

    Every window lies wholly within its own span, so that no frame of a test target, nor of its inputs, is in a window of training
    or validation.

    Args:
        given: frames that a forecast is made from.
        horizon: frames to be forecast.
        validation, test: shares of the frames.
        held_out: share of the stations that only the held-out case knows; 0 for none.
        stride: frames between the starts of two windows.
        embargo: frames left out between two spans, against what lingers in the air.
        gap: the longest step within a window, as a multiple of the median step of the record; infinity takes all.
        seed: of the held-out stations.
    """

    given: int = 12
    horizon: int = 12
    validation: float = 1 / 6
    test: float = 1 / 6
    held_out: float = 0.2
    stride: int = 1
    embargo: int = 0
    gap: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.given, self.horizon, self.stride) < 1 or self.embargo < 0:
            raise StationError("given, horizon and stride are at least 1 frame, and embargo at least 0")
        if not (self.validation > 0 and self.test > 0 and self.validation + self.test < 1):
            raise StationError(
                f"the shares of validation and test must be above 0 and leave something to train on, not {self.validation:g} and "
                f"{self.test:g}"
            )
        if not 0 <= self.held_out < 1:
            raise StationError(f"the share of held-out stations must be in [0, 1), not {self.held_out:g}")
        if not self.gap >= 1:
            raise StationError(f"gap is a multiple of the usual step, at least 1, not {self.gap:g}")

    def spans(self, frames: int) -> tuple[range, range, range]:
        """The frames of training, validation and test."""
        test = frames - round(self.test * frames)
        validation = test - round(self.validation * frames)
        return range(0, validation - self.embargo), range(validation, test - self.embargo), range(test, frames)

    def stations(self, count: int) -> tuple[Tensor, Tensor]:
        """The indices of the stations that are trained on and of those held out, each in order."""
        held = round(self.held_out * count)
        if self.held_out > 0:
            held = max(held, 1)
        if count - held < 2:
            raise StationError(f"{count} stations with {held} held out leave fewer than two to train on: hold out fewer")
        order = torch.from_numpy(np.random.default_rng(self.seed).permutation(count))
        return order[held:].sort().values, order[:held].sort().values


@dataclass(frozen=True, eq=False)
class StationCases:
    """What a record was divided into, normalised by its training span.

    Args:
        train, validation, test: windows of the stations that are trained on.
        held_out: the windows of the test at all stations, those trained on first; only the others are scored. None without any.
        scaling: of the training stations in the training span.
        ids, held_ids: names of the stations that are trained on, and of the others.
    """

    train: SensorCase
    validation: SensorCase
    test: SensorCase
    held_out: SensorCase | None
    scaling: StationScaling
    ids: tuple[str, ...]
    held_ids: tuple[str, ...]


def to_cases(record: StationRecord, split: StationSplit | None = None) -> StationCases:
    """Divide and normalise a record, and cut it into windows; values in float32, times in hours since 1970-01-01 UTC.

    Raises:
        StationError: a span that is too short for one window, or in which every window has a gap.
    """
    split = StationSplit() if split is None else split
    known, held = split.stations(record.placement.num_nodes)
    training, *others = split.spans(len(record))
    mine = record.take(known)
    if len(training) < 1:
        raise StationError(f"{record.name}: no frame is left for training: a record of {len(record)} frames is too short")
    scaling = StationScaling.of(mine.frames(slice(training.start, training.stop)))
    every = record.take(torch.cat([known, held]))
    scored = torch.arange(record.placement.num_nodes) >= len(known)
    held_out = windows(every, split, others[1], scaling, "held-out", scored) if len(held) else None
    return StationCases(
        windows(mine, split, training, scaling, "train"),
        windows(mine, split, others[0], scaling, "validation"),
        windows(mine, split, others[1], scaling, "test"),
        held_out,
        scaling,
        mine.ids,
        tuple(record.ids[i] for i in held.tolist()),
    )


def windows(
    record: StationRecord, split: StationSplit, span: range, scaling: StationScaling, name: str, scored: Tensor | None = None
) -> SensorCase:
    """All windows of a span of frames that have no gap, as a case."""
    length = split.given + split.horizon
    if len(span) < length:
        raise StationError(
            f"{record.name}: the {name} span has {len(span)} frames, and a window {split.given} + {split.horizon}: take a longer "
            "record, shorter windows, or other shares"
        )
    hours = record.hours
    starts = torch.arange(span.start, span.stop - length + 1, split.stride)
    index = starts[:, None] + torch.arange(length)
    times = hours[index]
    if len(hours) > 1 and math.isfinite(split.gap):
        longest = split.gap * float(hours.diff().median())
        whole = times.diff(dim=1).amax(1) <= longest
        index, times = index[whole], times[whole]
        if len(index) == 0:
            raise StationError(
                f"{record.name}: every window of the {name} span has a step of more than {longest:g} h: resample the record to "
                "regular times, or allow a larger gap"
            )
    # Frame by frame, as windows hold each of them many times.
    values = torch.where(record.seen, scaling.normalise(record.values), 0.0).float()
    return SensorCase(name, record.placement, values[index], record.seen[index], times, split.given, scored)
