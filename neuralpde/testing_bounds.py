"""The tolerances that the laws of this project use, and the comparison that applies them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.checks import real_dtype
from operators.domains import TriangleMesh

__all__ = ["aspect", "assert_within", "heights_of", "roundoff"]


def roundoff(dtype: torch.dtype) -> float:
    """u, the unit round-off of a real or complex dtype: 6e-8 for float32, 1.1e-16 for float64."""
    return torch.finfo(real_dtype(dtype)).eps / 2


def assert_within(actual: Tensor, expected: Tensor | float, bound: Tensor | float) -> None:
    """Assert |actual − expected| ≤ bound entrywise, NaN counting as a violation; the message names the worst entry."""
    error = (actual.detach() - expected).abs().to(torch.float64)
    limit = torch.as_tensor(bound, dtype=torch.float64).detach().expand_as(error)
    bad = ~(error <= limit)
    if bool(bad.any()):
        worst = int(torch.where(bad, (error - limit).nan_to_num(torch.inf), -torch.inf).argmax())
        raise AssertionError(
            f"{int(bad.sum())} of {bad.numel()} entries are off: at flat index {worst} the error is "
            f"{float(error.reshape(-1)[worst]):.3e}, the bound {float(limit.reshape(-1)[worst]):.3e}"
        )


def aspect(mesh: TriangleMesh) -> float:
    """max |x| over the least height of a triangle: how much the geometry magnifies the rounding of coordinates."""
    points, faces = mesh.arrays
    return float(np.abs(points).max() / heights_of(points, faces).min())


def heights_of(points: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """The least height of every triangle, (m,): twice its area over its longest side."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    longest = np.max([np.linalg.norm(e, axis=1) for e in (b - a, c - b, a - c)], axis=0)
    heights: NDArray[np.float64] = np.linalg.norm(np.cross(b - a, c - a), axis=1) / longest
    return heights
