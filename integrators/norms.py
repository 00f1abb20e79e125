"""How large an error is, in units of the tolerance."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from integrators.solution import State
from integrators.state import parts_of, unbatched


class ErrorNorm(ABC):
    """‖error / (atol + rtol max(|x0|, |x1|))‖ as one number."""

    def __call__(self, error: State, x0: State, x1: State, rtol: float, atol: float) -> float:
        """The ratio; a step is accepted if it is at most 1. NaN if anything is."""
        with torch.no_grad():
            # A norm is homogeneous, so rtol can wait for the one number.
            ratios = [
                self.of(e / torch.maximum(a.abs(), b.abs()).add_(atol / rtol))
                for e, a, b in zip(parts_of(error), parts_of(x0), parts_of(x1), strict=True)
            ]
            unbatched(tuple(ratios))
            return float(ratios[0] if len(ratios) == 1 else torch.stack(ratios).max()) / rtol

    @abstractmethod
    def of(self, ratio: Tensor) -> Tensor:
        """The norm of the weighed errors of one tensor (real or complex), as a scalar tensor."""


@dataclass(frozen=True)
class RowNorm(ErrorNorm):
    """The largest over all rows (nodes, samples) of the RMS over the last axis (channels); the default.

    No active node can hide behind idle ones, as it can in the RMS over a whole state.
    """

    def of(self, ratio: Tensor) -> Tensor:
        if ratio.ndim < 2:
            return rms(ratio)
        rows: Tensor = torch.linalg.vector_norm(ratio, dim=-1)
        return rows.max() / math.sqrt(ratio.shape[-1])


@dataclass(frozen=True)
class RMSNorm(ErrorNorm):
    """The root mean square over the whole state, as in Hairer, Nørsett and Wanner and in torchdiffeq."""

    def of(self, ratio: Tensor) -> Tensor:
        return rms(ratio)


def rms(ratio: Tensor) -> Tensor:
    """(Σ |r_i|² / N)^½ of all N entries."""
    length: Tensor = torch.linalg.vector_norm(ratio)
    return length / math.sqrt(ratio.numel())
