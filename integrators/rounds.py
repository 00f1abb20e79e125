"""Rounds: all groups of rows of a state try a step at once, each with its own time, length, error and verdict."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from integrators.explicit import ExplicitPair
from integrators.gradients import Dense
from integrators.integrator import CountedRightHandSide
from integrators.method import Carry, Clock, Method, Step, Trial
from integrators.norms import ErrorNorm
from integrators.pace import Pace, beside
from integrators.solution import SolveError, State, Statistics, Status, Time
from integrators.state import combine, first_bad, parts_of, state_map, subtract, unbatched
from integrators.watch import Watch


class Groups(ABC):
    """How the rows of a state fall into groups that step together.

    Attributes:
        name: what one group is called.
        sizes: (groups,) the rows of each; a group without rows has nothing to solve.
    """

    name: str
    sizes: Tensor

    @abstractmethod
    def spread(self, values: Tensor) -> Tensor:
        """One value a group → one a row, broadcastable over the state, on its device."""

    @abstractmethod
    def norms(self, norm: ErrorNorm, ratio: Tensor) -> Tensor:
        """The norm of each group's weighed errors."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Round(Step):
    """One step of every group that could take one: vectors of one number a group, on the CPU.

    Attributes:
        times, lengths: the step of each group; a length of 0 for those that stay where they are.
        arrivals: where each is afterwards.
        fresh: groups that have just passed a jump and start anew; None if there are none.
    """

    times: Tensor
    lengths: Tensor
    arrivals: Tensor
    fresh: Tensor | None = None


class Attempt(NamedTuple):
    """A round as it was computed: the times, lengths and carry that it began with, and what the pair made of them."""

    t: Tensor
    h: Tensor
    carry: Carry
    trial: Trial


class CountedRows(CountedRightHandSide):
    """Counts an evaluation at many times."""

    def _count(self, t: Time) -> None:
        super()._count(float(t.mean()) if isinstance(t, Tensor) else t)


