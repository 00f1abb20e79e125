"""What the stabilised explicit methods share: long steps along the negative real axis, by many stages of three terms each."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch

from integrators.adaptive import Adaptive
from integrators.fixed import FixedStep
from integrators.integrator import Evaluate
from integrators.method import Carry, Clock, Step, Trial, hermite
from integrators.solution import SolveError, SolverWarning, State, Statistics, Status, Time
from integrators.spectral_radius import SAFETY, SpectralRadius, spectral_radius
from integrators.state import add, combine, parts_of, scaled, state_map, subtract
from integrators.watch import Watch

FRESH_FOR = 25
"""Evaluations after which adaptive steps estimate the spectral radius anew, at one to three of them."""
SLOW = 0.5
"""Oscillation of h|λ| below this is followed with little growth; above it every step multiplies it by more than 1 + 0.007."""

REPEATS = 10
"""How often a fixed step is tried, each time with up to twice the stages."""


class Stage(NamedTuple):
    """y_j = x + μ (y_{j−1} − x) + ν (y_{j−2} − x) + μ̃ h f(t + c h, y_{j−1}) + γ̃ h f(t, x), where c h is the time of y_{j−1}."""

    mu: float
    nu: float
    new: float
    old: float
    c: float


def recurrence(f: Evaluate, t: Time, h: Time, x: State, slope: State, stages: Sequence[Stage]) -> State:
    """y_s. The first stage is x + μ̃ h f(t, x); what is carried from stage to stage is y_j − x."""
    older, d = scaled(x, 0.0), scaled(slope, h * stages[0].new)
    for mu, nu, new, old, c in stages[1:]:
        now = f(t + c * h, add(x, d))
        older, d = d, combine(combine(scaled(d, mu), nu, [1.0], [older]), h, [new, old], [now, slope])
    return add(x, d)


class Stiffness(NamedTuple):
    """What the carry remembers of the spectral radius: numbers stay in the host's memory, so that no step waits for them."""

    radius: float
    turn: float
    age: float

    def pack(self) -> torch.Tensor:
        return torch.tensor(self, dtype=torch.float64)

    @staticmethod
    def unpack(numbers: torch.Tensor) -> Stiffness:
        return Stiffness(*numbers.detach().tolist())


