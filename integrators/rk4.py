"""The classical Runge–Kutta method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from integrators.fixed import FixedStep
from integrators.integrator import Evaluate
from integrators.solution import State, Time
from integrators.state import combine


@dataclass(frozen=True)
class RK4(FixedStep):
    """The classical Runge–Kutta method (Kutta 1901). Order 4; stability function 1 + z + z²/2 + z³/6 + z⁴/24.

    Stable on the negative axis to −2.79 and on the imaginary axis to ±2.83.
    """

    order: ClassVar[int] = 4

    def step(self, f: Evaluate, t: Time, x: State, h: Time) -> State:
        k1 = f(t, x)
        k2 = f(t + h / 2, combine(x, h, [1 / 2], [k1]))
        k3 = f(t + h / 2, combine(x, h, [1 / 2], [k2]))
        k4 = f(t + h, combine(x, h, [1.0], [k3]))
        return combine(x, h, [1 / 6, 1 / 3, 1 / 3, 1 / 6], [k1, k2, k3, k4])
