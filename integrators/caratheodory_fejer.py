"""Best rational approximations of the exponential on the negative axis, and the flow of a diffusion by a few solves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from integrators.fixed import FixedStep
from integrators.integrator import CountedRightHandSide, Split
from integrators.method import Carry, Trial
from integrators.solution import State, Time
from integrators.state import number, parts_of, state_map

Array = NDArray[Any]

DEGREES = range(2, 15)
HIGHEST = 3


@dataclass(frozen=True)
class CaratheodoryFejer(FixedStep):
    """x' = r(hG) x for a linear dx/dt = G x, with r the best rational approximation of exp on (−∞, 0].

    r(z) = r_∞ + Σ_j w_j / (1 − z/z_j) costs a solve with I − (h/z_j) G for each pole z_j, at complex shifts; for real states one
    of each conjugate pair will do. Its error falls as 9.28903^−n in the degree n, however stiff G and however long the step
    (Trefethen, Weideman and Schmelzer 2006, BIT 46; poles by the Carathéodory–Fejér method). G must be self-adjoint in some
    inner product and negative semi-definite, and say so: `linear.self_adjoint = True`.

    Args:
        tol: a step errs by at most tol · ‖x‖ in that inner product, k steps by k · tol; it chooses n, from 2 to 14.
        dt: the largest step; the default takes one to each output time, and evenly spaced ones share the factors.

    Raises:
        TypeError: G does not say that it is self-adjoint.
        ValueError: time runs backwards, or the tolerance is below round-off.
    """

    order: ClassVar[float] = math.inf

    dt: float = math.inf
    tol: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.tol < 1:
            raise ValueError(f"tol must lie in (0, 1), not {self.tol}")

    def prepare(self, f: CountedRightHandSide, t: float, x0: State) -> Any:
        split = Split(f, "CaratheodoryFejer", whole=True)
        if getattr(split.linear, "self_adjoint", None) is not True:
            raise TypeError(
                f"CaratheodoryFejer approximates exp on (−∞, 0] only, and the linear part of {type(f.f).__name__} does not say "
                "that it is self-adjoint and negative semi-definite: use Exponential, or, if it is, give it self_adjoint = True"
            )
        split.check(t, x0)
        degree = degree_for(self.tol, parts_of(x0)[0].dtype, (0,))
        keep_factors(split, fitted(degree), x0)
        return split, degree

    def step(self, f: tuple[Split, int], t: Time, x: State, h: Time) -> State:
        split, degree = f
        return rational_sum(split, h, [x], fitted(degree))

    def interpolate(self, f: Any, t: Time, h: Time, carry: Carry, trial: Trial, theta: Time) -> State:
        # A cubic knows nothing of a step that may be the whole solve; a shorter step does.
        return self.step(f, t, carry[0], theta * h)


@dataclass(frozen=True, eq=False)
class Rational:
    """φ_k(z) ≈ r_k(z) = constant_k + Σ_j w_kj / (1 − z/z_j) on (−∞, 0], with common poles, for k = 0, ..., 3.

    Attributes:
        poles: z_j in the closed upper half plane, and so for the weights; their conjugates are understood.
        weights: w_kj, (4, poles).
        constant: r_0(∞); the other φ_k vanish there.
        errors: max (1 + |z|) |φ_k − r_k| for k ≥ 1, so that h N may be as stiff as G x; max |exp − r_0| for k = 0.
    """

    poles: tuple[complex, ...]
    weights: Array
    constant: float
    errors: tuple[float, ...]


def rational_sum(split: Split, h: Time, vectors: Sequence[State], fit: Rational) -> State:
    """Σ_k φ_k(hG) v_k, by one solve for each pole (each pair of poles, if all is real), whatever the number of vectors.

    Raises:
        ValueError: h is negative: exp(hG) is then unbounded.
    """
    if number(h) < 0:
        raise ValueError(
            "rational exponentials of a diffusion hold forwards in time only: solving it backwards is ill-posed (noise of "
            "wave number k grows as exp(k²|t|)); reverse t"
        )
    real = not any(part.is_complex() for v in vectors for part in parts_of(v))
    total = state_map(lambda part: fit.constant * part, vectors[0])
    for j, pole in enumerate(fit.poles):
        for z, w in _conjugates(pole, fit.weights[: len(vectors), j], both=not real):
            b = _weighted(vectors, w)
            shift = h.to(torch.complex128) / z if isinstance(h, Tensor) and isinstance(z, complex) else h / z
            y = split.solve(shift, b)
            pair = real and isinstance(z, complex)
            total = state_map(lambda a, part: a + 2 * part.real if pair else a + part, total, y)  # noqa: B023
    return total


def keep_factors(split: Split, fit: Rational, x0: State, lengths: int = 1) -> None:
    """Tell a linear part that has a `keep_factors(count)` how many different shifts will come in turn: it would forget some."""
    keep = getattr(split.linear, "keep_factors", None)
    if keep is not None:
        complex_valued = any(part.is_complex() for part in parts_of(x0))
        keep(lengths * sum(2 if complex_valued and pole.imag else 1 for pole in fit.poles))


def _conjugates(pole: complex, weights: Array, both: bool) -> list[tuple[complex | float, list[complex] | list[float]]]:
    if pole.imag == 0:
        return [(pole.real, weights.real.tolist())]
    upper: tuple[complex, list[complex]] = (pole, weights.tolist())
    return [upper, (pole.conjugate(), weights.conj().tolist())] if both else [upper]


def _weighted(vectors: Sequence[State], weights: Sequence[complex]) -> State:
    def mixed(*parts: Tensor) -> Tensor:
        total = weights[0] * parts[0]
        for w, part in zip(weights[1:], parts[1:], strict=True):
            total = total + w * part
        return total

    return state_map(mixed, *vectors)


def degree_for(tol: float, dtype: torch.dtype, orders: Sequence[int]) -> int:
    """The least degree whose errors in the φ_k asked for are within tol."""
    floor = 8 * torch.finfo(dtype).eps
    for degree in DEGREES:
        if 9.28903**-degree > 4 * tol:  # No approximation of that degree is so good.
            continue
        if max(fitted(degree).errors[k] for k in orders) <= tol and tol >= floor:
            return degree
    least = max(floor, max(fitted(DEGREES[-1]).errors[k] for k in orders))
    raise ValueError(f"tol = {tol:.1e} is below what rational approximations reach in {dtype}: take tol ≥ {least:.1e}")


@cache
def fitted(degree: int) -> Rational:
    """The approximations of a degree: poles of the best one of exp, and the best weights for each φ_k with these."""
    poles = _poles(degree)
    z = -np.concatenate([[0.0], np.logspace(-5, 5, 800)])
    simple = 1 / (1 - z[:, None] / poles)
    # Re(w / (1 − z/z_j)), twice for a pair.
    twice = np.where(poles.imag > 0, 2.0, 1.0)
    basis = np.concatenate([twice * simple.real, -(twice * simple.imag)[:, poles.imag > 0]], axis=1)
    weights, errors, constant = [], [], 0.0
    for k in range(HIGHEST + 1):
        columns = np.concatenate([basis, np.ones((len(z), 1))], axis=1) if k == 0 else basis
        solution, error = _minimax(columns, phi(k, z), np.ones_like(z) if k == 0 else 1 - z)
        if k == 0:
            constant, solution = float(solution[-1]), solution[:-1]
        w = np.array(solution[: len(poles)], dtype=complex)
        w[poles.imag > 0] += 1j * np.array(solution[len(poles) :])
        weights.append(w)
        errors.append(error)
    return Rational(tuple(complex(p) for p in poles), np.array(weights), constant, tuple(errors))


def _minimax(columns: Array, values: Array, scale: Array) -> tuple[Array, float]:
    """min max |scale (columns s − values)|, by Lawson's iteration; (s, the maximum)."""
    weight, best, error = scale.copy(), np.zeros(columns.shape[1]), math.inf
    for _ in range(24):
        solution = np.linalg.lstsq(columns * weight[:, None], values * weight, rcond=None)[0]
        residual = np.abs(columns @ solution - values) * scale
        if residual.max() < error:
            best, error = solution, float(residual.max())
        weight = weight * np.sqrt(residual / residual.max() + 1e-3)
        weight = weight / (weight / scale).max()
    return best, 1.02 * error  # Between the points of the grid it may be larger by this.


