"""The gradient of a solution of y = g(y), by the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from integrators.gmres import gmres
from integrators.jacobian import Flat, pullback, pulled, pushed, rows, wanting_gradients
from integrators.solution import SolveError, State, Statistics, Status
from integrators.state import parts_of

Preconditioner = Callable[[Tensor, bool], Tensor]
DENSE = 128


def implicit_function(
    g: Callable[[State], State],
    root: State,
    stats: Statistics,
    *,
    uncounted: Callable[[State], State] | None = None,
    precondition: Preconditioner | None = None,
    dense: int = DENSE,
    restart: int = 30,
    budget: int = 1000,
) -> State:
    """y = g(y), already solved by `root`, as a differentiable function of whatever g holds.

    Backward solves (I − ∂g/∂y)ᵀ w = dy once, to near round-off, and gives w to g: gradients flow to everything that g was
    computed from (Krantz and Parks 2013, The Implicit Function Theorem, 3.3). Second derivatives are exact too, third ones
    are refused. Costs two evaluations of g and one in backward, and nothing where no gradient is recorded.

    Args:
        g: evaluated with gradients enabled; recorded by autograd.
        root: y, to the accuracy that is wanted of it.
        stats: counts the products with ∂g/∂y and its transpose in `nvp`.
        uncounted: g itself if absent; what backward takes ∂g/∂y of, by one evaluation.
        precondition: (v, transposed) ↦ about (I − ∂g/∂y)⁻¹ v, or its transpose, on real vectors.
        dense: states with so many real numbers or fewer are solved by a dense factorisation, others by GMRES.
        restart, budget: of GMRES.

    Raises:
        SolveError: in backward, if the linear system cannot be solved.
    """
    root = _map(root, Tensor.detach)
    if not torch.is_grad_enabled():
        return root
    first = g(root)
    if not any(part.requires_grad for part in parts_of(first)):
        return root
    # A chord step from the root, with its matrix held constant, has the right first derivatives; a second has the right
    # second ones, and its graph alone is walked where no more than the first are asked for.
    system = _System(uncounted or g, root, stats, precondition, dense, restart, budget)
    once = _chord(system, root, root, first)
    once = _regroup(root, _SecondOrderOnly.apply(system, *parts_of(once)))  # type: ignore[no-untyped-call]
    return _chord(system, root, once, g(once))


def _chord(system: _System, root: State, y: State, g: State) -> State:
    """y + (I − ∂g/∂y)⁻¹ (g − y), which at the root is the root."""
    parts = (*parts_of(root), *parts_of(y), *parts_of(g))
    return _regroup(root, _Chord.apply(system, len(parts_of(root)), *parts))  # type: ignore[no-untyped-call]


class _System:
    """(I − ∂g/∂y) v = b and its transpose, at the root.

    It holds nothing that refers to the graph it serves: such a circle would never be freed.
    """

    def __init__(
        self,
        g: Callable[[State], State],
        root: State,
        stats: Statistics,
        precondition: Preconditioner | None,
        dense: int,
        restart: int,
        budget: int,
    ) -> None:
        self.of, self.root, self.flat, self.stats, self.precondition = g, root, Flat(root), stats, precondition
        self.dense, self.restart, self.budget = dense, restart, budget
        self.recorded = False
        self.weight = 0.0
        self._graph: tuple[State, State] | None = None
        self._factor: tuple[Tensor, Tensor] | None = None
        self._pullback: tuple[Tensor, Tensor] | None = None

    def graph(self) -> tuple[State, State]:
        """g(y) and y, recorded."""
        if self._graph is None:
            with torch.enable_grad():
                y = wanting_gradients(self.root)
                self._graph = self.of(y), y
        return self._graph

    def solve(self, b: Tensor, transposed: bool) -> Tensor:
        if self.flat.size <= self.dense:
            if self._factor is None:
                self.stats.nvp += self.flat.size
                J = rows(*self.graph(), self.flat)
                self._factor = torch.linalg.lu_factor(torch.eye(len(J), dtype=J.dtype, device=J.device) - J)
            result: Tensor = torch.linalg.lu_solve(*self._factor, b[:, None], adjoint=transposed)[:, 0]
            return result
        precondition = self.precondition

        def product(v: Tensor) -> Tensor:
            v = v - self._times(v, transposed)
            return v if precondition is None else precondition(v, transposed)

        b = b if precondition is None else precondition(b, transposed)
        size = float(torch.linalg.vector_norm(b))
        eps = torch.finfo(b.dtype).eps
        found = gmres(product, b, eps**0.85 * size, restart=self.restart, budget=self.budget)
        if not found.residual <= eps**0.5 * size:
            raise SolveError(
                f"the gradient of an implicit step could not be computed: after {found.products} products GMRES left "
                f"{found.residual / size:.2g} of the residual. Take a smaller step, a larger NewtonKrylov(restart=...), or "
                "give the right-hand side a `linear` part with the stiff terms, which then preconditions",
                Status.DIVERGED,
            )
        return found.x

    def _times(self, v: Tensor, transposed: bool) -> Tensor:
        self.stats.nvp += 1
        if transposed:
            return pulled(*self.graph(), v, self.flat)
        if self._pullback is None:
            self._pullback = pullback(*self.graph(), self.flat)
        return pushed(*self._pullback, v)


class _Chord(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, system: _System, count: int, *parts: Tensor) -> tuple[Tensor, ...]:
        ctx.system, ctx.count = system, count
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*parts[:count])
        return tuple(part.clone() for part in parts[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        count: int = ctx.count
        if all(grad is None for grad in grads):
            return (None,) * (2 + 3 * count)
        roots = ctx.saved_tensors
        known = [torch.zeros_like(y) if grad is None else grad for grad, y in zip(grads, roots, strict=True)]
        system: _System = ctx.system
        system.recorded = system.recorded or torch.is_grad_enabled()
        system.weight = max(system.weight, _largest(known))
        weights = _Inverse.apply(system, True, *known)  # type: ignore[no-untyped-call]
        rest = [a - b for a, b in zip(known, weights, strict=True)]
        return (None, None, *([None] * count), *rest, *weights)


class _Inverse(torch.autograd.Function):
    """b ↦ (I − ∂g/∂y)⁻¹ b or its transpose, with a constant matrix."""

    @staticmethod
    def forward(ctx: Any, system: _System, transposed: bool, *parts: Tensor) -> tuple[Tensor, ...]:
        ctx.system, ctx.transposed = system, transposed
        return _solved(system, transposed, parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *_solved(ctx.system, not ctx.transposed, grads))


def _solved(system: _System, transposed: bool, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    flat = system.flat
    return parts_of(flat.state(system.solve(flat.flat(tuple(part.detach() for part in parts)), transposed)))


class _SecondOrderOnly(torch.autograd.Function):
    """The identity. The gradient that comes back to it is zero, if not that gradient's own derivative: it stops here unless
    a derivative of the gradient was recorded."""

    @staticmethod
    def forward(ctx: Any, system: _System, *parts: Tensor) -> tuple[Tensor, ...]:
        ctx.system = system
        ctx.save_for_backward(*parts)
        return tuple(part.clone() for part in parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        system: _System = ctx.system
        if not system.recorded:
            return (None,) * (1 + len(grads))
        if torch.is_grad_enabled() and _largest(grads) > torch.finfo(grads[0].dtype).eps ** 0.5 * system.weight:
            # Not zero: this is the derivative of a gradient, and another is being recorded.
            grads = _NoThird.apply(len(grads), *grads, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return (None, *grads)


class _NoThird(torch.autograd.Function):
    """The identity, which cannot be differentiated: two chord steps know nothing of third derivatives."""

    @staticmethod
    def forward(ctx: Any, count: int, *parts: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.clone() for part in parts[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            "third derivatives through an implicit step are not available: take an explicit integrator such as Dopri5 for them"
        )


def _largest(parts: Sequence[Tensor]) -> float:
    return max(float(part.detach().abs().max()) for part in parts)


def _map(x: State, g: Callable[[Tensor], Tensor]) -> State:
    return tuple(g(part) for part in x) if isinstance(x, tuple) else g(x)


def _regroup(like: State, parts: tuple[Tensor, ...]) -> State:
    return tuple(parts) if isinstance(like, tuple) else parts[0]
