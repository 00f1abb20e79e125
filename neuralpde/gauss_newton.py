"""Gauss–Newton's method through a solver, for few parameters and for whole fields."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from integrators import SolveError
from neuralpde.descent import Minimiser, Report, Search
from neuralpde.inverse_problem import InverseProblem, Linearised
from neuralpde.krylov import Dense, Lanczos
from neuralpde.priors import Curve, WeightChoice

FEW = 50
"""Unknown numbers up to which J is had column by column, one product each."""
BLOCK = 10
"""Krylov vectors between two looks at the residual."""
SURPRISE = 0.02
"""Relative difference of a misfit from the one foreseen, from which on a weight is chosen again."""
STRUGGLING = 12
"""Increases of the damping after which no step is to be had."""


@dataclass(frozen=True)
class GaussNewton(Minimiser):
    """θ ← θ − (JᵀJ + αR + μR)⁻¹ (Jᵀr + αR(θ − θ̄)), damped where a step goes too far (Levenberg 1944, Marquardt 1963).

    J v and Jᵀ w go through the solver, out of one recorded solve an iteration: J v by differentiating u ↦ Jᵀ u. Of up to fifty
    unknowns J is formed, with one product each. For a field the step is taken from a Krylov space in the prior's inner product,
    which holds the solutions for every α and μ at once: a weight is chosen, and a damping changed, without another product. A
    linear problem (the initial state of a linear equation) takes one iteration.

    Args:
        iterations: at most.
        basis: Krylov vectors in an iteration, at most; two products each. A field seen through diffusion needs about as
            many as there are modes above the noise.
        tolerance: it ends when an iteration lowers the objective by less than this fraction, or could lower it by no more than
            this a residual.
    """

    iterations: int = 20
    basis: int = 200
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.basis < 1 or not 0 < self.tolerance < 1:
            raise ValueError(f"iterations and basis must be positive and the tolerance lie in (0, 1), not {self}")

    def search(self, problem: InverseProblem, report: Report) -> Search:
        search = Search(problem.guess.clone())
        chosen = _chosen(problem)
        linear = Linearised(problem, search.vector)
        objective, misfit = _objective(problem, linear)
        search.note(problem, objective, misfit)
        search.reached = misfit
        damping, settled = 0.0, chosen is None
        for iteration in range(self.iterations):
            dense = _jacobian(linear) if chosen is None and problem.size <= FEW else None
            slope = linear.backward(linear.value) if dense is None else dense.T @ linear.value
            g = -slope - problem.prior(search.vector - problem.mean)
            gain = 2 * self.tolerance * max(objective, linear.value.numel())
            if not g.any() or (iteration and settled and _gain(problem, g) <= gain):
                search.converged = True
                break
            if chosen is not None:
                curve = self._choose(problem, linear, search.vector, chosen)
                space: Lanczos | Dense = curve[0]
                objective = misfit + float(problem.penalty(search.vector))
            else:
                space = self._space(problem, linear, dense, g, damping)
            largest = space.largest
            for _ in range(STRUGGLING):
                step = space.solve(damping if chosen is None else problem.weights[0] + damping)[0]
                # With a chosen weight the whole way from the mean, whatever has been walked of it.
                step = step if chosen is None else step + problem.mean - search.vector
                trial = _tried(problem, search.vector + step)
                if trial is not None and _objective(problem, trial)[0] <= objective * (1 + 1e-12):
                    break
                damping = max(8 * damping, 1e-4 * largest)
            else:
                search.converged = True  # No step lowers the objective any more: a minimum, to round-off.
                break
            linear, before = trial, objective
            search.vector = search.vector + step
            objective, misfit = _objective(problem, linear)
            search.note(problem, objective, misfit)
            search.reached = misfit
            report(search)
            # A weight that was chosen for another misfit than came of it is chosen again.
            settled = chosen is None or abs(misfit - curve[1]) <= SURPRISE * max(curve[1], 1.0)
            damping = damping / 8 if damping > 1e-8 * largest else 0.0
            if settled and before - objective <= self.tolerance * objective and damping == 0:
                search.converged = True
                break
        return search

    def _space(
        self, problem: InverseProblem, linear: Linearised, dense: Tensor | None, g: Tensor, damping: float
    ) -> Lanczos | Dense:
        """A space that holds the step."""
        if dense is not None:
            unit = torch.eye(problem.size, dtype=g.dtype, device=g.device)
            prior = torch.stack([problem.prior(e) for e in unit], dim=1)
            metric = torch.stack([problem.metric_of_step(e) for e in unit], dim=1)
            return Dense(dense.T @ dense + prior, metric, g)

        def apply(v: Tensor) -> Tensor:
            return linear.backward(linear.forward(v)) + problem.prior(v)

        space = Lanczos(apply, problem.metric_of_step, problem.inverse_of_step, g)
        count = linear.value.numel()
        bounded = all(problem.weights)

        def enough() -> bool:
            residual = space.solve(damping)[1]
            return bool((residual * space.beta) ** 2 <= self.tolerance * count if bounded else residual <= self.tolerance)

        self._until(space, enough)
        return space

    def _choose(self, problem: InverseProblem, linear: Linearised, at: Tensor, rule: WeightChoice) -> tuple[Lanczos, float]:
        """A space that holds θ − θ̄ for every weight, and the misfit to expect; the rule's weight is written into the problem."""
        b = linear.forward(at - problem.mean) - linear.value
        space = Lanczos(lambda v: linear.backward(linear.forward(v)), problem.metric, problem.inverse, linear.backward(b))

        expected = [math.inf]

        def enough() -> bool:
            values, vectors = space.eigen()
            curve = Curve(values, space.beta * vectors[0], float(b @ b), linear.value.numel())
            problem.weights = [rule.choose(curve)]
            expected[0] = curve.misfit(problem.weights[0])
            residual = space.solve(problem.weights[0])[1]
            return bool((residual * space.beta) ** 2 <= self.tolerance * linear.value.numel() * problem.weights[0])

        self._until(space, enough)
        return space, expected[0]

    def _until(self, space: Lanczos, enough: Callable[[], bool]) -> None:
        while not space.full and len(space.diagonal) < self.basis:
            space.grow(BLOCK)
            if enough():
                return


