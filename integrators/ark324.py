"""The implicit-explicit Runge–Kutta pair of orders 3 and 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from integrators.imex import Additive
from integrators.integrator import CountedRightHandSide
from integrators.ladder import Ladder
from integrators.method import Carry, Trial
from integrators.solution import State, Time
from integrators.state import combine, scaled, subtract

GAMMA = 1767732205903 / 4055673282236
"""The diagonal, a root of 6γ³ − 18γ² + 9γ − 1."""


@dataclass(frozen=True)
class ARK324(Ladder):
    """ARK3(2)4L[2]SA: an L-stable, stiffly accurate ESDIRK for G and an explicit method for N(t, x), four stages each.

    y_i = x + h Σ_{j ≤ i} a^I_ij G y_j + h Σ_{j < i} a^E_ij N_j with N_j = N(t + c_j h, y_j), x' = x + h Σ b_i (G y_i + N_i).
    Orders 3 and 2, also where the two parts meet. The implicit part alone, which is all there is for f = Gx, has
    R(z) = (1 + (1 − 3γ)z + (½ − 3γ + 3γ²)z²) / (1 − γz)³ with γ ≈ 0.4359, so that R(∞) = 0. A step is three solves, all with
    I − γhG, one product and four evaluations of N; steps lie on a dyadic ladder, so that a factor serves many. Inside a
    step x(t + θh) = x + h Σ (b*_1i θ + b*_2i θ²)(G y_i + N_i), whose error is O(h³).

    Kennedy and Carpenter 2003, Appl. Numer. Math. 44, appendix C.

    Args:
        rtol, atol: tolerances of the local error; or `dt` for fixed steps.

    Raises:
        TypeError: f has no linear part.
        ValueError: f is not what its linear and nonlinear parts say.
    """

    order: ClassVar[int] = 3
    error_order: ClassVar[int] = 3
    c: ClassVar = (0.0, 2 * GAMMA, 3 / 5, 1.0)
    implicit: ClassVar = (
        (),
        (GAMMA,),
        (2746238789719 / 10658868560708, -640167445237 / 6845629431997),
        (1471266399579 / 7840856788654, -4482444167858 / 7529755066697, 11266239266428 / 11593286722821),
    )
    """Below the diagonal, which is γ except for the first stage; the last row is b."""
    explicit: ClassVar = (
        (),
        (2 * GAMMA,),
        (5535828885825 / 10492691773637, 788022342437 / 10882634858940),
        (6485989280629 / 16251701735622, -4246266847089 / 9704473918619, 10755448449292 / 10357097424841),
    )
    b: ClassVar = (*implicit[3], GAMMA)
    embedded: ClassVar = (
        2756255671327 / 12835298489170,
        -10771552573575 / 22201958757719,
        9247589265047 / 10645013368117,
        2193209047091 / 5459859503100,
    )
    inside: ClassVar = (
        (
            4655552711362 / 22874653954995,
            -18682724506714 / 9892148508045,
            34259539580243 / 13192909600954,
            584795268549 / 6622622206610,
        ),
        (
            -215264564351 / 13552729205753,
            17870216137069 / 13817060693119,
            -28141676662227 / 17317692491321,
            2508943948391 / 7218656332882,
        ),
    )

    def prepare(self, f: CountedRightHandSide, t: float, x0: State) -> Additive:
        return Additive(f, type(self).__name__, t, x0)

    def attempt(self, f: Additive, t: Time, h: Time, carry: Carry, before: float) -> Trial:
        x = carry[0]
        linear, rest = [f @ x], self._rest(f, t, x)
        for c, implicit, explicit in zip(self.c[1:], self.implicit[1:], self.explicit[1:], strict=True):
            known = combine(x, h, self._of(f, implicit, explicit), (*linear, *rest))
            y = f.solve(GAMMA * h, known)
            linear.append(scaled(subtract(y, known), 1 / (GAMMA * h)))  # G y, without a product
            rest += self._rest(f, t + c * h, y)
        slopes = (*linear, *rest)
        new = combine(x, h, self._of(f, self.b, self.b), slopes)
        if not self.adapts:
            return Trial((new,), None, slopes)
        difference = tuple(b - e for b, e in zip(self.b, self.embedded, strict=True))
        return Trial((new,), combine(scaled(x, 0.0), h, self._of(f, difference, difference), slopes), slopes)

    def _rest(self, f: Additive, t: Time, y: State) -> list[State]:
        return [] if f.rest is None else [f.nonlinear(t, y)]

    def _of(self, f: Additive, implicit: tuple[Any, ...], explicit: tuple[Any, ...]) -> tuple[Any, ...]:
        return implicit if f.rest is None else (*implicit, *explicit)

    def interpolate(self, f: Additive, t: Time, h: Time, carry: Carry, trial: Trial, theta: Time) -> State:
        weights = tuple(a + b * theta for a, b in zip(*self.inside, strict=True))
        return combine(carry[0], h * theta, self._of(f, weights, weights), trial.stages)
