"""How much to trust a forecast so far ahead: anomalies scaled back towards climatology, by training."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.checks import FieldError

# Of the mean square of each predictor, added to it: what is nearly a copy of another predictor gets no wild weight.
RIDGE = 1e-4


class Shrinkage:
    """The weights a_j of anomalies p_j that make Σ a_j p_j nearest to the true anomaly, for each lead time and variable.

    Least squares over all forecasts that were added and over the nodes by area. One predictor alone gets the factor
    ⟨p, y⟩ / ⟨p, p⟩, which takes a forecast that knows nothing to climatology. Over what was added, the mean square error is
    no more than that of climatology and that of every predictor, up to the ridge.

    Args:
        weights: (n,) or (n, 1), shares of the area.
        ridge: relative to the mean square of each predictor.
    """

    def __init__(self, weights: Tensor, ridge: float = RIDGE) -> None:
        if not ridge >= 0:
            raise FieldError(f"the ridge must not be negative, not {ridge}")
        self.weights = weights.double().reshape(-1)
        self.ridge = ridge
        self._products: Tensor | None = None
        self._targets: Tensor | None = None

    def add(self, predictors: Tensor, truth: Tensor) -> Shrinkage:
        """Take in anomalies (B, L, n, c, j) and the true ones (B, L, n, c)."""
        if predictors.shape[:-1] != truth.shape or truth.shape[2] != len(self.weights):
            raise FieldError(f"predictors {tuple(predictors.shape)} do not fit the truth {tuple(truth.shape)}")
        p, y = predictors.double(), truth.double()
        weighted = self.weights[:, None, None] * p
        products = torch.einsum("blncj,blnck->lcjk", weighted, p)
        targets = torch.einsum("blncj,blnc->lcj", weighted, y)
        self._products = products if self._products is None else self._products + products
        self._targets = targets if self._targets is None else self._targets + targets
        return self

    def solve(self) -> Tensor:
        """The weights (L, c, j), in float64.

        Raises:
            FieldError: nothing was added, or what was added is not finite.
        """
        if self._products is None or self._targets is None:
            raise FieldError("nothing was added to fit the weights to")
        if not bool(torch.isfinite(self._products).all() and torch.isfinite(self._targets).all()):
            raise FieldError("a predictor is not finite: the flow diverged on the training windows; shorten its time step")
        scale = self._products.diagonal(dim1=-2, dim2=-1)
        # Predictors differ in size by orders of magnitude; one that is zero everywhere gets no weight.
        root = torch.where(scale > 0, scale, 1.0).sqrt()
        correlation = self._products / (root[..., :, None] * root[..., None, :])
        eye = torch.eye(scale.shape[-1], dtype=torch.float64)
        shift = torch.where(scale > 0, self.ridge, 1.0)[..., None] * eye
        solved: Tensor = torch.linalg.solve(correlation + shift, (self._targets / root)[..., None])[..., 0] / root
        return solved


def combined(predictors: Tensor, weights: Tensor) -> Tensor:
    """Σ_j a_j p_j: (B, L, n, c, j) and (L, c, j) → (B, L, n, c)."""
    return torch.einsum("blncj,lcj->blnc", predictors, weights.to(predictors.dtype))
