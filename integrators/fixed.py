"""Methods with a fixed step: the march they share, and Euler."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from integrators.integrator import CountedRightHandSide, Evaluate
from integrators.method import Carry, Clock, Method, Step, Trial, require_finite
from integrators.solution import State, Statistics, Time
from integrators.state import combine, scaled
from integrators.watch import Watch

CHECKED_EVERY = 8


@dataclass(frozen=True)
class FixedStep(Method):
    """A method with steps of at most `dt`, shortened evenly so that every output time (and jump) is hit exactly.

    A new one-step scheme writes `step`; one that remembers more than the state writes `start` and `advance`.

    Args:
        dt: the largest step, in units of t; `math.inf` for one step from each output time to the next.
    """

    dt: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dt > 0:
            raise ValueError(f"dt must be positive, not {self.dt}")

    def step(self, f: Any, t: Time, x: Any, h: Time) -> Any:
        """x advanced from t to t + h."""
        raise NotImplementedError(f"{type(self).__name__} must define step(self, f, t, x, h), or advance(...)")

    def advance(self, f: Any, t: Time, h: Time, carry: Carry, before: float) -> Trial:
        return Trial((self.step(f, t, carry[0], h),))

    def steps(self, f: Any, x0: State, clock: Clock, watch: Watch, stats: Statistics) -> Iterator[tuple[Step, Carry, Trial]]:
        marks, outputs = clock.marks, {t: j for j, t in enumerate(clock.outputs)}
        whole = marks[-1] - marks[0]
        carry: Carry = (x0,)
        before, h, fresh = 0.0, 0.0, True
        unchecked: list[tuple[Step, State]] = []
        for k in range(len(marks) - 1):
            a, b = marks[k], marks[k + 1]
            n = max(1, math.ceil(min(abs(b - a) / self.dt - 1e-9, 1e15)))
            # Evenly spaced times differ by round-off: one length for all of them is one factor for all of them.
            h = h if math.isclose(h, (b - a) / n, rel_tol=1e-12) else (b - a) / n
            fresh = fresh or a in clock.jumps
            for i in range(n):
                last, length = i == n - 1, h
                # Of the two the time takes the round-off, for a length of its own is a factor of its own.
                t = b - h if last and i else a + i * h
                if fresh:
                    before = 0.0
                # On its own side of a jump, by the smallest distance: f is never asked there for what it is beyond.
                if i == 0 and a in clock.breaks:
                    t = math.nextafter(a, b)
                while last and passes(t + length, b, clock.sign, b in clock.breaks):
                    t, length = (math.nextafter(t, a), length) if i else (t, math.nextafter(length, 0.0))
                j = outputs.get(b) if last else None
                step = Step(t, length, before, (k, i, n), () if j is None else ((j, 1.0),))
                now, span = clock.of(step)
                if fresh:
                    carry, fresh = self.start(f, now, carry[0]), False
                trial = self.advance(f, now, span, carry, before)
                unchecked.append((step, carry[0]))
                if last or len(unchecked) == CHECKED_EVERY:
                    require_finite(unchecked, trial.carry[0], stats, f)
                    unchecked.clear()
                watch.accepted(stats, t, h, (t + h - marks[0]) / whole)
                watch.see(b if last else t + h, trial.carry[0])
                yield step, carry, trial
                carry, before = trial.carry, h


def passes(t: float, end: float, sign: float, jump: bool) -> bool:
    """Whether t lies beyond the end, or on it where f jumps there."""
    return sign * t >= sign * end if jump else sign * t > sign * end


@dataclass(frozen=True)
class Euler(FixedStep):
    """x' = x + h f(t, x). Order 1; stability function 1 + z (Euler 1768, Institutionum calculi integralis I, ch. VII)."""

    order: ClassVar[int] = 1

    def step(self, f: Evaluate, t: Time, x: State, h: Time) -> State:
        return combine(x, h, [1.0], [f(t, x)])


@dataclass(frozen=True)
class TruncatedTaylor(FixedStep):
    """x' = Σ_{k ≤ order} (hG)^k / k! x for a linear autonomous dx/dt = G x: the exponential cut off at `order`.

    With the generator of a `UnitaryFlow` this is the published relaxation (R-UniGraph, T_max = order): each mode is
    multiplied by |Σ_{k ≤ T} (iθ)^k / k!| instead of 1, so orders 1, 2, 5, 6 grow and 3, 4, 7, 8 damp small angles.
    Stability function Σ_{k ≤ order} z^k / k! (Moler and Van Loan 2003, SIAM Rev. 45, method 1).

    Args:
        order: T_max ≥ 1.
    """

    order: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order < 1:
            raise ValueError(f"order must be at least 1, not {self.order}")

    def prepare(self, f: CountedRightHandSide, t: float, x0: State) -> Any:
        if getattr(f.f, "linear", None) is None or getattr(f.f, "nonlinear", None) is not None:
            raise TypeError(
                f"TruncatedTaylor needs a linear autonomous right-hand side, and {type(f.f).__name__} exposes no linear "
                "part that is all of it: use RK4, which agrees with it to order 4"
            )
        return f

    def step(self, f: Evaluate, t: Time, x: State, h: Time) -> State:
        terms, term = [], x
        for k in range(1, self.order + 1):
            term = scaled(f(t, term), h / k)
            terms.append(term)
        return combine(x, 1.0, [1.0] * len(terms), terms)
