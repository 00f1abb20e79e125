"""Squared distances between the nodes at the two ends of every edge, to full precision and in little memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from operators.checks import FieldError, as_field
from operators.kernels import segment_sum
from operators.pattern import SparsityPattern
from operators.sparse import sampled_product, sparse_product


def squared_distance(g: Tensor, x: Tensor, pattern: SparsityPattern) -> Tensor:
    """d²_ij = |g_i − x_j|² at the entries of a pattern, without the (E, c) differences and without cancellation.

    The differences are squared, not |g|² + |x|² − 2 g·x, which in float32 loses every digit of a distance that is 3000 times
    shorter than g is long. One channel is gathered at a time, and derivatives are sparse products with the nodes' own vectors.

    Args:
        g: (..., m, c), real.
        x: (..., n, c), of the same precision and batch.

    Returns:
        (..., E) in the order of `pattern`, differentiable to every order. Half precision accumulates in float32.

    Raises:
        FieldError: g or x do not fit the pattern or each other, or are complex.
    """
    as_field(g, pattern.shape[0], "left field")
    as_field(x, pattern.shape[1], "right field")
    if g.dtype != x.dtype or g.is_complex() or g.shape[:-2] != x.shape[:-2] or g.shape[-1] != x.shape[-1]:
        raise FieldError(
            f"distances need two real fields of one precision, batch and width, not {g.dtype} {tuple(g.shape)} "
            f"and {x.dtype} {tuple(x.shape)}"
        )
    if torch.compiler.is_compiling():
        # The compiler fuses the gathers with the sum, so that nothing of size (E, c) is made there either.
        return (g.index_select(-2, pattern.row) - x.index_select(-2, pattern.col)).square().sum(-1)
    result: Tensor = _SquaredDistance.apply(g, x, pattern)  # type: ignore[no-untyped-call]
    return result


class _SquaredDistance(torch.autograd.Function):
    @staticmethod
    def forward(g: Tensor, x: Tensor, pattern: SparsityPattern) -> Tensor:
        wide = torch.float32 if g.dtype in (torch.float16, torch.bfloat16) else g.dtype
        total = torch.zeros(*g.shape[:-2], pattern.nnz, dtype=wide, device=g.device)
        for left, right in zip(g.to(wide).unbind(-1), x.to(wide).unbind(-1), strict=True):
            difference = left.index_select(-1, pattern.row).sub_(right.index_select(-1, pattern.col))
            total.addcmul_(difference, difference)
        return total.to(g.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        g, x, ctx.pattern = inputs
        ctx.save_for_backward(g, x)
        ctx.save_for_forward(g, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        pattern, (g, x), twice = ctx.pattern, ctx.saved_tensors, 2 * grads[0]
        turned = twice.index_select(-1, pattern.transposed_order)
        grad_g = _pull(twice, g, x, pattern) if ctx.needs_input_grad[0] else None
        return grad_g, _pull(turned, x, g, pattern.transpose()) if ctx.needs_input_grad[1] else None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        g, x = ctx.saved_tensors
        pattern: SparsityPattern = ctx.pattern
        dg, dx = tangents[:2]
        total = pattern.gather_rows((g * dg).sum(-1, keepdim=True)) + pattern.gather_columns((x * dx).sum(-1, keepdim=True))
        return 2 * (total.squeeze(-1) - sampled_product(dg, x, pattern) - sampled_product(g, dx, pattern))

    @staticmethod
    def vmap(info: Any, in_dims: Any, g: Tensor, x: Tensor, pattern: SparsityPattern) -> tuple[Tensor, int]:
        batched = [
            field.expand(info.batch_size, *field.shape) if at is None else field.movedim(at, 0)
            for field, at in zip((g, x), in_dims[:2], strict=True)
        ]
        return squared_distance(batched[0], batched[1], pattern), 0


def _pull(weight: Tensor, g: Tensor, x: Tensor, pattern: SparsityPattern) -> Tensor:
    """Σ_j w_ij (g_i − x_j), (..., m, c)."""
    total = segment_sum(weight[..., None], pattern.row, pattern.crow, None)
    return total * g - sparse_product(weight, x, pattern)
