"""The one equation that all diagonally implicit methods solve, y = b + s f(t, y), and how its structure chooses the solver.

A method writes `prepare` with `stage_solver(...)` and asks the object it gets for `solve(t, s, b, guess)`. The slope f(t, y) of
a stage that was solved for is (y − b)/s, which costs nothing and is smoother than an evaluation where f is stiff.
A method that chooses its steps derives from `Ladder` (ladder.py): steps (b − a)/2^m, so that factors are used again, and
a field `dt` for fixed steps instead.
"""

from __future__ import annotations

from typing import Protocol

import torch

from integrators.integrator import CountedRightHandSide, Split
from integrators.newton_krylov import HOPELESS, NewtonKrylov
from integrators.solution import NotConverged, State, Time


class StageEquation(Protocol):
    """What solves y = b + s f(t, y): `LinearStages`, or what `NewtonKrylov.stages` gives."""

    def solve(self, t: Time, s: Time, b: State, guess: State, *, again: bool = False) -> State:
        """y with y = b + s f(t, y), near `guess`; differentiable in t, s, b and what f is made of.

        Args:
            again: this is not the first solve of a step, and may begin with the factor of the one before.
        """

    def slope(self, t: Time, y: State) -> State:
        """f(t, y), counted."""

    def blame(self, t: Time, y: State) -> str:
        """Why there is no step from (t, y), in words; "" if there may be."""


class LinearStages:
    """y = (I − s G)⁻¹ b where f(t, y) = G y; a factor is used again as long as s stays the same."""

    def __init__(self, counted: CountedRightHandSide, split: Split) -> None:
        self.counted, self.split = counted, split
        self.failures, self.failure = 0, ""

    def solve(self, t: Time, s: Time | complex, b: State, guess: State, *, again: bool = False) -> State:
        try:
            y = self.split.solve(s, b)
        # What a singular matrix raises is for `linear` to choose; shapes were checked before the first step.
        except (ValueError, ArithmeticError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
            number, moment = (value.item() if isinstance(value, torch.Tensor) else value for value in (s, t))
            self.failures += 1
            self.failure = (
                f"(I − s G) y = b cannot be solved at s = {number:.6g}, near t = {moment:.6g} ({error}): take another step, or "
                "look at `linear`"
            )
            raise NotConverged(self.failure) from error
        self.failures = 0
        return y

    def slope(self, t: Time, y: State) -> State:
        return self.split @ y

    def blame(self, t: Time, y: State) -> str:
        return self.counted.blame(t, y) or (self.failure if self.failures >= HOPELESS else "")


class Stages:
    """What the steps of an implicit method are given as f.

    Attributes:
        counted: f itself.
        split: its linear part with the solves counted; None without one.
        linear: whether that is all of f.
        factored: whether every new s costs a factor.
    """

    def __init__(self, counted: CountedRightHandSide, equation: StageEquation, split: Split | None) -> None:
        self.counted, self.equation, self.split = counted, equation, split
        self.linear = split is not None and split.rest is None
        self.factored = split is not None
        self.solve, self.slope, self.blame = equation.solve, equation.slope, equation.blame

    def __call__(self, t: Time, y: State) -> State:
        """f(t, y), counted."""
        return self.slope(t, y)


def stage_solver(
    counted: CountedRightHandSide,
    t: float,
    x0: State,
    *,
    user: str,
    newton: NewtonKrylov,
    tolerances: tuple[float, float] | tuple[None, None] = (None, None),
    affine: bool = True,
) -> Stages:
    """How `user` solves its stages: directly where f.linear (or f.affine) is all of f, else by Newton's method on f alone.

    If f has a nonlinear part beside `f.linear`, Newton's method is preconditioned by (I − s G)⁻¹.

    Args:
        tolerances: rtol and atol of an adaptive method, which Newton's method need not meet by far.
        affine: whether `user` solves y = b + s f(t, y) for states b, not for combinations of them.

    Raises:
        ValueError: f is not what its linear and nonlinear parts say, found once on a random state.
    """
    rtol, atol = tolerances
    split = None
    if getattr(counted.f, "linear", None) is not None:
        split = Split(counted, user, affine=affine)
        split.check(t, x0)
        if split.rest is None:
            return Stages(counted, LinearStages(counted, split), split)
    return Stages(counted, newton.stages(counted, t, x0, split, rtol=rtol, atol=atol), split)
