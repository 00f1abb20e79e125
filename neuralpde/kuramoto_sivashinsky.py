"""The Kuramoto–Sivashinsky equation: long waves grow, short ones are damped, and chaos is what both make of each other."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralpde.burgers import steepening
from neuralpde.coefficient import CoefficientLike, as_coefficient
from neuralpde.invariants import Invariant, Law, Mass
from neuralpde.rhs import RightHandSide
from neuralpde.transport import TransportDomain, as_velocity
from operators import Grid, Laplacian
from operators.advection import Flux
from operators.cell_sides import CellSides, cell_sides


class KuramotoSivashinsky(RightHandSide):
    """dh/dt = α L h − β L² h − ½ |grad h|², or with a direction b du/dt = α L u − β L² u − div(½ u² b).

    A flame front or a film: a mode of L with eigenvalue λ = k² grows at the rate αλ − βλ², fastest at k = √(α / 2β), and
    steepening hands what grows to shorter waves. |grad h|²_i = Σ_j w_ij (h_j − h_i)² / (2 m_i) needs the Laplacian alone, on
    any domain; the derivative form, u = ∂h/∂x in one dimension, needs the domain and keeps the mass of u.

    The linear part is −(√β L − α / (2√β))², which is αL − βL² less its largest growth rate α² / 4β; this is left to the other
    part. So it is negative semi-definite, as αL − βL² is not, and IMEX and exponential integrators solve with it at any step.

    Good values: α = β = 1 on a periodic `Grid(128, 22 / 128)`, from u₀ of size 0.1: chaos with waves of length about 8.9 and
    |u| up to 3.5 (Cvitanović, Davidchack and Siminos 2010, SIAM J. Appl. Dyn. Syst. 9; below a length of 2π everything decays);
    32π with u₀ = cos(x/16)(1 + sin(x/16)) is the case of Kassam and Trefethen 2005. On a sphere a radius of 6 or more.
    Spacings up to 1: beyond about 1.3 sharp minima of h run away in the integral form. `ARK324(dt=0.25)`, `ETDRK4(dt=0.25)`.

    Args:
        laplacian: L = M⁻¹ C, positive semi-definite, in 1/length² on a surface.
        domain: the same mesh, grid or graph, for the derivative form; None for the integral form.
        direction: b, a velocity as in `Advection`, for the derivative form; by default the axis of a grid.
        growth: α > 0 in length²/time.
        damping: β > 0 in length⁴/time.

    Invariants: the integral form's mass never increases, d/dt Σ m h = −½ ⟨h, L h⟩; the derivative form's is conserved.

    Kuramoto and Tsuzuki 1976, Prog. Theor. Phys. 55; Sivashinsky 1977, Acta Astronautica 4.
    """

    def __init__(
        self,
        laplacian: Laplacian,
        domain: TransportDomain | None = None,
        direction: CoefficientLike | None = None,
        *,
        growth: CoefficientLike = 1.0,
        damping: CoefficientLike = 1.0,
    ) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.alpha = as_coefficient(growth, laplacian, "growth", positive=True)
        self.beta = as_coefficient(damping, laplacian, "damping", positive=True)
        if not (self.alpha.scalar and self.beta.scalar):
            raise ValueError("growth and damping must be one number each: add a term of your own for what varies")
        self.sides: CellSides | None = None
        if domain is None and direction is not None:
            raise ValueError("a direction needs the domain that it lies on: KuramotoSivashinsky(laplacian, domain, direction)")
        if domain is not None:
            if direction is None and not (isinstance(domain, Grid) and len(domain.shape) == 1):
                raise ValueError("the derivative form needs a direction beyond one dimension: give one, or leave the domain out")
            self.sides = cell_sides(domain)
            self.b = as_velocity(1.0 if direction is None else direction, self.sides)

    @property
    def growth(self) -> Tensor:
        """α."""
        return self.alpha()

    @property
    def damping(self) -> Tensor:
        """β."""
        return self.beta()

    def growth_rate(self, eigenvalue: Tensor | float) -> Tensor:
        """αλ − βλ², at which a small mode of L grows."""
        return self.alpha() * eigenvalue - self.beta() * eigenvalue**2

    @property
    def linear(self) -> SquaredShift:
        return SquaredShift(self.laplacian, self.alpha(), self.beta())

    def nonlinear(self, t: Tensor, u: Tensor) -> Tensor:
        """N(t, u), the steepening, and α² / 4β u."""
        return self.alpha() ** 2 / (4 * self.beta()) * u + self._steepening(t, u)

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        # Not the sum of the two parts: where L u is small beside u, the shift would cancel and leave its round-off.
        rough = self.laplacian @ u
        return self.alpha() * rough - self.beta() * (self.laplacian @ rough) + self._steepening(t, u)

    def _steepening(self, t: Tensor, u: Tensor) -> Tensor:
        if self.sides is None:
            return -squared_gradient(self.laplacian, u) / 2
        return steepening(self.sides, self.sides.flows(self.b(t)), u, Flux.CENTRED) / self.laplacian.mass[:, None]

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        if not self.laplacian.kills_constants or (self.sides is not None and self.sides.exits.numel()):
            return ()
        return (Mass(self.laplacian, Law.NON_INCREASING if self.sides is None else Law.CONSERVED),)


class SquaredShift:
    """G = −(√β L − α / (2√β))² = αL − βL² − α² / 4β as a linear part, negative semi-definite."""

    self_adjoint = True

    def __init__(self, laplacian: Laplacian, growth: Tensor, damping: Tensor) -> None:
        self.laplacian = laplacian
        self.root = damping.sqrt()
        self.shift = growth / (2 * self.root)

    def _factor(self, u: Tensor) -> Tensor:
        return self.root * (self.laplacian @ u) - self.shift * u

    def __matmul__(self, u: Tensor) -> Tensor:
        return -self._factor(self._factor(u))

    def norm_bound(self) -> float:
        root, shift = float(self.root.detach()), float(self.shift.detach())
        return max(abs(root * self.laplacian.norm_bound() - shift), shift) ** 2

    def solve(self, shift: Tensor, b: Tensor) -> Tensor:
        # 1 / (1 + s μ²) = ½ / (1 + iτμ) + ½ / (1 − iτμ) with τ² = s: a factor of L's own sparsity, not of L²'s.
        s = torch.as_tensor(shift, dtype=torch.complex128)
        tau = s.sqrt()
        real = not (b.is_complex() or torch.as_tensor(shift).is_complex())
        if real and float(s.detach().real) >= 0:
            return self._half(1j * tau, b).real.to(b.dtype)
        wide = b.to(torch.complex64 if b.dtype in (torch.float32, torch.complex64) else torch.complex128)
        self.keep_factors(2)
        both = 0.5 * (self._half(1j * tau, wide) + self._half(-1j * tau, wide))
        return both.real.to(b.dtype) if real else both

    def _half(self, sigma: Tensor, b: Tensor) -> Tensor:
        """(1 + σμ)⁻¹ b with μ = √β L − α / (2√β)."""
        rest = 1 - sigma * self.shift
        y = self.laplacian.solve(sigma * self.root / rest, b)
        return y / rest.to(y.dtype)

    def keep_factors(self, count: int) -> None:
        """Keep the factors of so many shifts; a complex one takes two."""
        self.laplacian.keep_factors(2 * count)


def squared_gradient(laplacian: Laplacian, u: Tensor) -> Tensor:
    """|grad u|² = u L u − ½ L u², that is Σ_j w_ij (u_j − u_i)² / (2 m_i) where L 1 = 0; its integral is ⟨u, L u⟩."""
    # By differences, which lose nothing to a large constant.
    stiffness = laplacian.stiffness
    pattern, weights = stiffness.pattern, -stiffness.values[:, None]
    rise = pattern.gather_columns(u) - pattern.gather_rows(u)
    total: Tensor = pattern.sum_rows(weights * rise * rise) + stiffness.row_sums()[:, None] * u * u
    return total / (2 * laplacian.mass[:, None])
