"""SDIRK2: second order, two solves a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from integrators.implicit import DiagonallyImplicit

GAMMA = 1 - 0.5**0.5
# With w = 1/(1 − γz) the estimate is D (1 − w)²: from this D on it is above |R(z) − e^z| for every z ≤ 0.
D = 0.55


@dataclass(frozen=True)
class SDIRK2(DiagonallyImplicit):
    """Alexander's L-stable method of order 2 (1977, SIAM J. Numer. Anal. 14), stiffly accurate, γ = 1 − 1/√2.

    Stability function (1 + (1 − 2γ) z) / (1 − γz)². The error estimate is D γ² (z₂ − z₁)/(1 − γ), a multiple of the only
    combination of the stages that is O(h²); for dx/dt = λx it is D (1 − 1/(1 − γz))², with D such that it bounds the true error
    of a step for every λ ≤ 0. Outputs inside a step are of order 2.

    Args:
        rtol, atol: relative and absolute tolerance of the local error.
        dt: the largest step, for fixed steps instead.
        newton: how a nonlinear f is solved.
    """

    order: ClassVar[int] = 2
    error_order: ClassVar[int] = 2
    gamma: ClassVar[float] = GAMMA
    c: ClassVar = (GAMMA, 1.0)
    a: ClassVar = ((), (1 - GAMMA,))
    e: ClassVar = (-D * GAMMA**2 / (1 - GAMMA), D * GAMMA**2 / (1 - GAMMA))
