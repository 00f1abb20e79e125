"""Packing a state (tensor or tuple, real or complex) into one real tensor, which is all torchdiffeq can hold."""

from __future__ import annotations

import torch
from torch import Tensor

from integrators.solution import State


def parts_of(x: State) -> tuple[Tensor, ...]:
    """The tensors of a state."""
    return x if isinstance(x, tuple) else (x,)


def check_state(x: object, name: str) -> None:
    """Check that x is a state: a floating-point tensor or a non-empty tuple of them, finite, one device and precision."""
    parts = x if isinstance(x, tuple) else (x,)
    if not parts:
        raise ValueError(f"{name} is an empty tuple: a state holds at least one tensor")
    for k, part in enumerate(parts):
        label = f"{name}[{k}]" if isinstance(x, tuple) else name
        if not isinstance(part, Tensor):
            raise TypeError(f"{label} must be a torch.Tensor, not {type(part).__name__}: use torch.as_tensor")
        if part.dtype not in (torch.float32, torch.float64, torch.complex64, torch.complex128):
            raise TypeError(f"{label} has dtype {part.dtype}: integrate in float32, float64, complex64 or complex128")
        if part.numel() == 0:
            raise ValueError(f"{label} is empty (shape {tuple(part.shape)}): there is nothing to integrate")
        if not bool(torch.isfinite(part.detach()).all()):
            where = (~torch.isfinite(part.detach())).nonzero()[0].tolist()
            raise ValueError(f"{label} holds a NaN or infinite value, the first at index {where}: repair the initial field")
    first = parts[0]
    for part in parts[1:]:
        if part.device != first.device or part.real.dtype != first.real.dtype:
            raise TypeError(
                f"the parts of {name} differ in device or precision ({first.dtype} on {first.device}, "
                f"{part.dtype} on {part.device}): nothing is converted silently"
            )


class Packing:
    """A bijection between states like x0 and real tensors.

    A single real tensor is left as it is; anything else becomes one flat vector, complex numbers as pairs.
    """

    def __init__(self, x0: State) -> None:
        self.is_tuple = isinstance(x0, tuple)
        self.shapes = [part.shape for part in parts_of(x0)]
        self.complex = [part.is_complex() for part in parts_of(x0)]
        self.trivial = not self.is_tuple and not self.complex[0]

    def pack(self, x: State) -> Tensor:
        """State → real tensor."""
        if self.trivial and isinstance(x, Tensor):
            return x
        flat = [torch.stack((part.real, part.imag), dim=-1) if part.is_complex() else part for part in parts_of(x)]
        return torch.cat([part.reshape(-1) for part in flat])

    def unpack(self, flat: Tensor) -> State:
        """Real tensor → state; leading axes of `flat` beyond the packed one (time) are kept in front."""
        if self.trivial:
            return flat
        lead = flat.shape[:-1]
        parts, start = [], 0
        for shape, is_complex in zip(self.shapes, self.complex, strict=True):
            length = shape.numel() * (2 if is_complex else 1)
            piece = flat[..., start : start + length]
            start += length
            if is_complex:
                # Not view_as_complex, which refuses pairs that start at an odd place.
                piece = torch.complex(piece[..., ::2], piece[..., 1::2])
            parts.append(piece.reshape((*lead, *shape)))
        return tuple(parts) if self.is_tuple else parts[0]