def _poles(degree: int, terms: int = 75, points: int = 1024, scale: float = 9.0) -> Array:
    """The poles in the closed upper half plane of the Carathéodory–Fejér approximant (its error is within 1e-5 of the best).

    z = scale (x − 1)/(x + 1) takes [−1, 1] to (−∞, 0]. The Chebyshev coefficients a_k, k ≥ 1, of exp z(x) form a Hankel matrix,
    and the zeros q outside the unit circle of its (degree + 1)-th singular vector are the poles in w, x = (w + 1/w)/2.
    """
    x = np.cos(2 * np.pi * np.arange(points) / points)
    with np.errstate(divide="ignore"):
        values = np.exp(scale * (x - 1) / (x + 1))
    a = np.fft.fft(values).real[1 : terms + 1] / points
    index = np.add.outer(np.arange(terms), np.arange(terms))
    hankel = np.where(index < terms, a[np.minimum(index, terms - 1)], 0.0)
    vector = np.linalg.svd(hankel)[2][degree]
    roots = np.roots(vector)
    q = roots[np.abs(roots) > 1]
    if len(q) != degree:
        raise RuntimeError(f"{len(q)} poles were found for a rational approximation of degree {degree}: report this platform")
    z = scale * (q - 1) ** 2 / (q + 1) ** 2
    z = np.where(np.abs(z.imag) < 1e-10 * np.abs(z), z.real, z)
    upper: Array = z[z.imag >= 0]
    return upper[np.argsort(upper.imag)]


def phi(k: int, z: Array) -> Array:
    """φ_0 = exp and φ_(k+1)(z) = (φ_k(z) − 1/k!)/z, elementwise for real z ≤ 0, by its series near zero."""
    near = np.abs(z) < 1
    total = term = np.full(z.shape, 1 / math.factorial(k))
    for m in range(1, 25):
        term = term * np.where(near, z, 0.0) / (m + k)
        total = total + term
    far = np.where(near, 1.0, z)
    value = np.exp(far)
    for m in range(k):
        value = (value - 1 / math.factorial(m)) / far
    return np.where(near, total, value)
