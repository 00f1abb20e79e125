"""The contract between a right-hand side and what advances it in time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from integrators.solution import Solution, SolveError, State, Statistics, Status
from integrators.state import parts_of

Evaluate = Callable[[Tensor, State], State]


@runtime_checkable
class LinearPart(Protocol):
    """A linear right-hand side dx/dt = G x, seen as an operator. Implicit and exponential integrators use it."""

    def __matmul__(self, x: Tensor) -> Tensor:
        """G x."""

    def norm_bound(self) -> float:
        """An upper bound of ‖G‖."""

    def solve(self, shift: Tensor, b: Tensor) -> Tensor:
        """(I − s G)⁻¹ b."""


class Integrator(ABC):
    """Something that solves dx/dt = f(t, x) from x0 at the given times, with its own tolerances and gradient."""

    @abstractmethod
    def solve(self, f: Evaluate, x0: State, t: Tensor) -> Solution:
        """Solve from t[0]; the inputs have been checked. Call `integrate`, which checks them."""


class CountedRightHandSide:
    """f with every evaluation counted and checked, so that no solver below can hang, broadcast or swallow a NaN."""

    def __init__(self, f: Evaluate, x0: State, stats: Statistics, max_nfe: int) -> None:
        self.f = f
        self.stats = stats
        self.max_nfe = max_nfe
        self.backward = False
        self.like = [(part.shape, part.dtype) for part in parts_of(x0)]
        self.is_tuple = isinstance(x0, tuple)
        self.last: State = ()
        self.last_versions: list[int] = []

    def __call__(self, t: Tensor, x: State) -> State:
        now = float(t.detach())
        self._count(now)
        versions = _versions(x)
        dx = self.f(t, x)
        self._check_form(dx)
        if versions != _versions(x):
            raise ValueError("the right-hand side changes its argument x in place: write x = x + ... instead of x += ...")
        if self.last_versions != _versions(self.last):
            raise ValueError("the right-hand side writes into the tensor that it returned before: return a clone() of it")
        self.last, self.last_versions = dx, _versions(dx)
        for part in parts_of(dx):
            if not bool(torch.isfinite(part.detach()).all()):
                raise SolveError(
                    f"the solve diverged: the right-hand side is not finite at t = {now:.6g} "
                    f"(evaluation {self.stats.nfe}{' of the forward solve' if not self.backward else ''}); "
                    "take a smaller step or tighter tolerance, or check the equation for growth",
                    Status.DIVERGED,
                )
        return dx

    def _count(self, now: float) -> None:
        if self.backward:
            self.stats.nfe_backward += 1
            if self.stats.nfe_backward > self.max_nfe:
                raise SolveError(
                    f"the backward solve of Adjoint reached t = {now:.6g} and spent its budget of {self.max_nfe} "
                    "evaluations. Diffusion cannot be solved backwards stably: use gradient=Direct(), or raise "
                    "Adjoint(max_nfe=...) if the equation is reversible",
                    Status.BUDGET,
                )
            return
        self.stats.nfe += 1
        if self.stats.nfe > self.max_nfe:
            raise SolveError(
                f"the solve reached t = {now:.6g} and spent its budget of {self.max_nfe} evaluations: the equation "
                "is stiff (use BackwardEuler or Exponential), random, or discontinuous; or raise max_nfe",
                Status.BUDGET,
            )

    def _check_form(self, dx: object) -> None:
        if isinstance(dx, tuple) != self.is_tuple:
            expected = "a tuple of tensors" if self.is_tuple else "one tensor"
            raise TypeError(f"the right-hand side must return {expected}, like the state, not {type(dx).__name__}")
        parts = dx if isinstance(dx, tuple) else (dx,)
        if len(parts) != len(self.like):
            raise ValueError(f"the right-hand side returns {len(parts)} tensors for a state of {len(self.like)}")
        for part, (shape, dtype) in zip(parts, self.like, strict=True):
            if not isinstance(part, Tensor):
                raise TypeError(f"the right-hand side must return a tensor, not {type(part).__name__}")
            if part.shape != shape or part.dtype != dtype:
                raise ValueError(
                    f"the right-hand side returns {tuple(part.shape)} {part.dtype} for a state of {tuple(shape)} {dtype}: "
                    "dx/dt must have the state's shape and dtype exactly (nothing is broadcast or converted)"
                )


def _versions(x: State) -> list[int]:
    """How often each tensor of x was written; inference mode does not count."""
    return [0 if part.is_inference() else part._version for part in parts_of(x)]


def linear_part(f: object, user: str) -> LinearPart:
    """f.linear, the whole right-hand side as an operator, or an error that says what can be done."""
    linear = getattr(f, "linear", None)
    if linear is None:
        raise TypeError(
            f"{user} needs a linear right-hand side, and {type(f).__name__} exposes no linear part: "
            "use Dopri5 or RK4, or give it a `linear` property"
        )
    if not isinstance(linear, LinearPart):
        raise TypeError(f"{type(f).__name__}.linear must offer `@`, `norm_bound()` and `solve(shift, b)`")
    return linear


def state_map(g: Callable[..., Tensor], *states: State) -> State:
    """Apply g to the tensors of several states, part by part."""
    if isinstance(states[0], tuple):
        return tuple(g(*parts) for parts in zip(*states, strict=True))
    return g(*states)


def scaled(x: State, h: Tensor) -> State:
    """h x, in the state's precision."""
    return state_map(lambda part: h.to(part.real.dtype) * part, x)


def add(x: State, y: State) -> State:
    """x + y."""
    return state_map(torch.add, x, y)


def add_scaled(x: State, h: Tensor, *terms: tuple[float, State]) -> State:
    """x + h Σ c_k k_k, in the state's precision."""

    def combine(first: Tensor, *slopes: Tensor) -> Tensor:
        total = sum(weight * slope for (weight, _), slope in zip(terms, slopes, strict=True))
        return first + h.to(first.real.dtype) * total

    return state_map(combine, x, *(slope for _, slope in terms))
