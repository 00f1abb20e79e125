"""Sparse matrices with fixed or learned values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from operators.checks import DomainError, as_field, as_index, check_finite, real_dtype
from operators.kernels import product, sampled
from operators.operator import Operator
from operators.pattern import SparsityPattern

# From this width on, one product a batch member costs less than gathering the batch into columns.
_WIDE = 32


def sparse_product(values: Tensor, x: Tensor, pattern: SparsityPattern) -> Tensor:
    """y_i = Σ_j A_ij x_j for values (E,) shared by the batch or (..., E) of its own, real or complex.

    Args:
        values: (E,) or (..., E), in the order of `pattern`.
        x: (..., n, c).

    Returns:
        (..., m, c); complex if either argument is. Half precision accumulates in float32.

    Raises:
        FieldError: x does not fit the pattern, or the two are of different precision.
    """
    as_field(x, pattern.shape[1])
    if values.is_complex():
        by_real, by_imag = sparse_product(values.real, x, pattern), sparse_product(values.imag, x, pattern)
        if x.is_complex():
            return torch.complex(by_real.real - by_imag.imag, by_real.imag + by_imag.real)
        return torch.complex(by_real, by_imag)
    if x.is_complex():
        pairs = torch.view_as_real(x.resolve_conj()).flatten(-2)
        y = sparse_product(values, pairs, pattern)
        return torch.view_as_complex(y.reshape(*y.shape[:-1], x.shape[-1], 2).contiguous())
    if values.ndim == 1:
        return _shared_values(values, x, pattern)
    batch = _broadcast(values.shape[:-1], x.shape[:-2])
    if math.prod(batch) == 0:
        return x.new_zeros(*batch, pattern.shape[0], x.shape[-1])
    values, x = values.expand(*batch, -1), x.expand(*batch, -1, -1)
    if torch.compiler.is_compiling():
        members = zip(values.flatten(0, -2).unbind(), x.flatten(0, -3).unbind(), strict=True)
        stacked = torch.stack([product(v, member, pattern.entries) for v, member in members])
        return stacked.reshape(*batch, *stacked.shape[1:])
    tiled = product(values.flatten(), x.flatten(0, -2), pattern.tile(math.prod(batch)).entries)
    return tiled.reshape(*batch, pattern.shape[0], x.shape[-1])


def _shared_values(values: Tensor, x: Tensor, pattern: SparsityPattern) -> Tensor:
    if x.ndim == 2:
        return product(values, x, pattern.entries)
    if x.shape[-1] >= _WIDE and x.numel():
        members = [product(values, member, pattern.entries) for member in x.flatten(0, -3).unbind()]
        return torch.stack(members).reshape(*x.shape[:-2], pattern.shape[0], x.shape[-1])
    columns = x.movedim(-2, 0)
    y = product(values, columns.flatten(1), pattern.entries)
    return y.reshape(pattern.shape[0], *columns.shape[1:]).movedim(0, -2)


def sampled_product(g: Tensor, x: Tensor, pattern: SparsityPattern) -> Tensor:
    """s_ij = g_i · x_j at the entries of a pattern: (g xᵀ), sampled, without the (E, c) products it sums.

    Args:
        g: (..., m, c), real or complex (not conjugated).
        x: (..., n, c).

    Returns:
        (..., E) in the order of `pattern`. Half precision accumulates in float32.

    Raises:
        FieldError: g or x do not fit the pattern, or the two are of different precision.
    """
    as_field(g, pattern.shape[0], "left field")
    as_field(x, pattern.shape[1], "right field")
    if g.is_complex() or x.is_complex():
        gr, gi = (g.real, g.imag) if g.is_complex() else (g, torch.zeros_like(g))
        xr, xi = (x.real, x.imag) if x.is_complex() else (x, torch.zeros_like(x))
        both = torch.cat([gr, gi], dim=-1)
        real = sampled_product(both, torch.cat([xr, -xi], dim=-1), pattern)
        return torch.complex(real, sampled_product(both, torch.cat([xi, xr], dim=-1), pattern))
    if g.ndim == x.ndim == 2:
        return sampled(g, x, pattern.entries)
    batch = _broadcast(g.shape[:-2], x.shape[:-2])
    if math.prod(batch) == 0:
        return x.new_zeros(*batch, pattern.nnz)
    g, x = g.expand(*batch, -1, -1), x.expand(*batch, -1, -1)
    if torch.compiler.is_compiling():
        members = zip(g.flatten(0, -3).unbind(), x.flatten(0, -3).unbind(), strict=True)
        return torch.stack([sampled(left, right, pattern.entries) for left, right in members]).reshape(*batch, pattern.nnz)
    tiled = sampled(g.flatten(0, -2), x.flatten(0, -2), pattern.tile(math.prod(batch)).entries)
    return tiled.reshape(*batch, pattern.nnz)


def _broadcast(one: torch.Size, other: torch.Size) -> torch.Size:
    shape: torch.Size = torch.broadcast_shapes(one, other)  # type: ignore[no-untyped-call]
    return shape


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
        """Build from any SciPy sparse matrix.

        Raises:
            DomainError: a CSR, CSC or BSR matrix whose arrays do not fit together, or the reasons of `from_entries`.
        """
        given: Any = matrix
        if hasattr(given, "check_format"):
            # SciPy's conversions read and write out of bounds where row pointers lie.
            if given.indptr.dtype.kind not in "iu" or given.indices.dtype.kind not in "iu":
                raise DomainError("this SciPy matrix is damaged (its indices are no integers): build it anew from its entries")
            try:
                given.check_format(full_check=True)
            except ValueError as error:
                raise DomainError(f"this SciPy matrix is damaged ({error}): build it anew from its entries") from error
        coo: Any = sp.coo_array(matrix)  # type: ignore[call-overload]
        rows, columns = (torch.from_numpy(np.asarray(i, dtype=np.int64)) for i in coo.coords)
        values = torch.from_numpy(np.ascontiguousarray(coo.data))
        shape = (int(coo.shape[0]), int(coo.shape[1]))
        return cls.from_entries(rows, columns, values.to(dtype or values.dtype), shape)

    def _reference(self) -> Tensor:
        return self.values

    def forward(self, x: Tensor) -> Tensor:
        return sparse_product(self.values, x, self.pattern)

    def __matmul__(self, x: Any) -> Any:
        """A @ x, or the composition A @ B with another sparse operator, which is applied factor by factor."""
        return Composition(self, x) if isinstance(x, (SparseOperator, Composition)) else super().__matmul__(x)

    # NumPy scalars then leave the product to us, instead of making an array of objects.
    __array_ufunc__ = None

    def __mul__(self, factor: Tensor | complex) -> SparseOperator:
        """s A, for a number or a scalar tensor, which may be learned."""
        if isinstance(factor, Tensor) and factor.ndim > 0:
            raise DomainError(f"a factor must be one number, not of shape {tuple(factor.shape)}: scaled(left, right) scales rows")
        return SparseOperator(self.pattern, self.values * factor)

    __rmul__ = __mul__

    def __neg__(self) -> SparseOperator:
        return SparseOperator(self.pattern, -self.values)

    def __add__(self, other: SparseOperator) -> SparseOperator:
        """A + B, on the union of their patterns."""
        if not isinstance(other, SparseOperator):
            return NotImplemented
        if self.shape != other.shape or real_dtype(self.dtype) != real_dtype(other.dtype):
            raise DomainError(f"operators of {self.shape}, {self.dtype} and {other.shape}, {other.dtype} have no sum")
        one, two = self.values, other.values
        mine, its = self.pattern, other.pattern
        if mine is its or (torch.equal(mine.row, its.row) and torch.equal(mine.col, its.col)):
            return SparseOperator(mine, one + two)
        rows, columns = torch.cat([mine.row, its.row]), torch.cat([mine.col, its.col])
        key, place = torch.unique(rows * self.shape[1] + columns, return_inverse=True)
        union = SparsityPattern(key // self.shape[1], key % self.shape[1], self.shape)
        batch = _broadcast(one.shape[:-1], two.shape[:-1])
        both = torch.cat([one.expand(*batch, -1), two.expand(*batch, -1)], dim=-1)
        return SparseOperator(union, both.new_zeros(*batch, key.numel()).index_add(-1, place, both))

    def __sub__(self, other: SparseOperator) -> SparseOperator:
        return self + -other

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
        values = self.values.detach().to("cpu", wide, copy=True).numpy()
        columns, rows = (index.to("cpu", copy=True).numpy() for index in (self.pattern.col, self.pattern.crow))
        return sp.csr_array((values, columns, rows), shape=self.shape)

    def norm_bound(self) -> float:
        """√(‖A‖₁ ‖A‖_∞) ≥ ‖A‖₂."""
        size = SparseOperator(self.pattern, self.values.detach().abs())
        rows, columns = size.row_sums(), size.adjoint().row_sums()
        if rows.numel() == 0 or columns.numel() == 0:
            return 0.0
        return float((rows.max() * columns.max()).sqrt())

    def extra_repr(self) -> str:
        return f"shape={self.shape}, nnz={self.pattern.nnz}, dtype={self.values.dtype}"


class Composition(Operator):
    """A B, applied factor by factor: (A @ B) @ x = A @ (B @ x). Its matrix, which may be far less sparse, is never made."""

    def __init__(self, left: SparseOperator | Composition, right: SparseOperator | Composition) -> None:
        super().__init__()
        if left.shape[1] != right.shape[0] or real_dtype(left.dtype) != real_dtype(right.dtype):
            raise DomainError(f"operators of {left.shape}, {left.dtype} and {right.shape}, {right.dtype} have no product")
        self.left, self.right = left, right
        self.shape = (left.shape[0], right.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.left(self.right(x))
        return result

    def __matmul__(self, x: Any) -> Any:
        """(A B) x, or the composition with one more."""
        return Composition(self, x) if isinstance(x, (SparseOperator, Composition)) else super().__matmul__(x)

    def adjoint(self) -> Composition:
        """Bᴴ Aᴴ."""
        return Composition(self.right.adjoint(), self.left.adjoint())

    def norm_bound(self) -> float:
        """‖A‖ ‖B‖, each bounded."""
        return self.left.norm_bound() * self.right.norm_bound()
