"""Tsitouras' explicit pair: as Dopri5, with smaller error constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from integrators.explicit import ExplicitPair
from integrators.solution import Time


@dataclass(frozen=True)
class Tsit5(ExplicitPair):
    """Tsitouras' pair of orders 5 and 4, seven stages, the last reused; dense output of order 4.

    Stability function 1 + z + z²/2 + z³/6 + z⁴/24 + z⁵/120 + 0.00143 z⁶, stable on the negative axis to −3.5.
    Tsitouras 2011, Comput. Math. Appl. 62, 770–775, tables 1 and 2, whose last error weight has the wrong sign.
    """

    order: ClassVar[int] = 5
    error_order: ClassVar[int] = 5
    c: ClassVar = (0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0)
    a: ClassVar = (
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
    )
    e: ClassVar = (
        0.00178001105222577714,
        0.0008164344596567469,
        -0.007880878010261995,
        0.1447110071732629,
        -0.5823571654525552,
        0.45808210592918697,
        -1 / 66,
    )

    def weights(self, theta: Time) -> Sequence[Time]:
        s = theta * theta
        return [
            -1.0530884977290216 * theta * (theta - 1.3299890189751412) * (s - 1.4364028541716351 * theta + 0.7139816917074209),
            0.1017 * s * (s - 2.1966568338249754 * theta + 1.2949852507374631),
            2.490627285651252793 * s * (s - 2.38535645472061657 * theta + 1.57803468208092486),
            -16.54810288924490272 * s * (theta - 1.21712927295533244) * (theta - 0.61620406037800089),
            47.37952196281928122 * s * (theta - 1.203071208372362603) * (theta - 0.658047292653547382),
            -34.87065786149660974 * s * (theta - 1.2) * (theta - 2 / 3),
            2.5 * s * (theta - 1) * (theta - 0.6),
        ]
