"""Sums of Chebyshev polynomials of an operator, y_i = Σ_kj c_kij T_k(S) x_j, and their derivatives of every order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from operators.checks import DomainError
from operators.laplacian import Complement, Laplacian
from operators.operator import Operator

Interval = tuple[float, float]


def chebyshev_sums(operator: Operator, x: Tensor, c: Tensor, interval: Interval) -> Tensor:
    """y_i = Σ_kj c_kij T_k(S) x_j with S = (2 L − (b + a)) / (b − a): K products for all of them.

    Where L requires no gradient, backward runs the recurrence again and keeps nothing but x; else autograd records it.

    Args:
        operator: L, self-adjoint in its `inner`.
        x: (q, ..., n, channels).
        c: (K + 1, p, q, 1), or (K + 1, p, q, channels) with other coefficients for each channel.
        interval: (a, b).

    Returns:
        (p, ..., n, channels); complex if x or c is.

    Raises:
        DomainError: the interval does not contain the spectrum (not checked inside torch.compile).
    """
    x = x.to(torch.promote_types(x.dtype, c.dtype))
    if any(tensor.requires_grad for tensor in [*operator.parameters(), *operator.buffers()]):
        y = [x.new_zeros(()) for _ in range(c.shape[1])]
        for weights, term in zip(c, _terms(operator, x, interval, c.shape[0] - 1), strict=True):
            y = [total + sum(w * part for w, part in zip(row, term, strict=True)) for total, row in zip(y, weights, strict=True)]
        return torch.stack(y)
    result: Tensor = _Sums.apply(x, c, operator, interval, False)  # type: ignore[no-untyped-call]
    return result


class _Sums(torch.autograd.Function):
    """The sums with S or its plain adjoint; linear in x and in c, so it is its own second order too."""

    @staticmethod
    def forward(x: Tensor, c: Tensor, operator: Operator, interval: Interval, adjoint: bool) -> Tensor:
        march = _march(operator, x, interval, adjoint)
        y = march.zeros(c.shape[1])
        scalar = c.shape[3] == 1
        numbers = c[..., 0].tolist() if scalar else None
        for k, term in enumerate(march.terms(c.shape[0] - 1)):
            for j in range(c.shape[2]):
                part = term.select(march.axis, j)
                for i in range(c.shape[1]):
                    target = y.select(march.axis, i)
                    if numbers is None:
                        target.addcmul_(part, c[k, i, j])
                    elif numbers[k][i][j] != 0:
                        target.add_(part, alpha=numbers[k][i][j])
        return march.back(y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, c, *ctx.rest = inputs
        ctx.save_for_backward(x, c)
        ctx.save_for_forward(x, c)

    @staticmethod
    def jvp(ctx: Any, d_x: Tensor | None, d_c: Tensor | None, *_: None) -> Tensor:
        x, c = ctx.saved_tensors
        pairs = [(one, two) for one, two in ((d_x, c), (x, d_c)) if one is not None and two is not None]
        return torch.stack([_Sums.apply(*pair, *ctx.rest) for pair in pairs]).sum(0)  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor, c: Tensor, *rest: Any) -> tuple[Tensor, int]:
        x_dim, c_dim = in_dims[:2]
        if c_dim is None:
            return _Sums.apply(x.movedim(x_dim or 0, 1), c, *rest), 1  # type: ignore[no-untyped-call]
        fields = [x] * info.batch_size if x_dim is None else x.movedim(x_dim, 0)
        pairs = zip(fields, c.movedim(c_dim, 0), strict=True)
        return torch.stack([_Sums.apply(one, weights, *rest) for one, weights in pairs]), 0  # type: ignore[no-untyped-call]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, c = ctx.saved_tensors
        operator, interval, adjoint = ctx.rest
        grad_x = grad_c = None
        if ctx.needs_input_grad[0]:
            grad_x = _Sums.apply(grads[0], _turned(c), operator, interval, not adjoint)  # type: ignore[no-untyped-call]
            grad_x = grad_x if x.is_complex() else grad_x.real
        if ctx.needs_input_grad[1]:
            grad_c = _Overlaps.apply(x, grads[0], c.shape, operator, interval, adjoint)  # type: ignore[no-untyped-call]
            grad_c = grad_c if c.is_complex() else grad_c.real
        return grad_x, grad_c, None, None, None


class _Overlaps(torch.autograd.Function):
    """o_kij = ⟨T_k(S) x_j, g_i⟩ = Σ conj(T_k x_j) g_i, over all but the channels where each has its own coefficients."""

    @staticmethod
    def forward(x: Tensor, g: Tensor, shape: torch.Size, operator: Operator, interval: Interval, adjoint: bool) -> Tensor:
        march = _march(operator, x, interval, adjoint)
        g = march.laid(g).movedim(march.axis, 0)
        last = g.ndim - 2 if shape[3] > 1 else g.ndim - 1
        rows = []
        for term in march.terms(shape[0] - 1):
            t = term.movedim(march.axis, 0).conj()
            rows.append(torch.stack([torch.stack([(t_j * g_i).flatten(0, last - 1).sum(0) for t_j in t]) for g_i in g]))
        return torch.stack(rows).reshape(shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, g, *ctx.rest = inputs
        ctx.save_for_backward(x, g)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        x, g = ctx.saved_tensors
        _, operator, interval, adjoint = ctx.rest
        (o,) = grads
        grad_x = grad_g = None
        if ctx.needs_input_grad[0]:
            grad_x = _Sums.apply(g, _turned(o), operator, interval, not adjoint)  # type: ignore[no-untyped-call]
            grad_x = grad_x if x.is_complex() else grad_x.real
        if ctx.needs_input_grad[1]:
            grad_g = _Sums.apply(x, o, operator, interval, adjoint)  # type: ignore[no-untyped-call]
            grad_g = grad_g if g.is_complex() else grad_g.real
        return grad_x, grad_g, None, None, None, None


def _turned(c: Tensor) -> Tensor:
    return c.conj().resolve_conj().transpose(1, 2)


def _march(operator: Operator, x: Tensor, interval: Interval, adjoint: bool) -> _Fields | _Columns:
    laplacian = operator.laplacian if isinstance(operator, Complement) else operator
    simple = isinstance(laplacian, Laplacian) and laplacian.stiffness.values.ndim == 1 and not laplacian.dtype.is_complex
    plain = x.device.type == "cpu" and not torch.compiler.is_compiling() and laplacian.dtype == x.real.dtype
    return (_Columns if simple and plain and x.numel() else _Fields)(operator, x, interval, adjoint)


class _Fields:
    """T_k(S) x for any operator, field by field."""

    axis = 0

    def __init__(self, operator: Operator, x: Tensor, interval: Interval, adjoint: bool) -> None:
        self.x, self.interval = x, interval
        self.acting: Callable[[Tensor], Tensor] = PlainAdjoint(operator, x) if adjoint else operator

    def zeros(self, parts: int) -> Tensor:
        """As many sums."""
        return self.x.new_zeros(parts, *self.x.shape[1:], dtype=self._dtype())

    def _dtype(self) -> torch.dtype:
        return torch.promote_types(self.x.dtype, getattr(self.acting, "dtype", self.x.dtype))

    def laid(self, x: Tensor) -> Tensor:
        """x in the layout of the terms, to be overlapped with them."""
        return x

    def back(self, y: Tensor) -> Tensor:
        """The sums in the layout of x."""
        return y

    def terms(self, degree: int) -> Iterator[Tensor]:
        """T_0(S) x, ..., T_K(S) x, one at a time."""
        yield from _terms(self.acting, self.x, self.interval, degree)


class _Columns:
    """T_k(S) x for a real Laplacian: S as one matrix, x as its columns, and no allocation from one term to the next."""

    axis = 1

    def __init__(self, operator: Operator, x: Tensor, interval: Interval, adjoint: bool) -> None:
        self.operator, self.interval, self.adjoint = operator, interval, adjoint
        laplacian: Any = operator.laplacian if isinstance(operator, Complement) else operator
        # The adjoint of S is M S M⁻¹.
        self.mass = laplacian.mass[:, None] if adjoint else None
        self.x = x
        self.matrix = _doubled(operator, interval, x.real.dtype)

    def zeros(self, parts: int) -> Tensor:
        *lead, n, channels = self.x.shape
        return self.x.new_zeros(n, parts, *lead[1:], channels)

    def laid(self, x: Tensor) -> Tensor:
        return (x if self.mass is None else x * self.mass).movedim(-2, 0)

    def back(self, y: Tensor) -> Tensor:
        y = y.movedim(0, -2)
        return y if self.mass is None else y * self.mass

    def terms(self, degree: int) -> Iterator[Tensor]:
        x = self.x if self.mass is None else self.x / self.mass
        start = x.movedim(-2, 0).contiguous()
        shape = start.shape

        def seen(columns: Tensor) -> Tensor:
            return torch.view_as_complex(columns.view(*shape, 2)) if x.is_complex() else columns.view(shape)

        flat = (torch.view_as_real(start.resolve_conj()) if x.is_complex() else start).reshape(shape[0], -1)
        before = flat.clone()
        yield seen(before)
        if degree == 0:
            return
        now = torch.addmm(flat, self.matrix, before, beta=0.0, alpha=0.5)
        yield seen(now)
        for _ in range(degree - 1):
            before, now = now, torch.addmm(before, self.matrix, now, beta=-1.0, out=before)
            yield seen(now)
        if not self.adjoint:
            _check_contained(self.operator, self.interval, self.x, seen(now).movedim(0, -2), degree)


def _doubled(operator: Operator, interval: Interval, dtype: torch.dtype) -> Tensor:
    """2 S as a CSR matrix of torch's."""
    a, b = interval
    laplacian: Any = operator.laplacian if isinstance(operator, Complement) else operator
    # 2 S = 4/(b − a) (C/m − centre), or with the signs of I − L.
    factor, centre = (-4 / (b - a), 1 - (a + b) / 2) if isinstance(operator, Complement) else (4 / (b - a), (a + b) / 2)
    with torch.no_grad():
        pattern, places = laplacian._diagonal_places()
        values = laplacian.stiffness.values.double()
        if pattern is not laplacian.stiffness.pattern:
            values = torch.cat([values, values.new_zeros(pattern.nnz - values.shape[-1])])[pattern.order]
        values = values / laplacian.mass.double()[pattern.row]
        values = values.index_add(0, places, values.new_full((len(places),), -centre)).mul_(factor).to(dtype)
        small = pattern.nnz < 2**31
        crow, col = (index.int() if small else index for index in (pattern.crow, pattern.col))
        return torch.sparse_csr_tensor(crow, col, values, laplacian.shape, check_invariants=False)


class PlainAdjoint:
    """Aᴴ without any inner product, from one recorded product."""

    def __init__(self, operator: Callable[[Tensor], Tensor], like: Tensor) -> None:
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
