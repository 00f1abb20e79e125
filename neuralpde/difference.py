"""Learned difference flow: gradients and Laplacians with learned weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from neuralpde.rhs import RightHandSide
from operators.difference import Differences


class DifferenceFlow(RightHandSide):
    """dx_i/dt = −κ (w∆x)_i + β Σ_j b_ij (w∇x)_ij, with differences modulated by learned weights w(x).

    The spatial difference layer of PA-DGN (Seo, Meng and Liu 2020, eq. 1) as a right-hand side. Untrained it is
    −κ L x, since the layer starts as the plain operator and β at zero. It promises no invariant: w2 ≠ 1 neither keeps
    constants nor mass.

    Args:
        differences: x ↦ the modulated Laplacian operator and gradient: `SpatialDifference`, `PublishedDifference`,
            `StandardDifference`, `MeshDifference`, or any other `Differences`.
        rate: κ > 0 at the start, learned as log κ.
    """

    def __init__(self, differences: Differences, rate: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"rate must be positive and finite, not {rate}")
        self.differences = differences
        dtype = differences.edges.dtype
        self.log_rate = nn.Parameter(torch.tensor(rate, dtype=dtype).log())
        self.drift = nn.Parameter(torch.zeros((), dtype=dtype))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        laplacian, gradient = self.differences(x)
        edges = self.differences.edges
        inflow = edges.pattern.sum_rows(edges.values[:, None] * gradient)
        slope: Tensor = -self.log_rate.exp() * (laplacian @ x) + self.drift * inflow
        return slope
