"""Invariants watched while a solve runs: the run stops where one is broken, and the curves can be drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from integrators import SolveError, State, Status
from integrators.state import parts_of, state_map
from neuralpde.files import write_atomically
from neuralpde.invariants import Check, Invariant, Law
from neuralpde.rhs import RightHandSide


class Monitor:
    """Watch invariants after every accepted step: `integrate(f, x0, t, monitor=Monitor(f, tolerance=1e-6))`.

    Values are measured in double precision. A new solve begins anew, so that after it the monitor tells of the last one.

    Args:
        invariants: a right-hand side, whose declared invariants are meant, or invariants.
        tolerance: by how much an invariant may be broken, relative to its `scale` at the start; beyond, the solve ends with a
            SolveError (`Status.MONITOR`) that keeps the output times reached, and `state` is the state that broke it.
            None only watches.
        every: measure every so many steps; the start is always measured.

    Attributes:
        t: the times measured.
        values: for each invariant by name, its values at these times.
        state: the state last seen, whatever became of the solve; with it a run can be looked at, or continued.
    """

    def __init__(
        self, invariants: RightHandSide | Invariant | Iterable[Invariant], tolerance: float | None = None, *, every: int = 1
    ) -> None:
        if isinstance(invariants, RightHandSide):
            name = type(invariants).__name__
            invariants = invariants.invariants
            if not invariants:
                raise ValueError(f"{name} declares no invariants: name some, as in Monitor([Mass(laplacian), Norm(laplacian)])")
        if isinstance(invariants, Invariant):
            invariants = (invariants,)
        self.invariants = tuple(invariants) if isinstance(invariants, Iterable) else ()
        if not self.invariants or not all(isinstance(i, Invariant) for i in self.invariants):
            raise TypeError("a monitor watches invariants such as Mass(laplacian), or those of a right-hand side")
        if tolerance is not None and not tolerance >= 0:
            raise ValueError(f"tolerance must be a number that is not negative, or None, not {tolerance!r}")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every must be a positive integer, not {every!r}")
        self.tolerance, self.every = tolerance, every
        self.t: list[float] = []
        self.values: dict[str, list[Tensor]] = {}
        self.state: State | None = None
        self._steps = 0
        self._scales: list[Tensor] = []
        self._references: list[Tensor] = []
        self._worst: list[float] = []

    def begin(self, t: float, x: State) -> None:
        """A solve begins at x(t)."""
        wide = _widened(x)
        self.t, self.state, self._steps = [t], x, 0
        starts = [invariant.measure(wide) for invariant in self.invariants]
        self.values = {name: [start.cpu()] for name, start in zip(self._names(), starts, strict=True)}
        self._references = starts
        self._scales = [invariant.scale(wide) for invariant in self.invariants]
        self._worst = [0.0] * len(starts)

    def see(self, t: float, x: State) -> None:
        """An accepted step has reached x(t).

        Raises:
            SolveError: an invariant is broken beyond the tolerance.
        """
        self._steps += 1
        self.state = x
        if self._steps % self.every:
            return
        wide = _widened(x)
        self.t.append(t)
        broken = ""
        for k, (name, invariant) in enumerate(zip(self._names(), self.invariants, strict=True)):
            value = invariant.measure(wide)
            self.values[name].append(value.cpu())
            violation = float(invariant.excess(torch.stack([self._references[k], value]), self._scales[k]).max())
            if invariant.law is Law.NON_INCREASING:
                self._references[k] = torch.minimum(self._references[k], value)
            elif invariant.law is Law.NON_DECREASING:
                self._references[k] = torch.maximum(self._references[k], value)
            violation = violation if math.isfinite(violation) else math.inf
            self._worst[k] = max(self._worst[k], violation)
            if self.tolerance is not None and violation > self.tolerance and not broken:
                broken = f"{name} ({invariant.law.value}) is broken by {violation:.2e} of its scale"
        if broken:
            kind = parts_of(x)[0].dtype
            hint, rounding = "", torch.finfo(kind).eps / 2
            if self.tolerance is not None and self.tolerance < 200 * rounding:
                hint = f"A state in {kind} rounds by {rounding:.0e} in every step: raise the tolerance, or use float64. "
            raise SolveError(
                f"the monitor stopped the solve at t = {t:.6g}: {broken}, and the tolerance is {self.tolerance:.2e}. {hint}"
                "The state is in monitor.state, what was computed before in `.solution`. Take a smaller step or tolerance, or a "
                "solver that keeps this law; if it is broken at any step length, the right-hand side does not have it",
                Status.MONITOR,
            )

    def checks(self) -> list[Check]:
        """Every invariant held against the tolerance, over what was seen; without one, against zero."""
        tolerance = 0.0 if self.tolerance is None else self.tolerance
        pairs = zip(self._names(), self.invariants, self._worst, strict=True)
        return [Check(name, invariant.law.value, worst, tolerance) for name, invariant, worst in pairs]

    def plot(self, path: str | Path) -> None:
        """Draw every invariant over time, in its own panel, to a picture file such as invariants.png.

        Raises:
            ValueError: nothing was watched yet.
        """
        if not self.t:
            raise ValueError("nothing was watched yet: pass this monitor to integrate(..., monitor=...) first")
        from matplotlib.figure import Figure

        count = len(self.invariants)
        figure = Figure(figsize=(7, 1.2 + 1.6 * count), layout="constrained")
        panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
        for panel, (name, values), invariant, worst in zip(
            panels, self.values.items(), self.invariants, self._worst, strict=True
        ):
            curves = torch.stack([value.abs() if value.is_complex() else value for value in values]).reshape(len(values), -1)
            panel.plot(self.t, curves.numpy(), linewidth=1.2)
            panel.set_title(f"{name}: {invariant.law.value}; broken by {worst:.1e} of its scale", fontsize=9, loc="left")
            panel.ticklabel_format(useOffset=False)
        panels[-1].set_xlabel("t")
        path = Path(path)
        write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=130, format=path.suffix.lstrip(".") or "png"))

    def _names(self) -> list[str]:
        names = [invariant.name for invariant in self.invariants]
        # Two of the same name, say the norms of two parts, are told apart by their place.
        return [name if names.count(name) == 1 else f"{name} {k + 1}" for k, name in enumerate(names)]


def _widened(x: State) -> State:
    return state_map(lambda part: part.to(torch.complex128 if part.is_complex() else torch.float64), x)
