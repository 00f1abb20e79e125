"""What accompanies a solve: limits, jumps of the right-hand side, the progress bar, and what to keep."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from integrators.solution import SolveError, Statistics, Status


@dataclass
class Watch:
    """How one solve is accompanied. `integrate` makes it from its keyword arguments.

    Args:
        max_steps: accepted steps at most.
        max_seconds: wall-clock seconds at most, counted from the making of this object.
        jumps: times at which f is discontinuous; every solver ends a step there and starts anew.
        dense: keep what `Solution.at` needs.
        history: keep (t, h) of every accepted step.
        bar: something with `reach(fraction)`, called after each accepted step.
    """

    max_steps: float = math.inf
    max_seconds: float = math.inf
    jumps: tuple[float, ...] = ()
    dense: bool = False
    history: bool = False
    bar: Any = None
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        for name, value in (("max_steps", self.max_steps), ("max_seconds", self.max_seconds)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
                raise ValueError(f"{name} must be a number that is not negative, not {value!r}")

    def check_clock(self, now: float) -> None:
        """Raise SolveError once the seconds are spent."""
        if time.monotonic() - self.began > self.max_seconds:
            raise SolveError(
                f"the solve reached t = {now:.6g} and its limit of {self.max_seconds:g} seconds: what was computed is in "
                "`.solution`; raise max_seconds, loosen the tolerance, or try a solver for stiff equations",
                Status.SECONDS,
            )

    def accepted(self, stats: Statistics, t: float, h: float, fraction: float) -> None:
        """Count a step from t to t + h; raise SolveError at a limit."""
        if stats.accepted >= self.max_steps:
            raise SolveError(
                f"the solve reached t = {t:.6g} and its limit of {self.max_steps:g} steps: what was computed is in "
                "`.solution`; raise max_steps, loosen the tolerance, or try a solver for stiff equations",
                Status.STEPS,
            )
        stats.accepted += 1
        if self.max_seconds < math.inf:
            self.check_clock(t + h)
        if self.history:
            stats.history.append((t, h))
        if self.bar is not None:
            self.bar.reach(fraction)
