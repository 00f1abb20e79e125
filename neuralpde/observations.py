"""What was measured of a field: some nodes, some times, and how noisy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from integrators import State
from integrators.state import parts_of
from operators import FieldError


@dataclass(frozen=True, eq=False)
class Observations:
    """y_k = u(t_k) at some nodes, plus noise.

    Args:
        times: (T,) increasing, none before `start`.
        nodes: the nodes that are seen, (k,) distinct integers, the same at all times.
        values: y, (T, ..., k, c), in the state's dtype.
        noise: standard deviation of the noise, of the real and of the imaginary part each: a positive number, or a tensor that
            broadcasts with `values`. Residuals are divided by it, and values of infinite noise are left out.
        start: the time of the initial state.
        part: which part of a tuple state is seen.
    """

    times: tuple[float, ...]
    nodes: Tensor
    values: Tensor
    noise: float | Tensor
    start: float = 0.0
    part: int = 0

    def __init__(
        self,
        times: Sequence[float] | Tensor,
        nodes: Tensor,
        values: Tensor,
        noise: float | Tensor,
        start: float = 0.0,
        part: int = 0,
    ) -> None:
        moments = tuple(float(t) for t in times)
        ordered = all(a < b for a, b in pairwise(moments))
        if not moments or not ordered or not all(map(math.isfinite, moments)) or moments[0] < start:
            raise ValueError(f"times must be finite and increasing from start = {start} on, not {list(moments)}")
        if not isinstance(nodes, Tensor) or not isinstance(values, Tensor):
            raise FieldError("nodes and values must be tensors: wrap them in torch.tensor(...)")
        if nodes.ndim != 1 or nodes.numel() == 0 or nodes.dtype not in (torch.int64, torch.int32):
            raise FieldError(f"nodes must be integers (k,), as of mask.nonzero()[:, 0], not {nodes.dtype} {tuple(nodes.shape)}")
        if len(torch.unique(nodes)) != len(nodes) or int(nodes.min()) < 0:
            raise FieldError("nodes must be distinct and not negative: pass torch.unique(nodes)")
        if values.ndim < 3 or values.shape[0] != len(moments) or values.shape[-2] != len(nodes):
            raise FieldError(
                f"values must have shape ({len(moments)}, ..., {len(nodes)}, c), a time first and a node last but one, not "
                f"{tuple(values.shape)}"
            )
        if not bool(torch.isfinite(values).all()):
            count = int((~torch.isfinite(values)).sum())
            raise FieldError(f"{count} observed values are not finite: give missing ones another value and an infinite noise")
        level = torch.as_tensor(noise)
        if level.is_complex() or not bool((level > 0).all()):
            raise ValueError("noise must be positive everywhere: of exact observations, give the accuracy that you ask for")
        if bool(torch.isinf(level).all()):
            raise ValueError("noise is infinite everywhere, so that nothing was observed")
        if level.numel() > 1 and not broadcasts(level.shape, values.shape):
            raise FieldError(f"noise of shape {tuple(level.shape)} does not broadcast with values {tuple(values.shape)}")
        for name, value in (
            ("times", moments), ("nodes", nodes), ("values", values), ("noise", noise), ("start", float(start)), ("part", part),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    @classmethod
    def of(
        cls, path: State, times: Sequence[float], nodes: Tensor, noise: float, generator: torch.Generator, part: int = 0
    ) -> Observations:
        """Synthetic ones: `path`, the states at the times (T, ..., n, c), seen at the nodes with normal noise."""
        seen = _at(path, part, nodes).detach()
        drawn = torch.randn(seen.shape, generator=generator, dtype=seen.dtype).to(seen.device)
        # PyTorch's complex normal numbers share the variance one between their two parts.
        level = noise * 2**0.5 if seen.is_complex() else noise
        return cls(times, nodes, seen + level * drawn, noise, part=part)

    @property
    def count(self) -> int:
        """The number of real numbers observed."""
        known = int(torch.isfinite(torch.as_tensor(self.noise)).expand(self.values.shape).sum())
        return known * (2 if self.values.is_complex() else 1)

    @property
    def solve_times(self) -> list[float]:
        """The times that a solve must give: the start, and those of the observations after it."""
        return [self.start, *(t for t in self.times if t > self.start)]

    def residual(self, path: State) -> Tensor:
        """(u − y)/noise as a real vector, where `path` holds the states at `solve_times`."""
        seen = _at(path, self.part, self.nodes)
        seen = seen if self.times[0] <= self.start else seen[1:]
        if seen.shape != self.values.shape:
            raise FieldError(f"the model gives {tuple(seen.shape)} at the observed nodes, not {tuple(self.values.shape)} as seen")
        level = torch.as_tensor(self.noise, dtype=seen.real.dtype, device=seen.device).expand(seen.shape)
        missed = ((seen - self.values) / level)[torch.isfinite(level)]
        return torch.view_as_real(missed).reshape(-1) if missed.is_complex() else missed.reshape(-1)


def _at(path: State, part: int, nodes: Tensor) -> Tensor:
    """What is seen of a path."""
    parts = parts_of(path)
    if not 0 <= part < len(parts):
        raise FieldError(f"part {part} is observed, and the state has {len(parts)}, counted from 0")
    x = parts[part]
    if int(nodes.max()) >= x.shape[-2]:
        raise FieldError(f"node {int(nodes.max())} is observed, and the field has {x.shape[-2]} nodes")
    return x.index_select(-2, nodes.to(x.device))


def broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    """Whether a tensor of one shape can be expanded to the other."""
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(reversed(shape), reversed(to), strict=False))
