"""What is added to an equation from outside, and what fades by itself: sources, forcing in time, decay."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from integrators import LinearPart
from neuralpde.coefficient import CoefficientLike, as_coefficient
from neuralpde.heat import Diffusion
from neuralpde.invariants import DirichletEnergy, Invariant, Law, Norm, Rayleigh
from neuralpde.rhs import RightHandSide
from neuralpde.symmetry import Permutation, RigidMotion, Symmetry
from operators import Domain, FieldError, Laplacian, TriangleMesh
from operators.boundary_terms import with_potential


class Source(RightHandSide):
    """du/dt = s, to be added to an equation: `Heat(L, 0.1) + Source(L, s)`; with s < 0 a sink.

    Args:
        laplacian: L, of the domain that s lives on.
        source: s, in units of u/time: a number, a field (n, 1) or (n, c), `learned(field)` (a source to be found), or a
            function of time giving either, `lambda t: torch.sin(t) * pattern`. For s(t, x) of positions: `PositionalSource`.

    Good values: heat with a fixed s of mean zero settles at κ L u = s, after some 1/(κ λ₂).
    """

    def __init__(self, laplacian: Laplacian, source: CoefficientLike) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.s = as_coefficient(source, laplacian, "source")

    @property
    def source(self) -> Tensor:
        """s."""
        return self.s()

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return torch.zeros_like(u) + self.s(t)

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return (Permutation(), RigidMotion()) if self.s.scalar else ()


class PositionalSource(RightHandSide):
    """du/dt = s(t, x), a source at positions x, which moves with `.on(domain)`.

    Args:
        domain: with positions: a mesh, a point cloud or a grid.
        source: from the time, a scalar, and the positions (n, d) to s, (n, 1) or (n, c), in units of u/time; a function or a
            module with parameters to be learned.
    """

    points: Tensor

    def __init__(self, domain: Domain, source: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        if not callable(source):
            raise TypeError(f"source must be a function of (t, points), not {type(source).__name__}: for others use Source(L, s)")
        self.s = source
        self.register_buffer("points", positions(domain), persistent=False)

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        n = self.points.shape[0]
        s = self.s(t, self.points)
        if not isinstance(s, Tensor) or s.ndim < 2 or s.shape[-2] not in (1, n):
            given = tuple(s.shape) if isinstance(s, Tensor) else type(s).__name__
            raise FieldError(f"source(t, points) must return ({n}, 1) or ({n}, c), not {given}: add a channel with [:, None]")
        return torch.zeros_like(u) + s.to(u.real.dtype)

    def on(self, domain: Domain) -> PositionalSource:
        """The same source at the positions of another domain."""
        moved = PositionalSource(domain, self.s)
        moved.points = moved.points.to(self.points)
        return moved


class Decay(RightHandSide):
    """du/dt = −r u: radioactive decay, cooling to the outside, a reaction of first order; with r < 0 growth.

    Added to diffusions it becomes a part of their `linear`, so that `Heat(L) + Decay(L, r)` has solves and an exponential; r may
    be a field then too.

    Good values: r = 0.1 and κ = 1 smooth a field over √(κ/r) ≈ 3 units of length before it fades.

    Invariants: with one number r ≥ 0, norm and Dirichlet energy never increase and the Rayleigh quotient stays; with a field
    r ≥ 0, the norm.

    Args:
        laplacian: L, of the domain; its masses are those of the norm.
        rate: r, in 1/time: a number, a field (n, 1), `learned(...)`, or a function of time.
    """

    def __init__(self, laplacian: Laplacian, rate: CoefficientLike) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.r = as_coefficient(rate, laplacian, "rate")

    @property
    def rate(self) -> Tensor:
        """r."""
        return self.r()

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return -self.r(t) * u

    @property
    def linear(self) -> LinearPart | None:
        if self.r.scalar:
            return Diffusion(self.laplacian, 0.0, self.r())
        if not self.r.steady or self.r().shape != (self.laplacian.shape[0], 1):
            return None
        return fading(self.laplacian, self.r())

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        if not self.r.steady or self.r.negative:
            return ()
        norm = Norm(self.laplacian, Law.NON_INCREASING)
        if not self.r.scalar:
            return (norm,)
        return norm, Rayleigh(self.laplacian, Law.CONSERVED), DirichletEnergy(self.laplacian, Law.NON_INCREASING)

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return (Permutation(), RigidMotion()) if self.r.scalar else ()


def fading(laplacian: Laplacian, rate: Tensor) -> Diffusion:
    """−diag(r) for a field r (n, 1), with the masses of L: it merges with diffusions on the same nodes."""
    empty, least = Laplacian(laplacian.stiffness * 0.0, laplacian.mass), rate.detach().min()
    if least >= 0:
        return Diffusion(with_potential(empty, rate), 1.0)
    # A Laplacian takes r ≥ 0: what grows is kept outside.
    return Diffusion(with_potential(empty, rate - least), 1.0, least)


def positions(domain: Domain) -> Tensor:
    points = domain.vertices if isinstance(domain, TriangleMesh) else getattr(domain, "points", None)
    if not isinstance(points, Tensor):
        raise TypeError(f"a {type(domain).__name__} has no positions: give a field, or a function of t alone, as to Source(L, s)")
    return points
