"""Our method for fields that obey a linear equation: learn the equation, assimilate the given frames, step on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from neuralpde.convection_grid import FieldGrid
from neuralpde.convection_latent import LatentField
from neuralpde.sensor_case import Given, SensorCase
from neuralpde.sensor_gaps import time_step
from neuralpde.sensor_method import Forecaster, SensorMethod, Told
from neuralpde.sensor_score import mean_error
from neuralpde.sensor_training import fit_network, spread_out


@dataclass(frozen=True)
class LatentConvection(SensorMethod):
    """`LatentField`, trained end to end on the forecasts of all placements; its weights belong to none of them.

    It is told more than a network is: that the equation is linear, of second order and without memory; that its coefficients are
    smooth and diffusion is not negative; that at the edge the field continues as it is there, as the simulation has it; and
    that the field begins as waves no shorter than those of `waves`, in a box a quarter wider than the training placements.
    Seven suffice for the fields of the paper, the hard ones need more. It steps from frame to frame, which is a step of the
    simulation too. It is not told the coefficients, the spectrum, the noise, nor the simulation's grid, all of which it learns
    or does without.

    Args:
        steps: of Adam.
        learning_rate: at the start.
        batch: windows in each step, of one placement.
        count: grid points an axis.
        waves: the highest wave number an axis.
        degree: of the coefficients' polynomials.
    """

    name: ClassVar[str] = "ours"

    steps: int = 150
    learning_rate: float = 0.1
    batch: int = 64
    count: int = 33
    waves: int = 7
    degree: int = 7

    def fit(
        self, train: Sequence[SensorCase], validation: Sequence[SensorCase], seed: int, checkpoint: Path, told: Told
    ) -> Forecaster:
        grid = FieldGrid.around(torch.cat([case.placement.points for case in train]), self.count)
        model = LatentField(grid, time_step(train), self.waves, self.degree)
        forecaster = LatentForecaster(model)
        cases = spread_out(validation, 32)
        sizes = torch.tensor([float(len(case.values)) for case in train])

        def loss(step: int, random: torch.Generator) -> Tensor:
            case = train[int(torch.multinomial(sizes, 1, generator=random))]
            return relative_error(model, case.some(torch.randint(len(case.values), (self.batch,), generator=random)))

        fit_network(
            model,
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


class LatentForecaster(Forecaster):
    """A trained latent field."""

    def __init__(self, model: LatentField) -> None:
        self.model = model

    @property
    def parameters(self) -> int:
        return sum(one.numel() for one in self.model.parameters())

    @torch.no_grad()
    def forecast(self, given: Given) -> Tensor:
        forecast: Tensor = self.model(given)
        return forecast


def relative_error(model: LatentField, case: SensorCase) -> Tensor:
    """The mean over windows of the logarithm of their mean square error: easy windows count as much as hard ones."""
    targets, seen = case.targets
    square = torch.where(seen, model(case.inputs) - targets, 0.0).square().sum((1, 2, 3)) / seen.sum((1, 2, 3)).clamp(min=1)
    return torch.log(square + 1e-12).mean()
