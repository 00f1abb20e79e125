"""What is usual at a sensor at that time of day and year, and how well it is known where nobody measured before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from neuralpde.sensor_placement import Placement

# Hours: a day, half of it, a year, half of it.
PERIODS = (24.0, 12.0, 8765.82, 4382.91)
RIDGES = (1.0, 10.0, 100.0, 1000.0)
LENGTHS = (0.1, 0.25, 0.5, 1.0, 2.0)
OWN_SHARES = (0.03, 0.1, 0.3, 0.6)


def cycles(times: Tensor) -> tuple[float, ...]:
    """The periods that a record of these times (T,) shows: it holds two of them, and four steps in each."""
    ordered = torch.from_numpy(np.unique(times.numpy()))
    if len(ordered) < 3:
        return ()
    span, step = float(ordered[-1] - ordered[0]), float(ordered.diff().median())
    return tuple(period for period in PERIODS if span >= 2 * period and step <= period / 4)


def waves(times: Tensor, periods: Sequence[float]) -> Tensor:
    """1, cos and sin of each period at the times (...) → (..., 1 + 2 len(periods)), in float64."""
    angles = [2 * math.pi * times.double() / period for period in periods]
    return torch.stack([torch.ones_like(times, dtype=torch.float64), *(f(a) for a in angles for f in (torch.cos, torch.sin))], -1)


@dataclass(frozen=True, eq=False)
class Climate:
    """A mean and cycles at every sensor,

        m_i(t) = b·w(t) + d_i·w(t),  w = (1, cos, sin, …),

    with b common to all and d_i that of the sensor; at other sensors d is found by kriging from those known.

    Args:
        periods: in hours.
        points: (n, q), of the known sensors, such that lengths are distances.
        common: (p,). own: (n, p).
        lengths, own_shares: (1 + len(periods),), of the covariance of d for the mean and for each cycle: its length, and the
            share of its variance that no other sensor has.
    """

    periods: tuple[float, ...]
    points: Tensor
    common: Tensor
    own: Tensor
    lengths: Tensor
    own_shares: Tensor

    def at(self, placement: Placement) -> LocalClimate:
        """At these sensors; one that is known keeps what it has."""
        return self.among(placement.cloud.points.double())

    def among(self, points: Tensor) -> LocalClimate:
        distance = torch.cdist(points, self.points)
        nearest, which = distance.min(1)
        known = nearest < 1e-6 * (1 + points.abs().max())
        own = self.own[which].clone()
        doubts = torch.zeros(1 + len(self.periods), len(points), len(points), dtype=torch.float64)
        new = ~known
        if bool(new.any()):
            here, between = distance[new], torch.cdist(self.points, self.points)
            among = torch.cdist(points[new], points[new])
            for j, columns in enumerate(self._groups()):
                share, length = self.own_shares[j], self.lengths[j]
                covariance = (1 - share) * (-between / length).exp() + share * torch.eye(len(between), dtype=torch.float64)
                cross = (1 - share) * (-here / length).exp()
                weights = torch.linalg.solve(covariance, cross.T).T
                own[new.nonzero()[:, 0][:, None], torch.tensor(columns)] = weights @ self.own[:, columns]
                prior = (1 - share) * (-among / length).exp() + share * torch.eye(len(among), dtype=torch.float64)
                doubt = self.own[:, columns].square().mean() * (prior - weights @ cross.T)
                doubts[j][new.nonzero()[:, 0][:, None], new.nonzero()[:, 0]] = doubt
        return LocalClimate(self.periods, self.common + own, doubts)

    def without(self, nodes: Tensor) -> Climate:
        """As if some of the sensors (n,) bool were not known."""
        return replace(self, points=self.points[~nodes], own=self.own[~nodes])

    def _groups(self) -> list[list[int]]:
        return [[0], *([1 + 2 * j, 2 + 2 * j] for j in range(len(self.periods)))]

    @property
    def parameters(self) -> int:
        return self.common.numel() + self.own.numel() + 2 * self.lengths.numel()


@dataclass(frozen=True, eq=False)
class LocalClimate:
    """A mean and cycles at n sensors.

    Args:
        coefficients: (n, p).
        doubts: (1 + len(periods), n, n), the covariance of what is not known of the mean and of each cycle's amplitude; zero
            between sensors that are known.
    """

    periods: tuple[float, ...]
    coefficients: Tensor
    doubts: Tensor

    def mean(self, times: Tensor) -> Tensor:
        """(...) hours → (..., n)."""
        return waves(times, self.periods) @ self.coefficients.T


def fit_climate(points: Tensor, times: Tensor, values: Tensor, seen: Tensor, periods: Sequence[float], ridge: float) -> Climate:
    """Least squares with a ridge on what a sensor has for itself; lengths by leaving out each sensor in turn.

    Args:
        points: (n, q). times: (T,). values, seen: (T, n).
        ridge: in frames.
    """
    design = waves(times, periods)
    p = design.shape[-1]
    count = seen.double()
    gram = torch.einsum("tn,ta,tb->nab", count, design, design)
    aim = torch.einsum("tn,ta,tn->na", count, design, values.double())
    eye = torch.eye(p, dtype=torch.float64)
    common = torch.linalg.solve(gram.sum(0) + 1e-3 * len(points) * eye, aim.sum(0))
    own = torch.linalg.solve(gram + ridge * eye, (aim - gram @ common)[..., None])[..., 0]
    distance = torch.cdist(points, points)
    extent = _extent(distance)
    groups = [[0], *([1 + 2 * j, 2 + 2 * j] for j in range(len(periods)))]
    best = [_krige(distance, own[:, columns], extent) for columns in groups]
    chosen = torch.tensor(best, dtype=torch.float64)
    return Climate(tuple(periods), points, common, own, chosen[:, 0], chosen[:, 1])


def _extent(distance: Tensor) -> float:
    positive = distance[distance > 0]
    return float(positive.median()) if positive.numel() else 1.0


def _krige(distance: Tensor, own: Tensor, extent: float) -> tuple[float, float]:
    """The length and own share that tell each sensor best from the others."""
    eye = torch.eye(len(distance), dtype=torch.float64)

    def error(length: float, share: float) -> float:
        inverse = torch.linalg.inv((1 - share) * (-distance / length).exp() + share * eye)
        return float((inverse @ own / inverse.diagonal()[:, None]).square().sum())

    choices = [(length * extent, share) for length in LENGTHS for share in OWN_SHARES]
    return min(choices, key=lambda choice: error(*choice))
