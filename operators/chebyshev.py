"""Functions of an operator as Chebyshev polynomials, with a bound of the error known beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from scipy.special import ive
from torch import Tensor

from operators.checks import ConvergenceError, DomainError, FieldError, real_dtype
from operators.laplacian import Complement, Laplacian
from operators.operator import Operator

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
        x = x.to(torch.promote_types(x.dtype, c.dtype))
        if any(tensor.requires_grad for tensor in [*self.operator.parameters(), *self.operator.buffers()]):
            return _combine(_terms(self.operator, x, self.interval, self.degree), c)
        result: Tensor = _Polynomial.apply(x, c, self.operator, self.interval, False)  # type: ignore[no-untyped-call]
        return result

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
    t, (a, b) = _times(L, t), _interval(L, interval)
    longest = float(t.detach().abs().max())
    z = longest * (b - a) / 2
    peak = max(math.exp(min(-float(s) * end, 709.0)) for s in t.detach().reshape(-1) for end in (a, b))

    def tail(degree: int) -> float:
        k = degree + 1
        ratio = z / (k + 0.5 + math.hypot(k + 0.5, z))
        return 2 * peak * float(ive(k, z)) / (1 - ratio)

    degree = _degree(tail, peak, L, tolerance) + 2 * t.requires_grad
    recipe = partial(exponential, t=t, tolerance=tolerance)
    return _interpolated(L, lambda x: torch.exp(-torch.tensordot(x, t, 0)), degree, (a, b), 2 * tail(degree), recipe)


def cosine(
    L: Operator, t: Tensor | float, *, tolerance: float | None = None, interval: tuple[float, float] | None = None
) -> ChebyshevFilter:
    """cos(t √L): the wave equation u″ = −L u with u(0) = x, u′(0) = 0, at the time t.

    On [0, b] the Chebyshev coefficients are 2 (−1)ᵏ J_2k(z) with z = t√b, and Kapteyn's inequality bounds them:
    |J_n(nx)| ≤ (x e^√(1−x²) / (1 + √(1−x²)))ⁿ for x ≤ 1. Arguments and errors as for `exponential`; L must be
    positive semi-definite.
    """
    t, (a, b) = _times(L, t), _interval(L, interval, positive=True)
    z = float(t.detach().abs().max()) * math.sqrt(b)

    def tail(degree: int) -> float:
        size, ratio = _bessel_bound(2 * degree + 2, z)
        return 2 * size / (1 - ratio**2) if ratio < 1 else math.inf

    degree = _degree(tail, 1.0, L, tolerance) + 2 * t.requires_grad
    recipe = partial(cosine, t=t, tolerance=tolerance)
    return _interpolated(L, lambda x: torch.cos(torch.tensordot(x.sqrt(), t, 0)), degree, (a, b), 2 * tail(degree), recipe)


def sine(
    L: Operator, t: Tensor | float, *, tolerance: float | None = None, interval: tuple[float, float] | None = None
) -> ChebyshevFilter:
    """sin(t √L) / √L: the wave equation u″ = −L u with u(0) = 0, u′(0) = x, at the time t; t on the kernel of L.

    On [0, b] the Chebyshev coefficients are ±4 b^-½ Σ_{m ≥ k} J_{2m+1}(t√b). Arguments and errors as for `cosine`;
    the tolerance is relative to max |t|.
    """
    t, (a, b) = _times(L, t), _interval(L, interval, positive=True)
    longest = float(t.detach().abs().max())
    z = longest * math.sqrt(b)

    def tail(degree: int) -> float:
        size, ratio = _bessel_bound(2 * degree + 3, z)
        return 4 / math.sqrt(b) * size / (1 - ratio**2) ** 2 if ratio < 1 else math.inf

    degree = _degree(tail, longest, L, tolerance) + 2 * t.requires_grad
    f = partial(_sine_over_root, t)
    return _interpolated(L, f, degree, (a, b), 2 * tail(degree), partial(sine, t=t, tolerance=tolerance))


def _sine_over_root(t: Tensor, x: Tensor) -> Tensor:
    return t * torch.sinc(torch.tensordot(x.sqrt(), t, 0) / math.pi)


def resolvent(
    L: Operator, s: Tensor | float, *, tolerance: float | None = None, interval: tuple[float, float] | None = None
) -> ChebyshevFilter:
    """(I + s L)⁻¹: an implicit Euler step of length s, by about √(s λ̂) products and no factorisation.

    With 1 + s λ = α + β σ on σ ∈ [−1, 1] and ρ = α/|β| + √(α²/β² − 1), the Chebyshev coefficients are
    2 (∓1/ρ)ᵏ / √(α² − β²), so the tail is a geometric series. Arguments and errors as for `exponential`.

    Raises:
        DomainError: 1 + s λ is not positive on the whole interval, as for a negative s.
    """
    s, (a, b) = _times(L, s), _interval(L, interval)
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

    degree = _degree(tail, 1 / least, L, tolerance)
    # ∂f/∂s = −λ f² has a double pole, so its coefficients fall more slowly, like k ρ⁻ᵏ.
    degree += (2 + degree // 8) * s.requires_grad
    recipe = partial(resolvent, s=s, tolerance=tolerance)
    return _interpolated(L, lambda x: 1 / (1 + torch.tensordot(x, s, 0)), degree, (a, b), 2 * tail(degree), recipe)


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
    ends = _interval(L, interval)
    recipe = partial(chebyshev_filter, function=function, degree=degree, tolerance=tolerance)
    if degree is not None:
        if isinstance(degree, bool) or not isinstance(degree, int) or not 0 <= degree <= MAX_DEGREE:
            raise DomainError(f"degree must be an integer from 0 to {MAX_DEGREE}, not {degree!r}")
        with torch.no_grad():
            sizes = _coefficients(function, 4 * degree + 63, ends).abs()
        return _interpolated(L, function, degree, ends, 2 * float(sizes[degree + 1 :].sum(0).max()), recipe)
    wanted = _tolerance(L, tolerance)
    points, reached = 32, math.inf
    while points <= 4 * MAX_DEGREE:
        with torch.no_grad():
            sizes = _coefficients(function, points, ends).abs().reshape(points + 1, -1)
        # Beyond half the points the coefficients must be down to the rounding of the transform.
        tails = 2 * sizes.flip(0).cumsum(0).flip(0).amax(1)
        floor = 64 * torch.finfo(torch.float64).eps * float(sizes.sum(0).max())
        limit = max(wanted * float(sizes.sum(0).max()), floor)
        small = (tails[1:] <= limit).nonzero()
        reached = float(tails[1 + points // 4])
        if len(small) and int(small[0]) <= points // 4:
            chosen = int(small[0])
            return _interpolated(L, function, chosen, ends, float(tails[chosen + 1]), recipe)
        points *= 2
    raise ConvergenceError(
        f"the filter is not smooth enough: at degree {MAX_DEGREE} the estimated error is {reached:.1e}; "
        "raise the tolerance, give a degree, or smooth the function"
    )


class _Polynomial(torch.autograd.Function):
    """y = Σ c_k T_k(S) x, or with S's plain transpose; linear in x and in c, so it is its own second order too."""

    @staticmethod
    def forward(x: Tensor, c: Tensor, operator: Operator, interval: tuple[float, float], transposed: bool) -> Tensor:
        return _combine(_terms(_Transpose(operator, x) if transposed else operator, x, interval, c.shape[0] - 1), c)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, c, *ctx.rest = inputs
        ctx.save_for_backward(x, c)
        ctx.save_for_forward(x, c)

    @staticmethod
    def jvp(ctx: Any, d_x: Tensor | None, d_c: Tensor | None, *_: None) -> Tensor:
        x, c = ctx.saved_tensors
        pairs = [(one, two) for one, two in ((d_x, c), (x, d_c)) if one is not None and two is not None]
        return torch.stack([_Polynomial.apply(*pair, *ctx.rest) for pair in pairs]).sum(0)  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor, c: Tensor, *rest: Any) -> tuple[Tensor, int]:
        x_dim, c_dim = in_dims[:2]
        if c_dim is None:
            return _Polynomial.apply(x.movedim(x_dim or 0, 0), c, *rest), 0  # type: ignore[no-untyped-call]
        fields = [x] * info.batch_size if x_dim is None else x.movedim(x_dim, 0)
        pairs = zip(fields, c.movedim(c_dim, 0), strict=True)
        return torch.stack([_Polynomial.apply(one, weights, *rest) for one, weights in pairs]), 0  # type: ignore[no-untyped-call]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, c = ctx.saved_tensors
        operator, interval, transposed = ctx.rest
        grad_x = grad_c = None
        if ctx.needs_input_grad[0]:
            grad_x = _Polynomial.apply(grads[0], c.conj().resolve_conj(), operator, interval, not transposed)  # type: ignore[no-untyped-call]
            grad_x = grad_x if x.is_complex() else grad_x.real
        if ctx.needs_input_grad[1]:
            grad_c = _Overlaps.apply(x, grads[0], c.shape, operator, interval, transposed)  # type: ignore[no-untyped-call]
            grad_c = grad_c if c.is_complex() else grad_c.real
        return grad_x, grad_c, None, None, None


