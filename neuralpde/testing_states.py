"""States for a right-hand side: which form it takes, drawn values, and what round-off in them makes of the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from integrators import State, state
from integrators.state import add, parts_of, scaled, state_map, subtract
from neuralpde.testing_bounds import roundoff
from operators import Operator


@dataclass(frozen=True)
class Form:
    """The channels of each part of a state, whether it is a tuple, and whether it is complex."""

    channels: tuple[int, ...]
    is_tuple: bool = False
    is_complex: bool = False

    def filled(self, n: int, fill: Callable[[tuple[int, int]], Tensor]) -> State:
        """A state of this form; `fill` gives real numbers of a shape."""
        parts = [torch.complex(fill((n, c)), fill((n, c))) if self.is_complex else fill((n, c)) for c in self.channels]
        return tuple(parts) if self.is_tuple else parts[0]


FORMS: tuple[Form, ...] = (
    *(Form((c,)) for c in (2, 1)),
    *(Form(channels, True) for channels in ((1, 1), (1, 1, 1), (1, 3), (3, 1), (1, 2), (2, 1), (2, 2), (1, 1, 1, 1))),
    *(Form((c,), is_complex=True) for c in (2, 1)),
    *(Form((c,)) for c in (3, 4, 6, 8)),
)
"""The usual forms, tried in this order."""
_NUDGE = 2.0**20


def largest(x: State) -> float:
    """max |x_i| over the whole state; 0 of an empty one, such as the values on the edges of a graph without any."""
    parts = tuple(part for part in parts_of(x) if part.numel())
    return state.largest(parts) if parts else 0.0


def form_of(f: Any, n: int, dtype: torch.dtype) -> Form:
    """The first form of a state of n nodes that f takes and gives back. Raises TypeError if none of `FORMS` is."""
    told = ""
    for form in FORMS:
        x = form.filled(n, lambda shape: torch.full(shape, 0.5, dtype=dtype))
        try:
            with torch.no_grad():
                slope = f(torch.zeros((), dtype=torch.float64), x)
        except Exception as error:
            told = told or f"{type(error).__name__}: {error}"
            continue
        if same_form(slope, x):
            return form
        told = told or "its value on a field has another form"
    name = type(f).__name__
    raise TypeError(f"{name} takes none of the usual states ({told}): pass states=, a function of (f, domain, generator)")


def same_form(slope: Any, x: State) -> bool:
    """Whether a slope has the shapes and dtypes of the state."""
    if isinstance(slope, tuple) != isinstance(x, tuple) or not isinstance(slope, (tuple, Tensor)):
        return False
    pairs = list(zip(parts_of(slope), parts_of(x), strict=False))
    same = all(isinstance(a, Tensor) and a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)
    return same and len(parts_of(slope)) == len(parts_of(x))


def nodes_in(f: Any) -> int:
    """n of the first operator inside f."""
    for module in f.modules() if isinstance(f, torch.nn.Module) else []:
        if isinstance(module, Operator) and module.shape[0] == module.shape[1]:
            return module.shape[1]
    raise TypeError(f"{type(f).__name__} holds no operator that tells its number of nodes: pass domain= or states=")


def dtype_in(f: Any) -> torch.dtype:
    """The dtype of the first operator or tensor inside f; float64 if there is none."""
    modules = list(f.modules()) if isinstance(f, torch.nn.Module) else []
    for module in modules:
        if isinstance(module, Operator):
            return torch.float32 if roundoff(module.dtype) > 1e-10 else torch.float64
    tensors = [*f.parameters(), *f.buffers()] if modules else []
    return next((p.dtype for p in tensors if p.is_floating_point()), torch.float64)


def drawn_state(form: Form, n: int, dtype: torch.dtype, generator: torch.Generator) -> State:
    """Small multiples of 1/16: of both signs, positive, nearly constant, or zero but for one node."""
    kind = int(torch.randint(4, (), generator=generator))
    spiked = int(torch.randint(n, (), generator=generator))

    def fill(shape: tuple[int, int]) -> Tensor:
        x = torch.randint(-16, 17, shape, generator=generator).to(dtype) / 16
        if kind == 1:
            x = (x + 1.0625) / 2
        elif kind == 2:
            x = 0.5 + x / 64
        elif kind == 3:
            x = torch.where(torch.arange(shape[0])[:, None] == spiked, x + 1.5, torch.zeros_like(x))
        return x

    return form.filled(n, fill)


def rounding(f: Callable[[Any], Any], x: State) -> float:
    """What one unit round-off in x makes of f(x), in its largest entry: by nudges of a million units, so that it is smooth."""
    u = roundoff(parts_of(x)[0].dtype)
    worst = 0.0
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        value = f(x)
        for _ in range(2):
            nudged = state_map(lambda part: part + nudge(part, generator), x)
            worst = max(worst, largest(subtract(f(nudged), value)) / _NUDGE)
    return 4 * worst + u * largest(value)


def nudge(x: Tensor, generator: torch.Generator) -> Tensor:
    """±2²⁰ u max |x| at random."""
    size = _NUDGE * roundoff(x.dtype) * float(x.detach().abs().max()) if x.numel() else 0.0
    return size * (2.0 * torch.randint(2, x.shape, generator=generator).to(x.device, x.dtype) - 1)


def fastest_rate(f: Any, x: State) -> float:
    """An estimate of the largest |∂f/∂x| at x, by a few power iterations on differences."""
    zero = torch.zeros((), dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    size = max(largest(x), 1e-3)
    direction = state_map(lambda part: torch.randn(part.shape, generator=generator, dtype=part.dtype), x)
    rate, value = 0.0, f(zero, x)
    for _ in range(8):
        length = max(largest(direction), 1e-300)
        step = 1e-6 * size / length
        change = subtract(f(zero, add(x, scaled(direction, step))), value)
        direction = scaled(change, 1 / step)
        rate = max(rate, largest(direction) / length)
    return rate
