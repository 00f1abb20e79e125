"""`assert_conserved` and `assert_dissipated`: a quantity held against a path, or against a flow solved accurately."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from integrators import Dopri5, Integrator, Solution, State, integrate
from integrators.state import parts_of, state_map
from neuralpde.invariants import Invariant, Law
from neuralpde.testing_bounds import roundoff
from neuralpde.testing_measured import Measured, require
from neuralpde.testing_search import name_of

ACCURATE = 1e-8


def assert_conserved(
    quantity: Invariant | Callable[[Any], Tensor],
    f: Any,
    x0: State | None = None,
    t: Sequence[float] | Tensor = (0.0, 1.0),
    *,
    solver: Integrator | None = None,
    tolerance: float | None = None,
) -> Measured:
    """Assert that a quantity stays what it was, along a path or along the flow of dx/dt = f(t, x).

    Tolerance, relative to the magnitudes that the quantity accumulates at the start: 32 u k for a path of k times, of which
    u is the round-off of its dtype, and 100 rtol more, of the accurate solver, where f is solved here; or `tolerance`, for
    the path of a solver that promises less.

    Args:
        quantity: an `Invariant`, or a function of the state that gives one or several numbers.
        f: a right-hand side, to be solved from x0 at the times t; or a path (T, ..., n, c), or a `Solution`.
        solver: `Dopri5(rtol=1e-8)` by default.

    Returns:
        The worst time; float() of it is the violation in units of the tolerance.

    Raises:
        LawBrokenError: an AssertionError that tells the violation.
    """
    __tracebackhide__ = True
    return _held(_as_invariant(quantity).under(Law.CONSERVED), f, x0, t, solver, tolerance)


def assert_dissipated(
    quantity: Invariant | Callable[[Any], Tensor],
    f: Any,
    x0: State | None = None,
    t: Sequence[float] | Tensor = (0.0, 0.25, 0.5, 0.75, 1.0),
    *,
    solver: Integrator | None = None,
    tolerance: float | None = None,
) -> Measured:
    """Assert that a quantity never increases from one time to a later one; see `assert_conserved`."""
    __tracebackhide__ = True
    return _held(_as_invariant(quantity).under(Law.NON_INCREASING), f, x0, t, solver, tolerance)


def _held(quantity: Invariant, f: Any, x0: State | None, t: Any, solver: Integrator | None, tolerance: float | None) -> Measured:
    __tracebackhide__ = True
    solved = callable(f) and not isinstance(f, Tensor)
    if solved:
        if x0 is None:
            raise TypeError("a right-hand side needs a state to start from: pass x0, or a path instead of f")
        with torch.no_grad():
            path = integrate(f, x0, t, solver or Dopri5(rtol=ACCURATE, atol=ACCURATE)).x
    else:
        path = f.x if isinstance(f, Solution) else f
    measured = along(quantity, path, solved=solved, tolerance=tolerance)
    return require(measured, name_of(f) if solved else "the path")


def along(quantity: Invariant, path: State, *, solved: bool, tolerance: float | None = None) -> Measured:
    """The violation of a quantity's law on a path (T, ..., n, c)."""
    first = parts_of(path)[0]
    if tolerance is None:
        tolerance = 32 * len(first) * roundoff(first.dtype) + (100 * ACCURATE if solved else 0.0)
        rule = "(32 u k + 100 rtol) of the magnitudes accumulated" if solved else "32 u k of the magnitudes accumulated"
    else:
        rule = "what was asked, of the magnitudes accumulated"
    wide = state_map(lambda part: part.detach(), path)
    return Measured(f"{quantity.name} {_VERBS[quantity.law]}", quantity.violation(wide), tolerance, rule)


_VERBS = {Law.CONSERVED: "is conserved", Law.NON_INCREASING: "never increases", Law.NON_DECREASING: "never decreases"}


@dataclass(frozen=True, eq=False)
class Quantity(Invariant):
    """A function of the state as a quantity; its scale is its size at the state and at the state's absolute values."""

    function: Callable[[Any], Tensor]
    law: Law = Law.CONSERVED

    def measure(self, x: State) -> Tensor:
        return torch.as_tensor(self.function(x))

    def scale(self, x: State) -> Tensor:
        sizes = [self.function(state) for state in (x, state_map(lambda part: part.abs().to(part.dtype), x))]
        return torch.stack([torch.as_tensor(size).abs() for size in sizes]).amax(0)

    def violation(self, path: State) -> float:
        # One time at a time: a function written for a state need not know of paths.
        times = len(parts_of(path)[0])
        states = [state_map(lambda part, k=k: part[k].detach(), path) for k in range(times)]
        values = torch.stack([torch.as_tensor(self.function(state)) for state in states])
        return float(self.excess(values, self.scale(states[0])).max())

    @property
    def name(self) -> str:
        return name_of(self.function)


def _as_invariant(quantity: Any) -> Invariant:
    return quantity if isinstance(quantity, Invariant) else Quantity(quantity)
