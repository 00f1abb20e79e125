"""Diffusion by a fixed averaging operator: the linear flow of frozen attention."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from integrators import LinearPart
from neuralpde.invariants import Invariant
from neuralpde.rhs import RightHandSide
from operators import DomainError, SparseOperator
from operators.solve import DirectSolver


class Averaging(RightHandSide):
    """dz/dt = α (A − I) z with a fixed row-stochastic A: attention frozen for a solve (GRAND-l, Chamberlain et al. 2021).

    Every channel stays in the convex hull of its start, exactly so under `Exponential`.

    Args:
        average: A (n, n), rows non-negative and summing to one, for example `ScaledDotProduct(...)(z0)`.
        rate: α > 0, in 1/time.
    """

    def __init__(self, average: SparseOperator, rate: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"rate must be positive and finite, not {rate}")
        rows = average.row_sums().detach()
        negative = average.values.is_complex() or bool((average.values < 0).any())
        if negative or not bool(torch.allclose(rows, torch.ones_like(rows))):
            raise DomainError("an averaging operator has non-negative entries and rows that sum to one: normalise it")
        self.average = average
        self._direct = DirectSolver()
        start = torch.tensor(math.log(rate), dtype=average.dtype, device=average.device)
        self.log_rate = nn.Parameter(start, requires_grad=False)

    @property
    def linear(self) -> LinearPart:
        return AveragingPart(self.average, self.log_rate.exp(), self._direct)

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        return ()

    @property
    def dissipative(self) -> bool:
        return True


class AveragingPart:
    """G = α (A − I) as a linear part, with its exact flow by uniformisation."""

    self_adjoint = False

    def __init__(self, average: SparseOperator, rate: Tensor, direct: DirectSolver) -> None:
        self.average = average
        self.rate = rate
        self.direct = direct

    def __matmul__(self, z: Tensor) -> Tensor:
        slope: Tensor = self.rate * (self.average @ z - z)
        return slope

    def norm_bound(self) -> float:
        return 2.0 * float(self.rate.detach())

    def solve(self, shift: Tensor, b: Tensor) -> Tensor:
        s = torch.as_tensor(shift) * self.rate
        n = self.average.shape[0]
        index = torch.arange(n, device=b.device)
        identity = SparseOperator.from_entries(index, index, torch.ones(n, dtype=self.average.dtype, device=b.device), (n, n))
        solution: Tensor = self.direct.solve((1 + s) * identity + (-s) * self.average, b)
        return solution

    def exponential(self, h: Any, z: Tensor, tolerance: float | None = None) -> Tensor:
        """exp(τ(A − I)) z = Σ_k e^{−τ} τᵏ/k! Aᵏ z with τ = α h ≥ 0 (uniformisation, Jensen 1953): all terms are averages, so
        bounds hold exactly, and cutting the Poisson tail at `tolerance` errs by at most that times max |z|."""
        tau = h * self.rate
        size = float(tau.detach())
        if size < 0:
            raise ValueError("an averaging flow cannot be solved backwards: it forgets, exponentially fast")
        tolerance = torch.finfo(z.dtype).eps / 4 if tolerance is None else tolerance
        last = _poisson_quantile(size, tolerance)
        orders = torch.arange(last + 1, dtype=torch.float64, device=z.device)
        # In logarithms: e^{−τ} alone underflows beyond τ = 700.
        log_tau = tau.double().log() if size > 0 else torch.zeros((), dtype=torch.float64, device=z.device)
        weights = (orders * log_tau - tau.double() - torch.lgamma(orders + 1)).exp() if size > 0 else torch.ones_like(orders)
        weights = (weights / weights.sum()).to(z.dtype)
        total, term = weights[0] * z, z
        if not torch.is_grad_enabled():
            for weight in weights[1:].tolist():
                term = self.average @ term
                total.add_(term, alpha=weight)
            return total
        for k in range(1, last + 1):
            term = self.average @ term
            total = total + weights[k] * term
        return total


def _poisson_quantile(tau: float, tolerance: float) -> int:
    """The smallest K with P(N > K) ≤ tolerance for a Poisson variable N of mean τ."""
    if tau == 0:
        return 0
    k, log_weight = 0, -tau
    while True:
        k += 1
        log_weight += math.log(tau / k)
        # Beyond the mean the weights fall at least geometrically, with ratio τ / (k + 1).
        if k > tau and math.exp(log_weight) / max(1e-300, 1 - tau / (k + 1)) <= tolerance:
            return k
