"""Weather in units of its own variation, from the statistics of the training span."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from neuralpde.weather_record import WeatherError, WeatherRecord


@dataclass(frozen=True, eq=False)
class Scaling:
    """Means and standard deviations (c,) of each variable, and of its increments x(t + dt) − x(t).

    Over time, trajectories and nodes weighted by area; `Scaling.of(train)` takes them from a record.
    """

    mean: Tensor
    std: Tensor
    increment_mean: Tensor
    increment_std: Tensor

    @classmethod
    def of(cls, train: WeatherRecord) -> Scaling:
        """From the training span alone, which must have two frames and vary.

        Raises:
            WeatherError: a variable that is constant, one frame only.
        """
        if len(train) < 2:
            raise WeatherError("increments need two frames: the training span has one")
        weight = (train.place.areas / train.place.areas.sum())[:, None]
        reference = (weight * train.nodes(0, 1)[0, 0].double()).sum(0)
        sums = torch.zeros(4, len(train.variables), dtype=torch.float64)
        for block, nodes in train.blocks(overlap=1):
            x = nodes.double()
            offset = x[:, : block.stop - block.start] - reference
            sums[0] += (weight * offset).sum((0, 1, 2))
            sums[1] += (weight * offset.square()).sum((0, 1, 2))
            increments = x.diff(dim=1)
            sums[2] += (weight * increments).sum((0, 1, 2))
            sums[3] += (weight * increments.square()).sum((0, 1, 2))
        count, steps = train.members * len(train), train.members * (len(train) - 1)
        mean, increment_mean = sums[0] / count, sums[2] / steps
        std = (sums[1] / count - mean.square()).clamp(min=0).sqrt()
        increment_std = (sums[3] / steps - increment_mean.square()).clamp(min=0).sqrt()
        for variable, spread, increment_spread in zip(train.variables, std, increment_std, strict=True):
            if spread == 0 or increment_spread == 0:
                raise WeatherError(f"{variable} is constant over the training span: leave it out")
        return cls(*(x.float() for x in (mean + reference, std, increment_mean, increment_std)))

    def normalise(self, x: Tensor) -> Tensor:
        """(x − mean) / std, (..., c)."""
        return (x - self.mean) / self.std

    def restore(self, x: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return x * self.std + self.mean

    def normalise_increment(self, change: Tensor) -> Tensor:
        """(x(t + dt) − x(t) − its mean) / its standard deviation, (..., c)."""
        return (change - self.increment_mean) / self.increment_std

    def restore_increment(self, change: Tensor) -> Tensor:
        """The inverse of `normalise_increment`."""
        return change * self.increment_std + self.increment_mean

    def to(self, target: torch.device | str | torch.dtype) -> Scaling:
        """On another device or in another precision."""
        return Scaling(*(getattr(self, field.name).to(target) for field in fields(self)))
