"""What a flow keeps: declared by right-hand sides, checked by tests, reported after a run."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Self

import torch
from torch import Tensor

from operators import Laplacian, dirichlet_energy, mass_weighted_norm, rayleigh_quotient


class Law(Enum):
    """How an invariant behaves along the exact flow."""

    CONSERVED = "conserved"
    NON_INCREASING = "never increases"


@dataclass(frozen=True, eq=False)
class Invariant(ABC):
    """A quantity I(x) of fields on a domain, and the law it obeys.

    Args:
        laplacian: gives the masses and the energy.
        law: conserved, or never increasing.
    """

    laplacian: Laplacian
    law: Law = Law.CONSERVED

    @abstractmethod
    def measure(self, x: Tensor) -> Tensor:
        """I(x); (..., n, c) → (...) or (..., k)."""

    @abstractmethod
    def scale(self, x: Tensor) -> Tensor:
        """The sum of magnitudes that `measure` accumulates: its round-off is this times the unit round-off."""

    def violation(self, path: Tensor) -> float:
        """How far a path (T, ..., n, c) breaks the law, relative to `scale` at the start; 0 is perfect.

        For a conserved quantity max_t |I(t) − I(0)|; for one that never increases max_t (I(t) − min_{s ≤ t} I(s)).
        """
        values = self.measure(path.detach().to(_wide(path)))
        conserved = self.law is Law.CONSERVED
        excess = (values - values[0]).abs() if conserved else values - torch.cummin(values, dim=0).values
        scale = self.scale(path[0].detach().to(_wide(path)))
        return float((excess / scale.clamp(min=torch.finfo(scale.dtype).tiny)).max())

    def under(self, law: Law) -> Self:
        """The same quantity under another law."""
        return dataclasses.replace(self, law=law)

    def same_quantity(self, other: Invariant) -> bool:
        """Whether both measure the same quantity with the same operator."""
        return type(self) is type(other) and self.laplacian is other.laplacian

    @property
    def name(self) -> str:
        """The name in tables."""
        return _NAMES.get(type(self).__name__, type(self).__name__)


_NAMES = {
    "Norm": "norm",
    "Rayleigh": "Rayleigh quotient",
    "DirichletEnergy": "Dirichlet energy",
    "Mass": "mass",
    "MaximumPrinciple": "maximum principle",
}


class Norm(Invariant):
    """‖x‖_M = √(Σ m_i |x_i|²), over nodes and channels."""

    def measure(self, x: Tensor) -> Tensor:
        return mass_weighted_norm(self._mass(x), x)

    def scale(self, x: Tensor) -> Tensor:
        return self.measure(x)

    def _mass(self, x: Tensor) -> Tensor:
        return self.laplacian.mass.to(x.real.dtype)


class Rayleigh(Invariant):
    """R(x) = ⟨x, L x⟩_M / ⟨x, x⟩_M; its scale is the largest value it can take."""

    def measure(self, x: Tensor) -> Tensor:
        return rayleigh_quotient(self.laplacian.to_wide(x), x)

    def scale(self, x: Tensor) -> Tensor:
        return torch.full(x.shape[:-2], self.laplacian.norm_bound(), dtype=x.real.dtype)


class DirichletEnergy(Invariant):
    """E(x) = ½ ⟨x, L x⟩_M; its scale is the largest value it can take at this norm."""

    def measure(self, x: Tensor) -> Tensor:
        return dirichlet_energy(self.laplacian.to_wide(x), x)

    def scale(self, x: Tensor) -> Tensor:
        norm = mass_weighted_norm(self.laplacian.mass.to(x.real.dtype), x)
        return self.laplacian.norm_bound() * norm**2 / 2


class Mass(Invariant):
    """Σ m_i x_i of each channel; (..., n, c) → (..., c). Its scale is Σ m_i |x_i| of the fullest channel."""

    def measure(self, x: Tensor) -> Tensor:
        return (self.laplacian.mass.to(x.real.dtype)[:, None] * x).sum(dim=-2)

    def scale(self, x: Tensor) -> Tensor:
        return (self.laplacian.mass.to(x.real.dtype)[:, None] * x.abs()).sum(dim=-2).amax(dim=-1, keepdim=True)


class MaximumPrinciple(Invariant):
    """max_i x_i and −min_i x_i of each channel, neither of which increases: x stays in the hull of its start."""

    def measure(self, x: Tensor) -> Tensor:
        return torch.cat([x.amax(dim=-2), -x.amin(dim=-2)], dim=-1)

    def scale(self, x: Tensor) -> Tensor:
        largest = x.abs().amax(dim=-2)
        return torch.cat([largest, largest], dim=-1)


def _wide(x: Tensor) -> torch.dtype:
    return torch.complex128 if x.is_complex() else torch.float64


@dataclass(frozen=True)
class Check:
    """One declared invariant held against one path."""

    invariant: str
    law: str
    violation: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the violation is within the tolerance."""
        return self.violation <= self.tolerance


def check_invariants(invariants: tuple[Invariant, ...], path: Tensor, tolerance: float) -> list[Check]:
    """Measure every invariant on a path (T, ..., n, c), and hold it against one relative tolerance."""
    return [Check(i.name, i.law.value, i.violation(path), tolerance) for i in invariants]