class _Overlaps(torch.autograd.Function):
    """o_k = ⟨T_k(S) x, g⟩ = Σ conj(T_k x) g, over all but the channels where each has its own coefficients."""

    @staticmethod
    def forward(
        x: Tensor, g: Tensor, shape: torch.Size, operator: Operator, interval: tuple[float, float], transposed: bool
    ) -> Tensor:
        acting = _Transpose(operator, x) if transposed else operator
        dims = tuple(range(x.ndim - 1)) if len(shape) == 2 else tuple(range(x.ndim))
        return torch.stack([(term.conj() * g).sum(dims) for term in _terms(acting, x, interval, shape[0] - 1)])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, g, *ctx.rest = inputs
        ctx.save_for_backward(x, g)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        x, g = ctx.saved_tensors
        _, operator, interval, transposed = ctx.rest
        (o,) = grads
        grad_x = grad_g = None
        if ctx.needs_input_grad[0]:
            grad_x = _Polynomial.apply(g, o.conj().resolve_conj(), operator, interval, not transposed)  # type: ignore[no-untyped-call]
            grad_x = grad_x if x.is_complex() else grad_x.real
        if ctx.needs_input_grad[1]:
            grad_g = _Polynomial.apply(x, o, operator, interval, transposed)  # type: ignore[no-untyped-call]
            grad_g = grad_g if g.is_complex() else grad_g.real
        return grad_x, grad_g, None, None, None, None


