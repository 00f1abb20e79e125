"""Estimation by descent: Adam and L-BFGS on the whole objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from neuralpde.inverse_problem import InverseProblem
from neuralpde.priors import WeightChoice


@dataclass
class Search:
    """How a search went.

    Attributes:
        vector: θ, the best found.
        objective: ‖r‖² + Σ α‖θ − θ̄‖²_R after each iteration, the first before any.
        misfit: ‖r‖² likewise.
        work: solves and products up to each.
        reached: ‖r‖² at `vector`.
        converged: whether the search stopped by itself.
    """

    vector: Tensor
    objective: list[float] = field(default_factory=list)
    misfit: list[float] = field(default_factory=list)
    work: list[int] = field(default_factory=list)
    reached: float = float("inf")
    converged: bool = False

    def note(self, problem: InverseProblem, objective: float, misfit: float) -> None:
        """One more iteration."""
        self.objective.append(objective)
        self.misfit.append(misfit)
        self.work.append(problem.solves + problem.products)


Report = Callable[[Search], None]


class Minimiser(ABC):
    """A way to find the unknowns."""

    @abstractmethod
    def search(self, problem: InverseProblem, report: Report) -> Search:
        """The best θ, from `problem.guess` on."""


class Descent(Minimiser):
    """What Adam and L-BFGS share: an objective with its gradient, and the best point seen."""

    def closure(self, problem: InverseProblem, vector: Tensor, search: Search, report: Report) -> Callable[[], Tensor]:
        """The objective at `vector`, with its gradient there."""
        for unknown in problem.unknowns:
            if unknown.prior is not None and isinstance(unknown.prior.weight, WeightChoice):
                raise ValueError(
                    f"{type(self).__name__} cannot choose the weight of the prior of {unknown.name}: give weight= a number, or "
                    "estimate by=GaussNewton(), which has the solutions for all weights at once"
                )
        best = [float("inf")]

        def evaluate() -> Tensor:
            vector.grad = None
            with torch.enable_grad():
                misfit = problem.residual(vector).square().sum()
                objective = misfit + problem.penalty(vector)
            # The backward pass is about the work of another solve.
            problem.products += 1
            objective.backward()  # type: ignore[no-untyped-call]
            value = float(objective.detach())
            search.note(problem, value, float(misfit.detach()))
            if value < best[0]:
                best[0], search.vector = value, vector.detach().clone()
                search.reached = search.misfit[-1]
            report(search)
            return objective

        return evaluate


@dataclass(frozen=True)
class Adam(Descent):
    """Adam (Kingma and Ba 2015): robust against rough objectives, and slow on smooth ones.

    Args:
        steps: one solve and one backward pass each.
        learning_rate: in the units of the unknowns; log-parameters take 0.05.
    """

    steps: int = 300
    learning_rate: float = 0.05

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"steps and learning_rate must be positive, not {self}")

    def search(self, problem: InverseProblem, report: Report) -> Search:
        search = Search(problem.guess.clone())
        vector = problem.guess.clone().requires_grad_()
        optimizer = torch.optim.Adam([vector], lr=self.learning_rate)
        evaluate = self.closure(problem, vector, search, report)
        for _ in range(self.steps):
            evaluate()
            optimizer.step()
        return search


@dataclass(frozen=True)
class LBFGS(Descent):
    """L-BFGS with a line search by the strong Wolfe conditions (Liu and Nocedal 1989).

    Args:
        steps: at most; each is one or a few solves with their backward passes.
        memory: pairs kept.
        tolerance: of the gradient, relative to that of the guess.
    """

    steps: int = 100
    memory: int = 20
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if self.steps < 1 or self.memory < 1 or not self.tolerance > 0:
            raise ValueError(f"steps, memory and tolerance must be positive, not {self}")

    def search(self, problem: InverseProblem, report: Report) -> Search:
        search = Search(problem.guess.clone())
        vector = problem.guess.clone().requires_grad_()
        evaluate = self.closure(problem, vector, search, report)
        evaluate()
        first = float(vector.grad.abs().max()) if vector.grad is not None else 0.0
        if first == 0:
            search.converged = True
            return search
        optimizer = torch.optim.LBFGS(
            [vector],
            max_iter=self.steps,
            history_size=self.memory,
            tolerance_grad=self.tolerance * first,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )
        optimizer.step(evaluate)  # type: ignore[no-untyped-call]
        search.converged = vector.grad is not None and float(vector.grad.abs().max()) <= self.tolerance * first
        return search
