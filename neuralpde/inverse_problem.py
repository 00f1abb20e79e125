"""Parameters and initial states as one vector, and what observations say of it: residuals, and products with their Jacobian."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from integrators import Auto, Direct, Integrator, State, integrate
from integrators.jacobian import Flat
from neuralpde.observations import Observations, broadcasts
from neuralpde.priors import Smooth, WeightChoice


class Unknown:
    """A tensor to be found.

    Args:
        name: in reports.
        value: the first guess.
        prior: what is known of it beforehand; None if nothing.
    """

    def __init__(self, name: str, value: Tensor, prior: Smooth | None = None) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be one tensor to be estimated, not a {type(value).__name__}")
        if value.is_complex() or not value.is_floating_point():
            raise TypeError(f"{name} must be real and floating-point to be estimated, not {value.dtype}")
        if not bool(torch.isfinite(value.detach()).all()):
            raise ValueError(f"the first guess of {name} is not finite")
        self.name, self.value, self.prior = name, value, prior
        n = value.shape[-2] if value.ndim >= 2 else 0
        if prior is not None and n != prior.laplacian.shape[0]:
            raise ValueError(
                f"the prior of {name} is for fields (..., {prior.laplacian.shape[0]}, c), and {name} is {tuple(value.shape)}"
            )

    def metric(self, x: Tensor) -> Tensor:
        """R x, the prior's norm, or the plain one."""
        return x if self.prior is None else self.prior.metric(x)

    def inverse(self, g: Tensor) -> Tensor:
        """R⁻¹ g."""
        return g if self.prior is None else self.prior.inverse(g)


class InitialState(Unknown):
    """The state at the time `observations.start`.

    Args:
        guess: (..., n, c), from where the search starts; the mean of the prior, if it names none.
        prior: such as `Smooth(laplacian)`; without one, what the observations do not see stays as guessed.
    """

    def __init__(self, guess: Tensor, prior: Smooth | None = None) -> None:
        super().__init__("initial state", guess.detach().clone() if isinstance(guess, Tensor) else guess, prior)


class Parameter(Unknown):
    """A parameter of the model, found in place.

    Args:
        parameter: the model's own, one number or a field.
        prior: in the units of the parameter itself: of its logarithm, where that is what the model learns.
    """

    def __init__(self, parameter: nn.Parameter, prior: Smooth | None = None, name: str = "parameter") -> None:
        super().__init__(name, parameter, prior)
        self.parameter = parameter


class InverseProblem:
    """½ ‖r(θ)‖² + ½ Σ α_b ‖θ_b − θ̄_b‖²_R over all unknowns as one vector θ, r the residuals in units of their noise.

    Attributes:
        solves: forward solves so far. products: products J v and Jᵀ w so far, each about the work of a solve.
    """

    def __init__(
        self,
        f: Any,
        observations: Observations,
        unknowns: Sequence[Unknown],
        initial: State | None,
        solver: Integrator | None,
    ) -> None:
        self.observations, self.unknowns = observations, list(unknowns)
        if not self.unknowns:
            raise ValueError("nothing to estimate: no parameter of the model requires a gradient, and no InitialState is given")
        if len({id(getattr(u, "parameter", None)) for u in self.unknowns}) < len(self.unknowns):
            raise ValueError("an unknown is given twice: name each parameter, and the initial state, once")
        self.start = next((u for u in self.unknowns if isinstance(u, InitialState)), None)
        if (self.start is None) == (initial is None):
            raise ValueError(
                "the initial state must be known or unknown: give either initial=u0 or an InitialState(guess) among the unknowns"
            )
        self.initial = initial
        self.simulation = _Simulation(f, observations, solver)
        names = {id(p): name for name, p in self.simulation.named_parameters()}
        self.names = [None if u is self.start else self._name_of(u, names) for u in self.unknowns]
        self.flat = Flat(tuple(u.value for u in self.unknowns))
        self.guess = self.flat.flat(tuple(u.value.detach() for u in self.unknowns)).clone()
        means = [u.value.detach() if u.prior is None or u.prior.mean is None else u.prior.mean for u in self.unknowns]
        pairs = zip(means, self.unknowns, strict=True)
        for mean, u in zip(means, self.unknowns, strict=True):
            if not broadcasts(mean.shape, u.value.shape):
                raise ValueError(f"the prior's mean of {u.name} must be like it, {tuple(u.value.shape)}, not {tuple(mean.shape)}")
        self.mean = self.flat.flat(tuple(mean.to(u.value.dtype).expand_as(u.value) for mean, u in pairs))
        self.weights = [0.0 if u.prior is None else _number(u.prior.weight) for u in self.unknowns]
        self.solves = self.products = 0

    @staticmethod
    def _name_of(unknown: Unknown, names: dict[int, str]) -> str:
        parameter = getattr(unknown, "parameter", None)
        if id(parameter) not in names:
            raise ValueError(f"{unknown.name} is not a parameter of the model: pass the very tensor that the model holds")
        return names[id(parameter)]

    @property
    def size(self) -> int:
        """The number of unknown numbers."""
        return self.flat.size

    def parts(self, vector: Tensor) -> tuple[Tensor, ...]:
        """The unknowns out of θ."""
        state = self.flat.state(vector)
        return state if isinstance(state, tuple) else (state,)

    def residual(self, vector: Tensor) -> Tensor:
        """r(θ), by one solve."""
        self.solves += 1
        parts = self.parts(vector)
        values = {f"{name}": part for name, part in zip(self.names, parts, strict=True) if name is not None}
        start = next((part for part, u in zip(parts, self.unknowns, strict=True) if u is self.start), self.initial)
        result: Tensor = torch.func.functional_call(self.simulation, values, (start,))
        return result

    def metric(self, v: Tensor) -> Tensor:
        """R v, block by block."""
        return self.flat.flat(tuple(u.metric(part) for u, part in zip(self.unknowns, self.parts(v), strict=True)))

    def inverse(self, g: Tensor) -> Tensor:
        """R⁻¹ g."""
        return self.flat.flat(tuple(u.inverse(part) for u, part in zip(self.unknowns, self.parts(g), strict=True)))

    def metric_of_step(self, v: Tensor) -> Tensor:
        """Σ (α_b or 1) R_b v, by which steps are measured."""
        pairs = zip(self.unknowns, self.parts(v), self.weights, strict=True)
        return self.flat.flat(tuple((w or 1.0) * u.metric(part) for u, part, w in pairs))

    def inverse_of_step(self, g: Tensor) -> Tensor:
        """The inverse of `metric_of_step`."""
        pairs = zip(self.unknowns, self.parts(g), self.weights, strict=True)
        return self.flat.flat(tuple(u.inverse(part) / (w or 1.0) for u, part, w in pairs))

    def prior(self, v: Tensor) -> Tensor:
        """Σ α_b R_b v."""
        pairs = zip(self.unknowns, self.parts(v), self.weights, strict=True)
        return self.flat.flat(tuple(w * u.metric(part) if w else torch.zeros_like(part) for u, part, w in pairs))

    def penalty(self, vector: Tensor) -> Tensor:
        """Σ α_b ‖θ_b − θ̄_b‖²_R."""
        away = vector - self.mean
        return away @ self.prior(away)

    def keep(self, vector: Tensor) -> None:
        """Write θ into the model's parameters."""
        with torch.no_grad():
            for u, part in zip(self.unknowns, self.parts(vector), strict=True):
                if isinstance(u, Parameter):
                    u.parameter.copy_(part)


