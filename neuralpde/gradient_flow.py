"""The gradient flow of a learned free energy, of Allen–Cahn's kind and of Cahn–Hilliard's."""

from __future__ import annotations

import cmath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from integrators import State
from neuralpde.invariants import Invariant, LaplacianInvariant, Law, Mass, one_field
from neuralpde.metriplectic import Metriplectic, roots
from neuralpde.metriplectic_part import SpectralPart
from operators import Laplacian, dirichlet_energy


class GradientFlow(Metriplectic):
    """τ du/dt = −K μ, μ = a σ u + φ(u), with σ = τL, a ≥ 0 and φ(u) = c_1 u + c_2 u² + c_3 u³, c_3 ≥ 0; K = I, or σ: conserved.

    μ is the derivative of E(u) = ½ a ⟨u, σu⟩_M + Σ m_i Φ(u_i), Φ′ = φ, so dE/dt = −⟨μ, K μ⟩_M/τ ≤ 0 whatever is learned, and with
    K = σ the mass Σ m_i u_i stays. a and c_3 are learned as squares.

    Good values: a = ε²/τ, φ = u³ − u and K = σ is Cahn–Hilliard's equation with mobility 1, K = I Allen–Cahn's with 1/τ.

    Args:
        laplacian: L = M⁻¹ C, in 1/length².
        time_step: τ > 0: the time between two frames.
        stiffness: a at the start.
        potential: c_1, c_2, c_3 at the start.
        conserved: K = σ.
        stabilization: b ≥ 0: −K b u is taken from the nonlinear to the linear part, as for `CahnHilliard`. A number learned with
            the others where `learn_split`: the equation is the same, but not the steps of an implicit-explicit solver.

    Invariants: the free energy falls; the mass stays where K = σ and L 1 = 0.
    """

    def __init__(
        self,
        laplacian: Laplacian,
        time_step: float,
        stiffness: float,
        potential: Sequence[float],
        *,
        conserved: bool,
        stabilization: float = 0.0,
        learn_split: bool = False,
    ) -> None:
        super().__init__(laplacian, time_step)
        linear, square, cubic = potential
        self.conserved = conserved
        self.root_stiffness = nn.Parameter(roots([stiffness], "stiffness", laplacian)[0])
        self.low = nn.Parameter(torch.tensor([linear, square], dtype=laplacian.dtype, device=laplacian.device))
        self.root_cubic = nn.Parameter(roots([cubic], "potential", laplacian)[0])
        self.root_split = nn.Parameter(roots([stabilization], "stabilization", laplacian)[0], requires_grad=learn_split)

    @property
    def stiffness(self) -> Tensor:
        """a ≥ 0."""
        return self.root_stiffness**2

    @property
    def potential(self) -> Tensor:
        """c_1, c_2, c_3."""
        return torch.cat([self.low, self.root_cubic[None] ** 2])

    @property
    def stabilization(self) -> Tensor:
        """b ≥ 0."""
        return self.root_split**2

    def _mobile(self, mu: Tensor) -> Tensor:
        """−K μ / τ."""
        return -(self.laplacian @ mu) if self.conserved else -mu / self.time_step

    def _force(self, u: Tensor) -> Tensor:
        """φ(u)."""
        c = self.potential.to(u.dtype)
        return u * (c[0] + u * (c[1] + u * c[2]))

    def chemical_potential(self, u: Tensor) -> Tensor:
        """μ = a σ u + φ(u), the derivative of the energy."""
        return self.stiffness.to(u.dtype) * self.time_step * (self.laplacian @ u) + self._force(u)

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return self._mobile(self.chemical_potential(u))

    @property
    def linear(self) -> SpectralPart:
        return _GradientPart(self)

    @property
    def nonlinear(self) -> Callable[[Tensor, Tensor], Tensor]:
        """N(t, u) = −K (φ(u) − b u) / τ."""
        return lambda t, u: self._mobile(self._force(u) - self.stabilization.to(u.dtype) * u)

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        coefficients = {"stiffness": self.stiffness.detach().clone(), "potential": self.potential.detach().clone()}
        energy = LearnedEnergy(self.laplacian, Law.NON_INCREASING, time_step=self.time_step, **coefficients)
        return (energy, Mass(self.laplacian)) if self.conserved and self.laplacian.kills_constants else (energy,)


