"""Systems of several fields, coupled by name."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from integrators import LinearPart
from integrators.solution import Time
from neuralpde.invariants import Invariant, Part
from neuralpde.rhs import Function, RightHandSide, Sum, common_restarts
from neuralpde.symmetry import Symmetry
from operators import FieldError

Term = Function | RightHandSide | nn.Module


class Coupled(RightHandSide):
    """du/dt = F_u(t, u) + c_u(t, u, v, ...), and so on for every field, by name.

    The state is a tuple in the order of the names. A right-hand side acts on its own field; any other function or module takes
    the fields it asks for by the names of its arguments, and the time if it asks for `t`:

        predators = npde.Coupled(
            hares=[0.1 * npde.Heat(L), lambda hares, foxes: hares * (1 - foxes)],
            foxes=[0.02 * npde.Heat(L), lambda hares, foxes: foxes * (hares - 1)],
        )
        solution = npde.integrate(predators, predators.state(hares=h0, foxes=f0), [0.0, 10.0])
        predators.named(solution.x)["foxes"]

    What is linear in the single right-hand sides is the linear part of the system, block by block.

    Args:
        fields: for each name one term, or a list of terms that are summed.

    Raises:
        TypeError: a term is no function, or asks for a field that is not there.
    """

    def __init__(self, **fields: Term | Sequence[Term]) -> None:
        super().__init__()
        if not fields:
            raise TypeError("name at least one field, as in Coupled(u=Heat(L), v=...)")
        if "t" in fields:
            raise TypeError("a field must not be called t: that is the time")
        self.names = tuple(fields)
        self.own = nn.ModuleDict()
        self.coupling = nn.ModuleDict()
        for name, given in fields.items():
            if hasattr(self.own, name):
                raise TypeError(f"a field must not be called {name}, a word that PyTorch's modules use: lengthen it")
            terms = list(given) if isinstance(given, Sequence) else [given]
            if not terms:
                raise TypeError(f"{name} has an empty list of terms: give lambda {name}: 0 * {name} to a field that stands still")
            own = [term for term in terms if isinstance(term, RightHandSide)]
            if own:
                self.own[name] = own[0] if len(own) == 1 else Sum(*own)
            others = [ByName(term, self.names, name) for term in terms if not isinstance(term, RightHandSide)]
            if others:
                self.coupling[name] = nn.ModuleList(others)

    def state(self, **fields: Tensor) -> tuple[Tensor, ...]:
        """The state of given fields, in the order of the names."""
        if set(fields) != set(self.names):
            raise TypeError(f"the fields are {', '.join(self.names)}, not {', '.join(fields)}")
        return tuple(fields[name] for name in self.names)

    def named(self, x: Sequence[Tensor]) -> dict[str, Tensor]:
        """A state, or the path of a solution, by name."""
        return dict(zip(self.names, x, strict=True))

    def forward(self, t: Tensor, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        fields = self._fields(x)
        return tuple(self._total(name, t, fields, [self._own(name)]) for name in self.names)

    @property
    def jumps(self) -> tuple[float, ...]:
        return tuple(sorted({time for own in self._owns().values() for time in own.jumps}))

    @property
    def restarts(self) -> tuple[float, ...]:
        return common_restarts(list(self._owns().values()))

    def starting_at(self, x0: tuple[Tensor, ...]) -> RightHandSide:
        start = self._fields(x0)
        return self._with({name: own.starting_at(start[name]) for name, own in self._owns().items()})

    def restarting_at(self, t: Tensor, x: tuple[Tensor, ...], x0: tuple[Tensor, ...]) -> RightHandSide:
        now, start = self._fields(x), self._fields(x0)
        return self._with({name: own.restarting_at(t, now[name], start[name]) for name, own in self._owns().items()})

    def _owns(self) -> dict[str, RightHandSide]:
        return {name: own for name in self.names if (own := self._own(name)) is not None}

    def _with(self, owns: dict[str, RightHandSide]) -> RightHandSide:
        if all(owns[name] is own for name, own in self._owns().items()):
            return self
        view = copy.copy(self)
        view.__dict__ = {**self.__dict__, "_modules": {**self._modules, "own": nn.ModuleDict(owns)}}
        return view

    def _rest(self, t: Tensor, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        fields = self._fields(x)
        return tuple(self._total(name, t, fields, [_nonlinear(self._own(name))]) for name in self.names)

    def _total(self, name: str, t: Tensor, fields: Mapping[str, Tensor], own: Iterable[Function | None]) -> Tensor:
        slopes = [f(t, fields[name]) for f in own if f is not None]
        slopes += [term(t, fields) for term in self._couplings(name)]
        total: Tensor = sum(slopes[1:], slopes[0]) if slopes else torch.zeros_like(fields[name])
        return total

    def _fields(self, x: Any) -> dict[str, Tensor]:
        if not isinstance(x, tuple) or len(x) != len(self.names):
            form = f"a tuple of {len(x)}" if isinstance(x, tuple) else type(x).__name__
            names = ", ".join(self.names)
            raise FieldError(f"the state of this system is the tuple ({names}), not {form}: make it with .state(...)")
        return self.named(x)

    def _own(self, name: str) -> RightHandSide | None:
        own = self.own[name] if name in self.own else None  # noqa: SIM401 (a ModuleDict has no get)
        return own if isinstance(own, RightHandSide) else None

    def _couplings(self, name: str) -> list[Any]:
        return list(self.coupling[name]) if name in self.coupling else []  # type: ignore[call-overload]

    @property
    def linear(self) -> LinearPart | None:
        parts = [None if (own := self._own(name)) is None else own.linear for name in self.names]
        return None if all(part is None for part in parts) else block_diagonal_part(parts)

    @property
    def nonlinear(self) -> Function | None:
        if self.linear is None:
            return None
        rests = [_nonlinear(self._own(name)) for name in self.names]
        return None if not len(self.coupling) and all(rest is None for rest in rests) else self._rest

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        return tuple(
            Part(k, invariant, name)
            for k, name in enumerate(self.names)
            if (own := self._own(name)) is not None and name not in self.coupling
            for invariant in own.invariants
        )

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        owns = [self._own(name) for name in self.names]
        if len(self.coupling) or any(own is None for own in owns):
            return ()
        first, *others = [own.symmetries for own in owns if own is not None]
        return tuple(symmetry for symmetry in first if all(symmetry in other for other in others))


def _nonlinear(own: RightHandSide | None) -> Function | None:
    """What is left of a right-hand side besides its linear part."""
    if own is None or own.linear is None:
        return own
    rest: Function | None = own.nonlinear
    return rest


class ByName(nn.Module):
    """A function of some of the fields of a system, found by the names of its arguments."""

    def __init__(self, function: Term, names: tuple[str, ...], field: str) -> None:
        super().__init__()
        if not callable(function):
            raise TypeError(f"a term of {field} must be a right-hand side or a function, not {type(function).__name__}")
        self.function: Any = function
        read = function.forward if isinstance(function, nn.Module) else function
        arguments = inspect.signature(read).parameters.values()
        self.wanted = [a.name for a in arguments if a.default is a.empty and a.kind is not a.VAR_KEYWORD]
        strange = [name for name in self.wanted if name not in (*names, "t")]
        if strange:
            raise TypeError(
                f"a term of {field} asks for {', '.join(strange)}, but the fields are {', '.join(names)} (and the time t): "
                "name its arguments after them, or wrap it in a function that does"
            )

    def forward(self, t: Tensor, fields: Mapping[str, Tensor]) -> Tensor:
        slope: Tensor = self.function(**{name: t if name == "t" else fields[name] for name in self.wanted})
        return slope


class BlockDiagonal:
    """G (u, v, ...) = (G_u u, G_v v, ...), with zero for a field that has no linear part.

    Args:
        parts: a linear part for every field, or None.
    """

    def __init__(self, parts: Sequence[LinearPart | None]) -> None:
        self.parts = tuple(parts)

    @property
    def self_adjoint(self) -> bool:
        """Whether every block is self-adjoint and negative semi-definite."""
        return all(part is None or getattr(part, "self_adjoint", False) is True for part in self.parts)

    def __matmul__(self, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(torch.zeros_like(u) if part is None else part @ u for part, u in zip(self.parts, x, strict=True))

    def norm_bound(self) -> float:
        return max((part.norm_bound() for part in self.parts if part is not None), default=0.0)

    def solve(self, shift: Tensor, b: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        wide = torch.as_tensor(shift).is_complex()
        return tuple(
            part.solve(shift, u) if part is not None else u.to(u.dtype.to_complex()) if wide else u.clone()
            for part, u in zip(self.parts, b, strict=True)
        )

    def keep_factors(self, count: int) -> None:
        """Let every block keep the factors of so many shifts, once for each block that may share them."""
        for part in self.parts:
            if part is not None and hasattr(part, "keep_factors"):
                part.keep_factors(count * len(self.parts))


class BlockDiagonalFlow(BlockDiagonal):
    """A block-diagonal part whose blocks all know their own exponential."""

    def exponential(self, h: Time, x: tuple[Tensor, ...], tolerance: float | None = None) -> tuple[Tensor, ...]:
        """exp(hG) x, block by block."""
        flows: list[Any] = list(self.parts)
        return tuple(u.clone() if g is None else g.exponential(h, u, tolerance) for g, u in zip(flows, x, strict=True))

    def exponential_products(self, h: Time, tolerance: float | None = None) -> int:
        """The number of products that `exponential` takes."""
        flows: list[Any] = [part for part in self.parts if part is not None]
        return sum(int(g.exponential_products(h, tolerance)) for g in flows)


def block_diagonal_part(parts: Sequence[LinearPart | None]) -> BlockDiagonal:
    """The block-diagonal linear part of several, with an exponential where all have one."""
    exact = all(part is None or (hasattr(part, "exponential") and hasattr(part, "exponential_products")) for part in parts)
    return (BlockDiagonalFlow if exact else BlockDiagonal)(parts)