class Linearised:
    """r(θ) and products with its Jacobian J at one θ, out of one recorded solve."""

    def __init__(self, problem: InverseProblem, vector: Tensor) -> None:
        self.problem = problem
        with torch.enable_grad():
            self.at = vector.detach().requires_grad_()
            self.recorded = problem.residual(self.at)
        self.value = self.recorded.detach()
        if not self.recorded.requires_grad:
            raise ValueError("the observations do not depend on any of the unknowns, or the model detaches them")
        self.pullback: tuple[Tensor, Tensor] | None = None

    def forward(self, v: Tensor) -> Tensor:
        """J v, as the derivative of u ↦ Jᵀu, which is recorded once."""
        self.problem.products += 1
        if self.pullback is None:
            with torch.enable_grad():
                u = torch.zeros_like(self.value).requires_grad_()
                (back,) = torch.autograd.grad(self.recorded, self.at, u, create_graph=True, materialize_grads=True)
            self.pullback = u, back
        u, back = self.pullback
        if not back.requires_grad:
            return torch.zeros_like(u).detach()
        (product,) = torch.autograd.grad(back, u, v, retain_graph=True, materialize_grads=True)
        return product.detach()

    def backward(self, w: Tensor) -> Tensor:
        """Jᵀ w."""
        self.problem.products += 1
        (product,) = torch.autograd.grad(self.recorded, self.at, w, retain_graph=True, materialize_grads=True)
        return product.detach()


class _Simulation(nn.Module):
    """The initial state ↦ the residuals of what is observed of it."""

    def __init__(self, f: Any, observations: Observations, solver: Integrator | None) -> None:
        super().__init__()
        self.f, self.observations = f, observations
        self.solver = _direct(Auto() if solver is None else solver)

    def forward(self, start: State) -> Tensor:
        times = self.observations.solve_times
        if len(times) == 1:
            path: State = tuple(x[None] for x in start) if isinstance(start, tuple) else start[None]
        else:
            path = integrate(self.f, start, times, self.solver).x
        return self.observations.residual(path)


def _direct(solver: Integrator) -> Integrator:
    """The same solver with the gradient `Direct()`: the parameters of the moment are gone when a recorded step is repeated."""
    if not dataclasses.is_dataclass(solver):
        return solver
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(solver):
        value = getattr(solver, field.name)
        if field.name == "gradient":
            changes["gradient"] = Direct()
        elif isinstance(value, Integrator):
            changes[field.name] = _direct(value)
    return dataclasses.replace(solver, **changes)


def _number(weight: float | WeightChoice) -> float:
    # Until it has been chosen.
    return 1.0 if isinstance(weight, WeightChoice) else float(weight)
