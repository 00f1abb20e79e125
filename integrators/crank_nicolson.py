"""Crank–Nicolson: second order, one solve a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from integrators.implicit import ImplicitFixedStep
from integrators.ladder import same
from integrators.method import Carry, Trial
from integrators.solution import State, Time
from integrators.stage import Stages
from integrators.state import combine, scaled, subtract


@dataclass(frozen=True)
class CrankNicolson(ImplicitFixedStep):
    """x' = x + h/2 (f(t, x) + f(t + h, x')). Order 2, A-stable; stability function (1 + z/2) / (1 − z/2).

    Since R(−∞) = −1, rough data would ring for ever. So the first two steps, and the first two after every jump, are replaced by
    four half steps of backward Euler (Rannacher 1984, Numer. Math. 43), which damp it, keep order 2 and use the same matrix.

    Args:
        dt: the largest step.
        damped: how many steps to replace; 0 where the data are smooth, or a norm is to be kept.
        newton: how a nonlinear f is solved.
    """

    damped: int = 2

    order: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.damped, bool) or not isinstance(self.damped, int) or self.damped < 0:
            raise ValueError(f"damped must be an integer of at least 0, not {self.damped!r}")

    def start(self, f: Stages, t: Time, x: State) -> Carry:
        slope = scaled(x, 0.0) if self.damped else f(t, x)
        return x, slope, torch.tensor(float(self.damped))

    def advance(self, f: Any, t: Time, h: Time, carry: Carry, before: float) -> Trial:
        x, slope, damped = carry
        s = same(h, before) / 2
        if damped.item() > 0:
            b = f.solve(t + h / 2, s, x, x)
            y = f.solve(t + h, s, b, b, again=True)
            damped = damped - 1
        else:
            b = combine(x, s, [1.0], [slope])
            y = f.solve(t + h, s, b, x)
        return Trial((y, scaled(subtract(y, b), 1 / s), damped))
