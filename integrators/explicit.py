"""Explicit Runge–Kutta pairs, written once for every tableau."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from integrators.adaptive import Adaptive
from integrators.integrator import CountedRightHandSide, Evaluate
from integrators.method import Carry, Trial
from integrators.solution import State, Time
from integrators.state import combine, first_bad, weighted


@dataclass(frozen=True)
class ExplicitPair(Adaptive):
    """k_i = f(t + c_i h, x + h Σ_j a_ij k_j), x' = x + h Σ b_i k_i, error h Σ e_i k_i; first same as last.

    Args:
        compiled: run whole steps through `torch.compile`, once for each solver and f. It takes seconds at the first step and pays
            where steps are many and f is cheap; f must compile without graph breaks, and second derivatives need `False`.
    """

    compiled: bool = field(default=False, kw_only=True)

    c: ClassVar[tuple[float, ...]]
    """Of the stages after the first."""
    a: ClassVar[tuple[tuple[float, ...], ...]]
    """The last row is b: the last stage is f at the new state."""
    e: ClassVar[tuple[float, ...]]

    def start(self, f: Any, t: Time, x: State) -> Carry:
        return x, f(t, x)

    def advance(self, f: Any, t: Time, h: Time, carry: Carry, before: float) -> Trial:
        if self.compiled:
            return self._advance_compiled(f, t, h, carry)
        y, stages = self.stages(f, t, h, *carry)
        with torch.no_grad():  # Step lengths count as constants.
            error = weighted(h, self.e, stages)
        return Trial((y, stages[-1]), error, stages)

    def stages(self, f: Evaluate, t: Time, h: Time, x: State, slope: State) -> tuple[State, tuple[State, ...]]:
        """The new state, and the slopes of all stages."""
        stages, y = [slope], x
        for c, row in zip(self.c, self.a, strict=True):
            y = combine(x, h, row, stages)
            stages.append(f(t + c * h, y))
        return y, tuple(stages)

    def weights(self, theta: Time) -> Sequence[Time]:
        """b_i(θ) of the continuous extension x(t + θ h) = x + h Σ b_i(θ) k_i; the cubic Hermite polynomial by default."""
        rise, first, last = theta**2 * (3 - 2 * theta), theta * (1 - theta) ** 2, theta**2 * (theta - 1)
        b = [rise * w for w in self.a[-1]]
        return [b[0] + first, *b[1:], last]

    def interpolate(self, f: Any, t: Time, h: Time, carry: Carry, trial: Trial, theta: Time) -> State:
        if isinstance(theta, Tensor) and not isinstance(h, Tensor):
            h = theta.new_tensor(h)
        return combine(carry[0], h, self.weights(theta), trial.stages)

    def culprit(self, f: Any, t: float, h: float, carry: Carry) -> str:
        cause = ""

        def watched(s: Any, x: State) -> State:
            nonlocal cause
            slope: State = f.f(f.time(s), x)
            bad = "" if cause or first_bad(x) else first_bad(slope)
            if bad:
                cause = f"the right-hand side is not finite at t = {float(s):.6g} ({bad})"
            return slope

        with torch.no_grad():
            self.stages(watched, t, h, *carry)
        return cause

    def _advance_compiled(self, f: CountedRightHandSide, t: Time, h: Time, carry: Carry) -> Trial:
        for _ in self.c:
            f._count(t)
        # As tensors: every new number would compile anew.
        t, h = (s if isinstance(s, Tensor) else f.time(s) for s in (t, h))
        y, error, stages = compiled_step(type(self), f.f)(self, f.f, t, h, *carry)
        return Trial((y, stages[-1]), error, stages)


def whole_step(
    pair: ExplicitPair, f: Evaluate, t: Tensor, h: Tensor, x: State, slope: State
) -> tuple[State, State, tuple[State, ...]]:
    """One step from t to t + h: the new state, the error estimate and the slopes; tensors in, tensors out, no side effects."""
    y, stages = pair.stages(f, t, h, x, slope)
    return y, weighted(h, pair.e, stages), stages


_steps: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


def compiled_step(kind: type[ExplicitPair], f: Evaluate) -> Any:
    """`whole_step` compiled for one kind of pair and one f, kept as long as f lives."""
    owner = getattr(f, "__self__", f)  # A bound method is a new object whenever it is asked for.
    try:
        known = _steps.setdefault(owner, {})
    except TypeError:
        raise TypeError(
            f"compiled=True needs a right-hand side that can be hashed and weakly referenced, such as a module or a function, "
            f"and a {type(f).__name__} cannot: wrap it in a function, or use compiled=False"
        ) from None
    key = kind, getattr(f, "__func__", None)
    if key not in known:
        # Its own code object: torch counts recompilations of one code and gives up after eight.
        step = FunctionType(whole_step.__code__.replace(), whole_step.__globals__, "whole_step")
        known[key] = torch.compile(step, fullgraph=True)
    return known[key]
