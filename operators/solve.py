"""Differentiable sparse direct solves: factor once, reuse."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg
import torch
from torch import Tensor

# One time step needs one factor, an adaptive user a handful; each may hold tens of megabytes.
FACTORS_KEPT = 4


class ShiftedSolver:
    """Solves (M + s C) y = b for a symmetric stiffness matrix C and a positive diagonal mass M, for many shifts s.

    Each shift is factored once, by SciPy's SuperLU in symmetric mode in float64 on the CPU, and kept for reuse.

    Args:
        stiffness: (n, n) symmetric, float64.
        mass: (n,), positive.
    """

    def __init__(self, stiffness: sp.csr_array, mass: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        self.stiffness = stiffness
        self.mass = mass
        self._factors: dict[float, Any] = {}

    def solve(self, shift: Tensor, b: Tensor) -> Tensor:
        """y = (M + s C)⁻¹ b for b of shape (..., n, c); differentiable in s and b, to any order."""
        if b.is_complex():
            return torch.complex(self.solve(shift, b.real), self.solve(shift, b.imag))
        result: Tensor = _ShiftedSolve.apply(shift, b, self)  # type: ignore[no-untyped-call]
        return result

    def product(self, x: Tensor) -> Tensor:
        """C x, differentiable, with the same float64 stiffness that the factors hold."""
        result: Tensor = _SymmetricProduct.apply(x, self)  # type: ignore[no-untyped-call]
        return result

    def _factor(self, shift: float) -> Any:
        if shift not in self._factors:
            if len(self._factors) >= FACTORS_KEPT:
                self._factors.pop(next(iter(self._factors)))
            matrix = sp.csc_array(sp.diags_array(self.mass) + shift * self.stiffness)
            with warnings.catch_warnings():
                warnings.simplefilter("error", scipy.sparse.linalg.MatrixRankWarning)
                try:
                    self._factors[shift] = scipy.sparse.linalg.splu(
                        matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
                    )
                except (RuntimeError, Warning) as error:
                    raise ValueError(
                        f"M + s C is singular at s = {shift:.3g} ({error}): a negative time step or coefficient?"
                    ) from error
        return self._factors[shift]

    def _columns(self, action: Any, b: Tensor) -> Tensor:
        *lead, n, c = b.shape
        columns = b.detach().movedim(-2, 0).reshape(n, -1).to("cpu", torch.float64).contiguous().numpy()
        solution = torch.from_numpy(np.ascontiguousarray(action(columns))) if columns.size else torch.zeros(n, 0)
        return solution.reshape(n, *lead, c).movedim(0, -2).to(b.device, b.dtype)


class _ShiftedSolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shift: Tensor, b: Tensor, solver: ShiftedSolver) -> Tensor:
        if not math.isfinite(float(shift)):
            raise ValueError(f"the shift s of (M + s C) y = b must be finite, not {float(shift)}: a diverged coefficient?")
        y = solver._columns(solver._factor(float(shift)).solve, b)
        ctx.save_for_backward(shift, y)
        ctx.solver = solver
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        shift, y = ctx.saved_tensors
        solver: ShiftedSolver = ctx.solver
        # (M + s C) is symmetric, so its adjoint solve reuses the factor: ∂b = (M + s C)⁻¹ g, ∂s = −⟨∂b, C y⟩.
        grad_b = solver.solve(shift, grads[0])
        grad_shift = None
        if ctx.needs_input_grad[0]:
            grad_shift = -(grad_b * solver.product(y)).sum().to(shift.dtype)
        return grad_shift, grad_b, None


class _SymmetricProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, solver: ShiftedSolver) -> Tensor:
        ctx.solver = solver
        return solver._columns(lambda columns: solver.stiffness @ columns, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.solver.product(grads[0]), None
