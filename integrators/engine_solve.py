"""One solve by torchdiffeq: its stretches between jumps, its callbacks, and what is rescued when it fails."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import torch
import torchdiffeq
from torch import Tensor

from integrators.integrator import CountedRightHandSide, Evaluate
from integrators.method import Clock
from integrators.solution import Solution, SolveError, State, Statistics, Status
from integrators.state import Packing, first_bad, largest, number, parts_of
from integrators.watch import Watch

if TYPE_CHECKING:
    from integrators.engine_base import Engine

Knot = tuple[Tensor, Tensor]
"""A time, with its gradient, and the packed state there."""
UNCONVERGED = "Functional iteration did not converge"


class Piece:
    """The right-hand side on a stretch without jumps, as torchdiffeq wants it: packed, its time counted from the start.

    torchdiffeq rounds the time to the state's precision; counted from the start, it keeps its digits. Of the origin, which is
    the start again, only the gradient counts: the steps move with it.
    """

    follows: ClassVar[bool] = False
    """Whether the steps follow the output times, and so carry the gradients in them."""

    def __init__(
        self, solve: Solve, counted: CountedRightHandSide, start: float, origin: Tensor, inside: tuple[float, float]
    ) -> None:
        self.solve, self.counted, self.start, self.origin, self.inside = solve, counted, start, origin, inside
        self.recent: list[tuple[Tensor, State]] = []

    def __call__(self, t: Tensor, packed: Tensor) -> Tensor:
        s = self.start + t.double()
        now, (low, high) = float(s.detach()), self.inside
        if not low <= now <= high:
            s = s + (min(max(now, low), high) - now)
        if self.origin.requires_grad and torch.is_grad_enabled():
            s = s + (self.origin - self.origin.detach())
        dx = self.counted(s, self.solve.packing.unpack(packed))
        self.recent.append((s, dx))
        return self.solve.packing.pack(dx)

    def time(self, t: Tensor) -> Tensor:
        """The true time of torchdiffeq's t."""
        s = self.start + t.double()
        return s + (self.origin - self.origin.detach()) if self.origin.requires_grad else s

    def failure(self, otherwise: str, cure: str) -> SolveError:
        """A SolveError that blames the first of the last evaluations that was not finite, or gives another reason."""
        for s, dx in self.recent:
            bad = first_bad(dx)
            if bad:
                otherwise = f"the right-hand side is not finite at t = {float(s.detach()):.6g} ({bad}); look at f there"
                break
        return SolveError(f"the solve diverged: {otherwise}, or take {cure}", Status.DIVERGED)

    def finish(self, path: Tensor, times: Tensor) -> None:
        """Count the last step and look at what came of it."""


class AdaptivePiece(Piece):
    """With torchdiffeq's callbacks, read by name."""

    opening = True

    def callback_step(self, t: Tensor, packed: Tensor, dt: Tensor) -> None:
        solve = self.solve
        vanishing = not (t + dt > t and t - dt < t)  # torchdiffeq's assert for this is absent under python -O
        if vanishing or (self.opening and first_bad(self.recent[0][1])):
            raise self.vanishing(float(dt.detach()))
        self.recent, self.opening = [], False
        solve.tried += 1
        limit = solve.engine.max_num_steps  # type: ignore[attr-defined]
        if limit is not None and solve.tried > limit:
            raise SolveError(
                f"the solve reached t = {solve.reached:.6g} and its limit of {limit} steps: what was computed is in "
                "`.solution`; raise max_num_steps, loosen the tolerance, or try a solver for stiff equations",
                Status.STEPS,
            )
        solve.look(number(self.time(t)), packed)

    def vanishing(self, dt: float) -> SolveError:
        """What to say when the step vanishes."""
        return self.failure(
            f"the solve stopped at t = {self.solve.reached:.6g} after {self.solve.stats.accepted} steps: the step became too "
            f"small to matter ({dt:.1e}), because the solution is singular, discontinuous or stiff there; name the time of a "
            "jump in jumps=..., take a solver for stiff equations",
            "another tolerance",
        )

    def callback_accept_step(self, t: Tensor, packed: Tensor, dt: Tensor) -> None:
        self.solve.accept((self.time(t), packed), float(dt.detach()))

    def callback_reject_step(self, t: Tensor, packed: Tensor, dt: Tensor) -> None:
        self.solve.stats.rejected += 1
        self.solve.watch.check_clock(self.solve.reached)


class GridPiece(Piece):
    """With the one callback of torchdiffeq's methods on a grid."""

    follows: ClassVar[bool] = True
    pending: tuple[Knot, float] | None = None

    def callback_step(self, t: Tensor, packed: Tensor, dt: Tensor) -> None:
        now, length = number(self.time(t)), abs(float(dt.detach()))
        self.close(now, packed)
        self.solve.look(now, packed)
        self.pending, self.recent = ((self.time(t), packed), length), []
        if self.solve.engine.perturb:  # type: ignore[attr-defined]
            low, high = sorted((now, now + self.solve.sign * length))
            self.inside = (math.nextafter(low, math.inf), math.nextafter(high, -math.inf))

    def close(self, t: float, packed: Tensor) -> None:
        """Count the step that ended in this state, unless its norm overflows."""
        if not largest(packed) < math.sqrt(torch.finfo(packed.dtype).max):
            reason = f"step {self.solve.stats.accepted + 1}, at t = {t:.6g}, gave a state whose norm is not finite"
            raise self.failure(reason, "a smaller step_size, or an implicit integrator such as SDIRK3")
        if self.pending is not None:
            self.solve.accept(*self.pending)
            self.pending = None

    def finish(self, path: Tensor, times: Tensor) -> None:
        self.close(number(self.time(times[-1])), path[-1])


