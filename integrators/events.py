"""Solving until something happens: the first zero of an event function along the solution."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.optimize import brentq
from torch import Tensor

from integrators.captured import reached_tensors
from integrators.dopri5 import Dopri5
from integrators.engine_base import Engine
from integrators.engine_solve import SciPyPiece, Solve
from integrators.gradients import Direct, Run, stacked
from integrators.integrate import begun, check_jumps, integrate
from integrators.integrator import Evaluate, Integrator
from integrators.method import Method, hermite
from integrators.solution import Solution, SolveError, State, Statistics, Status, Time
from integrators.state import check_state, largest, parts_of, state_map
from integrators.watch import Watch

Event = Callable[[Any, Any], Tensor | tuple[Tensor, ...]]
LOOKS = 8
NEAR = 0.0025  # of the time between two looks: so near to its zero an event must change sign


def integrate_until(
    f: Evaluate,
    x0: State,
    t0: Time,
    event: Event,
    solver: Integrator | None = None,
    *,
    limit: float,
    direction: int = 0,
    every: float = math.inf,
    jumps: Iterable[float] = (),
    dense: bool = False,
    max_steps: float = math.inf,
    max_seconds: float = math.inf,
    throw: bool = True,
) -> Solution:
    """Solve dx/dt = f(t, x) from x(t0) = x0 until event(t, x) = 0, or until `limit`.

    The event is looked at `LOOKS` times in every step, on the solver's continuous extension. A change of sign is followed by
    Brent's method and Newton's; where the event turns back between two looks, its extremum is sought first. What is missed:
    two zeros closer together than that which show no turn, and a zero that is touched but not crossed. Take `every` below
    the time between two zeros where steps may be longer. Where g jumps through zero, or has a pole, counts as a zero.

    The solution holds t = (t0, t*) and the states there; `status` is EVENT, or SUCCESS if t* is the limit. Both t* and x(t*)
    have gradients, in x0, t0 and what f and the event reach, by whatever gradient the solver has: dt* = −dg / (dg/dt).
    Where gradients are wanted the way to t* is solved once more to carry them. First derivatives only.

    Args:
        event: a scalar g(t, x), differentiable if gradients are wanted, or a tuple of such, of which the first zero counts.
        limit: where to stop in any case; before t0 to solve in reverse time.
        direction: 1 for zeros where g rises along the way, −1 where it falls, 0 for both.
        every: the longest time between two looks.
        jumps, dense, max_steps, max_seconds, throw: as in `integrate`.

    Raises:
        SolveError: the solve failed, or the event is not finite; `.solution` holds the last state that was reached.
        ValueError, TypeError: input that cannot be used. A zero at t0 itself is no event.
    """
    check_state(x0, "x0")
    device = parts_of(x0)[0].device
    begin = torch.as_tensor(t0, dtype=torch.float64, device=device)
    solver = Dopri5() if solver is None else solver
    _check(f, solver, event, begin, limit, direction, every)
    f = begun(f, x0)
    watch = Watch(max_steps, max_seconds, (*check_jumps(jumps), *getattr(f, "jumps", ())))
    interpolant = None
    try:
        with torch.no_grad():
            hit = locate(f, state_map(torch.Tensor.detach, x0), begin.detach(), event, solver, limit, direction, every, watch)
        end = begin.new_tensor(hit.t)
        x, stats = hit.x, hit.stats
        wanted = torch.is_grad_enabled() and any(
            part.requires_grad for part in (*parts_of(x0), begin, *reached_tensors(f, begin, x0)[0])
        )
        if wanted or dense:
            limits: dict[str, Any] = {"max_steps": max_steps, "max_seconds": max_seconds}
            path = integrate(f, x0, torch.stack([begin, end]), solver, jumps=watch.jumps, dense=dense, **limits)
            x, interpolant = path.final, path.interpolant
            for name in ("nfe", "nvp", "solves", "factorizations"):
                setattr(path.stats, name, getattr(path.stats, name) + getattr(stats, name))
            path.stats.accepted, path.stats.rejected = stats.accepted, stats.rejected
            stats = path.stats
    except SolveError as error:
        if throw or error.solution is None:
            raise
        return error.solution
    if hit.index is not None and torch.is_grad_enabled():
        end, x = _linked(f, event, hit.index, end, x)
    # The values are those of the search, with or without gradients.
    x = state_map(lambda value, part: value + (part - part.detach()) if part.requires_grad else value, hit.x, x)
    status = Status.SUCCESS if hit.index is None else Status.EVENT
    return Solution(torch.stack([begin, end]), stacked([x0, x]), stats, status, interpolant)


@dataclass(frozen=True)
class Hit:
    """Where a search ended: time, state, which event (None at the limit), and what it cost."""

    t: float
    x: State
    index: int | None
    stats: Statistics


def locate(
    f: Evaluate, x0: State, t0: Tensor, event: Event, solver: Integrator, limit: float, direction: int, every: float, watch: Watch
) -> Hit:
    """The first event, or the limit, without gradients."""
    try:
        search = _Search(f, event, direction, every, float(t0), x0)
    except SolveError as error:
        error.solution = _partial(x0, float(t0), x0, float(t0), Statistics(), error.status)
        raise
    times = torch.stack([t0, t0.new_tensor(limit)])
    if isinstance(solver, Engine):
        return _by_engine(search, f, x0, times, solver, watch)
    if not isinstance(solver, Method):
        raise TypeError(
            f"integrate_until needs a solver that shows its steps, and {type(solver).__name__} does not: take one such as Dopri5 "
            "or SDIRK3"
        )
    run = Run(replace(solver, gradient=Direct()), f, x0, times, watch)
    x, now = x0, float(t0)
    try:
        for step, carry, trial in solver.steps(run.f, x0, run.clock, watch, run.stats):
            span = _OwnSpan(run, step, carry, trial)
            hit = search.look(span)
            if hit is not None:
                return Hit(*hit, run.stats)
            x, now = trial.carry[0], step.t + step.h
    except SolveError as error:
        error.solution = _partial(x0, float(t0), x, now, run.stats, error.status)
        raise
    return Hit(limit, x, None, run.stats)


def _by_engine(search: _Search, f: Evaluate, x0: State, times: Tensor, solver: Engine, watch: Watch) -> Hit:
    if solver.piece is SciPyPiece:
        raise TypeError("SciPy's solvers do not show their steps: take another method for events")
    solve = Solve(replace(solver, gradient=Direct()), f, x0, times, watch)
    begin = float(times[0])
    last = [(begin, solve.rows[0])]

    def see(t: float, packed: Tensor) -> None:
        if t != last[0][0]:
            hit = search.look(_EngineSpan(solve, *last[0], t, packed))
            if hit is not None:
                raise _Found(hit)
            last[0] = (t, packed)

    solve.see = see
    try:
        final = solve.run().final
    except _Found as found:
        return Hit(*found.hit, solve.stats)
    except SolveError as error:
        now, packed = last[0]
        error.solution = _partial(x0, begin, solve.packing.unpack(packed), now, solve.stats, error.status)
        raise
    return Hit(float(times[1]), final, None, solve.stats)


class _Found(Exception):  # noqa: N818 — the end of a search, no error
    def __init__(self, hit: tuple[float, State, int]) -> None:
        super().__init__()
        self.hit = hit


class _Span:
    """One step of a solve: the state anywhere in it."""

    def __init__(self, f: Evaluate, t: float, h: float, x0: State, x1: State) -> None:
        self.f, self.t, self.h, self.x0, self.x1 = f, t, h, x0, x1
        self.slopes: tuple[State, State] | None = None

    def at(self, theta: float) -> State:
        """The state at t + θ h by the continuous extension."""
        if theta == 1.0:
            return self.x1
        if self.slopes is None:
            self.slopes = self.f(self.t, self.x0), self.f(self.t + self.h, self.x1)
        return hermite(self.x0, self.slopes[0], self.x1, self.slopes[1], self.h, theta)

    def exactly(self, theta: float) -> State:
        """The same by a step of that length."""
        raise NotImplementedError


class _OwnSpan(_Span):
    def __init__(self, run: Run, step: Any, carry: Any, trial: Any) -> None:
        super().__init__(run.counted, step.t, step.h, carry[0], trial.carry[0])
        self.run, self.step, self.carry, self.trial = run, step, carry, trial
        self.own = type(run.method).interpolate is not Method.interpolate

    def at(self, theta: float) -> State:
        if not self.own or theta == 1.0:
            return super().at(theta)
        return self.run.method.interpolate(self.run.f, self.t, self.h, self.carry, self.trial, theta)

    def exactly(self, theta: float) -> State:
        x: State = self.run.method.advance(self.run.f, self.t, theta * self.h, self.carry, self.step.before).carry[0]
        return x


class _EngineSpan(_Span):
    def __init__(self, solve: Solve, t: float, packed: Tensor, end: float, after: Tensor) -> None:
        super().__init__(solve.counted, t, end - t, solve.packing.unpack(packed), solve.packing.unpack(after))
        self.solve, self.packed = solve, packed

    def exactly(self, theta: float) -> State:
        s = torch.tensor(self.t + theta * self.h, dtype=torch.float64, device=self.packed.device)
        return self.solve.packing.unpack(self.solve.on((s.new_tensor(self.t), self.packed), s))


class _Search:
    """The signs of the events, followed from step to step."""

    def __init__(self, f: Evaluate, event: Event, direction: int, every: float, t0: float, x0: State) -> None:
        self.f, self.event, self.direction, self.every, self.t0 = f, event, direction, every, t0
        self.device = parts_of(x0)[0].device
        self.signs = [math.copysign(1.0, g) if g else 0.0 for g in self.values(t0, x0)]
        now = torch.tensor(t0, dtype=torch.float64, device=self.device)
        slope = f(now, x0)
        size, speed = largest(x0), largest(slope)
        precision = torch.finfo(parts_of(x0)[0].dtype).eps
        # A zero so near to the start is the one that the solve starts from, as a ball starts from the ground.
        self.tick = max(1e-10, 100 * precision) * (size / speed if speed > 0 else 1.0) + 100 * math.ulp(t0)
        for k, g in enumerate(self.values(t0, x0)):
            rate = _rate(event, k, now, x0, slope)
            if abs(g) <= abs(rate) * self.tick:
                self.signs[k] = math.copysign(1.0, rate) if rate else 0.0

    def values(self, t: float, x: State) -> list[float]:
        """Every event at (t, x)."""
        now = torch.tensor(t, dtype=torch.float64, device=self.device)
        values = [float(g.detach()) for g in _scalars(self.event, now, x)]
        for k, g in enumerate(values):
            if math.isnan(g):
                which = f"event {k}" if len(values) > 1 else "the event"
                raise SolveError(f"{which} is NaN at t = {t:.6g}: look at it there, or stop before it", Status.DIVERGED)
        return values

    def look(self, span: _Span) -> tuple[float, State, int] | None:
        """The first event in a step, if there is one: its time, the state, and which."""
        n = max(LOOKS, math.ceil(min(abs(span.h) / self.every, 1e7)))
        rows = [self.values(span.t, span.x0)]
        for i in range(1, n + 1):
            theta = i / n
            rows.append(self.values(span.t + theta * span.h, span.at(theta)))
            found: list[tuple[float, int]] = []
            for k, sign in enumerate(self.signs):
                g = rows[i][k]
                if sign * g > 0:
                    inner = self._turn(span, k, [row[k] * sign for row in rows[-3:]], i, n) if i > 1 else None
                    if inner is not None:
                        self._add(found, span, k, (i - 2) / n, inner)
                elif sign == 0:
                    self.signs[k] = math.copysign(1.0, g) if g else 0.0
                elif not self._add(found, span, k, (i - 1) / n, theta) and g != 0:
                    self.signs[k] = -sign
            if found:
                theta, k = min(found)
                hit = self._sharpen(span, theta, k, NEAR / n)
                if hit is not None:
                    return hit
        return None

    def _add(self, found: list[tuple[float, int]], span: _Span, k: int, a: float, b: float) -> bool:
        """Note the zero of event k between a and b, unless it is the start or goes the wrong way."""
        if self.direction * self.signs[k] > 0:
            return False
        theta = b
        if self._g(span, k, a) * self._g(span, k, b) < 0:
            theta = float(brentq(lambda s: self._g(span, k, s), a, b, xtol=1e-15, rtol=1e-15))
        if abs(span.t + theta * span.h - self.t0) <= self.tick:
            return False
        found.append((theta, k))
        return True

    def _g(self, span: _Span, k: int, theta: float) -> float:
        x = span.x0 if theta == 0 else span.at(theta)
        return self.values(span.t + theta * span.h, x)[k]

    def _turn(self, span: _Span, k: int, g: list[float], i: int, n: int) -> float | None:
        """Where the event dips through zero between three looks, of which the middle one is the lowest."""
        if not (g[0] > g[1] < g[2] and min(g[0], g[2]) > 0):
            return None
        golden, sign = (math.sqrt(5) - 1) / 2, self.signs[k]
        a, b = (i - 2) / n, i / n
        c, d = b - golden * (b - a), a + golden * (b - a)
        low, high = sign * self._g(span, k, c), sign * self._g(span, k, d)
        for _ in range(40):
            if min(low, high) < 0:
                return c if low < high else d
            if low < high:
                b, d, high = d, c, low
                c = b - golden * (b - a)
                low = sign * self._g(span, k, c)
            else:
                a, c, low = c, d, high
                d = a + golden * (b - a)
                high = sign * self._g(span, k, d)
        return None

    def _sharpen(self, span: _Span, theta: float, k: int, near: float) -> tuple[float, State, int] | None:
        """A zero of the continuous extension, moved to that of the solution by two steps of Newton's method.

        None if the solution has no zero there: in a step that is far too long its extension says nothing.
        """
        for _ in range(3):
            x = span.exactly(theta)
            t = torch.tensor(span.t + theta * span.h, dtype=torch.float64, device=self.device)
            rate = _rate(self.event, k, t, x, self.f(t, x))
            shift = -self.values(float(t), x)[k] / (rate * span.h) if rate else 0.0
            if not (0 < theta + shift <= 1 and 1e-16 < abs(shift) < 0.1):
                break
            theta += shift
        around = [s for s in (theta - near, theta + near) if s > 0]
        signs = {self.signs[k]} | {math.copysign(1.0, self.values(span.t + s * span.h, span.exactly(s))[k]) for s in around}
        return (float(t), x, k) if len(signs) == 2 else None


def _scalars(event: Event, t: Tensor, x: State) -> tuple[Tensor, ...]:
    """The events as a tuple of scalars."""
    value = event(t, x)
    parts = value if isinstance(value, tuple) else (value,)
    if not parts:
        raise ValueError("the event is an empty tuple: it must be a scalar tensor, or a tuple of them")
    for part in parts:
        if not isinstance(part, Tensor) or part.numel() != 1 or not part.is_floating_point():
            given = f"{tuple(part.shape)} {part.dtype}" if isinstance(part, Tensor) else type(part).__name__
            raise TypeError(f"the event must be a real scalar tensor, or a tuple of them, not {given}")
    return tuple(part.reshape(()) for part in parts)


def _rate(event: Event, k: int, t: Tensor, x: State, slope: State) -> float:
    """dg/dt = ∂g/∂t + ∂g/∂x · f along the solution; zero if the event cannot be differentiated."""
    with torch.enable_grad():
        now = t.detach().clone().requires_grad_()
        probe = state_map(lambda part: part.detach().clone().requires_grad_(), x)
        g = _scalars(event, now, probe)[k]
    if not g.requires_grad:
        return 0.0
    in_t, *in_x = torch.autograd.grad(g, [now, *parts_of(probe)], allow_unused=True, retain_graph=True)
    rate = 0.0 if in_t is None else float(in_t)
    for part, s in zip(in_x, parts_of(slope), strict=True):
        rate += 0.0 if part is None else float((part.conj() * s).real.sum())
    return rate


def _linked(f: Evaluate, event: Event, k: int, t: Tensor, x: State) -> tuple[Tensor, State]:
    """t and x moved with the zero of event k by the implicit function theorem: not in value, but in their gradients."""
    g = _scalars(event, t, x)[k]
    if not g.requires_grad:
        return t, x
    with torch.no_grad():
        here = state_map(torch.Tensor.detach, x)
        slope = f(t, here)
    rate = _rate(event, k, t, here, slope)
    if not (math.isfinite(rate) and rate):
        raise SolveError(f"the event is touched, not crossed, at t = {float(t):.6g}: its time has no derivative", Status.DIVERGED)
    shift = -(g - g.detach()).double() / rate
    moved = state_map(lambda part, s: part + shift.to(part.real.dtype) * s, x, slope)
    end = t + shift
    for part in (end, *parts_of(moved)):
        part.register_hook(_refuse_second_order)  # type: ignore[no-untyped-call]
    return end, moved


def _refuse_second_order(grad: Tensor) -> None:
    if torch.is_grad_enabled():
        raise NotImplementedError("the time and state of an event have no second derivatives (create_graph=True)")


def _partial(x0: State, t0: float, x: State, t: float, stats: Statistics, status: Status) -> Solution:
    """The start and the last state that was reached."""
    times, states = ([t0], [x0]) if t == t0 else ([t0, t], [x0, x])
    return Solution(torch.tensor(times, dtype=torch.float64, device=parts_of(x0)[0].device), stacked(states), stats, status)


def _check(f: object, solver: object, event: object, t0: Tensor, limit: float, direction: int, every: float) -> None:
    if not callable(f):
        raise TypeError(f"the right-hand side must be callable as f(t, x), not {type(f).__name__}")
    if not callable(event):
        raise TypeError(f"the event must be callable as event(t, x), not {type(event).__name__}")
    if not isinstance(solver, Integrator):
        raise TypeError(f"solver must be an integrator such as Dopri5(rtol=1e-6), not {solver!r}")
    if t0.ndim != 0 or not bool(torch.isfinite(t0)):
        raise ValueError(f"t0 must be one finite time, not {t0.detach().tolist()}")
    if not math.isfinite(limit) or limit == float(t0.detach()):
        raise ValueError(f"limit must be a finite time after t0 (or before it, to go back), not {limit}")
    if direction not in (-1, 0, 1):
        raise ValueError(f"direction must be 1 (rising), -1 (falling) or 0 (both), not {direction!r}")
    if not every > 0:
        raise ValueError(f"every must be a positive time, not {every}")
