"""A metriplectic generator in the climate's own covariance: fields on their leading patterns, turned and damped, never grown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.linalg import logm
from torch import Tensor

from operators.checks import FieldError

# Added to covariances of whitened coordinates, whose variances are one.
RIDGE = 1e-2
# The least damping of any combination of patterns, in 1/step: what the past cannot tell fades after so many steps.
LEAST_DAMPING = 1e-4


class Patterns:
    """The patterns that explain most of the variance of anomalies over area, and coordinates z on them of unit variance.

    Args:
        samples: anomalies (S, n, c), some hundreds.
        weights: shares of area (n, 1).
        count: m, fewer where there are fewer samples.
    """

    def __init__(self, samples: Tensor, weights: Tensor, count: int) -> None:
        if len(samples) < 2:
            raise FieldError(f"patterns need at least two samples, not {len(samples)}")
        self.weights = weights.double().sqrt()
        spread = (weights * samples.square()).sum(1).mean(0).double().sqrt()
        # Variables count alike, each in units of its own variation.
        self.spread = torch.where(spread > 0, spread, 1.0)
        flat = self._flat(samples)
        gram = flat @ flat.T / len(flat)
        values, vectors = torch.linalg.eigh(gram)
        kept = min(count, int((values > 1e-9 * values[-1]).sum()))
        self.deviation = values[-kept:].flip(0).sqrt()
        self.patterns = (vectors[:, -kept:].flip(1).T @ flat) / (self.deviation[:, None] * len(flat) ** 0.5)
        self.shape = samples.shape[1:]

    def coordinates(self, anomalies: Tensor) -> Tensor:
        """z (..., m), in float64."""
        z: Tensor = self._flat(anomalies) @ self.patterns.T / self.deviation
        return z

    def fields(self, z: Tensor) -> Tensor:
        """(..., m) → anomalies (..., n, c), in float32."""
        flat: Tensor = (z * self.deviation) @ self.patterns
        fields: Tensor = flat.reshape(*flat.shape[:-1], *self.shape) * self.spread / self.weights
        return fields.float()

    def _flat(self, anomalies: Tensor) -> Tensor:
        return (anomalies.double() * self.weights / self.spread).flatten(-2)


class MetriplecticGenerator:
    """dz/dt = J z − R z with J skew and R positive definite, so that |z| never grows, and every forecast ends at z = 0.

    For a stationary linear climate with covariance C the generator obeys G C + C Gᵀ = −Q ≤ 0: in coordinates of unit variance its
    symmetric part is not positive. So this form restricts nothing, and a short sample cannot make it grow.

    Fitted to pairs of states `lag` steps apart: G = log(C_lag (C_0 + ridge)⁻¹) / lag, J its skew part, −R its symmetric part
    with the rates that would grow or stand still set to the least damping (Penland and Sardeshmukh 1995, J. Climate 8, the
    linear inverse model, made dissipative).

    Args:
        series: coordinates (T, m) of trajectories, one step apart; at least one longer than the lag.
        lag: in steps.
    """

    def __init__(self, series: Sequence[Tensor], lag: int) -> None:
        long = [z for z in series if len(z) > lag]
        if not long:
            raise FieldError(f"no trajectory is longer than the lag of {lag} steps: take longer ones, or a shorter lag")
        before, after = torch.cat([z[:-lag] for z in long]), torch.cat([z[lag:] for z in long])
        eye = torch.eye(before.shape[1], dtype=before.dtype)
        now, then = before.T @ before / len(before), after.T @ before / len(before)
        propagator = then @ torch.linalg.inv(now + RIDGE * eye)
        # A negative real eigenvalue has a complex logarithm; its real part is the best real generator.
        generator = torch.from_numpy(np.real(logm(propagator.numpy()))) / lag
        self.J = (generator - generator.T) / 2
        rates, axes = torch.linalg.eigh(-(generator + generator.T) / 2)
        self.R = (axes * rates.clamp(min=LEAST_DAMPING)) @ axes.T

    def propagators(self, steps: int) -> Tensor:
        """exp(k (J − R)) for k = 1 ... steps, (steps, m, m)."""
        ahead = torch.arange(1, steps + 1, dtype=self.J.dtype)[:, None, None]
        result: Tensor = torch.linalg.matrix_exp(ahead * (self.J - self.R))
        return result
