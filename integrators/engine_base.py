"""What torchdiffeq's methods have in common behind our objects: their typed options, and what of them is mended or refused."""

from __future__ import annotations

import math
from abc import abstractmethod
from bisect import bisect_left
from contextlib import AbstractContextManager, nullcontext
from dataclasses import InitVar, dataclass, field, replace
from enum import Enum
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from integrators.adjoint import Adjoint
from integrators.engine_solve import AdaptivePiece, GridPiece, Piece, Solve, resolved
from integrators.gradients import Direct, GradientMode
from integrators.integrator import Evaluate, Integrator
from integrators.norms import ErrorNorm, RMSNorm
from integrators.solution import Solution, SolveError, State, Status
from integrators.state import combine, state_map
from integrators.watch import Watch

Options = dict[str, Any]


class Interpolation(Enum):
    """How a method on a grid comes to its output times."""

    NONE = "none"
    """A step ends at each; the steps between two of them are even, and at most `step_size`."""
    CUBIC = "cubic"
    """One even grid, with cubic Hermite interpolation between its points; error O(h⁴)."""
    LINEAR = "linear"
    """One even grid, with linear interpolation, as torchdiffeq has it by default; error O(h²)."""


@dataclass(frozen=True, kw_only=True)
class Engine(Integrator):
    """A method of torchdiffeq.

    A jump of f ends the solve, which starts anew from it; f is evaluated on the inner side of either end. A dense solution is
    solved on from the step before the time that is asked for. Evaluations of f are counted and checked as everywhere.

    Args:
        gradient: `Direct()` (exact, the default) or `Adjoint()`, whose backward solve is by the same method. For `Checkpointed()`
            take a solver of our own: torchdiffeq's steps cannot be repeated one by one.
        max_nfe: the budget of evaluations of the forward solve.
    """

    gradient: GradientMode = field(default_factory=Direct)
    max_nfe: int = 100_000

    name: ClassVar[str]
    """What torchdiffeq calls it."""
    piece: ClassVar[type[Piece]]
    steps_to_outputs: ClassVar[bool] = False
    """Whether a step must end at every output, because torchdiffeq's interpolant is far below its steps."""

    cure: ClassVar[str] = "another tolerance"
    """What to try where torchdiffeq gives up."""

    def __post_init__(self) -> None:
        if not isinstance(self.gradient, (Direct, Adjoint)):
            raise TypeError(
                f"gradient must be Direct() or Adjoint() for a method of torchdiffeq, not {self.gradient!r}: for "
                "Checkpointed() use a solver of our own, such as integrators.Dopri5"
            )
        whole(max_nfe=self.max_nfe)

    def solve(self, f: Evaluate, x0: State, t: Tensor, watch: Watch) -> Solution:
        if isinstance(self.gradient, Direct):
            return Solve(self, f, x0, t, watch).run()
        solution = self.gradient.run(self, f, x0, t, replace(watch, dense=False))  # type: ignore[arg-type]
        if watch.dense:
            solution.interpolant = lambda s: self._on(f, solution, s, watch)
        return solution

    def _on(self, f: Evaluate, solution: Solution, s: Tensor, watch: Watch) -> State:
        """The state at s, solved on from the output before it, with the same gradient."""
        times, now = solution.t.detach().tolist(), float(s.detach())
        low, high = sorted((times[0], times[-1]))
        if not low <= now <= high:
            raise ValueError(f"t = {now:.6g} lies outside the solve, which covers {times[0]:.6g} to {times[-1]:.6g}")
        sign = 1 if times[-1] > times[0] else -1
        k = max(0, bisect_left(times, sign * now, key=lambda t: sign * t) - 1)
        x = state_map(lambda path: path[k], solution.x)
        if now == times[k]:
            return combine(x, s - now, [1.0], [f(s, x)])
        return self.solve(f, x, torch.stack([solution.t[k], s]), Watch(jumps=watch.jumps)).final

    def tolerances(self, x0: State) -> tuple[float, float]:
        """rtol and atol as torchdiffeq is given them."""
        return 1e-7, 1e-9

    def guard(self) -> AbstractContextManager[Any]:
        """What becomes of torchdiffeq's warnings."""
        return nullcontext()

    @abstractmethod
    def options(self, solve: Solve, times: Tensor, first: float | None) -> Options:
        """torchdiffeq's options for these times; `first` is a first step to try."""


