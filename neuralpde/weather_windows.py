"""Short pieces of a weather record: frames given, and the frames to be forecast from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from neuralpde.weather_record import InMemory, Times, WeatherError, WeatherRecord
from operators.checks import is_integer


class Batch(NamedTuple):
    """Windows (B of them) on nodes, in float32.

    inputs (B, given, n, c) and targets (B, leads, n, c), consecutive frames; times (B, leads) of the targets.
    """

    inputs: Tensor
    targets: Tensor
    times: Times


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """All windows of a record: `inputs` frames, then `leads` frames to be forecast, consecutive and of one trajectory.

    A dataset of pairs (inputs, n, c), (leads, n, c) for torch's DataLoader; `sample` and `batches` also give the times.

    Args:
        record: in memory (`record.loaded()`) or lazy.
        inputs: the frames that a forecast is made from, at least the context of the record.
        leads: the frames that it is made for; lead k is (k + 1) `record.step_hours` ahead.
        stride: the frames between the starts of two windows.

    Raises:
        WeatherError: the record is shorter than one window, or targets would lie before its cut.
    """

    def __init__(self, record: WeatherRecord, inputs: int, leads: int, stride: int = 1) -> None:
        for name, value in (("inputs", inputs), ("leads", leads), ("stride", stride)):
            if not is_integer(value) or value < 1:
                raise WeatherError(f"{name} must be a whole number from 1 on, not {value!r}")
        if len(record) < inputs + leads:
            raise WeatherError(f"a window of {inputs} + {leads} frames does not fit into {len(record)}: take fewer leads")
        if inputs < record.context:
            raise WeatherError(
                f"the first {record.context} frames lie before the cut, and windows of {inputs} inputs would aim at them: "
                f"split(..., inputs={inputs})"
            )
        self.record, self.inputs, self.leads, self.stride = record, inputs, leads, stride
        # Samples are drawn thousands of times: what is in memory is carried to the nodes once.
        self._here = record.nodes() if isinstance(record.source, InMemory) else None
        self.starts = range(0, len(record) - inputs - leads + 1, stride)

    def __len__(self) -> int:
        return self.record.members * len(self.starts)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        batch = self.batch([index])
        return batch.inputs[0], batch.targets[0]

    @property
    def lead_hours(self) -> list[float]:
        """How far ahead the targets lie, in hours."""
        return [self.record.step_hours * (lead + 1) for lead in range(self.leads)]

    def batch(self, indices: Sequence[int]) -> Batch:
        """These windows; the starts of one trajectory follow each other, then those of the next."""
        windows, times = [], []
        for index in indices:
            if not -len(self) <= index < len(self):
                raise IndexError(f"there is no window {index}: there are {len(self)}")
            member, start = divmod(int(index) % len(self), len(self.starts))
            first = self.starts[start]
            last = first + self.inputs + self.leads
            frames = self.record.nodes(first, last) if self._here is None else self._here[:, first:last]
            windows.append(frames[member])
            times.append(self.record.times[first + self.inputs : last])
        stacked = torch.stack(windows)
        return Batch(stacked[:, : self.inputs], stacked[:, self.inputs :], np.stack(times))

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Windows drawn at random, with repetition."""
        return self.batch(torch.randint(len(self), (size,), generator=generator).tolist())

    def batches(self, size: int) -> Iterator[Batch]:
        """All windows once, in order."""
        for start in range(0, len(self), size):
            yield self.batch(range(start, min(start + size, len(self))))
