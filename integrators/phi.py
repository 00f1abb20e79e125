"""Σ_k φ_k(hG) v_k, the one thing that exponential Runge–Kutta methods ask of the linear part."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from integrators.caratheodory_fejer import Rational, degree_for, fitted, keep_factors, rational_sum
from integrators.exponential import products
from integrators.integrator import Split
from integrators.solution import State, Time
from integrators.state import add, number, parts_of, scaled


class PhiFunctions(ABC):
    """φ_0(z) = e^z and φ_k(z) = ∫₀¹ e^((1−s)z) s^(k−1)/(k−1)! ds of a linear part, k ≤ 3.

    Σ_k h^k φ_k(hG) v_k is the solution at h of x' = G x + Σ_k t^(k−1)/(k−1)! v_k from x(0) = v_0.
    """

    split: Split

    @abstractmethod
    def combined(self, h: Time, vectors: Sequence[State]) -> State:
        """Σ_k φ_k(hG) v_k for v_0, v_1, ..."""


@dataclass(frozen=True)
class RationalPhi(PhiFunctions):
    """By rational approximations with common poles: one solve for each pole, whatever the number of vectors.

    For a self-adjoint, negative semi-definite G of any stiffness (Schmelzer and Trefethen 2007, ETNA 29; the weights here are
    the best for each φ_k with the poles of the best approximation of exp).
    """

    split: Split
    fit: Rational

    def combined(self, h: Time, vectors: Sequence[State]) -> State:
        return rational_sum(self.split, h, vectors, self.fit)


@dataclass(frozen=True)
class TaylorPhi(PhiFunctions):
    """By scaled Taylor products with G alone, about |h|‖G‖ + 10 of them: for any G, real or complex, of modest stiffness.

    The Taylor series of the differential equation above, restarted where h‖G‖ is long (Al-Mohy and Higham 2011).
    """

    split: Split
    bound: float
    tol: float

    def combined(self, h: Time, vectors: Sequence[State]) -> State:
        pieces, order = products(abs(number(h)) * self.bound, self.tol)
        x, rest = vectors[0], vectors[1:]
        delta = 1 / pieces
        for i in range(pieces):
            term = x
            for m in range(max(order, len(rest))):
                term = scaled(scaled(self.split @ term, h), delta / (m + 1))
                # The m-th derivative at i δ of the polynomial with coefficients v_k / (k − 1)!, times δ^(m+1) / (m+1)!.
                for k in range(m, len(rest)):
                    share = (i * delta) ** (k - m) / math.factorial(k - m) * delta ** (m + 1) / math.factorial(m + 1)
                    if share:
                        term = add(term, scaled(rest[k], share))
                x = add(x, term)
        return x


def phi_functions(split: Split, x0: State, highest: int, tol: float, lengths: int = 1) -> PhiFunctions:
    """The way that suits the linear part: rational where it says `self_adjoint = True`, else Taylor products.

    Args:
        split: f = G x + N.
        x0: a state, for its precision.
        highest: the largest k.
        tol: the error of each φ_k.
        lengths: how many different h a step uses.
    """
    dtype = parts_of(x0)[0].dtype
    tol = max(tol, 8 * torch.finfo(dtype).eps)
    if getattr(split.linear, "self_adjoint", None) is True:
        fit = fitted(degree_for(tol, dtype, range(highest + 1)))
        keep_factors(split, fit, x0, lengths)
        return RationalPhi(split, fit)
    bound = split.linear.norm_bound()
    if not math.isfinite(bound):
        raise ValueError(f"norm_bound() of the linear part is {bound}: look for NaN or overflow in its weights")
    return TaylorPhi(split, bound, torch.finfo(dtype).eps / 8)
