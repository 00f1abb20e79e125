"""Diffusion by a fixed averaging operator: the linear flow of frozen attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.special import gammainc, ive
from torch import Tensor, nn

from neuralpde.invariants import Invariant
from neuralpde.rhs import RightHandSide
from operators import DomainError, SparseOperator
from operators.diffusivity import joined
from operators.normalisation import Over
from operators.solve import DirectSolver

State = Tensor | tuple[Tensor, Tensor]
LONGEST = 1e8
"""The largest α h of a step, and about the number of products that it takes to round-off."""


class Averaging(RightHandSide):
    """dz/dt = R (A − I) z + β s with a fixed row-stochastic A: attention frozen for a solve (GRAND-l, Chamberlain et al. 2021).

    Every channel stays in the convex hull of its start, exactly so under `Exponential`, if there is no source. With a
    column-stochastic A it is (A − I) R z + β s, which conserves Σ_i z_i. `BeltramiFlow(..., frozen=True)` makes it at each start.

    Args:
        average: A (n, n), entries non-negative, rows (or columns) summing to one, for example `ScaledDotProduct(...)(z0)`.
        rate: R > 0, in 1/time: a number, a scalar tensor, or one for each node, (n,).
        over: whether rows or columns of A sum to one.
        source: (β, s), a number or scalar tensor and a state; None for no source.
        moving: whether the positions of a pair (u, x) move with the features.
    """

    def __init__(
        self,
        average: SparseOperator,
        rate: float | Tensor = 1.0,
        *,
        over: Over = Over.ROWS,
        source: tuple[Tensor | float, State] | None = None,
        moving: bool = True,
    ) -> None:
        super().__init__()
        given = rate if isinstance(rate, Tensor) else torch.tensor(rate, dtype=average.dtype, device=average.device)
        # Without an edge all nodes have the rate zero: the flow stands still.
        if not bool((torch.isfinite(given) & ((given > 0) if given.ndim == 0 else (given >= 0))).all()):
            raise ValueError(f"rate must be positive and finite, not {rate}")
        if not _averages(average, over):
            raise DomainError(
                f"an averaging operator has non-negative entries and {over.value} that sum to one: normalise it, "
                "or name what it is normalised over"
            )
        self.over, self.moving = over, moving
        self.average, speed = _uniform(average, given, over)
        if isinstance(rate, Tensor):
            self.register_buffer("speed", speed, persistent=False)
        else:
            self.log_rate = nn.Parameter(torch.log(speed), requires_grad=False)
        self.source = source
        self._direct = DirectSolver()

    @property
    def rate(self) -> Tensor:
        """The one rate, in 1/time, that all nodes have after uniformisation."""
        parameters = self._parameters
        if "log_rate" in parameters:
            log_rate: Tensor = self.log_rate
            return log_rate.exp()
        speed: Tensor = self._buffers["speed"]  # type: ignore[assignment]
        return speed

    def forward(self, t: Tensor, x: Any) -> Any:
        return self.affine @ x

    @property
    def linear(self) -> AveragingPart:
        return AveragingPart(self.average, self.rate, self._direct, self.over, None, self.moving)

    @property
    def nonlinear(self) -> Any:
        """(t, z) ↦ β s; None without a source."""
        if self.source is None:
            return None
        part = self.affine
        return lambda t, z: part.push(z)

    @property
    def affine(self) -> AveragingPart:
        """All of it: its exponential and its solves take the source along."""
        return AveragingPart(self.average, self.rate, self._direct, self.over, self.source, self.moving)

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        return ()

    @property
    def dissipative(self) -> bool:
        return True


def _averages(average: SparseOperator, over: Over) -> bool:
    """Whether entries are non-negative, and rows (columns) sum to one as far as their precision tells."""
    values = average.values.detach()
    if values.is_complex() or bool((values < 0).any()):
        return False
    # Summed in float64: in float32 the sum over a hub of 10⁵ neighbours loses three digits that its entries have.
    wide = SparseOperator(average.pattern, values.double())
    sums = (wide if over is Over.ROWS else wide.adjoint()).row_sums()
    close = max(1e-8, (100 + average.shape[0] ** 0.5) * torch.finfo(values.dtype).eps)
    return bool(torch.allclose(sums, torch.ones_like(sums), atol=close))


def _uniform(average: SparseOperator, rate: Tensor, over: Over) -> tuple[SparseOperator, Tensor]:
    """P and q with q (P − I) = R (A − I), or (A − I) R over columns, P stochastic too (Jensen 1953)."""
    if rate.ndim == 0:
        return average, rate
    if bool((rate == rate[0]).all()) and bool(rate[0] > 0):
        return average, rate.mean()
    # Where nothing moves any q will do, with P = I; a small one takes no products.
    q = torch.where(rate.max() > 0, rate.max(), 1e-30)
    share = rate / q
    everyone = torch.arange(len(share), device=share.device)
    side = average.pattern.row if over is Over.ROWS else average.pattern.col
    scaled = SparseOperator(average.pattern, average.values * share[side])
    rest = SparseOperator.from_entries(everyone, everyone, 1 - share, average.shape)
    return scaled + rest, q


class AveragingPart:
    """z ↦ α (A − I) z as a linear part, or with a source α (A − I) z + β s as an affine one, with its exact flow."""

    self_adjoint = False

    def __init__(
        self,
        average: SparseOperator,
        rate: Tensor,
        direct: DirectSolver,
        over: Over = Over.ROWS,
        source: tuple[Tensor | float, State] | None = None,
        moving: bool = True,
    ) -> None:
        self.average, self.rate, self.direct, self.over, self.source, self.moving = average, rate, direct, over, source, moving
        self.products = 0
        """How many products the last `exponential` took."""

    def __matmul__(self, z: State) -> Any:
        field = self._field(z)
        slope: Tensor = self.rate * (self.average @ field - field)
        if self.source is not None:
            slope = slope + self.source[0] * self._field(self.source[1])
        return self._state(slope, z, still=True)

    def push(self, z: State) -> State:
        """β s, in the form of z."""
        if self.source is None:
            return self._state(torch.zeros_like(self._field(z)), z, still=True)
        push: Tensor = self.source[0] * self._field(self.source[1])
        return self._state(push.expand_as(self._field(z)), z, still=True)

    def norm_bound(self) -> float:
        return 2.0 * float(self.rate.detach())

    def solve(self, shift: Tensor, b: State) -> Any:
        """y − s f(y) = b."""
        s = shift * self.rate
        n = self.average.shape[0]
        field = self._field(b)
        if self.source is not None:
            field = field + shift * self.source[0] * self._field(self.source[1])
        index = torch.arange(n, device=field.device)
        ones = torch.ones(n, dtype=self.average.dtype, device=field.device)
        identity = SparseOperator.from_entries(index, index, ones, (n, n))
        solution: Tensor = self.direct.solve((1 + s) * identity + (-s) * self.average, field)
        return self._state(solution, b)

    def exponential(self, h: Any, z: State, tolerance: float | None = None) -> Any:
        """exp(τ(A − I)) z + β/α ∫₀^τ exp(σ(A − I)) s dσ with τ = α h ≥ 0, erring by at most tolerance · |z|.

        |z| is the largest entry, over columns the largest sum of |z_i| of a channel: what the flow never increases. To
        round-off (None) by uniformisation, Σ_k e^{−τ} τᵏ/k! Aᵏ z (Jensen 1953): every term is an average, so bounds hold
        exactly, and about τ + 6√τ products are needed. With a tolerance, by the Chebyshev series Σ_k 2 e^{−τ} I_k(τ) T_k(A) z,
        which takes about √(2τ log(1/tolerance)) where A's spectrum is nearly real, and by uniformisation where it is not.
        """
        tau = h * self.rate
        _check_forwards(tau)
        self.products, field = 0, self._field(z)
        if self.source is None:
            return self._state(self._series(tau, field, None, tolerance), z)
        start, ratio = self._field(self.source[1]), self.source[0] / self.rate
        if self.source[1] is z:
            # One field: the series of the flow and of its source share their products.
            return self._state(self._series(tau, field, ratio, tolerance), z)
        both = torch.cat([field, start.expand_as(field)], dim=-1)
        return self._state(self._series(tau, both, ratio, tolerance, field.shape[-1]), z)

    def exponential_products(self, h: Any, tolerance: float | None = None) -> int:
        """The number of products with A that `exponential` takes at most."""
        _check_forwards(h * self.rate)
        tau = float((h * self.rate).detach())
        return _poisson_quantile(tau, torch.finfo(self.average.dtype).eps / 4 if tolerance is None else tolerance)

    def _series(self, tau: Tensor, z: Tensor, ratio: Tensor | None, tolerance: float | None, split: int | None = None) -> Tensor:
        """The flow of z plus `ratio` times its integral over time; with `split`, of the first channels plus that of the rest."""
        size = float(tau.detach())
        most = _poisson_quantile(size, torch.finfo(z.dtype).eps / 4 if tolerance is None else tolerance)
        total = None
        if tolerance is not None:
            table = _chebyshev(size, most)
            missed = table[2] + (0.0 if ratio is None else abs(float(ratio.detach()))) * table[3]
            total = self._by_chebyshev(_weights(table[:3], tau, ratio, z, split), missed, z, tolerance)
        if total is None:
            total = self._by_powers(_weights(_poisson(size, most), tau, ratio, z, split), z)
        return total if split is None else total[..., :split] + total[..., split:]

    def _by_powers(self, weights: Tensor, z: Tensor) -> Tensor:
        total, term = weights[0] * z, z
        self.products += len(weights) - 1
        for weight in weights[1:]:
            term = self.average @ term
            total = torch.addcmul(total, weight, term)
        return total

    def _by_chebyshev(self, weights: Tensor, missed: Any, z: Tensor, tolerance: float) -> Tensor | None:
        """The Chebyshev series, cut where a bound of its tail allows; None if that takes no fewer products."""
        # Cut after K, y = Σ c_k T_k(A) z misses y′ = (A − I) y by ½ c_{K+1} T_K z − ½ c_K T_{K+1} z, and the flow only shrinks
        # the norm, so the error is at most the integral of that over time; with a source, of its integral too.
        norm = _largest if self.over is Over.ROWS else _sum
        allowed, before, now = tolerance * norm(z), z, self.average @ z
        self.products += 1
        total = weights[0] * z
        for k in range(len(weights) - 2):
            if 0.5 * (missed[k + 1] * norm(before) + missed[k] * norm(now)) <= allowed:
                return total
            total = torch.addcmul(total, weights[k + 1], now)
            before, now = now, torch.add(self.average @ now, before, alpha=-0.5).mul_(2)
            self.products += 1
        return None

    def _field(self, z: State) -> Tensor:
        if isinstance(z, tuple):
            return joined(z) if self.moving else z[1]
        return z

    def _state(self, field: Tensor, like: State, still: bool = False) -> State:
        """The state of a field; positions that do not move keep their place, or have no slope if `still`."""
        if not isinstance(like, tuple):
            return field
        u = like[0]
        if not self.moving:
            return (torch.zeros_like(u) if still else u, field)
        return field[..., : u.shape[-1]], field[..., u.shape[-1] :]


def _check_forwards(tau: Tensor) -> None:
    if float(tau.detach()) < 0:
        raise ValueError("an averaging flow cannot be solved backwards: it forgets, exponentially fast")


def _largest(z: Tensor) -> float:
    # Ten times faster than the vector norm of that order.
    return float(z.detach().abs().amax())


def _sum(z: Tensor) -> float:
    return float(z.detach().abs().sum(-2).max())


def _weights(table: Any, tau: Tensor, ratio: Tensor | None, z: Tensor, split: int | None) -> Tensor:
    """The coefficients (K,) of a series, or (K, c) of the flow in the first channels and of its integral in the others."""
    values, slopes, sums = (torch.from_numpy(row).to(z.device) for row in table)
    # Their derivative in τ; that of the integral is the flow.
    change = tau.double() - tau.detach().double()
    flow = values + change * slopes
    if ratio is None:
        return flow.to(z.dtype)
    push = ratio.double() * (sums + change * values)
    if split is None:
        return (flow + push).to(z.dtype)
    return torch.cat([flow[:, None].expand(-1, split), push[:, None].expand(-1, z.shape[-1] - split)], dim=1).to(z.dtype)


def _chebyshev(tau: float, most: int) -> Any:
    """For k ≤ most + 1 the coefficients of T_k in exp(τ(x − 1)), their derivatives in τ, their integrals, and those of these."""
    orders = np.arange(most + 2)
    values = 2 * ive(orders, tau)
    slopes = ive(np.abs(orders - 1), tau) + ive(orders + 1, tau) - 2 * ive(orders, tau)
    values[0], slopes[0] = values[0] / 2, slopes[0] / 2
    # The integrals of e^{−σ} I_k(σ) from values at Chebyshev's points of (e^{τy} − 1)/y and its integral, y = x − 1.
    points = max(64, 2 * (most + 2))
    angle = np.pi * (np.arange(points) + 0.5) / points
    y = np.cos(angle) - 1
    once = np.expm1(tau * y) / y
    near = np.abs(tau * y) < 1e-3
    twice = np.where(near, tau**2 * (0.5 + tau * y / 6 + (tau * y) ** 2 / 24), (once - tau) / y)
    sums, again = 2 / points * np.cos(orders[:, None] * angle) @ once, 2 / points * np.cos(orders[:, None] * angle) @ twice
    sums[0], again[0] = sums[0] / 2, again[0] / 2
    # Positive, each of them; what is not is round-off of the sums.
    floor = np.finfo(float).eps * tau * np.array([1.0, tau])
    return np.stack([values, slopes, np.maximum(sums, floor[0]), np.maximum(again, floor[1])])


def _poisson(tau: float, most: int) -> Any:
    """For k ≤ most the probability that a Poisson variable of mean τ is k, its derivative in τ, and its integral from 0."""
    orders = np.arange(most + 1, dtype=np.float64)
    if tau == 0:
        return np.stack([np.eye(1, most + 1)[0], np.zeros(most + 1), np.zeros(most + 1)])
    # In logarithms: e^{−τ} alone underflows beyond τ = 700.
    logs = orders * math.log(tau) - tau - np.array([math.lgamma(k + 1) for k in orders])
    values = np.exp(logs)
    values /= values.sum()
    slopes = np.concatenate([[0.0], values[:-1]]) - values
    return np.stack([values, slopes, gammainc(orders + 1, tau)])


def _poisson_quantile(tau: float, tolerance: float) -> int:
    """The smallest K with P(N > K) ≤ tolerance for a Poisson variable N of mean τ."""
    if tau == 0:
        return 0
    if tau > LONGEST:
        raise ValueError(
            f"this averaging flow mixes α h = {tau:.3g} times, which takes as many products: it has long reached"
            " its equilibrium; solve for a shorter time, or by SDIRK3, which needs few steps for it"
        )
    # Below the mean nothing is small.
    k = int(tau)
    log_weight = k * math.log(tau) - tau - math.lgamma(k + 1)
    while True:
        k += 1
        log_weight += math.log(tau / k)
        # Beyond the mean the weights fall at least geometrically, with ratio τ / (k + 1).
        if k > tau and math.exp(log_weight) / max(1e-300, 1 - tau / (k + 1)) <= tolerance:
            return k
