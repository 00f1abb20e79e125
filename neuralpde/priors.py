"""What is known of a field before it is observed: that it is smooth; and how much weight that gets."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from operators import Laplacian


@dataclass(frozen=True)
class Curve:
    """The solutions for every weight α at once, from a basis of the linearised problem.

    Args:
        values: σ², the eigenvalues of what the observations see, in the prior's own scale.
        coefficients: c, the observations in that basis.
        total: ‖b‖², the misfit of the mean of the prior.
        count: the number of observations.
    """

    values: Tensor
    coefficients: Tensor
    total: float
    count: int

    def misfit(self, weight: float) -> float:
        """‖J z − b‖²."""
        s, c2 = self.values, self.coefficients**2
        return max(self.total - float((c2 * (s + 2 * weight) / (s + weight) ** 2).sum()), 0.0)

    def penalty(self, weight: float) -> float:
        """‖z‖² in the prior's norm."""
        return float((self.coefficients**2 / (self.values + weight) ** 2).sum())

    def freedom(self, weight: float) -> float:
        """The degrees of freedom Σ σ²/(σ² + α) that the observations decide on."""
        return float((self.values / (self.values + weight)).sum())

    def weights(self, count: int = 200) -> list[float]:
        """Weights that matter, evenly in the logarithm."""
        top = float(self.values.max())
        if not top > 0:
            return [1.0]
        return [top * 10 ** (-14 + 16 * k / (count - 1)) for k in range(count)]


class WeightChoice(ABC):
    """A rule for the weight of a prior."""

    @abstractmethod
    def choose(self, curve: Curve) -> float:
        """The weight α > 0."""


@dataclass(frozen=True)
class Discrepancy(WeightChoice):
    """The largest weight whose misfit is no more than the noise: ‖residual/noise‖² = factor² · N (Morozov 1966).

    It trusts the noise level, and smooths rather too much than too little.

    Args:
        factor: 1, or more where the noise may be larger than believed.
    """

    factor: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.factor < math.inf:
            raise ValueError(f"factor must be positive, 1 where the noise level is known, not {self.factor}")

    def choose(self, curve: Curve) -> float:
        target = self.factor**2 * curve.count
        weights = curve.weights()
        low, high = math.log(weights[0]), math.log(weights[-1])
        if curve.misfit(math.exp(low)) >= target:
            return CrossValidation().choose(curve)  # No weight reaches the noise: the model or the noise level is wrong.
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if curve.misfit(math.exp(middle)) < target else (low, middle)
        return math.exp(low)


@dataclass(frozen=True)
class CrossValidation(WeightChoice):
    """The weight that would best predict left-out observations: min misfit/(N − γ degrees of freedom)².

    It needs no noise level (Golub, Heath and Wahba 1979, Technometrics 21).

    Args:
        caution: γ ≥ 1; at 1 few observations may be followed to the last, noise and all; 1.4 hardly ever does (Kim and Gu 2004,
            J. R. Stat. Soc. B 66).
    """

    caution: float = 1.4

    def __post_init__(self) -> None:
        if not 1 <= self.caution < math.inf:
            raise ValueError(f"caution must be at least 1, not {self.caution}: below, noise is followed")

    def choose(self, curve: Curve) -> float:
        def score(weight: float) -> float:
            left = curve.count - self.caution * curve.freedom(weight)
            return curve.misfit(weight) / left**2 if left > 0 else math.inf

        return min(curve.weights(), key=score)


@dataclass(frozen=True)
class LCurve(WeightChoice):
    """The corner of log penalty over log misfit, where its curvature is largest (Hansen 1992, SIAM Rev. 34)."""

    def choose(self, curve: Curve) -> float:
        weights = curve.weights()
        x = torch.tensor([curve.misfit(w) for w in weights], dtype=torch.float64).clamp(min=1e-300).log()
        y = torch.tensor([curve.penalty(w) for w in weights], dtype=torch.float64).clamp(min=1e-300).log()
        dx, dy = (torch.gradient(v)[0] for v in (x, y))
        ddx, ddy = (torch.gradient(v)[0] for v in (dx, dy))
        bend = (dx * ddy - dy * ddx) / (dx**2 + dy**2).clamp(min=1e-30) ** 1.5
        # Flat pieces have no direction to turn from.
        moving = (dx.abs() > 1e-6) & (dy.abs() > 1e-6)
        return weights[int(torch.where(moving, bend, -math.inf).argmax())]


class Smooth:
    """½ α ‖(1 + ℓ² L)^(k/2) (x − x̄)‖²_M: Tikhonov's prior in the norm of H¹ (k = 1) or H² (k = 2) of the surface.

    A Gaussian prior with mean x̄ and correlation length ℓ: nothing finer than ℓ is believed unless observed.

    Args:
        laplacian: L, self-adjoint in its mass.
        order: k ≥ 1.
        length: ℓ, in the units of the mesh; if absent, a tenth of √(Σ m_i), the size of the surface.
        weight: α > 0, or a rule to choose it: `Discrepancy()`, `CrossValidation()` or `LCurve()`.
        mean: x̄, if not the first guess.
    """

    def __init__(
        self,
        laplacian: Laplacian,
        order: int = 2,
        length: float | None = None,
        weight: float | WeightChoice = Discrepancy(),
        mean: Tensor | None = None,
    ) -> None:
        if isinstance(order, bool) or not isinstance(order, int) or order < 1:
            raise ValueError(f"order must be a positive integer, 1 for H¹ and 2 for H², not {order!r}")
        size = float(laplacian.mass.sum().detach()) ** 0.5
        self.length = size / 10 if length is None else float(length)
        if not (self.length > 0 and math.isfinite(self.length)):
            raise ValueError(f"length must be positive and finite, not {length}")
        if not isinstance(weight, WeightChoice) and not (weight > 0 and math.isfinite(weight)):
            raise ValueError(f"weight must be positive and finite, or a rule such as Discrepancy(), not {weight!r}")
        self.laplacian, self.order, self.weight, self.mean = laplacian, order, weight, mean

    def metric(self, x: Tensor) -> Tensor:
        """M (1 + ℓ² L)^k x; (..., n, c)."""
        for _ in range(self.order):
            x = x + self.length**2 * (self.laplacian @ x)
        return self.laplacian.mass[:, None] * x

    def inverse(self, g: Tensor) -> Tensor:
        """(1 + ℓ² L)^−k M⁻¹ g."""
        x = g / self.laplacian.mass[:, None]
        for _ in range(self.order):
            x = self.laplacian.solve(self.length**2, x)
        return x
