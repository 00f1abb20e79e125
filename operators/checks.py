"""Errors and input checks that every domain and operator shares."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class DomainError(ValueError):
    """A graph, mesh or point cloud that no operator can be built on; the text names the cause and the cure."""


class FieldError(ValueError):
    """A field that does not fit the operator it is given to; the text names the cause and the cure."""


class ConvergenceError(RuntimeError):
    """An iteration that did not reach its tolerance; the text gives what it reached, and the cure."""


class DomainWarning(UserWarning):
    """A domain that is valid but probably not what was meant, such as a mesh with coincident vertices."""


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """The real dtype of the same precision: complex64 → float32, float64 → float64."""
    return {torch.complex64: torch.float32, torch.complex128: torch.float64}.get(dtype, dtype)


def is_integer(value: object) -> bool:
    """Whether this is an integer of Python or NumPy, and no bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def as_points(values: object, name: str, columns: tuple[int, ...] | None = None) -> Tensor:
    """Check coordinates of shape (n, d): float32 or float64, finite, at least one row, of a sane magnitude."""
    points = torch.as_tensor(values)
    if points.dtype not in (torch.float32, torch.float64):
        cure = "take the real part, if that is what you mean" if points.is_complex() else "convert with .to(torch.float64)"
        raise DomainError(f"{name} must be float32 or float64, not {points.dtype}: {cure}")
    if points.ndim != 2 or (columns is not None and points.shape[1] not in columns):
        wanted = "d" if columns is None else " or ".join(map(str, columns))
        raise DomainError(f"{name} must have shape (n, {wanted}), not {tuple(points.shape)}")
    if points.shape[0] == 0 or points.shape[1] == 0:
        raise DomainError(f"{name} is empty: a domain needs at least one point with at least one coordinate")
    check_finite(points, name)
    # Squared areas are products of four lengths, and stencils divide by them: beyond this they leave even float64's range.
    size = float(points.detach().abs().max())
    limit = 1e15 if points.dtype == torch.float32 else 1e60
    if size > limit or 0 < size < 1 / limit:
        raise DomainError(
            f"{name} reach {size:.1e}, beyond what {points.dtype} geometry can hold ({1 / limit:.0e} to {limit:.0e}): "
            "change the unit of length"
        )
    return points


def as_index(values: object, name: str, rows: int | None, columns: int | None, upper: int) -> Tensor:
    """Check an integer array with entries in [0, upper) and return it as int64."""
    index = torch.as_tensor(values)
    if index.dtype == torch.bool or index.is_floating_point() or index.is_complex():
        raise DomainError(f"{name} must hold integers, not {index.dtype}: indices are never rounded for you")
    index = index.to(torch.int64)
    expected = ("n" if rows is None else rows, "n" if columns is None else columns)
    if index.ndim != 2 or any(isinstance(e, int) and e != s for e, s in zip(expected, index.shape, strict=False)):
        if index.ndim == 2 and all(isinstance(e, str) or e == s for e, s in zip(expected, index.shape[::-1], strict=True)):
            hint = ": pass its transpose, .T"
        else:
            hint = " (triangulate polygons first)" if name == "faces" else ""
        raise DomainError(f"{name} must have shape {expected}, not {tuple(index.shape)}{hint}".replace("'", ""))
    if index.numel():
        low, high = int(index.min()), int(index.max())
        if low < 0:
            raise DomainError(f"{name} hold the negative index {low}: indices count from 0 (files often count from 1)")
        if high >= upper:
            raise DomainError(f"{name} hold the index {high}, but there are only {upper} points, numbered 0 to {upper - 1}")
    return index


def check_finite(values: Tensor, name: str) -> None:
    """Raise if any entry is NaN or infinite, naming the first."""
    finite = torch.isfinite(values.detach())
    if not bool(finite.all()):
        where = (~finite).nonzero()[0].tolist()
        value = values.detach()[tuple(where)].item()
        count = int((~finite).sum())
        raise DomainError(
            f"{name} hold {count} non-finite value{'s' if count > 1 else ''}, the first ({value}) at index {where}: "
            "remove or repair it before building the domain"
        )


def check_no_gradient(points: Tensor, user: str) -> None:
    """Raise if `user`, which is not differentiable, would lose the gradient of these points without a word."""
    if points.requires_grad and torch.is_grad_enabled():
        raise DomainError(f"{user} has no gradient in the points: call it under torch.no_grad(), or on detached ones")


def as_field(x: object, n: int, name: str = "field") -> Tensor:
    """Check that x is a field (..., n, c), of any precision and on any device."""
    if not isinstance(x, Tensor):
        raise FieldError(f"{name} must be a torch.Tensor of shape (..., {n}, c), not {type(x).__name__}")
    if x.ndim < 2 or x.shape[-2] != n:
        hint = ": add a channel axis with x[..., None]" if x.ndim >= 1 and x.shape[-1] == n else ""
        raise FieldError(f"{name} must have shape (..., {n}, c), not {tuple(x.shape)}{hint}")
    return x


def check_field(x: object, n: int, dtype: torch.dtype, device: torch.device, name: str = "field") -> None:
    """Check that x is a field (..., n, c) of the operator's precision and device."""
    x = as_field(x, n, name)
    if real_dtype(x.dtype) != real_dtype(dtype):
        raise FieldError(
            f"{name} has dtype {x.dtype} but the operator {dtype}: nothing is converted silently; "
            "use operator.to(x.dtype) or x.to(operator.dtype)"
        )
    if x.device != device:
        raise FieldError(f"{name} is on {x.device} but the operator on {device}: move one with .to(device)")
