"""Phase fields: Allen–Cahn and Cahn–Hilliard, with the energy that both lower."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from integrators import LinearPart, State
from neuralpde.coefficient import Coefficient, CoefficientLike, as_coefficient
from neuralpde.heat import Diffusion
from neuralpde.invariants import Invariant, LaplacianInvariant, Law, Mass, NodeInvariant, one_field
from neuralpde.mixed_form import MixedPart, weighted_laplacian, weighted_product
from neuralpde.rhs import RightHandSide
from neuralpde.symmetry import Permutation, RigidMotion, Symmetry
from operators import Laplacian, dirichlet_energy


class PhaseField(RightHandSide):
    """What the phase fields share: the energy E(u) = ½ ⟨u, D u⟩ + ¼ ∫ (u² − 1)² with D = −div(ε² grad), and μ = dE/du."""

    def __init__(
        self, laplacian: Laplacian, width: CoefficientLike, mobility: CoefficientLike, stabilization: float, learn: bool
    ) -> None:
        super().__init__()
        if isinstance(stabilization, bool) or not 0 <= stabilization < float("inf"):
            raise ValueError(f"stabilization must be a number that is not negative, not {stabilization!r}: 2 is a good value")
        self.laplacian = laplacian
        self.epsilon = as_coefficient(width, laplacian, "width", positive=True, learn=learn)
        self.m = as_coefficient(mobility, laplacian, "mobility", positive=True)
        self.stabilization = float(stabilization)

    @property
    def width(self) -> Tensor:
        """ε."""
        return self.epsilon()

    @property
    def mobility(self) -> Tensor:
        """m."""
        return self.m()

    def chemical_potential(self, u: Tensor, t: Tensor | float | None = None) -> Tensor:
        """μ = ε² L u + u³ − u, the derivative of the energy; with a field ε, μ = −div(ε² grad u) + u³ − u."""
        return weighted_product(self.laplacian, self.epsilon(t) ** 2, u) + u**3 - u

    @property
    def energy(self) -> FreeEnergy:
        """E as a quantity of states; it needs a width that does not depend on time."""
        return FreeEnergy(self.laplacian, Law.NON_INCREASING, width=self.epsilon().detach())

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return (Permutation(), RigidMotion()) if self.epsilon.scalar and self.m.scalar else ()

    def _lowers_energy(self) -> bool:
        return self.epsilon.steady and self.m.steady and not self.m.negative


class AllenCahn(PhaseField):
    """du/dt = m (−ε² L u + u − u³): a double well with interfaces that move by their curvature (Allen and Cahn 1979).

    A flat interface is tanh(x / √2 ε). A curved one moves at speed m ε² times its curvature as ε → 0: a circle in the plane has
    R² = R₀² − 2 m ε² t, a circle of geodesic radius r on the unit sphere cos r = cos r₀ exp(m ε² t).

    Good values: a unit square with 64 × 64 nodes, ε = 0.03 (two cells), m = 1/ε² so that curvature is the speed; from noise of
    size 0.1 the phases part within t ≈ 5 ε² and then shrink. `SBDF2(dt=0.1)` at m = 1 follows them.

    Invariants: the free energy falls; where no weight is negative, |u| ≤ 1 stays so, and a larger |u| falls.

    Args:
        laplacian: L = M⁻¹ C, positive semi-definite, in 1/length² on a surface.
        width: ε > 0, in length: two edge lengths at least, to be resolved. A number, `learned(...)`, a function of time or a
            field; see `Coefficient`. With a field, ε² L is −div(ε² grad).
        mobility: m > 0, in 1/time, of the same kinds.
        stabilization: a ≥ 0: m a u is taken from the nonlinear to the linear part. The equation stays the same; implicit-explicit
            steps of any length then lower the energy, from a = 2 with |u| ≤ 1 (Eyre 1998), and move the interface more slowly.
        learn: make a number ε a parameter; it is kept positive by learning log ε.
    """

    def __init__(
        self,
        laplacian: Laplacian,
        width: CoefficientLike,
        mobility: CoefficientLike = 1.0,
        *,
        stabilization: float = 0.0,
        learn: bool = False,
    ) -> None:
        super().__init__(laplacian, width, mobility, stabilization, learn)

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return -self.m(t) * self.chemical_potential(u, t)

    @property
    def linear(self) -> LinearPart | None:
        return self._part(self.epsilon(), self.m()) if _columns(self.epsilon) and _columns(self.m) else None

    def _part(self, epsilon: Tensor, m: Tensor) -> LinearPart:
        if epsilon.numel() > 1 or m.numel() > 1:
            return Diffusion(weighted_laplacian(self.laplacian, epsilon**2, m, self.stabilization), 1.0)
        return Diffusion(self.laplacian, m * epsilon**2, m * self.stabilization if self.stabilization else 0.0)

    def lagged(self, t: Tensor, u: Tensor) -> tuple[LinearPart, Tensor]:
        """G u = −m (ε² L u + a u) with m and ε as they are at time t, and the rest of f, for `SemiImplicitEuler`."""
        return self._part(self.epsilon(t), self.m(t)), self._rest(t, u)

    @property
    def nonlinear(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """N(t, u) = m ((1 + a) u − u³)."""
        return self._rest if _columns(self.epsilon) and _columns(self.m) else None

    def _rest(self, t: Tensor, u: Tensor) -> Tensor:
        return self.m(t) * ((1 + self.stabilization) * u - u**3)

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        # Where the weights are not negative, diffusion with any ε(x) pulls the largest |u| down.
        bounded: tuple[Invariant, ...] = ()
        if weights_are_nonnegative(self.laplacian) and not self.m.negative:
            bounded = (WithinWells(self.laplacian, Law.NON_INCREASING),)
        return (self.energy, *bounded) if self._lowers_energy() else bounded


class CahnHilliard(PhaseField):
    """du/dt = div(m grad μ), μ = ε² L u + u³ − u: phase separation that keeps the mass 1ᵀ M u (Cahn and Hilliard 1958).

    From u ≈ 0, a mode with L φ = λ φ grows at the rate m λ (1 − ε² λ): fastest at λ = 1/2ε², not at all above 1/ε². Domains
    then coarsen, their size growing as t^⅓. The mean u₀ decides what is seen: 0 a labyrinth, ±0.4 droplets, nothing from
    |u₀| > 1/√3 on.

    Good values: a periodic square of side 2π with 64 × 64 nodes, ε = 0.1 (one cell), noise of size 0.05; stripes of width 0.45
    appear at t ≈ 0.2. `SBDF2(dt=ε²)` at first; `SemiImplicitEuler(dt=0.1)` with `stabilization=2` for the coarsening.

    Invariants: mass, and the free energy falls.

    Args:
        laplacian: L = M⁻¹ C, positive semi-definite, in 1/length² on a surface.
        width: ε > 0, the width of the interfaces, in length; two edge lengths at least. Kinds as for `AllenCahn`.
        mobility: m > 0, in length²/time, of the same kinds. With a field, m L μ is −div(m grad μ).
        stabilization: a ≥ 0: −m a L u is taken from the nonlinear to the linear part, as for `AllenCahn`.
        learn: make a number ε a parameter; it is kept positive by learning log ε.
    """

    def __init__(
        self,
        laplacian: Laplacian,
        width: CoefficientLike,
        mobility: CoefficientLike = 1.0,
        *,
        stabilization: float = 0.0,
        learn: bool = False,
    ) -> None:
        super().__init__(laplacian, width, mobility, stabilization, learn)

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return -weighted_product(self.laplacian, self._mobility_at(t, u), self.chemical_potential(u, t))

    def _mobility_at(self, t: Tensor, u: Tensor) -> Tensor:
        return self.m(t)

    @property
    def linear(self) -> LinearPart | None:
        if not (self.epsilon.scalar and self.m.scalar):
            return None
        if not (self.stabilization or self.m.negative):
            return Biharmonic(self.laplacian, self.m().sqrt() * self.epsilon())
        return MixedPart(self.laplacian, self.m(), self.epsilon() ** 2, self.stabilization)

    @property
    def nonlinear(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """N(t, u) = −m L (u³ − (1 + a) u)."""
        return self._rest if self.linear is not None else None

    def _rest(self, t: Tensor, u: Tensor) -> Tensor:
        return weighted_product(self.laplacian, self._mobility_at(t, u), (1 + self.stabilization) * u - u**3)

    def lagged(self, t: Tensor, u: Tensor) -> tuple[MixedPart, Tensor]:
        """G u = div(m grad(ε² L u + a u)) with m and ε as at (t, u), and the rest of f, for `SemiImplicitEuler`."""
        m = self._mobility_at(t, u)
        return MixedPart(self.laplacian, m, self.epsilon(t) ** 2, self.stabilization), self._rest(t, u)

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        falls = self._lowers_energy() and (self.m.scalar or weights_are_nonnegative(self.laplacian))
        energy: tuple[Invariant, ...] = (self.energy,) if falls else ()
        return (*energy, Mass(self.laplacian)) if self.laplacian.kills_constants else energy


class DegenerateCahnHilliard(CahnHilliard):
    """du/dt = div(M(u) grad μ), μ = ε² L u + u³ − u: matter moves along the interfaces alone (Cahn, Elliott, Novick-Cohen 1996).

    The mobility M(u) vanishes in the pure phases, so that coarsening is by surface diffusion and slows down to t^¼. Each edge has
    the mean of M at its ends. Solve it by `SemiImplicitEuler(dt)`: there is no constant linear part.

    Good values: as for `CahnHilliard`, with steps of ε².

    Invariants: mass; where no weight is negative the free energy falls.

    Args:
        laplacian, width, stabilization, learn: as for `CahnHilliard`.
        mobility: u ↦ M(u) ≥ 0, a function or module of the field; max(0, 1 − u²) if absent.
    """

    def __init__(
        self,
        laplacian: Laplacian,
        width: CoefficientLike,
        mobility: Callable[[Tensor], Tensor] | None = None,
        *,
        stabilization: float = 0.0,
        learn: bool = False,
    ) -> None:
        super().__init__(laplacian, width, 1.0, stabilization=stabilization, learn=learn)
        if mobility is not None and not callable(mobility):
            raise TypeError(f"mobility must be a function of the field u, not {mobility!r}: for a number use CahnHilliard")
        self.mobility_of = one_minus_square if mobility is None else mobility

    @property
    def mobility(self) -> Tensor:
        """Not a value: it depends on u; ask `mobility_of(u)`."""
        raise ValueError("the mobility depends on the field: ask mobility_of(u)")

    def _mobility_at(self, t: Tensor, u: Tensor) -> Tensor:
        mobility = self.mobility_of(u)
        if mobility.shape != u.shape:
            raise ValueError(f"the mobility must have the shape of u, {tuple(u.shape)}, not {tuple(mobility.shape)}")
        return mobility

    @property
    def linear(self) -> LinearPart | None:
        return None

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        safe = self.epsilon.steady and weights_are_nonnegative(self.laplacian)
        energy: tuple[Invariant, ...] = (self.energy,) if safe else ()
        return (*energy, Mass(self.laplacian)) if self.laplacian.kills_constants else energy


def one_minus_square(u: Tensor) -> Tensor:
    """M(u) = max(0, 1 − u²)."""
    return (1 - u * u).clamp(min=0)


class Biharmonic:
    """G = −ε² L² as a linear part."""

    self_adjoint = True

    def __init__(self, laplacian: Laplacian, width: Tensor) -> None:
        self.laplacian = laplacian
        self.width = width

    def __matmul__(self, u: Tensor) -> Tensor:
        return -(self.width**2) * (self.laplacian @ (self.laplacian @ u))

    def norm_bound(self) -> float:
        return (float(self.width.detach()) * self.laplacian.norm_bound()) ** 2

    def solve(self, shift: Tensor, b: Tensor) -> Tensor:
        # 1 / (1 + s ε² λ²) = ½ / (1 + iσλ) + ½ / (1 − iσλ) with σ² = s ε²: a factor of L's own sparsity, not of L²'s.
        s = torch.as_tensor(shift, dtype=torch.complex128)
        sigma = 1j * s.sqrt() * self.width
        real = not (b.is_complex() or torch.as_tensor(shift).is_complex())
        if real and float(s.detach().real) >= 0:
            return self.laplacian.solve(sigma, b).real.to(b.dtype)
        wide = b.to(torch.complex64 if b.dtype in (torch.float32, torch.complex64) else torch.complex128)
        self.keep_factors(2)
        both = 0.5 * (self.laplacian.solve(sigma, wide) + self.laplacian.solve(-sigma, wide))
        return both.real.to(b.dtype) if real else both

    def keep_factors(self, count: int) -> None:
        """Keep the factors of so many shifts; a complex one takes two."""
        self.laplacian.keep_factors(2 * count)


@dataclass(frozen=True, eq=False)
class FreeEnergy(LaplacianInvariant):
    """E(u) = ½ ⟨u, −div(ε² grad u)⟩_M + ¼ Σ m_i (u_i² − 1)², over all channels (Ginzburg and Landau).

    Its scale is the same with + for −, what its terms reach.

    Args:
        width: ε, a number or a field (n, 1).
    """

    width: Tensor | float = field(default=1.0, kw_only=True)

    def measure(self, x: State) -> Tensor:
        u = one_field(x)
        return self._total(u, -1.0)

    def scale(self, x: State) -> Tensor:
        u = one_field(x)
        return self._total(u, 1.0)

    def _total(self, u: Tensor, sign: float) -> Tensor:
        laplacian = self.laplacian.to_wide(u)
        square = torch.as_tensor(self.width, dtype=u.dtype, device=u.device) ** 2
        wells = (self._mass(u)[:, None] * (u**2 + sign) ** 2).sum((-2, -1)) / 4
        if square.numel() == 1:
            return square.reshape(()) * dirichlet_energy(laplacian, u) + wells
        return laplacian.inner(u, weighted_product(laplacian, square, u)) / 2 + wells

    @property
    def name(self) -> str:
        return "free energy"


class WithinWells(NodeInvariant):
    """max(1, max_i |u_i|) of each channel: |u| ≤ 1 stays so, and what is larger falls."""

    name = "bound |u| ≤ 1"

    def measure(self, x: State) -> Tensor:
        x = one_field(x)
        return x.abs().amax(dim=-2).clamp(min=1)

    def scale(self, x: State) -> Tensor:
        return self.measure(x)


def weights_are_nonnegative(laplacian: Laplacian) -> bool:
    """Whether −C is not negative beside the diagonal and C 1 ≥ 0, so that −L pulls every extremum towards its neighbours."""
    values, pattern = laplacian.stiffness.values.detach(), laplacian.stiffness.pattern
    if values.is_complex():
        return False
    beside = pattern.row != pattern.col
    # Round-off of weights that are zero in exact arithmetic, as across the diagonals of a grid of squares.
    noise = 64 * torch.finfo(values.dtype).eps * values.abs().max() if values.numel() else values.new_zeros(())
    short = laplacian.stiffness.row_sums().detach() < -noise
    return not bool((values[..., beside] > noise).any()) and not bool(short.any())


def _columns(coefficient: Coefficient) -> bool:
    """Whether it is steady, and the same for all channels and samples."""
    return coefficient.steady and (coefficient.scalar or (coefficient().ndim == 2 and coefficient().shape[-1] == 1))
