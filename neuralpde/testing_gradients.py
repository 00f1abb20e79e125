"""`assert_gradients`: first and second derivatives against directional differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from integrators.state import parts_of
from neuralpde.testing_bounds import roundoff
from neuralpde.testing_measured import Measured, require
from neuralpde.testing_search import name_of

_WEIGHTS = (1 / 280, -4 / 105, 1 / 5, -4 / 5)


def assert_gradients(f: Callable[..., Any], *tensors: Tensor, second: bool = True, seed: int = 0) -> Measured:
    """Assert that autograd's derivatives of f in every tensor are those of its values, along random directions.

    With ℓ = ⟨r, f(x₁, x₂, …)⟩ for a random r, dℓ along a random direction of each tensor alone, and d²ℓ along two directions of
    all, are compared with central differences of eighth order of ℓ and of the first derivative.

    Tolerance: 8 times the difference between the difference quotients of two step lengths (what they are good for), and
    1024 u of the magnitudes, over the step.

    Args:
        f: a function of tensors that gives a tensor or a tuple of them; smooth, and the same every time. A module's
            parameters are reached by torch.func.functional_call.
        tensors: floating-point, float64 advised: in float32 only the first digits can be seen.
        second: also second derivatives, as Newton's method, Hessian-vector products and gradient penalties use them.

    Returns:
        The worst derivative; float() of it is the error in units of the tolerance.

    Raises:
        LawBrokenError: an AssertionError that names the tensor whose gradient is wrong, absent or not finite.
    """
    __tracebackhide__ = True
    if not tensors:
        raise TypeError("assert_gradients(f, *tensors) needs at least one tensor to differentiate in")
    for k, x in enumerate(tensors):
        if not isinstance(x, Tensor) or not (x.is_floating_point() or x.is_complex()):
            raise TypeError(f"tensor {k} must be a floating-point tensor, not {getattr(x, 'dtype', type(x).__name__)}")
    name = name_of(f)
    generator = torch.Generator().manual_seed(seed)
    points = [x.detach().clone() for x in tensors]
    with torch.no_grad():
        values = parts_of(f(*points))
    covectors = [torch.randn(v.shape, generator=generator, dtype=v.dtype) for v in values]
    one, other = ([_direction(x, generator) for x in points] for _ in range(2))

    def loss(xs: list[Tensor]) -> Tensor:
        return _paired(covectors, parts_of(f(*xs)))

    def slope(xs: list[Tensor]) -> float:
        return float(_derivative(loss, _leaves(xs), one).detach())

    def value(xs: list[Tensor]) -> float:
        with torch.no_grad():
            return float(loss(xs))

    size = sum(float((r.abs() * v.abs()).sum()) for r, v in zip(covectors, values, strict=True))
    found = []
    with torch.enable_grad():
        for k, x in enumerate(points):
            alone = [d if j == k else torch.zeros_like(d) for j, d in enumerate(one)]
            exact = float(_derivative(loss, _leaves(points), alone).detach())
            what = f"gradient in tensor {k} of shape {tuple(x.shape)}"
            found.append(require(_compared(what, exact, *_quotient(value, points, alone, size)), name))
        if second:
            leaves = _leaves(points)
            exact = float(_derivative(lambda ys: _derivative(loss, ys, one, create_graph=True), leaves, other).detach())
            quotient = _quotient(slope, points, other, abs(slope(points)) + size)
            found.append(require(_compared("second derivative along two directions", exact, *quotient), name))
    return max(found, key=float)


def _leaves(xs: list[Tensor]) -> list[Tensor]:
    return [x.detach().clone().requires_grad_() for x in xs]


def _derivative(
    loss: Callable[[list[Tensor]], Tensor], xs: list[Tensor], along: list[Tensor], create_graph: bool = False
) -> Tensor:
    """dloss along a direction by autograd; 0 where nothing depends on the tensors."""
    value = loss(xs)
    if not value.requires_grad:
        return torch.zeros(())
    return _paired(torch.autograd.grad(value, xs, create_graph=create_graph, allow_unused=True), along)


def _paired(gradients: Sequence[Tensor | None], along: Sequence[Tensor]) -> Tensor:
    """Σ Re ⟨g, d⟩ over the tensors that have a gradient."""
    pairs = ((g, d) for g, d in zip(gradients, along, strict=True) if g is not None)
    return sum(((g.conj() * d).real.sum() for g, d in pairs), torch.zeros(()))


def _quotient(
    value: Callable[[list[Tensor]], float], points: list[Tensor], along: list[Tensor], size: float
) -> tuple[float, float]:
    """dvalue along a direction by central differences of two step lengths, and how far that can be trusted."""
    u = max(roundoff(x.dtype) for x in points)
    quotients = []
    for h in (0.25 * u ** (1 / 9) / 4, 0.25 * u ** (1 / 9) / 8):
        total = 0.0
        for weight, k in zip(_WEIGHTS, (4, 3, 2, 1), strict=True):
            ahead, behind = ([x + s * k * h * d for x, d in zip(points, along, strict=True)] for s in (1, -1))
            total -= weight * (value(ahead) - value(behind))
        quotients.append(total / h)
    coarse, fine = quotients
    return fine, 8 * abs(fine - coarse) + 1024 * u * size / h


def _compared(what: str, exact: float, quotient: float, slack: float) -> Measured:
    where = f"(autograd {exact:.6g}, differences {quotient:.6g})"
    if exact == 0 and abs(quotient) > slack:
        cause = "a detach, .data, .item() or torch.no_grad() on the way?"
        where = f"(autograd has no gradient here, differences {quotient:.6g}: {cause})"
    error = abs(exact - quotient)
    return Measured(what, error, slack, "8 × the gap between two step lengths, and 1024 u of the values over the step", where)


def _direction(x: Tensor, generator: torch.Generator) -> Tensor:
    d = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    scale = float(x.abs().mean()) if x.numel() else 1.0
    return d * (scale or 1.0) / max(float(d.norm()), 1e-300) if x.numel() else d