class _Transpose:
    """The plain adjoint of an operator, Aᴴ without any inner product, from one recorded product."""

    def __init__(self, operator: Operator, like: Tensor) -> None:
        with torch.enable_grad():
            self.x = torch.zeros_like(like).requires_grad_()
            self.y = operator(self.x)

    def __call__(self, g: Tensor) -> Tensor:
        return torch.autograd.grad(self.y, self.x, g, retain_graph=True)[0]


def _terms(operator: Callable[[Tensor], Tensor], x: Tensor, interval: tuple[float, float], degree: int) -> Any:
    """T_0(S) x, …, T_K(S) x, one at a time."""
    a, b = interval
    centre, scale = (a + b) / 2, 2 / (b - a)
    yield x
    if degree == 0:
        return
    before, now = x, (operator(x) - centre * x) * scale
    yield now
    for _ in range(degree - 1):
        before, now = now, (operator(now) - centre * now) * (2 * scale) - before
        yield now
    if isinstance(operator, Operator):
        _check_contained(operator, interval, x, now, degree)


def _check_contained(operator: Operator, interval: tuple[float, float], x: Tensor, last: Tensor, degree: int) -> None:
    """Refuse a result that an interval without the whole spectrum spoils: within it |T_K| ≤ 1, beyond it T_K explodes.

    Where T_K(S) x stays small, so does the error: about the same factor times the tail, if f is smooth beyond the end.
    """
    if x.numel() == 0 or torch.compiler.is_compiling() or torch._C._functorch.is_batchedtensor(last):
        return
    with torch.no_grad():
        peak = x.abs().amax(dim=(-2, -1), keepdim=True)
        unit = torch.where(peak > 0, peak, 1.0)
        size, grown = (operator.inner(y / unit, y / unit).real.sqrt() for y in (x, last))
        # Round-off of the bound and of L moves an eigenvalue by some u beyond the end.
        limit = 2 * math.cosh(min(4 * degree * math.sqrt(torch.finfo(x.dtype).eps / 2), 80.0))
        if bool((torch.isfinite(size) & ~(grown <= limit * size)).any()):
            raise DomainError(
                f"the spectrum reaches beyond the interval ({interval[0]:.6g}, {interval[1]:.6g}), where the polynomial "
                f"explodes: if {type(operator).__name__} has changed since, build the filter anew; if you gave an interval, "
                "take (0, 1.00001 * laplacian.largest_eigenvalue()); or the operator is not self-adjoint"
            )


