"""Functions of an operator as Chebyshev polynomials, with a bound of the error known beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from operators.checks import ConvergenceError, DomainError, FieldError, real_dtype
from operators.laplacian import Complement, Laplacian
from operators.operator import Operator
from operators.recurrence import chebyshev_sums

# A product with the operator for each degree: beyond this, factoring (`Laplacian.solve`) or eigenpairs are cheaper.
MAX_DEGREE = 10_000


class ChebyshevFilter(Operator):
    """p(L) ≈ f(L), the polynomial that interpolates f at the K + 1 Chebyshev points of an interval around the spectrum.

    p(L) x = Σ_k c_k T_k(S) x with S = (2 L − (b + a)) / (b − a), by the three-term recurrence: K products.

    L must be self-adjoint in its own `inner`, in whose norm ‖f(L) − p(L)‖ = max over the spectrum |f − p| ≤ `error_bound`
    (in exact arithmetic; round-off adds about u K Σ|c_k| ‖|L|‖/‖L‖). Gradients flow to x, and to whatever f was made of.
    Where L itself requires none, backward runs the recurrence again and keeps nothing but x: memory O(1) in K; otherwise
    plain autograd records every product. First and second order in both.

    Args:
        operator: L.
        coefficients: c, (K + 1,), or (K + 1, c) with one function a channel.
        interval: (a, b), containing the spectrum of L.
        error_bound: of ‖f(L) − p(L)‖.
        recipe: the function of an operator that built this one; lets it move to another domain.
    """

    coefficients: Tensor

    def __init__(
        self,
        operator: Operator,
        coefficients: Tensor,
        interval: tuple[float, float],
        error_bound: float,
        recipe: Callable[[Operator], ChebyshevFilter] | None = None,
    ) -> None:
        super().__init__()
        self.operator = operator
        self.shape = operator.shape
        self.interval = interval
        self.error_bound = error_bound
        self.recipe = recipe
        self.register_buffer("coefficients", coefficients, persistent=False)

    @property
    def degree(self) -> int:
        """K, the number of products with L."""
        return self.coefficients.shape[0] - 1

    def forward(self, x: Tensor) -> Tensor:
        """p(L) x. Raises DomainError if the interval does not contain the spectrum (not checked inside torch.compile)."""
        c = self.coefficients
        if c.ndim == 2 and x.shape[-1] != c.shape[1]:
            raise FieldError(
                f"this filter has {c.shape[1]} channels, so x must have shape (..., n, {c.shape[1]}), not {tuple(x.shape)}"
            )
        c = c[:, None, None, :] if c.ndim == 2 else c[:, None, None, None]
        return chebyshev_sums(self.operator, x[None], c, self.interval)[0]

    def inner(self, x: Tensor, y: Tensor) -> Tensor:
        """The inner product of L."""
        return self.operator.inner(x, y)

    def adjoint(self) -> ChebyshevFilter:
        """p̄(L): itself for a real function."""
        if not self.coefficients.is_complex():
            return self
        return ChebyshevFilter(self.operator, self.coefficients.conj().resolve_conj(), self.interval, self.error_bound)

    def norm_bound(self) -> float:
        """Σ |c_k| ≥ max |p|."""
        return float(self.coefficients.detach().abs().sum(0).max())

    def on(self, domain: Any) -> ChebyshevFilter:
        """The same function, to the same tolerance, of L on another domain, over that domain's own interval."""
        if self.recipe is None:
            return super().on(domain)  # type: ignore[return-value]
        return self.recipe(self.operator.on(domain))

    def _reference(self) -> Tensor:
        return self.operator._reference()

    def extra_repr(self) -> str:
        return f"degree={self.degree}, interval={self.interval}, error_bound={self.error_bound:.1e}"


