"""RKL2: the Runge–Kutta–Legendre method of order 2."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from integrators.stabilised import Stabilised, Stage


@dataclass(frozen=True)
class RKL2(Stabilised):
    """The Runge–Kutta–Legendre method: order 2, stable on [−(s² + s − 2)/2, 0] with an odd number s of stages.

    R_s(z) = 1 − b + b P_s(1 + w₁ z), with w₁ = 4 / (s² + s − 2) and b = (s² + s − 2) / (2 s (s + 1)). Its interval is shorter
    than that of RKC2 by a quarter, but on it |R_s| is smaller, and three-point diffusion overshoots nowhere: each new value is
    a mean of old ones with no negative weight. Steps adapt, unless `dt` fixes them.

    Source: Meyer, Balsara and Aslam (2014), A stabilized Runge–Kutta–Legendre method for explicit super-time-stepping of
    parabolic and mixed equations, J. Comput. Phys. 257.
    """

    fewest: ClassVar[int] = 3

    @staticmethod
    def stages_for(z: float) -> int:
        s = max(3, math.ceil((math.sqrt(9 + 8 * z) - 1) / 2))
        # At the end of the interval an even P_s is 1, so that the fastest modes would not be damped.
        return s + 1 - s % 2

    @staticmethod
    @lru_cache(maxsize=64)
    def stages(s: int) -> tuple[Stage, ...]:
        w1 = 4 / (s**2 + s - 2)
        b = [1 / 3] * 2 + [(j**2 + j - 2) / (2 * j * (j + 1)) for j in range(2, s + 1)]
        c = [0.0, w1 * b[1]]
        stages = [Stage(0.0, 0.0, c[1], 0.0, 0.0)]
        for j in range(2, s + 1):
            mu, nu = (2 * j - 1) / j * b[j] / b[j - 1], -(j - 1) / j * b[j] / b[j - 2]
            new = mu * w1
            old = -(1 - b[j - 1]) * new
            stages.append(Stage(mu, nu, new, old, c[j - 1]))
            c.append(mu * c[j - 1] + nu * c[j - 2] + new + old)
        return tuple(stages)
