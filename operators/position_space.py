"""Where positional coordinates live, and how far apart they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.checks import DomainError, check_finite


class PositionSpace(ABC):
    """A space of positions u (..., d) with its distance and its geodesics."""

    @abstractmethod
    def distance(self, u: Tensor, v: Tensor) -> Tensor:
        """d(u, v) of shape (...), differentiable, with a finite gradient at u = v."""

    @abstractmethod
    def log(self, u: Tensor, v: Tensor) -> Tensor:
        """log_u v (..., d): the velocity at u of the geodesic that reaches v after unit time."""

    @abstractmethod
    def exp(self, u: Tensor, velocity: Tensor) -> Tensor:
        """exp_u(w) (..., d): where that geodesic ends."""

    def check(self, u: Tensor, name: str = "positions") -> None:
        """Raise DomainError unless every position lies in the space; here, unless it is finite."""
        check_finite(u, name)


@dataclass(frozen=True)
class Euclidean(PositionSpace):
    """ℝᵈ: straight lines."""

    def distance(self, u: Tensor, v: Tensor) -> Tensor:
        difference = u - v
        square = difference.square().sum(-1)
        # The gradient of a root at zero is infinite; there the distance is zero whichever way one goes.
        apart = square > 0
        return torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0)

    def log(self, u: Tensor, v: Tensor) -> Tensor:
        return v - u

    def exp(self, u: Tensor, velocity: Tensor) -> Tensor:
        return u + velocity


@dataclass(frozen=True)
class PoincareBall(PositionSpace):
    """The open unit ball with d(u, v) = arccosh(1 + 2 |u − v|² / ((1 − |u|²)(1 − |v|²))), curvature −1.

    With σ = |v − u|² / (a b), a = 1 − |u|² and b = 1 − |v|²: d = 2 arsinh √σ, which keeps its digits for near points, and

        log_u v = arsinh(√σ)/√σ · (a (v − u) − |v − u|² u) / (b √(1 + σ)),
        exp_u w = u ⊕ tanh(|w|/a) w/|w|,   u ⊕ y = u + a (y + |y|² u) / (a (1 − |y|²) + |u + y|²).

    A distance is as sharp as the coordinates are: a point at distance D from the origin lies 2 e^−D from the boundary, so
    float32 holds D up to 16 and float64 up to 36, with about e^D ε relative error there.

    Invariants: isometric under every Möbius translation u ↦ a ⊕ u; ‖log_u v‖ · 2/(1 − |u|²) = d(u, v); exp never leaves the ball.

    Source: A. Ungar, Analytic hyperbolic geometry, 2005, ch. 3 (⊕); O. Ganea, G. Bécigneul, T. Hofmann, Hyperbolic neural
    networks, NeurIPS 2018, eqs. 4 and 12 (log, exp); M. Nickel, D. Kiela, Poincaré embeddings, NeurIPS 2017, eq. 1 (d).
    """

    def distance(self, u: Tensor, v: Tensor) -> Tensor:
        """d(u, v) ≥ 0 of shape (...); its gradient at u = v is zero, one of those that the cone's tip allows."""
        ratio = _square(v - u) / (_room(u) * _room(v))
        apart = ratio > 0
        return torch.where(apart, 2 * torch.where(apart, ratio, 1.0).sqrt().asinh(), 0.0)

    def log(self, u: Tensor, v: Tensor) -> Tensor:
        """log_u v (..., d), in the coordinates of the ball: its length in the metric is 2 |w| / (1 − |u|²) = d(u, v)."""
        a, b, gap = _room(u)[..., None], _room(v)[..., None], v - u
        square = _square(gap)[..., None]
        ratio = square / (a * b)
        direction = (a * gap - square * u) / (b * (1 + ratio).sqrt())
        return _asinh_over_root(ratio) * direction

    def exp(self, u: Tensor, velocity: Tensor) -> Tensor:
        """exp_u w (..., d); what would round onto the boundary stops just inside, see `inside`."""
        a = _room(u)[..., None]
        # Beyond 40 a the tanh is one to the last bit; the square of what is far longer would overflow.
        scaled = velocity * (40 * a / velocity.abs().amax(-1, keepdim=True)).detach().clamp_max(1) / a
        length2 = _square(scaled)[..., None]
        y = _tanh_over_root(length2) * scaled
        moving = length2 > 0
        decay = torch.exp(-2 * torch.where(moving, length2, 1.0).sqrt())
        # 1 − tanh² without its cancellation.
        left = torch.where(moving, 4 * decay / (1 + decay) ** 2, 1.0)
        return self.inside(_translate(u, y, left))

    def add(self, u: Tensor, v: Tensor) -> Tensor:
        """u ⊕ v (..., d), Möbius addition: the translation that takes the origin to u, at v."""
        return self.inside(_translate(u, v, _room(v)[..., None]))

    def factor(self, u: Tensor) -> Tensor:
        """λ_u = 2 / (1 − |u|²) of shape (...): the metric is λ² times the Euclidean one, its gradient λ⁻² times."""
        return 2 / _room(u)

    def inside(self, u: Tensor) -> Tensor:
        """u where |u|² ≤ 1 − 8ε, otherwise the point of that radius in the same direction; ε is the precision of u."""
        square = _square(u)[..., None]
        limit = 1 - 8 * torch.finfo(u.dtype).eps
        beyond = square > limit
        # Twice ε below the limit, so that the rounded product lies inside it.
        pulled = u * (limit - 2 * torch.finfo(u.dtype).eps) ** 0.5 * torch.where(beyond, square, 1.0).rsqrt()
        return torch.where(beyond, pulled, u)

    def check(self, u: Tensor, name: str = "positions") -> None:
        """Raise DomainError unless every position (..., d) is finite with |u| < 1."""
        if not u.is_floating_point() or u.ndim == 0 or u.shape[-1] == 0:
            raise DomainError(
                f"{name} in the Poincaré ball must be floating point of shape (..., d), not {u.dtype} {tuple(u.shape)}"
            )
        outside = ~(_square(u.detach()) < 1)
        if bool(outside.any()):
            where = outside.reshape(-1).nonzero()[0, 0].item()
            node = f", the first at node {int(where) % outside.shape[-1]}" if outside.ndim else ""
            worst = float(u.detach().reshape(-1, u.shape[-1])[int(where)].norm())
            raise DomainError(
                f"{int(outside.sum())} {name} lie outside the open unit ball{node} (|u| = {worst:.6g}): scale them into it, "
                "such as with 0.9 u / max |u|, or use Euclidean()"
            )


