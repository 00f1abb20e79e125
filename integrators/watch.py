"""What accompanies a solve: limits, jumps of the right-hand side, a monitor, the progress bar, and what to keep."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch

from integrators.solution import SolveError, State, Statistics, Status
from integrators.state import state_map


@runtime_checkable
class Observer(Protocol):
    """Something that looks at a solve while it runs, and may end it by raising a SolveError with `Status.MONITOR`.

    What it is shown carries no gradient and must not be written into. With `PerSample` and `PerSegment`, t is the time of the
    slowest sample.
    """

    def begin(self, t: float, x: State) -> None:
        """A solve begins at x(t)."""

    def see(self, t: float, x: State) -> None:
        """An accepted step has reached x(t)."""


@dataclass
class Watch:
    """How one solve is accompanied. `integrate` makes it from its keyword arguments.

    Args:
        max_steps: accepted steps at most.
        max_seconds: wall-clock seconds at most, counted from the making of this object.
        jumps: times at which f is discontinuous; every solver ends a step there and starts anew.
        dense: keep what `Solution.at` needs.
        history: keep (t, h) of every accepted step.
        monitor: is shown the state after each accepted step.
        bar: something with `reach(fraction)`, called after each accepted step.
    """

    max_steps: float = math.inf
    max_seconds: float = math.inf
    jumps: tuple[float, ...] = ()
    dense: bool = False
    history: bool = False
    monitor: Observer | None = None
    bar: Any = None
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        for name, value in (("max_steps", self.max_steps), ("max_seconds", self.max_seconds)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
                raise ValueError(f"{name} must be a number that is not negative, not {value!r}")
        if self.monitor is not None and not isinstance(self.monitor, Observer):
            raise TypeError(f"monitor must offer begin(t, x) and see(t, x), as Monitor(f) does, not {self.monitor!r}")

    def begin(self, t: float, x: State) -> None:
        """Show the start to the monitor."""
        if self.monitor is not None:
            with torch.no_grad():
                self.monitor.begin(t, state_map(torch.Tensor.detach, x))

    def see(self, t: float, x: State) -> None:
        """Show the state after an accepted step to the monitor."""
        if self.monitor is not None:
            with torch.no_grad():
                self.monitor.see(t, state_map(torch.Tensor.detach, x))

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
