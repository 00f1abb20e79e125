"""What a flow keeps: declared by right-hand sides, checked by tests, watched and plotted during a run."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

import torch
from torch import Tensor

from integrators import State
from integrators.state import parts_of, state_map
from operators import FieldError, Laplacian, dirichlet_energy, mass_weighted_norm, rayleigh_quotient


class Law(Enum):
    """How a quantity behaves along the exact flow."""

    CONSERVED = "conserved"
    NON_INCREASING = "never increases"
    NON_DECREASING = "never decreases"

    @property
    def reversed(self) -> Law:
        """The law of the flow run backwards."""
        opposite = {Law.NON_INCREASING: Law.NON_DECREASING, Law.NON_DECREASING: Law.NON_INCREASING}
        return opposite.get(self, self)


class Invariant(ABC):
    """A quantity I(x) of a state, and the law it obeys. A new one is a frozen dataclass with a field `law`."""

    law: Law

    @abstractmethod
    def measure(self, x: State) -> Tensor:
        """I(x); (..., n, c) → (...) or (..., k). Real, unless the law is that it is conserved."""

    @abstractmethod
    def scale(self, x: State) -> Tensor:
        """The sum of magnitudes that `measure` accumulates: its round-off is this times the unit round-off."""

    def violation(self, path: State) -> float:
        """How far a path (T, ..., n, c) breaks the law, relative to `scale` at the start; 0 is perfect.

        For a conserved quantity max_t |I(t) − I(0)|; for one that never increases max_t (I(t) − min_{s ≤ t} I(s)), for one
        that never decreases the same with −I.
        """
        wide = state_map(lambda part: part.detach().to(_wide(part)), path)
        # A quantity may have learned coefficients of its own.
        with torch.no_grad():
            return float(self.excess(self.measure(wide), self.scale(state_map(lambda part: part[0], wide))).max())

    def excess(self, values: Tensor, scale: Tensor) -> Tensor:
        """How far values (T, ...) break the law at each time, in units of `scale`."""
        if self.law is Law.CONSERVED:
            broken = (values - values[0]).abs()
        elif self.law is Law.NON_INCREASING:
            broken = values - torch.cummin(values, dim=0).values
        else:
            broken = torch.cummax(values, dim=0).values - values
        return broken / scale.clamp(min=torch.finfo(scale.dtype).tiny)

    def under(self, law: Law) -> Self:
        """The same quantity under another law."""
        return dataclasses.replace(self, law=law)  # type: ignore[type-var]

    def same_quantity(self, other: Invariant) -> bool:
        """Whether both measure the same quantity, so that their rates of change add up when two flows do."""
        if type(self) is not type(other):
            return False
        names = [field.name for field in dataclasses.fields(self) if field.name != "law"]  # type: ignore[arg-type]
        return all(_same(getattr(self, name), getattr(other, name)) for name in names)

    @property
    def name(self) -> str:
        """The name in tables."""
        return type(self).__name__


@dataclass(frozen=True, eq=False)
class LaplacianInvariant(Invariant):
    """A quantity of fields on a domain with a Laplacian, which gives the masses and the energy.

    Args:
        laplacian: L = M⁻¹ C.
        law: conserved, or one-sided.
    """

    laplacian: Laplacian
    law: Law = Law.CONSERVED

    def _mass(self, x: Tensor) -> Tensor:
        return self.laplacian.mass.to(x.real.dtype)


class MassInvariant(LaplacianInvariant):
    """A quantity that knows of the Laplacian the masses alone: Laplacians of equal masses measure the same."""

    def same_quantity(self, other: Invariant) -> bool:
        return (
            type(self) is type(other)
            and isinstance(other, LaplacianInvariant)
            and _same(self.laplacian.mass, other.laplacian.mass)
        )


class NodeInvariant(LaplacianInvariant):
    """A quantity of the values at the nodes alone, whatever the Laplacian."""

    def same_quantity(self, other: Invariant) -> bool:
        return (
            type(self) is type(other) and isinstance(other, LaplacianInvariant) and self.laplacian.shape == other.laplacian.shape
        )


class Norm(MassInvariant):
    """‖x‖_M = √(Σ m_i |x_i|²), over nodes and channels."""

    name = "norm"

    def measure(self, x: State) -> Tensor:
        x = one_field(x)
        return mass_weighted_norm(self._mass(x), x)

    def scale(self, x: State) -> Tensor:
        return self.measure(x)


class Rayleigh(LaplacianInvariant):
    """R(x) = ⟨x, L x⟩_M / ⟨x, x⟩_M; its scale is the largest value it can take.

    With L = M⁻¹ C this is the M-Rayleigh quotient; with `L.symmetrized()`, whose mass is one, the plain one.
    """

    name = "Rayleigh quotient"

    def measure(self, x: State) -> Tensor:
        x = one_field(x)
        # A field that has died out is no fault of the flow: it counts as a constant one, for 0/0 has no value.
        dead = (x == 0).all(dim=-1, keepdim=True).all(dim=-2, keepdim=True)
        return rayleigh_quotient(self.laplacian.to_wide(x), torch.where(dead, torch.ones_like(x), x))

    def scale(self, x: State) -> Tensor:
        x = one_field(x)
        return torch.full(x.shape[:-2], self.laplacian.norm_bound(), dtype=x.real.dtype, device=x.device)


class DirichletEnergy(LaplacianInvariant):
    """E(x) = ½ ⟨x, L x⟩_M; its scale is the largest value it can take at this norm."""

    name = "Dirichlet energy"

    def measure(self, x: State) -> Tensor:
        x = one_field(x)
        return dirichlet_energy(self.laplacian.to_wide(x), x)

    def scale(self, x: State) -> Tensor:
        x = one_field(x)
        return self.laplacian.norm_bound() * mass_weighted_norm(self._mass(x), x) ** 2 / 2


class Mass(MassInvariant):
    """Σ m_i x_i of each channel (of every part); (..., n, c) → (..., c). Its scale is Σ m_i |x_i| of the fullest channel."""

    name = "mass"

    def measure(self, x: State) -> Tensor:
        x = all_channels(x)
        return (self._mass(x)[:, None] * x).sum(dim=-2)

    def scale(self, x: State) -> Tensor:
        x = all_channels(x)
        return (self._mass(x)[:, None] * x.abs()).sum(dim=-2).amax(dim=-1, keepdim=True)


class Entropy(MassInvariant):
    """S(x) = −Σ m_i x_i log x_i of each channel, for x ≥ 0 (0 log 0 = 0; what lies below zero counts as zero).

    Diffusion with weights that are not negative never decreases it: it averages, and −s log s is concave.
    """

    name = "entropy"

    def measure(self, x: State) -> Tensor:
        x = one_field(x)
        positive = x.clamp(min=0)
        return -(self._mass(x)[:, None] * torch.xlogy(positive, positive)).sum(dim=-2)

    def scale(self, x: State) -> Tensor:
        x = one_field(x)
        positive = x.clamp(min=0)
        size = torch.xlogy(positive, positive).abs() + positive
        return (self._mass(x)[:, None] * size).sum(dim=-2)


class MaximumPrinciple(NodeInvariant):
    """max_i x_i and −min_i x_i of each channel (of every part), neither of which increases: x stays in the hull of its start."""

    name = "maximum principle"

    def measure(self, x: State) -> Tensor:
        x = all_channels(x)
        return torch.cat([x.amax(dim=-2), -x.amin(dim=-2)], dim=-1)

    def scale(self, x: State) -> Tensor:
        x = all_channels(x)
        largest = x.abs().amax(dim=-2)
        return torch.cat([largest, largest], dim=-1)


class Positivity(NodeInvariant):
    """max(0, −min_i x_i) of each channel, how far it reaches below zero: it never increases, so that x ≥ 0 stays."""

    name = "positivity"

    def measure(self, x: State) -> Tensor:
        x = one_field(x)
        return (-x.amin(dim=-2)).clamp(min=0)

    def scale(self, x: State) -> Tensor:
        x = one_field(x)
        return x.abs().amax(dim=-2)


@dataclass(frozen=True, eq=False)
class Part(Invariant):
    """A quantity of one part of a tuple state.

    Args:
        index: which part.
        invariant: the quantity, and its law.
        label: what the part is called in tables, such as "u"; its index if empty.
    """

    index: int
    invariant: Invariant
    label: str = ""

    @property
    def law(self) -> Law:  # type: ignore[override]
        """That of the quantity."""
        return self.invariant.law

    def measure(self, x: State) -> Tensor:
        return self.invariant.measure(parts_of(x)[self.index])

    def scale(self, x: State) -> Tensor:
        return self.invariant.scale(parts_of(x)[self.index])

    def under(self, law: Law) -> Part:
        return dataclasses.replace(self, invariant=self.invariant.under(law))

    def same_quantity(self, other: Invariant) -> bool:
        return isinstance(other, Part) and self.index == other.index and self.invariant.same_quantity(other.invariant)

    @property
    def name(self) -> str:
        return f"{self.invariant.name} of {self.label or f'part {self.index}'}"


def all_channels(x: State) -> Tensor:
    """The channels of all parts of a state side by side; for what holds of each channel by itself."""
    return torch.cat(x, dim=-1) if isinstance(x, tuple) else x


def one_field(x: State) -> Tensor:
    """The field that a state of one part is."""
    parts = parts_of(x)
    if len(parts) != 1:
        raise FieldError(f"this is a quantity of one field, and the state has {len(parts)}: say of which, as in Part(0, Norm(L))")
    return parts[0]


def _wide(x: Tensor) -> torch.dtype:
    return torch.complex128 if x.is_complex() else torch.float64


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a is b or (a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and torch.equal(a, b))
    if isinstance(a, Invariant) and isinstance(b, Invariant):
        return a.same_quantity(b)
    return a is b or (isinstance(a, (int, float, str)) and a == b)


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


def check_invariants(invariants: tuple[Invariant, ...], path: State, tolerance: float) -> list[Check]:
    """Measure every invariant on a path (T, ..., n, c), and hold it against one relative tolerance."""
    return [Check(i.name, i.law.value, i.violation(path), tolerance) for i in invariants]
