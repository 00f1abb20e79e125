"""Radau IIA of order 5: the most accurate of the implicit methods here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from integrators.implicit import polynomial, weighted
from integrators.integrator import CountedRightHandSide, Split
from integrators.ladder import Ladder
from integrators.method import Carry, Trial
from integrators.solution import NotConverged, State, Time
from integrators.stage import Stages
from integrators.state import combine, parts_of, state_map, subtract

R6 = 6**0.5
A = (
    ((88 - 7 * R6) / 360, (296 - 169 * R6) / 1800, (-2 + 3 * R6) / 225),
    ((296 + 169 * R6) / 1800, (88 + 7 * R6) / 360, (-2 - 3 * R6) / 225),
    ((16 - R6) / 36, (16 + R6) / 36, 1 / 9),
)
C = ((4 - R6) / 10, (4 + R6) / 10, 1.0)
# The eigenvalues of A⁻¹ are the roots of λ³ − 9λ² + 36λ − 60 = 0.
REAL = 3 + 3 ** (2 / 3) - 3 ** (1 / 3)
PAIR = complex(3 - (3 ** (2 / 3) - 3 ** (1 / 3)) / 2, (3 ** (7 / 6) + 3 ** (5 / 6)) / 2)
# ê = (b̂ − b) A⁻¹ γ₀ of the formula b̂ of order 3 that also uses γ₀ h f(t, x), γ₀ = 1/λ (Hairer and Wanner II, IV.8).
E = ((-13 - 7 * R6) / (3 * REAL), (-13 + 7 * R6) / (3 * REAL), -1 / (3 * REAL))
# So that the estimate is above |R(z) − e^z| for every z ≤ 0.
D = 0.17
# That estimate hardly sees components so stiff that f alone determines them, and outputs inside a step are cubics in them too. So
# much of the θ³ term bounds these, and elsewhere shortens no step (it is 1e-4 h³ |d³x/dt³| against 8e-4 h⁴ |d⁴x/dt⁴|).
CUBIC = 6e-4


def eigenvectors() -> tuple[list[list[complex]], list[list[complex]]]:
    """T with A T = T diag(1/λ), its last row ones, and T⁻¹."""
    columns = []
    for eigenvalue in (REAL, PAIR, PAIR.conjugate()):
        mu = 1 / eigenvalue
        (a, b, c), (d, e, f) = A[0], A[1]
        determinant = (a - mu) * (e - mu) - b * d
        columns.append([(b * f - c * (e - mu)) / determinant, (c * d - (a - mu) * f) / determinant, 1.0])
    T = torch.tensor(columns, dtype=torch.complex128).T
    return T.tolist(), torch.linalg.inv(T).tolist()


T, INVERSE = eigenvectors()


@dataclass(frozen=True)
class RadauIIA5(Ladder):
    """Y_i = x + h Σ_j a_ij f(t + c_j h, Y_j), x' = Y₃: collocation at three Radau points (Hairer and Wanner II, IV.5 and IV.8).

    Order 5, L-stable, stiffly accurate; stability function (1 + 2z/5 + z²/20) / (1 − 3z/5 + 3z²/20 − z³/60). With A = T Λ⁻¹ T⁻¹
    a linear f costs one real solve and one complex solve, with I − (h/λ) G; any other f is solved by Newton's method for the
    three stages at once, preconditioned in the same way by its linear part.

    The error estimate is D (y − x), y = x + Σ ê_i (Y_i − x) + γ₀h f(t, y), one more solve: O(h⁴), and with D such that for
    dx/dt = λx it bounds the true error of a step for every λ ≤ 0. Outputs inside a step are those of the collocation
    polynomial, of order 3. The stages are of order 3 too, which shows on forced stiff equations (Prothero and Robinson 1974).

    Args:
        rtol, atol: relative and absolute tolerance of the local error.
        dt: the largest step, for fixed steps instead.
        newton: how a nonlinear f is solved.
    """

    order: ClassVar[int] = 5
    error_order: ClassVar[int] = 4
    affine: ClassVar[bool] = False

    def attempt(self, f: Stages, t: Time, h: Time, carry: Carry, before: float) -> Trial:
        x = carry[0]
        stages = shifted(lambda s, b: f.solve(t, s, b, b), h, (x, x, x)) if f.linear else self._newton(f, t, x, h)
        z = tuple(subtract(y, x) for y in stages)
        error = None
        if self.adapts:
            y = f.solve(t, h / REAL, combine(x, 1.0, E, z), x)
            error = state_map(_larger, subtract(y, x), _mixed([row[2] for row in BASIS], z))
        return Trial((stages[2],), error, z)

    def interpolate(self, f: Stages, t: Time, h: Time, carry: Carry, trial: Trial, theta: Time) -> State:
        return weighted(carry[0], [polynomial(row, theta) for row in BASIS], trial.stages)

    def _newton(self, f: Stages, t: Time, x: State, h: Time) -> tuple[State, ...]:
        """The stages for any f, by Newton's method for Y = 1⊗x + h (A⊗I) f(Y)."""
        stack = _Stack(f.counted, h)
        start = stack.flat((x, x, x))
        rtol, atol = (self.rtol, self.atol) if self.adapts else (None, None)
        linear: Any = None if f.split is None else _Shifted(f.split, stack)
        newton = replace(self.newton, dense=3 * self.newton.dense)
        stages = newton.stages(stack, 0.0, start, linear, rtol=rtol, atol=atol)  # type: ignore[arg-type]
        one: Any = f.equation
        try:
            found = stages.solve(t, h, start, start)
        except NotConverged as error:
            one.failures, one.failure = one.failures + 1, str(error)
            raise
        return stack.three(found)


