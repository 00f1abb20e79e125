"""Sparse matrices with fixed or learned values: the only place that calls sparse kernels."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.checks import DomainError, as_index, check_finite
from operators.operator import Operator


class SparsityPattern(nn.Module):
    """Where a sparse matrix may be non-zero, in canonical CSR: rows sorted, columns sorted and distinct within a row.

    Args:
        rows, columns: int64 (E,), any order, no repeated pair, entries in range.
        shape: (m, n).

    `order` maps the given entries to the stored ones: stored = given[order].
    """

    crow: Tensor
    row: Tensor
    col: Tensor
    order: Tensor
    transposed_crow: Tensor
    transposed_order: Tensor

    def __init__(self, rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> None:
        super().__init__()
        rows = as_index(rows[None], "rows", 1, None, shape[0])[0]
        columns = as_index(columns[None], "columns", 1, None, shape[1])[0]
        self.shape = shape
        key = rows * shape[1] + columns
        key, order = torch.sort(key, stable=True)
        if bool((key[1:] == key[:-1]).any()):
            raise DomainError("a sparsity pattern names the same entry twice: sum repeated entries first")
        row, col = rows[order], columns[order]
        transposed_order = torch.argsort(col * shape[0] + row, stable=True)
        for name, value in {
            "crow": _row_pointers(row, shape[0]),
            "row": row,
            "col": col,
            "order": order,
            "transposed_crow": _row_pointers(col[transposed_order], shape[1]),
            "transposed_order": transposed_order,
        }.items():
            self.register_buffer(name, value, persistent=False)
        self._tiles: dict[int, SparsityPattern] = {}
        self._joined: SparsityPattern | None = None
        self._transpose: SparsityPattern | weakref.ref[SparsityPattern] | None = None

    @property
    def nnz(self) -> int:
        """The number of stored entries."""
        return self.col.numel()

    def transpose(self) -> SparsityPattern:
        """The pattern of the transpose; its values are values[transposed_order]."""
        if isinstance(self._transpose, weakref.ref):
            alive = self._transpose()
            if alive is not None and alive.col.device == self.col.device:
                return alive
        elif self._transpose is not None and self._transpose.col.device == self.col.device:
            return self._transpose
        with torch.no_grad():
            result = SparsityPattern(self.col, self.row, (self.shape[1], self.shape[0]))
        object.__setattr__(self, "_transpose", result)
        # The way back is weak, so that the pair is freed without the cycle collector.
        object.__setattr__(result, "_transpose", weakref.ref(self))
        return result

    def tile(self, copies: int) -> SparsityPattern:
        """The block-diagonal pattern of `copies` copies, for a batch in which every member has its own values."""
        cached = self._tiles.get(copies)
        if cached is None or cached.col.device != self.col.device:
            block = torch.arange(copies, device=self.col.device)[:, None]
            rows, columns = self.row + block * self.shape[0], self.col + block * self.shape[1]
            shape = (copies * self.shape[0], copies * self.shape[1])
            # One size at a time: a training loop repeats one batch size, a growing cache would be a leak.
            self._tiles.clear()
            cached = self._tiles[copies] = SparsityPattern(rows.flatten(), columns.flatten(), shape)
        return cached

    def with_diagonal(self) -> SparsityPattern:
        """The square pattern joined with its absent diagonal; its `order` indexes [these entries, diagonal]."""
        cached = self._joined
        if cached is None or cached.col.device != self.col.device:
            nodes = torch.arange(self.shape[0], device=self.col.device)
            cached = SparsityPattern(torch.cat([self.row, nodes]), torch.cat([self.col, nodes]), self.shape)
            object.__setattr__(self, "_joined", cached)
        return cached

    def gather_rows(self, x: Tensor) -> Tensor:
        """x_i for every entry (i, j); (..., m, c) → (..., E, c). Its gradient is a segmented sum, not a scatter."""
        return _gather(x, self.row, self.crow, None)

    def gather_columns(self, x: Tensor) -> Tensor:
        """x_j for every entry (i, j); (..., n, c) → (..., E, c)."""
        return _gather(x, self.col, self.transposed_crow, self.transposed_order)

    def sum_rows(self, y: Tensor) -> Tensor:
        """Σ_j y_ij over the entries of each row; (..., E, c) → (..., m, c)."""
        return _segment_sum(y, self.row, self.crow, None)

    def __deepcopy__(self, memo: dict[int, Any]) -> SparsityPattern:
        copy = SparsityPattern(self.row.clone(), self.col.clone(), self.shape)
        copy.order.copy_(self.order)
        return copy

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tiles": {}, "_joined": None, "_transpose": None}


class _Gather(torch.autograd.Function):
    """y_e = x_index(e), for entries that `order` (None: already) sorts into segments given by `pointers`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, pointers: Tensor, order: Tensor | None) -> Tensor:
        ctx.segments = index, pointers, order
        return x.index_select(-2, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None]:
        return _segment_sum(grads[0], *ctx.segments), None, None, None


