"""Yoshida's compositions: Störmer–Verlet steps, some of them backwards, that make a step of order 4 or 6."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from integrators.verlet import StoermerVerlet

_OUTER = 1 / (2 - 2 ** (1 / 3))
FOURTH = (_OUTER, 1 - 2 * _OUTER, _OUTER)
"""w₁, w₀, w₁ with 2w₁ + w₀ = 1 and 2w₁³ + w₀³ = 0."""

_SIXTH = (0.78451361047755726382, 0.23557321335935813368, -1.17767998417887100695)
SIXTH = (*_SIXTH, 1 - 2 * sum(_SIXTH), *reversed(_SIXTH))
"""Solution A of Yoshida (1990), table 1."""


@dataclass(frozen=True)
class Yoshida4(StoermerVerlet):
    """Yoshida's composition of three Störmer–Verlet steps, of w₁h, w₀h and w₁h with w₁ = 1/(2 − 2^⅓) and w₀ = 1 − 2w₁ < 0.

    Order 4, symplectic and reversible, for the same equations, with the same arguments and errors as `StoermerVerlet`. The
    longest of the three steps is 1.70 h, and for q'' = −ω² q it is stable while ω dt < 1.57.

    Source: Yoshida (1990), Phys. Lett. A 150; Forest and Ruth (1990), Physica D 43.
    """

    order: ClassVar[int] = 4
    weights: ClassVar[tuple[float, ...]] = FOURTH


@dataclass(frozen=True)
class Yoshida6(StoermerVerlet):
    """Yoshida's composition of seven Störmer–Verlet steps (solution A).

    Order 6, symplectic and reversible, for the same equations, with the same arguments and errors as `StoermerVerlet`. For
    q'' = −ω² q it is stable while ω dt < 2.26.

    Source: Yoshida (1990), Phys. Lett. A 150, table 1; Hairer, Lubich and Wanner (2006), section V.3.2.
    """

    order: ClassVar[int] = 6
    weights: ClassVar[tuple[float, ...]] = SIXTH
