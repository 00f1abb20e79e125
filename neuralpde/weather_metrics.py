"""How good forecasts are: root mean square error, anomaly correlation and bias, weighted by area, as in WeatherBench 2."""

from __future__ import annotations

import torch
from torch import Tensor

from operators import FieldError


def area_mean(field: Tensor, weights: Tensor) -> Tensor:
    """Σ_i w_i x_i / Σ_i w_i over nodes, in float64; (..., n, c) → (..., c)."""
    w = weights.to(field.device, torch.float64)
    if field.ndim < 2 or field.shape[-2] != len(w):
        raise FieldError(f"the field must have shape (..., {len(w)}, c), as there are {len(w)} weights, not {tuple(field.shape)}")
    return torch.einsum("...nc,n->...c", field.double(), w / w.sum())


def rmse(prediction: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """√(mean over forecasts of the weighted mean square error), by lead time: the root is last.

    Args:
        prediction: (B, L, n, c), B forecasts at L lead times.
        truth: the same.
        weights: (n,): `place.areas`, or `LatLon.cell_weights` for grids (B, L, rows · columns, c).

    Returns:
        (L, c) in float64, in units of the variables. As in WeatherBench 2
        (Rasp et al. 2024, J. Adv. Model. Earth Syst. 16).
    """
    return Scores(weights).add(prediction, truth).rmse


def acc(prediction: Tensor, truth: Tensor, climatology: Tensor, weights: Tensor) -> Tensor:
    """The mean over forecasts of ⟨f', o'⟩ / √(⟨f', f'⟩ ⟨o', o'⟩), primes the differences from climatology; (L, c).

    ⟨·, ·⟩ is the weighted mean over nodes, and no mean is subtracted from the anomalies. Where either anomaly is zero
    everywhere, as that of the climatology itself, the correlation counts as 0.

    Args:
        prediction, truth, climatology: (B, L, n, c), the climatology that of the time that is forecast.
        weights: (n,), as in `rmse`.

    As in WeatherBench 2 (Rasp et al. 2024), which has no value there.
    """
    return Scores(weights).add(prediction, truth, climatology).acc


def bias(prediction: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """The mean of forecast − truth over forecasts and, weighted, over nodes; (B, L, n, c) → (L, c)."""
    return Scores(weights).add(prediction, truth).bias


class Scores:
    """The scores of many forecasts, which come in batches.

    Args:
        weights: (n,), as in `rmse`.
    """

    def __init__(self, weights: Tensor) -> None:
        if weights.ndim != 1 or not bool(torch.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
            raise FieldError("weights must have shape (n,), not negative and not all zero")
        self.weights = weights.double()
        self.count = 0
        self._sums: Tensor | None = None
        self._anomalies = True

    def add(self, prediction: Tensor, truth: Tensor, climatology: Tensor | None = None) -> Scores:
        """Take in forecasts (B, L, n, c); without a climatology there will be no `acc`."""
        for name, other in (("truth", truth), ("climatology", climatology)):
            if other is not None and other.shape != prediction.shape:
                raise FieldError(
                    f"the {name} must have the shape of the prediction, {tuple(prediction.shape)}, not {tuple(other.shape)}"
                )
        if prediction.ndim != 4 or prediction.shape[0] == 0:
            raise FieldError(f"forecasts must have shape (B, L, n, c) with B > 0, not {tuple(prediction.shape)}")
        f, o = prediction.detach().double(), truth.detach().double()
        sums = [area_mean((f - o).square(), self.weights), area_mean(f - o, self.weights)]
        if climatology is not None:
            reference = climatology.detach().double()
            f, o = f - reference, o - reference
            spread = (area_mean(f.square(), self.weights) * area_mean(o.square(), self.weights)).sqrt()
            together = area_mean(f * o, self.weights)
            # Not `spread > 0`: a forecast that is NaN must stay NaN.
            sums.append(torch.where(spread == 0, 0.0, together / torch.where(spread == 0, 1.0, spread)))
        else:
            self._anomalies = False
            sums.append(torch.zeros_like(sums[0]))
        batch = torch.stack(sums).sum(1)
        if self._sums is not None and self._sums.shape != batch.shape:
            raise FieldError(
                f"earlier forecasts had (leads, variables) {tuple(self._sums.shape[1:])}, these {tuple(batch.shape[1:])}"
            )
        self._sums = batch if self._sums is None else self._sums + batch
        self.count += len(prediction)
        return self

    @property
    def rmse(self) -> Tensor:
        """(L, c); see `rmse`."""
        return self._mean(0).sqrt()

    @property
    def bias(self) -> Tensor:
        """(L, c); see `bias`."""
        return self._mean(1)

    @property
    def acc(self) -> Tensor:
        """(L, c); see `acc`."""
        if not self._anomalies:
            raise FieldError("there is no anomaly without a climatology: add(prediction, truth, climatology)")
        return self._mean(2)

    def _mean(self, row: int) -> Tensor:
        if self._sums is None:
            raise FieldError("no forecast has been added yet")
        return self._sums[row] / self.count
