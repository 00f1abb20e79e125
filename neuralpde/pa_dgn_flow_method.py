"""The continuous-time form of PA-DGN as a row of the sensor tables; it takes irregular times and missing values as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from neuralpde.pa_dgn import SensorGraph
from neuralpde.pa_dgn_flow import DifferenceLaw, ObservedFlow
from neuralpde.pa_dgn_methods import Surroundings
from neuralpde.sensor_case import Given, SensorCase
from neuralpde.sensor_gaps import time_step
from neuralpde.sensor_method import Forecaster, SensorMethod, Told
from neuralpde.sensor_placement import Placement
from neuralpde.sensor_score import mean_error
from neuralpde.sensor_training import fit_network, spread_out


class _Observed(Forecaster):
    def __init__(self, unit: float, flow: ObservedFlow, surroundings: Surroundings) -> None:
        self.unit, self.flow, self.surroundings = unit, flow, surroundings
        self._graphs: dict[Placement, SensorGraph] = {}

    @property
    def parameters(self) -> int:
        return sum(one.numel() for one in self.flow.parameters())

    @torch.no_grad()
    def forecast(self, given: Given) -> Tensor:
        if given.placement not in self._graphs:
            self._graphs[given.placement] = self.surroundings.graph(given.placement)
        start = given.times[:, :1]
        times, wanted = (given.times - start) / self.unit, (given.wanted - start) / self.unit
        path: Tensor = self.flow(given.values, given.seen, times, wanted, self._graphs[given.placement])
        return path[:, -wanted.shape[1] :]


@dataclass(frozen=True)
class PADGNFlowMethod(SensorMethod):
    """`ObservedFlow`, trained on the mean square error of all that was seen after the first frame.

    Args:
        steps: of Adam, with a cosine schedule.
        learning_rate: at the start.
        windows: in a training step.
        neighbours: k of the graph.
        hidden, differences, width: of `DifferenceLaw`.
    """

    name: ClassVar[str] = "pa-dgn-flow"

    steps: int = 100
    learning_rate: float = 5e-3
    windows: int = 8
    neighbours: int = 4
    hidden: int = 16
    differences: int = 8
    width: int = 32

    def fit(
        self, train: Sequence[SensorCase], validation: Sequence[SensorCase], seed: int, checkpoint: Path, told: Told
    ) -> Forecaster:
        torch.manual_seed(seed)
        unit = time_step(train)
        surroundings = Surroundings.of([case.placement for case in train], self.neighbours, triangulated=False)
        channels = train[0].values.shape[-1]
        law = DifferenceLaw(channels, len(surroundings.centre), self.hidden, self.differences, self.width)
        flow = ObservedFlow(law)
        forecaster = _Observed(unit, flow, surroundings)
        graphs = [surroundings.graph(case.placement) for case in train]
        cases = spread_out(validation, 16)
        sizes = torch.tensor([float(len(case.values)) for case in train])

        def loss(_: int, random: torch.Generator) -> Tensor:
            place = int(torch.multinomial(sizes, 1, generator=random))
            case, w = train[place], train[place].given
            some = torch.randint(len(case.values), (self.windows,), generator=random)
            values, seen = case.values[some], case.seen[some]
            times = (case.times[some] - case.times[some, :1]) / unit
            path = flow(values[:, :w], seen[:, :w], times[:, :w], times[:, w:], graphs[place])
            there = seen[:, 1:]
            value: Tensor = ((path - values[:, 1:]).square() * there).sum() / there.sum().clamp(min=1)
            return value

        fit_network(
            flow,
            loss,
            lambda: mean_error(forecaster, cases),
            steps=self.steps,
            learning_rate=self.learning_rate,
            checkpoint=checkpoint,
            seed=seed,
            told=told,
            notes={"method": repr(self)},
        )
        return forecaster
