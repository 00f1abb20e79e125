"""BDF2: second order, one solve a step, strongly damping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from integrators.implicit import ImplicitFixedStep
from integrators.ladder import same
from integrators.method import Carry, Trial
from integrators.solution import State, Time
from integrators.state import combine, subtract

# Zero-stable up to 1 + √2; from there a step starts anew.
LONGEST_GROWTH = 2.0


@dataclass(frozen=True)
class BDF2(ImplicitFixedStep):
    """x' = x + (x − x₋₁) ω²/(1 + 2ω) + h (1 + ω)/(1 + 2ω) f(t + h, x'), ω = h/h₋₁: backward differentiation of order 2 for
    variable steps (Curtiss and Hirschfelder 1952, PNAS 38; Hairer, Nørsett, Wanner I, III.5). L-stable; for equal steps its
    matrix is I − ⅔h ∂f/∂x.

    The first step, and one more than twice as long as the step before, is one of two stages with the same matrix, x₁ = x + ⅔h k₁
    and x' = x + ⅓h k₁ + ⅔h k₂: L-stable, of order 1 (which leaves the whole of order 2), R(z) = (1 − z/3) / (1 − 2z/3)².

    Args:
        dt: the largest step.
        newton: how a nonlinear f is solved.
    """

    order: ClassVar[int] = 2

    def start(self, f: Any, t: Time, x: State) -> Carry:
        return x, x, torch.zeros((), dtype=torch.float64)

    def advance(self, f: Any, t: Time, h: Time, carry: Carry, before: float) -> Trial:
        x, old, length = carry
        value = h.item() if isinstance(h, torch.Tensor) else h
        if abs(value) > LONGEST_GROWTH * abs(before):
            s = h * (2 / 3)
            y = f.solve(t + s, s, x, x)
            b = combine(x, 0.5, [1.0], [subtract(y, x)])
            new = f.solve(t + h, s, b, y, again=True)
        else:
            # The length in the carry, rather than `before`, where a gradient in t passes through it.
            span = same(h, before)
            ratio = span / (length if isinstance(h, torch.Tensor) else before)
            change = subtract(x, old)
            b = combine(x, ratio * ratio / (1 + 2 * ratio), [1.0], [change])
            new = f.solve(t + h, span * ((1 + ratio) / (1 + 2 * ratio)), b, combine(x, ratio, [1.0], [change]))
        return Trial((new, x, h if isinstance(h, torch.Tensor) else torch.tensor(h, dtype=torch.float64)))
