"""How stiff an equation is at a state: the spectral radius of ∂f/∂x, from values of f alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from integrators.integrator import Evaluate
from integrators.solution import State, Time
from integrators.state import combine, noise_like, parts_of, scaled, subtract, unbatched

SAFETY = 1.2
AGREED = 0.01
MOST = 50


@dataclass(frozen=True)
class SpectralRadius:
    """An estimate of ρ(∂f/∂x), and where the dominant eigenvalue lies.

    Attributes:
        value: the spectral radius, 1.2 times the estimate, as in the published code; NaN if f is not finite around.
        vector: the last iterate, of length 1: where to begin the next estimate.
        quotient: its Rayleigh quotient ⟨v, Jv⟩ / ⟨v, v⟩.
        turn: Re⟨v, J²v⟩ / (‖v‖ ‖J²v‖), the cosine of twice the angle of the dominant eigenvalues: 1 for a symmetric J and
            −1 for a skew one, whatever v, or for a wave written as two equations of first order.
        evaluations: how many values of f it took.
    """

    value: float
    vector: State
    quotient: complex
    turn: float
    evaluations: int

    @property
    def oscillates(self) -> bool:
        """Whether the dominant eigenvalues are nearer to the imaginary axis than to the real one."""
        return self.value > 0 and self.turn < 0

    @property
    def dissipates(self) -> bool:
        """Whether the dominant eigenvalues are nearer to the negative real axis than to the rest."""
        return self.value > 0 and self.turn >= 0 and self.quotient.real < 0


@torch.no_grad()
def spectral_radius(
    f: Evaluate, t: Time, x: State, *, start: SpectralRadius | State | None = None, slope: State | None = None
) -> SpectralRadius:
    """A bound of the spectral radius of J = ∂f/∂x at (t, x), by a nonlinear power iteration.

    v ← Jv / ‖v‖ with Jv = (f(t, x + δv) − f(t, x)) / δ, until √(‖J²v‖ / ‖v‖) agrees within 1 % over three iterates.
    The first v is the same random vector every time. No gradient is recorded: a method that chooses by it treats it as a
    constant.

    Args:
        f: the right-hand side.
        t, x: where.
        start: an earlier estimate near by, or its vector, to begin from; one evaluation then tells that little has changed.
        slope: f(t, x), if it is known.

    Source: Sommeijer, Shampine and Verwer (1997), RKC: an explicit solver for parabolic PDEs, J. Comput. Appl. Math. 88,
    section 3.
    """
    x = _detached(x)
    evaluations = 0
    if slope is None:
        slope, evaluations = f(t, x), 1
    first = parts_of(x)[0]
    size = _norm(x)
    delta = math.sqrt(torch.finfo(first.dtype).eps) * (size or 1.0)
    noise = 4 * torch.finfo(first.dtype).eps * _norm(slope) / delta
    known = start.value / SAFETY if isinstance(start, SpectralRadius) else 0.0
    v = start.vector if isinstance(start, SpectralRadius) else start
    fresh = v is None
    v = noise_like(x) if v is None else v
    v = _unit(v)
    earlier, ratio, radius, last = v, 0.0, known, known
    quotient, turn = 0j, start.turn if isinstance(start, SpectralRadius) else 1.0
    for _ in range(MOST):
        image = scaled(subtract(f(t, combine(x, delta, [1.0], [v])), slope), 1.0 / delta)
        evaluations += 1
        before, ratio = ratio, _norm(image)
        if not math.isfinite(ratio + noise):
            return SpectralRadius(math.nan, v, complex(math.nan), math.nan, evaluations)
        if ratio <= noise:
            ratio = 0.0  # Nothing but round-off.
        if ratio == 0.0:
            if fresh:
                return SpectralRadius(SAFETY * before, v, quotient, turn, evaluations)
            v, fresh = _unit(noise_like(x)), True  # An old direction, which now leads nowhere.
            continue
        quotient = _inner(v, image)
        image = scaled(image, 1.0 / ratio)
        if before == 0 and abs(ratio - known) <= AGREED * known:
            return SpectralRadius(SAFETY * ratio, image, quotient, turn, evaluations)
        if before > 0:
            turn = _inner(earlier, image).real
            older, last, radius = last, radius, math.sqrt(ratio * before)
            # Two, because every other iterate of a wave tells of positions, and those between of velocities.
            if max(abs(radius - last), abs(radius - older)) <= AGREED * radius:
                return SpectralRadius(SAFETY * radius, image, quotient, turn, evaluations)
        earlier, v = v, image
    return SpectralRadius(SAFETY * radius, v, quotient, turn, evaluations)


def _detached(x: State) -> State:
    return tuple(part.detach() for part in x) if isinstance(x, tuple) else x.detach()


def _norm(x: State) -> float:
    unbatched(x)
    return math.hypot(*(float(torch.linalg.vector_norm(part)) for part in parts_of(x)))


def _unit(x: State) -> State:
    return scaled(x, 1.0 / (_norm(x) or 1.0))


def _inner(x: State, y: State) -> complex:
    pairs = zip(parts_of(x), parts_of(y), strict=True)
    return sum((complex(torch.vdot(a.reshape(-1), b.reshape(-1))) for a, b in pairs), 0j)
