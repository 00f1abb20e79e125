"""Right-hand sides f(t, x) of dx/dt = f(t, x), and their algebra."""

from __future__ import annotations

import cmath
import copy
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from integrators import LinearPart, State
from integrators.state import state_map
from neuralpde.invariants import Invariant, Law
from neuralpde.symmetry import Symmetry
from operators import Movable

Function = Callable[[Tensor, Any], Any]
M = TypeVar("M", bound=nn.Module)


class RightHandSide(Movable):
    """dx/dt = f(t, x), with x of shape (..., n, c). A new equation writes `forward(t, x)` and nothing else.

    Parameters are learned, operators are found by `.on(domain)`, which gives the same equation with the same (shared)
    parameters on another domain. An equation may declare `invariants`, and may expose what implicit, IMEX and exponential
    integrators use: f(t, x) = G x + N(t, x), with an autonomous linear part G as the property `linear` and the rest as the
    method `nonlinear(t, x)`, left out where G is all. Then `forward` need not be written. Products and linear parts of ready
    equations make new ones; this learns D in u_t = −D L u + u − u³:

        @property
        def linear(self):
            return (self.D * npde.Heat(self.laplacian)).linear

        def nonlinear(self, t, u):
            return u - u**3
    """

    nonlinear: Any = None
    """N(t, x), a method; None where `linear` is the whole right-hand side, or where nothing is split off."""

    def forward(self, t: Tensor, x: Any) -> Any:
        """dx/dt at time t and state x."""
        linear = self.linear
        if linear is None:
            raise NotImplementedError(f"{type(self).__name__} must define forward(self, t, x), or `linear` and `nonlinear`")
        return linear @ x if self.nonlinear is None else _plus(linear @ x, self.nonlinear(t, x))

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        """What the exact flow promises to conserve, or never to increase."""
        return ()

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        """The motions of the domain with which the flow commutes: f.on(moved domain)(t, moved x) = moved f(t, x)."""
        return ()

    @property
    def linear(self) -> LinearPart | None:
        """The linear part G as an operator, the whole right-hand side if `nonlinear` is None; or None."""
        return None

    @property
    def affine(self) -> LinearPart | None:
        """All of f(t, x) = G x + b as one part that takes the constant b along (see `LinearPart`); or None."""
        return None

    @property
    def jumps(self) -> tuple[float, ...]:
        """The times at which f is discontinuous; `integrate` ends a step at each."""
        return ()

    @property
    def restarts(self) -> tuple[float, ...]:
        """The times at which f is made anew from the state; `integrate` solves from one to the next."""
        return ()

    def starting_at(self, x0: Any) -> RightHandSide:
        """The right-hand side of a solve from x0: itself, unless it remembers its start. `integrate` asks for it."""
        return self

    def restarting_at(self, t: Tensor, x: Any, x0: Any) -> RightHandSide:
        """The right-hand side from one of the `restarts` on, in a solve that began at x0."""
        return self.starting_at(x0)

    def frozen(self) -> Self:
        """The same right-hand side as it is now: its parameters' values, without gradients; later training does not reach it."""
        return _frozen(self)

    @property
    def dissipative(self) -> bool:
        """Whether some norm or energy only falls, so that the flow cannot be solved backwards."""
        return any(invariant.law is Law.NON_INCREASING for invariant in self.invariants)

    def __add__(self, other: Function) -> Sum:
        return Sum(self, as_right_hand_side(other))

    def __radd__(self, other: Function) -> Sum:
        return Sum(as_right_hand_side(other), self)

    def __mul__(self, coefficient: complex | Tensor) -> Scaled:
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


def common_restarts(terms: Sequence[RightHandSide]) -> tuple[float, ...]:
    """The times at which the terms of a sum or system are made anew, together. Raises ValueError where they differ."""
    given = [set(term.restarts) for term in terms if term.restarts]
    if any(times != given[0] for times in given):
        raise ValueError("the terms restart at different times, and none can go on while another is made anew: give all one list")
    return tuple(sorted(given[0])) if given else ()


def _frozen(module: M) -> M:
    view = copy.copy(module)
    view.__dict__ = dict(module.__dict__)
    view._modules = {name: None if child is None else _frozen(child) for name, child in module._modules.items()}
    # Still parameters, so that state_dict and .to stay the same.
    view._parameters = {
        name: None if p is None else nn.Parameter(p.detach().clone(), requires_grad=False)
        for name, p in module._parameters.items()
    }
    # Meshes and operators, which are not in it, are shared.
    view._buffers = {
        name: b if b is None else b.detach() if name in module._non_persistent_buffers_set else b.detach().clone()
        for name, b in module._buffers.items()
    }
    return view