class _GradientPart(SpectralPart):
    """G = −K (a σ + b) / τ."""

    def __init__(self, flow: GradientFlow) -> None:
        super().__init__(flow.laplacian, flow.learned)
        self.of = flow
        self.self_adjoint = True

    def _rate(self, eigenvalues: Tensor) -> Tensor:
        tau = self.of.time_step
        stiffness, split = (c.to("cpu", torch.float64) for c in (self.of.stiffness, self.of.stabilization))
        rate = (stiffness * tau * eigenvalues + split) / tau
        return tau * eigenvalues * rate if self.of.conserved else rate

    def solve(self, shift: Tensor | complex, b: Tensor) -> Tensor:
        """(I − sG)⁻¹ b by factors of I + αL, for numbers; by a series in L where s or a gradient asks for it."""
        of = self.of
        s = shift if isinstance(shift, Tensor) else torch.from_numpy(np.asarray(shift))
        if s.is_complex() or (torch.is_grad_enabled() and any(part.requires_grad for part in (s, *self.learned))):
            series: Tensor = super().solve(s, b)
            return series
        h, a, split = float(s), float(of.stiffness.detach()), float(of.stabilization.detach())
        if not of.conserved:
            growth = 1 + h * split / of.time_step
            return self.laplacian.solve(h * a / growth, b / growth)
        # 1 + h b λ + h a τ λ² = (1 + αλ)(1 + βλ).
        half, product = h * split / 2, h * a * of.time_step
        root = cmath.sqrt(half**2 - product)
        self.laplacian.keep_factors(2)
        if root.imag == 0:
            return self.laplacian.solve(half - root.real, self.laplacian.solve(half + root.real, b))
        alpha, wide = half + root, torch.complex(b, torch.zeros_like(b))
        y = self.laplacian.solve(alpha, wide)
        if abs(alpha.imag) > 0.1 * abs(alpha):
            return (alpha * y).imag / alpha.imag
        # Where the two nearly agree that difference would cancel.
        return self.laplacian.solve(alpha.conjugate(), y).real

    def symbol(self, eigenvalues: Tensor) -> Tensor:
        return -self._rate(eigenvalues)[:, None, None]

    def flow(self, eigenvalues: Tensor, t: Tensor) -> Tensor:
        return torch.exp(-t * self._rate(eigenvalues))[:, None, None]

    def fields(self, x: Tensor) -> Tensor:
        return x[None]

    def state(self, fields: Tensor) -> Tensor:
        return fields[0]

    def growth(self) -> float:
        return float(self._rate(torch.tensor([self.laplacian.norm_bound()], dtype=torch.float64)).detach())

    def __matmul__(self, u: Tensor) -> Tensor:
        of = self.of
        mu = of.stiffness.to(u.dtype) * of.time_step * (of.laplacian @ u) + of.stabilization.to(u.dtype) * u
        return of._mobile(mu)

    def norm_bound(self) -> float:
        return self.growth()


@dataclass(frozen=True, eq=False)
class LearnedEnergy(LaplacianInvariant):
    """E(u) = ½ a τ ⟨u, L u⟩_M + Σ m_i (c_1 u²/2 + c_2 u³/3 + c_3 u⁴/4), over all channels. Its scale takes all terms positive.

    Args:
        stiffness: a.
        potential: c_1, c_2, c_3.
        time_step: τ.
    """

    stiffness: Tensor = field(kw_only=True)
    potential: Tensor = field(kw_only=True)
    time_step: float = field(kw_only=True)

    def measure(self, x: State) -> Tensor:
        u = one_field(x)
        return self._total(u, self.potential.to(u.dtype), u)

    def scale(self, x: State) -> Tensor:
        u = one_field(x)
        return self._total(u, self.potential.to(u.dtype).abs(), u.abs())

    def _total(self, u: Tensor, c: Tensor, v: Tensor) -> Tensor:
        well = v**2 * (c[0] / 2 + v * (c[1] / 3 + v * c[2] / 4))
        within = (self._mass(u)[:, None] * well).sum(dim=(-2, -1))
        return self.stiffness.to(u.dtype) * self.time_step * dirichlet_energy(self.laplacian.to_wide(u), u) + within

    @property
    def name(self) -> str:
        return "free energy"
