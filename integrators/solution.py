"""What a solve returns: times, states, statistics and status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor

State = Tensor | tuple[Tensor, ...]
Time = float | Tensor


class Status(Enum):
    """How a solve ended."""

    SUCCESS = "success"
    EVENT = "stopped by its event"
    DIVERGED = "diverged"
    BUDGET = "evaluation budget spent"
    STEPS = "step limit reached"
    SECONDS = "time limit reached"
    MONITOR = "stopped by its monitor"
    INTERRUPTED = "interrupted"


@dataclass
class SampleStatistics:
    """What every sample (or segment) cost where each takes its own steps; one entry a sample.

    Attributes:
        t: the times reached.
        accepted, rejected: the steps of each; `Statistics.accepted` and `.rejected` are their sums.
        history: (t, h) of the accepted steps of each; empty lists unless `integrate(..., history=True)` asked for it.
    """

    t: list[float] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)
    history: list[list[tuple[float, float]]] = field(default_factory=list, repr=False)


@dataclass
class Statistics:
    """What a solve cost. NFE is the number of evaluations of the right-hand side.

    `nfe_backward` counts the evaluations of the backward pass and grows when `.backward()` runs: those of an adjoint
    equation, or those that a checkpointed gradient repeats; with `Direct` it stays zero. `nvp` counts the products with the
    Jacobian or its transpose (each evaluates f inside, which NFE does not count again), `solves` the linear solves and
    `factorizations` the matrices that a solver asked to have factored (a `LinearPart` that remembers its factors may have
    had one already).

    Attributes:
        reason: one line on which solver was chosen and why; empty if the caller chose.
        advice: one line on what would have solved it better; empty if nothing is known.
        error_estimate: the largest accepted local error, in units of the tolerance; None without an estimate.
        peak_memory: the bytes of states, stages and snapshots that the solver itself kept at once, at most; what the
            right-hand side allocates, and what autograd records of it, is not counted.
        history: (t, h) of every accepted step; empty unless `integrate(..., history=True)` asked for it.
        samples: the same one by one with `PerSample` and `PerSegment`; None with other solvers.
    """

    nfe: int = 0
    nfe_backward: int = 0
    nvp: int = 0
    accepted: int = 0
    rejected: int = 0
    solves: int = 0
    factorizations: int = 0
    error_estimate: float | None = None
    peak_memory: int = 0
    reason: str = ""
    advice: str = ""
    history: list[tuple[float, float]] = field(default_factory=list, repr=False)
    samples: SampleStatistics | None = field(default=None, repr=False)


@dataclass
class Solution:
    """The states x at the times t.

    `x` is (T, ..., n, c), or a tuple of such tensors for a tuple state; `t` is (T,) in float64. After a failure with
    `throw=False` both hold the times that were reached. `at(s)` is x at any time between them, differentiable in s, where
    `integrate(..., dense=True)` asked for it.
    """

    t: Tensor
    x: State
    stats: Statistics = field(default_factory=Statistics)
    status: Status = Status.SUCCESS
    interpolant: Callable[[Tensor], State] | None = field(default=None, repr=False)

    @property
    def final(self) -> State:
        """The last state."""
        return tuple(part[-1] for part in self.x) if isinstance(self.x, tuple) else self.x[-1]

    def at(self, s: Time) -> State:
        """x(s) by the solver's own continuous extension, for a time s within the solve.

        Raises:
            ValueError: s lies outside, or the solve was not asked for `dense=True`.
        """
        if self.interpolant is None:
            raise ValueError("this solution keeps only its output times: ask for integrate(..., dense=True)")
        return self.interpolant(s if isinstance(s, Tensor) else self.t.new_tensor(float(s)))


class SolveError(RuntimeError):
    """A solve that could not be finished; `solution` keeps what was computed before it failed."""

    def __init__(self, message: str, status: Status, solution: Solution | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.solution = solution


class NotConverged(SolveError):  # noqa: N818
    """An implicit equation found no solution: an adaptive method takes a smaller step, one with fixed steps stops."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause, Status.DIVERGED)


class SolverWarning(UserWarning):
    """A solver that will run but is probably the wrong choice."""
