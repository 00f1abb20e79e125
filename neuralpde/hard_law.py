"""Laws with few unknown numbers: a diffusivity of the material, a source of the field, a symmetric positive tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.interpolate import BSpline
from torch import Tensor

RELAXATION = 20.0
"""At which a source pulls back what has left the seen range, in 1/time: no trajectory runs away."""


def symmetric_basis(isotropic: bool) -> Tensor:
    """An orthonormal basis of the symmetric 3 × 3 matrices, the identity first; it alone if isotropic. (1 or 6, 3, 3)."""
    basis = torch.zeros(6, 3, 3, dtype=torch.float64)
    basis[0] = torch.eye(3) / 3**0.5
    basis[1] = torch.diag(torch.tensor([1.0, -1.0, 0.0])) / 2**0.5
    basis[2] = torch.diag(torch.tensor([1.0, 1.0, -2.0])) / 6**0.5
    for k, (i, j) in enumerate([(0, 1), (0, 2), (1, 2)]):
        basis[3 + k, i, j] = basis[3 + k, j, i] = 0.5**0.5
    return basis[:1] if isotropic else basis


def positive_tensor(logarithm: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """A = exp(Σ s_i E_i) and ∂A/∂s_i: (p,), (p, 3, 3) → (3, 3), (p, 3, 3). Positive definite for every s."""
    # The differential of exp at S in the direction E is the upper right block of exp [[S, E], [0, S]].
    S = (logarithm[:, None, None] * basis).sum(0).expand(len(basis), 3, 3)
    blocks = torch.cat([torch.cat([S, basis], dim=2), torch.cat([torch.zeros_like(S), S], dim=2)], dim=1)
    exponential: Tensor = torch.linalg.matrix_exp(blocks)
    return exponential[0, :3, :3], exponential[:, :3, 3:]


@dataclass(frozen=True)
class MaterialLaw:
    """g(m) = exp(Σ_b γ_b B_b(m)) with cubic B-splines on equal intervals of [0, 1]: positive and smooth whatever the γ.

    Args:
        intervals: their number; γ has three more. With 0 the law is g = 1, without unknowns.
    """

    intervals: int

    @property
    def size(self) -> int:
        """The number of γ."""
        return self.intervals + 3 if self.intervals else 0

    def basis(self, m: Tensor) -> Tensor:
        """B_b(m); (n,) in [0, 1] → (n, size)."""
        if not self.intervals:
            return m.new_zeros(len(m), 0)
        inner = torch.linspace(0, 1, self.intervals + 1, dtype=torch.float64)
        knots = torch.cat([inner[:1].expand(3), inner, inner[-1:].expand(3)]).numpy()
        rows = BSpline.design_matrix(m.double().clamp(0, 1).numpy(), knots, 3).toarray()
        return torch.from_numpy(rows)

    def __call__(self, m: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """g and ∂g/∂γ; (n,), (size,) → (n,), (n, size)."""
        basis = self.basis(m)
        g = torch.exp(basis @ gamma)
        return g, g[:, None] * basis


@dataclass(frozen=True)
class SourceLaw:
    """f(u) = Σ_j c_j T_j(s), Chebyshev polynomials of s = (2u − low − high) / (high − low), and a pull back from outside.

    Outside [low, high] it is f at the end plus −20 times what u is beyond it, so that no solution runs away.

    Args:
        degree: of the polynomial; −1 for f = 0, which has no unknowns and no ends.
        low, high: the ends of what was seen, and a little more.
    """

    degree: int
    low: float = 0.0
    high: float = 1.0

    @property
    def size(self) -> int:
        """The number of c."""
        return self.degree + 1

    def basis(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """T_j(s(u)) and d/du of it, constant outside; (n,) → (n, size) twice."""
        scale = 2 / (self.high - self.low)
        s = (scale * (u - self.low) - 1).clamp(-1, 1)
        inside = (u > self.low) & (u < self.high)
        T, U = [torch.ones_like(s), s], [torch.ones_like(s), 2 * s]
        for _ in range(2, self.size):
            T.append(2 * s * T[-1] - T[-2])
            U.append(2 * s * U[-1] - U[-2])
        slopes = [torch.zeros_like(s), *(j * U[j - 1] * scale * inside for j in range(1, max(self.size, 2)))]
        return torch.stack(T[: self.size], dim=1), torch.stack(slopes[: self.size], dim=1)

    def __call__(self, u: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """f(u), f'(u) and ∂f/∂c; (n,), (size,) → (n,), (n,), (n, size)."""
        if self.size == 0:
            return torch.zeros_like(u), torch.zeros_like(u), u.new_zeros(len(u), 0)
        values, slopes = self.basis(u)
        beyond = u - u.clamp(self.low, self.high)
        return values @ c - RELAXATION * beyond, slopes @ c - RELAXATION * (beyond != 0), values
