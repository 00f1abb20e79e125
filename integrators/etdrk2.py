"""Exponential time differencing of order 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from integrators.fixed import FixedStep
from integrators.integrator import CountedRightHandSide, Split
from integrators.method import Carry, Trial
from integrators.phi import PhiFunctions, phi_functions
from integrators.solution import State, Time
from integrators.state import combine, scaled


@dataclass(frozen=True)
class ETDRK2(FixedStep):
    """a = e^(hG) x + h φ_1(hG) N(t, x),  x' = a + h φ_2(hG) (N(t + h, a) − N(t, x))  for f(t, x) = G x + N(t, x).

    Order 2, for stiff G too (Cox and Matthews 2002, J. Comput. Phys. 176, eq. 22). A linear f is solved exactly, a steady state
    stays where it is, and only N limits the step. Two combinations of φ-functions a step (see `phi_functions`): for a
    self-adjoint G five pairs of complex solves each, with the same five factors; else products with G.

    Args:
        dt: the largest step.
        tol: the error of the φ-functions; it chooses the number of poles.
    """

    order: ClassVar[int] = 2

    tol: float = 1e-7

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.tol < 1:
            raise ValueError(f"tol must lie in (0, 1), not {self.tol}")

    def prepare(self, f: CountedRightHandSide, t: float, x0: State) -> Any:
        split = Split(f, type(self).__name__)
        split.check(t, x0)
        return phi_functions(split, x0, highest=2, tol=self.tol)

    def step(self, f: PhiFunctions, t: Time, x: State, h: Time) -> State:
        if f.split.rest is None:
            return f.combined(h, [x])
        first = f.split.nonlinear(t, x)
        start = [x, scaled(first, h)]
        second = f.split.nonlinear(t + h, f.combined(h, start))
        return f.combined(h, [*start, combine(scaled(second, h), h, [-1.0], [first])])

    def interpolate(self, f: Any, t: Time, h: Time, carry: Carry, trial: Trial, theta: Time) -> State:
        # A cubic knows nothing of what a stiff G damps inside a step; a shorter step does.
        return self.step(f, t, carry[0], theta * h)
