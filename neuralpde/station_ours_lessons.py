"""Windows to learn from, each with a climate and a joint step that do not know it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuralpde.sensor_case import SensorCase
from neuralpde.sensor_gaps import filled, regular, time_step, whole
from neuralpde.sensor_placement import Placement
from neuralpde.station_ours_climate import RIDGES, Climate, LocalClimate, cycles, fit_climate
from neuralpde.station_ours_joint import LAGS, JointStep, fit_steps
from neuralpde.station_ours_joint import RIDGES as RIDGES_JOINT

# Of a step: frames that are off by no more are taken for regular.
NEAR = 0.1
# The joint step has so many sensors at most: its matrix has their square.
MOST_JOINT = 200


@dataclass(frozen=True, eq=False)
class Frames:
    """Windows of one channel at equal steps, gaps filled.

    Args:
        times: (K, T) hours. values: (K, T, n). seen: (K, T, n), what may be learned from.
    """

    placement: Placement
    times: Tensor
    values: Tensor
    seen: Tensor

    def anomalies(self, climate: LocalClimate) -> Tensor:
        return self.values.double() - climate.mean(self.times)


def known_stations(frames: Sequence[Frames]) -> Tensor:
    """(m, q): the sensors of a single placement, unless they are very many; none of several."""
    points = frames[0].placement.cloud.points
    return points if len(frames) == 1 and len(points) <= MOST_JOINT else points[:0]


def kept_windows(case: SensorCase, most: int) -> SensorCase:
    """At most so many windows, evenly spaced."""
    if len(case.values) <= most:
        return case
    return case.some(torch.linspace(0, len(case.values) - 1, most).round().long())


def learned_frames(case: SensorCase, step: float, channel: int) -> Frames:
    """A case's windows at equal steps."""
    length = case.values.shape[1]
    times = case.times[:, -1:] - step * torch.arange(length - 1, -1, -1, dtype=torch.float64)
    if bool(((times - case.times).abs() <= NEAR * step).all()):
        # A gap among the inputs is closed from inputs alone: between the last of them and the first target lies what is asked.
        values = torch.cat([filled(case.inputs), filled(whole(case))[:, case.given :]], dim=1)
        return Frames(case.placement, case.times, values[..., channel], case.seen[..., channel])
    values = regular(whole(case), step, length)[..., channel]
    return Frames(case.placement, times, values, torch.ones_like(values, dtype=torch.bool))


def usual_step(cases: Sequence[SensorCase]) -> float:
    """The step of most windows. Months differ, and count by their mean."""
    median = time_step(cases)
    mean = float(torch.cat([(c.times[:, -1] - c.times[:, 0]) / (c.times.shape[1] - 1) for c in cases]).median())
    return mean if abs(mean - median) <= NEAR * median else median


def whole_steps(times: Tensor) -> Tensor:
    """Times in steps; what is nearly a whole step is one, so that windows have their lags in common."""
    return torch.where((times - times.round()).abs() <= NEAR, times.round(), times)


def known_cycles(frames: Sequence[Frames]) -> tuple[float, ...]:
    """The periods of day and year that the windows show; none where times are those of an equation."""
    return cycles(torch.cat([f.times.flatten() for f in frames])) if frames[0].placement.earth else ()


def learn_climate(frames: Sequence[Frames], parts: int) -> tuple[Climate, list[tuple[int, Tensor, Climate]]]:
    """The climate of all windows; and (case, windows, climate without these) for every part of the span."""
    periods = known_cycles(frames)
    pieces = [
        (k, windows) for k, f in enumerate(frames) for windows in torch.arange(len(f.times)).tensor_split(parts) if len(windows)
    ]
    rest = [_apart(frames[k], windows) for k, windows in pieces]

    def fitted(chosen: dict[int, Tensor], ridge: float) -> Climate:
        return _fit(frames, chosen, periods, ridge)

    def without(piece: int, ridge: float) -> Climate:
        return fitted({pieces[piece][0]: rest[piece]}, ridge)

    def error(ridge: float) -> float:
        total = 0.0
        for piece, (k, windows) in enumerate(pieces):
            gap = frames[k].anomalies(without(piece, ridge).at(frames[k].placement))[windows]
            total += float(gap[frames[k].seen[windows]].square().sum())
        return total

    ridge = min(RIDGES, key=error)
    return fitted({}, ridge), [(k, windows, without(i, ridge)) for i, (k, windows) in enumerate(pieces)]


def _apart(frames: Frames, windows: Tensor) -> Tensor:
    """The windows that share no time with these; if there are none, the others."""
    other = torch.ones(len(frames.times), dtype=torch.bool)
    other[windows] = False
    start, stop = frames.times[windows].min(), frames.times[windows].max()
    apart = other & ((frames.times[:, -1] < start) | (frames.times[:, 0] > stop))
    chosen = apart if bool(apart.any()) else other if bool(other.any()) else torch.ones_like(other)
    return chosen.nonzero()[:, 0]