class _Stack:
    """(Y₁, Y₂, Y₃) ↦ Σ_j a_ij f(t + c_j h, Y_j), with the evaluations of f counted."""

    def __init__(self, counted: CountedRightHandSide, h: Time) -> None:
        self.counted, self.h = counted, h
        self.stats, self.device = counted.stats, counted.device

    def __call__(self, t: Time, Y: State) -> State:
        return self._of(self.counted, t, Y)

    def f(self, t: Time, Y: State) -> State:
        """The same, uncounted."""
        return self._of(self.counted.f, t, Y)

    def blame(self, t: Time, Y: State) -> str:
        return self.counted.blame(t, self.three(Y)[0])

    def _of(self, f: Any, t: Time, Y: State) -> State:
        slopes = [f(t + c * self.h, y) for c, y in zip(C, self.three(Y), strict=True)]
        return self.flat(tuple(_mixed(row, slopes) for row in A))

    def flat(self, stages: tuple[State, ...]) -> State:
        """The stages as one state."""
        return tuple(part for y in stages for part in parts_of(y))

    def three(self, Y: State) -> tuple[State, ...]:
        """The stages of one state."""
        if not self.counted.is_tuple:
            return parts_of(Y)
        n = len(Y) // 3
        return tuple(Y[i * n : (i + 1) * n] for i in range(3))


class _Shifted:
    """(I − h A⊗G)⁻¹, for the preconditioner of Newton's method."""

    def __init__(self, split: Split, stack: _Stack) -> None:
        self.split, self.stack = split, stack

    def solve(self, h: Tensor, Y: State) -> State:
        return self.stack.flat(shifted(self.split.solve, h.item(), self.stack.three(Y)))


def _larger(error: Tensor, cubic: Tensor) -> Tensor:
    return torch.maximum(D * error.abs(), CUBIC * cubic.abs())


def shifted(solve: Callable[[Any, State], State], h: Time, V: Sequence[State]) -> tuple[State, ...]:
    """(I − h A⊗G)⁻¹ V = (T⊗I) (I − h Λ⁻¹⊗G)⁻¹ (T⁻¹⊗I) V, where `solve(s, b)` is (I − s G)⁻¹ b."""
    u = solve(h / REAL, _mixed([w.real for w in INVERSE[0]], V))
    pair = solve(h / PAIR, _mixed(INVERSE[1], V))
    kinds = [part.is_complex() for part in parts_of(V[0])]
    if not any(kinds):
        # The third system is the conjugate of the second.
        return tuple(
            state_map(lambda p, q, a=a.real, b=2 * b: a * p + (b.real * q.real - b.imag * q.imag), u, pair) for a, b, _ in T
        )
    other = solve(h / PAIR.conjugate(), _mixed(INVERSE[2], V))
    sums = [parts_of(_mixed(row, (u, pair, other))) for row in T]
    kept = [tuple(p if kind else p.real for p, kind in zip(parts, kinds, strict=True)) for parts in sums]
    return tuple(parts if isinstance(V[0], tuple) else parts[0] for parts in kept)


def _mixed(weights: Sequence[complex], states: Sequence[State]) -> State:
    """Σ w_i x_i."""
    return state_map(lambda *parts: sum(w * part for w, part in zip(weights, parts, strict=True)), *states)


def _basis() -> list[list[float]]:
    """The coefficients, from θ¹ on, of the cubics that are 1 at c_i and 0 at 0 and the other nodes."""
    rows = []
    for i, node in enumerate(C):
        p, q = (other for j, other in enumerate(C) if j != i)
        scale = node * (node - p) * (node - q)
        rows.append([p * q / scale, -(p + q) / scale, 1 / scale])
    return rows


BASIS = _basis()
