"""The implicit-explicit two-step method of order 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from integrators.fixed import FixedStep
from integrators.imex import Additive
from integrators.integrator import CountedRightHandSide
from integrators.method import Carry, Trial
from integrators.solution import State, Time
from integrators.state import add, combine, number, scaled, subtract

GAMMA = 2 / 3
LARGEST_RATIO = 2.0
"""Above 1 + √2 a growing step makes BDF2 itself unstable; N is extrapolated badly before that."""


@dataclass(frozen=True)
class SBDF2(FixedStep):
    """(3x'' − 4x' + x) / 2h = G x'' + 2N(t', x') − N(t, x): BDF2 for G with N extrapolated. Order 2.

    For N = λx and G = μx the roots of (3/2 − hμ)ζ² − (2 + 2hλ)ζ + 1/2 + hλ = 0 must not leave the unit disk; with N = 0 that is
    BDF2, A- and L-stable. One evaluation of N and one solve with I − ⅔hG per step, so one factor in all. With
    ω = h/(step before) the coefficients are those of the variable-step method (Wang and Ruuth 2008, J. Comput. Math. 26).
    The first step is an implicit-explicit Runge–Kutta step of order 2, L-stable in G, with the same factor; so is each step
    after a jump, and each that is more than twice as long as the one before.

    N is explicit, so that nothing is promised for long steps: on Cahn–Hilliard with G = −ε²L² the energy is seen to fall at every
    step of at most ε² from smooth data. With f = Gx alone it is BDF2.

    Ascher, Ruuth and Wetton 1995, SIAM J. Numer. Anal. 32, eq. (18).

    Args:
        dt: the largest step.

    Raises:
        TypeError: f has no linear part.
        ValueError: f is not what its linear and nonlinear parts say.
    """

    order: ClassVar[int] = 2

    def prepare(self, f: CountedRightHandSide, t: float, x0: State) -> Additive:
        return Additive(f, type(self).__name__, t, x0)

    def advance(self, f: Additive, t: Time, h: Time, carry: Carry, before: float) -> Trial:
        x = carry[0]
        n = f.nonlinear(t, x)
        # As a tensor: a gradient in the times reaches the step before too.
        length = h if isinstance(h, Tensor) else torch.tensor(h, dtype=torch.float64)
        if before == 0 or abs(number(h)) > LARGEST_RATIO * abs(before):
            new, smooth = first_step(f, t, h, x, n)
            return Trial((new, x, smooth, length))
        ratio = h / carry[3] if isinstance(h, Tensor) else 1.0 if abs(h - before) <= 1e-9 * abs(h) else h / before
        gamma = (1 + ratio) / (1 + 2 * ratio)
        past = gamma * ratio * ratio / (1 + ratio)
        known = subtract(scaled(x, 1 + past), scaled(carry[1], past))  # γ(1 + ω) = 1 + γω²/(1 + ω)
        b = combine(known, gamma * h, [1.0], [subtract(scaled(n, 1 + ratio), scaled(carry[2], ratio))])
        return Trial((f.solve(gamma * h, b), x, n, length))


def first_step(f: Additive, t: Time, h: Time, x: State, n: State) -> tuple[State, State]:
    """One step of order 2 with solves at I − ⅔hG alone, given n = N(t, x); and N(t, x) as the second step should see it.

    Implicit: c = (⅔, 0, 1), rows (⅔), (−⅔, ⅔), (−¼, 7/12, ⅔); R(z) = (1 − z − z²/6)/(1 − ⅔z)³, L-stable. Explicit:
    ¾N(t + ⅔h, y₁) + ¼N(t, y₂). The second stage y₂ = x + O(h²) is x without what G damps within the step: where x is rough,
    N(t, x) belongs to a moment that is over at once, and would make the method one of order 1.
    """
    s = GAMMA * h
    b = combine(x, s, [1.0], [n])
    y = f.solve(s, b)
    # h G y for each stage, without a product.
    first = scaled(subtract(y, b), 1 / GAMMA)
    known = subtract(x, scaled(first, GAMMA))
    smooth = f.solve(s, known)
    second = scaled(subtract(smooth, known), 1 / GAMMA)
    past = f.nonlinear(t, smooth)
    implicit = subtract(scaled(second, 7 / 12), scaled(first, 1 / 4))
    return f.solve(s, combine(add(x, implicit), h, [1 / 4, 3 / 4], [past, f.nonlinear(t + s, y)])), past
