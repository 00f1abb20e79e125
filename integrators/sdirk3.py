"""SDIRK3: third order, three solves a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from integrators.implicit import DiagonallyImplicit

# The root of x³ − 3x² + 3x/2 − 1/6 = 0 between 1/6 and 1/2.
GAMMA = 0.43586652150845899942
# With w = 1/(1 − γz) the estimate is D (1 − w)³: from this D on it is above |R(z) − e^z| for every z ≤ 0.
D = 0.375
E = D * GAMMA**3 / (GAMMA**2 - 2 * GAMMA + 1 / 2)


@dataclass(frozen=True)
class SDIRK3(DiagonallyImplicit):
    """Alexander's L-stable method of order 3 (1977, SIAM J. Numer. Anal. 14), stiffly accurate, γ ≈ 0.4359.

    Stability function (1 + (1 − 3γ) z + (1/2 − 3γ + 3γ²) z²) / (1 − γz)³. The error estimate is a multiple of
    z₁ − 2z₂ + z₃, the only combination of the stages that is O(h³); for dx/dt = λx it is D (1 − 1/(1 − γz))³, with D such that it
    bounds the true error of a step for every λ ≤ 0. Outputs inside a step are of order 2. The stages are of order 1: on a forced
    stiff equation (Prothero and Robinson 1974, Math. Comp. 28) the error is O(h/λ) rather than O(h³).

    Args:
        rtol, atol: relative and absolute tolerance of the local error.
        dt: the largest step, for fixed steps instead.
        newton: how a nonlinear f is solved.
    """

    order: ClassVar[int] = 3
    error_order: ClassVar[int] = 3
    gamma: ClassVar[float] = GAMMA
    c: ClassVar = (GAMMA, (1 + GAMMA) / 2, 1.0)
    a: ClassVar = (
        (),
        ((1 - GAMMA) / 2,),
        (-(6 * GAMMA**2 - 16 * GAMMA + 1) / 4, (6 * GAMMA**2 - 20 * GAMMA + 5) / 4),
    )
    e: ClassVar = (E, -2 * E, E)
