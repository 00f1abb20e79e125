"""A learned Laplacian with off-diagonal entries of one sign: consistent, and with a maximum principle."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from operators.checks import DomainError
from operators.consistent import ConsistentLaplacian
from operators.consistent_corrections import Correction
from operators.consistent_fit import Fit
from operators.consistent_moments import Moments, Neighbours
from operators.domains import PointCloud

# Newton's method takes some ten steps where positive weights exist with room to spare, and never ends where there are none.
STEPS = 30
HALVINGS = 20
TOLERANCE = 1e-8
ROUNDING = 1e-14
FARTHEST = 1e6
LARGEST_EXPONENT = 200.0


class PositiveMoments(Moments):
    """Neighbourhoods in which positive weights give the Laplacian exactly, grown until they do.

    The centre of those weights is the one of maximum entropy, w_j = ω_j exp(λ·ξ_j^α), whose λ solves Σ_j w_j ξ_j^α = Δ ξ^α.

    Args:
        cloud, neighbours, hops: as `Moments` has them.
        order: 2 or 3. No positive weights are exact on polynomials of degree 4.
        required: (n,) bool, the nodes that must have such weights; none if absent. At the hull of a cloud there never are any.

    Attributes:
        centre: (n, k), positive weights of +Δ in local coordinates; where there are none, the non-negative ones that come
            closest to the conditions.
        consistent: (n,) bool, where they are exact.

    Raises:
        DomainError: a required node without positive weights.
    """

    centre: Tensor
    consistent: Tensor

    def __init__(
        self, cloud: PointCloud, neighbours: Neighbours = None, order: int = 2, hops: int = 1, required: Tensor | None = None
    ) -> None:
        if order not in (2, 3):
            raise DomainError(f"positive weights exist for polynomials of degree 2 and 3, not {order!r}")
        if required is not None and (required.dtype != torch.bool or required.shape != (cloud.num_nodes,)):
            raise DomainError(
                f"`required` must be bool of shape ({cloud.num_nodes},), not {required.dtype} {tuple(required.shape)}"
            )
        super().__init__(cloud, neighbours, order, hops)
        self.required = required
        parts = [self._centres(fit) for fit in self._fits()]
        centre, exact = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
        if required is not None and bool((required.to(exact.device) & ~exact).any()):
            bad = (required.to(exact.device) & ~exact).nonzero()[:, 0]
            raise DomainError(
                f"{len(bad)} of the required nodes have no positive weights that are exact on polynomials of degree {order}, "
                f"the first is node {int(bad[0])}: its neighbours lie on one side of it, as at the hull of the cloud; take such "
                "nodes out of `required`, or add points (or neighbours) around them"
            )
        self._hold("centre", centre)
        self.register_buffer("consistent", exact, persistent=False)

    def on(self, cloud: PointCloud) -> PositiveMoments:
        """The same conditions on another cloud, where no node is required."""
        self._check_movable()
        moved = PositiveMoments(cloud, self.given, self.order, self.hops)
        return moved.to(device=self.basis.device, dtype=self.basis.dtype)

    def _centres(self, fit: Fit) -> tuple[Tensor, Tensor]:
        """Weights (b, k), and where they are exact (b,)."""
        target = self._target()
        centre, exact = maximum_entropy(fit, target)
        columns = fit.columns()
        for node in torch.where(~exact)[0].tolist():
            xi = columns[node].cpu().numpy()
            centre[node] = torch.from_numpy(np.asarray(nnls(xi.T, target.cpu().numpy())[0])).to(centre)
        # Non-negative weights may be exact where no positive ones are, such as those of a cross among other points.
        return centre, _rounding(columns, centre, target) <= ROUNDING

    def _suffices(self, fit: Fit) -> Tensor:
        return maximum_entropy(fit, self._target())[1]

    def _target(self) -> Tensor:
        squares = [2.0 if len(axes) == 2 and axes[0] == axes[1] else 0.0 for axes in self.monomials]
        return torch.tensor(squares, dtype=torch.float64, device=self.cloud.device)


class PositiveLaplacian(ConsistentLaplacian):
    """L = −Σ_a ∂_a² at scattered points with L_ij ≤ 0 for i ≠ j and zero row sums, for any parameters of its correction.

    Where `consistent`, it is exact on polynomials of degree ≤ order too. Elsewhere, always at the hull of the points, it keeps
    the signs and comes as close to the conditions as they allow. By the signs dx/dt = −L x obeys the maximum principle, also
    with Euler steps up to 1 / max L_ii. Diagonally dominant, it has no eigenvalue with a negative real part; it is not symmetric.

    A projected correction is shortened, neighbourhood by neighbourhood, to where the first weight vanishes: from a centre
    inside the cone of positive weights that reaches all of it.

    Args:
        moments: `PositiveMoments`, or a PointCloud for its default.
        correction: as `ConsistentStencil` has it.
    """

    moments: PositiveMoments

    def __init__(self, moments: PositiveMoments | PointCloud, correction: Correction | None = None) -> None:
        if not isinstance(moments, (PositiveMoments, PointCloud)):
            raise DomainError(f"a PositiveLaplacian needs PositiveMoments(cloud, ...), not {type(moments).__name__}")
        super().__init__(PositiveMoments(moments) if isinstance(moments, PointCloud) else moments, correction)

    def _check(self) -> None:
        super()._check()
        if not isinstance(self.moments, PositiveMoments):
            raise DomainError(f"a PositiveLaplacian needs PositiveMoments(cloud, ...), not {type(self.moments).__name__}")

    @property
    def consistent(self) -> Tensor:
        """(n,) bool: where it is exact on polynomials of degree ≤ order."""
        return self.moments.consistent

    def _local(self) -> Tensor:
        return -self.moments.centre[..., None]

    def _moved(self, base: Tensor, change: Tensor) -> Tensor:
        room = base.neg().clamp(min=torch.finfo(base.dtype).tiny)
        shrink = 1 / (change / room).amax(-2, keepdim=True).clamp(min=1)
        return (base + shrink * change).clamp(max=0)


def maximum_entropy(fit: Fit, target: Tensor) -> tuple[Tensor, Tensor]:
    """Positive weights w_j = ω_j exp(λ·ξ_j^α) with Σ_j w_j ξ_j^α = target_α, where they exist.

    They minimise Σ_j w_j (log(w_j/ω_j) − 1) under the conditions; λ minimises Σ_j w_j − λ·target, by Newton's method with
    step halving.

    Args:
        fit: the neighbourhoods (b,).
        target: (m,).

    Returns:
        Weights (b, k), and whether they fulfil the conditions (b,); where not, the weights mean nothing.
    """
    columns, omega = fit.columns(), fit.root**2
    found = torch.zeros_like(omega)
    exact = torch.zeros(len(omega), dtype=torch.bool, device=omega.device)
    multipliers = columns.new_zeros(columns.shape[0], columns.shape[2])
    left = torch.arange(len(omega), device=omega.device)
    for _ in range(STEPS):
        xi, prior, lam = columns[left], omega[left], multipliers[left]
        weights = _weights(prior, xi, lam)
        slope = _moments(xi, weights) - target
        near = (slope.abs().amax(1) <= TOLERANCE).nonzero()[:, 0]
        # Linearised, the last step brings the error from the square root of rounding to rounding.
        last = weights[near] * (1 + (xi[near] @ _direction(xi[near], weights[near], slope[near])[..., None])[..., 0])
        # Not where few weights carry the conditions: there it may be large, and turn a sign.
        good = (last >= 0).all(1) & (_rounding(xi[near], last, target) <= ROUNDING)
        done = torch.zeros_like(exact[left])
        done[near] = good
        found[left[done]], exact[left[done]] = last[good], True
        # Farkas: with λ·ξ_j ≤ 0 for all j and λ·target > 0 there are no positive weights. λ runs away in such a direction.
        never = ((xi @ lam[..., None]).amax((1, 2)) <= 0) & (lam @ target > 0)
        going = ~done & ~never & (lam.abs().amax(1) <= FARTHEST)
        if not bool(going.any()):
            break
        left, xi, prior, lam, weights, slope = (part[going] for part in (left, xi, prior, lam, weights, slope))
        multipliers[left] = lam + _newton_step(xi, prior, lam, weights, slope, target)
    return found * (fit.root > 0), exact


def _weights(prior: Tensor, xi: Tensor, lam: Tensor) -> Tensor:
    return prior * torch.exp((xi @ lam[..., None])[..., 0].clamp(max=LARGEST_EXPONENT))


def _rounding(xi: Tensor, weights: Tensor, target: Tensor) -> Tensor:
    """How far the moments are from the target beside the terms that they sum, (b,)."""
    error = (_moments(xi, weights) - target).abs() / (target.abs().amax() + _moments(xi.abs(), weights.abs()))
    return error.amax(1)


def _moments(xi: Tensor, weights: Tensor) -> Tensor:
    return (xi.mT @ weights[..., None])[..., 0]


def _direction(xi: Tensor, weights: Tensor, slope: Tensor) -> Tensor:
    curvature = xi.mT @ (xi * weights[..., None])
    # Where the weights vanish on one side, so does the curvature there.
    ridge = 1e-14 * (1 + curvature.diagonal(dim1=1, dim2=2).sum(1))
    step: Tensor = torch.linalg.solve(curvature + torch.diag_embed(ridge[:, None].expand_as(slope)), -slope)
    return step


def _newton_step(xi: Tensor, prior: Tensor, lam: Tensor, weights: Tensor, slope: Tensor, target: Tensor) -> Tensor:
    step = _direction(xi, weights, slope)
    objective = weights.sum(1) - lam @ target
    descent = (step * slope).sum(1)
    for _ in range(HALVINGS):
        value = _weights(prior, xi, lam + step).sum(1) - (lam + step) @ target
        # Near the minimum the decrease is below rounding.
        worse = value > objective + 1e-4 * descent + 1e-13 * (1 + objective.abs())
        if not bool(worse.any()):
            break
        half = torch.where(worse, 0.5, 1.0).to(step)
        step, descent = step * half[:, None], descent * half
    return step
