"""A matrix of functions of one Laplacian as a linear part: all its flows and solves by one Chebyshev recurrence."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from integrators.solution import Time
from operators import Laplacian
from operators.chebyshev import MAX_DEGREE, coefficients_of, spectral_interval, tolerance_of
from operators.checks import ConvergenceError, real_dtype
from operators.recurrence import chebyshev_sums

KEPT = 8
"""Series that a part keeps, of so many times or shifts."""


class SpectralPart(ABC):
    """G with (G x)_i = Σ_j g_ij(L) x_j for d fields x_j: what L does to an eigenfunction, a d × d matrix does to d numbers.

    So exp(hG) and (I − sG)⁻¹ are matrices of functions of L as well, (e^{h g(λ)})_ij and ((I − s g(λ))⁻¹)_ij. Their Chebyshev
    coefficients come from the matrices at the nodes of an interval that contains the spectrum, and one recurrence in L serves all
    d² functions: as many products with L as the stiffest asks. Gradients flow to x, h, and what g is made of; they take two more.

    Args:
        laplacian: L.
        learned: what g is made of, by which kept coefficients are recognised as out of date.
    """

    self_adjoint = False

    def __init__(self, laplacian: Laplacian, learned: tuple[Tensor, ...]) -> None:
        self.laplacian = laplacian
        self.learned = learned
        self._kept: dict[tuple[str, complex, float | None], tuple[list[Tensor], Tensor]] = {}

    @abstractmethod
    def symbol(self, eigenvalues: Tensor) -> Tensor:
        """g(λ), in float64 and in the units of `fields`; (m,) → (m, d, d)."""

    @abstractmethod
    def flow(self, eigenvalues: Tensor, t: Tensor) -> Tensor:
        """exp(t g(λ)), likewise; (m,) → (m, d, d)."""

    @abstractmethod
    def fields(self, x: Any) -> Tensor:
        """The d fields of a state, first; (d, ..., n, c)."""

    @abstractmethod
    def state(self, fields: Tensor) -> Any:
        """The state that has these fields."""

    @abstractmethod
    def growth(self) -> float:
        """A bound of the rate, in 1/time, at which a solution can grow backwards in time."""

    @abstractmethod
    def __matmul__(self, x: Any) -> Any:
        """G x."""

    @abstractmethod
    def norm_bound(self) -> float:
        """A bound of ‖G‖."""

    def exponential(self, h: Time, x: Any, tolerance: float | None = None) -> Any:
        """exp(hG) x; backwards, where dissipation makes it grow, in several pieces."""
        pieces = self._pieces(h)
        c = self._coefficients(h / pieces, tolerance)
        for _ in range(pieces):
            x = self._summed(c, self.fields(x))
        return x

    def exponential_products(self, h: Time, tolerance: float | None = None) -> int:
        """The number of products with L that `exponential` takes."""
        pieces = self._pieces(h)
        return pieces * (len(self._coefficients(h / pieces, tolerance)) - 1)

    def solve(self, shift: Tensor | complex, b: Any) -> Any:
        """(I − sG)⁻¹ b, by about √(s‖G‖) products."""
        imaginary = shift.is_complex() if isinstance(shift, Tensor) else isinstance(shift, complex)
        s = torch.as_tensor(shift, dtype=torch.complex128 if imaginary else torch.float64, device="cpu")

        def inverse(eigenvalues: Tensor) -> Tensor:
            g = self.symbol(eigenvalues)
            inverted: Tensor = torch.linalg.inv(torch.eye(g.shape[-1], dtype=torch.float64) - s * g)
            return inverted

        return self._summed(self._once("solve", s, None, inverse), self.fields(b))

    def filtered(self, function: Callable[[Tensor], Tensor], fields: Tensor, tolerance: float | None = None) -> Any:
        """The state with the fields Σ_j f_ij(L) x_j, for any matrix of functions f.

        Args:
            function: from eigenvalues (m,) in float64 to (m, d, q).
            fields: q of them, (q, ..., n, c).
        """
        return self._summed(self._series(function, tolerance), fields)

    def _pieces(self, h: Time) -> int:
        # A series errs by e^(|h|r) for a bound r of the rate, but x may grow by less: short pieces keep the two close.
        return max(1, math.ceil(-float(torch.as_tensor(h).detach()) * self.growth() / 8))

    def _coefficients(self, h: Time, tolerance: float | None) -> Tensor:
        t = torch.as_tensor(h, dtype=torch.float64, device="cpu")
        return self._once("flow", t, tolerance, lambda eigenvalues: self.flow(eigenvalues, t))

    def _once(self, kind: str, t: Tensor, tolerance: float | None, function: Callable[[Tensor], Tensor]) -> Tensor:
        """The series of a function of g and t: the one kept, where nothing was learned since and no gradient is asked."""
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (t, *self.learned)):
            return self._series(function, tolerance)
        asked = (kind, complex(t.detach()), tolerance)
        kept = self._kept.get(asked)
        if kept is None or not all(map(torch.equal, kept[0], self.learned)):
            if len(self._kept) >= KEPT:
                self._kept.clear()
            kept = self._kept[asked] = [tensor.detach().clone() for tensor in self.learned], self._series(function, tolerance)
        return kept[1]

    def _series(self, function: Callable[[Tensor], Tensor], tolerance: float | None) -> Tensor:
        """(K + 1, d, q), with the smallest K whose tail is within the tolerance of the largest entry."""
        ends = spectral_interval(self.laplacian, None, positive=True)
        # A cut tail is the same in every step and adds up; round-off is not and does not.
        limit = torch.finfo(real_dtype(self.laplacian.dtype)).eps / 4
        if tolerance is not None:
            limit = tolerance_of(self.laplacian, tolerance) / 8
        shape = function(torch.tensor(ends, dtype=torch.float64)).shape[1:]

        def coefficients(degree: int) -> Tensor:
            c = coefficients_of(lambda eigenvalues: function(eigenvalues).flatten(1), degree, ends)
            # Exact at λ = 0, T_k = (−1)ᵏ, so that no cut tail moves a mean.
            signs = 1 - 2 * (torch.arange(degree + 1) % 2).to(torch.float64)
            missing = function(torch.zeros(1, dtype=torch.float64)).flatten() - (signs[:, None] * c).sum(0)
            return torch.cat([c[:1] + missing, c[1:]]).reshape(-1, *shape)

        points = 32
        while points <= 2 * MAX_DEGREE:
            with torch.no_grad():
                sizes = coefficients(points).abs().flatten(1)
                tails = sizes.flip(0).cumsum(0).flip(0).amax(1)
            peak = float(sizes.sum(0).max())
            # Below is the rounding of the coefficients themselves.
            rounding = (8 + points / 8) * torch.finfo(torch.float64).eps
            small = (tails[1:] <= max(limit, rounding) * peak).nonzero()
            if len(small) and int(small[0]) <= points // 2:
                gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in self.learned)
                # One product at least, which carries the gradients.
                return coefficients(max(1, int(small[0])) + 2 * gradient)
            points *= 2
        raise ConvergenceError(
            f"more than {MAX_DEGREE} products with L are needed for so long a time: take shorter steps, or look at the learned "
            "coefficients, which may have grown without bound"
        )

    def _summed(self, c: Tensor, fields: Tensor) -> Any:
        precision = real_dtype(self.laplacian.dtype)
        c = c.to(self.laplacian.device, precision.to_complex() if c.is_complex() else precision)
        ends = spectral_interval(self.laplacian, None, positive=True)
        return self.state(chebyshev_sums(self.laplacian, fields, c[..., None], ends))


def turned(angles: Tensor) -> Tensor:
    """exp(A) of matrices (m, d, d) that are skew or small, by scaled Taylor sums: differentiable to any order."""
    size = float(angles.detach().abs().sum(-1).max()) if angles.numel() else 0.0
    doublings = max(0, math.ceil(math.log2(max(size, 1e-300))) + 1)
    small = angles / 2**doublings
    term = torch.eye(angles.shape[-1], dtype=angles.dtype).expand_as(angles)
    total = term
    # (1/2)^17/17! is below the rounding of double precision.
    for k in range(1, 17):
        term = term @ small / k
        total = total + term
    for _ in range(doublings):
        total = total @ total
    return total
