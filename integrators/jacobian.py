"""Products with the Jacobian of a right-hand side, exact where autograd can, on states seen as real vectors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from integrators.integrator import Evaluate
from integrators.solution import State, Statistics
from integrators.state import parts_of


class Flat:
    """States like `like` as real vectors and back; a complex number is a pair, so that every real-linear map has a matrix."""

    def __init__(self, like: State) -> None:
        self.is_tuple = isinstance(like, tuple)
        self.shapes = [part.shape for part in parts_of(like)]
        self.complex = [part.is_complex() for part in parts_of(like)]
        self.sizes = [part.numel() * (2 if part.is_complex() else 1) for part in parts_of(like)]
        self.size = sum(self.sizes)

    def flat(self, x: State, lead: int = 0) -> Tensor:
        """The real vector of a state; the first `lead` axes are kept."""
        # Not view_as_real, whose backward refuses pairs that start at an odd place.
        pairs = [torch.stack((part.real, part.imag), dim=-1) if part.is_complex() else part for part in parts_of(x)]
        flat = [part.reshape((*part.shape[:lead], -1)) for part in pairs]
        return flat[0] if len(flat) == 1 else torch.cat(flat, dim=-1)

    def state(self, vector: Tensor) -> State:
        """The state of a real vector, or of a stack of them."""
        parts = []
        for piece, shape, is_complex in zip(vector.split_with_sizes(self.sizes, -1), self.shapes, self.complex, strict=True):
            whole = torch.complex(piece[..., ::2], piece[..., 1::2]) if is_complex else piece
            parts.append(whole.reshape((*vector.shape[:-1], *shape)))
        return tuple(parts) if self.is_tuple else parts[0]


class Jacobian:
    """∂f/∂x at (t, x), where f has the given value: `J @ v`, and `J.matrix()` for small states."""

    def __init__(self, by: Differentiation, t: Tensor, x: State, value: State) -> None:
        self.by, self.t, self.x, self.value = by, t, x, value
        self.pullback: tuple[Tensor, Tensor] | None = None

    def __matmul__(self, v: Tensor) -> Tensor:
        """J v for a real vector v."""
        self.by.stats.nvp += 1
        while True:
            way, *others = self.by.ways
            try:
                product = way(self, v)
            except Exception:  # What f is made of decides what it raises where it cannot be differentiated this way.
                if not others:
                    raise
                product = None
            if product is not None:
                return product
            self.by.ways = others

    def matrix(self) -> Tensor:
        """J as a dense real matrix, row by row; column by column where f has no backward."""
        flat = self.by.flat
        if self.by.exact:
            with torch.enable_grad(), contextlib.suppress(Exception):
                x = wanting_gradients(self.x)
                y = self.by.f(self.t, x)
                if wants_gradients(y):
                    matrix = rows(y, x, flat)
                    self.by.stats.nvp += flat.size
                    return matrix
        value = flat.flat(self.value)
        return torch.stack([self @ e for e in torch.eye(flat.size, dtype=value.dtype, device=value.device)], dim=1)


Way = Callable[[Jacobian, Tensor], Tensor | None]


def forward_mode(jacobian: Jacobian, v: Tensor) -> Tensor | None:
    """J v by forward-mode autograd; None if f does not carry the tangent."""
    flat = jacobian.by.flat
    with torch.no_grad(), forward_ad.dual_level():
        pairs = zip(parts_of(jacobian.x), parts_of(flat.state(v)), strict=True)
        duals = tuple(forward_ad.make_dual(part, tangent) for part, tangent in pairs)  # type: ignore[no-untyped-call]
        value = jacobian.by.f(jacobian.t, duals if flat.is_tuple else duals[0])
        out = [forward_ad.unpack_dual(y) for y in parts_of(value)]  # type: ignore[no-untyped-call]
        if all(y.tangent is None for y in out):
            return None
        tangents = tuple(torch.zeros_like(y.primal) if y.tangent is None else y.tangent for y in out)
        return flat.flat(tangents)


def double_backward(jacobian: Jacobian, v: Tensor) -> Tensor | None:
    """J v as the derivative of u ↦ Jᵀu, whose graph is kept; None if f does not reach x."""
    flat = jacobian.by.flat
    with torch.enable_grad():
        if jacobian.pullback is None:
            x = wanting_gradients(jacobian.x)
            y = jacobian.by.f(jacobian.t, x)
            if not wants_gradients(y):
                return None
            jacobian.pullback = pullback(y, x, flat)
    return pushed(*jacobian.pullback, v)


def differences(jacobian: Jacobian, v: Tensor) -> Tensor:
    """J v by a difference quotient, right to about the square root of round-off."""
    flat = jacobian.by.flat
    x, value = flat.flat(jacobian.x).detach(), flat.flat(jacobian.value).detach()
    length = float(torch.linalg.vector_norm(v))
    if length == 0:
        return torch.zeros_like(v)
    step = torch.finfo(v.dtype).eps ** 0.5 * max(float(torch.linalg.vector_norm(x)), 1e-3) / length
    with torch.no_grad():
        moved = flat.flat(jacobian.by.f(jacobian.t, flat.state(x + step * v)))
    quotient: Tensor = (moved - value) / step
    return quotient


class Differentiation:
    """How the Jacobian of one f is had: by forward-mode autograd; else by differentiating its backward; else by differences.

    Differences are the last resort, for an f that autograd cannot see through (NumPy inside, say, or a Function that is
    once differentiable): the products are then right to the square root of round-off only, and Newton's iteration converges
    linearly, if fast.
    """

    def __init__(self, f: Evaluate, like: State, stats: Statistics) -> None:
        self.f, self.flat, self.stats = f, Flat(like), stats
        self.ways: list[Way] = [forward_mode, double_backward, differences]

    @property
    def exact(self) -> bool:
        """Whether products are exact to round-off."""
        return self.ways[0] is not differences

    def at(self, t: Tensor, x: State, value: State) -> Jacobian:
        """∂f/∂x at (t, x), where f has the given value."""
        return Jacobian(self, t, x, value)


def wanting_gradients(x: State) -> State:
    """The state detached, as leaves."""
    leaves = tuple(part.detach().requires_grad_() for part in parts_of(x))
    return leaves if isinstance(x, tuple) else leaves[0]


def wants_gradients(x: State) -> bool:
    """Whether any part of the state has a gradient."""
    return any(part.requires_grad for part in parts_of(x))


def pulled(y: State, x: State, w: Tensor, flat: Flat, *, create_graph: bool = False) -> Tensor:
    """Jᵀ w, out of the graph of y = f(x); for each row of w if it is a matrix."""
    pairs = [(part, weight) for part, weight in zip(parts_of(y), parts_of(flat.state(w)), strict=True) if part.requires_grad]
    if not pairs:
        return torch.zeros_like(w)
    found = torch.autograd.grad(
        [part for part, _ in pairs], parts_of(x), [weight for _, weight in pairs], retain_graph=True,
        create_graph=create_graph, allow_unused=True, is_grads_batched=w.ndim > 1,
    )  # fmt: skip
    lead = w.shape[:-1]
    known = tuple(
        torch.zeros((*lead, *part.shape), dtype=part.dtype, device=part.device) if value is None else value
        for part, value in zip(parts_of(x), found, strict=True)
    )
    return flat.flat(known, len(lead))


def pullback(y: State, x: State, flat: Flat) -> tuple[Tensor, Tensor]:
    """(u, Jᵀu) with its graph: its derivative in u is J."""
    with torch.enable_grad():
        u = flat.flat(y).detach().requires_grad_()
        back = pulled(y, x, u, flat, create_graph=True)
    _require_twice_differentiable(back)
    return u, back


def _require_twice_differentiable(back: Tensor) -> None:
    """Raise if a backward on the way is once differentiable: autograd.grad would count its part as zero, silently."""
    pending, seen = [back.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "torch::autograd::Error":
            raise RuntimeError("the right-hand side is made of a function that can be differentiated only once")
        pending.extend(parent for parent, _ in node.next_functions)


def pushed(u: Tensor, back: Tensor, v: Tensor) -> Tensor:
    """J v out of (u, Jᵀu)."""
    if not back.requires_grad:
        return torch.zeros_like(v)
    (product,) = torch.autograd.grad(back, u, v, retain_graph=True, allow_unused=True, materialize_grads=True)
    return product.detach()


def rows(y: State, x: State, flat: Flat) -> Tensor:
    """The matrix J out of the graph of y = f(x)."""
    unit = torch.eye(flat.size, dtype=parts_of(y)[0].real.dtype, device=parts_of(y)[0].device)
    if flat.size > 3:
        with contextlib.suppress(Exception):  # What vmap cannot do is done row by row.
            return pulled(y, x, unit, flat).detach()
    return torch.stack([pulled(y, x, e, flat).detach() for e in unit])
