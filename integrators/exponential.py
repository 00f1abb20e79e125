"""Exponential methods: the exact flow of a linear equation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch

from integrators.fixed import FixedStep
from integrators.integrator import CountedRightHandSide, Split
from integrators.method import Carry, Trial
from integrators.solution import State, Time
from integrators.state import add, number, parts_of, scaled


@runtime_checkable
class ExactFlow(Protocol):
    """A linear part that knows a better exact flow than products with G alone give: Chebyshev series, eigenvectors, a formula.

    `Exponential` uses it instead of its own products. A part that can also say `exponential_products(h, tolerance)`, the number
    of products that `exponential` will take at most, has them counted, and refused beforehand where the budget does not reach;
    where it stops early, it says in `products` how many it took.
    """

    def exponential(self, h: Time, x: Any, tolerance: float | None = None) -> Any:
        """exp(hG) x with an error of at most tolerance · ‖x‖ (round-off if None); h may be negative or a scalar tensor.

        Differentiable in h, x and what G is made of.
        """


@dataclass(frozen=True)
class Exponential(FixedStep):
    """x' = exp(hG) x for a linear autonomous dx/dt = G x, to round-off.

    Where G offers its own `exponential(h, x, tolerance)` (see `ExactFlow`: heat, waves and unitary flows do), that is used.
    Otherwise scaled Taylor products: exp(hG) = (Σ_{k ≤ m} (hG/s)^k / k!)^s, with s and m the cheapest pair whose remainder,
    bounded through ‖G‖, stays below `tol` (Al-Mohy and Higham 2011, with a norm bound in place of their estimates). Because
    the remainder is at round-off, norms and Rayleigh quotients that the flow keeps are kept, whatever the step.

    Args:
        dt: the largest step; only the output times matter for accuracy, so the default takes one step to each.
        tol: the error of a step: relative to ‖x‖ with a flow of G's own, else the relative remainder per unit of norm. The
            default is round-off.
    """

    order: ClassVar[float] = math.inf

    dt: float = math.inf
    tol: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tol is not None and not 0 < self.tol < 1:
            raise ValueError(f"tol must lie in (0, 1), not {self.tol}")

    def prepare(self, f: CountedRightHandSide, t: float, x0: State) -> Any:
        split = Split(f, "Exponential", whole=True, affine=True)
        split.check(t, x0)
        if isinstance(split.linear, ExactFlow):
            return _OwnFlow(split, split.linear, self.tol)
        bound = split.linear.norm_bound()
        if not math.isfinite(bound):
            raise ValueError(f"norm_bound() of {type(f.f).__name__} is {bound}: look for NaN or overflow in its weights")
        return _Taylor(split, bound, self.tol or torch.finfo(f.like[0][1]).eps / 8)

    def step(self, f: _OwnFlow | _Taylor, t: Time, x: State, h: Time) -> State:
        return f.advanced(x, h)

    def interpolate(self, f: Any, t: Time, h: Time, carry: Carry, trial: Trial, theta: Time) -> State:
        # A cubic knows nothing of a step that may be the whole solve; a shorter step is exact.
        return self.step(f, t, carry[0], theta * h)


@dataclass(frozen=True)
class _OwnFlow:
    split: Split
    flow: ExactFlow
    tol: float | None

    def advanced(self, x: State, h: Time) -> State:
        expected = getattr(self.flow, "exponential_products", None)
        with torch.no_grad():
            count = 1 if expected is None else expected(number(h), self.tol)
        for _ in range(count):
            self.split.f._count(0.0)
        new: State = self.flow.exponential(h, x, self.tol)
        self.split.f.uncount(count - getattr(self.flow, "products", count))
        like = [(part.shape, part.dtype) for part in parts_of(x)]
        if isinstance(new, tuple) != isinstance(x, tuple) or [(part.shape, part.dtype) for part in parts_of(new)] != like:
            raise TypeError(
                f"{type(self.flow).__name__}.exponential(h, x) must return a state like x, of {like}: "
                f"it returned {[(tuple(part.shape), part.dtype) for part in parts_of(new)]}"
            )
        return new


@dataclass(frozen=True)
class _Taylor:
    split: Split
    bound: float
    tol: float

    def advanced(self, x: State, h: Time) -> State:
        pieces, order = products(abs(number(h)) * self.bound, self.tol)
        for _ in range(pieces):
            term = x
            for k in range(1, order + 1):
                term = scaled(self.split @ term, h / (pieces * k))
                x = add(x, term)
        return x


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
