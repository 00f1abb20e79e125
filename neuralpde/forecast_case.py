"""What a table of forecasts stands on: weather to learn from, other weather to forecast, and what everyone knows of the place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neuralpde.climatology import Climatology
from neuralpde.weather_record import WeatherError, WeatherRecord
from neuralpde.weather_windows import Windows


@dataclass(frozen=True, eq=False)
class ForecastCase:
    """One set of weather, divided into training and testing.

    Args:
        name: in tables, for example "shallow-water".
        train: all that is learned from, statistics and climatology included.
        test: other trajectories or later times; no target of a forecast is in `train`.
        inputs: the frames that a forecast starts from.
        leads: the frames that it goes on for.
        stride: the frames between the starts of two forecasts that are scored.
        climatology: of the training span.
        static: known fields (n, m) of order one, for example sine of latitude and the height of the ground.
        orography: the height of the ground (n, 1) in m, where it is known.
    """

    name: str
    train: WeatherRecord
    test: WeatherRecord
    inputs: int
    leads: int
    stride: int
    climatology: Climatology
    static: Tensor
    orography: Tensor | None = None

    def __post_init__(self) -> None:
        if self.train.variables != self.test.variables or self.train.step != self.test.step:
            raise WeatherError("training and testing must have the same variables and the same time step")
        if self.static.ndim != 2 or len(self.static) != self.train.place.num_nodes:
            raise WeatherError(f"static fields must have shape ({self.train.place.num_nodes}, m), not {tuple(self.static.shape)}")

    @property
    def windows(self) -> Windows:
        """Those that are scored."""
        return Windows(self.test, self.inputs, self.leads, self.stride)

    def training_windows(self, leads: int, stride: int = 1) -> Windows:
        """Windows to learn from, with fewer leads where the training span is short."""
        return Windows(self.train, self.inputs, max(1, min(leads, len(self.train) - self.inputs)), stride)

    @property
    def weights(self) -> Tensor:
        """The share of the area (n, 1) that each node stands for, in float32."""
        areas = self.train.place.areas
        return (areas / areas.sum()).float()[:, None]

    @property
    def lead_hours(self) -> list[float]:
        """How far ahead the forecasts go."""
        return [self.train.step_hours * (lead + 1) for lead in range(self.leads)]

    def fingerprint(self) -> str:
        """What tells this case from others, values included."""
        parts = []
        for record in (self.train, self.test):
            sums = [[float(x.sum()), float(x.square().sum())] for _, values in record.blocks() for x in [values.double()]]
            parts.append((record.members, len(record), str(record.times[0]), sums))
        static = float(self.static.double().square().sum())
        return repr((self.name, parts, self.inputs, self.leads, self.stride, [str(v) for v in self.train.variables], static))


def latitude_features(record: WeatherRecord) -> Tensor:
    """Sine and cosine of latitude, and of longitude times the latter: (n, 4), the place on the globe."""
    latitude, longitude = (torch.deg2rad(angle) for angle in record.place.positions)
    c = torch.cos(latitude)
    return torch.stack([torch.sin(latitude), c, c * torch.cos(longitude), c * torch.sin(longitude)], dim=1).float()
