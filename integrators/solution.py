"""What a solve returns: times, states, statistics and status."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor

State = Tensor | tuple[Tensor, ...]


class Status(Enum):
    """How a solve ended."""

    SUCCESS = "success"
    DIVERGED = "diverged"
    BUDGET = "evaluation budget spent"


@dataclass
class Statistics:
    """What a solve cost. NFE is the number of evaluations of the right-hand side.

    `nfe_backward` counts the evaluations of an adjoint solve, and grows when `.backward()` runs;
    for the exact discrete gradient it stays zero, since no right-hand side is evaluated anew.
    """

    nfe: int = 0
    nfe_backward: int = 0
    accepted: int = 0
    rejected: int = 0
    solves: int = 0


@dataclass
class Solution:
    """The states x at the times t.

    `x` is (T, ..., n, c), or a tuple of such tensors for a tuple state; `t` is (T,) in float64. After a failure with
    `throw=False` both hold the times that were reached.
    """

    t: Tensor
    x: State
    stats: Statistics = field(default_factory=Statistics)
    status: Status = Status.SUCCESS

    @property
    def final(self) -> State:
        """The last state."""
        return tuple(part[-1] for part in self.x) if isinstance(self.x, tuple) else self.x[-1]


class SolveError(RuntimeError):
    """A solve that could not be finished; `solution` keeps what was computed before it failed."""

    def __init__(self, message: str, status: Status, solution: Solution | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.solution = solution


class SolverWarning(UserWarning):
    """A solver that will run but is probably the wrong choice."""
