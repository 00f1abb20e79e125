"""A guard for long rollouts: it notices when a corrected simulator leaves what it was trained on, and does something about it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from integrators import Solution, SolveError, State, Status
from integrators.gradients import stacked
from integrators.state import check_state, parts_of, state_map
from neuralpde.stepper import Stepper, whole
from operators import FieldError

Measure = Callable[[Any], Tensor]


class Bound(ABC):
    """What every step of a rollout must keep to."""

    @abstractmethod
    def keeps(self, before: State, after: State, dt: float) -> Tensor:
        """Whether the step from `before` to `after` is fine, one truth value for each member of the batch, (...)."""


@dataclass(frozen=True, eq=False)
class Hull(Bound):
    """low ≤ x ≤ high at every node, in each channel: the range of the training, and a margin.

    Args:
        low, high: (c,).
    """

    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, truth: Tensor, margin: float = 0.5) -> Hull:
        """The range of trajectories (..., n, c), widened on both sides by `margin` times itself."""
        if not isinstance(truth, Tensor) or truth.is_complex() or not bool(torch.isfinite(truth).all()):
            raise FieldError("a hull is of one real finite field: of tuples and complex states bound a measure, by Limit.of(...)")
        flat = truth.detach().reshape(-1, truth.shape[-1])
        low, high = flat.amin(0), flat.amax(0)
        return cls(low - margin * (high - low), high + margin * (high - low))

    def keeps(self, before: State, after: State, dt: float) -> Tensor:
        if not isinstance(after, Tensor) or after.is_complex():
            raise FieldError("a hull bounds one real field: of tuples and complex states bound a measure, by Limit(...)")
        x = after
        return ((x >= self.low) & (x <= self.high)).all(dim=-1).all(dim=-1)


@dataclass(frozen=True, eq=False)
class Limit(Bound):
    """measure(x) ≤ largest: a norm, an energy, a maximum.

    Args:
        measure: state ↦ (...), such as `Norm(laplacian).measure` or the free energy of an equation.
        largest: a number.
    """

    measure: Measure
    largest: float

    @classmethod
    def of(cls, measure: Measure, truth: State, margin: float = 0.5) -> Limit:
        """The largest value over trajectories, and `margin` times its size."""
        top = float(measure(truth).detach().max())
        return cls(measure, top + margin * abs(top))

    def keeps(self, before: State, after: State, dt: float) -> Tensor:
        return self.measure(after).detach() <= self.largest


@dataclass(frozen=True, eq=False)
class Growth(Bound):
    """measure(x(t + Δt)) ≤ e^(rate Δt) measure(x(t)) + slack, for a measure that is not negative; rate 0: it never grows.

    Args:
        measure: state ↦ (...).
        rate: per unit of time.
        slack: in units of the measure, for round-off and for start-up.
    """

    measure: Measure
    rate: float = 0.0
    slack: float = 0.0

    def keeps(self, before: State, after: State, dt: float) -> Tensor:
        return self.measure(after).detach() <= math.exp(self.rate * dt) * self.measure(before).detach() + self.slack


@dataclass(frozen=True)
class Event:
    """A step that a guard did not let pass: the time it began, the members of the batch it concerned, and what was done."""

    t: float
    members: int
    done: str


class Response(ABC):
    """What a guard does with a step that breaks a bound."""

    @abstractmethod
    def mend(self, plain: State, corrected: State, fine: Callable[[State], Tensor], bad: Tensor) -> tuple[State, str]:
        """The step to take where `bad`, given that without the correction, and words for it."""


@dataclass(frozen=True)
class FallBack(Response):
    """The physics alone, for this step and these members of the batch."""

    def mend(self, plain: State, corrected: State, fine: Callable[[State], Tensor], bad: Tensor) -> tuple[State, str]:
        return _where(bad, plain, corrected), "physics alone"


@dataclass(frozen=True)
class Damp(Response):
    """Half the correction, a quarter, …, until the bounds are kept; after so many halvings the physics alone.

    Args:
        halvings: at most.
    """

    halvings: int = 4

    def mend(self, plain: State, corrected: State, fine: Callable[[State], Tensor], bad: Tensor) -> tuple[State, str]:
        if not _finite(corrected):
            return _where(bad, plain, corrected), "physics alone"
        x, still = corrected, bad
        for k in range(1, self.halvings + 1):
            share = 0.5**k
            less = state_map(lambda p, c: p + share * (c - p), plain, corrected)  # noqa: B023 (used at once)
            x = _where(still, less, x)
            still = bad & ~fine(x)
            if not bool(still.any()):
                return x, f"correction damped to 1/{2**k}"
        return _where(still, plain, x), "physics alone"


@dataclass(frozen=True)
class Stop(Response):
    """End the rollout and keep what was computed: `path` raises SolveError, whose `.solution` holds the states before."""

    def mend(self, plain: State, corrected: State, fine: Callable[[State], Tensor], bad: Tensor) -> tuple[State, str]:
        raise SolveError(
            f"a bound is broken by {int(bad.sum())} members of the batch: what was computed is in `.solution`; train longer "
            "rollouts, widen the bounds, or let the guard respond by Damp() or FallBack()",
            Status.MONITOR,
        )


class Guarded(Stepper):
    """A stepper that keeps within bounds.

    Args:
        stepper: with a correction.
        bounds: `Hull.of(truth)`, `Limit.of(...)`, `Growth(...)`; all must be kept.
        response: `Damp()`, `FallBack()` or `Stop()`.

    Attributes:
        events: what the guard did, since it was made or `clear()`ed.
    """

    def __init__(self, stepper: Stepper, bounds: Bound | Sequence[Bound], response: Response | None = None) -> None:
        super().__init__(stepper.dt)
        self.stepper = stepper
        self.bounds = (bounds,) if isinstance(bounds, Bound) else tuple(bounds)
        if not self.bounds:
            raise ValueError("a guard needs a bound to watch, such as Hull.of(truth)")
        self.response = Damp() if response is None else response
        self.events: list[Event] = []

    def forward(self, t: Any, x: Any) -> Any:
        try:
            y = self.stepper(t, x)
        except SolveError:
            # What the corrected solve diverged to is nobody's.
            y = state_map(lambda part: torch.full_like(part, math.nan), x)
        bad = ~self._fine(x, y)
        if not bool(bad.any()):
            return y
        plain = self.uncorrected(t, x)
        y, done = self.response.mend(plain, y, lambda z: self._fine(x, z), bad)
        self.events.append(Event(float(t), int(bad.sum()), done))
        return y

    def _fine(self, before: State, after: State) -> Tensor:
        with torch.no_grad():
            kept = [bound.keeps(before, after, self.dt) for bound in self.bounds]
            sound = [torch.isfinite(part).all(dim=-1).all(dim=-1) for part in parts_of(after)]
            fine = sound[0]
            for verdict in (*sound[1:], *kept):
                fine = fine & verdict
            return fine

    def path(self, x0: State, steps: int, t0: float = 0.0) -> State:
        check_state(x0, "x0")
        states, x = [x0], x0
        for k in range(whole(steps)):
            try:
                x = self(t0 + k * self.dt, x)
            except SolveError as error:
                times = torch.tensor([t0 + i * self.dt for i in range(k + 1)], dtype=torch.float64)
                error.solution = Solution(times, stacked(states), status=error.status)
                raise
            states.append(x)
        return stacked(states)

    def clear(self) -> None:
        """Forget the events."""
        self.events = []

    @property
    def uncorrected(self) -> Stepper:
        return self.stepper.uncorrected

    def supervised(self, t: float, x: State, y: State) -> State:
        return self.stepper.supervised(t, x, y)


def _where(chosen: Tensor, x: State, y: State) -> State:
    return state_map(lambda a, b: torch.where(chosen[..., None, None], a, b), x, y)


def _finite(x: State) -> bool:
    return all(bool(torch.isfinite(part.detach()).all()) for part in parts_of(x))
