"""Right-hand sides f(t, x) of dx/dt = f(t, x), and their algebra."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from integrators import LinearPart, State
from neuralpde.invariants import Invariant, Law
from operators import Movable

Function = Callable[[Tensor, Any], Any]


class RightHandSide(Movable):
    """dx/dt = f(t, x), with x of shape (..., n, c). A new equation writes `forward(t, x)` and nothing else.

    Parameters are learned, operators are found by `.on(domain)`, which gives the same equation with the same (shared)
    parameters on another domain. An equation may declare `invariants`, and, if it is linear and autonomous, expose
    itself as `linear`, which implicit and exponential integrators use.
    """

    def forward(self, t: Tensor, x: Any) -> Any:
        """dx/dt at time t and state x."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(self, t, x)")

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        """What the exact flow promises to conserve, or never to increase."""
        return ()

    @property
    def linear(self) -> LinearPart | None:
        """The whole right-hand side as a linear operator, or None."""
        return None

    @property
    def dissipative(self) -> bool:
        """Whether some norm or energy only falls, so that the flow cannot be solved backwards."""
        return any(invariant.law is Law.NON_INCREASING for invariant in self.invariants)

    def __add__(self, other: Function) -> Sum:
        return Sum(self, as_right_hand_side(other))

    def __radd__(self, other: Function) -> Sum:
        return Sum(as_right_hand_side(other), self)

    def __mul__(self, coefficient: float | Tensor) -> Scaled:
        return Scaled(coefficient, self)

    __rmul__ = __mul__

    def __neg__(self) -> Scaled:
        return Scaled(-1.0, self)

    def __sub__(self, other: Function) -> Sum:
        return Sum(self, -as_right_hand_side(other))


def as_right_hand_side(f: Function) -> RightHandSide:
    """f itself, or a plain function or module of (t, x) as a right-hand side."""
    if isinstance(f, RightHandSide):
        return f
    if not callable(f):
        raise TypeError(f"a right-hand side is a function of (t, x), not {type(f).__name__}")
    return FromFunction(f)


class FromFunction(RightHandSide):
    """A plain function or module of (t, x) as a right-hand side."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, t: Tensor, x: Any) -> Any:
        return self.function(t, x)


class Sum(RightHandSide):
    """f₁ + f₂: keeps an invariant only if both declare it under a law that adds up."""

    def __init__(self, *terms: RightHandSide) -> None:
        super().__init__()
        self.terms = nn.ModuleList()
        for term in terms:
            self.terms.extend(term.terms if isinstance(term, Sum) else [term])

    @property
    def summands(self) -> list[RightHandSide]:
        """f₁, f₂, ..."""
        return [term for term in self.terms if isinstance(term, RightHandSide)]

    def forward(self, t: Tensor, x: State) -> State:
        slopes = [term(t, x) for term in self.summands]
        if isinstance(x, tuple):
            return tuple(sum(parts[1:], start=parts[0]) for parts in zip(*slopes, strict=True))
        total: Tensor = sum(slopes[1:], start=slopes[0])
        return total

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        common: list[Invariant] = []
        first, *others = [term.invariants for term in self.summands]
        for invariant in first:
            twins = [next((i for i in other if i.same_quantity(invariant)), None) for other in others]
            # dI/dt is linear in f for a fixed I, so signs and zeros add up; a quotient such as R does too.
            if all(twin is not None for twin in twins):
                laws = [invariant.law, *(twin.law for twin in twins if twin is not None)]
                law = Law.CONSERVED if all(law is Law.CONSERVED for law in laws) else Law.NON_INCREASING
                common.append(invariant.under(law))
        return tuple(common)

    @property
    def linear(self) -> LinearPart | None:
        parts = [term.linear for term in self.summands]
        known = [part for part in parts if part is not None]
        return SumOfLinear(known) if len(known) == len(parts) else None


class Scaled(RightHandSide):
    """c·f for a number, a tensor (scalar or broadcast over the field), or a learned parameter c."""

    def __init__(self, coefficient: float | Tensor, rhs: RightHandSide) -> None:
        super().__init__()
        if not isinstance(coefficient, Tensor):
            coefficient = float(coefficient)
            if not math.isfinite(coefficient):
                raise ValueError(f"a coefficient must be finite, not {coefficient}")
        self.rhs = rhs
        if isinstance(coefficient, Tensor) and not isinstance(coefficient, nn.Parameter):
            self.register_buffer("coefficient", coefficient, persistent=False)
        else:
            self.coefficient = coefficient

    def forward(self, t: Tensor, x: Any) -> Any:
        slope = self.rhs(t, x)
        if isinstance(slope, tuple):
            return tuple(self.coefficient * part for part in slope)
        return self.coefficient * slope

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        declared = self.rhs.invariants
        if isinstance(self.coefficient, Tensor) and (self.coefficient.numel() != 1 or self.coefficient.is_complex()):
            return ()
        # A learned coefficient may change its sign, so only a fixed positive one keeps a one-sided law.
        if isinstance(self.coefficient, float) and self.coefficient >= 0:
            return declared
        return tuple(invariant for invariant in declared if invariant.law is Law.CONSERVED)

    @property
    def linear(self) -> LinearPart | None:
        part = self.rhs.linear
        scalar = not isinstance(self.coefficient, Tensor) or self.coefficient.numel() == 1
        return ScaledLinear(self.coefficient, part) if part is not None and scalar else None


class ScaledLinear:
    """c G, for a linear part G and a scalar c."""

    def __init__(self, coefficient: float | Tensor, part: LinearPart) -> None:
        self.coefficient = coefficient
        self.part = part

    def __matmul__(self, x: Tensor) -> Tensor:
        return self.coefficient * (self.part @ x)

    def norm_bound(self) -> float:
        return float(torch.as_tensor(self.coefficient).detach().abs()) * self.part.norm_bound()

    def solve(self, shift: Tensor, b: Tensor) -> Tensor:
        return self.part.solve(torch.as_tensor(shift) * self.coefficient, b)


class SumOfLinear:
    """G₁ + G₂ + ..., of linear parts."""

    def __init__(self, parts: list[LinearPart]) -> None:
        self.parts = parts

    def __matmul__(self, x: Tensor) -> Tensor:
        first, *others = [part @ x for part in self.parts]
        return sum(others, start=first)

    def norm_bound(self) -> float:
        return sum(part.norm_bound() for part in self.parts)

    def solve(self, shift: Tensor, b: Tensor) -> Tensor:
        raise NotImplementedError(
            "a sum of linear right-hand sides has no common factorisation: use Exponential or an explicit integrator, "
            "or build one operator from the sum"
        )
