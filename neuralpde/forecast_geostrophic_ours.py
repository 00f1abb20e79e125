"""`ours` where there are two moments to learn from: a balanced flow with one learned number, and factors for its changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from integrators import integrate
from integrators.rk4 import RK4
from neuralpde.forecast_baselines import padded
from neuralpde.forecast_case import ForecastCase
from neuralpde.forecast_geostrophic import BalancedFlow
from neuralpde.forecast_method import ForecastMethod, Learned, Told
from neuralpde.forecast_shrinkage import Shrinkage, combined
from neuralpde.sphere_lifting import hats
from neuralpde.weather_forecasts import Forecast
from neuralpde.weather_place import Place
from neuralpde.weather_record import Times, Variable, WeatherError
from operators.sphere_meshes import centroidal_icosphere


@dataclass(frozen=True)
class GeostrophicOurs(ForecastMethod):
    """x(t) + a (change by `BalancedFlow`) + b (the same, of the other level): geopotential and temperature at two levels.

    The flow's deformation number is the one of `deformations` whose changes, scaled, err least on the training span, the factors
    a and b are fitted there by least squares, for each variable.

    Args:
        refinements: of the icosphere that the flow runs on.
        dt: the time step in s.
        deformations: to choose from.
    """

    name: ClassVar[str] = "ours"

    refinements: int = 4
    dt: float = 1800.0
    deformations: tuple[float, ...] = (3.0, 6.0, 12.0, 25.0, 50.0)

    def fit(self, case: ForecastCase, seed: int, checkpoint: Path, told: Told) -> Learned:
        order = paired(case.train.variables)
        windows = case.training_windows(case.leads)
        best: tuple[float, GeostrophicForecast] | None = None
        for k, deformation in enumerate(self.deformations):
            told(k, len(self.deformations), f"deformation {deformation:g}")
            forecast = GeostrophicForecast(case.train.place, order, deformation, self.refinements, self.dt, case.train.step_hours)
            shrinkage, pieces = Shrinkage(case.weights), []
            for batch in windows.batches(16):
                changes = forecast.changes(batch.inputs, batch.times.shape[1])
                truth = batch.targets - batch.inputs[:, -1:]
                shrinkage.add(changes, truth)
                pieces.append((changes, truth))
            factors = shrinkage.solve()
            # Each variable in units of its own change.
            error = sum((case.weights * (combined(p, factors) - y).square()).sum((0, 1, 2)) for p, y in pieces)
            size = sum((case.weights * y.square()).sum((0, 1, 2)) for _, y in pieces)
            missed = float((torch.as_tensor(error) / torch.as_tensor(size)).sum())
            forecast.factors = padded(factors, case.leads)
            if best is None or missed < best[0]:
                best = missed, forecast
        if best is None:
            raise WeatherError("there is no deformation number to choose from: give at least one")
        return Learned(best[1], 1 + case.leads * len(order) * 2)


def paired(variables: Sequence[Variable]) -> tuple[tuple[int, int], ...]:
    """The channels of geopotential and temperature at each level.

    Raises:
        WeatherError: there are others, or one is missing.
    """
    levels = sorted({v.level for v in variables if v.level is not None})
    where = {(v.name, v.level): k for k, v in enumerate(variables)}
    try:
        pairs = tuple((where["geopotential", level], where["temperature", level]) for level in levels)
    except KeyError as error:
        missing = error.args[0]
        raise WeatherError(f"a balanced flow needs geopotential and temperature at each level: {missing} is missing") from error
    if len(pairs) != 2 or 2 * len(pairs) != len(variables):
        found = ", ".join(map(str, variables))
        raise WeatherError(f"a balanced flow needs geopotential and temperature at two levels, not {found}")
    return pairs


class GeostrophicForecast(Forecast):
    """See `GeostrophicOurs`."""

    factors: Tensor

    def __init__(
        self, place: Place, pairs: Sequence[tuple[int, int]], deformation: float, refinements: int, dt: float, hours: float
    ) -> None:
        mesh = centroidal_icosphere(refinements, dtype=torch.float32)
        self.flow = BalancedFlow(mesh, deformation)
        self.down = hats(place.mesh, mesh.vertices).to(torch.float32)
        self.up = hats(mesh, place.mesh.vertices).to(torch.float32)
        self.pairs, self.dt, self.hours = pairs, dt, hours

    @torch.no_grad()
    def changes(self, inputs: Tensor, leads: int) -> Tensor:
        """What the flow changes, and what it changes of the same variable at the other level: (B, L, n, c, 2)."""
        x = self.down(inputs[:, -1])
        geopotential, temperature = ([pair[k] for pair in self.pairs] for k in (0, 1))
        state = self.flow.start(x[..., geopotential], x[..., temperature])
        times = torch.arange(leads + 1) * (3600.0 * self.hours)
        q, carried = integrate(self.flow, state, times, RK4(dt=self.dt)).x
        found = torch.empty(leads, *x.shape)
        found[..., geopotential] = self.flow.geopotential_change(q[:1], q[1:])
        found[..., temperature] = carried[1:] - carried[:1]
        other = torch.empty_like(found)
        for channels in (geopotential, temperature):
            other[..., channels] = found[..., channels[::-1]]
        return torch.stack([self.up(found), self.up(other)], dim=-1).transpose(0, 1)

    def __call__(self, inputs: Tensor, times: Times) -> Tensor:
        leads = times.shape[1]
        return inputs[:, -1:] + combined(self.changes(inputs, leads), self.factors[:leads])