@dataclass(frozen=True, kw_only=True)
class AdaptiveEngine(Engine):
    """An embedded Runge–Kutta pair of torchdiffeq: a step is accepted where norm(error / (atol + rtol·|x|)) ≤ 1.

    There is no `min_step`: torchdiffeq accepts every step that short, whatever its error.

    Args:
        rtol, atol: relative and absolute tolerance of the local error.
        first_step, max_step: the first step to try and the longest to take, in units of t.
        max_num_steps: how many steps to try at most, accepted or not.
        safety, ifactor, dfactor: how much below the estimate to aim, and how much a step may grow or shrink.
        norm: how the error is measured; of the parts of a tuple the largest counts.
    """

    rtol: float = field(default=1e-5, kw_only=False)
    atol: float = field(default=1e-7, kw_only=False)
    first_step: float | None = None
    max_step: float = math.inf
    max_num_steps: int | None = None
    safety: float = 0.9
    ifactor: float = 10.0
    dfactor: float = 0.2
    norm: ErrorNorm = field(default_factory=RMSNorm)
    min_step: InitVar[float | None] = None

    piece: ClassVar[type[Piece]] = AdaptivePiece
    steps_to_outputs: ClassVar[bool] = True

    def __post_init__(self, min_step: float | None = None) -> None:  # noqa: RUF033 — subclasses call it without
        super().__post_init__()
        if min_step is not None:
            raise ValueError(
                "min_step is not offered: torchdiffeq accepts a step that short whatever its error, so the solution would be "
                "wrong without a word. Where steps become too short, take a solver for stiff equations or a looser tolerance"
            )
        positive(rtol=self.rtol, atol=self.atol, first_step=self.first_step, safety=self.safety)
        if not self.max_step > 0:
            raise ValueError(f"max_step must be positive, not {self.max_step}")
        if not 0 < self.dfactor < 1 < self.ifactor < math.inf:
            raise ValueError(f"a step shrinks by dfactor < 1 and grows by ifactor > 1, not {self.dfactor} and {self.ifactor}")
        whole(max_num_steps=self.max_num_steps)

    def tolerances(self, x0: State) -> tuple[float, float]:
        return resolved(self.rtol, self.atol, x0)

    def options(self, solve: Solve, times: Tensor, first: float | None) -> Options:
        # Beyond a jump f is not the same, so no step may pass one.
        stops = times[1:] if self.steps_to_outputs else times[-1:] if solve.clock.jumps else None
        return {
            "norm": solve.norm,
            "first_step": first or self.first_step,
            "max_step": self.max_step,
            "safety": self.safety,
            "ifactor": self.ifactor,
            "dfactor": self.dfactor,
            "step_t": stops,
        }


@dataclass(frozen=True, kw_only=True)
class GridEngine(Engine):
    """A method of torchdiffeq on a grid of even steps.

    Args:
        step_size: the longest step, in units of t. torchdiffeq can do without, and then steps from output to output.
        perturb: evaluate f just inside each step instead of at its ends, for an f that jumps there.
        interp: how output times are met.
    """

    step_size: float = field(kw_only=False)
    perturb: bool = False
    interp: Interpolation = Interpolation.NONE

    piece: ClassVar[type[Piece]] = GridPiece

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(step_size=self.step_size)
        if not isinstance(self.interp, Interpolation):
            raise TypeError(f"interp must be Interpolation.NONE, .CUBIC or .LINEAR, not {self.interp!r}")

    def grid(self, f: object, x0: object, t: Tensor) -> Tensor:
        """The grid for the output times t, counted from the start."""
        marks = t if self.interp is Interpolation.NONE else torch.stack([t[0], t[-1]])
        values = marks.detach().tolist()
        counts = [max(1, math.ceil(abs(b - a) / self.step_size - 1e-9)) for a, b in pairwise(values)]
        if sum(counts) > self.max_nfe:
            raise SolveError(
                f"the solve would take {sum(counts):.3g} steps of {self.step_size:g}, and its budget is {self.max_nfe} "
                "evaluations: raise max_nfe, take longer steps, or an adaptive or implicit method",
                Status.BUDGET,
            )
        pieces = []
        for a, b, n in zip(marks[:-1], marks[1:], counts, strict=True):
            pieces.append(a + (b - a) * torch.arange(n, dtype=t.dtype, device=t.device) / n)
        # The output times themselves, to the last bit: torchdiffeq compares with them.
        return torch.cat([*pieces, marks[-1:]])

    def options(self, solve: Solve, times: Tensor, first: float | None) -> Options:
        cubic = self.interp is Interpolation.CUBIC
        return {"grid_constructor": self.grid, "interp": "cubic" if cubic else "linear"}


def positive(**values: float | None) -> None:
    """Check fields that must be positive numbers or absent."""
    for name, value in values.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, not {value}")


def whole(**values: int | None) -> None:
    """Check fields that must be positive integers or absent."""
    for name, value in values.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be a positive integer, not {value!r}")
