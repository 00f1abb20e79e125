"""Methods that choose their steps by an estimate of the local error."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from integrators.controller import Controller
from integrators.method import Carry, Clock, Method, Step, Trial
from integrators.norms import ErrorNorm, RowNorm
from integrators.solution import SolveError, State, Statistics, Status
from integrators.state import combine, parts_of, subtract
from integrators.watch import Watch


@dataclass(frozen=True)
class Adaptive(Method):
    """A method with an embedded error estimate: a step is accepted where the norm of error / (atol + rtol·|x|) is at most 1.

    Output times inside a step come from its continuous extension, so they do not change the steps.

    Args:
        rtol, atol: relative and absolute tolerance of the local error.
        first_step: the first step to try; None for Hairer's guess, at the cost of one evaluation.
        norm: how the error is measured; `RowNorm()` or `RMSNorm()`.
        controller: how the next step is chosen.
    """

    rtol: float = 1e-5
    atol: float = 1e-7
    first_step: float | None = field(default=None, kw_only=True)
    norm: ErrorNorm = field(default_factory=RowNorm, kw_only=True)
    controller: Controller = field(default_factory=Controller, kw_only=True)

    error_order: ClassVar[int]
    """The error estimate is O(h^error_order)."""
    needs_slope: ClassVar[bool] = True
    """Whether `start` puts f(t, x) second in the carry (first same as last)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("rtol", self.rtol), ("atol", self.atol), ("first_step", self.first_step)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, not {value}")

    def first(self, f: Any, t: float, x: State, slope: State, limit: float) -> float:
        """The length of the first step (Hairer, Nørsett, Wanner I, II.4), at most |limit|."""
        if self.first_step is not None:
            return min(self.first_step, abs(limit))
        with torch.no_grad():
            zero = combine(x, 0.0, [1.0], [x])
            d0, d1 = (self.norm(part, zero, zero, self.rtol, self.atol) for part in (x, slope))
            h0 = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1
            h0 = min(h0, abs(limit))
            if not (math.isfinite(h0) and h0 > 0):
                h0 = 1e-6 * abs(limit)
            signed = math.copysign(h0, limit)
            other = f(t + signed, combine(x, signed, [1.0], [slope]))
            d2 = self.norm(subtract(other, slope), zero, zero, self.rtol, self.atol) / h0
        steepest = max(d1, d2)
        if not math.isfinite(steepest):
            return h0
        h1 = max(1e-6, h0 * 1e-3) if steepest <= 1e-15 else (0.01 / steepest) ** (1.0 / self.error_order)
        return min(100 * h0, h1, abs(limit))

    def fit(self, f: Any, h: float, t: float, a: float, b: float, before: float) -> float:
        """The length to try when the controller proposes h > 0, at t in the stretch from a to b (or b to a); always positive.

        `before` is the (signed) length of the step before, 0.0 at the beginning of the stretch.
        """
        left = abs(b - t)
        if h >= left or left - h <= 1e-12 * abs(b - a):
            return left
        return left / 2 if 2 * h > left else h  # Two even steps rather than a crumb at the end.

    def propose(self, length: float, growth: float, proposal: float) -> float:
        """The next proposal, after a step of `length` where `proposal` was proposed and the controller wants `growth`."""
        # A step that was cut short to meet an end says little about the next.
        return max(proposal, length * growth) if length < 0.9 * proposal else length * growth

    def steps(self, f: Any, x0: State, clock: Clock, watch: Watch, stats: Statistics) -> Iterator[tuple[Step, Carry, Trial]]:
        self._check_resolution(x0)
        ends = [clock.outputs[0], *clock.jumps, clock.outputs[-1]]
        sign, whole = clock.sign, ends[-1] - ends[0]
        x, proposal, output = x0, 0.0, 1
        for start, end in itertools.pairwise(ends):
            # On its own side of a jump, by the smallest distance: f is never asked there for what it is beyond.
            a = math.nextafter(start, end) if start in clock.breaks else start
            b = math.nextafter(end, start) if end in clock.breaks else end
            carry = self.start(f, clock.of(Step(a, 0.0, 0.0))[0], x)
            proposal = self._opening(f, a, carry, b - a, proposal)
            ratios: tuple[float | None, float | None] = (None, None)
            t, before, rejected, broken = a, 0.0, False, 0.0
            while t != b:
                length = self.fit(f, proposal, t, a, b, before)
                last = length >= abs(b - t)
                h = until(t, b) if last else sign * length
                self._check_length(f, t, h, carry, broken, stats)
                step = Step(t, h, before)
                trial = self.advance(f, *clock.of(step), carry, before)
                ratio = self.ratio(trial, carry)
                if not ratio <= 1:
                    stats.rejected += 1
                    rejected = True
                    if not math.isfinite(ratio):
                        broken = h
                        self._check_slope(f, t, carry[0])
                        proposal = 0.1 * length
                    else:
                        proposal = length * self.controller.factor(ratio, self.error_order)
                    if watch.max_seconds < math.inf:
                        watch.check_clock(t)
                    continue
                arrived = end if last else t + h
                inside = []
                while output < len(clock.outputs) and sign * clock.outputs[output] <= sign * arrived:
                    s = clock.outputs[output]
                    inside.append((output, 1.0 if s == arrived else (s - t) / h))
                    output += 1
                watch.accepted(stats, t, h, (arrived - ends[0]) / whole)
                watch.see(arrived, trial.carry[0])
                stats.error_estimate = max(ratio, stats.error_estimate or 0.0)
                yield (Step(t, h, before, None, tuple(inside)) if inside else step), carry, trial
                growth = self.controller.factor(ratio, self.error_order, *ratios)
                if rejected:
                    growth = min(growth, 1.0)
                proposal = self.propose(length, growth, proposal)
                ratios = (ratio, ratios[0])
                carry, before, t, rejected, broken = trial.carry, h, b if last else arrived, False, 0.0
            x = carry[0]

    def ratio(self, trial: Trial, carry: Carry) -> float:
        """The error of a trial step in units of the tolerance."""
        if trial.error is None:
            raise TypeError(f"{type(self).__name__}.advance gives no error estimate")
        return self.norm(trial.error, carry[0], trial.carry[0], self.rtol, self.atol)

    def culprit(self, f: Any, t: float, h: float, carry: Carry) -> str:
        """Where f is first not finite in a step from t to t + h, in words; "" if that cannot be told."""
        return str(f.blame(t + h, carry[0]))

    def _opening(self, f: Any, t: float, carry: Carry, span: float, proposal: float) -> float:
        slope = carry[1] if self.needs_slope else f(t, carry[0])
        size = self.norm(slope, carry[0], carry[0], self.rtol, self.atol)
        if not math.isfinite(size):
            self._check_slope(f, t, carry[0])
        return min(proposal, abs(span)) if proposal else self.first(f, t, carry[0], slope, span)

    def _check_resolution(self, x0: State) -> None:
        precision = torch.finfo(parts_of(x0)[0].dtype)
        if self.rtol < 4 * precision.eps:
            raise ValueError(
                f"rtol = {self.rtol:.1e} cannot be met in {precision.dtype} (round-off {precision.eps:.1e}), and the solver "
                f"would crawl: use float64, or rtol ≥ {4 * precision.eps:.1e}"
            )

    def _check_slope(self, f: Any, t: float, x: State) -> None:
        """Raise if f itself is not finite where the step begins."""
        cause = f.blame(t, x)
        if cause:
            raise SolveError(f"the solve diverged: {cause}; look at f there, or take a smaller tolerance", Status.DIVERGED)

    def _check_length(self, f: Any, t: float, h: float, carry: Carry, broken: float, stats: Statistics) -> None:
        """Raise if a step of length h makes no way; `broken` is a longer one that was not finite, or 0.0."""
        if abs(h) > 4 * math.ulp(t) and t + h != t:
            return
        place = f"the solve diverged: at t = {t:.6g}, after {stats.accepted} steps,"
        if broken:
            cause = self.culprit(f, t, broken, carry) or "the step is not finite"
            raise SolveError(
                f"{place} no step is short enough, because just beyond {cause}; look at f there, end before it, or name the "
                "time in jumps=...",
                Status.DIVERGED,
            )
        raise SolveError(
            f"{place} the error stays too large however short the step, because the solution is singular, discontinuous or "
            "random there; end before it, name the time in jumps=..., or take a smaller tolerance",
            Status.DIVERGED,
        )


def until(t: float, end: float) -> float:
    """end − t, shortened by round-off where t + h would lie beyond the end."""
    h = end - t
    while (t + h > end) if h > 0 else (t + h < end):
        h = math.nextafter(h, 0.0)
    return h
