"""Dormand and Prince's explicit pair, the workhorse for equations that are not stiff."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from integrators.explicit import ExplicitPair
from integrators.solution import Time


@dataclass(frozen=True)
class Dopri5(ExplicitPair):
    """Dormand and Prince's pair of orders 5 and 4, seven stages, the last reused; dense output of order 4.

    Stability function 1 + z + z²/2 + z³/6 + z⁴/24 + z⁵/120 + z⁶/600, stable on the negative axis to −3.3.
    Pair: Dormand and Prince 1980, J. Comput. Appl. Math. 6. Dense output: Shampine, in Hairer, Nørsett and Wanner I, II.6.
    """

    order: ClassVar[int] = 5
    error_order: ClassVar[int] = 5
    c: ClassVar = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
    a: ClassVar = (
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    )
    e: ClassVar = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
    d: ClassVar = (
        -12715105075 / 11282082432,
        0.0,
        87487479700 / 32700410799,
        -10690763975 / 1880347072,
        701980252875 / 199316789632,
        -1453857185 / 822651844,
        69997945 / 29380423,
    )
    """Of θ²(1 − θ)², what the dense output adds to the Hermite polynomial."""

    def weights(self, theta: Time) -> Sequence[Time]:
        bump = (theta * (1 - theta)) ** 2
        return [b + bump * d for b, d in zip(super().weights(theta), self.d, strict=True)]
