"""Backward Euler: first order, and the most robust method there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from integrators.implicit import ImplicitFixedStep
from integrators.ladder import same
from integrators.method import Carry, Trial
from integrators.solution import Time
from integrators.stage import Stages


@dataclass(frozen=True)
class BackwardEuler(ImplicitFixedStep):
    """x' = x + h f(t + h, x'). Order 1, L-stable; stability function 1 / (1 − z).

    Any step is stable, and where f is a diffusion with non-negative weights the maximum principle holds for any step.
    A linear f is solved with one factor for each step length; any other by Newton's method.

    Source: Hairer and Wanner II (1996), section IV.3.

    Args:
        dt: the largest step.
        newton: how a nonlinear f is solved.
    """

    order: ClassVar[int] = 1

    def advance(self, f: Stages, t: Time, h: Time, carry: Carry, before: float) -> Trial:
        x = carry[0]
        return Trial((f.solve(t + h, same(h, before), x, x),))
