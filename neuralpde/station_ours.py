"""`ours` at stations: a linear stochastic PDE conditioned on what was measured, and a learned correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from neuralpde.sensor_case import Given, SensorCase
from neuralpde.sensor_method import Forecaster, SensorMethod, Told
from neuralpde.sensor_placement import Placement
from neuralpde.station_ours_analysis import conditional_mean
from neuralpde.station_ours_climate import Climate
from neuralpde.station_ours_fit import fit_committee, fit_kernel
from neuralpde.station_ours_joint import JointStep, excess
from neuralpde.station_ours_kernel import DriftingCovariance
from neuralpde.station_ours_lessons import (
    Lessons,
    kept_windows,
    known_stations,
    learn_climate,
    learn_joint,
    learned_frames,
    usual_step,
    whole_steps,
)
from neuralpde.station_ours_network import Committee, Surroundings, features, identity
from operators import DomainError


@dataclass(frozen=True)
class StationOurs(SensorMethod):
    """Climate + the field that a linear stochastic PDE expects + a correction,

        ∂x/∂t + V·∇x = −x/T + noise,  V ~ N(v, s² I),

    for the anomaly x from each sensor's own mean and daily (yearly) cycles. Scales, winds and memories are learned end to end: so
    that the expectation of later frames given earlier ones, at all sensors, errs least. As it is an expectation, gaps, irregular
    times and sensors never trained on are nothing special: what was measured counts, when and where it was. The correction is a
    committee of perceptrons that reads differences in space and time at each sensor, the same law everywhere.

    Each channel is learned for itself. Nothing of a window reaches the forecast of another.

    Args:
        kernel_steps: of Adam, for the equation.
        kernel_rate: its learning rate.
        steps: of Adam, for the correction.
        members, width: of the committee.
        drop: the share of hidden units left out in training.
        parts: of the training span. The climate of one is learned from the others, so that anomalies are as large as later.
        copies: how often the training windows are seen with measurements hidden and sensors taken for new.
        hiding: the share of steps of the equation's learning that see only some of the measurements.
        sensors, windows: that one step of the equation's learning reads at most.
    """

    name: ClassVar[str] = "ours"

    kernel_steps: int = 60
    kernel_rate: float = 0.2
    steps: int = 400
    members: int = 8
    width: int = 32
    drop: float = 0.1
    learning_rate: float = 2e-3
    parts: int = 4
    copies: int = 3
    hiding: float = 0.5
    sensors: int = 48
    windows: int = 600

    def fit(
        self, train: Sequence[SensorCase], validation: Sequence[SensorCase], seed: int, checkpoint: Path, told: Told
    ) -> StationForecaster:
        train, validation = [kept_windows(c, self.windows) for c in train], [kept_windows(c, self.windows) for c in validation]
        step = usual_step(train)
        channels = [
            self._channel(train, validation, step, channel, seed, checkpoint, told)
            for channel in range(train[0].values.shape[-1])
        ]
        return StationForecaster(step, channels)

    def _channel(
        self,
        train: Sequence[SensorCase],
        validation: Sequence[SensorCase],
        step: float,
        channel: int,
        seed: int,
        checkpoint: Path,
        told: Told,
    ) -> ChannelForecaster:
        frames = [learned_frames(case, step, channel) for case in train]
        climate, parts = learn_climate(frames, self.parts)
        joint = learn_joint(frames, self.parts, step, train[0].horizon)
        joints: Sequence[JointStep | None] = [None] * len(parts) if joint is None else joint[1]
        lessons = Lessons(frames, climate, parts, step, train[0].given, joints, known_stations(frames))
        kernel = fit_kernel(self, lessons, checkpoint.with_suffix(f".kernel-{channel}"), told)
        model = ChannelForecaster(step, climate, kernel, joint and joint[0], train[0].given, train[0].horizon)
        model.stations = lessons.stations
        looks = [learned_frames(case, step, channel) for case in validation]
        model.committee = fit_committee(self, lessons, model, looks, seed, checkpoint.with_suffix(f".correction-{channel}"), told)
        return model


class ChannelForecaster:
    """One channel of `StationForecaster`.

    Args:
        step: hours.
        frames, leads: the number of past frames that the correction reads, and of leads that it knows.
        joint: None for none.
        trust: (leads,), the share of the joint step's difference that is believed. committee: None for no correction.
    """

    committee: Committee | None = None
    trust: Tensor

    def __init__(
        self, step: float, climate: Climate, kernel: DriftingCovariance, joint: JointStep | None, frames: int, leads: int
    ) -> None:
        self.step, self.climate, self.kernel, self.joint = step, climate, kernel, joint
        self.frames, self.leads = frames, leads
        self.trust = torch.zeros(leads)
        self.stations = climate.points[:0]

    def forecast(self, given: Given, channel: int) -> Tensor:
        """(K, h, n), in float64."""
        n = given.placement.num_nodes
        given, nodes = self._with_joint(given)
        climate, plane = self.climate.at(given.placement), given.placement.plane
        last = given.times[:, -1:]
        seen = given.seen[..., channel]
        anomalies = torch.where(seen, given.values[..., channel].double() - climate.mean(given.times), 0.0)
        grid = torch.arange(1 - self.frames, self.leads + 1, dtype=torch.float64)
        times, after = whole_steps((given.times - last) / self.step), whole_steps((given.wanted - last) / self.step)
        usual = after.shape[1] == self.leads and torch.equal(after, grid[self.frames :].expand(after.shape))
        wanted = grid.expand(len(last), -1) if usual else torch.cat([grid.expand(len(last), -1), after], dim=1)
        with torch.no_grad():
            expected = conditional_mean(self.kernel, plane, climate, anomalies, seen, times, wanted)
            past, fresh = measured(expected[:, : self.frames], anomalies, seen, times, grid)
            ahead = expected[:, self.frames : self.frames + self.leads]
            gap = excess(self.kernel, plane, climate, self.joint, nodes, nodes, past, ahead, last[:, 0], self.step)
            correction = self.trust[:, None].double() * gap
            if self.committee is not None:
                around = Surroundings(given.placement, self.kernel.extent)
                inputs = features(
                    around, climate, last[:, 0], self.step, past, fresh, ahead, gap, identity(given.placement, self.stations)
                )
                correction = correction + self.committee(inputs).mean(0).transpose(1, 2)
            path = expected[:, self.frames if usual else self.frames + self.leads :]
        return (climate.mean(given.wanted) + path + between(correction, after))[:, :, :n]

    def _with_joint(self, given: Given) -> tuple[Given, Tensor]:
        """With the joint step's sensors, if they are not there, as ones that saw nothing; and where these are."""
        points = given.placement.cloud.points
        if self.joint is None:
            return given, torch.arange(0)
        nearest, nodes = torch.cdist(self.joint.points, points).min(1)
        absent = nearest > 1e-6 * (1 + points.abs().max())
        if not bool(absent.any()):
            return given, nodes
        nodes = torch.where(absent, len(points) - 1 + absent.cumsum(0), nodes)
        placement = Placement(
            given.placement.name, torch.cat([given.placement.points, self.joint.places[absent]]), given.placement.earth
        )
        more = (*given.values.shape[:2], int(absent.sum()), given.values.shape[-1])
        values = torch.cat([given.values, given.values.new_zeros(more)], dim=2)
        seen = torch.cat([given.seen, torch.zeros(more, dtype=torch.bool)], dim=2)
        return Given(placement, values, seen, given.times, given.wanted), nodes


