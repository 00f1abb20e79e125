"""Preconditioned conjugate gradients: solves with operators that have no matrix, that are too large to factor, or on a GPU."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from operators.checks import ConvergenceError, DomainError, FieldError, check_field
from operators.laplacian import Laplacian
from operators.operator import Operator
from operators.sparse import SparseOperator

Map = Callable[[Tensor], Tensor]


class Preconditioner(Protocol):
    """What makes the map r ↦ B r ≈ A⁻¹ r, self-adjoint and positive in the inner product of A."""

    def of(self, operator: Operator) -> Map:
        """B for this operator."""
        ...


class Jacobi:
    """B = diag(A)⁻¹; for matrices and Laplacians, or any operator with a `diagonal()`."""

    def of(self, operator: Operator) -> Map:
        entries: Any = getattr(operator, "diagonal", None)
        if entries is None:
            raise DomainError(f"{type(operator).__name__} has no diagonal(): give it one, or solve without Jacobi()")
        diagonal: Tensor = entries().detach()
        diagonal = diagonal.real if diagonal.is_complex() else diagonal
        if not bool((diagonal > 0).all()):
            raise ConvergenceError(
                f"{int((~(diagonal > 0)).sum())} diagonal entries are not positive, so the operator is not positive definite: "
                "a negative time step or coefficient? DirectSolver() solves indefinite systems"
            )
        return lambda r: r / diagonal[..., None]


class AMG:
    """One symmetric V-cycle of smoothed-aggregation multigrid (pyamg), in float64 on the CPU.

    The number of iterations then hardly grows with the mesh. For a `SparseOperator` or a `Laplacian`; the hierarchy
    is kept until the values change. Needs the extra `amg`.
    """

    def __init__(self) -> None:
        self._kept: tuple[Any, Tensor, Any] | None = None

    def of(self, operator: Operator) -> Map:
        if isinstance(operator, Laplacian):
            # A⁻¹ = C⁻¹ M, self-adjoint in the inner product of M.
            cycle, mass = self.of(operator.stiffness), operator.mass.detach()[:, None]
            return lambda r: cycle(mass * r)
        if not isinstance(operator, SparseOperator) or operator.values.ndim > 1:
            raise DomainError("AMG() needs the entries of one matrix, a SparseOperator or a Laplacian: use Jacobi() or none")
        values = operator.values.detach()
        kept = self._kept
        if kept is None or kept[0] is not operator.pattern or kept[1].dtype != values.dtype or not torch.equal(kept[1], values):
            kept = self._kept = (operator.pattern, values.clone(), _hierarchy(operator))
        cycle = kept[2]

        def apply(r: Tensor) -> Tensor:
            *lead, n, c = r.shape
            columns = r.detach().movedim(-2, 0).reshape(n, -1).cpu()
            wide = columns.to(torch.complex128 if columns.is_complex() or values.is_complex() else torch.float64)
            parts = [wide.resolve_conj().numpy()]
            if wide.is_complex() and not values.is_complex():
                parts = [parts[0].real, parts[0].imag]
            solved = [np.stack([cycle @ np.ascontiguousarray(column) for column in part.T], axis=1) for part in parts]
            result = solved[0] if len(solved) == 1 else solved[0] + 1j * solved[1]
            return torch.from_numpy(result).reshape(n, *lead, c).movedim(0, -2).to(r.device, r.dtype)

        return apply

    def __getstate__(self) -> dict[str, Any]:
        return {"_kept": None}


def _hierarchy(operator: SparseOperator) -> Any:
    try:
        pyamg: Any = importlib.import_module("pyamg")
    except ImportError as error:
        raise ImportError("AMG() needs pyamg: pip install 'neuralpde-toolkit[amg]', or use Jacobi()") from error
    # pyamg draws from NumPy's global generator: the same matrix must give the same cycle, and the user's draws stay theirs.
    state = np.random.get_state()
    try:
        np.random.seed(0)
        solver = pyamg.smoothed_aggregation_solver(operator.to_scipy().tocsr(), symmetry="hermitian", max_coarse=200)
    finally:
        np.random.set_state(state)
    return solver.aspreconditioner(cycle="V")


class Constants:
    """The fields that are constant on every component, the kernel of a Laplacian; `remove` takes their share away.

    Args:
        component: (n,) int64, the component of each node.
        mass: (n,), the weights of the inner product.
    """

    def __init__(self, component: Tensor, mass: Tensor) -> None:
        self.component = component
        self.mass = mass

    @classmethod
    def of(cls, laplacian: Laplacian) -> Constants:
        """For a Laplacian that kills constants."""
        if not laplacian.kills_constants:
            raise DomainError("constants are not in the kernel of this Laplacian: solve without kernel=")
        _, component = connected_components(laplacian.stiffness.to_scipy(), directed=False)
        return cls(torch.from_numpy(component.astype(np.int64)).to(laplacian.device), laplacian.mass)

    def remove(self, x: Tensor) -> Tensor:
        """x minus its weighted mean on each component; (..., n, c). Differentiable in x and the mass."""
        count = int(self.component.max()) + 1
        mass = self.mass.to(x.real.dtype)
        weighted = mass[:, None] * x
        totals = weighted.new_zeros(*x.shape[:-2], count, x.shape[-1]).index_add(-2, self.component, weighted)
        means = totals / mass.new_zeros(count).index_add(0, self.component, mass)[:, None]
        return x - means.index_select(-2, self.component)


class ConjugateGradient:
    """Solves A x = b for an operator that is self-adjoint and positive definite in its own `inner`, matrix or not.

    Every column of b is a system of its own and stops when its ‖b − A x‖ ≤ tolerance · ‖b‖; the operator must
    therefore act on each channel alone. The residual is the true one, computed at the end. Differentiable, to the
    second order, in b and in the parameters and buffers of the operator, by further solves instead of a recorded iteration
    (the inner product must be diagonal: Σ m_i x̄_i·y_i). (Hestenes and Stiefel 1952.)

    Args:
        tolerance: of the relative residual, of the forward and of the gradient's solve.
        max_iterations: products with A a solve may take.
        preconditioner: `Jacobi()` is almost free, and needed where the masses of a mesh differ; `AMG()` for large meshes.
        kernel: for a semi-definite A, what A kills, such as `Constants.of(laplacian)`. It is taken out of b, so the
            result solves the consistent part and has none of it (the least-squares solution of least norm).
    """

    def __init__(
        self,
        tolerance: float = 1e-8,
        max_iterations: int = 2000,
        preconditioner: Preconditioner | None = None,
        kernel: Constants | None = None,
    ) -> None:
        if not 0 < tolerance < 1:
            raise ValueError(f"the tolerance must lie between 0 and 1, not {tolerance}")
        if isinstance(max_iterations, bool) or not isinstance(max_iterations, int) or max_iterations < 1:
            raise ValueError(f"max_iterations must be a positive integer, not {max_iterations!r}")
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.preconditioner, self.kernel = preconditioner, kernel

    def solve(self, operator: Operator, b: Tensor, /, guess: Tensor | None = None) -> Tensor:
        """x with A x = b.

        Args:
            operator: A, (n, n).
            b: (..., n, c).
            guess: (..., n, c), where to start; zero if absent. It saves iterations and changes nothing else.

        Raises:
            FieldError: b does not fit or is not finite.
            ConvergenceError: not converged, or A found to be indefinite or not self-adjoint; says what to change.
        """
        check_field(b, operator.shape[0], operator.dtype, operator.device, "right-hand side")
        if operator.shape[0] != operator.shape[1]:
            raise FieldError(f"only a square system has a unique solution, and this operator has shape {operator.shape}")
        if not bool(torch.isfinite(b.detach()).all()):
            bad = ~torch.isfinite(b.detach()).movedim(-2, 0).reshape(b.shape[-2], -1).all(dim=1)
            raise FieldError(
                f"the right-hand side is not finite at {int(bad.sum())} nodes, the first is node {int(bad.nonzero()[0])}"
            )
        # The product with A decides dtype and batch: A may be complex, or hold one matrix a batch member.
        with torch.no_grad():
            product = operator(b[..., :1].detach())
        b = b.to(product.dtype).expand(*product.shape[:-1], b.shape[-1])
        if self.kernel is not None:
            b = self.kernel.remove(b)
        named = {name: t for name, t in [*operator.named_parameters(), *operator.named_buffers()] if t.requires_grad}
        if torch.is_grad_enabled():
            _check_captured(operator, b, named)
        start = None if guess is None else guess.detach()
        if start is not None:
            check_field(start, operator.shape[0], operator.dtype, operator.device, "guess")
        x: Tensor = _Solve.apply(b, self, operator, start, tuple(named), *named.values())  # type: ignore[no-untyped-call]
        return x if self.kernel is None else self.kernel.remove(x)

    def _iterate(self, operator: Operator, b: Tensor, guess: Tensor | None) -> Tensor:
        if b.numel() == 0:
            return torch.zeros_like(b)
        # A power of two rounds nothing and keeps squares in range.
        peak = b.abs().amax(dim=-2, keepdim=True)
        scale = torch.where((peak > 0) & peak.isfinite(), torch.exp2(torch.floor(torch.log2(peak))), 1.0)
        b = b / scale
        x = torch.zeros_like(b) if guess is None else guess.to(b.dtype).expand_as(b) / scale
        better = (lambda r: r) if self.preconditioner is None else self.preconditioner.of(operator)
        rest = (lambda x: x) if self.kernel is None else self.kernel.remove
        goal = self.tolerance * _norms(operator, b)
        left, reached = self.max_iterations, float("inf")
        while True:
            residual = rest(b - operator(x))
            norms = _norms(operator, residual)
            if bool((norms <= goal).all()):
                return x * scale
            ratio = float((self.tolerance * norms / torch.where(goal > 0, goal, 1.0)).max())
            # Started anew from the true residual, as long as that gains a digit's third.
            if left <= 0 or not ratio < 0.5 * reached:
                raise ConvergenceError(_report(ratio, self, left, b.dtype))
            reached = ratio
            x, left = self._run(operator, x, residual, goal, left, better, rest)

    def _run(
        self, operator: Operator, x: Tensor, r: Tensor, goal: Tensor, left: int, better: Map, rest: Map
    ) -> tuple[Tensor, int]:
        z = rest(better(r))
        p, energy = z, _inners(operator, r, z)
        previous: tuple[Tensor, Tensor] | None = None
        first = True
        while left > 0:
            active = _norms(operator, r) > goal
            if not bool(active.any()):
                break
            Ap = operator(p)
            left -= 1
            curvature = _inners(operator, p, Ap)
            if bool((active & ~(curvature > 0)).any()):
                worst = float(torch.where(active, curvature, torch.inf).min())
                if not worst <= 0:
                    raise ConvergenceError("the product with the operator is not finite: a diverged coefficient?")
                raise ConvergenceError(
                    f"the operator is not positive definite: ⟨p, A p⟩ = {worst:.2e} for a direction p. A negative time step or "
                    "coefficient? DirectSolver() solves indefinite systems; kernel= is for semi-definite ones"
                )
            if previous is not None and first:
                _check_self_adjoint(operator, *previous, p, Ap)
                first = False
            previous = (p, Ap)
            alpha = torch.where(active, energy / curvature, 0.0)
            x, r = x + alpha * p, r - alpha * Ap
            z = rest(better(r))
            new = _inners(operator, r, z)
            p = z + torch.where(active, new / energy, 0.0) * p
            energy = new
        return x, left


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, b: Tensor, method: ConjugateGradient, operator: Operator, guess: Tensor | None, names: Any, *held: Tensor
    ) -> Tensor:
        x = method._iterate(operator, b.detach(), guess)
        ctx.method, ctx.operator, ctx.names = method, operator, names
        ctx.save_for_backward(x, *held)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *held = ctx.saved_tensors
        (g,) = grads
        # Where A is self-adjoint in ⟨x, y⟩ = xᴴ W y, its adjoint in the plain product is W A W⁻¹.
        weight = _weights(ctx.operator, g)
        adjoint = torch.full_like(g, torch.nan)
        if bool(torch.isfinite(g.detach()).all()):
            adjoint = weight * ctx.method.solve(ctx.operator, g / weight)
        slopes: tuple[Tensor, ...] = ()
        if ctx.names:
            # torch.func keeps x constant here, although x depends on the same tensors.
            def product(*tensors: Tensor) -> Tensor:
                replaced = dict(zip(ctx.names, tensors, strict=True))
                result: Tensor = torch.func.functional_call(ctx.operator, replaced, (x,))
                return result

            slopes = torch.func.vjp(product, *held)[1](-adjoint)
        return adjoint, None, None, None, None, *slopes


def _by_column(x: Tensor) -> Tensor:
    return x.movedim(-1, 0)[..., None]


def _inners(operator: Operator, x: Tensor, y: Tensor) -> Tensor:
    """Re ⟨x, y⟩ of every column; (..., n, c) × 2 → (..., 1, c)."""
    inner = operator.inner(_by_column(x), _by_column(y))
    return (inner.real if inner.is_complex() else inner).movedim(0, -1)[..., None, :]


def _norms(operator: Operator, x: Tensor) -> Tensor:
    return _inners(operator, x, x).sqrt()


def _weights(operator: Operator, like: Tensor) -> Tensor:
    """The weights W (n, 1) of a diagonal inner product Σ w_i x̄_i·y_i."""
    one = like.new_ones(like.shape[-2], 1, dtype=like.real.dtype)
    weight: Tensor = torch.func.grad(lambda y: _real(operator.inner(one, y)))(one)
    return weight


def _real(value: Tensor) -> Tensor:
    return value.real if value.is_complex() else value


def _check_self_adjoint(operator: Operator, p: Tensor, Ap: Tensor, q: Tensor, Aq: Tensor) -> None:
    gap = (_inners(operator, p, Aq) - _inners(operator, Ap, q)).abs()
    size = _norms(operator, p) * _norms(operator, Aq) + _norms(operator, Ap) * _norms(operator, q)
    if bool((gap > 1e-3 * size).any()):
        raise ConvergenceError(
            f"{type(operator).__name__} is not self-adjoint in its inner product, which conjugate gradients need: "
            "use DirectSolver()"
        )


def _check_captured(operator: Operator, b: Tensor, named: dict[str, Tensor]) -> None:
    """Refuse an operator that depends on tensors which it has not registered: their gradient would be lost silently."""
    with torch.enable_grad():
        product = operator(b[..., :1].detach())
    stops = {t.grad_fn for t in named.values() if t.grad_fn is not None}
    known = {id(t) for t in named.values()}
    stack, seen = [product.grad_fn], set()
    while stack:
        node: Any = stack.pop()
        if node is None or node in seen or node in stops:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in known:
            raise DomainError(
                f"{type(operator).__name__} depends on a tensor of shape {tuple(variable.shape)} that is neither its parameter "
                "nor its buffer, whose gradient would be lost: register it with register_buffer or nn.Parameter"
            )
        stack.extend(function for function, _ in node.next_functions)


def _report(ratio: float, method: ConjugateGradient, left: int, dtype: torch.dtype) -> str:
    text = f"conjugate gradients reached a relative residual of {ratio:.1e} instead of {method.tolerance:.1e} "
    if left <= 0:
        cure = "a preconditioner (Jacobi(), AMG()), more max_iterations, or DirectSolver()"
        return f"{text}in {method.max_iterations} iterations: use {cure}"
    return (
        f"{text}and gained no more after {method.max_iterations - left} iterations: {dtype} holds no more digits (use float64 or "
        "a larger tolerance), or the operator kills part of b (give kernel=)"
    )
