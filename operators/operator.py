"""The contract of everything that acts on a field."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from operators.checks import check_field

M = TypeVar("M", bound=nn.Module)


class Operator(nn.Module):
    """A linear map of fields, x ↦ A x, with x of shape (..., n, c).

    A new operator writes `forward` and sets `shape`; users write `A @ x`, which checks the field first.
    """

    shape: tuple[int, int]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the operator without checks; (..., n, c) → (..., m, c)."""
        raise NotImplementedError

    def __matmul__(self, x: Tensor) -> Tensor:
        """A @ x, after checking shape, dtype and device. Raises FieldError."""
        check_field(x, self.shape[1], self.dtype, self.device)
        result: Tensor = self(x)
        return result

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the operator's floating-point values."""
        return self._reference().dtype

    @property
    def device(self) -> torch.device:
        """The device the operator lives on."""
        return self._reference().device

    def _reference(self) -> Tensor:
        for tensor in [*self.parameters(), *self.buffers()]:
            if tensor.is_floating_point() or tensor.is_complex():
                return tensor
        return torch.empty(0)

    def adjoint(self) -> Operator:
        """The adjoint A* with respect to `inner`: ⟨A* y, x⟩ = ⟨y, A x⟩."""
        raise NotImplementedError(f"{type(self).__name__} does not know its adjoint")

    def inner(self, x: Tensor, y: Tensor) -> Tensor:
        """⟨x, y⟩ = Σ conj(x_i)·y_i over nodes and channels; (..., n, c) × 2 → (...)."""
        return (x.conj() * y).sum(dim=(-2, -1))

    def norm_bound(self) -> float:
        """An upper bound of the operator norm in the norm of `inner`."""
        raise NotImplementedError(f"{type(self).__name__} does not know a bound of its norm")

    def matrix(self) -> Tensor:
        """The dense matrix (m, n): A applied to every unit vector. For tests and small domains."""
        return self @ torch.eye(self.shape[1], dtype=self.dtype, device=self.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        moved: Self = super()._apply(_precision_only(fn), recurse)  # type: ignore[no-untyped-call]
        return moved

    def on(self, domain: Any) -> Operator:
        """The same operator, with the same parameters, on another domain."""
        raise NotImplementedError(
            f"{type(self).__name__} was built from tensors, so it does not know how to move to another domain; "
            "build it with a function of the domain such as robust_laplacian(mesh)"
        )


def _precision_only(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A move or cast that leaves real tensors real and complex ones complex: .to(float32) makes complex64 of complex128."""

    def moved(tensor: Tensor) -> Tensor:
        if not tensor.is_complex():
            result = fn(tensor)
            return result.real if result.is_complex() else result
        parts = fn(torch.view_as_real(tensor.resolve_conj()))
        return fn(tensor) if parts.is_complex() else torch.view_as_complex(parts.contiguous())

    return moved


class Movable(nn.Module):
    """A module whose operators can all be moved to another domain while every parameter stays shared."""

    def on(self, domain: Any) -> Self:
        """A view of this module on another domain: parameters are shared, operators are rebuilt."""
        return rebuild(self, lambda child: child.on(domain))


def rebuild(module: M, move: Callable[[Any], nn.Module]) -> M:
    """Copy a module, sharing its parameters and buffers, with every child that has an `on` replaced by `move(child)`."""
    view = copy.copy(module)
    view.__dict__ = dict(module.__dict__)
    view._parameters = dict(module._parameters)
    view._buffers = dict(module._buffers)
    view._modules = {}
    for name, child in module._modules.items():
        if child is None:
            view._modules[name] = None
        elif hasattr(child, "on"):
            view._modules[name] = move(child)
        else:
            view._modules[name] = rebuild(child, move)
    return view