def measured(expected: Tensor, anomalies: Tensor, seen: Tensor, times: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """The past (K, w', n) at the times grid[:w'], measured where something was measured then, and whether it was."""
    frames = expected.shape[1]
    past, fresh = expected.clone(), torch.zeros(expected.shape, dtype=torch.bool)
    match = (times[:, :, None] - grid[:frames]).abs() < 1e-6
    window, given, slot = match.nonzero(as_tuple=True)
    here = seen[window, given]
    past[window, slot] = torch.where(here, anomalies[window, given], past[window, slot])
    fresh[window, slot] = here
    return past, fresh


def between(correction: Tensor, after: Tensor) -> Tensor:
    """The correction (K, l, n) at leads 1..l, at the leads `after` (K, h): zero at lead 0, linear between, constant beyond."""
    leads = correction.shape[1]
    padded = torch.cat([torch.zeros_like(correction[:, :1]), correction], dim=1)
    low = after.floor().clamp(0, leads).long()
    high = (low + 1).clamp(max=leads)
    share = (after - low).clamp(0, 1)[..., None]
    window = torch.arange(len(after))[:, None]
    return torch.lerp(padded[window, low], padded[window, high], share)


class StationForecaster(Forecaster):
    """See `StationOurs`."""

    def __init__(self, step: float, channels: Sequence[ChannelForecaster]) -> None:
        self.step, self.channels = step, list(channels)

    @property
    def parameters(self) -> int:
        learned = [p for c in self.channels for m in (c.kernel, c.committee) if m is not None for p in m.parameters()]
        return sum(p.numel() for p in learned) + sum(c.climate.parameters for c in self.channels)

    def forecast(self, given: Given) -> Tensor:
        if given.values.shape[-1] != len(self.channels):
            raise DomainError(f"it learned {len(self.channels)} channels, and {given.values.shape[-1]} are given")
        paths = [model.forecast(given, channel) for channel, model in enumerate(self.channels)]
        return torch.stack(paths, dim=-1).to(given.values)
