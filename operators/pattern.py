"""Where a sparse matrix may be non-zero."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from operators.checks import DomainError, as_index
from operators.kernels import Entries, gather, segment_sum


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
    transposed_row: Tensor
    transposed_col: Tensor
    transposed_order: Tensor
    inverse_order: Tensor
    _tiles: dict[int, SparsityPattern]
    _entries: Entries | None

    def __init__(self, rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> None:
        super().__init__()
        rows = as_index(rows[None], "rows", 1, None, shape[0])[0]
        columns = as_index(columns[None], "columns", 1, None, shape[1])[0]
        key = rows * shape[1] + columns
        order = torch.arange(key.numel(), device=key.device)
        if bool((key[1:] < key[:-1]).any()):
            key, order = torch.sort(key, stable=True)
        if bool((key[1:] == key[:-1]).any()):
            raise DomainError("a sparsity pattern names the same entry twice: sum repeated entries first")
        row, col = rows[order], columns[order]
        transposed_order = torch.argsort(col, stable=True)
        inverse_order = torch.empty_like(order)
        inverse_order[transposed_order] = torch.arange(order.numel(), device=order.device)
        self._hold(
            shape,
            order,
            Entries(
                _row_pointers(row, shape[0]),
                row,
                col,
                _row_pointers(col, shape[1]),
                col[transposed_order],
                row[transposed_order],
                transposed_order,
                inverse_order,
            ),
        )

    def _hold(self, shape: tuple[int, int], order: Tensor, entries: Entries) -> None:
        self.shape = shape
        self.register_buffer("order", order, persistent=False)
        for name, value in entries._asdict().items():
            self.register_buffer(name, value, persistent=False)
        self._forget()

    def _forget(self) -> None:
        """Drop what can be derived again: a move to another device, a copy and a pickle must not keep the old."""
        self.__dict__["_tiles"] = {}
        self.__dict__["_joined"] = self.__dict__["_transpose"] = self.__dict__["_entries"] = None

    @property
    def nnz(self) -> int:
        """The number of stored entries."""
        return self.col.numel()

    @property
    def entries(self) -> Entries:
        """The index tensors, as the kernels take them."""
        kept: Entries | None = self._entries
        if kept is None:
            # Kept, because eight look-ups of buffers cost a product on a small mesh a fifth of its time.
            self.__dict__["_entries"] = kept = Entries(*(getattr(self, name) for name in Entries._fields))
        return kept

    def transpose(self) -> SparsityPattern:
        """The pattern of the transpose; its values are values[transposed_order]."""
        kept = self.__dict__["_transpose"]
        turned: SparsityPattern | None = kept() if isinstance(kept, weakref.ref) else kept
        if turned is None:
            turned = SparsityPattern.__new__(SparsityPattern)
            nn.Module.__init__(turned)
            turned._hold((self.shape[1], self.shape[0]), self.transposed_order, self.entries.transpose())
            self.__dict__["_transpose"] = turned
            # The way back is weak, so that the pair is freed without the cycle collector.
            turned.__dict__["_transpose"] = weakref.ref(self)
        return turned

    def tile(self, copies: int) -> SparsityPattern:
        """The block-diagonal pattern of `copies` copies, for a batch in which every member has its own values."""
        if copies not in self._tiles:
            with plainly():
                block = torch.arange(copies, device=self.col.device)[:, None]
                rows, columns = self.row + block * self.shape[0], self.col + block * self.shape[1]
                shape = (copies * self.shape[0], copies * self.shape[1])
                # One size at a time: a training loop repeats one batch size, a growing cache would be a leak.
                self._tiles.clear()
                self._tiles[copies] = SparsityPattern(rows.flatten(), columns.flatten(), shape)
        return self._tiles[copies]

    def with_diagonal(self) -> SparsityPattern:
        """The square pattern joined with its absent diagonal; its `order` indexes [these entries, diagonal]."""
        if self._joined is None:
            with plainly():
                nodes = torch.arange(self.shape[0], device=self.col.device)
                joined = SparsityPattern(torch.cat([self.row, nodes]), torch.cat([self.col, nodes]), self.shape)
            self.__dict__["_joined"] = joined
        kept: SparsityPattern = self.__dict__["_joined"]
        return kept

    def gather_rows(self, x: Tensor) -> Tensor:
        """x_i for every entry (i, j); (..., m, c) → (..., E, c). Its gradient is a segmented sum, not a scatter."""
        return gather(x, self.row, self.crow, None)

    def gather_columns(self, x: Tensor) -> Tensor:
        """x_j for every entry (i, j); (..., n, c) → (..., E, c)."""
        return gather(x, self.col, self.transposed_crow, self.transposed_order)

    def sum_rows(self, y: Tensor) -> Tensor:
        """Σ_j y_ij over the entries of each row; (..., E, c) → (..., m, c)."""
        return segment_sum(y, self.row, self.crow, None)

    def _apply(self, fn: Any, recurse: bool = True) -> SparsityPattern:
        self._forget()
        moved: SparsityPattern = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tiles": {}, "_joined": None, "_transpose": None, "_entries": None}


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Kept tensors must be plain, also when they are first needed inside torch.func.grad or inference mode."""
    with torch._C._DisableFuncTorch(), torch.inference_mode(False), torch.no_grad():
        yield


def _row_pointers(sorted_rows: Tensor, count: int) -> Tensor:
    counts = torch.bincount(sorted_rows, minlength=count)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
