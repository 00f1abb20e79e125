"""Exponential time differencing of order 4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from integrators.etdrk2 import ETDRK2
from integrators.integrator import CountedRightHandSide, Split
from integrators.phi import PhiFunctions, phi_functions
from integrators.solution import State, Time
from integrators.state import combine, scaled


@dataclass(frozen=True)
class ETDRK4(ETDRK2):
    """Krogstad's exponential Runge–Kutta method of order 4 for f(t, x) = G x + N(t, x), four evaluations of N a step.

    With N_i = N(t + c_i h, U_i), c = (0, ½, ½, 1), and φ_k at hG/2 in U_2 and U_3, at hG in U_4 and x':
        U_2 = e^(hG/2) x + h ½φ_1 N_1
        U_3 = e^(hG/2) x + h [½φ_1 N_1 + φ_2 (N_2 − N_1)]
        U_4 = e^(hG) x + h [φ_1 N_1 + 2φ_2 (N_3 − N_1)]
        x'  = e^(hG) x + h [φ_1 N_1 + φ_2 (−3N_1 + 2N_2 + 2N_3 − N_4) + 4φ_3 (N_1 − N_2 − N_3 + N_4)]
    Order 4; at worst 3 where G is stiff and N does not respect its boundary conditions, against 2 for the method of Cox and
    Matthews 2002 (Krogstad 2005, J. Comput. Phys. 203, ETDRK4-B; Hochbruck and Ostermann 2005, SIAM J. Numer. Anal. 43). A
    linear f is solved exactly. Arguments as for `ETDRK2`; twice its factors, for the half steps.
    """

    order: ClassVar[int] = 4

    def prepare(self, f: CountedRightHandSide, t: float, x0: State) -> Any:
        split = Split(f, type(self).__name__)
        split.check(t, x0)
        return phi_functions(split, x0, highest=3, tol=self.tol, lengths=2)

    def step(self, f: PhiFunctions, t: Time, x: State, h: Time) -> State:
        if f.split.rest is None:
            return f.combined(h, [x])
        zero, half, N = scaled(x, 0.0), h / 2, f.split.nonlinear
        n1 = N(t, x)
        start = [x, scaled(n1, half)]
        n2 = N(t + half, f.combined(half, start))
        n3 = N(t + half, f.combined(half, [*start, combine(zero, h, [1.0, -1.0], [n2, n1])]))
        start = [x, scaled(n1, h)]
        n4 = N(t + h, f.combined(h, [*start, combine(zero, h, [2.0, -2.0], [n3, n1])]))
        stages = [n1, n2, n3, n4]
        second, third = (combine(zero, h, weights, stages) for weights in ([-3.0, 2.0, 2.0, -1.0], [4.0, -4.0, -4.0, 4.0]))
        return f.combined(h, [*start, second, third])
