"""Implicit methods, for stiff equations with a linear part that can be factored."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from integrators.fixed import FixedStep
from integrators.integrator import CountedRightHandSide, LinearPart, linear_part
from integrators.solution import SolveError, State, Status


@dataclass(frozen=True)
class BackwardEuler(FixedStep):
    """x' = (I − h G)⁻¹ x for a linear dx/dt = G x. Order 1, L-stable; stability function 1 / (1 − z).

    Any step is stable, and where G is a diffusion with non-negative weights the maximum principle holds for any step.
    The matrix is factored once for each step length; `stats.solves` counts the solves. Gradients are exact.
    """

    def prepare(self, f: CountedRightHandSide) -> _Solves:
        return _Solves(linear_part(f.f, "BackwardEuler"), f)

    def step(self, f: _Solves, t: Tensor, x: State, h: Tensor) -> State:  # type: ignore[override]
        return f.solve(h, x)


class _Solves:
    """The linear part of a right-hand side, with its solves counted."""

    def __init__(self, linear: LinearPart, counted: CountedRightHandSide) -> None:
        self.linear = linear
        self.counted = counted

    def solve(self, h: Tensor, x: State) -> State:
        if not isinstance(x, Tensor):
            raise TypeError("BackwardEuler integrates a single tensor, not a tuple state")
        stats = self.counted.stats
        stats.solves += 1
        if stats.solves > self.counted.max_nfe:
            raise SolveError(f"the solve spent its budget of {self.counted.max_nfe} linear solves", Status.BUDGET)
        return self.linear.solve(h, x)
