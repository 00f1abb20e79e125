"""The paper's networks that know no graph: a perceptron and a GRU, the same at every sensor."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from neuralpde.sensor_case import Given, SensorCase
from neuralpde.sensor_gaps import Stepping, time_step
from neuralpde.sensor_method import Forecaster, SensorMethod, Told
from neuralpde.sensor_score import mean_error
from neuralpde.sensor_training import drawn, fit_network, spread_out, training_frames


class PerceptronStep(nn.Module):
    """u(t + 1) = u(t) + MLP(u(t), u(t - 1)), two hidden layers; 4,417 parameters at width 64 and one channel.

    Source: Seo, Meng & Liu (2020), appendix A.2.1 and Table 4.
    """

    lags = 2

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(2 * channels, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, channels)
        )

    def forward(self, frames: Tensor, steps: int) -> Tensor:
        """frames (rows, w, c) → the next (rows, steps, c)."""
        now, before, path = frames[:, -1], frames[:, max(0, frames.shape[1] - 2)], []
        for _ in range(steps):
            now, before = now + self.network(torch.cat([now, before], dim=-1)), now
            path.append(now)
        return torch.stack(path, dim=1)


class RecurrentStep(nn.Module):
    """u(t + 1) = u(t) + W h(t), h the state of a GRU of two layers; 37,889 parameters at width 64 and one channel.

    Source: Seo, Meng & Liu (2020), appendix A.2.1 and Table 4.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.recurrent = nn.GRU(channels, width, num_layers=2, batch_first=True)
        self.out = nn.Linear(width, channels)

    def forward(self, frames: Tensor, steps: int) -> Tensor:
        """frames (rows, w, c) → the next (rows, steps, c)."""
        states, memory = self.recurrent(frames)
        now = frames[:, -1] + self.out(states[:, -1])
        path = [now]
        for _ in range(steps - 1):
            states, memory = self.recurrent(now[:, None], memory)
            now = now + self.out(states[:, -1])
            path.append(now)
        return torch.stack(path, dim=1)


class _Sensorwise(Stepping):
    """A trained network, the same at every sensor."""

    def __init__(self, step: float, lags: int, network: nn.Module) -> None:
        super().__init__(step, lags)
        self.network = network

    @property
    def parameters(self) -> int:
        return sum(one.numel() for one in self.network.parameters())

    def roll(self, frames: Tensor, steps: int, given: Given) -> Tensor:
        rows = frames.transpose(1, 2).flatten(0, 1)
        path: Tensor = self.network(rows, steps)
        return path.reshape(len(frames), frames.shape[2], steps, -1).transpose(1, 2)


@dataclass(frozen=True)
class SensorwiseMethod(SensorMethod):
    """A network at every sensor alike; its loss is the mean square error of the whole forecast.

    Args:
        steps: of Adam, with a cosine schedule. learning_rate: at the start.
        windows: in a training step. rows: at most so many (window, sensor) pairs of them.
        width: of the hidden layers.
    """

    steps: int = 400
    learning_rate: float = 3e-3
    windows: int = 16
    rows: int = 512
    width: int = 64

    @abstractmethod
    def network(self, channels: int) -> nn.Module:
        """(rows, w, c), steps ↦ (rows, steps, c), with weights from torch's generator."""

    @abstractmethod
    def lags(self, given: int) -> int:
        """The number of frames that it needs of those given."""

    def fit(
        self, train: Sequence[SensorCase], validation: Sequence[SensorCase], seed: int, checkpoint: Path, told: Told
    ) -> Forecaster:
        torch.manual_seed(seed)
        step, given = time_step(train), train[0].given
        network = self.network(train[0].values.shape[-1])
        forecaster = _Sensorwise(step, self.lags(given), network)
        frames, cases = training_frames(train, step), spread_out(validation, 32)

        def loss(_: int, random: torch.Generator) -> Tensor:
            _, batch = drawn(frames, self.windows, random)
            rows = batch.transpose(1, 2).flatten(0, 1)
            rows = rows[torch.randperm(len(rows), generator=random)[: self.rows]]
            path = network(rows[:, given - forecaster.lags : given], rows.shape[1] - given)
            value: Tensor = (path - rows[:, given:]).square().mean()
            return value

        fit_network(
            network,
            loss,
            lambda: mean_error(forecaster, cases),
            steps=self.steps,
            learning_rate=self.learning_rate,
            checkpoint=checkpoint,
            seed=seed,
            told=told,
            notes={"method": repr(self)},
            every=20,
        )
        return forecaster


@dataclass(frozen=True)
class Mlp(SensorwiseMethod):
    """`PerceptronStep`, trained."""

    name: ClassVar[str] = "mlp"

    steps: int = 600

    def network(self, channels: int) -> nn.Module:
        return PerceptronStep(channels, self.width)

    def lags(self, given: int) -> int:
        return min(2, given)


@dataclass(frozen=True)
class Gru(SensorwiseMethod):
    """`RecurrentStep`, trained."""

    name: ClassVar[str] = "gru"

    steps: int = 250

    def network(self, channels: int) -> nn.Module:
        return RecurrentStep(channels, self.width)

    def lags(self, given: int) -> int:
        return given
