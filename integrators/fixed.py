"""Explicit methods with a fixed step."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from integrators.integrator import CountedRightHandSide, Evaluate, Integrator, add, add_scaled, scaled
from integrators.solution import Solution, SolveError, State, Statistics, Status
from integrators.state import parts_of


@dataclass(frozen=True)
class FixedStep(Integrator):
    """A one-step method with steps of at most `dt`, shortened evenly so that every output time is hit exactly.

    A new scheme writes `step`. The gradient is the exact one of the discrete solution, by autograd.

    Args:
        dt: the largest step, in units of t; `math.inf` for one step from each output time to the next.
        max_nfe: the budget of evaluations, after which a SolveError is raised.
    """

    dt: float
    max_nfe: int = 1_000_000

    def __post_init__(self) -> None:
        if not self.dt > 0:
            raise ValueError(f"dt must be positive, not {self.dt}")

    @abstractmethod
    def step(self, f: Evaluate, t: Tensor, x: State, h: Tensor) -> State:
        """Advance x from t to t + h."""

    def prepare(self, f: Any) -> Any:
        """What `step` is given as f; schemes for linear equations replace it."""
        return f

    def solve(self, f: Evaluate, x0: State, t: Tensor) -> Solution:
        stats = Statistics()
        g = self.prepare(CountedRightHandSide(f, x0, stats, self.max_nfe))
        times = t.detach().tolist()
        states = [x0]
        x = x0
        try:
            for k in range(1, len(times)):
                steps = max(1, math.ceil(min((times[k] - times[k - 1]) / self.dt - 1e-9, 1e15)))
                h = (t[k] - t[k - 1]) / steps
                for i in range(steps):
                    now = t[k - 1] + i * h
                    x = self.step(g, now, x, h)
                    _require_finite(x, now + h, stats.accepted + 1)
                    stats.accepted += 1
                states.append(x)
        except SolveError as error:
            error.solution = _collect(states, t, stats, error.status)
            raise
        return _collect(states, t, stats, Status.SUCCESS)


def _require_finite(x: State, t: Tensor, step: int) -> None:
    # The square of a larger number overflows, so that no norm or energy of such a state exists.
    if not all(bool((part.detach().abs() < math.sqrt(torch.finfo(part.dtype).max)).all()) for part in parts_of(x)):
        raise SolveError(
            f"the solve diverged: step {step}, at t = {float(t.detach()):.6g}, gave a state whose norm is not finite. "
            "The step is too long for this equation: take a smaller dt, or an implicit integrator",
            Status.DIVERGED,
        )


def _collect(states: list[State], t: Tensor, stats: Statistics, status: Status) -> Solution:
    first = states[0]
    if isinstance(first, tuple):
        x: State = tuple(torch.stack(list(parts)) for parts in zip(*(parts_of(s) for s in states), strict=True))
    else:
        x = torch.stack([s for s in states if isinstance(s, Tensor)])
    return Solution(t[: len(states)], x, stats, status)


@dataclass(frozen=True)
class Euler(FixedStep):
    """x' = x + h f(t, x). Order 1; stability function 1 + z."""

    def step(self, f: Evaluate, t: Tensor, x: State, h: Tensor) -> State:
        return add_scaled(x, h, (1.0, f(t, x)))


@dataclass(frozen=True)
class RK4(FixedStep):
    """The classical Runge–Kutta method (Kutta 1901). Order 4; stability function 1 + z + z²/2 + z³/6 + z⁴/24."""

    def step(self, f: Evaluate, t: Tensor, x: State, h: Tensor) -> State:
        k1 = f(t, x)
        k2 = f(t + h / 2, add_scaled(x, h, (0.5, k1)))
        k3 = f(t + h / 2, add_scaled(x, h, (0.5, k2)))
        k4 = f(t + h, add_scaled(x, h, (1.0, k3)))
        return add_scaled(x, h, (1 / 6, k1), (1 / 3, k2), (1 / 3, k3), (1 / 6, k4))


@dataclass(frozen=True)
class TruncatedTaylor(FixedStep):
    """x' = Σ_{k ≤ order} (hG)^k / k! x for a linear autonomous dx/dt = G x: the exponential cut off at `order`.

    With the generator of a `UnitaryFlow` this is the published relaxation (R-UniGraph, T_max = order): each mode is
    multiplied by |Σ_{k ≤ T} (iθ)^k / k!| instead of 1, so orders 1, 2, 5, 6 grow and 3, 4, 7, 8 damp small angles.

    Args:
        order: T_max ≥ 1.
    """

    order: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order < 1:
            raise ValueError(f"order must be at least 1, not {self.order}")

    def solve(self, f: Evaluate, x0: State, t: Tensor) -> Solution:
        if getattr(f, "linear", None) is None:
            raise TypeError(
                f"TruncatedTaylor needs a linear autonomous right-hand side, and {type(f).__name__} exposes no linear "
                "part: use RK4, which agrees with it to order 4"
            )
        return super().solve(f, x0, t)

    def step(self, f: Evaluate, t: Tensor, x: State, h: Tensor) -> State:
        total, term = x, x
        for k in range(1, self.order + 1):
            term = scaled(f(t, term), h / k)
            total = add(total, term)
        return total

