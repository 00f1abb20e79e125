"""Diffusion by a fixed averaging operator: the linear flow of frozen attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.special import ive
from torch import Tensor, nn

from integrators import LinearPart
from integrators.state import largest
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
        s = shift * self.rate
        n = self.average.shape[0]
        index = torch.arange(n, device=b.device)
        identity = SparseOperator.from_entries(index, index, torch.ones(n, dtype=self.average.dtype, device=b.device), (n, n))
        solution: Tensor = self.direct.solve((1 + s) * identity + (-s) * self.average, b)
        return solution

    def exponential(self, h: Any, z: Tensor, tolerance: float | None = None) -> Tensor:
        """exp(τ(A − I)) z with τ = α h ≥ 0, erring by at most tolerance · max |z|.

        To round-off (None) by uniformisation, Σ_k e^{−τ} τᵏ/k! Aᵏ z (Jensen 1953): every term is an average, so bounds hold
        exactly, and about τ + 6√τ products are needed. With a tolerance, by the Chebyshev series Σ_k 2 e^{−τ} I_k(τ) T_k(A) z,
        which takes about √(2τ log(1/tolerance)) where A's spectrum is nearly real, and by uniformisation where it is not.
        """
        tau = h * self.rate
        size = float(tau.detach())
        if size < 0:
            raise ValueError("an averaging flow cannot be solved backwards: it forgets, exponentially fast")
        if tolerance is not None:
            rough = self._chebyshev(tau, size, z, tolerance)
            if rough is not None:
                return rough
        last = _poisson_quantile(size, torch.finfo(z.dtype).eps / 4 if tolerance is None else tolerance)
        orders = torch.arange(last + 1, dtype=torch.float64, device=z.device)
        # In logarithms: e^{−τ} alone underflows beyond τ = 700.
        log_tau = tau.double().log() if size > 0 else torch.zeros((), dtype=torch.float64, device=z.device)
        weights = (orders * log_tau - tau.double() - torch.lgamma(orders + 1)).exp() if size > 0 else torch.ones_like(orders)
        weights = (weights / weights.sum()).to(z.dtype)
        total, term = weights[0] * z, z
        for k in range(1, last + 1):
            term = self.average @ term
            total = total + weights[k] * term
        return total

    def exponential_products(self, h: Any, tolerance: float | None = None) -> int:
        """The number of products with A that `exponential` takes at most."""
        tau = float((h * self.rate).detach())
        return _poisson_quantile(tau, torch.finfo(self.average.dtype).eps / 4 if tolerance is None else tolerance)

    def _chebyshev(self, tau: Tensor, size: float, z: Tensor, tolerance: float) -> Tensor | None:
        """The Chebyshev series, cut where a bound of its tail allows; None if that takes no fewer products."""
        most = _poisson_quantile(size, tolerance)
        orders = np.arange(most + 1)
        c, slope = 2 * ive(orders, size), ive(np.abs(orders - 1), size) + ive(orders + 1, size) - 2 * ive(orders, size)
        c[0], slope[0] = c[0] / 2, slope[0] / 2
        values, slopes = (torch.from_numpy(part).to(z.device) for part in (c, slope))
        weights = (values + (tau.double() - tau.detach().double()) * slopes).to(z.dtype)
        # Cut after K, y = Σ c_k T_k(A) z misses y′ = (A − I) y by ½ c_{K+1} T_K z − ½ c_K T_{K+1} z, and the flow only shrinks
        # the largest entry, so the error is at most the integral of that; from K = √τ on, c_K grows with τ.
        allowed, before, now = tolerance * largest(z), z, self.average @ z
        total = weights[0] * z
        for k in range(most):
            missed = size / 2 * float(c[k + 1] * largest(before) + c[k] * largest(now))
            if k * k >= size and missed <= allowed:
                return total
            total = torch.addcmul(total, weights[k + 1], now)
            before, now = now, torch.add(self.average @ now, before, alpha=-0.5).mul_(2)
        return None


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
