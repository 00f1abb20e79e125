"""What the correction of `ours` learns from: forecasts of windows that neither climate nor joint step knows, and what came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralpde.station_ours_analysis import conditional_mean
from neuralpde.station_ours_climate import LocalClimate
from neuralpde.station_ours_joint import JointStep, excess
from neuralpde.station_ours_kernel import DriftingCovariance
from neuralpde.station_ours_lessons import Frames
from neuralpde.station_ours_network import Surroundings, features, identity


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs (K, n, f) of the correction; what the equation expects, by how much the joint step differs, what came, (K, n, h);
    and whether that was seen."""

    inputs: Tensor
    expected: Tensor
    excess: Tensor
    truth: Tensor
    seen: Tensor

    def some(self, windows: Tensor) -> Examples:
        return Examples(*(t[windows] for t in (self.inputs, self.expected, self.excess, self.truth, self.seen)))


def examples(
    kernel: DriftingCovariance,
    frames: Frames,
    climate: LocalClimate,
    joint: JointStep | None,
    windows: Tensor,
    given: int,
    step: float,
    mask: Tensor,
    stations: Tensor,
    new: Tensor | None = None,
) -> Examples:
    """Windows of which the measurements `mask` (w, n) are known, and the sensors `new` (n,) have no history."""
    anomalies = frames.anomalies(climate)[windows]
    past, truth = anomalies[:, :given], anomalies[:, given:]
    times = torch.arange(1 - given, 1, dtype=torch.float64).expand(len(windows), -1)
    wanted = torch.arange(1 - given, truth.shape[1] + 1, dtype=torch.float64).expand(len(windows), -1)
    known = mask.expand(len(windows), -1, -1)
    last = frames.times[windows, given - 1]
    path = conditional_mean(kernel, frames.placement.plane, climate, past * known, known, times, wanted)
    filled = torch.where(known, past, path[:, :given])
    ahead = path[:, given:]
    old = torch.arange(len(mask[0])) if new is None else (~new).nonzero()[:, 0]
    gap = excess(kernel, frames.placement.plane, climate, joint, torch.arange(len(mask[0])), old, filled, ahead, last, step)
    around = Surroundings(frames.placement, kernel.extent)
    inputs = features(around, climate, last, step, filled, known, ahead, gap, identity(frames.placement, stations, new))
    seen = frames.seen[windows, given:]
    expects, differs, came = (t.transpose(1, 2).float() for t in (ahead, gap, truth))
    return Examples(inputs, expects, differs, came, seen.transpose(1, 2))


def fit_trust(several: Sequence[Examples]) -> Tensor:
    """(h,) in [0, 1]: how far to go from the equation to the joint step: least squares over windows that it never saw."""
    both = sum((e.excess.double() * (e.truth - e.expected) * e.seen).sum((0, 1)) for e in several)
    own = sum((e.excess.double().square() * e.seen).sum((0, 1)) for e in several)
    return (torch.as_tensor(both) / torch.as_tensor(own).clamp(min=1e-12)).clamp(0, 1).float()


def hide(everything: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Measurements (w, n) that are left when some are hidden, at random and whole frames; and sensors (n,) taken for new."""
    w, n = everything.shape
    share = 0.5 * float(torch.rand((), generator=random))
    mask = torch.rand(w, n, generator=random) >= share
    frames = torch.rand(w, generator=random) >= 0.5 * float(torch.rand((), generator=random))
    frames[-1] = True
    return mask & frames[:, None], torch.rand(n, generator=random) < 0.15
