"""Nonlinear equations seen by few sensors: windows at several placements, some of which nobody trains at."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralpde.nonlinear_sensors_equations import PeriodicEquation, wave_numbers
from neuralpde.sensor_case import SensorCase
from neuralpde.sensor_placement import Placement
from neuralpde.training import generator
from operators import DomainError

_AT_ONCE = 16
# Kinds of sessions: each kind at each placement has initial fields of its own.
_TRAIN, _VALIDATION, _TEST, _UNSEEN = range(4)


@dataclass(frozen=True)
class NonlinearCases:
    """Windows of an equation: of training placements, and of unseen ones."""

    train: list[SensorCase]
    validation: list[SensorCase]
    test: list[SensorCase]
    unseen: list[SensorCase]


@dataclass(frozen=True)
class NonlinearSensors:
    """Sensors in the unit square, which is periodic, and sessions of an equation between them.

    Each session starts from fields of its own and is seen by one placement. Fields are centred and divided by mean and standard
    deviation of the training windows at the sensors.

    Args:
        equation: what moves the fields.
        sensors: of a placement; they stand anywhere.
        placements: trained at. unseen: placements that only the test knows.
        train, validation, test: windows of each placement.
        given, horizon: frames of a window.
        spin_up: frames before the window, after which the fields have more modes than they started with.
        seed: of placements and fields.
    """

    equation: PeriodicEquation
    sensors: int = 64
    placements: int = 3
    unseen: int = 3
    train: int = 32
    validation: int = 8
    test: int = 8
    given: int = 6
    horizon: int = 10
    spin_up: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"sensors": 8, "placements": 1, "unseen": 0, "train": 1, "validation": 1, "test": 1, "given": 1, "horizon": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise DomainError(f"{name} must be at least {bound}, not {getattr(self, name)}")

    def cases(self, told: Callable[[int, int], None] = lambda done, total: None) -> NonlinearCases:
        """Simulate all sessions.

        Args:
            told: called with (placements simulated, placements) meanwhile.
        """
        raw: dict[tuple[int, int], Tensor] = {}
        points = [self._points(p) for p in range(self.placements + self.unseen)]
        counts = {_TRAIN: self.train, _VALIDATION: self.validation, _TEST: self.test}
        for p, place in enumerate(points):
            wanted = counts if p < self.placements else {_UNSEEN: self.test}
            for kind, count in wanted.items():
                raw[kind, p] = self._seen(place, count, kind, p)
            told(p + 1, len(points))
        learned = torch.cat([raw[_TRAIN, p].flatten(0, 2) for p in range(self.placements)])
        mean, spread = learned.mean(0), learned.std(0)

        def made(kind: int, p: int) -> SensorCase:
            name = f"placement-{p + 1}" if p < self.placements else f"unseen-{p - self.placements + 1}"
            values = ((raw[kind, p] - mean) / spread).float()
            times = self.equation.interval * torch.arange(values.shape[1], dtype=torch.float64)
            seen = torch.ones_like(values, dtype=torch.bool)
            return SensorCase(name, Placement(name, points[p]), values, seen, times.expand(len(values), -1), self.given)

        known = range(self.placements)
        return NonlinearCases(
            [made(_TRAIN, p) for p in known],
            [made(_VALIDATION, p) for p in known],
            [made(_TEST, p) for p in known],
            [made(_UNSEEN, self.placements + p) for p in range(self.unseen)],
        )

    def _points(self, placement: int) -> Tensor:
        return torch.rand(self.sensors, 2, generator=generator(self.seed, 1, placement), dtype=torch.float64)

    def _seen(self, points: Tensor, count: int, kind: int, placement: int) -> Tensor:
        """Windows (count, frames, n, 2) as the sensors see them."""
        sample = trigonometric(points, self.equation.cells)
        frames = self.spin_up + self.given + self.horizon
        found = []
        for first in range(0, count, _AT_ONCE):
            size = min(_AT_ONCE, count - first)
            start = self.equation.sessions(first, size, hash_of(self.seed, kind, placement))
            fields = self.equation.solve(start.float(), frames)[:, self.spin_up :]
            found.append(observed(fields, sample))
        return torch.cat(found)


def hash_of(*key: int) -> int:
    """A seed that depends on the key alone."""
    return int(torch.randint(2**40, (), generator=generator(*key)))


def trigonometric(points: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Trigonometric interpolation of a periodic grid at points (n, 2): (n, cells) along each axis, to multiply."""
    along = []
    for a in range(2):
        k = wave_numbers(cells, points.dtype)[0].flatten()
        place = points[:, a, None] - torch.arange(cells, dtype=points.dtype) / cells
        # The highest wave number of an even grid counts half at each sign: its cosine.
        along.append(torch.cos(2 * math.pi * place[..., None] * k).sum(-1) / cells)
    return along[0], along[1]


def observed(fields: Tensor, sample: tuple[Tensor, Tensor]) -> Tensor:
    """Fields (..., c, cells, cells) at the points of `trigonometric`: (..., n, c)."""
    first, second = (each.to(fields) for each in sample)
    return torch.einsum("na,...cab,nb->...nc", first, fields, second)
