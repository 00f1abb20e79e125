"""What our own solvers have in common: they advance a carry by steps, and every gradient is taken over these steps."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from integrators.checkpointed import Checkpointed
from integrators.gradients import GradientMode
from integrators.integrator import CountedRightHandSide, Evaluate, Integrator
from integrators.solution import Solution, SolveError, State, Statistics, Status, Time
from integrators.state import batched, combine, largest, parts_of
from integrators.watch import Watch

Carry = tuple[Any, ...]


class Trial(NamedTuple):
    """What one step gives.

    Attributes:
        carry: the state first, then whatever the next step wants to remember, as tensors or tuples of tensors.
        error: an estimate of the local error, like the state; None without one.
        stages: what `interpolate` wants to know of the step.
    """

    carry: Carry
    error: State | None = None
    stages: Any = None


@dataclass(frozen=True, slots=True)
class Step:
    """An accepted step from t to t + h.

    Attributes:
        before: the length of the step before, 0.0 where the method starts (anew), so that the carry is made from the state.
        cut: (k, i, n) if this is piece i of n between two marks k and k + 1 (output times and jumps), and moves with them;
            None if only the origin moves it.
        outputs: (j, θ) for each output time t_j = t + θ h in it, 0 < θ ≤ 1.
    """

    t: float
    h: float
    before: float
    cut: tuple[int, int, int] | None = None
    outputs: tuple[tuple[int, float], ...] = ()


class Clock:
    """Times as plain numbers, or as tensors where a gradient in t is asked for."""

    def __init__(self, t: Tensor, jumps: tuple[float, ...] = ()) -> None:
        self.outputs: list[float] = t.detach().tolist()
        self.sign = 1.0 if self.outputs[-1] > self.outputs[0] else -1.0
        lo, hi = sorted((self.outputs[0], self.outputs[-1]))
        self.breaks = {float(s) for s in jumps if lo <= s <= hi}  # f is one-sided there, and at an end of the solve too.
        inner = self.breaks - {lo, hi}
        self.jumps = sorted(inner, reverse=self.sign < 0)
        self.marks = sorted({*self.outputs, *inner}, reverse=self.sign < 0)
        self.t = t
        self.differentiable = t.requires_grad

    def of(self, step: Step) -> tuple[Time, Time]:
        """t and h of a step."""
        if not (self.differentiable and torch.is_grad_enabled()):
            return step.t, step.h
        if step.cut is None:
            if self._anchored(step):
                return step.t, step.h
            t = moved(step.t, self.t[0])
            if self.jumps and self._close(step.t + step.h, self.jumps[0]):  # A jump stays, so that this step gives way.
                return t, moved(step.h, -self.t[0])
            return t, step.h
        k, i, n = step.cut
        a, b = self._mark(k), self._mark(k + 1)
        h = (b - a) / n
        return moved(step.t, a + i * h), moved(step.h, h)

    def _mark(self, k: int) -> Tensor:
        value = self.marks[k]
        return self.t[self.outputs.index(value)] if value in self.outputs else self.t.new_tensor(value)

    def _anchored(self, step: Step) -> bool:
        """Whether the step lies behind a jump, so that nothing moves it."""
        return bool(self.jumps) and (self.sign * step.t > self.sign * self.jumps[0] or self._close(step.t, self.jumps[0]))

    def _close(self, s: float, mark: float) -> bool:
        return abs(s - mark) <= 1e-12 * abs(self.outputs[-1] - self.outputs[0])

    def shift(self, j: int, step: Step) -> Tensor | None:
        """t_j minus where the step believes it to be: zero in value, not in its gradient; None without a gradient."""
        if step.cut is not None or not (self.differentiable and torch.is_grad_enabled()):
            return None
        t, h = self.of(step)
        distance = self.t[j] - (t + dict(step.outputs)[j] * h)
        return distance - distance.detach()


def moved(value: float, t: Tensor) -> Tensor:
    """The value exactly, with the gradient of t: a time must not pass an end by round-off."""
    return value + (t - t.detach())


@dataclass(frozen=True, kw_only=True)
class Method(Integrator):
    """A solver of our own: it advances a carry (the state first) from step to step.

    A step is a function of its arguments alone, so that it can be repeated: gradients are exact for the steps that were
    taken, whose lengths count as constants (where they follow the output times, as these).

    Args:
        gradient: `Checkpointed()` (the default), `Direct()`, `Adjoint()`, `Interpolated()` or `Reversible()`.
        max_nfe: the budget of evaluations, after which a SolveError is raised.
    """

    gradient: GradientMode = field(default_factory=Checkpointed)
    max_nfe: int = 1_000_000

    reversible: ClassVar[bool] = False
    """Whether `advance` with −h undoes a step exactly, up to round-off."""

    def __post_init__(self) -> None:
        if not isinstance(self.gradient, GradientMode):
            raise TypeError(f"gradient must be Checkpointed(), Direct() or another such object, not {self.gradient!r}")
        if isinstance(self.max_nfe, bool) or not isinstance(self.max_nfe, int) or self.max_nfe < 1:
            raise ValueError(f"max_nfe must be a positive integer, not {self.max_nfe!r}")

    def solve(self, f: Evaluate, x0: State, t: Tensor, watch: Watch) -> Solution:
        return self.gradient.run(self, f, x0, t, watch)

    def prepare(self, f: CountedRightHandSide, t: float, x0: State) -> Any:
        """What the steps are given as f; methods that use the structure of f replace it. t and x0 are the start."""
        return f

    def start(self, f: Any, t: Time, x: State) -> Carry:
        """The carry at the beginning and after a jump."""
        return (x,)

    @abstractmethod
    def advance(self, f: Any, t: Time, h: Time, carry: Carry, before: float) -> Trial:
        """One step from t to t + h. `before` is the length of the step before, 0.0 for a first one."""

    def interpolate(self, f: Any, t: Time, h: Time, carry: Carry, trial: Trial, theta: Time) -> State:
        """x(t + θ h) inside a step; cubic Hermite interpolation (order 3) unless the method knows better."""
        x0, x1 = carry[0], trial.carry[0]
        return hermite(x0, f(t, x0), x1, f(t + h, x1), h, theta)

    @abstractmethod
    def steps(self, f: Any, x0: State, clock: Clock, watch: Watch, stats: Statistics) -> Iterator[tuple[Step, Carry, Trial]]:
        """Every accepted step, with the carry before it and what came of it."""

    def repeat(self, f: Any, step: Step, carry: Carry, clock: Clock) -> Trial:
        """An accepted step once more, from the same carry."""
        t, h = clock.of(step)
        return self.advance(f, t, h, carry, step.before)

    def outputs(self, f: Any, step: Step, carry: Carry, trial: Trial, clock: Clock) -> Iterator[tuple[int, State]]:
        """The states at the output times inside a step."""
        if not step.outputs:
            return
        t, h = clock.of(step)
        for j, theta in step.outputs:
            x = trial.carry[0] if theta == 1.0 else self.interpolate(f, t, h, carry, trial, theta)
            shift = clock.shift(j, step)
            if shift is not None:
                # dx(t_j)/dt_j = f(t_j, x_j), and its derivative: a midpoint step of length zero.
                now = moved(clock.outputs[j], clock.t[0])
                middle = combine(x, shift, [0.5], [f(now, x)])
                x = combine(x, shift, [1.0], [f(now + shift / 2, middle)])
            yield j, x


def hermite(x0: State, f0: State, x1: State, f1: State, h: Time, theta: Time) -> State:
    """The cubic through x0, x1 with slopes f0, f1 at θ = 0, 1; error O(h⁴)."""
    a, b = theta * theta * (3 - 2 * theta), theta * (1 - theta)

    def mix(p: Tensor, s: Tensor, q: Tensor, r: Tensor) -> Tensor:
        kind = p.real.dtype
        w, u, v = (c.to(kind) if isinstance(c, Tensor) else c for c in (a, h * b * (1 - theta), h * b * theta))
        return p + w * (q - p) + u * s - v * r

    if isinstance(x0, tuple):
        return tuple(mix(*parts) for parts in zip(x0, f0, x1, f1, strict=True))
    return mix(x0, f0, x1, f1)  # type: ignore[arg-type]


def require_finite(steps: list[tuple[Step, State]], x: State, stats: Statistics, f: Any) -> None:
    """Raise SolveError if the state x after some steps, each given with the state before it, is not finite, or so large that no
    norm of it exists; the error names the first such step and its cause."""
    if batched(x) or _sound(x):  # torch.func.vmap has no numbers to look at.
        return
    after = [*(state for _, state in steps[1:]), x]
    k = next(k for k, state in enumerate(after) if not _sound(state))
    step, before = steps[k]
    cause = _blame(f, step.t, before) or _blame(f, step.t + step.h, before)
    cause = f"{cause}, in" if cause else "the state grew without bound, to a norm that is not finite, by"
    raise SolveError(
        f"the solve diverged: {cause} step {stats.accepted - len(steps) + k + 2}, at t = {step.t + step.h:.6g}. Look at f there; "
        "if it is right, the step is too long for this equation: take a smaller dt, or an implicit integrator such as SDIRK3",
        Status.DIVERGED,
    )


def _sound(x: State) -> bool:
    # The square of a larger number overflows, so that no norm or energy of such a state exists.
    return largest(x) < math.sqrt(torch.finfo(parts_of(x)[0].dtype).max)


def _blame(f: Any, t: float, x: State) -> str:
    """Where f is not finite at (t, x), in words, if f, or what stands behind it, can tell."""
    while f is not None and not hasattr(f, "blame"):
        f = getattr(f, "split", None) or getattr(f, "f", None)
    return "" if f is None else str(f.blame(t, x))
