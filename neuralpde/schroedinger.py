"""Schrödinger's equation on a domain: a complex state whose norm and energy stay."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.special import jv
from torch import Tensor

from integrators import LinearPart, State
from integrators.solution import Time
from neuralpde.coefficient import CoefficientLike, as_coefficient
from neuralpde.heat import Hold
from neuralpde.invariants import Invariant, LaplacianInvariant, Law, Norm, one_field
from neuralpde.rhs import RightHandSide
from neuralpde.symmetry import Permutation, RigidMotion, Symmetry
from operators import Laplacian, dirichlet_energy
from operators.boundary_terms import with_potential
from operators.chebyshev import coefficients_of, tolerance_of
from operators.checks import real_dtype
from operators.recurrence import chebyshev_sums


class Schroedinger(RightHandSide):
    """i ∂ψ/∂t = (α L + V) ψ, with a complex ψ and natural boundary: a quantum particle, or a beam in the paraxial limit.

    With ħ = 1, α = 1/(2m) and the potential V. `Exponential` takes the exact flow, `ImplicitMidpoint` and
    `CrankNicolson(dt, damped=0)` keep norm and energy too. A V that changes in time is the nonlinear part beside −i α L, for
    `Strang`, `ARK324` or `ETDRK4`.

    Good values: α = ½ and V = ½ |x|² is the harmonic oscillator, of energies ½, 3/2, 5/2 …; on a grid of spacing 0.1 over
    (−8, 8) the ground state exp(−x²/2) keeps |ψ| for ever.

    Invariants: norm and energy ⟨ψ, (αL + V) ψ⟩, both conserved; a V(t) keeps the norm alone.

    Args:
        laplacian: L = M⁻¹ C, positive semi-definite, in 1/length² on a surface.
        dispersion: α > 0, in length²/time; a number, `learned(...)`, or a function of time.
        potential: V, in 1/time, of any sign: a number, a field (n, 1), `learned(field)`, or a function of time.

    Source: Schrödinger (1926), Ann. Phys. 384, 361.
    """

    def __init__(self, laplacian: Laplacian, dispersion: CoefficientLike = 0.5, potential: CoefficientLike = 0.0) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.alpha = as_coefficient(dispersion, laplacian, "dispersion", positive=True)
        self.V = as_coefficient(potential, laplacian, "potential")

    @property
    def dispersion(self) -> Tensor:
        """α."""
        return self.alpha()

    @property
    def potential(self) -> Tensor:
        """V."""
        return self.V()

    def forward(self, t: Tensor, psi: Tensor) -> Tensor:
        if not psi.is_complex():
            raise TypeError(f"the state of Schrödinger's equation is complex, not {psi.dtype}: start from torch.complex(u, v)")
        return -1j * (self.alpha(t) * (self.laplacian @ psi) + self.V(t) * psi)

    @property
    def linear(self) -> LinearPart | None:
        if not self.alpha.scalar:
            return None
        still = self.V.steady and (self.V.scalar or self.V().shape == (self.laplacian.shape[0], 1))
        return SchroedingerPart(self.laplacian, self.alpha(), self.V() if still else None)

    @property
    def nonlinear(self) -> object | None:
        """N(t, ψ) = −i V(t) ψ, where V changes in time."""
        part = self.linear
        whole = part is None or not isinstance(part, SchroedingerPart) or part.potential is not None
        return None if whole else lambda t, psi: -1j * self.V(t) * psi

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        if not self.alpha.scalar:
            return ()
        norm = Norm(self.laplacian, Law.CONSERVED)
        if not self.V.steady:
            return (norm,)
        with torch.no_grad():
            alpha, V = self.alpha().clone(), self.V().clone()
        return norm, SchroedingerEnergy(self.laplacian, dispersion=alpha, potential=V)

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return (Permutation(), RigidMotion()) if self.alpha.scalar and self.V.scalar else ()


class SchroedingerPart:
    """G = −i (α L + V) as a linear part, with its exact flow.

    Args:
        potential: V, a number or (n, 1), or None for zero.
    """

    self_adjoint = False

    def __init__(self, laplacian: Laplacian, dispersion: Tensor, potential: Tensor | None) -> None:
        self.laplacian, self.dispersion, self.potential = laplacian, dispersion, potential
        # H = a K + v with a Laplacian K: V is lifted until V/a is not negative.
        lowest = torch.amin if float(dispersion.detach()) >= 0 else torch.amax
        level = dispersion.new_zeros(()) if potential is None else lowest(potential.detach()) if potential.ndim else potential
        if potential is not None and potential.ndim:
            laplacian = with_potential(laplacian, (potential - level) / dispersion)
        self._hamiltonian = laplacian, dispersion, level

    def held(self, hold: Hold) -> SchroedingerPart:
        """G on the nodes that are free, with zeros at the others."""
        K, a, level = self._hamiltonian
        part = SchroedingerPart(hold(K), a, None)
        part._hamiltonian = part.laplacian, a, level
        return part

    def __matmul__(self, psi: Tensor) -> Tensor:
        K, a, v = self._hamiltonian
        return -1j * (a * (K @ psi) + v * psi)

    def norm_bound(self) -> float:
        low, high = self._ends()
        return max(abs(low), abs(high))

    def _ends(self) -> tuple[float, float]:
        """An interval that contains the spectrum of H."""
        K, a, v = self._hamiltonian
        ends = float(v.detach()), float(v.detach()) + float(a.detach()) * (K.norm_bound() or 1.0)
        return min(ends), max(ends)

    def solve(self, shift: Tensor, b: Tensor) -> Tensor:
        # 1 + is (aλ + v) = (1 + isv) (1 + isa/(1 + isv) λ).
        K, a, v = self._hamiltonian
        s = 1j * torch.as_tensor(shift, dtype=torch.complex128)
        lifted = 1 + s * v
        return K.solve(s * a / lifted, b / lifted)

    def keep_factors(self, count: int) -> None:
        """Keep so many factors, for a method that goes round so many shifts."""
        self._hamiltonian[0].keep_factors(count)

    def exponential(self, h: Time, psi: Tensor, tolerance: float | None = None) -> Tensor:
        """exp(−ihH) ψ by a Chebyshev series in L, in pieces where it is long."""
        K, a, v = self._hamiltonian
        pieces, degree = self._pieces(h, tolerance)
        t, rate, level = (torch.as_tensor(value, dtype=torch.float64, device="cpu") for value in (h, a, v))
        ends = (0.0, K.norm_bound() or 1.0)
        c = coefficients_of(lambda x: torch.exp(-1j * (t / pieces) * (rate * x + level)), degree, ends)
        c = c.to(K.device, real_dtype(K.dtype).to_complex()).reshape(-1, 1, 1, 1)
        for _ in range(pieces):
            psi = chebyshev_sums(K, psi[None], c, ends)[0]
        return psi

    def exponential_products(self, h: Time, tolerance: float | None = None) -> int:
        """The number of products with L that `exponential` takes."""
        pieces, degree = self._pieces(h, tolerance)
        return pieces * degree

    def _pieces(self, h: Time, tolerance: float | None) -> tuple[int, int]:
        """How many series, and of which degree: the coefficients of e^(−izx) are 2 (−i)ᵏ J_k(z) (Tal-Ezer and Kosloff 1984)."""
        low, high = self._ends()
        angle = abs(float(h.detach() if isinstance(h, Tensor) else h)) * (high - low) / 2
        # Isometries add their errors and no more; a longer series saves nothing worth its Bessel functions.
        pieces = max(1, math.ceil(angle / 1000))
        z = angle / pieces
        sizes = np.abs(jv(np.arange(math.ceil(1.1 * z) + 80), z))
        tails = 2 * np.cumsum(sizes[::-1])[::-1]
        limit = tolerance_of(self.laplacian, tolerance) / (2 * pieces) / 4
        degree = int(np.argmax(tails <= limit)) if bool((tails <= limit).any()) else len(sizes)
        learned = any(isinstance(value, Tensor) and value.requires_grad for value in (h, self.dispersion))
        return pieces, max(1, degree) + 2 * learned


@dataclass(frozen=True, eq=False)
class SchroedingerEnergy(LaplacianInvariant):
    """⟨ψ, (αL + V) ψ⟩_M; its scale counts α and V by their sizes.

    Args:
        dispersion: α.
        potential: V, a number or (n, 1).
    """

    dispersion: Tensor = field(kw_only=True)
    potential: Tensor = field(kw_only=True)

    def measure(self, x: State) -> Tensor:
        return self._energy(x, self.dispersion, self.potential)

    def scale(self, x: State) -> Tensor:
        return self._energy(x, self.dispersion.abs(), self.potential.abs())

    def _energy(self, x: State, dispersion: Tensor, potential: Tensor) -> Tensor:
        psi = one_field(x)
        kinetic = 2 * dispersion * dirichlet_energy(self.laplacian.to_wide(psi), psi)
        return kinetic + (self._mass(psi)[:, None] * potential * psi.abs() ** 2).sum(dim=(-2, -1))

    @property
    def name(self) -> str:
        return "energy"
