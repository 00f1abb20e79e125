"""Step lengths on a ladder, (b − a)/2^m, so that a matrix factored for one step serves many."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from integrators.adaptive import Adaptive
from integrators.controller import INTEGRAL, Controller
from integrators.fixed import FixedStep
from integrators.integrator import CountedRightHandSide
from integrators.method import Carry, Clock, Step, Trial, moved
from integrators.newton_krylov import NewtonKrylov
from integrators.solution import NotConverged, State, Statistics, Time
from integrators.stage import stage_solver
from integrators.state import state_map
from integrators.watch import Watch

# A factorization costs about as much as this many steps (10k vertices, one column).
STEPS_A_FACTOR = 12
# After so many steps of one length even a length twice as long is worth a factor; before, it may soon grow again.
SETTLED = 32
# Lengths that differ by round-off only are one rung, and share a factor.
SAME = 1e-9


@dataclass(frozen=True)
class Ladder(Adaptive):
    """An adaptive implicit method whose steps are (b − a)/2^m, on the dyadic grid of each stretch from a to b; or fixed steps.

    A step grows only where it stays on the grid, and only if the steps it saves are worth a new factor; it shrinks by at least
    half after a rejection. Where nothing is factored (no `f.linear`) the steps are those of `Adaptive`.

    A method writes `attempt`, and leaves its error estimate out where `adapts` is False.

    Args:
        dt: the largest step, for fixed steps as in `FixedStep`; rtol and atol then play no part.
        newton: how nonlinear stages are solved.
    """

    # Proportional control would read a step that is held at its rung as one that the error holds there.
    controller: Controller = field(default=INTEGRAL, kw_only=True)
    dt: float | None = field(default=None, kw_only=True)
    newton: NewtonKrylov = field(default_factory=NewtonKrylov, kw_only=True)

    needs_slope: ClassVar[bool] = False
    affine: ClassVar[bool] = True
    """As in `stage_solver`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dt is not None and not self.dt > 0:
            raise ValueError(f"dt must be positive, not {self.dt}")

    @property
    def adapts(self) -> bool:
        """Whether steps follow the tolerances."""
        return self.dt is None

    @abstractmethod
    def attempt(self, f: Any, t: Time, h: Time, carry: Carry, before: float) -> Trial:
        """One step from t to t + h, as `advance`; may raise NotConverged."""

    def prepare(self, f: CountedRightHandSide, t: float, x0: State) -> Any:
        tolerances = (self.rtol, self.atol) if self.adapts else (None, None)
        return stage_solver(f, t, x0, user=type(self).__name__, newton=self.newton, tolerances=tolerances, affine=self.affine)

    def advance(self, f: Any, t: Time, h: Time, carry: Carry, before: float) -> Trial:
        try:
            return self.attempt(f, t, same(h, before), carry, before)
        except NotConverged:
            if not self.adapts:
                raise
            return Trial(carry, state_map(lambda part: torch.full_like(part, math.nan), carry[0]))

    def steps(self, f: Any, x0: State, clock: Clock, watch: Watch, stats: Statistics) -> Iterator[tuple[Step, Carry, Trial]]:
        march = Adaptive.steps if self.adapts else FixedStep.steps
        yield from march(self, f, x0, clock, watch, stats)  # type: ignore[arg-type]

    def first(self, f: Any, t: float, x: State, slope: State, limit: float) -> float:
        """A step with (h λ)^p = 1 / ‖x‖ in units of the tolerance, where ‖f‖ = λ ‖x‖: no stability limit is to be found."""
        if self.first_step is not None:
            return min(self.first_step, abs(limit))
        size = max(self.norm(x, x, x, self.rtol, self.atol), 1.0)
        steepness = max(self.norm(slope, x, x, self.rtol, self.atol), 1e-300)
        length: float = size ** (1 - 1 / self.error_order) / steepness
        return min(length, abs(limit))

    def fit(self, f: Any, h: float, t: float, a: float, b: float, before: float) -> float:
        if not f.factored:
            return super().fit(f, h, t, a, b, before)
        span, now, left = abs(b - a), abs(before), abs(b - t)
        length: float = min(span, span * 2.0 ** math.floor(math.log2(max(h / span, 1e-300)) + SAME))
        if now and length > (1 + SAME) * now and not self._worth(length, now, abs(t - a), left):
            length = now
        return left if left <= (1 + SAME) * length else length

    def propose(self, length: float, growth: float, proposal: float) -> float:
        return length * growth

    def _worth(self, length: float, now: float, gone: float, left: float) -> bool:
        """Whether to climb from `now` to `length`."""
        places = gone / length
        if abs(places - round(places)) > 1e-6 or length > (1 + SAME) * left:
            return False
        if left / now - left / length < STEPS_A_FACTOR:
            return False
        return length > 3 * now or gone / now >= SETTLED


def same(h: Time, before: float) -> Time:
    """h, with the value of the step before where only round-off tells them apart."""
    value = h.item() if isinstance(h, torch.Tensor) else h
    if not math.isclose(value, before, rel_tol=SAME):
        return h
    return moved(before, h) if isinstance(h, torch.Tensor) else before
