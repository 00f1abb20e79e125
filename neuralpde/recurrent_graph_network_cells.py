"""Affine maps and gated recurrent units over known sequences, with their derivatives written out."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# oneDNN's product, which `torch.compile` calls as well. On processors that MKL does not know it is twice as fast as `addmm`.
_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None  # type: ignore[no-untyped-call]


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None, rectified: bool = False) -> Tensor:
    """y = W x + b, or max(W x + b, 0); (..., a) → (..., b). Differentiable once.

    Args:
        weight: W, (b, a).
        bias: (b,).
    """
    result: Tensor = _Affine.apply(x, weight, bias, rectified)  # type: ignore[no-untyped-call]
    return result


class GatedSequence(nn.Module):
    """A gated recurrent unit over T frames whose input parts are known already (Cho et al. 2014, as `torch.nn.GRUCell`).

        r = σ(i_r + U_r h + c_r),  z = σ(i_z + U_z h + c_z),  n = tanh(i_n + r (U_n h + c_n)),  h ← n + z (h − n)

    with i = W x + b in (T, N, 3 width). Where x is gathered from nodes, W may be applied before the gathering, so i is formed by
    the caller with `weight` and `bias`. |h| ≤ 1 for ever if it is so at the start.

    Args:
        inputs: the size of x.
        width: of h.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(3 * width, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(3 * width).uniform_(-bound, bound))
        self.recurrent_weight = nn.Parameter(torch.empty(3 * width, width).uniform_(-bound, bound))
        self.recurrent_bias = nn.Parameter(torch.empty(3 * width).uniform_(-bound, bound))

    @property
    def width(self) -> int:
        """The size of the state."""
        return self.recurrent_weight.shape[1]

    def forward(self, given: Tensor, state: Tensor | None = None) -> Tensor:
        """The states after each frame; i (T, ..., 3 width), the state before (..., width) or zero → (T, ..., width)."""
        if state is None:
            state = given.new_zeros(*given.shape[1:-1], self.width)
        path: Tensor = _Gated.apply(given, state, self.recurrent_weight, self.recurrent_bias)  # type: ignore[no-untyped-call]
        return path


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None, rectified: bool = False) -> Tensor:
    """x Wᵀ + b for matrices."""
    if _ONEDNN is not None and x.dtype == torch.float32 and x.device.type == "cpu" and x.numel():
        result: Tensor = _ONEDNN(_dense(x), _dense(weight), bias, "relu" if rectified else "none", [], "")
        return result
    y = x @ weight.T if bias is None else torch.addmm(bias, x, weight.T)
    return y.relu_() if rectified else y


def _dense(matrix: Tensor) -> Tensor:
    """The matrix without holes between its rows or columns: with them oneDNN takes a path that is a thousand times slower."""
    return matrix if matrix.is_contiguous() or matrix.T.is_contiguous() else matrix.contiguous()


def _slope(x: Tensor, grad: Tensor) -> Tensor:
    """dL/dW of x Wᵀ: gᵀ x."""
    return _product(x.T, grad.T).T


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rectified: bool) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        y = _product(flat, weight, bias, rectified)
        ctx.rectified, ctx.shape = rectified, x.shape
        ctx.save_for_backward(flat, weight, y if rectified else None)
        return y.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y = ctx.saved_tensors
        grad = grad.reshape(-1, weight.shape[0])
        if ctx.rectified:
            grad = torch.ops.aten.threshold_backward(grad, y, 0)
        by_x, by_weight, by_bias, _ = ctx.needs_input_grad
        return (
            _product(grad, weight.T).view(ctx.shape) if by_x else None,
            _slope(x, grad) if by_weight else None,
            grad.sum(0) if by_bias else None,
            None,
        )


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given: Tensor, state: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        shape, h = given.shape, weight.shape[1]
        given, before = given.reshape(shape[0], -1, 3 * h), state.reshape(-1, h)
        gates, inner = torch.empty_like(given), given.new_empty(*given.shape[:2], h)
        path = given.new_empty(*given.shape[:2], h)
        for t, (gate, now) in enumerate(zip(gates, path, strict=True)):
            recurrent = _product(before, weight, bias)
            torch.add(given[t], recurrent, out=gate)
            gate[:, : 2 * h].sigmoid_()
            inner[t] = recurrent[:, 2 * h :]
            new = gate[:, 2 * h :]
            torch.addcmul(given[t, :, 2 * h :], gate[:, :h], inner[t], out=new)
            _tanh_(new)
            torch.lerp(new, before, gate[:, h : 2 * h], out=now)
            before = now
        ctx.shape = state.shape
        ctx.save_for_backward(gates, inner, path, state.reshape(-1, h), weight)
        return path.view(*shape[:-1], h)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gates, inner, path, start, weight = ctx.saved_tensors
        h = weight.shape[1]
        grad = grad.reshape(path.shape)
        slopes, by_inner = torch.empty_like(gates), torch.empty_like(inner)
        recurrent = torch.empty_like(gates[0])
        back, by_weight, by_bias = None, torch.zeros_like(weight), weight.new_zeros(3 * h)
        for t in reversed(range(len(path))):
            r, z, n = torch.split(gates[t], h, dim=1)
            before = path[t - 1] if t else start
            arrived = grad[t] if back is None else grad[t] + back
            by_r, by_z, by_n = torch.split(slopes[t], h, dim=1)
            # h' = n + z (h − n)
            kept = arrived * z
            torch.ops.aten.tanh_backward.grad_input(arrived - kept, n, grad_input=by_n)
            torch.ops.aten.sigmoid_backward.grad_input(arrived * (before - n), z, grad_input=by_z)
            torch.ops.aten.sigmoid_backward.grad_input(by_n * inner[t], r, grad_input=by_r)
            torch.mul(by_n, r, out=by_inner[t])
            recurrent[:, : 2 * h] = slopes[t, :, : 2 * h]
            recurrent[:, 2 * h :] = by_inner[t]
            back = _product(recurrent, weight.T).add_(kept)
            by_weight += _slope(before, recurrent)
            by_bias += recurrent.sum(0)
        return slopes.view(*_frames(ctx.shape, len(path), 3 * h)), back.view(ctx.shape), by_weight, by_bias  # type: ignore[union-attr]


def _frames(state: torch.Size, frames: int, width: int) -> tuple[int, ...]:
    return (frames, *state[:-1], width)


def _tanh_(x: Tensor) -> Tensor:
    """tanh x = 2 σ(2x) − 1 in place: to an absolute error of one unit of rounding, ten times as fast as torch's on a CPU."""
    if x.dtype == torch.float32 and x.device.type == "cpu":
        return torch.add(-1, x.mul_(2).sigmoid_(), alpha=2, out=x)
    return x.tanh_()