class _SegmentSum(torch.autograd.Function):
    """x_i = Σ over the entries of segment i: the transpose of `_Gather`."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, index: Tensor, pointers: Tensor, order: Tensor | None) -> Tensor:
        ctx.segments = index, pointers, order
        *lead, entries, c = y.shape
        segments = pointers.numel() - 1
        copies = int(np.prod(lead))
        if copies * entries * c == 0:
            return y.new_zeros(*lead, segments, c)
        block = torch.arange(copies, device=y.device)[:, None]
        places = torch.arange(entries, device=y.device) if order is None else order
        bags = (pointers[:-1] + block * entries).flatten()
        total = F.embedding_bag((places + block * entries).flatten(), y.reshape(-1, c), bags, mode="sum")
        return total.reshape(*lead, segments, c)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None]:
        return _gather(grads[0], *ctx.segments), None, None, None


def _gather(x: Tensor, index: Tensor, pointers: Tensor, order: Tensor | None) -> Tensor:
    if x.is_complex():
        return torch.complex(_gather(x.real, index, pointers, order), _gather(x.imag, index, pointers, order))
    result: Tensor = _Gather.apply(x, index, pointers, order)  # type: ignore[no-untyped-call]
    return result


def _segment_sum(y: Tensor, index: Tensor, pointers: Tensor, order: Tensor | None) -> Tensor:
    if y.is_complex():
        return torch.complex(_segment_sum(y.real, index, pointers, order), _segment_sum(y.imag, index, pointers, order))
    result: Tensor = _SegmentSum.apply(y, index, pointers, order)  # type: ignore[no-untyped-call]
    return result


def _row_pointers(sorted_rows: Tensor, count: int) -> Tensor:
    counts = torch.bincount(sorted_rows, minlength=count)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


class _Product(torch.autograd.Function):
    """y = A x for real values (E,) and real x (n, k); differentiable in both, to any order."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, x: Tensor, pattern: SparsityPattern) -> Tensor:
        ctx.save_for_backward(values, x)
        ctx.pattern = pattern
        if pattern.nnz == 0 or x.shape[1] == 0:
            return x.new_zeros(pattern.shape[0], x.shape[1])
        # Of CSR, index_add and this kernel, this one was the fastest on one CPU thread from width 64 up, and about as fast below.
        return F.embedding_bag(
            pattern.col, x.contiguous(), pattern.crow, mode="sum", per_sample_weights=values, include_last_offset=True
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grad,) = grads
        values, x = ctx.saved_tensors
        pattern: SparsityPattern = ctx.pattern
        grad_values = grad_x = None
        if ctx.needs_input_grad[0]:
            grad_values = (grad.index_select(0, pattern.row) * x.index_select(0, pattern.col)).sum(1)
        if ctx.needs_input_grad[1]:
            transposed = values.index_select(0, pattern.transposed_order)
            grad_x = _product(transposed, grad, pattern.transpose())
        return grad_values, grad_x, None


def _product(values: Tensor, x: Tensor, pattern: SparsityPattern) -> Tensor:
    result: Tensor = _Product.apply(values, x, pattern)  # type: ignore[no-untyped-call]
    return result


def sparse_product(values: Tensor, x: Tensor, pattern: SparsityPattern) -> Tensor:
    """y_i = Σ_j A_ij x_j for values (E,) shared by the batch or (..., E) of its own, real or complex.

    Args:
        values: (E,) or (..., E), in the order of `pattern`.
        x: (..., n, c).

    Returns:
        (..., m, c); complex if either argument is.
    """
    if values.is_complex():
        return torch.complex(
            *_complex_parts(sparse_product(values.real, x, pattern), sparse_product(values.imag, x, pattern))
        )
    if x.is_complex():
        *lead, n, c = x.shape
        pairs = torch.view_as_real(x.resolve_conj()).reshape(*lead, n, 2 * c)
        y = sparse_product(values, pairs, pattern)
        return torch.view_as_complex(y.reshape(*y.shape[:-1], c, 2).contiguous())
    if values.ndim == 1:
        return _shared_values(values, x, pattern)
    batch = np.broadcast_shapes(tuple(values.shape[:-1]), tuple(x.shape[:-2]))
    copies, c = int(np.prod(batch)), x.shape[-1]
    flat_values = values.expand(*batch, values.shape[-1]).reshape(-1)
    flat_x = x.expand(*batch, *x.shape[-2:]).reshape(-1, c)
    if copies == 0:
        return x.new_zeros(*batch, pattern.shape[0], c)
    return _product(flat_values, flat_x, pattern.tile(copies)).reshape(*batch, pattern.shape[0], c)


def _complex_parts(by_real: Tensor, by_imag: Tensor) -> tuple[Tensor, Tensor]:
    if by_real.is_complex():
        return by_real.real - by_imag.imag, by_real.imag + by_imag.real
    return by_real, by_imag


