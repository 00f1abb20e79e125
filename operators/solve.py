"""Differentiable sparse direct solves: factor once, reuse."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.checks import FieldError, check_field
from operators.kernels import sampled
from operators.ordering import nested_dissection
from operators.pattern import SparsityPattern
from operators.sparse import SparseOperator, sparse_product

Array = NDArray[Any]

# One time step needs one factor, an adaptive user a handful; each may hold tens of megabytes.
FACTORS_KEPT = 4
# Minimum degree fills in half as much as our dissection on small irregular meshes, and four times as much on the
# sphere with 164k vertices, where it took 35 s instead of 2.
DISSECT_FROM = 20_000
# Positive definite matrices stay near 1e-15 without pivots; from here on a larger factor with pivots pays.
BACKWARD_ERROR = 1e-12


class SingularMatrixError(ValueError):
    """A linear system that has no unique solution in double precision; the text names the cause and the cure."""


class LinearSolver(Protocol):
    """What `Laplacian.solve(..., by=...)` needs: A⁻¹ b, differentiable in b and in the values of A."""

    def solve(self, operator: SparseOperator, b: Tensor, /) -> Tensor:
        """y with A y = b."""
        ...


class DirectSolver:
    """Solves A y = b for any invertible sparse matrix, by SciPy's SuperLU in double precision on the CPU.

    A matrix is factored once and its factor used again, forward, transposed in backward and for the second order, as long
    as the same pattern comes with bitwise the same values: a learned matrix that an optimiser changed is factored anew.
    The first attempt does not pivot, which keeps the factor of a positive definite matrix small; a factor that turns out
    inaccurate on a probe is replaced by a pivoted one.

    Args:
        factors_kept: how many factors to keep. A roll-out through more different matrices than this factors them once
            more in backward.
    """

    def __init__(self, factors_kept: int = FACTORS_KEPT) -> None:
        if isinstance(factors_kept, bool) or not isinstance(factors_kept, int) or factors_kept < 1:
            raise ValueError(f"factors_kept must be a positive integer, not {factors_kept!r}")
        self.factors_kept = factors_kept
        self._factors: list[tuple[SparsityPattern, Tensor, _Factor]] = []
        self._eliminations: list[tuple[SparsityPattern, _Elimination]] = []

    def solve(self, operator: SparseOperator, b: Tensor, /) -> Tensor:
        """y = A⁻¹ b; differentiable in b and in the values of A, to any order, and in forward mode.

        Args:
            operator: A, (n, n), real or complex, one matrix or a batch (..., E) of values.
            b: (..., n, c).

        Raises:
            FieldError: b does not fit or is not finite.
            SingularMatrixError: no unique solution, or none that double precision can tell.
        """
        n, columns = operator.shape
        if n != columns:
            raise FieldError(f"only a square system has a unique solution, and this operator has shape {operator.shape}")
        check_field(b, n, operator.values.dtype, operator.values.device, "right-hand side")
        values, pattern = operator.values, operator.pattern
        result_dtype = torch.promote_types(values.dtype, b.dtype)
        values = values.to(torch.complex128 if values.is_complex() else torch.float64)
        b = b.to(torch.complex128 if b.is_complex() or values.is_complex() else torch.float64)
        if values.ndim > 1:
            batch = np.broadcast_shapes(tuple(values.shape[:-1]), tuple(b.shape[:-2]))
            copies, shape = int(np.prod(batch)), (*batch, *b.shape[-2:])
            if copies == 0:
                return b.new_zeros(shape, dtype=result_dtype)
            values = values.expand(*batch, pattern.nnz).reshape(-1)
            b, pattern = b.expand(shape).reshape(copies * n, -1), pattern.tile(copies)
            return self._columns(values, b, pattern).reshape(shape).to(result_dtype)
        *lead, _, c = b.shape
        y = self._columns(values, b.movedim(-2, 0).reshape(n, int(np.prod(lead)) * c), pattern)
        return y.reshape(n, *lead, c).movedim(0, -2).to(result_dtype)

    def clear(self) -> None:
        """Forget every factor, and free its memory."""
        self._factors, self._eliminations = [], []

    def _columns(self, values: Tensor, b: Tensor, pattern: SparsityPattern) -> Tensor:
        """(n, k) → (n, k), with complex columns of a real matrix taken apart."""
        if b.is_complex() and not values.is_complex():
            pairs = torch.view_as_real(b.resolve_conj()).reshape(b.shape[0], -1)
            y = _solve(values, pairs, pattern, self, False, True)
            return torch.view_as_complex(y.reshape(*b.shape, 2).contiguous())
        return _solve(values, b, pattern, self, False, True)

    def _factor(self, pattern: SparsityPattern, values: Tensor) -> _Factor:
        for entry in tuple(self._factors):
            kept, its_values, factor = entry
            # Compared entry by entry: version counters miss what is written through .data.
            alike = kept is pattern and its_values.device == values.device and its_values.dtype == values.dtype
            if alike and torch.equal(its_values, values):
                # Another thread may solve meanwhile: a list is replaced, never searched and then changed by place.
                self._factors = [*(other for other in self._factors if other is not entry), entry]
                return factor
        if not bool(torch.isfinite(values).all()):
            raise SingularMatrixError("the matrix to be solved with holds non-finite values: a diverged coefficient?")
        del self._factors[: max(0, len(self._factors) - self.factors_kept + 1)]
        factor = self._elimination(pattern).factor(values.to("cpu").numpy())
        self._factors.append((pattern, values.detach().clone(), factor))
        return factor

    def _elimination(self, pattern: SparsityPattern) -> _Elimination:
        for kept, elimination in self._eliminations:
            if kept is pattern:
                return elimination
        del self._eliminations[: max(0, len(self._eliminations) - self.factors_kept + 1)]
        elimination = _Elimination(pattern)
        self._eliminations.append((pattern, elimination))
        return elimination

    def __getstate__(self) -> dict[str, Any]:
        return {"factors_kept": self.factors_kept, "_factors": [], "_eliminations": []}


class _Elimination:
    """The order of elimination of one pattern, and where its entries go in the reordered matrix."""

    def __init__(self, pattern: SparsityPattern) -> None:
        n = pattern.shape[0]
        if pattern.nnz >= 2**31:
            raise ValueError(
                f"SuperLU counts in 32 bits, and this matrix has {pattern.nnz} entries: solve it with ConjugateGradient"
            )
        row, column = (index.cpu().numpy().astype(np.int32) for index in (pattern.row, pattern.col))
        self.order: Array | None = None
        if n >= DISSECT_FROM:
            graph = sp.csr_array((np.ones(len(row), dtype=np.int8), (row, column)), shape=(n, n))
            self.order = nested_dissection(sp.csr_array(graph + graph.T)).astype(np.int32)
            rank = np.empty(n, dtype=np.int32)
            rank[self.order] = np.arange(n, dtype=np.int32)
            row, column = rank[row], rank[column]
        entries = sp.coo_array((np.arange(len(row), dtype=np.int32), (row, column)), shape=(n, n)).tocsc()
        entries.sort_indices()
        self.entry, self.indices, self.pointers = entries.data, entries.indices, entries.indptr
        self.shape = (n, n)

    def factor(self, values: Array) -> _Factor:
        matrix = sp.csc_array((values[self.entry], self.indices, self.pointers), shape=self.shape)
        ordering = "MMD_AT_PLUS_A" if self.order is None else "NATURAL"
        unpivoted = {"permc_spec": ordering, "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
        flaw = ""
        for options in (unpivoted, {"permc_spec": "COLAMD"}):
            try:
                factor = _Factor(scipy.sparse.linalg.splu(matrix, **options), self.order)
            except RuntimeError as error:
                flaw = str(error)
                continue
            except MemoryError as error:
                raise MemoryError(
                    f"the factor of this {self.shape[0]}-row matrix does not fit in memory: use ConjugateGradient instead"
                ) from error
            flaw = _flaw(matrix, factor.native)
            if not flaw:
                return factor
        raise SingularMatrixError(f"the matrix is singular ({flaw})")


class _Factor:
    """L U = A, reordered."""

    def __init__(self, native: Any, order: Array | None) -> None:
        self.native = native
        self.order = order

    def solve(self, b: Array, adjoint: bool) -> Array:
        """A⁻¹ b or A⁻ᴴ b for b of shape (n, k)."""
        way = "H" if adjoint else "N"
        if self.order is None:
            result: Array = self.native.solve(np.ascontiguousarray(b), way)
            return result
        result = np.empty_like(b)
        result[self.order] = self.native.solve(b[self.order], way)
        return result


def _flaw(matrix: sp.csc_array, native: Any) -> str:
    """What is wrong with a factor, found by one step of inverse iteration on AᴴA from a fixed random start; "" if nothing."""
    n = matrix.shape[0]
    size = abs(matrix)
    # Rows and columns are scaled to size one: tiny masses beside large ones are no defect.
    scale = np.sqrt(np.maximum(size.max(axis=0).toarray(), size.max(axis=1).toarray()).ravel()) if n else np.ones(0)
    start = np.random.default_rng(0).normal(size=n).astype(matrix.dtype)
    y = native.solve(scale * start)
    residual = np.abs(matrix @ y - scale * start) / scale
    reached = (size @ np.abs(y)) / scale
    if not np.isfinite(y).all():
        return "the solution overflows"
    if n and residual.max() > BACKWARD_ERROR * max(1.0, float(reached.max())):
        return "elimination without a stable order of pivots"
    length = float(np.linalg.norm(scale * y)) or 1.0
    condition = float(np.linalg.norm(scale * native.solve(scale * scale * y / length, "H")))
    if not condition < 1e15:
        return f"its condition number is about {condition:.0e}, and double precision carries 1e16"
    return ""


class _Solve(torch.autograd.Function):
    """y = A⁻¹ b, or A⁻ᴴ b, for values (E,) and b (n, k) of one and the same dtype."""

    @staticmethod
    def forward(
        values: Tensor, b: Tensor, pattern: SparsityPattern, solver: DirectSolver, adjoint: bool, checked: bool
    ) -> Tensor:
        if checked and not bool(torch.isfinite(b).all()):
            bad = ~torch.isfinite(b).all(dim=1)
            raise FieldError(
                f"the right-hand side is not finite at {int(bad.sum())} of {b.shape[0]} nodes, the first is node "
                f"{int(bad.nonzero()[0])}: a diverged step? A solve would spread it to every node that is connected"
            )
        if b.numel() == 0:
            return torch.zeros_like(b)
        factor = solver._factor(pattern, values.detach())
        return torch.from_numpy(factor.solve(b.detach().cpu().resolve_conj().numpy(), adjoint)).to(b.device)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        values, _, *ctx.system = inputs
        ctx.save_for_backward(values, output)
        ctx.save_for_forward(values, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values, y = ctx.saved_tensors
        pattern, solver, adjoint, _ = ctx.system
        # ∂b = A⁻ᴴ g = λ, and ∂A_ij = −λ_i ȳ_j where A may be non-zero.
        grad_b = _solve(values, grads[0], pattern, solver, not adjoint, False)
        grad_values = None
        if ctx.needs_input_grad[0]:
            left, right = (y, grad_b) if adjoint else (grad_b, y)
            grad_values = -_sampled_product(left, right, pattern)
        return grad_values, grad_b if ctx.needs_input_grad[1] else None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, d_values: Tensor | None, d_b: Tensor | None, *_: None) -> Tensor:
        values, y = ctx.saved_tensors
        pattern, solver, adjoint, _ = ctx.system
        right = torch.zeros_like(y) if d_b is None else d_b
        if d_values is not None:
            if adjoint:
                turned = d_values.index_select(0, pattern.transposed_order).conj().resolve_conj()
                right = right - sparse_product(turned, y, pattern.transpose())
            else:
                right = right - sparse_product(d_values, y, pattern)
        return _solve(values, right, pattern, solver, adjoint, False)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], values: Tensor, b: Tensor, *system: Any) -> tuple[Tensor, int]:
        values_dim, b_dim = in_dims[:2]
        if values_dim is None:
            stacked = b.movedim(b_dim or 0, 1)
            y = _solve(values, stacked.reshape(b.shape[1 if b_dim == 0 else 0], -1), *system)
            return y.reshape(stacked.shape), 1
        members = values.movedim(values_dim, 0)
        rights = [b] * info.batch_size if b_dim is None else b.movedim(b_dim, 0)
        return torch.stack([_solve(v, r, *system) for v, r in zip(members, rights, strict=True)]), 0


def _solve(values: Tensor, b: Tensor, pattern: SparsityPattern, solver: DirectSolver, adjoint: bool, checked: bool) -> Tensor:
    if torch._C._functorch.is_legacy_batchedtensor(b):
        raise NotImplementedError(
            "a direct solve cannot take is_grads_batched=True or vectorize=True of torch.autograd: use torch.func.jacrev, or "
            "torch.func.vmap over torch.func.vjp"
        )
    result: Tensor = _Solve.apply(values, b, pattern, solver, adjoint, checked)  # type: ignore[no-untyped-call]
    return result


def _sampled_product(u: Tensor, v: Tensor, pattern: SparsityPattern) -> Tensor:
    """Σ_k u_ik v̄_jk for every entry (i, j); (n, k) × 2 → (E,)."""
    if not u.is_complex():
        return sampled(u, v, pattern.entries)
    # Re u v̄ is a real dot product of interleaved parts, and Im u v̄ = Re (−i u) v̄.
    flat = [torch.view_as_real(w.resolve_conj()).flatten(1) for w in (u, -1j * u, v)]
    return torch.complex(sampled(flat[0], flat[2], pattern.entries), sampled(flat[1], flat[2], pattern.entries))
