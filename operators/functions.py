"""The flows of heat and waves, and implicit steps, as Chebyshev series of an operator with an error bound known beforehand."""

from __future__ import annotations

import math
from functools import partial

import torch
from scipy.special import ive
from torch import Tensor

from operators.chebyshev import ChebyshevFilter, coefficients_of, degree_for, interpolated, spectral_interval
from operators.checks import DomainError, FieldError, check_field, real_dtype
from operators.operator import Operator
from operators.recurrence import chebyshev_sums


def exponential(
    L: Operator, t: Tensor | float, *, tolerance: float | None = None, interval: tuple[float, float] | None = None
) -> ChebyshevFilter:
    """exp(−t L): the heat flow over the time t.

    On [a, b] the Chebyshev coefficients of e^(−tλ) are 2 e^(−t(a+b)/2) (∓1)ᵏ I_k(z) with z = |t| (b − a)/2, and
    I_(k+1)/I_k decreases in k and is at most z / (k + ½ + √((k + ½)² + z²)) (Amos 1974), so their
    tail is below a geometric series. A t that requires a gradient gets two more degrees, which ∂f/∂t = −λ f needs.

    Args:
        t: a number, a scalar, or (c,) with one time a channel; may require a gradient.
        tolerance: of the error, relative to max |f| on the interval; 16 ulp of L's precision if absent.
        interval: (a, b) containing the spectrum; from `norm_bound()` if absent. A tighter one saves products:
            (0, 1.00001 * laplacian.largest_eigenvalue()).

    Raises:
        ConvergenceError: more than MAX_DEGREE products needed: use Laplacian.solve, or eigenpairs.
    """
    t, (a, b) = _times(L, t), spectral_interval(L, interval)
    longest = float(t.detach().abs().max())
    z = longest * (b - a) / 2
    peak = max(math.exp(min(-float(s) * end, 709.0)) for s in t.detach().reshape(-1) for end in (a, b))

    def tail(degree: int) -> float:
        k = degree + 1
        ratio = z / (k + 0.5 + math.hypot(k + 0.5, z))
        return 2 * peak * float(ive(k, z)) / (1 - ratio)

    degree = degree_for(tail, peak, L, tolerance) + 2 * t.requires_grad
    recipe = partial(exponential, t=t, tolerance=tolerance)
    return interpolated(L, lambda x: torch.exp(-torch.tensordot(x, t, 0)), degree, (a, b), 2 * tail(degree), recipe)


def cosine(
    L: Operator, t: Tensor | float, *, tolerance: float | None = None, interval: tuple[float, float] | None = None
) -> ChebyshevFilter:
    """cos(t √L): the wave equation u″ = −L u with u(0) = x, u′(0) = 0, at the time t.

    On [0, b] the Chebyshev coefficients are 2 (−1)ᵏ J_2k(z) with z = t√b, and Kapteyn's inequality bounds them:
    |J_n(nx)| ≤ (x e^√(1−x²) / (1 + √(1−x²)))ⁿ for x ≤ 1. Arguments and errors as for `exponential`; L must be
    positive semi-definite.
    """
    t, (a, b) = _times(L, t), spectral_interval(L, interval, positive=True)
    z = float(t.detach().abs().max()) * math.sqrt(b)

    def tail(degree: int) -> float:
        size, ratio = _bessel_bound(2 * degree + 2, z)
        return 2 * size / (1 - ratio**2) if ratio < 1 else math.inf

    degree = degree_for(tail, 1.0, L, tolerance) + 2 * t.requires_grad
    recipe = partial(cosine, t=t, tolerance=tolerance)
    return interpolated(L, lambda x: torch.cos(torch.tensordot(x.sqrt(), t, 0)), degree, (a, b), 2 * tail(degree), recipe)


def sine(
    L: Operator, t: Tensor | float, *, tolerance: float | None = None, interval: tuple[float, float] | None = None
) -> ChebyshevFilter:
    """sin(t √L) / √L: the wave equation u″ = −L u with u(0) = 0, u′(0) = x, at the time t; t on the kernel of L.

    On [0, b] the Chebyshev coefficients are ±4 b^-½ Σ_{m ≥ k} J_{2m+1}(t√b). Arguments and errors as for `cosine`;
    the tolerance is relative to max |t|.
    """
    t, (a, b) = _times(L, t), spectral_interval(L, interval, positive=True)
    longest = float(t.detach().abs().max())
    z = longest * math.sqrt(b)

    def tail(degree: int) -> float:
        size, ratio = _bessel_bound(2 * degree + 3, z)
        return 4 / math.sqrt(b) * size / (1 - ratio**2) ** 2 if ratio < 1 else math.inf

    degree = degree_for(tail, longest, L, tolerance) + 2 * t.requires_grad
    f = partial(_sine_over_root, t)
    return interpolated(L, f, degree, (a, b), 2 * tail(degree), partial(sine, t=t, tolerance=tolerance))


def _sine_over_root(t: Tensor, x: Tensor) -> Tensor:
    return t * torch.sinc(torch.tensordot(x.sqrt(), t, 0) / math.pi)