@dataclass(frozen=True, kw_only=True)
class Rounds(Method):
    """An explicit pair whose step control runs once a group of rows; a round counts where at least one step is accepted."""

    pair: ExplicitPair
    groups: Groups = field(compare=False)

    @property
    def rtol(self) -> float:
        """Of the pair; that there is one tells `Checkpointed` that steps are rejected."""
        return self.pair.rtol

    def prepare(self, f: CountedRightHandSide, t: float, x0: State) -> Any:
        return CountedRows(f.f, x0, f.stats, f.max_nfe, f.watch)

    def start(self, f: Any, t: Time, x: State) -> Carry:
        return self.pair.start(f, t, x)

    def advance(self, f: Any, t: Time, h: Time, carry: Carry, before: float) -> Trial:
        return self.pair.advance(f, t, h, carry, before)

    def repeat(self, f: Any, step: Step, carry: Carry, clock: Clock) -> Trial:
        if not isinstance(step, Round):
            raise TypeError(f"a round is repeated from a Round, not from {step!r}")
        t, carry = self.begin(f, step.times, step.fresh, carry, clock)
        return self.settle(step, self.attempt(f, t, step.lengths, carry))

    def begin(self, f: Any, times: Tensor, fresh: Tensor | None, carry: Carry, clock: Clock) -> tuple[Tensor, Carry]:
        """The times of a round as f sees them, and its carry with new slopes where a jump was passed."""
        spread, drift = self.groups.spread, drift_of(clock, 0)
        t = spread(times)
        if drift is not None:
            t = t + spread(before_jumps(times, clock).double()) * drift
        if fresh is None:
            return t, carry
        x, slope = carry
        if drift is not None:
            # Up to the first jump all steps move with t[0], so the jump was met too late by as much.
            met = spread((fresh & (times == beside(clock.jumps[0], clock.sign))).double())
            x = combine(x, -drift * met, [1.0], [slope])
        return t, (x, where(spread(fresh), f(t, x), slope))

    def attempt(self, f: Any, t: Tensor, lengths: Tensor, carry: Carry) -> Attempt:
        """A step of every group, of the lengths that are asked for."""
        h = self.groups.spread(lengths)
        return Attempt(t, h, carry, self.advance(f, t, h, carry, 1.0))

    def settle(self, step: Round, made: Attempt) -> Trial:
        """What a round gives: exactly what was before where a group stays."""
        moves = step.lengths != 0
        if not bool(moves.all()):
            rows = self.groups.spread(moves)
            x, slope = (where(rows, new, old) for new, old in zip(made.trial.carry, made.carry, strict=True))
            made = made._replace(trial=made.trial._replace(carry=(x, slope)))
        return Trial(made.trial.carry, None, made)

    def steps(self, f: Any, x0: State, clock: Clock, watch: Watch, stats: Statistics) -> Iterator[tuple[Step, Carry, Trial]]:
        self.pair._check_resolution(x0)
        pace = Pace(self.pair, clock, self.groups.sizes)
        pace.write(stats)
        origin, whole = clock.outputs[0], clock.outputs[-1] - clock.outputs[0]
        carry = self.start(f, clock.of(Step(float(pace.begins[0]), 0.0, 0.0))[0], x0)
        for part in carry:
            unbatched(part)
        self._check_slope(pace, carry)
        pace.proposal = self.first(f, pace, carry)
        rounds = Statistics()
        fresh, before = None, 0.0
        t, begun = self.begin(f, pace.time, None, carry, clock)
        while bool(pace.active.any()):
            h = pace.propose()
            self._check_length(pace)
            made = self.attempt(f, t, h, begun)
            ratio = self._ratio(made.trial, begun)
            good = pace.judge(ratio)
            slowest = pace.slowest
            now = float(pace.time[slowest])
            if not bool(good.any()):
                pace.write(stats)
                if watch.max_seconds < math.inf:
                    watch.check_clock(now)
                continue
            lengths = torch.where(good, h, 0.0)
            arrivals = pace.arrivals(good)
            step = Round(now, float(h[slowest]), before, times=pace.time, lengths=lengths, arrivals=arrivals, fresh=fresh)
            if not bool((good | ~pace.active).all()) and any(part.requires_grad for part in parts_of(made.trial.carry[0])):
                # No gradient may pass through what was thrown away: where it overflowed, 0 · ∞ would be NaN.
                trial = self.repeat(f, step, carry, clock)
            else:
                trial = self.settle(step, made)
            reached = float(clock.sign * (clock.sign * step.arrivals).min())
            watch.accepted(rounds, now, step.h, (reached - origin) / whole)
            watch.see(reached, trial.carry[0])
            jumped = pace.move(good, ratio)
            pace.write(stats)
            stats.error_estimate = max(float(ratio[good].max()), stats.error_estimate or 0.0)
            if watch.history and stats.samples is not None:
                for i in good.nonzero().ravel().tolist():
                    entry = (float(step.times[i]), float(lengths[i]))
                    stats.history.append(entry)
                    stats.samples.history[i].append(entry)
            yield step, carry, trial
            fresh, before, carry = (jumped if bool(jumped.any()) else None), step.h, trial.carry
            t, begun = self.begin(f, pace.time, fresh, carry, clock)
            if fresh is not None:
                self._check_slope(pace, begun)

    def outputs(self, f: Any, step: Step, carry: Carry, trial: Trial, clock: Clock) -> Iterator[tuple[int, State]]:
        if not isinstance(step, Round):
            raise TypeError(f"the outputs of a round are those of a Round, not of {step!r}")
        sign, moves = clock.sign, step.lengths != 0
        least, most = float((sign * step.times)[moves].min()), float((sign * step.arrivals)[moves].max())
        for j, goal in enumerate(clock.outputs):
            if least < sign * goal <= most:
                here = moves & (sign * step.times < sign * goal) & (sign * goal <= sign * step.arrivals)
                if bool(here.any()):
                    yield j, self._rows(f, step, trial, clock, j, here)

    def _rows(self, f: Any, step: Round, trial: Trial, clock: Clock, j: int, here: Tensor) -> State:
        """The rows that pass the output time t_j in this round, and zero elsewhere: their sum over the rounds is x(t_j)."""
        goal, spread, made = clock.outputs[j], self.groups.spread, trial.stages
        ended = here & (step.arrivals == goal)
        inside = here & ~ended
        theta = torch.where(inside, (goal - step.times) / torch.where(inside, step.lengths, 1.0), 0.0).clamp(max=1.0)
        x: State = made.trial.carry[0]
        if bool(inside.any()):
            within = self.pair.interpolate(f, made.t, made.h, made.carry, made.trial, spread(theta))
            x = where(spread(ended), x, within)
        rows = spread(here)
        row = where(rows, x, state_map(torch.zeros_like, x))
        shift, origin = drift_of(clock, j), drift_of(clock, 0)
        if shift is None or origin is None:
            return row
        # dx(t_j)/dt_j = f(t_j, x_j), by one more evaluation; the other rows wait where f is known to be finite.
        now = torch.where(ended, step.times + step.lengths, torch.where(here, goal, step.times))
        slope = f(spread(now) + rows.double() * shift, where(rows, x, made.carry[0]))
        moved = rows.double() * shift - spread((here & before_jumps(step.times, clock)).double()) * origin
        return combine(row, moved, [1.0], [slope])

    def _sizes(self, x: State, x0: State, x1: State) -> Tensor:
        """The size of x in units of the tolerance, one a group."""
        pair = self.pair
        with torch.no_grad():
            sizes = [
                self.groups.norms(pair.norm, e / torch.maximum(a.abs(), b.abs()).add_(pair.atol / pair.rtol))
                for e, a, b in zip(parts_of(x), parts_of(x0), parts_of(x1), strict=True)
            ]
            return torch.stack(sizes).amax(0).to(device="cpu", dtype=torch.float64) / pair.rtol

    def _ratio(self, trial: Trial, carry: Carry) -> Tensor:
        if trial.error is None:
            raise TypeError(f"{type(self.pair).__name__}.advance gives no error estimate")
        return self._sizes(trial.error, carry[0], trial.carry[0])

    def first(self, f: Any, pace: Pace, carry: Carry) -> Tensor:
        """`Adaptive.first`, one length a group."""
        pair, span, (x, slope) = self.pair, pace.span(), carry
        if pair.first_step is not None:
            return span.clamp(max=pair.first_step)
        with torch.no_grad():
            d0, d1 = self._sizes(x, x, x), self._sizes(slope, x, x)
            h0 = torch.minimum(torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1), span)
            h0 = torch.where(h0.isfinite() & (h0 > 0), h0, 1e-6 * span)
            signed = self.groups.spread(pace.sign * h0)
            other = f(self.groups.spread(pace.time) + signed, combine(x, signed, [1.0], [slope]))
            steepest = torch.maximum(d1, self._sizes(subtract(other, slope), x, x) / h0)
        h1 = torch.where(steepest <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), torch.exp(torch.log(0.01 / steepest) / pair.error_order))
        return torch.where(steepest.isfinite(), torch.minimum(torch.minimum(100 * h0, h1), span), h0)

    def _check_slope(self, pace: Pace, carry: Carry) -> None:
        wrong = pace.active & ~self._sizes(carry[1], carry[0], carry[0]).isfinite()
        if bool(wrong.any()):
            i = int(wrong.nonzero()[0])
            raise SolveError(
                f"the solve diverged: in {self.groups.name} {i} the right-hand side is not finite at t = "
                f"{float(pace.time[i]):.6g} ({first_bad(carry[1]) or 'too large'}); look at f there, or take a smaller tolerance",
                Status.DIVERGED,
            )

    def _check_length(self, pace: Pace) -> None:
        ulp = torch.nextafter(pace.time.abs(), torch.full_like(pace.time, math.inf)) - pace.time.abs()
        stuck = pace.active & ((pace.h.abs() <= 4 * ulp) | (pace.time + pace.h == pace.time))
        if bool(stuck.any()):
            i = int(stuck.nonzero()[0])
            place = f"the solve diverged: at t = {float(pace.time[i]):.6g}, in {self.groups.name} {i},"
            if int(pace.troubles[i]):
                raise SolveError(
                    f"{place} no step is short enough, because just beyond the right-hand side is not finite; look at f there, "
                    "end before it, or name the time in jumps=...",
                    Status.DIVERGED,
                )
            raise SolveError(
                f"{place} the error stays too large however short the step, because the solution is singular, discontinuous or "
                "random there; end before it, name the time in jumps=..., or take a smaller tolerance",
                Status.DIVERGED,
            )