def chebyshev_filter(
    L: Operator,
    function: Callable[[Tensor], Tensor],
    *,
    degree: int | None = None,
    tolerance: float | None = None,
    interval: tuple[float, float] | None = None,
) -> ChebyshevFilter:
    """f(L) for any function f of the spectrum, real or complex, fixed or learned.

    `error_bound` is here an estimate: twice the sum of the coefficients that were left out, as far as a fourfold number
    of points sees them. It holds for functions that are smooth at that resolution, not for ones with hidden spikes.

    Args:
        function: from eigenvalues (m,) in float64 to (m,), or to (m, c) with one function a channel.
        degree: K; chosen from the tolerance if absent.
        tolerance: as for `exponential`; ignored where the degree is given.

    Raises:
        ConvergenceError: f is not smooth enough for the tolerance within MAX_DEGREE.
    """
    ends = spectral_interval(L, interval)
    recipe = partial(chebyshev_filter, function=function, degree=degree, tolerance=tolerance)
    if degree is not None:
        if isinstance(degree, bool) or not isinstance(degree, int) or not 0 <= degree <= MAX_DEGREE:
            raise DomainError(f"degree must be an integer from 0 to {MAX_DEGREE}, not {degree!r}")
        with torch.no_grad():
            sizes = coefficients_of(function, 4 * degree + 63, ends).abs()
        return interpolated(L, function, degree, ends, 2 * float(sizes[degree + 1 :].sum(0).max()), recipe)
    wanted = tolerance_of(L, tolerance)
    points, reached = 32, math.inf
    while points <= 4 * MAX_DEGREE:
        with torch.no_grad():
            sizes = coefficients_of(function, points, ends).abs().reshape(points + 1, -1)
        # Beyond half the points the coefficients must be down to the rounding of the transform.
        tails = 2 * sizes.flip(0).cumsum(0).flip(0).amax(1)
        floor = 64 * torch.finfo(torch.float64).eps * float(sizes.sum(0).max())
        limit = max(wanted * float(sizes.sum(0).max()), floor)
        small = (tails[1:] <= limit).nonzero()
        reached = float(tails[1 + points // 4])
        if len(small) and int(small[0]) <= points // 4:
            chosen = int(small[0])
            return interpolated(L, function, chosen, ends, float(tails[chosen + 1]), recipe)
        points *= 2
    raise ConvergenceError(
        f"the filter is not smooth enough: at degree {MAX_DEGREE} the estimated error is {reached:.1e}; "
        "raise the tolerance, give a degree, or smooth the function"
    )


def interpolated(
    L: Operator,
    function: Callable[[Tensor], Tensor],
    degree: int,
    interval: tuple[float, float],
    error_bound: float,
    recipe: Callable[[Operator], ChebyshevFilter],
) -> ChebyshevFilter:
    c = coefficients_of(function, degree, interval)
    precision = real_dtype(L.dtype)
    c = c.to(device=L.device, dtype=precision.to_complex() if c.is_complex() else precision)
    return ChebyshevFilter(L, c, interval, error_bound, recipe)


def coefficients_of(function: Callable[[Tensor], Tensor], degree: int, interval: tuple[float, float]) -> Tensor:
    """Those of the interpolant at the K + 1 roots of T_{K+1}, in float64, by a fast cosine transform.

    Aliasing adds to each what is left out, so the error is at most twice the tail (Trefethen 2013, chapter 4).
    """
    a, b = interval
    m = degree + 1
    angles = math.pi * (torch.arange(m, dtype=torch.float64) + 0.5) / m
    # (1 + cos θ)/2 as a square: no cancellation at the lower end, where a square root would magnify it.
    values = function(a + (b - a) * torch.cos(angles / 2) ** 2)
    if not isinstance(values, Tensor) or values.shape[:1] != (m,) or values.ndim > 2:
        raise DomainError("the filter must map eigenvalues (m,) to a tensor (m,), or (m, c) with one function a channel")
    if not bool(torch.isfinite(values.detach()).all()):
        raise DomainError(f"the function is not finite on the interval ({a:.3g}, {b:.3g}) of the spectrum")
    wide = values.to("cpu", torch.complex128 if values.is_complex() else torch.float64)
    spectrum = torch.fft.fft(torch.cat([wide, wide.flip(0)]), dim=0)[:m]
    phase = torch.polar(torch.ones(m, dtype=torch.float64), -math.pi * torch.arange(m, dtype=torch.float64) / (2 * m))
    c = spectrum * phase.reshape(-1, *[1] * (values.ndim - 1)) / m
    c = c if values.is_complex() else c.real
    return torch.cat([c[:1] / 2, c[1:]])


def degree_for(tail: Callable[[int], float], peak: float, L: Operator, tolerance: float | None) -> int:
    """The least K whose interpolant is within the tolerance: twice the tail, which decreases in K."""
    limit = tolerance_of(L, tolerance) * peak
    if not 2 * tail(MAX_DEGREE) <= limit:
        raise ConvergenceError(
            f"more than {MAX_DEGREE} products with the operator are needed for the error {limit:.1e}: take a shorter time, a "
            "larger tolerance or a tighter interval, or use laplacian.solve(shift, b) or eigenpairs(laplacian, k).filter(...)"
        )
    low, high = 0, MAX_DEGREE
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if 2 * tail(middle) <= limit else (middle + 1, high)
    return low


def tolerance_of(L: Operator, tolerance: float | None) -> float:
    if tolerance is None:
        return 16 * torch.finfo(real_dtype(L.dtype)).eps
    if not 0 < tolerance < 1:
        raise DomainError(f"tolerance must lie in (0, 1), not {tolerance}")
    return tolerance


def spectral_interval(L: Operator, interval: tuple[float, float] | None, positive: bool = False) -> tuple[float, float]:
    """[a, b] ∋ the spectrum of L, of positive length."""
    if L.shape[0] != L.shape[1]:
        raise DomainError(f"a function of an operator needs a square one, not {L.shape}")
    if interval is None:
        if isinstance(L, Complement):
            low, high = (1.0 - end for end in reversed(spectral_interval(L.laplacian, None)))
        else:
            high = L.norm_bound()
            low = 0.0 if isinstance(L, Laplacian) else -high
    else:
        low, high = (float(end) for end in interval)
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise DomainError(
            f"the spectrum's interval must be finite and ascending, not ({low}, {high}): look for NaN in the operator"
        )
    if positive:
        if low < 0:
            raise DomainError(
                f"√L needs a positive semi-definite L, but its interval is ({low:.3g}, {high:.3g}): "
                "give interval=(0, upper bound) if its spectrum is not negative"
            )
        low = 0.0
    # The zero operator, and a point spectrum: any interval around it will do.
    return (low, high) if high - low > 1e-12 * max(abs(low), abs(high)) else (low, low + max(1.0, abs(low)))