def _fit(frames: Sequence[Frames], chosen: dict[int, Tensor], periods: Sequence[float], ridge: float) -> Climate:
    """Of all sensors of all cases; of some cases only some windows."""
    rows = [f.times[chosen.get(k, slice(None))] for k, f in enumerate(frames)]
    total, count = sum(r.numel() for r in rows), sum(f.placement.num_nodes for f in frames)
    values, seen = torch.zeros(total, count), torch.zeros(total, count, dtype=torch.bool)
    row = column = 0
    for k, f in enumerate(frames):
        block = slice(row, row + rows[k].numel()), slice(column, column + f.placement.num_nodes)
        which = chosen.get(k, slice(None))
        values[block], seen[block] = f.values[which].flatten(0, 1).float(), f.seen[which].flatten(0, 1)
        row, column = block[0].stop, block[1].stop
    times = torch.cat([r.flatten() for r in rows])
    # A frame is in as many rows as there are windows over it.
    repeats = len(times) / max(1, len(np.unique(times.numpy())))
    points = torch.cat([f.placement.cloud.points for f in frames])
    return fit_climate(points, times, values, seen, periods, ridge * repeats)


def learn_joint(frames: Sequence[Frames], parts: int, step: float, horizon: int) -> tuple[JointStep, list[JointStep]] | None:
    """The joint step of all windows; and that without each part. None for several placements, which have no sensors in common."""
    if len(frames) != 1 or frames[0].placement.num_nodes > MOST_JOINT or frames[0].times.shape[1] <= horizon + max(LAGS):
        return None
    f = frames[0]
    periods = known_cycles(frames)
    pieces = [windows for windows in torch.arange(len(f.times)).tensor_split(parts) if len(windows)]
    given = f.times.shape[1] - horizon

    def fitted(windows: Tensor | slice, lags: int, ridges: Sequence[float]) -> list[JointStep]:
        return fit_steps(f.placement, f.values[windows], f.times[windows], periods, step, lags, ridges)

    rest = [_apart(f, windows) for windows in pieces]
    best: tuple[float, int, float, list[JointStep]] | None = None
    for lags in LAGS:
        several = [fitted(windows, lags, RIDGES_JOINT) for windows in rest]
        for r, ridge in enumerate(RIDGES_JOINT):
            error = 0.0
            for steps, windows in zip(several, pieces, strict=True):
                path = steps[r].roll(f.values[windows, :given], f.times[windows, given - 1], horizon)
                error += float(((path - f.values[windows, given:]).abs() * f.seen[windows, given:]).sum())
            if best is None or error < best[0]:
                best = error, lags, ridge, [steps[r] for steps in several]
    if best is None:
        return None
    return fitted(slice(None), best[1], (best[2],))[0], best[3]


@dataclass(frozen=True, eq=False)
class Lessons:
    """Windows to learn from, each with a climate that does not know it.

    Args:
        parts: (case, windows, climate without these).
        given: the frames that are inputs.
        joints: the joint step without each of the parts.
        stations: (m, q), those that the correction may tell from others.
    """

    frames: Sequence[Frames]
    climate: Climate
    parts: Sequence[tuple[int, Tensor, Climate]]
    step: float
    given: int
    joints: Sequence[JointStep | None]
    stations: Tensor

    @property
    def horizon(self) -> int:
        return self.frames[0].times.shape[1] - self.given

    def anomalies(self, case: int) -> Tensor:
        """(K, T, n)."""
        frames = self.frames[case]
        result = torch.zeros(frames.values.shape, dtype=torch.float64)
        for k, windows, climate in self.parts:
            if k == case:
                result[windows] = frames.anomalies(climate.at(frames.placement))[windows]
        return result

    def lead_weights(self) -> Tensor:
        """(h,): those that make Σ_l weight_l error_l the sum over k of MAE(1..k) / k in units of persistence's: from one frame to
        two counts as much as from six to twelve."""
        errors = []
        for f in self.frames:
            gap = (f.values[:, self.given :] - f.values[:, self.given - 1 : self.given]).abs()
            errors.append((gap * f.seen[:, self.given :]).sum((0, 2)) / f.seen[:, self.given :].sum((0, 2)).clamp(min=1))
        error = torch.stack(errors).mean(0).double().clamp(min=1e-6)
        counts = torch.arange(1, len(error) + 1, dtype=torch.float64)
        return (1 / (counts * error.cumsum(0))).flip(0).cumsum(0).flip(0) / len(error)
