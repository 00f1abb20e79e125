"""The same forecasts from less: measurements hidden at random, frames missing at random, and fewer of them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from neuralpde.sensor_case import SensorCase
from neuralpde.station_checks import StationError


def hidden(case: SensorCase, share: float = 0.3, seed: int = 0) -> SensorCase:
    """Each given value that was seen is hidden with this probability, on its own; targets stay as they are."""
    if not 0 <= share < 1:
        raise StationError(f"the share to hide must be in [0, 1), not {share:g}")
    drawn = torch.rand(case.seen.shape, generator=torch.Generator().manual_seed(seed)) >= share
    drawn[:, case.given :] = True
    seen = case.seen & drawn
    return replace(case, values=torch.where(seen, case.values, 0.0), seen=seen)


def irregular(case: SensorCase, frames: int, seed: int = 0) -> SensorCase:
    """Each window keeps `frames` of its given frames, drawn on its own; so steps differ, within a window and between windows.

    The newest frame is always kept, so that the lead times are those of the full case.
    """
    _check(case, frames)
    order = torch.rand(len(case.values), case.given - 1, generator=torch.Generator().manual_seed(seed)).argsort(1)
    newest = torch.full((len(case.values), 1), case.given - 1)
    return _kept(case, torch.cat([order[:, : frames - 1].sort(1).values, newest], dim=1))


def latest(case: SensorCase, frames: int) -> SensorCase:
    """Each window keeps its newest `frames` given frames."""
    _check(case, frames)
    return _kept(case, torch.arange(case.given - frames, case.given).expand(len(case.values), -1))


def _check(case: SensorCase, frames: int) -> None:
    if not 1 <= frames <= case.given:
        raise StationError(f"{case.name} is given {case.given} frames: keep from 1 to {case.given} of them, not {frames}")


def _kept(case: SensorCase, given: Tensor) -> SensorCase:
    """With the given frames of these indices (K, frames)."""
    targets = torch.arange(case.given, case.values.shape[1]).expand(len(given), -1)
    index = torch.cat([given, targets], dim=1)
    whole = index[..., None, None].expand(-1, -1, *case.values.shape[2:])
    return replace(
        case,
        values=case.values.gather(1, whole),
        seen=case.seen.gather(1, whole),
        times=case.times.gather(1, index),
        given=given.shape[1],
    )
