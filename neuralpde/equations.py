"""Classical equations, each with the linear part that implicit, IMEX and exponential integrators use."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from integrators import LinearPart
from integrators.solution import Time
from neuralpde.invariants import DirichletEnergy, Invariant, Law, Mass, Norm, Rayleigh
from neuralpde.rhs import RightHandSide
from operators import ChebyshevFilter, Laplacian, exponential
from operators.functions import wave_degree, wave_propagator


class Heat(RightHandSide):
    """du/dt = −κ L u: isotropic diffusion, with natural (no-flux) boundary.

    Args:
        laplacian: L = M⁻¹ C, positive semi-definite, in 1/length² on a surface.
        diffusivity: κ > 0, in length²/time.
        learn: make κ a parameter; it is kept positive by learning log κ.
    """

    def __init__(self, laplacian: Laplacian, diffusivity: float = 1.0, *, learn: bool = False) -> None:
        super().__init__()
        if not (math.isfinite(diffusivity) and diffusivity > 0):
            raise ValueError(f"diffusivity must be positive and finite, not {diffusivity}: backward heat is ill-posed")
        self.laplacian = laplacian
        start = torch.tensor(math.log(diffusivity), dtype=laplacian.dtype, device=laplacian.device)
        self.log_diffusivity = nn.Parameter(start, requires_grad=learn)

    @property
    def diffusivity(self) -> Tensor:
        """κ."""
        return self.log_diffusivity.exp()

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return -self.diffusivity * (self.laplacian @ u)

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        return diffusion_invariants(self.laplacian)

    @property
    def linear(self) -> LinearPart:
        return Diffusion(self.laplacian, self.diffusivity)


class Wave(RightHandSide):
    """du/dt = v, dv/dt = −c² L u: the wave equation as a first-order system of the state (u, v), natural boundary.

    Args:
        laplacian: L = M⁻¹ C, positive semi-definite, in 1/length² on a surface.
        speed: c > 0, in length/time.
        learn: make c a parameter; it is kept positive by learning log c.
    """

    def __init__(self, laplacian: Laplacian, speed: float = 1.0, *, learn: bool = False) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.log_speed = _log_parameter(laplacian, "speed", speed, learn)

    @property
    def speed(self) -> Tensor:
        """c."""
        return self.log_speed.exp()

    def drift(self, t: Tensor, v: Tensor) -> Tensor:
        """du/dt."""
        return v

    def force(self, t: Tensor, u: Tensor) -> Tensor:
        """dv/dt."""
        return -(self.speed**2) * (self.laplacian @ u)

    def forward(self, t: Tensor, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        u, v = x
        return v, self.force(t, u)

    @property
    def linear(self) -> LinearPart:
        return WavePart(self.laplacian, self.speed)


class WavePart:
    """G (u, v) = (v, −c² L u) as a linear part, with its exact flow."""

    self_adjoint = False

    def __init__(self, laplacian: Laplacian, speed: Tensor) -> None:
        self.laplacian = laplacian
        self.speed = speed

    def __matmul__(self, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        u, v = x
        return v.clone(), -(self.speed**2) * (self.laplacian @ u)

    def norm_bound(self) -> float:
        return max(1.0, float(self.speed.detach()) ** 2 * self.laplacian.norm_bound())

    def solve(self, shift: Tensor, b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        # (I + s²c²L) u = a + s b, then v = b − s c² L u, which stays right as s → 0.
        first, second = b
        s = torch.as_tensor(shift)
        u = self.laplacian.solve((s * self.speed) ** 2, first + s.to(second.dtype) * second)
        return u, second - (s * self.speed**2).to(second.dtype) * (self.laplacian @ u)

    def exponential(self, h: Time, x: tuple[Tensor, Tensor], tolerance: float | None = None) -> tuple[Tensor, Tensor]:
        """exp(hG)(u, v) through cos(ch√L) and sin(ch√L)/√L, by one Chebyshev recurrence for all."""
        u, v = x
        u, w = wave_propagator(self.laplacian, h * self.speed, u, v / self.speed, tolerance=tolerance)
        return u, self.speed * w

    def exponential_products(self, h: Time, tolerance: float | None = None) -> int:
        """The number of products with L that `exponential` takes."""
        return wave_degree(self.laplacian, h * self.speed, tolerance=tolerance)


class AllenCahn(RightHandSide):
    """du/dt = −ε² L u + u − u³: a double well with interfaces of width about ε (Allen and Cahn 1979).

    Args:
        laplacian: L = M⁻¹ C, positive semi-definite, in 1/length² on a surface.
        width: ε > 0, in length; a few edge lengths at least, to be resolved.
    """

    def __init__(self, laplacian: Laplacian, width: float) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.log_width = _log_parameter(laplacian, "width", width, False)

    @property
    def linear(self) -> LinearPart:
        return Diffusion(self.laplacian, self.log_width.exp() ** 2)

    def nonlinear(self, t: Tensor, u: Tensor) -> Tensor:
        """N(t, u) = u − u³."""
        return u - u**3


class CahnHilliard(RightHandSide):
    """du/dt = −L (ε² L u + u³ − u): phase separation that keeps the mass 1ᵀ M u (Cahn and Hilliard 1958).

    Args:
        laplacian: L = M⁻¹ C, positive semi-definite, in 1/length² on a surface.
        width: ε > 0, the width of the interfaces, in length; a few edge lengths at least.
    """

    def __init__(self, laplacian: Laplacian, width: float) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.log_width = _log_parameter(laplacian, "width", width, False)

    @property
    def linear(self) -> LinearPart:
        return Biharmonic(self.laplacian, self.log_width.exp())

    def nonlinear(self, t: Tensor, u: Tensor) -> Tensor:
        """N(t, u) = −L (u³ − u)."""
        return self.laplacian @ (u - u**3)

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        return (Mass(self.laplacian),) if self.laplacian.kills_constants else ()


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
        s = torch.as_tensor(shift)
        sigma = 1j * s.to(torch.complex128).sqrt() * self.width
        real = not (b.is_complex() or s.is_complex())
        if real and float(s.detach()) >= 0:
            return self.laplacian.solve(sigma, b).real.to(b.dtype)
        wide = b.to(torch.complex64 if b.dtype in (torch.float32, torch.complex64) else torch.complex128)
        self.keep_factors(2)
        both = 0.5 * (self.laplacian.solve(sigma, wide) + self.laplacian.solve(-sigma, wide))
        return both.real.to(b.dtype) if real else both

    def keep_factors(self, count: int) -> None:
        """Keep the factors of so many shifts; a complex one takes two."""
        self.laplacian.keep_factors(2 * count)


class Diffusion:
    """G = −κ L as a linear part: its solves are those of a factored Laplacian."""

    self_adjoint = True

    def __init__(self, laplacian: Laplacian, diffusivity: Tensor) -> None:
        self.laplacian = laplacian
        self.diffusivity = diffusivity

    def __matmul__(self, u: Tensor) -> Tensor:
        return -self.diffusivity * (self.laplacian @ u)

    def norm_bound(self) -> float:
        return float(self.diffusivity.detach()) * self.laplacian.norm_bound()

    def solve(self, shift: Tensor, b: Tensor) -> Tensor:
        return self.laplacian.solve(torch.as_tensor(shift) * self.diffusivity, b)

    def keep_factors(self, count: int) -> None:
        """Keep so many factors, for a method that goes round so many shifts."""
        self.laplacian.keep_factors(count)

    def exponential(self, h: Time, u: Tensor, tolerance: float | None = None) -> Tensor:
        """exp(−hκL) u by a Chebyshev series; backwards, where it grows, by several."""
        pieces = self._pieces(h)
        flow = self._flow(h / pieces, tolerance)
        for _ in range(pieces):
            u = flow(u)
        return u

    def exponential_products(self, h: Time, tolerance: float | None = None) -> int:
        """The number of products with L that `exponential` takes."""
        pieces = self._pieces(h)
        return pieces * self._flow(h / pieces, tolerance).degree

    def _pieces(self, h: Time) -> int:
        # A series errs by e^(|h|κb) for a bound b of the spectrum, but u may grow by less: short pieces keep the two close.
        return max(1, math.ceil(-float(torch.as_tensor(h * self.diffusivity).detach()) * self.laplacian.norm_bound() / 8))

    def _flow(self, h: Time, tolerance: float | None) -> ChebyshevFilter:
        return exponential(self.laplacian, h * self.diffusivity, tolerance=tolerance)


def _log_parameter(laplacian: Laplacian, name: str, value: float, learn: bool) -> nn.Parameter:
    """log of a positive constant, as a parameter in the Laplacian's precision."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, not {value}")
    return nn.Parameter(torch.tensor(math.log(value), dtype=laplacian.dtype, device=laplacian.device), requires_grad=learn)


def diffusion_invariants(laplacian: Laplacian) -> tuple[Invariant, ...]:
    """What −κL with κ ≥ 0 promises: norm, energy and Rayleigh quotient never increase; mass stays where L 1 = 0."""
    one_sided = (Norm, Rayleigh, DirichletEnergy)
    declared: tuple[Invariant, ...] = tuple(quantity(laplacian, Law.NON_INCREASING) for quantity in one_sided)
    return (*declared, Mass(laplacian)) if laplacian.kills_constants else declared
