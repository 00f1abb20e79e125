"""The implicit midpoint rule: symplectic, reversible and A-stable, for any equation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from integrators.fixed import FixedStep
from integrators.integrator import CountedRightHandSide
from integrators.method import Carry, Trial
from integrators.newton_krylov import NewtonKrylov
from integrators.solution import State, Time
from integrators.stage import Stages, stage_solver
from integrators.state import combine, scaled, subtract


def near_round_off() -> NewtonKrylov:
    """Newton's method to the accuracy that invariants need; a tolerance below round-off stands for round-off itself."""
    return NewtonKrylov(rtol=1e-15)


@dataclass(frozen=True)
class ImplicitMidpoint(FixedStep):
    """y = x + h/2 f(t + h/2, y),  x' = 2y − x: the Gauss method with one stage.

    Order 2, A-stable, and reversible: a step of −h undoes a step of h. Stability function (1 + z/2) / (1 − z/2), of modulus 1
    on the imaginary axis, so that it keeps the norm under a skew generator, whatever the step; it is symplectic for any
    Hamiltonian, and keeps every quadratic invariant. It does not damp stiff modes (R → −1): use SDIRK3 for diffusion.

    Where f.linear is all of f a step is one solve with I − h/2 G, factored once for each step length; else Newton's method,
    whose tolerance is close to round-off unless `newton` says otherwise.

    Args:
        dt: the largest step.
        newton: how nonlinear steps are solved.

    Source: Hairer, Lubich and Wanner, Geometric Numerical Integration (2006), sections II.1, IV.2 and VI.4.
    """

    newton: NewtonKrylov = field(default_factory=near_round_off, kw_only=True)

    order: ClassVar[int] = 2
    reversible: ClassVar[bool] = True

    def prepare(self, f: CountedRightHandSide, t: float, x0: State) -> Any:
        return stage_solver(f, t, x0, user="ImplicitMidpoint", newton=self.newton)

    def start(self, f: Stages, t: Time, x: State) -> Carry:
        return (x,) if f.linear else (x, scaled(x, 0.0))

    def advance(self, f: Stages, t: Time, h: Time, carry: Carry, before: float) -> Trial:
        x = carry[0]
        if len(carry) == 1:
            return Trial((self._reflected(f.solve(t + h / 2, h / 2, x, x), x),))
        # The last half step, once more, is where Newton's method begins.
        ratio = 0.0 if before == 0 else float(h.detach() if isinstance(h, Tensor) else h) / before
        with torch.no_grad():
            guess = combine(x, ratio, [1.0], [carry[1]])
        y = f.solve(t + h / 2, h / 2, x, guess)
        with torch.no_grad():
            half = subtract(y, x)
        return Trial((self._reflected(y, x), half))

    def _reflected(self, y: State, x: State) -> State:
        return combine(scaled(y, 2.0), -1.0, [1.0], [x])
