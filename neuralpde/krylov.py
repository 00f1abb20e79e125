"""Lanczos' iteration in the inner product of a prior: a basis in which every regularised solution is short."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


class Lanczos:
    """A basis V of Krylov's space of R⁻¹H and R⁻¹g, with Vᵀ R V = I and Vᵀ H V = T tridiagonal; it grows on demand.

    (H + μR) x = g then has the solution V (T + μ)⁻¹ β e₁, for every μ from one basis (Lanczos 1950; in a prior's inner product
    as Chung and Saibaba 2017, SIAM J. Sci. Comput. 39). Every new vector is made orthogonal to all before it, twice.

    Args:
        apply: x ↦ H x, symmetric and positive semi-definite.
        metric: x ↦ R x, symmetric and positive definite. inverse: g ↦ R⁻¹ g.
        g: the right-hand side.
    """

    def __init__(self, apply: Map, metric: Map, inverse: Map, g: Tensor) -> None:
        self.apply, self.metric, self.inverse = apply, metric, inverse
        start = inverse(g)
        self.beta = float((g @ start).clamp(min=0)) ** 0.5
        self.vectors: list[Tensor] = []
        self.images: list[Tensor] = []
        self.diagonal: list[float] = []
        self.off: list[float] = []
        self.full = False
        if not self.beta > 0:
            raise ValueError("the right-hand side is zero, or the metric not positive definite")
        self._append(start / self.beta)

    def _append(self, v: Tensor) -> None:
        self.vectors.append(v)
        self.images.append(self.metric(v))

    def grow(self, steps: int) -> None:
        """So many more vectors, or as many as there are."""
        for _ in range(steps):
            if self.full:
                return
            v = self.vectors[-1]
            h = self.apply(v)
            self.diagonal.append(float(v @ h))
            w = self.inverse(h)
            basis, images = torch.stack(self.vectors), torch.stack(self.images)
            for _ in range(2):
                w = w - basis.T @ (images @ w)
            size = float((w @ self.metric(w)).clamp(min=0)) ** 0.5
            scale = max(abs(d) for d in self.diagonal)
            if len(self.vectors) == len(v) or size <= 1e3 * torch.finfo(v.dtype).eps * scale:
                self.full = True
                self.off.append(0.0)
                return
            self.off.append(size)
            self._append(w / size)

    def eigen(self) -> tuple[Tensor, Tensor]:
        """The eigenvalues of T, not negative, and its eigenvectors."""
        k = len(self.diagonal)
        like = self.vectors[0]
        T = torch.zeros(k, k, dtype=torch.float64)
        T.diagonal().copy_(torch.tensor(self.diagonal, dtype=torch.float64))
        if k > 1:
            off = torch.tensor(self.off[: k - 1], dtype=torch.float64)
            T.diagonal(1).copy_(off)
            T.diagonal(-1).copy_(off)
        values, vectors = torch.linalg.eigh(T)
        return values.clamp(min=0).to(like.device), vectors.to(like.device)

    def solve(self, shift: float) -> tuple[Tensor, float]:
        """x with (H + shift R) x = g in this space, and its residual relative to g, in the norm of R⁻¹."""
        values, U = self.eigen()
        low = torch.finfo(self.vectors[0].dtype).eps * float(values.max())
        y = U @ (self.beta * U[0] / (values + shift).clamp(min=max(low, 1e-300)))
        k = len(y)
        x = torch.stack(self.vectors[:k]).T @ y.to(self.vectors[0].dtype)
        return x, self.off[k - 1] * abs(float(y[-1])) / self.beta

    @property
    def largest(self) -> float:
        """The largest eigenvalue of T."""
        return float(self.eigen()[0].max())


class Dense:
    """(H + μR) x = g for every μ, by one eigendecomposition; R as in `Lanczos`."""

    def __init__(self, H: Tensor, R: Tensor, g: Tensor) -> None:
        factor = torch.linalg.cholesky((R + R.T) / 2)
        half = torch.linalg.solve_triangular(factor, (H + H.T) / 2, upper=False)
        scaled = torch.linalg.solve_triangular(factor, half.T, upper=False)
        values, vectors = torch.linalg.eigh((scaled + scaled.T) / 2)
        self.values, self.vectors = values.clamp(min=0), torch.linalg.solve_triangular(factor.T, vectors, upper=True)
        self.g = g

    def solve(self, shift: float) -> tuple[Tensor, float]:
        """x, and its residual. What H does not see at all is left alone."""
        low = max(torch.finfo(self.g.dtype).eps * len(self.g) * self.largest, 1e-300)
        weights = torch.where(self.values + shift > low, 1 / (self.values + shift).clamp(min=low), 0.0)
        return self.vectors @ (weights * (self.vectors.T @ self.g)), 0.0

    @property
    def largest(self) -> float:
        """The largest eigenvalue of R⁻¹H."""
        return float(self.values.max())