@dataclass(frozen=True)
class Stabilised(Adaptive):
    """An explicit method of order 2 with as many stages as stability asks for, whose number grows only as √(h ρ).

    For equations whose eigenvalues lie along the negative real axis, as those of diffusion do, and nothing to factor. Its
    error estimate is 0.8 (x − x') + 0.4 h (f(t, x) + f(t + h, x')).

    The spectral radius ρ of ∂f/∂x is estimated from values of f: at the start, and then at the end of each fixed step, at one
    or two of them, or now and then where steps adapt. A fixed step in which ρ outgrew its stages is taken again with more; an
    adaptive one is refused by its error. Gradients treat ρ, and with it the number of stages, as a constant.

    Args:
        dt: fixed steps of at most this length, in place of rtol and atol.
        radius: an upper bound of ρ, where one is known; nothing is estimated then.
    """

    order: ClassVar[int] = 2
    error_order: ClassVar[int] = 3
    fewest: ClassVar[int]
    """The smallest number of stages."""

    dt: float | None = field(default=None, kw_only=True)
    radius: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dt is not None and not self.dt > 0:
            raise ValueError(f"dt must be positive, not {self.dt}")
        if self.radius is not None and not (math.isfinite(self.radius) and self.radius >= 0):
            raise ValueError(f"radius must be a finite bound of the spectral radius, not {self.radius}")

    @staticmethod
    @abstractmethod
    def stages_for(z: float) -> int:
        """The smallest number of stages that is stable on [−z, 0]."""

    @staticmethod
    @abstractmethod
    def stages(s: int) -> tuple[Stage, ...]:
        """The coefficients of the method with s stages."""

    def start(self, f: Any, t: Time, x: State) -> Carry:
        slope = f(t, x)
        if self.radius is not None:
            return x, slope
        found = spectral_radius(f, _number(t), x, slope=_detached(slope))
        return x, slope, Stiffness(found.value, found.turn, 0.0).pack(), found.vector

    def advance(self, f: Any, t: Time, h: Time, carry: Carry, before: float) -> Trial:
        x, slope = carry[:2]
        now, length, memory = _number(t), abs(_number(h)), carry[2:]
        if self.radius is not None:
            seen = Stiffness(self.radius, 1.0, 0.0)
        else:
            seen = Stiffness.unpack(memory[0])
            # A step much shorter than the one before has probably been rejected, perhaps because it was unstable.
            rejected = length < 0.5 * abs(before)
            if self.dt is None and (rejected or seen.age >= FRESH_FOR):
                found = spectral_radius(f, now, x, start=_known(seen, memory[1]), slope=_detached(slope))
                seen, memory = Stiffness(found.value, found.turn, 0.0), (memory[0], found.vector)
        if seen.turn < 0 and length * seen.radius > SLOW:
            if self.dt is not None:
                raise SolveError(f"the solve stopped at t = {now:.6g}: {self._oscillation(seen, length)}", Status.DIVERGED)
            # Refused before anything is evaluated, by an error that makes the next step as long as it may be.
            ratio = min(length * seen.radius / SLOW, 100.0) ** 3
            return Trial(carry, state_map(lambda part: ratio * (self.atol + self.rtol * part.abs()), x), 0)
        for _ in range(REPEATS):
            s = self._number_of_stages(now, length, seen)
            y = recurrence(f, t, h, x, slope, self.stages(s))
            after = f(t + h, y)
            if not memory:
                break
            if self.dt is None:
                memory = (seen._replace(age=seen.age + s).pack(), _detached(memory[1]))
                break
            # No error estimate refuses a step that was unstable because f became stiffer in it.
            known = _known(seen, memory[1])
            found = spectral_radius(f, _number(t + h), y, start=known, slope=_detached(after))
            memory = (Stiffness(found.value, found.turn, 0.0).pack(), found.vector)
            if found.value / SAFETY <= seen.radius:
                break
            # After an unstable step y may be anything, so what it says counts for little.
            least = spectral_radius(f, _number(t + h), x, start=known).value
            most = 4 * max(seen.radius, 1 / length)
            seen = seen._replace(radius=max(least, most if math.isnan(found.value) else min(found.value, most)))
            memory = (memory[0], known.vector)
        else:
            raise SolveError(
                f"the solve diverged: in the step from t = {now:.6g} to {now + _number(h):.6g} the equation becomes so much "
                "stiffer that no number of stages was enough; take a smaller dt, or rtol and atol in its place",
                Status.DIVERGED,
            )
        error = combine(scaled(subtract(x, y), 0.8), h, [0.4, 0.4], [slope, after])
        return Trial((y, after, *memory), error, s)

    def _number_of_stages(self, t: float, length: float, seen: Stiffness) -> int:
        z = length * seen.radius
        if not math.isfinite(z):
            raise SolveError(
                f"the solve diverged: around the state at t = {t:.6g} the right-hand side is not finite; look at f there",
                Status.DIVERGED,
            )
        s = self.stages_for(z)
        if s > self.max_nfe:
            raise SolveError(
                f"the solve reached t = {t:.6g}, where a step of {length:.3g} takes {s} stages (the spectral radius is about "
                f"{seen.radius:.3g}), more than its budget of {self.max_nfe} evaluations: raise max_nfe, or give f a linear "
                "part and use SDIRK3, ARK324 or Exponential",
                Status.BUDGET,
            )
        return s

    def _oscillation(self, seen: Stiffness, length: float) -> str:
        return (
            f"{type(self).__name__} is stable only where fast modes are damped, and the fastest of this equation oscillate "
            f"(|λ| is about {seen.radius:.3g}, near the imaginary axis), so that steps must stay below {SLOW / seen.radius:.2g}, "
            f"and this one is {length:.2g}. Use RK4 or Dopri5 where advection dominates, StoermerVerlet, ImplicitMidpoint or "
            "Exponential for waves, ARK324 for advection with diffusion"
        )

    def interpolate(self, f: Any, t: Time, h: Time, carry: Carry, trial: Trial, theta: Time) -> State:
        return hermite(carry[0], carry[1], trial.carry[0], trial.carry[1], h, theta)

    def steps(self, f: Any, x0: State, clock: Clock, watch: Watch, stats: Statistics) -> Iterator[tuple[Step, Carry, Trial]]:
        if self.dt is not None:
            yield from FixedStep.steps(self, f, x0, clock, watch, stats)  # type: ignore[arg-type]
            return
        for step, carry, trial in super().steps(f, x0, clock, watch, stats):
            if self.radius is None and not stats.advice:
                seen = Stiffness.unpack(trial.carry[2])
                if seen.turn < 0 and abs(step.h) * seen.radius > 0.4 * SLOW:
                    stats.advice = self._oscillation(seen, abs(step.h))
                    warnings.warn(stats.advice, SolverWarning, stacklevel=2)
            yield step, carry, trial


def _number(value: Time) -> float:
    return float(value.detach()) if isinstance(value, torch.Tensor) else value


def _known(seen: Stiffness, vector: State) -> SpectralRadius:
    return SpectralRadius(seen.radius, _detached(vector), 0j, seen.turn, 0)


def _detached(x: State) -> State:
    return tuple(part.detach() for part in parts_of(x)) if isinstance(x, tuple) else x.detach()
