"""The convection–diffusion equation with variable coefficients that PA-DGN forecasts at sensors (Seo, Meng and Liu 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuralpde.sensor_case import SensorCase
from neuralpde.sensor_placement import Placement
from neuralpde.training import generator
from operators import DomainError

CELLS = 50
SPACING = 2 * math.pi / CELLS
TIME_STEP = 0.01
UNIT = 20.0
"""What values are divided by, and then the metric's unit."""
_AT_ONCE = 100


@dataclass(frozen=True)
class Convection:
    """∂f/∂t = a f_x + b f_y + c Δf on [0, 2π]², eq. 5 of Seo, Meng and Liu 2020 with the sign of Δ that diffuses.

    a = (cos y + x(2π − x) sin x)/2 + 0.6, b = 2(cos y + sin x) + 0.8, c = (1 − |(x, y) − (π, π)|/(√2 π))/2.
    Fields start as white noise without wave numbers above F an axis, F drawn for each session.

    Args:
        train, validation, test: sessions of each kind.
        frames: of a session, TIME_STEP apart; the first is the initial field.
        given: frames that a forecast is made from.
        wave_numbers: F is one of these.
        substeps: Euler steps between frames. 1 is what was published, which is beyond the limit of stability in the centre
            (c Δt/Δx² reaches 0.317, and the limit is 1/4): fine noise grows there.
        seed: of the initial fields.
    """

    train: int = 700
    validation: int = 150
    test: int = 150
    frames: int = 20
    given: int = 5
    wave_numbers: tuple[int, ...] = (3, 4, 5)
    substeps: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test", "substeps"):
            if getattr(self, name) < 1:
                raise DomainError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.given < self.frames:
            raise DomainError(f"{self.given} of {self.frames} frames are given, and some must be forecast")
        if not self.wave_numbers or min(self.wave_numbers) < 1 or max(self.wave_numbers) >= CELLS // 2:
            raise DomainError(f"wave numbers lie from 1 to {CELLS // 2 - 1} on a grid of {CELLS} points, not {self.wave_numbers}")

    @property
    def sessions(self) -> int:
        """All sessions."""
        return self.train + self.validation + self.test

    def simulate(self, nodes: Sequence[Tensor]) -> list[Tensor]:
        """The sessions at some grid points.

        Args:
            nodes: sets (n,) of points p·CELLS + q of the grid at (p, q) SPACING.

        Returns:
            For each set (sessions, frames, n) in float32, divided by UNIT.
        """
        found: list[list[Tensor]] = [[] for _ in nodes]
        for first in range(0, self.sessions, _AT_ONCE):
            field = torch.stack([self._initial(k) for k in range(first, min(first + _AT_ONCE, self.sessions))])
            frames = [field]
            for _ in range(1, self.frames):
                for _ in range(self.substeps):
                    field = field + TIME_STEP / self.substeps * tendency(field)
                frames.append(field)
            flat = torch.stack(frames, dim=1).flatten(2) / UNIT
            for kept, some in zip(found, nodes, strict=True):
                kept.append(flat[:, :, some].float())
        return [torch.cat(kept) for kept in found]

    def cases(self, placements: Sequence[Placement]) -> list[tuple[SensorCase, SensorCase, SensorCase]]:
        """(train, validation, test) at each placement: the same sessions seen by different sensors."""
        values = self.simulate([grid_nodes(placement) for placement in placements])
        return [self._split(placement, value[..., None]) for placement, value in zip(placements, values, strict=True)]

    def _split(self, placement: Placement, values: Tensor) -> tuple[SensorCase, SensorCase, SensorCase]:
        times = (TIME_STEP * torch.arange(self.frames, dtype=torch.float64)).expand(len(values), -1)
        seen = torch.ones_like(values, dtype=torch.bool)
        whole = SensorCase(placement.name, placement, values, seen, times, self.given, unit="/20")
        cut, end = self.train, self.train + self.validation
        return whole.some(slice(cut)), whole.some(slice(cut, end)), whole.some(slice(end, None))

    def _initial(self, session: int) -> Tensor:
        draw = generator(self.seed, session)
        highest = self.wave_numbers[int(torch.randint(len(self.wave_numbers), (), generator=draw))]
        noise = torch.randn(CELLS, CELLS, generator=draw, dtype=torch.float64)
        wave = torch.fft.fftfreq(CELLS, 1 / CELLS, dtype=torch.float64).abs() <= highest
        field: Tensor = torch.fft.ifft2(torch.fft.fft2(noise) * (wave[:, None] & wave)).real
        return 100 * field


def coefficients(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(a, b, c) at points (..., 2), each (...)."""
    x, y = points.unbind(-1)
    a = (torch.cos(y) + x * (2 * math.pi - x) * torch.sin(x)) / 2 + 0.6
    b = 2 * (torch.cos(y) + torch.sin(x)) + 0.8
    c = (1 - torch.hypot(x - math.pi, y - math.pi) / (math.sqrt(2) * math.pi)) / 2
    return a, b, c


def tendency(field: Tensor) -> Tensor:
    """∂f/∂t of fields (..., CELLS, CELLS) by the five-point differences of eq. 7; a neighbour beyond the edge is left out."""
    a, b, c = (each.to(field) for each in coefficients(_grid()))
    (down, up), (left, right) = _differences(field, -2), _differences(field, -1)
    slope_x, slope_y = (up - down) / (2 * SPACING), (right - left) / (2 * SPACING)
    return a * slope_x + b * slope_y + c * (down + up + left + right) / SPACING**2


def sensors(count: int, seed: int) -> Placement:
    """`count` grid points drawn with replacement as the published data were, so that some coincide."""
    draw = np.random.RandomState(seed)
    p, q = (draw.choice(CELLS, count, replace=True) for _ in range(2))
    return Placement(f"{count} sensors, seed {seed}", SPACING * torch.from_numpy(np.stack([p, q], axis=1)).double())


def grid_nodes(placement: Placement) -> Tensor:
    """The grid points (n,) at which the sensors of a placement stand.

    Raises:
        DomainError: a sensor is not at one of them.
    """
    place = placement.points / SPACING
    nearest = place.round().long()
    if placement.earth or bool((nearest < 0).any() | (nearest >= CELLS).any()) or float((place - nearest).abs().max()) > 1e-6:
        raise DomainError(f"{placement.name}: the equation is simulated at multiples of 2π/{CELLS} below 2π: place sensors there")
    return nearest[:, 0] * CELLS + nearest[:, 1]


def _grid() -> Tensor:
    line = SPACING * torch.arange(CELLS, dtype=torch.float64)
    return torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=-1)


def _differences(field: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """f(previous) − f and f(next) − f along an axis, zero where there is none."""
    step = field.diff(dim=axis)
    edge = torch.zeros_like(field.narrow(axis, 0, 1))
    return torch.cat([edge, -step], dim=axis), torch.cat([step, edge], dim=axis)
