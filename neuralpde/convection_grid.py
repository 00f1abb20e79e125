"""The grid in the plane on which a latent field lives: its differences, its waves, and reading it at sensors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from operators import DomainError, SparsityPattern

# Weights at the offsets −2, …, 2, in units of the spacing: first to fourth differences.
_STARS = torch.tensor(
    [[0, -1 / 2, 0, 1 / 2, 0], [0, 1, -2, 1, 0], [-1 / 2, 1, 0, -1, 1 / 2], [1, -4, 6, -4, 1]], dtype=torch.float64
)


@dataclass(frozen=True, eq=False)
class FieldGrid:
    """p × p points over a box, the second axis fastest.

    Args:
        low, high: (2,) float64, opposite corners, themselves points of the grid.
        count: p.
    """

    low: Tensor
    high: Tensor
    count: int

    def __post_init__(self) -> None:
        if self.count < 6:
            raise DomainError(f"a grid needs at least 6 points an axis for fourth differences, not {self.count}")
        if not bool((self.high > self.low).all()):
            raise DomainError("the sensors stand on a line along an axis: a field in the plane cannot be told from them")

    @classmethod
    def around(cls, points: Tensor, count: int) -> FieldGrid:
        """Over the bounding box of points (n, 2)."""
        return cls(points.amin(0), points.amax(0), count)

    @property
    def spacing(self) -> Tensor:
        """(2,)."""
        return (self.high - self.low) / (self.count - 1)

    @property
    def points(self) -> Tensor:
        """(p², 2)."""
        line = torch.arange(self.count, dtype=torch.float64)
        return self.low + self.spacing * torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=-1).reshape(-1, 2)

    def differences(self) -> tuple[SparsityPattern, Tensor]:
        """One pattern and the entries (6, E) of ∂x, hx² ∂xxx, ∂y, hy² ∂yyy, Δ and −(hx² ∂xxxx + hy² ∂yyyy), each (p², p²).

        ∂ are central differences of second order, so adding any multiple of the higher ones to the lower leaves these exact on
        polynomials of degree 2. Beyond the edge the field continues as it is at the edge.
        """
        p = self.count
        line = torch.arange(p)
        i, j = (each.reshape(-1) for each in torch.meshgrid(line, line, indexing="ij"))
        rows, columns, values = [], [], []
        for axis, h in enumerate(self.spacing.tolist()):
            for k, offset in enumerate(range(-2, 3)):
                there = ((i + offset).clamp(0, p - 1), j) if axis == 0 else (i, (j + offset).clamp(0, p - 1))
                first, second, third, fourth = _STARS[:, k].tolist()
                value = torch.zeros(6, dtype=torch.float64)
                value[2 * axis], value[2 * axis + 1] = first / h, third / h
                value[4], value[5] = second / h**2, -fourth / h**2
                rows.append(i * p + j)
                columns.append(there[0] * p + there[1])
                values.append(value[:, None].expand(-1, p * p))
        key, place = torch.unique(torch.cat(rows) * p * p + torch.cat(columns), return_inverse=True)
        entries = torch.zeros(6, len(key), dtype=torch.float64).index_add_(1, place, torch.cat(values, dim=1))
        return SparsityPattern(key // p**2, key % p**2, (p * p, p * p)), entries

    def waves(self, highest: int, margin: float) -> tuple[Tensor, Tensor]:
        """Cosines and sines (p², m) with wave numbers up to `highest` an axis in a box wider by `margin`, and |k| of each (m,).

        In the wider box they need not be periodic here.
        """
        line = torch.arange(-highest, highest + 1, dtype=torch.float64)
        k = torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=-1).reshape(-1, 2)
        half = (k[:, 0] > 0) | ((k[:, 0] == 0) & (k[:, 1] > 0))
        k = 2 * math.pi * k[half] / ((self.high - self.low) * (1 + margin))
        phase = (self.points - self.low) @ k.T
        size = torch.linalg.vector_norm(k, dim=1)
        waves = torch.cat([torch.ones(len(phase), 1, dtype=torch.float64), torch.cos(phase), torch.sin(phase)], dim=1)
        return waves, torch.cat([torch.zeros(1, dtype=torch.float64), size, size])

    def smooth(self, degree: int) -> Tensor:
        """Products of Chebyshev polynomials of degree up to `degree` an axis, (p², (degree + 1)²), higher ones smaller."""
        local = 2 * (self.points - self.low) / (self.high - self.low) - 1
        powers = torch.arange(degree + 1, dtype=torch.float64)
        lines = torch.cos(powers * torch.acos(local.clamp(-1, 1))[..., None]) / (1 + powers)
        return torch.einsum("pi,pj->pij", lines[:, 0], lines[:, 1]).flatten(1)

    def read(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Which grid points (n, 16) with which weights (n, 16) give the field at points (n, 2), by cubic interpolation.

        Exact on products of cubic polynomials. Points outside the box are moved to its edge.
        """
        place = ((points - self.low) / self.spacing).clamp(0, self.count - 1)
        first = (place.floor() - 1).clamp(0, self.count - 4)
        local = place - first
        nodes = torch.arange(4, dtype=torch.float64)
        weights = torch.stack([torch.stack([(local - b) / (a - b) for b in nodes if b != a]).prod(0) for a in nodes], dim=-1)
        lines = first.long()[..., None] + torch.arange(4)
        index = lines[:, 0, :, None] * self.count + lines[:, 1, None, :]
        return index.flatten(1), (weights[:, 0, :, None] * weights[:, 1, None, :]).flatten(1)
