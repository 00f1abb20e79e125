"""The linear step of all known sensors together, and what it tells of other places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralpde.sensor_placement import Placement
from neuralpde.station_ours_climate import LocalClimate, waves
from neuralpde.station_ours_kernel import DriftingCovariance

LAGS = (1, 2)
RIDGES = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)


@dataclass(frozen=True, eq=False)
class JointStep:
    """x(t + 1) = x(t) + Σ_k A_k x(t − k) + b·w(t + 1),  w = (1, cos, sin, …), at the sensors that it was learned from.

    Args:
        points: (n, q), these sensors' `cloud.points`. places: (n, 2), as their placement has them.
        weights: (lags n, n), newest lag first. clock: (p, n). periods, step: in hours.
    """

    points: Tensor
    places: Tensor
    weights: Tensor
    clock: Tensor
    periods: tuple[float, ...]
    step: float

    @property
    def lags(self) -> int:
        return self.weights.shape[0] // self.weights.shape[1]

    def roll(self, frames: Tensor, last: Tensor, steps: int) -> Tensor:
        """frames (K, ≥ lags, n), the newest at the hours `last` (K,) → (K, steps, n)."""
        state = frames[:, -self.lags :].double()
        for k in range(1, steps + 1):
            lagged = state[:, -self.lags :].flip(1).flatten(1)
            after = state[:, -1] + lagged @ self.weights + waves(last + k * self.step, self.periods) @ self.clock
            state = torch.cat([state, after[:, None]], dim=1)
        return state[:, self.lags :]


def fit_steps(
    placement: Placement, values: Tensor, times: Tensor, periods: Sequence[float], step: float, lags: int, ridges: Sequence[float]
) -> list[JointStep]:
    """Ridge regression of the changes, one for each ridge; what the clock explains is not shrunk.

    Args:
        values: (K, T, n). times: (K, T) hours.
        ridges: relative to the mean square of the values.
    """
    x = values.double()
    inputs = torch.cat([x[:, lags - 1 - k : x.shape[1] - 1 - k] for k in range(lags)], dim=2).flatten(0, 1)
    changes = (x[:, lags:] - x[:, lags - 1 : -1]).flatten(0, 1)
    clock = waves(times[:, lags:], periods).flatten(0, 1)
    both = torch.cat([inputs, changes], dim=1)
    gram_clock = clock.T @ clock
    gram_clock = gram_clock + 1e-9 * gram_clock.diagonal().mean() * torch.eye(len(gram_clock), dtype=torch.float64)
    explained = torch.linalg.solve(gram_clock, clock.T @ both)
    rest = both - clock @ explained
    p = inputs.shape[1]
    values_of, vectors = torch.linalg.eigh(rest[:, :p].T @ rest[:, :p])
    scale = float(values_of.clamp(min=0).mean()) or 1.0
    moment = vectors.T @ (rest[:, :p].T @ rest[:, p:])
    steps = []
    for ridge in ridges:
        weights = vectors @ (moment / (values_of.clamp(min=0) + ridge * scale)[:, None])
        steps.append(
            JointStep(
                placement.cloud.points,
                placement.points,
                weights,
                explained[:, p:] - explained[:, :p] @ weights,
                tuple(periods),
                step,
            )
        )
    return steps


def nearby(kernel: DriftingCovariance, plane: Tensor, known: Tensor) -> Tensor:
    """(n, n_known): the weights by which the known sensors tell of all; identity at these.

        C(all, known) C(known, known)⁻¹

    Args:
        plane: (n, 2). known: (n_known,).
    """
    everyone = torch.arange(len(plane))
    zero = torch.zeros(1, dtype=torch.float64)
    with torch.no_grad():
        same = (everyone[:, None] == known).double()
        cross = kernel(plane[:, None] - plane[known], zero, same)[0]
        eye = torch.eye(len(known), dtype=torch.float64)
        factor = torch.linalg.cholesky(cross[known] + kernel.nugget * eye)
        weights = torch.cholesky_solve(cross.T, factor).T
    weights[known] = eye
    return weights


def excess(
    kernel: DriftingCovariance,
    plane: Tensor,
    climate: LocalClimate,
    joint: JointStep | None,
    nodes: Tensor,
    told: Tensor,
    past: Tensor,
    ahead: Tensor,
    last: Tensor,
    step: float,
) -> Tensor:
    """By how much the joint step differs from what the equation expects, (K, h, n); elsewhere as its sensors tell.

    Args:
        nodes: (n_joint,), where in the placement the joint step's sensors are. told: those of them that tell of the others.
        past, ahead: (K, w, n), (K, h, n) anomalies. last: (K,) hours.
    """
    if joint is None:
        return torch.zeros_like(ahead)
    leads = ahead.shape[1]
    usual = climate.mean(last[:, None] + step * torch.arange(1 - past.shape[1], leads + 1))[:, :, nodes]
    path = joint.roll(past[:, :, nodes] + usual[:, : past.shape[1]], last, leads) - usual[:, past.shape[1] :]
    gap = torch.zeros_like(ahead)
    gap[:, :, nodes] = path - ahead[:, :, nodes]
    return gap[:, :, told] @ nearby(kernel, plane, told).T
