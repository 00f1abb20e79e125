"""`ours` on shallow water: the equations are known, what drives them is learned from the simulator's own errors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from neuralpde.climatology import Climatology
from neuralpde.forecast_case import ForecastCase
from neuralpde.forecast_method import ForecastMethod, Learned, Told
from neuralpde.forecast_shrinkage import Shrinkage, combined
from neuralpde.forecast_water import MeanForce, WaterModel
from neuralpde.shallow_water_climate import Water
from neuralpde.weather_forecasts import Forecast
from neuralpde.weather_record import Times, WeatherError, WeatherRecord
from neuralpde.weather_windows import Windows


@dataclass(frozen=True)
class WaterOurs(ForecastMethod):
    """Shallow water on a finer sphere, started from what is seen, with learned forces, scaled back by lead time.

    The start: the frames given are lifted to the fine sphere (`Lifting`); the model runs from the first to the last of them and
    is drawn to each by the share `gain`, so that gravity waves that come of lifting die away.
    The forces: G and r of `MeanForce` by least squares from what `lag` frames of the unforced simulator leave of the observed
    change, (x(t + s) − Φ_s x(t)) / s = G − r (x − x̄): its mean, and its slope on the anomaly.
    The end: the anomaly of the forecast is scaled by factors fitted on trajectories that the forces were not learned from.

    Args:
        refinements: of the model's sphere.
        lag: in frames.
        stride: of the windows that forces are learned from, in frames.
        held_out: the training trajectories that only the factors are fitted on.
        factor_stride: of their windows, in frames.
        gain: from 0, trusting the model, to 1, trusting each frame.
        forced: learn the forces; without, the bare equations.
    """

    name: ClassVar[str] = "ours"

    refinements: int = 4
    lag: int = 2
    stride: int = 2
    held_out: int = 2
    factor_stride: int = 10
    gain: float = 0.6
    forced: bool = True
    batch: int = 16

    def fit(self, case: ForecastCase, seed: int, checkpoint: Path, told: Told) -> Learned:
        if case.orography is None or len(case.train.variables) != 3:
            raise WeatherError("shallow water needs height, eastward and northward wind, and the orography")
        model = WaterModel(case.train.place.mesh, case.orography, self.refinements)
        learning = max(1, case.train.members - self.held_out)
        force = MeanForce(model.analyse(case.train.nodes().mean(dim=(0, 1))))
        if self.forced:
            self._learn(force, model, members(case.train, slice(None, learning)), told)
        forecast = WaterForecast(model, force, case.climatology, case.train.step_hours, self.gain)
        if learning < case.train.members and len(case.train) >= case.inputs + case.leads:
            held = Windows(members(case.train, slice(learning, None)), case.inputs, case.leads, self.factor_stride)
            shrinkage = Shrinkage(case.weights)
            for done, batch in enumerate(held.batches(self.batch)):
                told(done * self.batch, len(held), "factors")
                climatology = case.climatology.at(batch.times)
                anomaly = forecast(batch.inputs, batch.times) - climatology
                shrinkage.add(anomaly[..., None], batch.targets - climatology)
            forecast.factors = shrinkage.solve()
        learned = (force.depth.numel() + force.wind.numel() + 2) if self.forced else 0
        return Learned(forecast, learned + (0 if forecast.factors is None else forecast.factors.numel()))

    def _learn(self, force: MeanForce, model: WaterModel, train: WeatherRecord, told: Told) -> None:
        frames = train.nodes()
        before = frames[:, : -self.lag : self.stride].flatten(0, 1)
        after = frames[:, self.lag :: self.stride].flatten(0, 1)
        hours = train.step_hours * self.lag
        unforced = MeanForce((force.mean_depth, force.mean_wind))
        depth, wind = Slope(), Slope()
        for start in range(0, len(before), self.batch):
            told(start, len(before), "forces")
            (h, u), (later_h, later_u) = (model.analyse(x[start : start + self.batch]) for x in (before, after))
            path_h, path_u = model.run(unforced, (h, u), hours, 1)
            depth.add((later_h - path_h[-1]) / (3600.0 * hours), (h + later_h) / 2 - force.mean_depth)
            wind.add((later_u - path_u[-1]) / (3600.0 * hours), (u + later_u) / 2 - force.mean_wind)
        grid = model.flow.grid
        force.depth, first = depth.solve(grid.cell_areas[:, None])
        force.wind, second = wind.solve(grid.edge_areas[:, None])
        force.rates = -torch.stack([first, second])


@dataclass(frozen=True)
class BareWater(WaterOurs):
    """The same without forces: what the equations alone are worth."""

    name: ClassVar[str] = "simulator"

    forced: bool = False


class Slope:
    """Least squares of fields y = G + s x with a field G and one number s: sums over samples that come in batches."""

    def __init__(self) -> None:
        self.count = 0
        self._sums: Tensor | None = None

    def add(self, y: Tensor, x: Tensor) -> None:
        """Take in y and x, (B, n, 1)."""
        y, x = y.double(), x.double()
        sums = torch.stack([y.sum(0), x.sum(0), (x * y).sum(0), x.square().sum(0)])
        self._sums = sums if self._sums is None else self._sums + sums
        self.count += len(y)

    def solve(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """G (n, 1) and s, in float32, with the nodes weighted by (n, 1)."""
        if self._sums is None:
            raise WeatherError("there are no two frames to learn forces from: take longer trajectories")
        y, x, xy, xx = self._sums / self.count
        spread = (weights * (xx - x * x)).sum()
        slope = torch.where(spread > 0, (weights * (xy - x * y)).sum() / torch.where(spread > 0, spread, 1.0), 0.0)
        return (y - slope * x).float(), slope.float()


class WaterForecast(Forecast):
    """Run the model from the frames given; see `WaterOurs`."""

    factors: Tensor | None = None

    def __init__(self, model: WaterModel, force: MeanForce, climatology: Climatology, hours: float, gain: float) -> None:
        self.model, self.force, self.climatology, self.hours, self.gain = model, force, climatology, hours, gain

    def start(self, inputs: Tensor) -> Water:
        """The state at the last of the frames (B, given, n, 3)."""
        h, u = self.model.analyse(inputs[:, 0])
        for k in range(1, inputs.shape[1]):
            path = self.model.run(self.force, (h, u), self.hours, 1)
            h, u = path[0][-1], path[1][-1]
            seen = self.model.analyse(inputs[:, k])
            h, u = h + self.gain * (seen[0] - h), u + self.gain * (seen[1] - u)
        return h, u

    def __call__(self, inputs: Tensor, times: Times) -> Tensor:
        leads = times.shape[1]
        path = self.model.run(self.force, self.start(inputs), self.hours, leads)
        forecast = self.model.observe((path[0][1:], path[1][1:])).transpose(0, 1)
        if self.factors is None:
            return forecast
        climatology = self.climatology.at(times)
        return climatology + combined((forecast - climatology)[..., None], self.factors[:leads])


def members(record: WeatherRecord, chosen: slice) -> WeatherRecord:
    """Some trajectories of a record, in memory."""
    return WeatherRecord.of(record.nodes()[chosen], record.times, record.place, record.variables)
