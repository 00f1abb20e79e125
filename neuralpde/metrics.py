"""How far a rollout is from the truth, as R-UniMesh reports it."""

from __future__ import annotations

import torch
from torch import Tensor

from operators import Laplacian, SparseOperator, adjacency_of


def nrmse(prediction: Tensor, truth: Tensor) -> Tensor:
    """√(mean (y' − y)² / (mean y² + 1e-8)) of each time, over nodes and channels; (T, ..., n, c) → (T, ...).

    The zero predictor scores 1 at every time.
    """
    error = (prediction - truth).square().mean(dim=(-2, -1))
    return torch.sqrt(error / (truth.square().mean(dim=(-2, -1)) + 1e-8))


class PublishedRayleigh:
    """R(x) = Tr(xᵀ (I − D^-½ W D^-½) x) / ‖x‖², W the weights of the robust Laplacian, D = max(Σ_j W_ij, 1).

    The plain, unweighted quotient of R-UniMesh, its clamp included. A zero field scores 0, one that is not finite NaN.
    """

    def __init__(self, laplacian: Laplacian) -> None:
        adjacency = adjacency_of(laplacian)
        root = adjacency.row_sums().clamp(min=1.0).rsqrt()
        self.similarity: SparseOperator = adjacency.scaled(root, root)

    def __call__(self, x: Tensor) -> Tensor:
        """(..., n, c) → (...)."""
        norm = x.square().sum(dim=(-2, -1))
        overlap = (x * (self.similarity @ x)).sum(dim=(-2, -1))
        empty = norm == 0
        return torch.where(empty, 0.0, 1 - overlap / torch.where(empty, 1.0, norm))


def rayleigh_error(prediction: Tensor, truth: Tensor, quotient: PublishedRayleigh) -> Tensor:
    """|R(y') − R(y)| of each time; (T, ..., n, c) → (T, ...)."""
    return (quotient(prediction) - quotient(truth)).abs()


def smape(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean of 2 |y' − y| / max(|y'| + |y|, 1.17e-6) of each time, over nodes and channels; (T, ..., n, c) → (T, ...).

    The symmetric mean absolute percentage error as a fraction in [0, 2]; two zeros agree.
    """
    size = (prediction.abs() + truth.abs()).clamp(min=1.17e-6)
    return (2 * (prediction - truth).abs() / size).mean(dim=(-2, -1))


def mass_error(prediction: Tensor, truth: Tensor, mass: Tensor) -> Tensor:
    """|Σ m (y' − y)| / Σ m |y| of each time, for masses m (n,); (T, ..., n, c) → (T, ...). Two fields of zeros agree."""
    lost = (mass[:, None] * (prediction - truth)).sum(dim=(-2, -1)).abs()
    size = (mass[:, None] * truth.abs()).sum(dim=(-2, -1))
    return torch.where(lost == 0, 0.0, lost / size)
