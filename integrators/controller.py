"""How an adaptive method chooses its next step from the error of the last."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Controller:
    """h' = h · clip(q^(−kI/p) · q₁^(kP/p) · q₂^(−kD/p)), with q = r/safety^p for the error ratios r of the last three steps.

    The error is O(h^p); a step is accepted if r ≤ 1, and all controllers settle at r = safety^p, so that they differ in how
    smoothly they get there (Hairer, Nørsett and Wanner I, II.4; Söderlind 2003, ACM TOMS 29). Presets: `INTEGRAL`, the
    classical one, stops and goes where stability limits the step; `PI` (the default) and `PID` do not.

    Args:
        integral, proportional, derivative: kI > 0, kP and kD.
        safety: how much below the longest step that would be accepted to aim, in (0, 1].
        smallest, largest: how much one step may shrink or grow.
    """

    integral: float = 0.85
    proportional: float = 0.2
    derivative: float = 0.0
    safety: float = 0.9
    smallest: float = 0.2
    largest: float = 10.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (self.integral, self.proportional, self.derivative)):
            raise ValueError(f"the exponents of a controller must be finite, not those of {self}")
        if not (0 < self.safety <= 1 and 0 < self.smallest < 1 < self.largest):
            raise ValueError(f"a controller needs 0 < safety ≤ 1 and 0 < smallest < 1 < largest, not {self}")
        if not self.integral > 0:
            raise ValueError(f"integral must be positive, not {self.integral}: without it the error goes its own way")

    def factor(self, ratio: float, order: int, before: float | None = None, earlier: float | None = None) -> float:
        """By how much to multiply h, for an error estimate of O(h^order); None where there was no step before."""
        goal = self.safety**order
        now = max(ratio, 1e-10) / goal
        if ratio > 1:  # After a rejection only the last error tells.
            return max(self.smallest, min(1.0, math.pow(now, -1.0 / order)))
        power = math.pow(now, -self.integral / order)
        if before is not None:
            power *= math.pow(max(before, 1e-10) / goal, self.proportional / order)
        if earlier is not None:
            power *= math.pow(max(earlier, 1e-10) / goal, -self.derivative / order)
        return max(self.smallest, min(self.largest, power))


INTEGRAL = Controller(1.0, 0.0, 0.0)
"""h' = h · safety · r^(−1/p), the elementary controller."""
PI = Controller(0.85, 0.2, 0.0)
"""Gustafsson's proportional-integral control with Hairer's parameters (Hairer and Wanner II, IV.2, β = 0.04 · 5)."""
PID = Controller(0.49, 0.34, 0.1)
"""Kennedy and Carpenter's proportional-integral-derivative controller (2003, Appl. Numer. Math. 44)."""
