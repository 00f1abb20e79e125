"""Parameters, fields and initial states from sparse noisy observations."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from integrators import Integrator, State
from neuralpde.descent import Minimiser, Search
from neuralpde.gauss_newton import GaussNewton
from neuralpde.inverse_problem import InitialState, InverseProblem, Linearised, Parameter, Unknown
from neuralpde.observations import Observations
from neuralpde.priors import Smooth
from neuralpde.rhs import Function

FEW = 50
"""Unknown numbers up to which their covariance costs less than the search."""


@dataclass
class Estimate:
    """What was found.

    Attributes:
        values: the unknowns, in their order; parameters have been written into the model too.
        names: theirs.
        misfit: ‖residual/noise‖²/N: about 1 where model and noise level are right, more where the model is wrong, less where
            noise was fitted.
        converged: whether the search ended by itself.
        solves, products: forward solves; products with the Jacobian or its transpose, a gradient counting as one. Each is
            about the work of one solve.
        history: (solves + products so far, misfit) of every iteration.
        weights: α of each unknown's prior, 0 without one.
        covariance: of all unknown numbers, Laplace's approximation (JᵀJ + αR)⁻¹; None if there are more than fifty.
        seconds: of wall-clock time.
    """

    values: list[Tensor]
    names: list[str]
    misfit: float
    converged: bool
    solves: int
    products: int
    history: list[tuple[int, float]] = field(repr=False)
    weights: list[float]
    covariance: Tensor | None = field(repr=False)
    seconds: float

    @property
    def initial(self) -> Tensor:
        """The initial state. Raises ValueError if it was not among the unknowns."""
        for name, value in zip(self.names, self.values, strict=True):
            if name == "initial state":
                return value
        raise ValueError("the initial state was given, not estimated: put an InitialState(guess) among the unknowns")

    @property
    def evaluations(self) -> int:
        """Solves and products together: what methods are to be compared by."""
        return self.solves + self.products

    @property
    def deviations(self) -> Tensor | None:
        """The standard deviation of every unknown number, in the order of `values`."""
        return None if self.covariance is None else self.covariance.diagonal().sqrt()

    def __rich__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        lines = [
            f"misfit {self.misfit:.3g} (1 is the noise), {self.solves} solves and {self.products} products, {self.seconds:.1f} s"
            f"{'' if self.converged else ', not converged'}"
        ]
        start = 0
        for name, value, weight in zip(self.names, self.values, self.weights, strict=True):
            n = value.numel()
            text = f"{name} = {float(value):.6g}" if n == 1 else f"{name}: {n} numbers, {value.min():.4g} … {value.max():.4g}"
            if self.covariance is not None and n == 1:
                text += f" ± {float(self.covariance[start, start]) ** 0.5:.2g}"
            lines.append(text + (f", weight {weight:.3g}" if weight else ""))
            start += n
        return "\n".join(lines)


def estimate(
    f: Function,
    observations: Observations,
    unknowns: Unknown | nn.Parameter | Iterable[Unknown | nn.Parameter] | None = None,
    *,
    initial: State | None = None,
    prior: Smooth | None = None,
    by: Minimiser | None = None,
    solver: Integrator | None = None,
    progress: bool = False,
) -> Estimate:
    """Find what makes the solution of dx/dt = f(t, x) agree with the observations.

    Args:
        f: the model, a right-hand side; its parameters are changed in place.
        unknowns: `InitialState(guess)`, `Parameter(p)`, parameters of f, or several of these; if absent, every parameter of f
            that requires a gradient.
        initial: the state at `observations.start`, where it is known.
        prior: of the one unknown that has none of its own.
        by: `GaussNewton()` (if absent), `LBFGS()` or `Adam()`.
        solver: as of `integrate`; its gradient is `Direct()` here, so that memory grows with its steps. What it cannot resolve,
            the estimate will not either.
        progress: print each iteration on standard error.

    Returns:
        Estimate.

    Raises:
        ValueError: nothing to estimate, an unknown that the model does not hold, observations that depend on no unknown.
    """
    chosen = _unknowns(f, unknowns, prior)
    by = GaussNewton() if by is None else by
    if not isinstance(by, Minimiser):
        raise TypeError(f"by must be GaussNewton(), LBFGS() or Adam(), not {by!r}")
    problem = InverseProblem(f, observations, chosen, initial, solver)
    began = time.perf_counter()
    with ExitStack() as stack:
        report = _silent
        if progress:
            status = stack.enter_context(Console(stderr=True).status(type(by).__name__))
            count = observations.count

            def report(search: Search) -> None:
                status.update(f"{type(by).__name__}: {search.work[-1]} solves, misfit {search.misfit[-1] / count:.4g}")

        search = by.search(problem, report)
    solves, products = problem.solves, problem.products
    problem.keep(search.vector)
    covariance = _covariance(problem, search.vector) if problem.size <= FEW else None
    return Estimate(
        [part.clone() for part in problem.parts(search.vector.detach())],
        [u.name for u in chosen],
        search.reached / observations.count,
        search.converged,
        solves,
        products,
        [(work, misfit / observations.count) for work, misfit in zip(search.work, search.misfit, strict=True)],
        problem.weights,
        covariance,
        time.perf_counter() - began,
    )


def _unknowns(f: Any, given: Any, prior: Smooth | None) -> list[Unknown]:
    if given is None:
        given = [p for p in f.parameters() if p.requires_grad] if isinstance(f, nn.Module) else []
    items = [given] if isinstance(given, (Unknown, Tensor)) else list(given)
    names = {id(p): name for name, p in f.named_parameters()} if isinstance(f, nn.Module) else {}
    chosen: list[Unknown] = []
    for item in items:
        if isinstance(item, Parameter):
            item.name = names.get(id(item.parameter), item.name)
        elif isinstance(item, nn.Parameter):
            item = Parameter(item, name=names.get(id(item), "parameter"))
        elif not isinstance(item, InitialState):
            raise TypeError(f"an unknown is an InitialState, a Parameter or a parameter of the model, not {type(item).__name__}")
        chosen.append(item)
    if prior is not None:
        without = [u for u in chosen if u.prior is None]
        if len(without) != 1:
            raise ValueError(f"prior= is for the one unknown without its own, and there are {len(without)}: give each its prior")
        chosen[chosen.index(without[0])] = _with_prior(without[0], prior)
    return chosen


def _with_prior(unknown: Unknown, prior: Smooth) -> Unknown:
    if isinstance(unknown, Parameter):
        return Parameter(unknown.parameter, prior, unknown.name)
    return InitialState(unknown.value, prior)


def _covariance(problem: InverseProblem, vector: Tensor) -> Tensor:
    linear = Linearised(problem, vector)
    unit = torch.eye(problem.size, dtype=vector.dtype, device=vector.device)
    J = torch.stack([linear.forward(e) for e in unit], dim=1)
    information = J.T @ J + torch.stack([problem.prior(e) for e in unit], dim=1)
    # What nothing is known of has no finite deviation: the pseudo-inverse leaves it out, so it is said to be infinite.
    values, vectors = torch.linalg.eigh((information + information.T) / 2)
    known = values > 1e3 * torch.finfo(vector.dtype).eps * values.max()
    inverse: Tensor = vectors[:, known] / values[known] @ vectors[:, known].T
    blind = (vectors[:, ~known] ** 2).sum(1) > 1e-6
    inverse[blind, blind] = torch.inf
    return inverse


def _silent(search: Search) -> None:
    return None