class OwnSteps:
    """x(s) at any time of a solve, every group by the step of its own that holds s."""

    def __init__(self, rounds: Rounds, dense: Dense) -> None:
        self.rounds, self.run, self.made = rounds, dense.run, [trial.stages for _, _, trial in dense.steps]
        steps = [step for step, _, _ in dense.steps if isinstance(step, Round)]
        self.lengths = torch.stack([step.lengths for step in steps])
        self.arrivals = torch.stack([step.arrivals for step in steps])

    def __call__(self, s: Tensor) -> State:
        sign, now, groups = self.run.clock.sign, float(s), self.rounds.groups
        first, last = self.run.clock.outputs[0], float(sign * (sign * self.arrivals[-1]).min())
        slack = 1e-12 * max(1.0, abs(first), abs(last))
        if not min(first, last) - slack <= now <= max(first, last) + slack:
            raise ValueError(f"t = {now:.6g} lies outside the solve, which covers {first:.6g} to {last:.6g}")
        ends = (self.lengths != 0) & (sign * self.arrivals >= min(sign * now, sign * last))
        which = ends.to(torch.int8).argmax(0)
        contributions = []
        for k in sorted(set(which[groups.sizes > 0].tolist())):
            here = groups.spread(which == k)
            t, h, carry, trial = self.made[k]
            theta = torch.where(here, (s - t) / torch.where(here, h, 1.0), 0.0)
            x = self.rounds.pair.interpolate(self.run.f, t, h, carry, trial, theta)
            contributions.append(where(here, x, state_map(torch.zeros_like, x)))
        return reduce(lambda x, y: state_map(torch.add, x, y), contributions)


def drift_of(clock: Clock, j: int) -> Tensor | None:
    """t_j minus its own value: zero, but not its gradient; None where no gradient in t is asked for."""
    if not (clock.differentiable and torch.is_grad_enabled()):
        return None
    return clock.t[j] - clock.t[j].detach()


def before_jumps(times: Tensor, clock: Clock) -> Tensor:
    """Which times move with t[0]: those before the first jump."""
    return clock.sign * times < clock.sign * clock.jumps[0] if clock.jumps else torch.ones_like(times, dtype=torch.bool)


def where(rows: Tensor, x: State, y: State) -> State:
    """x in the rows, y elsewhere."""
    return state_map(lambda a, b: torch.where(rows, a, b), x, y)
