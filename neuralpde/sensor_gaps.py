"""Missing values filled and irregular times made regular, for methods that know only whole frames at equal steps."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from neuralpde.sensor_case import Given, SensorCase
from neuralpde.sensor_method import Forecaster


def time_step(cases: Sequence[SensorCase]) -> float:
    """The median step of the cases' times."""
    return float(torch.cat([case.times.diff(dim=1).flatten() for case in cases]).median())


def whole(case: SensorCase) -> Given:
    """All frames of a case as if given, its targets included: what is learned from."""
    return Given(case.placement, case.values, case.seen, case.times, case.times[:, :0])


def filled(given: Given) -> Tensor:
    """The values (K, w, n, c) with every gap closed.

    A gap is filled linearly in time between the sensor's seen values; before its first and after its last one with that one;
    where the sensor saw nothing at all, with the mean of the sensors that did, or zero.
    """
    values, seen = given.values, given.seen
    if given.complete:
        return values
    w = values.shape[1]
    frame = torch.arange(w).view(1, w, 1, 1)
    before = torch.where(seen, frame, -1).cummax(1).values
    after = torch.where(seen, frame, w).flip(1).cummin(1).values.flip(1)
    low = torch.where(before < 0, after, before).clamp(0, w - 1)
    high = torch.where(after == w, before, after).clamp(0, w - 1)
    time = given.times[:, :, None, None].expand(values.shape)
    start, end = time.gather(1, low), time.gather(1, high)
    share = torch.where(high > low, (time - start) / (end - start).clamp(min=1e-300), 0.0).to(values)
    result = torch.lerp(values.gather(1, low), values.gather(1, high), share)
    result = torch.where(seen, values, result)
    some = seen.any(1, keepdim=True)
    mean = (result * some).sum(2, keepdim=True) / some.sum(2, keepdim=True).clamp(min=1)
    return torch.where(some, result, mean)


def regular(given: Given, step: float, frames: int) -> Tensor:
    """The filled values (K, frames, n, c) at the last given time and every `step` before it, linear in time between frames.

    Before the first given time the values of that time are repeated.
    """
    values = filled(given)
    ages = step * torch.arange(frames - 1, -1, -1, dtype=torch.float64)
    times = given.times[:, -1:] - ages
    if frames <= values.shape[1] and bool(((given.times[:, -frames:] - times).abs() < 1e-6 * step).all()):
        return values[:, -frames:]
    return _between(values, given.times, times)


def steps_needed(given: Given, step: float) -> int:
    """The number of steps after the last given time that reach the last wanted one."""
    leads = given.wanted[:, -1] - given.times[:, -1]
    return max(1, math.ceil(float(leads.max()) / step - 1e-6))


def at_wanted(path: Tensor, given: Given, step: float) -> Tensor:
    """A path (K, m, n, c) at every step after the last given time, at the wanted times (K, h, n, c), linear in time between."""
    leads = given.wanted - given.times[:, -1:]
    steps = step * torch.arange(1, path.shape[1] + 1, dtype=torch.float64)
    if leads.shape == path.shape[:2] and bool(((leads - steps).abs() < 1e-6 * step).all()):
        return path
    path = torch.cat([filled(given)[:, -1:].to(path), path], dim=1)
    return _between(path, torch.cat([torch.zeros(1, dtype=torch.float64), steps]).expand(len(path), -1), leads)


def _between(values: Tensor, times: Tensor, wanted: Tensor) -> Tensor:
    """values (K, w, ...) at times (K, w), linear between, at the wanted times (K, m), constant outside."""
    w = values.shape[1]
    if w == 1:
        return values.expand(-1, wanted.shape[1], *values.shape[2:])
    high = torch.searchsorted(times.contiguous(), wanted.contiguous()).clamp(1, w - 1)
    start, end = times.gather(1, high - 1), times.gather(1, high)
    share = ((wanted - start) / (end - start)).clamp(0, 1).to(values)
    window = torch.arange(len(values))[:, None]
    return torch.lerp(values[window, high - 1], values[window, high], share[..., None, None])


class Stepping(Forecaster):
    """A forecaster that steps from whole frames at equal steps; what is given is brought to that, and what is wanted from it.

    Args:
        step: between frames, as it learned it.
        lags: the number of frames that it needs; the frames before the first given one repeat that one.
    """

    def __init__(self, step: float, lags: int) -> None:
        self.step, self.lags = step, lags

    @abstractmethod
    def roll(self, frames: Tensor, steps: int, given: Given) -> Tensor:
        """frames (K, lags, n, c), the last at `given.times[:, -1]` → the next frames (K, steps, n, c)."""

    @torch.no_grad()
    def forecast(self, given: Given) -> Tensor:
        path = self.roll(regular(given, self.step, self.lags), steps_needed(given, self.step), given)
        return at_wanted(path, given, self.step)