def _combine(terms: Any, c: Tensor) -> Tensor:
    total: Tensor = sum(weight * term for weight, term in zip(c, terms, strict=True))
    return total


def _interpolated(
    L: Operator,
    function: Callable[[Tensor], Tensor],
    degree: int,
    interval: tuple[float, float],
    error_bound: float,
    recipe: Callable[[Operator], ChebyshevFilter],
) -> ChebyshevFilter:
    c = _coefficients(function, degree, interval)
    precision = real_dtype(L.dtype)
    c = c.to(device=L.device, dtype=precision.to_complex() if c.is_complex() else precision)
    return ChebyshevFilter(L, c, interval, error_bound, recipe)


def _coefficients(function: Callable[[Tensor], Tensor], degree: int, interval: tuple[float, float]) -> Tensor:
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


def _degree(tail: Callable[[int], float], peak: float, L: Operator, tolerance: float | None) -> int:
    """The least K whose interpolant is within the tolerance: twice the tail, which decreases in K."""
    limit = _tolerance(L, tolerance) * peak
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


def _bessel_bound(n: int, z: float) -> tuple[float, float]:
    """Kapteyn's bound of |J_n(z)|, and an upper bound of the ratio of consecutive such bounds; (1, 1) where z ≥ n."""
    x = z / n
    if x >= 1:
        return 1.0, 1.0
    root = math.sqrt(1 - x * x)
    ratio = x / (1 + root)
    return (ratio * math.exp(root)) ** n, ratio


def _tolerance(L: Operator, tolerance: float | None) -> float:
    if tolerance is None:
        return 16 * torch.finfo(real_dtype(L.dtype)).eps
    if not 0 < tolerance < 1:
        raise DomainError(f"tolerance must lie in (0, 1), not {tolerance}")
    return tolerance


def _times(L: Operator, t: Tensor | float) -> Tensor:
    times = (
        t if isinstance(t, Tensor) else torch.as_tensor(t, dtype=torch.complex128 if isinstance(t, complex) else torch.float64)
    )
    if times.is_complex() or times.ndim > 1 or times.numel() == 0 or not bool(torch.isfinite(times.detach()).all()):
        raise DomainError(f"a time or shift must be a finite real number, or (c,) of them with one a channel, not {t!r}")
    return times.to("cpu", torch.float64)


def _interval(L: Operator, interval: tuple[float, float] | None, positive: bool = False) -> tuple[float, float]:
    """[a, b] ∋ the spectrum of L, of positive length."""
    if L.shape[0] != L.shape[1]:
        raise DomainError(f"a function of an operator needs a square one, not {L.shape}")
    if interval is None:
        if isinstance(L, Complement):
            low, high = (1.0 - end for end in reversed(_interval(L.laplacian, None)))
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