class SciPyPiece(Piece):
    """Looked at every time: SciPy does not mind NaN, and says little."""

    def __call__(self, t: Tensor, packed: Tensor) -> Tensor:
        self.recent = []
        dx = super().__call__(t, packed)
        if not bool(torch.isfinite(dx).all()):
            raise self.failure("", "a smaller tolerance")
        return dx

    def finish(self, path: Tensor, times: Tensor) -> None:
        if len(path) != len(times):
            now = number(self.time(times[max(0, len(path) - 1)]))
            reason = f"SciPy's solver gave up after t = {now:.6g}, because the solution is singular, discontinuous or stiff there"
            raise self.failure(reason, "another tolerance")


class Solve:
    """One solve: its stretches between jumps, and what is kept on the way.

    `see`, if set, is shown the packed state at the start of every step, and may end the solve by an exception.
    """

    def __init__(self, engine: Engine, f: Evaluate, x0: State, t: Tensor, watch: Watch) -> None:
        self.engine, self.f, self.x0, self.t, self.watch = engine, f, x0, t, watch
        self.tolerances = engine.tolerances(x0)
        self.packing = Packing(x0)
        self.stats = Statistics()
        self.counted = CountedRightHandSide(f, x0, self.stats, engine.max_nfe, watch)
        self.clock = Clock(t, watch.jumps)
        self.sign = self.clock.sign
        self.order = [self.sign * s for s in self.clock.outputs]
        self.reached, self.tried, self.last = self.clock.outputs[0], 0, 0.0
        self.knots: list[Knot] = []
        self.crossed: set[int] = set()
        self.rows = [self.packing.pack(x0)]
        self.see: Callable[[float, Tensor], None] | None = None
        self.shown = self.clock.outputs[0]

    def run(self) -> Solution:
        clock, x = self.clock, self.rows[0]
        status, failure = Status.SUCCESS, None
        try:
            for a, b in pairwise([clock.outputs[0], *clock.jumps, clock.outputs[-1]]):
                x = self.stretch(a, b, x)
        except SolveError as error:
            status, failure = error.status, error
        except KeyboardInterrupt as error:
            status = Status.INTERRUPTED
            failure = SolveError(f"interrupted after {self.stats.accepted} steps: `.solution` keeps them", status)
            failure.__cause__ = error
        if failure is not None:
            self.rescue()
        rows = self.packing.unpack(torch.stack(self.rows))
        solution = Solution(self.t[: len(self.rows)], rows, self.stats, status)
        if self.watch.dense:
            solution.interpolant = self.at
        if failure is not None:
            failure.solution = solution
            raise failure
        return solution

    def stretch(self, a: float, b: float, x: Tensor) -> Tensor:
        """Solve from a to b, between which f is smooth, and keep the outputs on the way."""
        t, outputs = self.t, self.clock.outputs
        inner = [j for j in range(1, len(outputs)) if self.sign * a < self.order[j] <= self.sign * b]
        times = [t[0] if a == outputs[0] else t.new_tensor(a), *(t[j] for j in inner)]
        if not inner or outputs[inner[-1]] != b:
            times.append(t.new_tensor(b))
        piece = self.piece(self.counted, a, times[0], self.inside(a, b))
        path = self.odeint(piece, x, times, self.last or None)
        self.reached = b
        for k, j in enumerate(inner, start=1):
            # Where torchdiffeq missed an output with its steps, its interpolant is too coarse.
            missed = j in self.crossed
            self.rows.append(self.on(self.knot(outputs[j]), t[j]) if missed else self.moved(path[k], times[k], piece))
        self.look(b, path[-1])
        return self.moved(path[-1], times[-1].detach(), piece)

    def piece(self, counted: CountedRightHandSide, start: float, origin: Tensor, inside: tuple[float, float]) -> Piece:
        """The right-hand side on a stretch."""
        kind = self.engine.piece
        return kind(self, counted, start, origin.detach() if kind.follows else origin, inside)

    def moved(self, x: Tensor, s: Tensor, piece: Piece) -> Tensor:
        """x with its gradients in its time s and in the origin of the steps, which do not follow s."""
        if piece.follows or not (s.requires_grad or piece.origin.requires_grad) or not torch.is_grad_enabled():
            return x
        shift = s - piece.origin
        slope = self.packing.pack(piece.counted(s, self.packing.unpack(x)))
        return x + (shift - shift.detach()).to(x.dtype) * slope

    def inside(self, a: float, b: float) -> tuple[float, float]:
        """The least and largest time at which f belongs to the stretch from a to b."""
        low, high = sorted((a, b))
        jumps = self.clock.breaks
        return (
            math.nextafter(low, math.inf) if low in jumps else -math.inf,
            math.nextafter(high, -math.inf) if high in jumps else math.inf,
        )

    def odeint(self, piece: Piece, x: Tensor, marks: list[Tensor], first: float | None) -> Tensor:
        """torchdiffeq's solve, with its own failures typed; `first` is a first step to try.

        The gradient in t goes through the steps that follow it, and else past torchdiffeq: through its interpolant it would be
        coarse, and over a short last step it would be anything.
        """
        times = torch.stack(marks)
        times = (times if piece.follows else times.detach()) - piece.start
        rtol, atol = self.tolerances
        options = self.engine.options(self, times, first)
        try:
            with self.engine.guard():
                path: Tensor = torchdiffeq.odeint(piece, x, times, rtol=rtol, atol=atol, method=self.engine.name, options=options)
        except (AssertionError, UserWarning) as error:
            if isinstance(error, UserWarning) and UNCONVERGED not in str(error):
                raise
            raise piece.failure(f"torchdiffeq stopped at t = {self.reached:.6g} ({error})", self.engine.cure) from error
        piece.finish(path, times)
        return path

    def norm(self, packed: Tensor) -> Tensor:
        """The norm of weighed errors; a huge number where they are not finite, so that the step is repeated shorter."""
        with torch.no_grad():
            parts = parts_of(self.packing.unpack(packed))
            sizes = [float(self.engine.norm.of(part)) for part in parts]  # type: ignore[attr-defined]
            return packed.new_tensor(max(sizes) if all(map(math.isfinite, sizes)) else 1e10)

    def look(self, t: float, packed: Tensor) -> None:
        """Show the start of a step to who watches the solve, and to its monitor once."""
        if self.see is not None:
            self.see(t, packed)
        if self.watch.monitor is not None and t != self.shown:
            self.watch.see(t, self.packing.unpack(packed))
            self.shown = t

    def accept(self, knot: Knot, length: float) -> None:
        """Count a step, and keep its start if an output time lies in it or any may be asked for."""
        outputs, t, h = self.clock.outputs, number(knot[0]), self.sign * length
        self.watch.accepted(self.stats, t, h, (t + h - outputs[0]) / (outputs[-1] - outputs[0]))
        self.reached, self.last = t + h, length
        slack = 1e-9 * length
        first, end = (bisect_right(self.order, self.sign * s + slack) for s in (t, t + h))
        if end > first or self.watch.dense:
            self.knots.append(knot)
        if self.engine.steps_to_outputs:
            self.crossed.update(j for j in range(first, end) if self.order[j] < self.sign * (t + h) - slack)

    def knot(self, s: float) -> Knot:
        """The last kept start of a step before s."""
        k = bisect_left(self.knots, self.sign * s, key=lambda knot: self.sign * number(knot[0]))
        return self.knots[k - 1] if k else (self.t[0], self.rows[0])

    def on(self, knot: Knot, s: Tensor) -> Tensor:
        """The packed state at s, solved on from a knot; its evaluations are not counted."""
        start, now = number(knot[0]), number(s)
        solve = Solve(self.engine, self.f, self.x0, s.new_tensor([start, now]), Watch())
        piece = solve.piece(solve.counted, start, knot[0], self.inside(start, now))
        return self.moved(solve.odeint(piece, knot[1], [knot[0], s], abs(now - start))[-1], s, piece)

    def at(self, s: Tensor) -> State:
        """The state at s."""
        now, ends = number(s), (self.clock.outputs[0], self.reached)
        slack = 1e-12 * max(1.0, *map(abs, ends))
        if not min(ends) - slack <= now <= max(ends) + slack:
            raise ValueError(f"t = {now:.6g} lies outside the solve, which covers {ends[0]:.6g} to {ends[1]:.6g}")
        if self.sign * (now - ends[0]) <= slack:
            slope = self.packing.pack(self.f(s, self.x0))
            return self.packing.unpack(self.rows[0] + (s - self.t[0]).to(slope.dtype) * slope)
        return self.packing.unpack(self.on(self.knot(now), s))

    def rescue(self) -> None:
        """The outputs that were reached before a failure: torchdiffeq drops them with its error."""
        for j in range(len(self.rows), len(self.order)):
            if not self.knots or self.order[j] > self.sign * self.reached:
                return
            try:
                self.rows.append(self.on(self.knot(self.clock.outputs[j]), self.t[j]))
            except SolveError:  # A random right-hand side need not repeat itself.
                return


def resolved(rtol: float, atol: float, x0: State) -> tuple[float, float]:
    """The tolerances, if the state's precision can meet them."""
    precision = torch.finfo(parts_of(x0)[0].dtype)
    if rtol < 4 * precision.eps:
        raise ValueError(
            f"rtol = {rtol:.1e} cannot be met in {precision.dtype} (round-off {precision.eps:.1e}), and the solver would crawl: "
            f"use float64, or rtol ≥ {4 * precision.eps:.1e}"
        )
    return rtol, atol
