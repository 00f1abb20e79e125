"""A simulator as a map from one state to the next, with and without a learned correction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from integrators import Integrator, State, integrate
from integrators.gradients import stacked
from integrators.state import add, check_state, scaled, subtract
from neuralpde.correction import Corrected
from neuralpde.rhs import Function, RightHandSide, as_right_hand_side
from operators import Movable


class Stepper(Movable, ABC):
    """x(t) ↦ x(t + Δt). A new one writes `forward(t, x)`, and `uncorrected` if it holds a correction.

    Args:
        dt: Δt > 0.
    """

    def __init__(self, dt: float) -> None:
        super().__init__()
        if not 0 < dt < float("inf"):
            raise ValueError(f"the step dt must be positive and finite, not {dt}")
        self.dt = float(dt)

    @abstractmethod
    def forward(self, t: Any, x: Any) -> Any:
        """x(t + Δt)."""

    @property
    @abstractmethod
    def uncorrected(self) -> Stepper:
        """The simulator without its learned correction; itself where it has none."""

    @abstractmethod
    def supervised(self, t: float, x: State, y: State) -> State:
        """What is wrong after one step from x, where y is right, with a gradient in the correction but none through a solver."""

    def path(self, x0: State, steps: int, t0: float = 0.0) -> State:
        """x at t0, t0 + Δt, …: (steps + 1, ..., n, c), with gradients through all of it."""
        check_state(x0, "x0")
        states, x = [x0], x0
        for k in range(whole(steps)):
            x = self(t0 + k * self.dt, x)
            states.append(x)
        return stacked(states)


class SolverStep(Stepper):
    """One solve of dx/dt = f(t, x) over Δt; a `path` of many is one solve, so that methods with a memory keep it.

    Args:
        f: the right-hand side; a `Corrected` one brings its correction along.
        solver: with its own step, at most Δt, and its way of taking gradients: `SBDF2(dt=0.02, gradient=Direct())` is quick for
            the short rollouts of training, the default `Checkpointed()` saves memory in long ones.
        dt: Δt.
    """

    def __init__(self, f: Function, solver: Integrator | None, dt: float) -> None:
        super().__init__(dt)
        self.f = as_right_hand_side(f)
        self.solver = solver

    def forward(self, t: Any, x: Any) -> Any:
        return integrate(self.f, x, self._times(float(t), 1), self.solver).final

    def path(self, x0: State, steps: int, t0: float = 0.0) -> State:
        return integrate(self.f, x0, self._times(t0, whole(steps)), self.solver).x

    def _times(self, t0: float, steps: int) -> list[float]:
        return [t0 + k * self.dt for k in range(steps + 1)]

    @property
    def uncorrected(self) -> Stepper:
        return SolverStep(self.f.uncorrected, self.solver, self.dt) if isinstance(self.f, Corrected) else self

    def supervised(self, t: float, x: State, y: State) -> State:
        if not isinstance(self.f, Corrected):
            raise TypeError(f"{type(self.f).__name__} holds no correction to supervise: use Corrected(physics, correction)")
        with torch.no_grad():
            missed = subtract(y, self.uncorrected(t, x))
        return subtract(scaled(self.f.correction(_time(t, x), x), self.dt), missed)


class CorrectedStep(Stepper):
    """x ↦ y + Δt c(t + Δt, y) with y = step(t, x): a learned correction after each step of a simulator.

    The simulator may be anything that is differentiable, and coarse in any way; its own step stays what it is.

    Args:
        step: the simulator.
        correction: c, a rate: a closure, or any module or function of (t, x).
    """

    def __init__(self, step: Stepper, correction: Function) -> None:
        super().__init__(step.dt)
        self.step = step
        self.correction: RightHandSide = as_right_hand_side(correction)

    def forward(self, t: Any, x: Any) -> Any:
        return self._corrected(float(t), self.step(t, x))

    def _corrected(self, t: float, y: State) -> State:
        return add(y, scaled(self.correction(_time(t + self.dt, y), y), self.dt))

    @property
    def uncorrected(self) -> Stepper:
        return self.step

    def supervised(self, t: float, x: State, y: State) -> State:
        with torch.no_grad():
            plain = self.step(t, x)
        return subtract(self._corrected(t, plain), y)


def _time(t: float, x: State) -> Tensor:
    return torch.tensor(t, dtype=torch.float64, device=(x[0] if isinstance(x, tuple) else x).device)


def whole(steps: int) -> int:
    """The number of steps, if it is one."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a positive integer, not {steps!r}")
    return steps