def check_space(space: object) -> None:
    """Raise DomainError unless this is a space, and not its class or its name."""
    if not isinstance(space, PositionSpace):
        raise DomainError(f"the space of positions must be an object such as Euclidean() or PoincareBall(), not {space!r}")


def _square(u: Tensor) -> Tensor:
    return u.square().sum(-1)


def _room(u: Tensor) -> Tensor:
    """1 − |u|² > 0."""
    # No point of the ball is so near to its boundary; the floor keeps a sum in another order from giving 1 / 0.
    return (1 - _square(u)).clamp_min(torch.finfo(u.dtype).eps / 4)


def _translate(u: Tensor, y: Tensor, left: Tensor) -> Tensor:
    """u ⊕ y, given 1 − |y|² (..., 1)."""
    together = u + y
    a = _room(u)[..., None]
    return u + a * (together - left * u) / (a * left + _square(together)[..., None])


def _asinh_over_root(s: Tensor) -> Tensor:
    """arsinh(√s)/√s, by its series near zero, where the derivative of the root is infinite."""
    near = s < 1e-3
    root, s = torch.where(near, 1.0, s).sqrt(), torch.where(near, s, 0.0)
    series = 1 + s * (-1 / 6 + s * (3 / 40 + s * (-5 / 112 + s * (35 / 1152 - s * 63 / 2816))))
    return torch.where(near, series, root.asinh() / root)


def _tanh_over_root(s: Tensor) -> Tensor:
    """tanh(√s)/√s, by its series near zero."""
    near = s < 1e-3
    root, s = torch.where(near, 1.0, s).sqrt(), torch.where(near, s, 0.0)
    series = 1 + s * (-1 / 3 + s * (2 / 15 + s * (-17 / 315 + s * (62 / 2835 - s * 1382 / 155925))))
    return torch.where(near, series, root.tanh() / root)
