"""Polynomials fitted to the neighbours of scattered points, in local coordinates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from operators.checks import DomainError

# Numbers in one batch of fits: their memory does not grow with the cloud.
BATCH = 2**23


def batches(nodes: Tensor, each: int, most: int = BATCH) -> Sequence[Tensor]:
    """The nodes in parts, for which `each` numbers a node are no more than a batch."""
    return torch.split(nodes, max(1, most // max(each, 1)))


class Fit:
    """Least squares in local coordinates at the nodes (b,) with neighbours (b, k)."""

    def __init__(
        self,
        points: Tensor,
        neighbours: Tensor,
        valid: Tensor,
        monomials: list[tuple[int, ...]],
        weight: Callable[[Tensor], Tensor] | None,
        nodes: Tensor | None = None,
    ) -> None:
        here = points if nodes is None else points[nodes]
        self.offsets = points[neighbours] - here[:, None]
        distance = torch.linalg.vector_norm(self.offsets, dim=2)
        self.radius = distance.amax(1)
        self.local, ratio = self.offsets / self.radius[:, None, None], distance / self.radius[:, None]
        # A padded ratio is zero, at which a weight such as 1/r has no value.
        omega = torch.exp(-4 * ratio**2) if weight is None else weight(torch.where(valid, ratio, 1.0)).to(ratio.dtype)
        if not bool(((omega[valid] >= 0) & (omega[valid] < torch.inf) | torch.isnan(ratio[valid])).all()):
            raise DomainError(
                "a least-squares weight is negative, infinite or NaN: take one that is finite also for coincident points"
            )
        self.root = torch.where(valid, omega.sqrt(), 0.0)
        columns: dict[tuple[int, ...], Tensor] = {(): self.root}
        for axes in monomials:
            columns[axes] = columns[axes[:-1]] * self.local[..., axes[-1]]
        matrix = torch.stack([columns[axes] for axes in monomials], dim=2)
        # Rows of zeros change no fit, and make a neighbourhood of too few points singular instead of short.
        short = len(monomials) - matrix.shape[1]
        self.matrix = nn.functional.pad(matrix, (0, 0, 0, short)) if short > 0 else matrix
        self.k = neighbours.shape[1]
        basis, self.upper = torch.linalg.qr(torch.nan_to_num(self.matrix))
        self.basis = basis[:, : self.k]

    def columns(self) -> Tensor:
        """ξ^α, (b, k, m)."""
        root = torch.where(self.root > 0, self.root, 1.0)
        return self.matrix[:, : self.k] / root[..., None]

    def condition(self) -> Tensor:
        """The condition number of √ω ξ^α, (b,); infinite or NaN where all neighbours are the node itself."""
        singular = torch.linalg.svdvals(self.upper)
        finite = torch.isfinite(self.matrix).all(2).all(1)
        return torch.where(finite, singular[:, 0] / singular[:, -1], torch.inf)

    def coefficients(self) -> Tensor:
        """R⁻¹ Qᵀ √ω, transposed: (b, k, m)."""
        solved: Tensor = torch.linalg.solve_triangular(self.upper, self.basis.mT, upper=True)
        return self.root[..., None] * solved.mT
