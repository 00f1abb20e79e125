"""What implicit methods share: fixed steps with stages to solve, and diagonally implicit Runge–Kutta pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from integrators.fixed import FixedStep
from integrators.integrator import CountedRightHandSide
from integrators.ladder import Ladder
from integrators.method import Carry, Trial
from integrators.newton_krylov import NewtonKrylov
from integrators.solution import State, Time
from integrators.stage import Stages, stage_solver
from integrators.state import combine, scaled, state_map, subtract


@dataclass(frozen=True)
class ImplicitFixedStep(FixedStep):
    """An implicit method with a fixed step; its steps are given `Stages` as f.

    Args:
        newton: how nonlinear stages are solved.
    """

    newton: NewtonKrylov = field(default_factory=NewtonKrylov, kw_only=True)

    def prepare(self, f: CountedRightHandSide, t: float, x0: State) -> Any:
        return stage_solver(f, t, x0, user=type(self).__name__, newton=self.newton)


@dataclass(frozen=True)
class DiagonallyImplicit(Ladder):
    """y_i = x + Σ_{j<i} a_ij z_j + γ z_i with z_i = h f(t + c_i h, y_i), x' the last y_i, error Σ e_i z_i.

    A linear f costs one solve a stage, all with I − γh G. f is evaluated nowhere: z_i = (y_i − b_i)/γ is bounded however stiff f
    is. Outputs between steps are x + Σ_i z_i ∫₀^θ ℓ_i, with ℓ_i the Lagrange polynomials of the c_i.
    """

    gamma: ClassVar[float]
    c: ClassVar[tuple[float, ...]]
    a: ClassVar[tuple[tuple[float, ...], ...]]
    """Below the diagonal; the last row, with γ, is b."""
    e: ClassVar[tuple[float, ...]]

    def attempt(self, f: Stages, t: Time, h: Time, carry: Carry, before: float) -> Trial:
        x, s = carry[0], h * self.gamma
        z: list[State] = []
        y = x
        for c, row in zip(self.c, self.a, strict=True):
            b = combine(x, 1.0, row, z)
            guess = combine(b, self.gamma, [1.0], z[-1:]) if z else x
            y = f.solve(t + c * h, s, b, guess, again=bool(z))
            z.append(scaled(subtract(y, b), 1 / self.gamma))
        error = combine(scaled(z[0], self.e[0]), 1.0, self.e[1:], z[1:]) if self.adapts else None
        return Trial((y,), error, tuple(z))

    def interpolate(self, f: Stages, t: Time, h: Time, carry: Carry, trial: Trial, theta: Time) -> State:
        return weighted(carry[0], [polynomial(row, theta) for row in lagrange_integrals(self.c)], trial.stages)


def lagrange_integrals(c: Sequence[float]) -> list[list[float]]:
    """The coefficients of ∫₀^θ ℓ_i, from θ¹ on, for each node c_i."""
    rows = []
    for i, node in enumerate(c):
        row = [1.0]
        for j, other in enumerate(c):
            if j != i:
                shifted, kept = [0.0, *row], [*row, 0.0]
                row = [(p - other * q) / (node - other) for p, q in zip(shifted, kept, strict=True)]
        rows.append([value / (k + 1) for k, value in enumerate(row)])
    return rows


def polynomial(coefficients: Sequence[float], theta: Time) -> Time:
    """Σ_k coefficients[k] θ^(k + 1)."""
    value: Time = 0.0
    for coefficient in reversed(coefficients):
        value = (value + coefficient) * theta
    return value


def weighted(x: State, weights: Sequence[Time], parts: Sequence[State]) -> State:
    """x + Σ w_i p_i, differentiable in the weights too."""

    def total(x: Tensor, *parts: Tensor) -> Tensor:
        for w, part in zip(weights, parts, strict=True):
            x = x + (w.to(part.real.dtype) if isinstance(w, torch.Tensor) else w) * part
        return x

    return state_map(total, x, *parts)
