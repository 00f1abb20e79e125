"""Boundary conditions of flux, added to an equation: given flux (Neumann), exchange with the outside (Robin)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from integrators import LinearPart
from neuralpde.coefficient import CoefficientLike, Learned, as_coefficient
from neuralpde.invariants import Invariant, Law, Norm
from neuralpde.rhs import RightHandSide
from neuralpde.sources import fading
from operators import FieldError, Laplacian
from operators.boundary_terms import BoundaryMeasure


class NeumannFlux(RightHandSide):
    """du_i/dt = q ℓ_i / m_i at the boundary: what flows in where κ ∂u/∂n = q, to be added to an equation.

        heated = Heat(L, 0.1) + NeumannFlux(L, boundary_measure(mesh), 2.0)

    Without it the boundary is natural, q = 0. What enters a second is Σ q ℓ, exactly, whatever the mesh.

    Args:
        laplacian: L, whose masses m are used.
        boundary: ℓ, from `boundary_measure(mesh or grid, where)`, or `named_boundary(L, nodes)` on a graph.
        flux: q, in u·length/time; inwards is positive. A number, a field (n, 1) read at the boundary, `learned(...)`, or a
            function of time.
    """

    def __init__(self, laplacian: Laplacian, boundary: BoundaryMeasure, flux: CoefficientLike) -> None:
        super().__init__()
        self.laplacian, self.boundary = laplacian, _fitting(boundary, laplacian)
        self.q = as_coefficient(flux, laplacian, "flux")

    @property
    def flux(self) -> Tensor:
        """q."""
        return self.q()

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return torch.zeros_like(u) + self.boundary.total(_at(self.q(t), self.boundary)) / self.laplacian.mass[:, None]


class Robin(RightHandSide):
    """du_i/dt = −h ℓ_i / m_i (u_i − w) at the boundary: −κ ∂u/∂n = h (u − w), exchange with an outside of value w.

        cooled = Heat(L, 0.1) + Robin(L, boundary_measure(mesh), 5.0, outside=20.0)

    Its matrix diag(h ℓ) is positive semi-definite and merges with that of `Heat` into one Laplacian, so that every solver works.
    On a grid, where nodes lie half a cell inside, h is put in series with the half cell, h / (1 + h Δ/κ), which keeps order 2.

    Good values: h of the order κ/length; a much larger one holds u at w.

    Invariants: the norm never increases, where w = 0.

    Args:
        laplacian: L, whose masses m are used.
        boundary: ℓ, from `boundary_measure(mesh or grid, where)`, or `named_boundary(L, nodes)` on a graph.
        exchange: h ≥ 0, in length/time: a number, a field (n, 1) read at the boundary, `learned(...)` (positive then), or a
            function of time, which leaves no linear part.
        outside: w, in units of u; likewise.
        diffusivity: κ of the equation that this is added to, one number; needed on a grid.

    Raises:
        ValueError: on a grid without the diffusivity; a negative h.
    """

    def __init__(
        self,
        laplacian: Laplacian,
        boundary: BoundaryMeasure,
        exchange: CoefficientLike,
        outside: CoefficientLike = 0.0,
        *,
        diffusivity: CoefficientLike | None = None,
    ) -> None:
        super().__init__()
        self.laplacian, self.boundary = laplacian, _fitting(boundary, laplacian)
        self.h = as_coefficient(exchange, laplacian, "exchange", nonnegative=True, positive=_is_learned(exchange))
        self.w = as_coefficient(outside, laplacian, "outside")
        if diffusivity is None and bool((boundary.gap > 0).any()):
            raise ValueError(
                "the nodes of a grid lie half a cell inside of its boundary: give the diffusivity of the equation, as in "
                "Heat(L, kappa) + Robin(L, boundary, h, diffusivity=kappa)"
            )
        self.kappa = as_coefficient(1.0 if diffusivity is None else diffusivity, laplacian, "diffusivity", positive=True)

    @property
    def exchange(self) -> Tensor:
        """h."""
        return self.h()

    def _rate(self, t: Tensor | None) -> Tensor:
        """h ℓ / m; (n, 1)."""
        h = _at(self.h(t), self.boundary)
        effective = h / (1 + h * self.boundary.gap[:, None] / _at(self.kappa(t), self.boundary))
        return self.boundary.total(effective) / self.laplacian.mass[:, None]

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return -self._rate(t) * (u if self.w.absent else u - self.w(t))

    @property
    def linear(self) -> LinearPart | None:
        if not (self.h.steady and self.kappa.steady) or self._rate(None).shape != (self.laplacian.shape[0], 1):
            return None
        return fading(self.laplacian, self._rate(None))

    @property
    def nonlinear(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """N(t, u) = h ℓ / m w."""
        if self.w.absent or self.linear is None:
            return None
        return lambda t, u: torch.zeros_like(u) + self._rate(t) * self.w(t)

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        if not self.w.absent or self.linear is None or self.h.negative or self.kappa.negative:
            return ()
        return (Norm(self.laplacian, Law.NON_INCREASING),)


def _at(value: Tensor, boundary: BoundaryMeasure) -> Tensor:
    """A coefficient at every piece of boundary; () or (n, c) → (k, c)."""
    pieces = boundary.node.numel()
    if value.ndim < 2 or value.shape[-2] == 1:
        return value.reshape(1, -1).expand(pieces, -1)
    return value.index_select(-2, boundary.node)


def _fitting(boundary: BoundaryMeasure, laplacian: Laplacian) -> BoundaryMeasure:
    if not isinstance(boundary, BoundaryMeasure):
        raise TypeError(
            f"the boundary is a BoundaryMeasure, such as boundary_measure(mesh) or named_boundary(L, nodes), not a "
            f"{type(boundary).__name__}"
        )
    if boundary.nodes != laplacian.shape[0]:
        raise FieldError(f"this boundary is that of a domain of {boundary.nodes} nodes, and L has {laplacian.shape[0]}")
    return boundary.to(device=laplacian.device, dtype=laplacian.mass.dtype)


def _is_learned(value: object) -> bool:
    return isinstance(value, Learned)
