"""Invariant regions: bounds that a flow does not leave once it is within them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from integrators import State
from integrators.state import parts_of
from neuralpde.invariants import Invariant, Law


@dataclass(frozen=True, eq=False)
class InvariantRegion(Invariant):
    """How far a state lies outside lows ≤ x ≤ highs, at its worst node: zero stays zero.

    Of a state that starts outside, nothing is promised. Regions of several fields hold jointly.

    Args:
        lows, highs: one number for each part of the state, or −∞, ∞.
    """

    lows: tuple[float, ...] = (0.0,)
    highs: tuple[float, ...] = (math.inf,)
    law: Law = Law.NON_INCREASING

    def measure(self, x: State) -> Tensor:
        outside = []
        for part, low, high in zip(parts_of(x), self.lows, self.highs, strict=True):
            outside.append((torch.relu(low - part.real) + torch.relu(part.real - high)).amax(dim=(-2, -1)))
        return torch.stack(outside).amax(0)

    def scale(self, x: State) -> Tensor:
        sizes = []
        for part, low, high in zip(parts_of(x), self.lows, self.highs, strict=True):
            bound = max([abs(b) for b in (low, high) if math.isfinite(b)], default=0.0)
            sizes.append(part.abs().amax(dim=(-2, -1)).clamp(min=bound))
        return torch.stack(sizes).amax(0)

    def excess(self, values: Tensor, scale: Tensor) -> Tensor:
        broken = super().excess(values, scale)
        inside = values <= 0
        # What is still outside may go further out; and backwards, what has left may only not come in again.
        watched = inside if self.law is Law.NON_DECREASING else torch.cummax(inside.to(torch.int8), dim=0).values.bool()
        return torch.where(watched, broken, torch.zeros_like(broken))

    def same_quantity(self, other: Invariant) -> bool:
        # A sum of two flows that keep a box keeps it too: on its faces both point inwards.
        return isinstance(other, InvariantRegion) and (self.lows, self.highs) == (other.lows, other.highs)

    @property
    def name(self) -> str:
        return "region " + " × ".join(f"[{low:.3g}, {high:.3g}]" for low, high in zip(self.lows, self.highs, strict=True))