def _shared_values(values: Tensor, x: Tensor, pattern: SparsityPattern) -> Tensor:
    if x.ndim == 2:
        return _product(values, x, pattern)
    *lead, n, c = x.shape
    columns = x.movedim(-2, 0).reshape(n, -1)
    y = _product(values, columns, pattern)
    return y.reshape(pattern.shape[0], *lead, c).movedim(0, -2)


class SparseOperator(Operator):
    """A sparse matrix A of shape (m, n), y_i = Σ_j A_ij x_j, with fixed or learned values.

    Args:
        pattern: where A may be non-zero.
        values: (E,) in the pattern's order, or (..., E) with one matrix a batch member. An `nn.Parameter` is learned
            and saved; any other tensor is a buffer that checkpoints do not carry.

    Raises:
        DomainError: values of the wrong length or dtype. `from_entries` refuses non-finite ones too.
    """

    values: Tensor

    def __init__(self, pattern: SparsityPattern, values: Tensor) -> None:
        super().__init__()
        if values.ndim == 0 or values.shape[-1] != pattern.nnz:
            raise DomainError(f"values must have shape (..., {pattern.nnz}), not {tuple(values.shape)}")
        if not (values.is_floating_point() or values.is_complex()):
            raise DomainError(f"values must be floating point or complex, not {values.dtype}")
        self.pattern = pattern
        self.shape = pattern.shape
        if isinstance(values, nn.Parameter):
            self.register_parameter("values", values)
        else:
            self.register_buffer("values", values, persistent=False)

    @classmethod
    def from_entries(cls, rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> SparseOperator:
        """Build from entries (E,) in any order; repeated entries are summed (differentiably)."""
        check_finite(values, "values")
        rows = as_index(rows[None], "rows", 1, None, shape[0])[0]
        columns = as_index(columns[None], "columns", 1, None, shape[1])[0]
        key, inverse = torch.unique(rows * shape[1] + columns, return_inverse=True)
        pattern = SparsityPattern(key // shape[1], key % shape[1], shape)
        return cls(pattern, values.new_zeros(key.numel()).index_add(0, inverse, values))

    @classmethod
    def from_scipy(cls, matrix: sp.spmatrix | sp.sparray, dtype: torch.dtype | None = None) -> SparseOperator:
        """Build from any SciPy sparse matrix."""
        coo: Any = sp.coo_array(matrix)  # type: ignore[call-overload]
        rows, columns = (torch.from_numpy(np.asarray(i, dtype=np.int64)) for i in coo.coords)
        values = torch.from_numpy(np.ascontiguousarray(coo.data))
        shape = (int(coo.shape[0]), int(coo.shape[1]))
        return cls.from_entries(rows, columns, values.to(dtype or values.dtype), shape)

    def forward(self, x: Tensor) -> Tensor:
        return sparse_product(self.values, x, self.pattern)

    def adjoint(self) -> SparseOperator:
        """The conjugate transpose Aᴴ."""
        values = self.values.index_select(-1, self.pattern.transposed_order)
        return SparseOperator(self.pattern.transpose(), values.conj().resolve_conj())

    def row_sums(self) -> Tensor:
        """Σ_j A_ij, of shape (..., m)."""
        ones = torch.ones(self.shape[1], 1, dtype=self.values.dtype, device=self.values.device)
        return sparse_product(self.values, ones, self.pattern).squeeze(-1)

    def diagonal(self) -> Tensor:
        """A_ii of a square matrix, of shape (..., n)."""
        on_diagonal = self.pattern.row == self.pattern.col
        result = self.values.new_zeros(*self.values.shape[:-1], self.shape[0])
        return result.index_add(-1, self.pattern.row[on_diagonal], self.values[..., on_diagonal])

    def scaled(self, left: Tensor, right: Tensor) -> SparseOperator:
        """diag(left) A diag(right), with left of shape (m,) and right of shape (n,)."""
        # left × right first: the product commutes, so a symmetric matrix scaled alike on both sides stays symmetric bitwise.
        return SparseOperator(self.pattern, self.values * (left[self.pattern.row] * right[self.pattern.col]))

    def to_scipy(self) -> sp.csr_array:
        """A copy in float64 (complex128) as a SciPy CSR array."""
        wide = torch.complex128 if self.values.is_complex() else torch.float64
        values = self.values.detach().to("cpu", wide).numpy()
        pattern = self.pattern
        return sp.csr_array((values, pattern.col.cpu().numpy(), pattern.crow.cpu().numpy()), shape=self.shape)

    def norm_bound(self) -> float:
        """√(‖A‖₁ ‖A‖_∞) ≥ ‖A‖₂."""
        size = SparseOperator(self.pattern, self.values.detach().abs())
        rows, columns = size.row_sums(), size.adjoint().row_sums()
        if rows.numel() == 0 or columns.numel() == 0:
            return 0.0
        return float((rows.max() * columns.max()).sqrt())

    def extra_repr(self) -> str:
        return f"shape={self.shape}, nnz={self.pattern.nnz}, dtype={self.values.dtype}"
