"""Exponential methods: the exact flow of a linear equation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from integrators.fixed import FixedStep
from integrators.integrator import CountedRightHandSide, Evaluate, add, linear_part, scaled
from integrators.solution import Solution, State


@dataclass(frozen=True)
class Exponential(FixedStep):
    """x' = exp(hG) x for a linear autonomous dx/dt = G x, to round-off, by scaled Taylor products.

    exp(hG) = (Σ_{k ≤ m} (hG/s)^k / k!)^s, with s and m the cheapest pair whose remainder, bounded through ‖G‖, stays
    below `tol` (Al-Mohy and Higham 2011, with a norm bound in place of their estimates). Because the remainder is at
    round-off, norms and Rayleigh quotients that the flow keeps are kept, whatever the step.

    Args:
        dt: the largest step; only the output times matter for accuracy, so the default takes one step to each.
        tol: relative remainder per unit of norm; the default is a quarter of the state's unit round-off.
    """

    dt: float = math.inf
    tol: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tol is not None and not 0 < self.tol < 1:
            raise ValueError(f"tol must lie in (0, 1), not {self.tol}")

    def prepare(self, f: CountedRightHandSide) -> _Exponent:
        bound = linear_part(f.f, "Exponential").norm_bound()
        if not math.isfinite(bound):
            raise ValueError(f"norm_bound() of {type(f.f).__name__} is {bound}: look for NaN or overflow in its weights")
        dtype = f.like[0][1]
        return _Exponent(f, bound, self.tol or torch.finfo(dtype).eps / 8)

    def step(self, f: _Exponent, t: Tensor, x: State, h: Tensor) -> State:  # type: ignore[override]
        pieces, order = products(abs(float(h.detach())) * f.bound, f.tol)
        for _ in range(pieces):
            term = x
            for k in range(1, order + 1):
                term = scaled(f.f(t, term), h / (pieces * k))
                x = add(x, term)
        return x

    def solve(self, f: Evaluate, x0: State, t: Tensor) -> Solution:
        linear_part(f, "Exponential")
        return super().solve(f, x0, t)


@dataclass(frozen=True)
class _Exponent:
    f: Any
    bound: float
    tol: float


def products(angle: float, tol: float) -> tuple[int, int]:
    """The pair (s, m) with the fewest products s·m such that the Taylor remainder of exp over angle/s is below tol/s."""
    if angle == 0:
        return 1, 1  # The one product carries the gradient of G.
    least, most = max(1, math.ceil(angle / 8)), max(1, math.ceil(angle))
    pairs = []
    for pieces in range(least, most + 1, 1 + (most - least) // 64):
        theta = angle / pieces
        # Beyond θ = 8 the terms grow before they shrink, and float32 loses the digits they cancel.
        term, order = theta, 0
        while True:
            order += 1
            term_next = term * theta / (order + 1)
            if term_next / (1 - min(0.99, theta / (order + 2))) <= tol / pieces:
                break
            term = term_next
        pairs.append((pieces, order))
    return min(pairs, key=lambda pair: pair[0] * pair[1])

