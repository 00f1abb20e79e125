"""The heat equation in uniform and uneven materials, and the linear part that every diffusion shares."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from integrators import LinearPart
from integrators.solution import Time
from neuralpde.coefficient import CoefficientLike, as_coefficient
from neuralpde.invariants import DirichletEnergy, Invariant, Law, Mass, Norm, Rayleigh
from neuralpde.rhs import RightHandSide
from neuralpde.symmetry import Permutation, RigidMotion, Symmetry
from operators import (
    ChebyshevFilter,
    DirichletLaplacian,
    EdgeDiffusion,
    FieldError,
    Laplacian,
    LinearSolver,
    SparseOperator,
    edge_gradient,
    exponential,
)

Hold = Callable[[Laplacian], DirichletLaplacian]


class Heat(RightHandSide):
    """du/dt = −κ L u, that is ∂u/∂t = div (κ ∇u): isotropic diffusion, with natural (no-flux) boundary.

    Where κ is a field it stands inside the divergence: what flows along an edge is the mean of κ at its two ends times the
    difference of u, so that heat is kept whatever κ is, also one that is learned. Coefficients on the triangles of a surface,
    and other rates along than across: `AnisotropicHeat`. Boundary conditions and sources are added, as in
    `Heat(L) + Robin(L, boundary, 2.0)`.

    With one κ, `linear` has factored solves and a Chebyshev exponential, so every solver works; with a fixed or learned field
    of one channel it has them too, for the Laplacian assembled with κ. With a function of time it is None.

    Good values: on the unit sphere κ = 1, t up to 1; the slowest modes, z and its like, fall as e^(−2t).

    Invariants: norm, Dirichlet energy and Rayleigh quotient never increase, mass is conserved. With a field κ the energy is
    that with κ, and nothing is said of the Rayleigh quotient.

    Args:
        laplacian: L = M⁻¹ C, positive semi-definite, in 1/length² on a surface.
        diffusivity: κ > 0, in length²/time: a number, `learned(...)`, a field (n, 1), or (n, c) with one a channel, or a
            function of time giving either; see `Coefficient`.
        learn: make a number κ a parameter; it is kept positive by learning log κ.
        solver: of the implicit equations; a direct one by default. `ConjugateGradient(preconditioner=Jacobi())` for large
            volumes, or a κ that changes in every step of a training.

    Raises:
        DomainError: a field κ, and a Laplacian whose weights are negative (use `robust_laplacian`).

    Source: Fourier, Théorie analytique de la chaleur (1822), section II.
    """

    def __init__(
        self,
        laplacian: Laplacian,
        diffusivity: CoefficientLike = 1.0,
        *,
        learn: bool = False,
        solver: LinearSolver | None = None,
    ) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.kappa = as_coefficient(diffusivity, laplacian, "diffusivity", positive=True, learn=learn)
        self.solver = solver
        if not self.kappa.scalar and laplacian.kills_constants:
            self.divergence = edge_gradient(laplacian).divergence()
        self._one_field = self.kappa.steady and self.kappa().shape[-2:] == (laplacian.shape[0], 1) and not self.kappa.scalar
        if self._one_field:
            self.edges = EdgeDiffusion(laplacian)
        self._assembled: tuple[EdgeDiffusion, Tensor, Laplacian] | None = None

    @property
    def diffusivity(self) -> Tensor:
        """κ."""
        return self.kappa()

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        kappa = self.kappa(t)
        if kappa.ndim < 2 or kappa.shape[-2] == 1:
            return -kappa * (self.laplacian @ u)
        if not hasattr(self, "divergence") or kappa.shape[-2] != self.laplacian.shape[0]:
            raise FieldError(
                f"a diffusivity of shape {tuple(kappa.shape)} does not fit this Laplacian of {self.laplacian.shape[0]} nodes: "
                "give one number a node, (n, 1), and a Laplacian that kills constants, so before symmetrized()"
            )
        gradient = self.divergence.gradient
        low, high = gradient.stencil.pattern.col.reshape(-1, 2).T
        return self.divergence @ (_mean(kappa, low, high) * (gradient @ u))

    def _uneven(self) -> Laplacian:
        """L with the field κ in it."""
        conductance = _mean(self.kappa(), *self.edges.edges)[..., 0]
        if conductance.requires_grad:
            made: Laplacian = self.edges(conductance)
            return made
        kept = self._assembled
        same = kept is not None and kept[0] is self.edges and kept[1].dtype == conductance.dtype
        if kept is None or not same or kept[1].device != conductance.device or not torch.equal(kept[1], conductance):
            with torch.inference_mode(False):
                plain = conductance.clone()
                kept = self._assembled = (self.edges, plain, self.edges(plain))
        return kept[2]

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        if self.kappa.scalar:
            declared = diffusion_invariants(self.laplacian)
            return tuple(i for i in declared if i.law is Law.CONSERVED) if self.kappa.negative else declared
        if not self._one_field:
            return ()
        with torch.no_grad():
            uneven = self._uneven()
        return Norm(uneven, Law.NON_INCREASING), DirichletEnergy(uneven, Law.NON_INCREASING), Mass(uneven)

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return (Permutation(), RigidMotion()) if self.kappa.scalar else ()

    @property
    def linear(self) -> LinearPart | None:
        if self.kappa.scalar:
            return Diffusion(self.laplacian, self.kappa(), solver=self.solver)
        return Diffusion(self._uneven(), 1.0, solver=self.solver) if self._one_field else None


def _mean(field: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """That of the two ends of each edge; (..., n, c) → (..., E, c)."""
    return (field.index_select(-2, low) + field.index_select(-2, high)) / 2


class Diffusion:
    """G = −κ L − r as a linear part: its solves are those of a factored Laplacian.

    Args:
        laplacian: L.
        diffusivity: κ, one number.
        decay: r, one number, a rate at which all decays.
        solver: of the implicit equations; a direct one by default.
    """

    def __init__(
        self,
        laplacian: Laplacian,
        diffusivity: Tensor | float,
        decay: Tensor | float = 0.0,
        *,
        solver: LinearSolver | None = None,
    ) -> None:
        self.laplacian = laplacian
        self.diffusivity = diffusivity
        self.decay = decay
        self.solver = solver

    @property
    def self_adjoint(self) -> bool:
        """Whether κ and r are not negative, so that G is negative semi-definite."""
        return _number(self.diffusivity) >= 0 and _number(self.decay) >= 0

    def plus(self, other: object) -> Diffusion | None:
        """The sum with another diffusion as one, or None where their masses differ."""
        if not isinstance(other, Diffusion):
            return None
        decay, solver = self.decay + other.decay, self.solver or other.solver
        mine, its = self.laplacian, other.laplacian
        if mine is its or _is_zero(other.diffusivity):
            return Diffusion(mine, self.diffusivity + other.diffusivity, decay, solver=solver)
        if _is_zero(self.diffusivity):
            return Diffusion(its, other.diffusivity, decay, solver=solver)
        same = mine.mass.shape == its.mass.shape and (mine.mass.dtype, mine.device) == (its.mass.dtype, its.device)
        if not same or not torch.equal(mine.mass, its.mass):
            return None
        # Signs are kept outside: a Laplacian is positive semi-definite.
        if _number(self.diffusivity) < 0 or _number(other.diffusivity) < 0:
            return None
        stiffness = _times(self.diffusivity, mine.stiffness) + _times(other.diffusivity, its.stiffness)
        return Diffusion(Laplacian(stiffness, mine.mass), 1.0, decay, solver=solver)

    def times(self, coefficient: Tensor | float) -> Diffusion:
        """c G, for a real number c."""
        return Diffusion(self.laplacian, coefficient * self.diffusivity, coefficient * self.decay, solver=self.solver)

    def held(self, hold: Hold) -> Diffusion:
        """G on the nodes that are free, with zeros at the others."""
        return Diffusion(hold(self.laplacian), self.diffusivity, self.decay, solver=self.solver)

    def __matmul__(self, u: Tensor) -> Tensor:
        slope: Tensor = -self.diffusivity * (self.laplacian @ u)
        return slope - self.decay * u if self._decays else slope

    @property
    def _decays(self) -> bool:
        return isinstance(self.decay, Tensor) or self.decay != 0

    def norm_bound(self) -> float:
        return abs(_number(self.diffusivity)) * self.laplacian.norm_bound() + abs(_number(self.decay))

    def solve(self, shift: Tensor, b: Tensor) -> Tensor:
        if not self._decays:
            return self.laplacian.solve(shift * self.diffusivity, b, by=self.solver)
        # 1 + s (κλ + r) = (1 + s r) (1 + s κ / (1 + s r) λ).
        growth = 1 + shift * self.decay
        return self.laplacian.solve(shift * self.diffusivity / growth, b / growth, by=self.solver)

    def keep_factors(self, count: int) -> None:
        """Keep so many factors, for a method that goes round so many shifts."""
        self.laplacian.keep_factors(count)

    def exponential(self, h: Time, u: Tensor, tolerance: float | None = None) -> Tensor:
        """exp(−h (κL + r)) u by a Chebyshev series; backwards, where it grows, by several."""
        pieces = self._pieces(h)
        flow = self._flow(h / pieces, tolerance)
        for _ in range(pieces):
            u = flow(u)
        return u * torch.exp(torch.as_tensor(-h * self.decay, dtype=torch.float64)) if self._decays else u

    def exponential_products(self, h: Time, tolerance: float | None = None) -> int:
        """The number of products with L that `exponential` takes."""
        pieces = self._pieces(h)
        return pieces * self._flow(h / pieces, tolerance).degree

    def _pieces(self, h: Time) -> int:
        # A series errs by e^(|h|κb) for a bound b of the spectrum, but u may grow by less: short pieces keep the two close.
        return max(1, math.ceil(-_number(h) * _number(self.diffusivity) * self.laplacian.norm_bound() / 8))

    def _flow(self, h: Time, tolerance: float | None) -> ChebyshevFilter:
        return exponential(self.laplacian, h * self.diffusivity, tolerance=tolerance)


def diffusion_invariants(laplacian: Laplacian) -> tuple[Invariant, ...]:
    """What −κL with κ ≥ 0 promises: norm, energy and Rayleigh quotient never increase; mass stays where L 1 = 0."""
    one_sided = (Norm, Rayleigh, DirichletEnergy)
    declared: tuple[Invariant, ...] = tuple(quantity(laplacian, Law.NON_INCREASING) for quantity in one_sided)
    return (*declared, Mass(laplacian)) if laplacian.kills_constants else declared


def _is_zero(value: Tensor | float) -> bool:
    return isinstance(value, float) and value == 0.0


def _number(value: Time) -> float:
    return float(value.detach()) if isinstance(value, Tensor) else float(value)


def _times(coefficient: Tensor | float, stiffness: SparseOperator) -> SparseOperator:
    """c C; C itself where c is one, so that nothing is rounded."""
    return stiffness if isinstance(coefficient, float) and coefficient == 1.0 else stiffness * coefficient