class FromFunction(RightHandSide):
    """A plain function or module of (t, x) as a right-hand side."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, t: Tensor, x: Any) -> Any:
        return self.function(t, x)

    @property
    def jumps(self) -> tuple[float, ...]:
        return tuple(getattr(self.function, "jumps", ()))

    @property
    def restarts(self) -> tuple[float, ...]:
        return tuple(getattr(self.function, "restarts", ()))

    def starting_at(self, x0: Any) -> RightHandSide:
        begin = getattr(self.function, "starting_at", None)
        return self if begin is None else as_right_hand_side(begin(x0))

    def restarting_at(self, t: Tensor, x: Any, x0: Any) -> RightHandSide:
        go_on = getattr(self.function, "restarting_at", None)
        return self.starting_at(x0) if go_on is None else as_right_hand_side(go_on(t, x, x0))


class Sum(RightHandSide):
    """f₁ + f₂: keeps an invariant or a symmetry only if both declare it, and the laws add up."""

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
        total: State = _total([term(t, x) for term in self.summands])
        return total

    @property
    def jumps(self) -> tuple[float, ...]:
        return tuple(sorted({time for term in self.summands for time in term.jumps}))

    @property
    def restarts(self) -> tuple[float, ...]:
        return common_restarts(self.summands)

    def starting_at(self, x0: Any) -> RightHandSide:
        return self._of([term.starting_at(x0) for term in self.summands])

    def restarting_at(self, t: Tensor, x: Any, x0: Any) -> RightHandSide:
        return self._of([term.restarting_at(t, x, x0) for term in self.summands])

    def _of(self, terms: list[RightHandSide]) -> RightHandSide:
        return self if all(new is old for new, old in zip(terms, self.summands, strict=True)) else Sum(*terms)

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        common: list[Invariant] = []
        first, *others = [term.invariants for term in self.summands]
        for invariant in first:
            twins = [next((i for i in other if i.same_quantity(invariant)), None) for other in others]
            # dI/dt is linear in f for a fixed I, so signs and zeros add up; a quotient such as R does too.
            if all(twin is not None for twin in twins):
                laws = [invariant.law, *(twin.law for twin in twins if twin is not None)]
                one_sided = set(laws) - {Law.CONSERVED}
                if len(one_sided) < 2:
                    common.append(invariant.under(one_sided.pop() if one_sided else Law.CONSERVED))
        return tuple(common)

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        first, *others = [term.symmetries for term in self.summands]
        return tuple(symmetry for symmetry in first if all(symmetry in other for other in others))

    @property
    def linear(self) -> LinearPart | None:
        parts: list[Any] = []
        for part in [part for term in self.summands if (part := term.linear) is not None]:
            for k, known in enumerate(parts):
                plus = getattr(known, "plus", None)
                both = None if plus is None else plus(part)
                if both is not None:
                    parts[k] = both
                    break
            else:
                parts.append(part)
        if len(parts) < 2:
            return parts[0] if parts else None
        return SumOfLinear(parts)

    @property
    def nonlinear(self) -> Function | None:
        rests: list[Function] = []
        for term in self.summands:
            if term.linear is None:
                rests.append(term)
            elif term.nonlinear is not None:
                rests.append(term.nonlinear)
        return (lambda t, x: _total([rest(t, x) for rest in rests])) if rests else None


class Scaled(RightHandSide):
    """c·f for a real or complex number, a tensor (scalar or broadcast over the field), or a learned parameter c."""

    def __init__(self, coefficient: complex | Tensor, rhs: RightHandSide) -> None:
        super().__init__()
        if not isinstance(coefficient, Tensor):
            coefficient = coefficient if isinstance(coefficient, complex) else float(coefficient)
            if not cmath.isfinite(coefficient):
                raise ValueError(f"a coefficient must be finite, not {coefficient}")
        self.rhs = rhs
        if isinstance(coefficient, Tensor) and not isinstance(coefficient, nn.Parameter):
            self.register_buffer("coefficient", coefficient, persistent=False)
        else:
            self.coefficient = coefficient

    def forward(self, t: Tensor, x: Any) -> Any:
        return state_map(lambda part: self.coefficient * part, self.rhs(t, x))

    @property
    def jumps(self) -> tuple[float, ...]:
        return self.rhs.jumps

    @property
    def restarts(self) -> tuple[float, ...]:
        return self.rhs.restarts

    def starting_at(self, x0: Any) -> RightHandSide:
        begun = self.rhs.starting_at(x0)
        return self if begun is self.rhs else Scaled(self.coefficient, begun)

    def restarting_at(self, t: Tensor, x: Any, x0: Any) -> RightHandSide:
        begun = self.rhs.restarting_at(t, x, x0)
        return self if begun is self.rhs else Scaled(self.coefficient, begun)

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        declared = self.rhs.invariants
        if isinstance(self.coefficient, complex) or (
            isinstance(self.coefficient, Tensor) and (self.coefficient.numel() != 1 or self.coefficient.is_complex())
        ):
            return ()
        # A tensor's sign may change, so only a number keeps a one-sided law.
        if isinstance(self.coefficient, float):
            return declared if self.coefficient >= 0 else tuple(i.under(i.law.reversed) for i in declared)
        return tuple(invariant for invariant in declared if invariant.law is Law.CONSERVED)

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        one = not isinstance(self.coefficient, Tensor) or self.coefficient.numel() == 1
        return self.rhs.symmetries if one else ()

    @property
    def linear(self) -> LinearPart | None:
        part = self.rhs.linear
        scalar = not isinstance(self.coefficient, Tensor) or self.coefficient.numel() == 1
        if part is None or not scalar:
            return None
        real = not torch.as_tensor(self.coefficient).is_complex()
        times = getattr(part, "times", None)
        if times is not None and real:
            made: LinearPart = times(self.coefficient.reshape(()) if isinstance(self.coefficient, Tensor) else self.coefficient)
            return made
        # A flow of G's own takes real times.
        own_flow = hasattr(part, "exponential") and real
        return (ScaledExactFlow if own_flow else ScaledLinear)(self.coefficient, part)

    @property
    def affine(self) -> LinearPart | None:
        part = self.rhs.affine
        c = torch.as_tensor(self.coefficient)
        return None if part is None or c.numel() != 1 or c.is_complex() else ScaledExactFlow(self.coefficient, part)

    @property
    def nonlinear(self) -> Function | None:
        rest = self.rhs.nonlinear
        if rest is None or self.linear is None:
            return None
        return lambda t, x: state_map(lambda part: self.coefficient * part, rest(t, x))


class ScaledLinear:
    """c G, for a linear part G and a scalar c."""

    def __init__(self, coefficient: complex | Tensor, part: Any) -> None:
        self.coefficient = coefficient
        self.part = part

    @property
    def self_adjoint(self) -> bool:
        """Whether c G is self-adjoint and negative semi-definite."""
        c = torch.as_tensor(self.coefficient).detach()
        return getattr(self.part, "self_adjoint", False) is True and not c.is_complex() and float(c) >= 0

    def keep_factors(self, count: int) -> None:
        """Let G keep the factors of so many shifts."""
        if hasattr(self.part, "keep_factors"):
            self.part.keep_factors(count)

    def __matmul__(self, x: Any) -> Any:
        return state_map(lambda part: self.coefficient * part, self.part @ x)

    def norm_bound(self) -> float:
        c = self.coefficient
        return float(c.detach().abs() if isinstance(c, Tensor) else abs(c)) * float(self.part.norm_bound())

    def solve(self, shift: Tensor, b: Any) -> Any:
        return self.part.solve(shift * self.coefficient, b)


class ScaledExactFlow(ScaledLinear):
    """c G, where G knows its own exponential."""

    def exponential(self, h: Any, x: Any, tolerance: float | None = None) -> Any:
        """exp(h c G) x."""
        return self.part.exponential(h * self.coefficient, x, tolerance)

    def exponential_products(self, h: Any, tolerance: float | None = None) -> int:
        """The number of products that `exponential` takes, zero if G does not tell."""
        count = getattr(self.part, "exponential_products", None)
        return 0 if count is None else int(count(h * self.coefficient, tolerance))


class SumOfLinear:
    """G₁ + G₂ + ..., of linear parts that do not merge: a part may offer `plus(other)`, the sum as one part or None."""

    def __init__(self, parts: list[LinearPart]) -> None:
        self.parts = parts

    def __matmul__(self, x: Any) -> Any:
        return _total([part @ x for part in self.parts])

    def norm_bound(self) -> float:
        return sum(part.norm_bound() for part in self.parts)

    def solve(self, shift: Tensor, b: Any) -> Any:
        raise NotImplementedError(
            "this sum of linear right-hand sides has no common factorisation: use Exponential or an explicit solver, or build "
            "one operator from the sum (diffusions and decays with the same masses merge by themselves)"
        )


def _plus(x: Any, y: Any) -> Any:
    return state_map(torch.add, x, y)


def _total(slopes: list[Any]) -> Any:
    """The sum of several states."""
    total = slopes[0]
    for slope in slopes[1:]:
        total = _plus(total, slope)
    return total
