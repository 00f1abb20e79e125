"""Our solvers through torchdiffeq's own odeint: the official adapter."""

from __future__ import annotations

import itertools
from typing import Any
from weakref import WeakValueDictionary, finalize

import torch
from torch import Tensor
from torchdiffeq._impl import misc
from torchdiffeq._impl.odeint import SOLVERS

from integrators.events import locate
from integrators.integrate import integrate
from integrators.integrator import Integrator
from integrators.solution import State
from integrators.watch import Watch

FAR = 1e9
"""How far an event is sought, in units of t; the solver's own max_nfe ends the search before."""


class Name(str):
    """The name of a method, which torchdiffeq forgets with the last reference to it: a plain copy of its text is none."""

    def __deepcopy__(self, memo: object) -> Name:
        return self


_NAMES: WeakValueDictionary[str, Name] = WeakValueDictionary()
_NUMBERS = itertools.count(1)

def as_torchdiffeq(solver: Integrator, *, adjoint: bool = False) -> str:
    """The name under which torchdiffeq runs this solver: odeint(f, y0, t, method=as_torchdiffeq(SDIRK3(dt=0.01))).

    The solver keeps its own tolerances, limits and gradient: odeint's rtol and atol are not used, and of its options only
    `jump_t` is. f is reached as it was given, so that a linear part `f.linear` is seen. Gradients flow as in `integrate`, to
    y0, t and what f reaches. `odeint_event` works too, its search bounded by the solver's max_nfe.

    `odeint_adjoint` hands its method on to the augmented equation of the backward solve, where a solver that needs f's
    structure finds none; name another one for that: odeint_adjoint(f, y0, t, method=as_torchdiffeq(...),
    adjoint_method="dopri5").

    Equal solvers share their name, and torchdiffeq knows it as long as the returned object is referred to.

    Args:
        solver: any of our integrators.
        adjoint: let it solve the augmented equation as well; for explicit solvers only.

    Raises:
        TypeError: not an integrator.
    """
    if not isinstance(solver, Integrator):
        raise TypeError(f"solver must be an integrator such as Dopri5(rtol=1e-6), not {solver!r}")
    text = f"{solver!r}{' (also backwards)' if adjoint else ''}"
    name = _NAMES.get(text)
    if name is None or SOLVERS[name].solver != solver:
        # Never the same text again: a name that dies must not take a new one with it.
        name = Name(f"{text} #{next(_NUMBERS)}")
        SOLVERS[str(name)] = type(f"{type(solver).__name__}Adapter", (_Adapter,), {"solver": solver, "adjoint": adjoint})
        finalize(name, SOLVERS.pop, str(name), None)
        _NAMES[text] = name
    return name


class _Adapter:
    """What torchdiffeq makes of a method's name."""

    solver: Integrator
    adjoint: bool

    def __init__(self, func: Any, y0: Tensor, **options: Any) -> None:
        jumps = options.pop("jump_t", None)
        unknown = options.keys() - {"rtol", "atol", "norm"}
        if unknown:
            raise TypeError(
                f"{', '.join(sorted(unknown))} cannot be given in options={{...}} for our solvers, which have their own fields: "
                f"{self.solver!r}; only jump_t is understood"
            )
        self.y0 = y0
        self.sign, self.shapes = 1.0, None
        # What torchdiffeq wrapped f in, from outside in.
        while isinstance(func, (misc._PerturbFunc, misc._ReverseFunc, misc._TupleFunc)):
            if isinstance(func, misc._ReverseFunc):
                self.sign = -self.sign
            if isinstance(func, misc._TupleFunc):
                self.shapes = func.shapes
            func = func.base_func
        self.f = func
        self.jumps = () if jumps is None else tuple(self.sign * float(s) for s in torch.as_tensor(jumps))
        if getattr(func, "__qualname__", "").startswith("OdeintAdjointMethod.backward") and not self.adjoint:
            raise TypeError(
                f"{type(self.solver).__name__} was handed on to the augmented equation of odeint_adjoint's backward solve: name "
                'a method for it, as in odeint_adjoint(..., adjoint_method="dopri5"), or use odeint with the gradient of the '
                "solver, such as gradient=Checkpointed()"
            )

    @classmethod
    def valid_callbacks(cls) -> set[str]:
        return set()

    def state(self, flat: Tensor) -> State:
        """The state as f knows it."""
        return flat if self.shapes is None else misc._flat_to_shape(flat, (), self.shapes)

    def flat(self, path: State) -> Tensor:
        """A path of states as torchdiffeq knows it."""
        if isinstance(path, tuple):
            return torch.cat([part.reshape(len(part), -1) for part in path], dim=-1)
        return path

    def integrate(self, t: Tensor) -> Tensor:
        """The states at the times t, which torchdiffeq made increasing."""
        return self.flat(integrate(self.f, self.state(self.y0), self.sign * t, self.solver, jumps=self.jumps).x)

    def integrate_until_event(self, t0: Tensor, event: Any) -> tuple[Tensor, Tensor]:
        """The time of the event and the states at both ends; odeint_event gives the time its gradient."""
        begin = self.sign * t0.detach().double()

        def g(t: Tensor, x: State) -> Tensor:
            value: Tensor = event(self.sign * t, self.flat(tuple(p[None] for p in x))[0] if isinstance(x, tuple) else x)
            return value

        start = self.state(self.y0)
        with torch.no_grad():
            still = self.state(self.y0.detach())
            limit = float(begin) + self.sign * FAR
            hit = locate(self.f, still, begin, g, self.solver, limit, 0, float("inf"), Watch(jumps=self.jumps))
        times = torch.stack([self.sign * t0.double(), begin.new_tensor(hit.t)])
        return self.sign * times[1], self.flat(integrate(self.f, start, times, self.solver, jumps=self.jumps).x)


