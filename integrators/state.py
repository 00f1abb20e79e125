"""States (a tensor or a tuple of tensors, real or complex): their checks, their arithmetic, and their packing into one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from integrators.solution import State, Time


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
        if not batched(part) and not bool(torch.isfinite(part.detach()).all()):
            where = (~torch.isfinite(part.detach())).nonzero()[0].tolist()
            raise ValueError(f"{label} holds a NaN or infinite value, the first at index {where}: repair the initial field")
    first = parts[0]
    for part in parts[1:]:
        if part.device != first.device or part.real.dtype != first.real.dtype:
            raise TypeError(
                f"the parts of {name} differ in device or precision ({first.dtype} on {first.device}, "
                f"{part.dtype} on {part.device}): nothing is converted silently"
            )


def batched(x: State) -> bool:
    """Whether torch.func.vmap runs over x, so that there are no numbers to look at."""
    functorch = torch._C._functorch
    if functorch.peek_interpreter_stack() is None:
        return False
    for part in parts_of(x):
        while functorch.is_functorch_wrapped_tensor(part):
            if functorch.is_batchedtensor(part):
                return True
            part = functorch.get_unwrapped(part)
    return False


def unbatched(x: State) -> None:
    """Raise TypeError where a choice depends on the numbers of x, and torch.func.vmap hides them."""
    if batched(x):
        raise TypeError(
            "torch.func.vmap hides the numbers by which an adaptive solver chooses its steps, and `integrate` a solver: give x0 "
            "a batch axis and solve it without vmap by PerSample(Dopri5()), or name one with a fixed step such as RK4(dt=...)"
        )


def noise_like(x: State) -> State:
    """Normal numbers in the shape of x, the same every time; nobody's random numbers are drawn, not even those of vmap."""
    parts = []
    for k, part in enumerate(parts_of(x)):
        generator = torch.Generator().manual_seed(k + 1)
        with torch._C._DisableFuncTorch():
            parts.append(torch.randn(part.shape, generator=generator, dtype=part.dtype).to(part.device))
    return tuple(parts) if isinstance(x, tuple) else parts[0]


def number(value: Time) -> float:
    """A time or length as a plain number, without its gradient."""
    return float(value.detach()) if isinstance(value, Tensor) else float(value)


def state_map(g: Callable[..., Tensor], *states: State) -> State:
    """g on the tensors of several states, part by part."""
    if isinstance(states[0], tuple):
        return tuple(g(*parts) for parts in zip(*states, strict=True))
    return g(*states)


def combine(x: State, h: Time, weights: Sequence[Time], slopes: Sequence[State]) -> State:
    """x + h Σ w_i k_i, in the state's precision; a weight of zero costs nothing. Weights are tensors only where h is."""
    if isinstance(x, tuple):
        return tuple(combine(part, h, weights, [k[i] for k in slopes]) for i, part in enumerate(x))  # type: ignore[misc]
    if isinstance(h, Tensor):
        kind = x.real.dtype
        for w, k in zip(weights, slopes, strict=True):
            if isinstance(w, Tensor) or w != 0:
                x = x + (h * w).to(kind) * k  # type: ignore[operator]
        return x
    # One pass less over memory; while gradients are recorded, vmap may need what in-place writing cannot do.
    in_place = not torch.is_grad_enabled()
    y = x
    for w, k in zip(weights, slopes, strict=True):
        if w != 0:
            y = y.add_(k, alpha=h * w) if in_place and y is not x else torch.add(y, k, alpha=h * w)  # type: ignore[arg-type]
    return y


def weighted(h: Time, weights: Sequence[float], slopes: Sequence[State]) -> State:
    """h Σ w_i k_i, in the state's precision; not all weights may be zero."""
    first = next(i for i, w in enumerate(weights) if w != 0)
    return combine(scaled(slopes[first], h * weights[first]), h, weights[first + 1 :], slopes[first + 1 :])


def scaled(x: State, h: Time) -> State:
    """h x, in the state's precision."""
    if isinstance(h, Tensor):
        return state_map(lambda part: h.to(part.real.dtype) * part, x)
    return state_map(lambda part: h * part, x)


def add(x: State, y: State) -> State:
    """x + y."""
    return state_map(torch.add, x, y)


def subtract(x: State, y: State) -> State:
    """x − y."""
    return state_map(torch.sub, x, y)


def largest(x: State) -> float:
    """max |x_i| over the whole state; NaN if any entry is."""
    values = [torch.linalg.vector_norm(part.detach(), ord=float("inf")) for part in parts_of(x)]
    return float(values[0] if len(values) == 1 else torch.stack(values).max())


def first_bad(x: State) -> str:
    """Where the first NaN or infinite entry of x is, in words; empty if there is none."""
    for k, part in enumerate(parts_of(x)):
        wrong = ~torch.isfinite(part.detach())
        if bool(wrong.any()):
            index = wrong.nonzero()[0].tolist()
            value = part.detach()[tuple(index)].item()
            name = f"part {k}, index {index}" if isinstance(x, tuple) else f"index {index}"
            return f"{value} at {name}, and {int(wrong.sum())} of {wrong.numel()} entries are not finite"
    return ""


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