def _chosen(problem: InverseProblem) -> WeightChoice | None:
    rules = [u.prior.weight for u in problem.unknowns if u.prior is not None and isinstance(u.prior.weight, WeightChoice)]
    if not rules:
        return None
    if len(problem.unknowns) > 1:
        raise ValueError(
            "the weight of a prior is chosen for one unknown field by itself: give a number as its weight, or estimate the other "
            "unknowns apart"
        )
    return rules[0]


def _gain(problem: InverseProblem, g: Tensor) -> float:
    """By how much a linear problem with this right-hand side could still lower the objective: g (JᵀJ + P)⁻¹ g ≤ g P⁻¹ g."""
    return float(g @ problem.inverse_of_step(g)) if all(problem.weights) else float("inf")


def _objective(problem: InverseProblem, linear: Linearised) -> tuple[float, float]:
    """The objective there, and the misfit in it."""
    misfit = float(linear.value.square().sum())
    return misfit + float(problem.penalty(linear.at.detach())), misfit


def _tried(problem: InverseProblem, vector: Tensor) -> Linearised | None:
    """The model there, None where it has no finite solution."""
    try:
        linear = Linearised(problem, vector)
    except (SolveError, ValueError):  # Too far: a model may refuse what a shorter step would not ask for.
        return None
    return linear if bool(torch.isfinite(linear.value).all()) else None


def _jacobian(linear: Linearised) -> Tensor:
    """J, column by column."""
    unit = torch.eye(linear.at.numel(), dtype=linear.at.dtype, device=linear.at.device)
    return torch.stack([linear.forward(e) for e in unit], dim=1)
