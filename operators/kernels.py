"""The kernels of a sparse matrix in CSR, and their derivatives of every order and mode: the only place that calls torch's.

Two bilinear maps suffice, because each is the other's derivative (values v of shape (E,), entry e at row i(e), column j(e)):

    product   y_i = Σ_e∈i v_e x_j(e)            sampled   s_e = g_i(e) · x_j(e)

`neuralpde bench operators` measures what else torch offers for the same maps.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from operators.checks import DomainError, FieldError

with warnings.catch_warnings():
    # torch says once in a process that its CSR tensors are in beta; users of ours never meet one.
    warnings.simplefilter("ignore", UserWarning)
    torch.sparse_csr_tensor(torch.tensor([0, 0]), torch.tensor([], dtype=torch.int64), torch.tensor([]), (1, 1))


class Entries(NamedTuple):
    """Where the entries of a matrix are, by rows and (`transposed_*`) by columns; plain int64 tensors.

    `transposed_order` sorts the entries by columns; `inverse_order` undoes it.
    """

    crow: Tensor
    row: Tensor
    col: Tensor
    transposed_crow: Tensor
    transposed_row: Tensor
    transposed_col: Tensor
    transposed_order: Tensor
    inverse_order: Tensor

    def transpose(self) -> Entries:
        """The entries of the transpose."""
        crow, row, col, tcrow, trow, tcol, order, inverse = self
        return Entries(tcrow, trow, tcol, crow, row, col, inverse, order)


def product(values: Tensor, x: Tensor, at: Entries) -> Tensor:
    """y = A x for real values (E,) and x (n, k) of one dtype; → (m, k). Half precision accumulates in float32."""
    _check_alike(values, x)
    if torch.compiler.is_compiling():
        result: Tensor = _compiled_product(values, x, at.crow, at.row, at.col, *at[3:7])
    else:
        result = _Product.apply(values, x, at)  # type: ignore[no-untyped-call]
    return result


def sampled(g: Tensor, x: Tensor, at: Entries) -> Tensor:
    """s_e = g_i(e) · x_j(e) for real g (m, k) and x (n, k) of one dtype; → (E,). Half precision accumulates in float32."""
    _check_alike(g, x)
    if torch.compiler.is_compiling():
        result: Tensor = _compiled_sampled(g, x, at.crow, at.row, at.col, *at[3:7])
    else:
        result = _Sampled.apply(g, x, at)  # type: ignore[no-untyped-call]
    return result


def _check_alike(one: Tensor, other: Tensor) -> None:
    if one.dtype != other.dtype:
        raise FieldError(f"a product of {one.dtype} with {other.dtype}: nothing is converted silently, use .to(dtype) on one")


def _product_kernel(values: Tensor, x: Tensor, crow: Tensor, col: Tensor) -> Tensor:
    if col.numel() == 0 or x.shape[1] == 0:
        return x.new_zeros(crow.numel() - 1, x.shape[1])
    # Of CSR, COO, SciPy, gather-scatter and this kernel, this one is the fastest on a CPU from width 4 up.
    return F.embedding_bag(col, x.contiguous(), crow, mode="sum", per_sample_weights=values, include_last_offset=True)


def _sampled_kernel(g: Tensor, x: Tensor, crow: Tensor, row: Tensor, col: Tensor) -> Tensor:
    if col.numel() == 0 or x.shape[1] == 0:
        return x.new_zeros(col.numel())
    if torch._C._functorch.is_legacy_batchedtensor(g) or torch._C._functorch.is_legacy_batchedtensor(x):
        # torch.autograd.grad(is_grads_batched=True) has a vmap of its own, which knows no CSR and no Function.vmap.
        return (g.index_select(0, row) * x.index_select(0, col)).sum(-1)
    wide = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
    places = torch.sparse_csr_tensor(
        crow, col, torch.zeros(col.numel(), dtype=wide, device=x.device), (g.shape[0], x.shape[0]), check_invariants=False
    )
    result: Tensor = torch.sparse.sampled_addmm(places, g.to(wide), x.to(wide).T, beta=0.0).values().to(x.dtype)
    return result


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(values: Tensor, x: Tensor, at: Entries) -> Tensor:
        return _product_kernel(values, x, at.crow, at.col)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        values, x, ctx.at = inputs
        ctx.save_for_backward(values, x)
        ctx.save_for_forward(values, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grad,) = grads
        values, x = ctx.saved_tensors
        grad_values = sampled(grad, x, ctx.at) if ctx.needs_input_grad[0] else None
        grad_x = None
        if ctx.needs_input_grad[1]:
            grad_x = product(values.index_select(0, ctx.at.transposed_order), grad, ctx.at.transpose())
        return grad_values, grad_x, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        values, x = ctx.saved_tensors
        return product(tangents[0], x, ctx.at) + product(values, tangents[1], ctx.at)

    @staticmethod
    def vmap(info: Any, in_dims: Any, values: Tensor, x: Tensor, at: Entries) -> tuple[Tensor, int]:
        if in_dims[0] is None:
            # One matrix, many fields: the batch becomes further columns.
            columns = x.movedim(in_dims[1], -1)
            y = product(values, columns.flatten(1), at)
            return y.reshape(-1, *columns.shape[1:]), 2
        pairs = zip(_members(values, in_dims[0], info), _members(x, in_dims[1], info), strict=True)
        return torch.stack([product(v, member, at) for v, member in pairs]), 0


class _Sampled(torch.autograd.Function):
    @staticmethod
    def forward(g: Tensor, x: Tensor, at: Entries) -> Tensor:
        return _sampled_kernel(g, x, at.crow, at.row, at.col)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        g, x, ctx.at = inputs
        ctx.save_for_backward(g, x)
        ctx.save_for_forward(g, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grad,) = grads
        g, x = ctx.saved_tensors
        grad_g = product(grad, x, ctx.at) if ctx.needs_input_grad[0] else None
        grad_x = None
        if ctx.needs_input_grad[1]:
            grad_x = product(grad.index_select(0, ctx.at.transposed_order), g, ctx.at.transpose())
        return grad_g, grad_x, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        g, x = ctx.saved_tensors
        return sampled(tangents[0], x, ctx.at) + sampled(g, tangents[1], ctx.at)

    @staticmethod
    def vmap(info: Any, in_dims: Any, g: Tensor, x: Tensor, at: Entries) -> tuple[Tensor, int]:
        pairs = zip(_members(g, in_dims[0], info), _members(x, in_dims[1], info), strict=True)
        return torch.stack([sampled(left, right, at) for left, right in pairs]), 0


def _members(tensor: Tensor, dimension: int | None, info: Any) -> tuple[Tensor, ...]:
    return (tensor,) * info.batch_size if dimension is None else tensor.unbind(dimension)


class _Gather(torch.autograd.Function):
    """y_e = x_index(e) along dimension −2, for entries that `order` (None: already) sorts into segments given by `pointers`."""

    @staticmethod
    def forward(x: Tensor, index: Tensor, pointers: Tensor, order: Tensor | None) -> Tensor:
        return x.index_select(-2, index)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.segments = inputs[1:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return segment_sum(grads[0], *ctx.segments), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return gather(tangents[0], *ctx.segments)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, *segments: Any) -> tuple[Tensor, int]:
        return gather(x.movedim(in_dims[0], 0), *segments), 0


class _SegmentSum(torch.autograd.Function):
    """x_i = Σ over the entries of segment i: the transpose of `_Gather`."""

    @staticmethod
    def forward(y: Tensor, index: Tensor, pointers: Tensor, order: Tensor | None) -> Tensor:
        *lead, entries, c = y.shape
        segments = pointers.numel() - 1
        if y.numel() == 0:
            return y.new_zeros(*lead, segments, c)
        rows = y.reshape(-1, c)
        block = torch.arange(rows.shape[0] // entries, device=y.device)[:, None]
        places = torch.arange(entries, device=y.device) if order is None else order
        bags = (pointers[:-1] + block * entries).flatten()
        total = F.embedding_bag((places + block * entries).flatten(), rows, bags, mode="sum")
        return total.reshape(*lead, segments, c)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.segments = inputs[1:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return gather(grads[0], *ctx.segments), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return segment_sum(tangents[0], *ctx.segments)

    @staticmethod
    def vmap(info: Any, in_dims: Any, y: Tensor, *segments: Any) -> tuple[Tensor, int]:
        return segment_sum(y.movedim(in_dims[0], 0), *segments), 0


def gather(x: Tensor, index: Tensor, pointers: Tensor, order: Tensor | None) -> Tensor:
    """y_e = x_index(e), (..., n, c) → (..., E, c); its gradient is a segmented sum, which is faster than a scatter."""
    if torch.compiler.is_compiling():
        return x.index_select(-2, index)
    if x.is_complex():
        return torch.complex(gather(x.real, index, pointers, order), gather(x.imag, index, pointers, order))
    result: Tensor = _Gather.apply(x, index, pointers, order)  # type: ignore[no-untyped-call]
    return result


def segment_sum(y: Tensor, index: Tensor, pointers: Tensor, order: Tensor | None) -> Tensor:
    """x_i = Σ_e y_e over index(e) = i, (..., E, c) → (..., n, c)."""
    if torch.compiler.is_compiling():
        return y.new_zeros(*y.shape[:-2], pointers.numel() - 1, y.shape[-1]).index_add(-2, index, y)
    if y.is_complex():
        return torch.complex(segment_sum(y.real, index, pointers, order), segment_sum(y.imag, index, pointers, order))
    result: Tensor = _SegmentSum.apply(y, index, pointers, order)  # type: ignore[no-untyped-call]
    return result


class _RowSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(logits: Tensor, at: Entries) -> Tensor:
        # Checked here, where torch.func.vmap has unwrapped the batch.
        if not bool(torch.isfinite(logits).all()):
            raise DomainError("attention logits are not finite: the state or the attention weights have diverged")
        wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        if wide.numel() == 0:
            return logits.clone()
        flat = wide.reshape(-1, wide.shape[-1])
        first = torch.arange(flat.shape[0], device=flat.device)[:, None] * flat.shape[1]
        ends = torch.cat([(at.crow[:-1] + first).flatten(), at.crow.new_full((1,), flat.numel())])
        rows = (at.row + torch.arange(flat.shape[0], device=flat.device)[:, None] * (at.crow.numel() - 1)).flatten()
        flat = flat.flatten()
        # unsafe: the pointers were checked when the pattern was built.
        peak = torch.segment_reduce(flat, "max", offsets=ends, unsafe=True)
        weight = torch.exp(flat - peak.index_select(0, rows))
        total = torch.segment_reduce(weight, "sum", offsets=ends, unsafe=True)
        return (weight / total.index_select(0, rows)).reshape(logits.shape).to(logits.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.at = inputs[1]
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (share,) = ctx.saved_tensors
        return _softmax_slope(share, grads[0], ctx.at), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        (share,) = ctx.saved_tensors
        return _softmax_slope(share, tangents[0], ctx.at)

    @staticmethod
    def vmap(info: Any, in_dims: Any, logits: Tensor, at: Entries) -> tuple[Tensor, int]:
        return row_softmax(logits.movedim(in_dims[0], 0), at), 0


def _softmax_slope(share: Tensor, tangent: Tensor, at: Entries) -> Tensor:
    """The derivative of the softmax, which is symmetric: a ∘ (t − Σ_row a t)."""
    weighted = share * tangent
    mean = gather(segment_sum(weighted[..., None], at.row, at.crow, None), at.row, at.crow, None)
    return weighted - share * mean.squeeze(-1)


def row_softmax(logits: Tensor, at: Entries) -> Tensor:
    """exp(s_e) / Σ over the row of e, (..., E) → (..., E); finite logits of any size. Half precision computes in float32.

    Raises:
        DomainError: a logit is not finite (not checked inside torch.compile).
    """
    if torch.compiler.is_compiling():
        rows = at.row.expand(logits.shape)
        empty = logits.new_zeros(*logits.shape[:-1], at.crow.numel() - 1)
        peak = (empty - torch.inf).scatter_reduce(-1, rows, logits.detach(), "amax")
        weight = torch.exp(logits - peak.index_select(-1, at.row))
        total = empty.index_add(-1, at.row, weight)
        return weight / total.index_select(-1, at.row)
    result: Tensor = _RowSoftmax.apply(logits, at)  # type: ignore[no-untyped-call]
    return result


# torch.compile cannot trace a Function with a jvp, but takes a custom operator into its graph as it is.


@torch.library.custom_op("neuralpde::product", mutates_args=())
def _compiled_product(
    values: Tensor, x: Tensor, crow: Tensor, row: Tensor, col: Tensor, tcrow: Tensor, trow: Tensor, tcol: Tensor, order: Tensor
) -> Tensor:
    return _product_kernel(values, x, crow, col)


@torch.library.custom_op("neuralpde::sampled", mutates_args=())
def _compiled_sampled(
    g: Tensor, x: Tensor, crow: Tensor, row: Tensor, col: Tensor, tcrow: Tensor, trow: Tensor, tcol: Tensor, order: Tensor
) -> Tensor:
    return _sampled_kernel(g, x, crow, row, col)


@_compiled_product.register_fake
def _(values: Tensor, x: Tensor, crow: Tensor, *rest: Tensor) -> Tensor:
    return x.new_empty(crow.shape[0] - 1, x.shape[1])


@_compiled_sampled.register_fake
def _(g: Tensor, x: Tensor, crow: Tensor, row: Tensor, *rest: Tensor) -> Tensor:
    return x.new_empty(row.shape[0])


def _remember(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _product_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    values, x, crow, row, col, tcrow, trow, tcol, order = ctx.saved_tensors
    at, turned = (crow, row, col, tcrow, trow, tcol, order), (tcrow, trow, tcol, crow, row, col, order)
    grad_values = _compiled_sampled(grad, x, *at) if ctx.needs_input_grad[0] else None
    grad_x = _compiled_product(values.index_select(0, order), grad, *turned) if ctx.needs_input_grad[1] else None
    return grad_values, grad_x, *(None,) * 7


def _sampled_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    g, x, crow, row, col, tcrow, trow, tcol, order = ctx.saved_tensors
    at, turned = (crow, row, col, tcrow, trow, tcol, order), (tcrow, trow, tcol, crow, row, col, order)
    grad_g = _compiled_product(grad, x, *at) if ctx.needs_input_grad[0] else None
    grad_x = _compiled_product(grad.index_select(0, order), g, *turned) if ctx.needs_input_grad[1] else None
    return grad_g, grad_x, *(None,) * 7


_compiled_product.register_autograd(_product_backward, setup_context=_remember)
_compiled_sampled.register_autograd(_sampled_backward, setup_context=_remember)
