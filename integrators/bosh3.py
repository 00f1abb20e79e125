"""Bogacki and Shampine's explicit pair, for loose tolerances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from integrators.explicit import ExplicitPair


@dataclass(frozen=True)
class Bosh3(ExplicitPair):
    """Bogacki and Shampine's pair of orders 3 and 2 (1989, Appl. Math. Lett. 2), four stages, the last reused.

    Stability function 1 + z + z²/2 + z³/6, stable on the negative axis to −2.5; dense output by the cubic Hermite polynomial.
    """

    order: ClassVar[int] = 3
    error_order: ClassVar[int] = 3
    c: ClassVar = (1 / 2, 3 / 4, 1.0)
    a: ClassVar = ((1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9))
    e: ClassVar = (-5 / 72, 1 / 12, 1 / 9, -1 / 8)
