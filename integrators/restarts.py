"""Solving stretch by stretch: a right-hand side that is made anew from the state, at times it names."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from integrators.autopilot import advise
from integrators.integrator import Evaluate, Integrator
from integrators.solution import SampleStatistics, Solution, SolveError, State, Statistics
from integrators.state import number, state_map
from integrators.watch import Watch


class Restarting(Protocol):
    """A right-hand side that changes with its state at certain times, as a graph whose edges follow its nodes.

    `integrate` solves from one of these times to the next, each stretch with the right-hand side that is made at its start:
    the first with `starting_at(x0)`, the others with `restarting_at`. Both answer for themselves, and remember nothing.

    With `Checkpointed`, let `restarting_at` use `p.clone()` of a learned tensor p. What it makes of x has a past in which p acts
    too; only with a tensor of its own is the gradient of a stretch told apart from that past, which else is gone through again
    for every piece of the stretch.
    """

    @property
    def restarts(self) -> Sequence[float]:
        """The times, in any order; those outside a solve, and at its ends, are none."""

    def starting_at(self, x0: Any) -> Evaluate:
        """The right-hand side of a solve from x0, up to the first of the times."""

    def restarting_at(self, t: Tensor, x: Any, x0: Any) -> Evaluate:
        """The right-hand side from time t and state x on, in a solve that began at x0."""


def restarts_within(f: object, t: Tensor) -> list[float]:
    """The restarts of f strictly between the ends of t, in the order of the solve; none if f names none.

    Raises:
        ValueError: a time that is not finite. TypeError: f names times, but does not say how it goes on.
    """
    values = [float(s) for s in getattr(f, "restarts", ())]
    if not all(math.isfinite(s) for s in values):
        raise ValueError(f"{type(f).__name__}.restarts holds a NaN or infinite time: {values}")
    if values and not callable(getattr(f, "restarting_at", None)):
        raise TypeError(f"{type(f).__name__} names restarts, so it must define restarting_at(t, x, x0)")
    outputs = t.detach().tolist()
    first, last = outputs[0], outputs[-1]
    slack = 1e-12 * max(abs(first), abs(last))
    found: list[float] = []
    for s in sorted(values, reverse=first > last):
        # Times that differ by round-off are one, or a stretch would be shorter than any step.
        nearest = min(outputs, key=lambda output: abs(output - s))
        s = nearest if abs(nearest - s) <= slack else s
        if min(first, last) < s < max(first, last) and not (found and abs(s - found[-1]) <= slack):
            found.append(s)
    return found


def solve_in_stretches(
    f: Restarting, first: Evaluate, x0: State, t: Tensor, restarts: Sequence[float], solver: Integrator, watch: Watch
) -> Solution:
    """Solve from x0 over all of t, anew from each of the restarts.

    The gradient goes from stretch to stretch through the state, by the way of the solver in each. Budgets of steps and
    seconds are those of the whole; `max_nfe` belongs to the solver and counts for a stretch.

    Args:
        first: the right-hand side of the first stretch.
        restarts: as `restarts_within` gives them.

    Raises:
        SolveError: with all that was reached before, over all stretches, in `.solution`.
    """
    joined = _Joined(t, x0, watch)
    begin, x, now = t[:1], x0, first
    sign = 1.0 if number(t[-1]) > number(t[0]) else -1.0
    order = (sign * t.detach()).tolist()
    for end in restarts:
        past = bisect_left(order, sign * end)
        stop = t.new_tensor([end])
        x = joined.solve(solver, now, x, [begin, t[joined.reached : past], stop])
        if number(t[past]) == end:
            joined.add_end(now, x, t[past])
        begin, now = stop, f.restarting_at(stop[0], x, state_map(torch.clone, x0))
    joined.solve(solver, now, x, [begin, t[joined.reached :]])
    return joined.solution()


class _Joined:
    """The solutions of the stretches so far, as one."""

    def __init__(self, t: Tensor, x0: State, watch: Watch) -> None:
        self.t, self.whole = t, watch
        self.blocks: list[State] = [state_map(lambda part: part[None], x0)]
        self.reached = 1
        self.solutions: list[Solution] = []

    def solve(self, solver: Integrator, f: Evaluate, x: State, times: list[Tensor]) -> State:
        """The state at the end of a stretch from x, over (start, outputs, end) or (start, outputs)."""
        try:
            solution = solver.solve(f, x, torch.cat(times), self._watch(f))
        except SolveError as error:
            if error.solution is not None:
                self._keep(error.solution, len(times[1]))
                error.solution = self.solution()
            raise
        advise(f, solver, solution)
        self._keep(solution, len(times[1]))
        return solution.final

    def _watch(self, f: Evaluate) -> Watch:
        """What is left of the budgets, and the jumps of this stretch."""
        settings = {field.name: getattr(self.whole, field.name) for field in fields(self.whole)}
        settings["jumps"] = (*self.whole.jumps, *getattr(f, "jumps", ()))
        steps = sum(solution.stats.accepted for solution in self.solutions)
        return _Continued(**settings, before=steps, ends=(number(self.t[0]), number(self.t[-1])))

    def _keep(self, solution: Solution, outputs: int) -> None:
        self.solutions.append(solution)
        found = min(outputs, len(solution.t) - 1)
        self.blocks.append(state_map(lambda part: part[1 : 1 + found], solution.x))
        self.reached += found

    def add_end(self, f: Evaluate, x: State, t: Tensor) -> None:
        """Keep the state at an output that is a restart. Its time may move, which moves no restart."""
        if t.requires_grad:
            shift = t - t.detach()
            x = state_map(lambda part, slope: part + shift.to(part.real.dtype) * slope, x, f(t.detach(), x))
        self.blocks.append(state_map(lambda part: part[None], x))
        self.reached += 1

    def solution(self) -> Solution:
        """All of it, with the status of the last."""
        x = state_map(lambda *parts: torch.cat(parts), *self.blocks)
        stats = _JoinedStatistics([solution.stats for solution in self.solutions])
        pieces = [(number(s.t[0]), number(s.t[-1]), s.interpolant) for s in self.solutions if s.interpolant is not None]
        dense = _JoinedInterpolant(pieces) if pieces else None
        return Solution(self.t[: self.reached], x, stats, self.solutions[-1].status, dense)


@dataclass
class _Continued(Watch):
    """The watch of a solve that goes on: `before` steps were taken in the stretches behind it."""

    before: int = 0
    ends: tuple[float, float] = (0.0, 1.0)

    def accepted(self, stats: Statistics, t: float, h: float, fraction: float) -> None:
        stats.accepted += self.before
        try:
            super().accepted(stats, t, h, (t + h - self.ends[0]) / (self.ends[1] - self.ends[0]))
        finally:
            stats.accepted -= self.before


class _JoinedStatistics(Statistics):
    """What all stretches cost together; the backward evaluations are theirs, whenever they are made."""

    def __init__(self, parts: list[Statistics]) -> None:
        self.parts = parts
        errors = [part.error_estimate for part in parts if part.error_estimate is not None]
        super().__init__(
            **{name: sum(getattr(part, name) for part in parts) for name in _COUNTS},
            error_estimate=max(errors, default=None),
            reason="; then ".join(dict.fromkeys(part.reason for part in parts if part.reason)),
            advice="; ".join(dict.fromkeys(part.advice for part in parts if part.advice)),
            history=[step for part in parts for step in part.history],
            samples=_joined_samples([part.samples for part in parts if part.samples is not None]),
        )

    def __getattribute__(self, name: str) -> Any:
        if name == "nfe_backward":
            return sum(part.nfe_backward for part in self.parts)
        return super().__getattribute__(name)


_COUNTS = ("nfe", "nvp", "accepted", "rejected", "solves", "factorizations", "peak_memory")


def _joined_samples(parts: list[SampleStatistics]) -> SampleStatistics | None:
    if not parts:
        return None
    whole = replace(parts[0])
    for part in parts[1:]:
        history = [[*a, *b] for a, b in zip(whole.history, part.history, strict=True)]
        accepted = [a + b for a, b in zip(whole.accepted, part.accepted, strict=True)]
        rejected = [a + b for a, b in zip(whole.rejected, part.rejected, strict=True)]
        whole = SampleStatistics(part.t, accepted, rejected, history)
    return whole


class _JoinedInterpolant:
    """x(s) in whichever stretch s lies; at a restart, in the one before it."""

    def __init__(self, pieces: list[tuple[float, float, Callable[[Tensor], State]]]) -> None:
        self.pieces = pieces

    def __call__(self, s: Tensor) -> State:
        now, first, last = number(s), self.pieces[0][0], self.pieces[-1][1]
        slack = 1e-12 * max(1.0, abs(first), abs(last))
        if not min(first, last) - slack <= now <= max(first, last) + slack:
            raise ValueError(f"t = {now:.6g} lies outside the solve, which covers {first:.6g} to {last:.6g}")
        sign = 1.0 if last > first else -1.0
        k = bisect_left([sign * end for _, end, _ in self.pieces], sign * now)
        return self.pieces[min(k, len(self.pieces) - 1)][2](s)
