"""What the linear equation misses: corrections that see how the field moved around each sensor, the same law at all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from neuralpde.sensor_placement import Placement
from neuralpde.station_ours_climate import LocalClimate

# Neighbours that the Laplacian and the gradient of a sensor are taken from.
NEAR, AROUND = 4, 12
RECENT = 6


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Differences between a sensor and those around it, as fixed linear maps.

    Args:
        placement: n sensors.
        extent: the unit of length.
    """

    placement: Placement
    extent: float

    @cached_property
    def plane(self) -> Tensor:
        return self.placement.plane / self.extent

    @cached_property
    def mean_near(self) -> Tensor:
        """(n, n): the mean of the nearest sensors."""
        near = self._nearest(NEAR)
        return torch.zeros(len(near), len(near)).scatter_(1, near, 1 / near.shape[1])

    @cached_property
    def gradient(self) -> Tensor:
        """(2, n, n): the slopes of the plane through a sensor nearest to those around it; a ridge, for sensors in a line."""
        around = self._nearest(AROUND)
        offsets = self.plane[around] - self.plane[:, None]
        size = offsets.square().sum((1, 2))[:, None, None]
        gram = offsets.mT @ offsets + 1e-3 * size * torch.eye(2, dtype=torch.float64)
        slopes = torch.linalg.solve(gram, offsets.mT)
        result = torch.zeros(2, len(around), len(around), dtype=torch.float64)
        result.scatter_(2, around.expand(2, -1, -1), slopes.transpose(0, 1))
        result -= torch.diag_embed(result.sum(-1))
        return result.float()

    @cached_property
    def broad(self) -> Tensor:
        """(3, n): the plane fitted to all sensors: its mean and slopes."""
        design = torch.cat([torch.ones(len(self.plane), 1, dtype=torch.float64), self.plane - self.plane.mean(0)], 1)
        gram = design.T @ design
        fit: Tensor = torch.linalg.solve(
            gram + 1e-3 * gram.diagonal().mean() * torch.eye(3, dtype=torch.float64), design.T
        ).float()
        return fit

    def _nearest(self, count: int) -> Tensor:
        distance = torch.cdist(self.placement.cloud.points, self.placement.cloud.points)
        distance.fill_diagonal_(-1)
        order: Tensor = distance.argsort(dim=1, stable=True)
        return order[:, 1 : 1 + min(count, len(distance) - 1)]


def features(
    around: Surroundings,
    climate: LocalClimate,
    last: Tensor,
    step: float,
    past: Tensor,
    seen: Tensor,
    ahead: Tensor,
    excess: Tensor,
    who: Tensor,
) -> Tensor:
    """What a correction may depend on, (K, n, f).

    Args:
        last: (K,) hours of the newest frame.
        past: (K, w, n) anomalies at the newest frame and every `step` before, newest last.
        seen: (K, w, n), whether they were measured.
        ahead: (K, h, n), the anomalies that the linear equation expects.
        excess: (K, h, n), by how much the joint step differs.
        who: (n, m), one where the sensor is that of training, else zero.
    """
    x = past.float()
    (windows, w, n), recent = x.shape, min(RECENT, past.shape[1])
    now, late = x[:, -1:], x[:, -recent:]
    near, mean = late @ around.mean_near.T, x.mean(2, keepdim=True)
    slopes = torch.einsum("dij,btj->btdi", around.gradient, late[:, -3:]).flatten(1, 2)
    broad = torch.einsum("aj,btj->bta", around.broad[1:], late[:, -4:]).flatten(1)[..., None].expand(-1, -1, n)
    changes = x.diff(dim=1).abs().mean(1, keepdim=True) if w > 1 else torch.zeros_like(now)
    leads = last[:, None] + step * torch.arange(ahead.shape[1] + 1)
    usual = climate.mean(leads).float()
    range_of_day = (climate.coefficients[:, 1:].square().sum(1).sqrt().float()).expand(windows, 1, n)
    # Sunrise is sudden: what a correction does may change faster over the day than what is usual.
    periods = [*climate.periods, *(climate.periods[0] / k for k in (3, 4) if climate.periods)]
    angles = [2 * math.pi * last / period for period in periods]
    clock = [f(angle).float()[:, None, None].expand(-1, 1, n) for angle in angles for f in (torch.cos, torch.sin)]
    parts = [
        x[:, :-1] - now,
        now - mean[:, -1:],
        (near - near[:, -1:])[:, :-1],
        near - late,
        ((mean - mean[:, -1:])[:, -recent:-1]).expand(-1, -1, n),
        slopes,
        broad,
        changes,
        changes.mean(2, keepdim=True).expand(-1, -1, n),
        x[:, -2:].std(2, correction=0, keepdim=True).expand(-1, -1, n),
        (now - mean[:, -1:]).abs(),
        (usual - usual[:, :1])[:, 1::2],
        range_of_day,
        *clock,
        seen[:, -2:].float(),
        seen.float().mean(1, keepdim=True),
        ahead.float() - now,
        excess.float(),
        x.diff(dim=1)[:, -2:].abs(),
        who.T.expand(windows, -1, -1),
    ]
    return torch.cat(parts, dim=1).transpose(1, 2)


def identity(placement: Placement, stations: Tensor, new: Tensor | None = None) -> Tensor:
    """(n, m): one where a sensor stands where one of the stations (m, q) does, and is not taken for new (n,)."""
    points = placement.cloud.points
    who = (torch.cdist(points, stations) < 1e-6 * (1 + points.abs().max())).float()
    return who if new is None else who * ~new[:, None]


class Committee(nn.Module):
    """The mean of M perceptrons with two hidden layers, which start at zero.

    Args:
        inputs, width, outputs, members: sizes f, H, h, M.
        mean, deviation: (f,), of the inputs.
        scale: (h,), of the outputs.
        drop: the share of hidden units that is left out in training.
    """

    mean: Tensor
    deviation: Tensor
    scale: Tensor

    def __init__(
        self, mean: Tensor, deviation: Tensor, scale: Tensor, width: int, members: int, drop: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.drop = drop
        for name, values in (("mean", mean), ("deviation", deviation), ("scale", scale)):
            self.register_buffer(name, values.float())
        sizes = (len(mean), width, width, len(scale))
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(members, a, b, generator=generator) / math.sqrt(a)) for a, b in pairwise(sizes)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(members, 1, b)) for b in sizes[1:])
        nn.init.zeros_(self.weights[-1])

    def forward(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(..., f) → each member's correction (M, ..., h). With a generator, hidden units are left out at random."""
        shape = inputs.shape[:-1]
        # What lies far outside of all that was learned from is brought to its edge.
        x = ((inputs - self.mean) / self.deviation).clamp(-5, 5).reshape(1, -1, inputs.shape[-1])
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight + bias
            if k + 1 < len(self.weights):
                x = silu(x)
                if generator is not None and self.drop > 0:
                    x = x * (torch.rand(x.shape, generator=generator) >= self.drop) / (1 - self.drop)
        return x.reshape(len(x), *shape, -1) * self.scale
