"""RKC2: the Runge–Kutta–Chebyshev method of order 2."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from integrators.stabilised import Stabilised, Stage

DAMPING = 2 / 13


@dataclass(frozen=True)
class RKC2(Stabilised):
    """The Runge–Kutta–Chebyshev method: order 2, stable on [−0.65 (s² − 1), 0] with s stages, damped inside.

    R_s(z) = 1 − b T_s(w₀) + b T_s(w₀ + w₁ z), with w₀ = 1 + ε/s², w₁ = T'_s(w₀) / T''_s(w₀), b = T''_s(w₀) / T'_s(w₀)² and
    ε = 2/13, so that |R_s| stays below about 1 − ε/3 away from z = 0. Steps adapt, unless `dt` fixes them.

    Source: Sommeijer, Shampine and Verwer (1997), J. Comput. Appl. Math. 88, section 2.
    """

    fewest: ClassVar[int] = 2

    @staticmethod
    def stages_for(z: float) -> int:
        return max(2, 1 + math.floor(math.sqrt(1 + 1.54 * z)))

    @staticmethod
    @lru_cache(maxsize=64)
    def stages(s: int) -> tuple[Stage, ...]:
        w0 = 1 + DAMPING / s**2
        values = chebyshev(s, w0)
        _, first, second = values[s]
        w1 = first / second
        b = [1 / (4 * w0**2)] * 2 + [second / first**2 for _, first, second in values[2:]]
        c = [0.0, w1 * b[1]]
        stages = [Stage(0.0, 0.0, c[1], 0.0, 0.0)]
        for j in range(2, s + 1):
            mu, nu = 2 * w0 * b[j] / b[j - 1], -b[j] / b[j - 2]
            new = 2 * w1 * b[j] / b[j - 1]
            old = -(1 - b[j - 1] * values[j - 1][0]) * new
            stages.append(Stage(mu, nu, new, old, c[j - 1]))
            c.append(mu * c[j - 1] + nu * c[j - 2] + new + old)
        return tuple(stages)


def chebyshev(s: int, w: float) -> list[tuple[float, float, float]]:
    """(T_j(w), T'_j(w), T''_j(w)) for j = 0, ..., s, by T_j = 2w T_{j−1} − T_{j−2}."""
    rows = [(1.0, 0.0, 0.0), (w, 1.0, 0.0)]
    for _ in range(2, s + 1):
        (a, a1, a2), (b, b1, b2) = rows[-2:]
        rows.append((2 * w * b - a, 2 * w * b1 + 2 * b - a1, 2 * w * b2 + 4 * b1 - a2))
    return rows
