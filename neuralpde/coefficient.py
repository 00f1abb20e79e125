"""Coefficients of equations: numbers, fields, functions of time, fixed or learned."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from operators import FieldError, Operator


@dataclass(frozen=True, eq=False)
class Learned:
    """A coefficient to be learned, with its first guess; see `learned`."""

    value: float | Tensor


def learned(value: float | Tensor) -> Learned:
    """A coefficient to be learned, starting at `value`: a number, or a field (n, 1) or (n, c).

    The equation makes a parameter of it; where the coefficient must be positive, its logarithm is what is learned.
    """
    return Learned(value)


CoefficientLike = float | Tensor | Learned | nn.Module | Callable[[Tensor], Tensor]
"""What an equation takes as a coefficient; see `Coefficient`."""


class Coefficient(nn.Module):
    """One coefficient a of an equation: `a(t)` is its value, a tensor that broadcasts with fields (..., n, c).

    Equations make it with `as_coefficient`. What it was given as decides what it is:

    * a number or a tensor: fixed; a tensor holds one number or a field (n, 1) or (n, c);
    * `learned(...)`: a parameter, or its logarithm where the coefficient must be positive;
    * an `nn.Parameter`: itself, as it is, shared with whoever else holds it;
    * a module or function of t: asked at every evaluation. A network of the vertex positions is such a module.

    Attributes:
        steady: whether it does not depend on t.
        scalar: whether it is one number; False for modules and functions, which may give fields.
        absent: whether it was given as the number 0, so that its term is left out. It is then no part of a checkpoint: one with
            another value does not load, rather than to no effect.
    """

    __call__: Callable[..., Tensor]
    like: Tensor

    def __init__(self, name: str, value: object, dtype: torch.dtype, device: torch.device, *, positive: bool) -> None:
        super().__init__()
        self.name = name
        self.absent = isinstance(value, (int, float)) and value == 0
        self.logarithm = positive and isinstance(value, Learned)
        self.function: Callable[[Tensor], Tensor] | None = None
        start = value.value if isinstance(value, Learned) else value
        if isinstance(start, bool) or not (isinstance(start, (int, float, Tensor)) or callable(start)):
            raise TypeError(f"{name} must be a number, a tensor, learned(...), or a function of t, not {start!r}")
        if not isinstance(start, (int, float, Tensor)):
            self.function = start
            self.register_buffer("like", torch.zeros((), dtype=dtype, device=device), persistent=False)
            return
        if isinstance(start, Tensor) and start.is_complex():
            raise TypeError(f"{name} must be real")
        if isinstance(start, nn.Parameter):
            self.value: Tensor = start
            return
        number = torch.as_tensor(start, dtype=dtype, device=device)
        _check_range(name, number, positive)
        if self.logarithm:
            # Under a name of its own: a checkpoint must not load into a coefficient that means something else by the number.
            self.log_value = nn.Parameter(number.detach().log())
        elif isinstance(value, Learned):
            self.value = nn.Parameter(number.detach().clone())
        else:
            # Persistent: a coefficient is part of the model, unlike the mesh.
            self.register_buffer("value", number, persistent=not self.absent)

    @property
    def steady(self) -> bool:
        """Whether it does not depend on t."""
        return self.function is None

    @property
    def scalar(self) -> bool:
        """Whether it is one number, the same at all nodes and times."""
        return self.function is None and (self.log_value if self.logarithm else self.value).numel() == 1

    @property
    def negative(self) -> bool:
        """Whether it is now below zero somewhere, as a parameter of the user's own may become; not asked of functions."""
        return self.steady and bool((self().detach() < 0).any())

    def forward(self, t: Tensor | float | None = None) -> Tensor:
        """The value at time t; a steady one needs no t.

        Raises:
            ValueError: it depends on t, and none was given; or its function gives something else than real numbers.
        """
        if self.function is None:
            value = self.log_value.exp() if self.logarithm else self.value
            return value.reshape(()) if value.numel() == 1 else value
        if t is None:
            raise ValueError(
                f"the {self.name} is a function of time: ask the coefficient itself for its value at one, as in heat.kappa(0.5)"
            )
        result = self.function(torch.as_tensor(t, dtype=torch.float64, device=self.like.device))
        if isinstance(result, (int, float)):
            return self.like + result
        if not isinstance(result, Tensor) or result.is_complex():
            raise ValueError(f"the function given as {self.name} must return a real number or tensor, not {result!r}")
        return result.to(self.like.dtype)

    def extra_repr(self) -> str:
        return self.name


def as_coefficient(
    value: object, like: Operator, name: str, *, positive: bool = False, nonnegative: bool = False, learn: bool = False
) -> Coefficient:
    """A coefficient of an equation on the operator `like`, in its precision and on its device.

    Args:
        value: what `Coefficient` takes, or a `Coefficient` already.
        name: for errors.
        positive: it must be positive; `learned` ones then are by construction. A function or a parameter of the user's own
            is not looked at.
        nonnegative: it must not be negative.
        learn: learn a number given plainly.

    Raises:
        ValueError: not positive, not finite.
        FieldError: a field of other nodes than the operator's.
        TypeError: nothing that could be a coefficient.
    """
    if isinstance(value, Coefficient):
        return value
    if learn and isinstance(value, (int, float)):
        value = Learned(value)
    given = value.value if isinstance(value, Learned) else value
    if isinstance(given, Tensor):
        _check_field_shape(name, given, like.shape[1])
    if nonnegative and isinstance(given, (int, float, Tensor)) and bool((torch.as_tensor(given) < 0).any()):
        raise ValueError(f"{name} must not be negative: the least is {float(torch.as_tensor(given).min()):g}")
    return Coefficient(name, value, like.dtype, like.device, positive=positive)


def _check_range(name: str, value: Tensor, positive: bool) -> None:
    least = float(value.detach().min()) if value.numel() else math.nan
    if not bool(torch.isfinite(value).all()) or (positive and not least > 0):
        kind = "positive and finite" if positive else "finite"
        raise ValueError(f"{name} must be {kind}, not {float(value) if value.numel() == 1 else f'as low as {least:g}'}")


def _check_field_shape(name: str, value: Tensor, nodes: int) -> None:
    if value.numel() != 1 and (value.ndim < 2 or value.shape[-2] not in (1, nodes)):
        raise FieldError(
            f"{name} must be one number or a field of shape ({nodes}, 1) or ({nodes}, c), not {tuple(value.shape)}: "
            "a value a node is value[:, None]"
        )
