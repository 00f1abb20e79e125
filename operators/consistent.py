"""Learned differences at scattered points that are exact on polynomials whatever their parameters are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from operators.checks import DomainError, check_field
from operators.consistent_corrections import Correction
from operators.consistent_kernels import Kernel
from operators.consistent_moments import Moments
from operators.domains import PointCloud
from operators.operator import Operator
from operators.sparse import SparseOperator


class ConsistentStencil(Operator):
    """(D u)_i = Σ_j w_ij (u_j − u_i), with w = base + √ω P z: exact on polynomials of degree ≤ order, for any parameters.

    The base weights are those of least squares, or of a learnable `kernel`; z is a learned `correction`, which P projects
    onto the null space of the moment conditions (see `Moments`), in units of 1/rˢ with r_i the size of the neighbourhood and
    s the order of the derivative. Exactness is lost to rounding only: a few units in the last place
    of Σ_j |w_ij| times the change of u over the neighbourhood; the base weights lose as much times `moments.condition`.

    Args:
        moments: the neighbourhoods and the order; a PointCloud stands for `Moments(cloud)`.
        correction: z from the geometry, and from the field if it reads one. None learns nothing.
        kernel: gives the base weights, from a radial function that may be learned. None is least squares.

    A field-dependent correction makes u ↦ D u nonlinear; `operator(u)` is then its matrix at u.

    Good values: twice as many neighbours as conditions, which is the default, leave a correction room; a kernel likes three to
    six times as many, `ConsistentGradient(Moments(cloud, 30), kernel=GaussianKernel([3 * spacing] * 2))`.
    """

    degree: int
    rows: int

    def __init__(self, moments: Moments | PointCloud, correction: Correction | None = None, kernel: Kernel | None = None) -> None:
        super().__init__()
        if not isinstance(moments, (Moments, PointCloud)):
            raise DomainError(
                f"a consistent stencil lives on Moments or a PointCloud, not a {type(moments).__name__}; of a flat mesh take "
                "PointCloud(mesh.vertices[:, :2])"
            )
        self.moments = Moments(moments) if isinstance(moments, PointCloud) else moments
        like = self.moments.fit
        self.correction = None if correction is None else correction.to(like)
        self.kernel = None if kernel is None else kernel.to(like)
        self._check()
        self._place()

    def _check(self) -> None:
        """Raise unless the conditions say what this derivative of a polynomial is."""
        if self.moments.order < self.degree:
            raise DomainError(
                f"a derivative of order {self.degree} is not determined by polynomials of degree {self.moments.order}: "
                f"give Moments(..., order={self.degree}) or more"
            )

    def _place(self) -> None:
        moments = self.moments
        n = moments.num_nodes
        self.shape = (n * self.rows, n)
        self._fit()
        self.pattern = moments.pattern(self.rows)

    def _fit(self) -> None:
        fit = self.moments.fit
        self.register_buffer("least_squares", fit @ self.target(self.moments).to(fit), persistent=False)

    def target(self, moments: Moments) -> Tensor:
        """The derivative of each monomial ξ^α at the node, (m, q)."""
        raise NotImplementedError

    def _physical(self, weights: Tensor) -> Tensor:
        return weights / self.moments.radius[:, None, None] ** self.degree

    def base(self) -> Tensor:
        """The weights without correction, (n, k, q)."""
        return self._physical(self._local())

    def covariance(self, kernel: Kernel, xi: Tensor, radius: Tensor) -> Tensor:
        """Of the derivative at the node with the increments, in local coordinates, (n, k, q)."""
        raise NotImplementedError

    def _local(self) -> Tensor:
        start: Tensor = self.get_buffer("least_squares")
        return start if self.kernel is None else self.kernel.weights(self.moments, start, self.covariance)

    def weights(self, x: Tensor | None = None) -> Tensor:
        """w_ij, (n, k, q), or (..., n, k, q) where the correction reads the field x (..., n, c); zero where padded."""
        if self.correction is None:
            return self.base()
        z = self.correction(self.moments, x)
        if z.shape[-1] != self.rows:
            raise DomainError(
                f"the correction gives {z.shape[-1]} numbers a neighbour, the stencil has {self.rows} rows a node: build it with "
                f"rows={self.rows}"
            )
        return self._physical(self._moved(self._local(), self.moments.project(z)))

    def _moved(self, base: Tensor, change: Tensor) -> Tensor:
        """The local weights after a change that breaks no condition."""
        return base + change

    def operator(self, x: Tensor | None = None) -> SparseOperator:
        """The matrix (n·q, n), with gradients into the parameters; for many products with the same parameters, make it once."""
        return self.moments.operator(self.weights(x), self.pattern)

    def forward(self, x: Tensor) -> Tensor:
        slopes = self.vectors(x)
        return slopes.flatten(-3, -2)

    def vectors(self, x: Tensor) -> Tensor:
        """The derivatives as one vector a node: (..., n, c) → (..., n, q, c)."""
        check_field(x, self.shape[1], self.dtype, self.device)
        return self.weights(x).mT.to(x.dtype) @ self.moments.differences(x)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.dtype
        moved = super()._apply(fn, recurse)
        if torch.finfo(self.dtype).eps < torch.finfo(before).eps:
            self._fit()
        return moved

    def _reference(self) -> Tensor:
        return self.get_buffer("least_squares")

    def on(self, domain: PointCloud | Moments) -> Self:
        """The same parameters on another cloud."""
        view = nn.Module.__new__(type(self))
        nn.Module.__init__(view)
        view.moments = domain if isinstance(domain, Moments) else self.moments.on(domain)
        view.correction = None if self.correction is None else self.correction.on(domain)
        view.kernel = self.kernel
        view._check()
        view._place()
        return view


class ConsistentGradient(ConsistentStencil):
    """∂_a u at scattered points, (n·d, n), row i·d + a for axis a; `vectors` gives (..., n, d, c).

    Exact on polynomials of degree ≤ order for any parameters (see `ConsistentStencil`); without correction and kernel it is
    `least_squares_gradient`.
    """

    degree = 1

    @property
    def rows(self) -> int:  # type: ignore[override]
        """d."""
        return self.moments.dimensions

    def target(self, moments: Moments) -> Tensor:
        return torch.eye(len(moments.monomials), moments.dimensions, dtype=torch.float64)

    def covariance(self, kernel: Kernel, xi: Tensor, radius: Tensor) -> Tensor:
        return -kernel.gradient(xi, radius[:, None])


class ConsistentLaplacian(ConsistentStencil):
    """L = −Σ_a ∂_a² at scattered points, (n, n): diffusion is −L.

    Exact on polynomials of degree ≤ order for any parameters (see `ConsistentStencil`); without correction and kernel it is
    `least_squares_laplacian`. Positive only in the limit of dense points; `PositiveLaplacian` keeps the signs.
    """

    degree = 2
    rows = 1

    def target(self, moments: Moments) -> Tensor:
        squares = [-2.0 if len(axes) == 2 and axes[0] == axes[1] else 0.0 for axes in moments.monomials]
        return torch.tensor(squares, dtype=torch.float64)[:, None]

    def covariance(self, kernel: Kernel, xi: Tensor, radius: Tensor) -> Tensor:
        at_node = kernel.laplacian(torch.zeros_like(xi[:, :1]), radius[:, None])
        return (at_node - kernel.laplacian(xi, radius[:, None]))[..., None]