def wave_propagator(
    L: Operator,
    t: Tensor | float,
    u: Tensor,
    v: Tensor,
    *,
    tolerance: float | None = None,
    interval: tuple[float, float] | None = None,
) -> tuple[Tensor, Tensor]:
    """(u, u′) of the wave equation u″ = −L u at the time t, from u(0) = u and u′(0) = v, by one recurrence for all four parts.

    u(t) = cos(t√L) u + sin(t√L)/√L v and u′(t) = −√L sin(t√L) u + cos(t√L) v. Each part errs by at most the tolerance in the
    norm ‖u‖ + ‖v‖/√b, resp. √b ‖u‖ + ‖v‖, with b the end of the interval: waves of every length keep their energy to it. There
    are about t√b/2 products with [u v]. Arguments and errors as for `cosine`; backward in time works as forward.
    """
    check_field(u, L.shape[0], L.dtype, L.device)
    check_field(v, L.shape[0], L.dtype, L.device)
    if u.shape != v.shape:
        raise FieldError(f"u and v are one state, and have shapes {tuple(u.shape)} and {tuple(v.shape)}")
    t, ends = _times(L, t), _interval_of(L, interval)
    if t.ndim:
        raise DomainError(f"a wave is propagated over one time, not {t.numel()}")

    def parts(x: Tensor) -> Tensor:
        root = x.sqrt()
        return torch.stack([torch.cos(t * root), _sine_over_root(t, x), -root * torch.sin(t * root)], dim=1)

    c = coefficients_of(parts, wave_degree(L, t, tolerance=tolerance, interval=interval), ends)
    c = torch.stack([c[:, :2], torch.stack([c[:, 2], c[:, 0]], dim=1)], dim=1)[..., None]
    new = chebyshev_sums(L, torch.stack([u, v]), c.to(L.device, real_dtype(L.dtype)), ends)
    return new[0], new[1]


def wave_degree(
    L: Operator, t: Tensor | float, *, tolerance: float | None = None, interval: tuple[float, float] | None = None
) -> int:
    """The number of products that `wave_propagator` takes."""
    t, (_, b) = _times(L, t), _interval_of(L, interval)
    z = float(t.detach().abs().max()) * math.sqrt(b)

    def tail(degree: int) -> float:
        # Of the cosine, and √b times that of the sine: λ/√b times it adds a degree.
        (even, q), (odd, r) = _bessel_bound(2 * degree + 2, z), _bessel_bound(max(1, 2 * degree + 1), z)
        return max(2 * even / (1 - q**2), 4 * odd / (1 - r**2) ** 2) if max(q, r) < 1 else math.inf

    return degree_for(tail, 1.0, L, tolerance) + 2 * t.requires_grad


def _interval_of(L: Operator, interval: tuple[float, float] | None) -> tuple[float, float]:
    return spectral_interval(L, interval, positive=True)


def resolvent(
    L: Operator, s: Tensor | float, *, tolerance: float | None = None, interval: tuple[float, float] | None = None
) -> ChebyshevFilter:
    """(I + s L)⁻¹: an implicit Euler step of length s, by about √(s λ̂) products and no factorisation.

    With 1 + s λ = α + β σ on σ ∈ [−1, 1] and ρ = α/|β| + √(α²/β² − 1), the Chebyshev coefficients are
    2 (∓1/ρ)ᵏ / √(α² − β²), so the tail is a geometric series. Arguments and errors as for `exponential`.

    Raises:
        DomainError: 1 + s λ is not positive on the whole interval, as for a negative s.
    """
    s, (a, b) = _times(L, s), spectral_interval(L, interval)
    ends = [(1 + float(v) * a, 1 + float(v) * b) for v in s.detach().reshape(-1)]
    least = min(min(end) for end in ends)
    if not least > 0:
        raise DomainError(f"1 + s λ reaches {least:.3g} on the interval ({a:.3g}, {b:.3g}): the resolvent needs s ≥ 0 there")

    def tail(degree: int) -> float:
        worst = 0.0
        for low, high in ends:
            # √(α² − β²) = √(low·high), and 1/ρ = (√high − √low)/(√high + √low).
            inverse = abs(math.sqrt(high) - math.sqrt(low)) / (math.sqrt(high) + math.sqrt(low))
            worst = max(worst, 2 * inverse ** (degree + 1) / ((1 - inverse) * math.sqrt(low * high)))
        return worst

    degree = degree_for(tail, 1 / least, L, tolerance)
    # ∂f/∂s = −λ f² has a double pole, so its coefficients fall more slowly, like k ρ⁻ᵏ.
    degree += (2 + degree // 8) * s.requires_grad
    recipe = partial(resolvent, s=s, tolerance=tolerance)
    return interpolated(L, lambda x: 1 / (1 + torch.tensordot(x, s, 0)), degree, (a, b), 2 * tail(degree), recipe)


def _bessel_bound(n: int, z: float) -> tuple[float, float]:
    """Kapteyn's bound of |J_n(z)|, and an upper bound of the ratio of consecutive such bounds; (1, 1) where z ≥ n."""
    x = z / n
    if x >= 1:
        return 1.0, 1.0
    root = math.sqrt(1 - x * x)
    ratio = x / (1 + root)
    return (ratio * math.exp(root)) ** n, ratio


def _times(L: Operator, t: Tensor | float) -> Tensor:
    times = (
        t if isinstance(t, Tensor) else torch.as_tensor(t, dtype=torch.complex128 if isinstance(t, complex) else torch.float64)
    )
    if times.is_complex() or times.ndim > 1 or times.numel() == 0 or not bool(torch.isfinite(times.detach()).all()):
        raise DomainError(f"a time or shift must be a finite real number, or (c,) of them with one a channel, not {t!r}")
    return times.to("cpu", torch.float64)
