"""The wave equation, damped and Klein–Gordon too, as a system of first order in (u, v), with its exact flow."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from integrators import LinearPart, State
from integrators.solution import Time
from integrators.state import parts_of
from neuralpde.coefficient import CoefficientLike, as_coefficient
from neuralpde.heat import Hold
from neuralpde.invariants import Invariant, LaplacianInvariant, Law
from neuralpde.rhs import RightHandSide
from neuralpde.symmetry import Permutation, RigidMotion, Symmetry
from operators import FieldError, Laplacian, dirichlet_energy, mass_weighted_norm
from operators.chebyshev import MAX_DEGREE, coefficients_of, tolerance_of
from operators.checks import ConvergenceError, real_dtype
from operators.functions import wave_degree, wave_propagator
from operators.recurrence import chebyshev_sums


def as_pair(x: object, names: str) -> tuple[Tensor, Tensor]:
    """A state of two fields, or a FieldError that says so."""
    if not (isinstance(x, tuple) and len(x) == 2):
        form = f"a tuple of {len(x)}" if isinstance(x, tuple) else type(x).__name__
        raise FieldError(f"the state is the tuple {names}, not {form}: begin with two fields, such as (u0, torch.zeros_like(u0))")
    return x


class Wave(RightHandSide):
    """du/dt = v, dv/dt = −c² L u − m² u − γ v: the state is (u, v), the boundary natural.

    That is the equation of second order u″ + γ u′ + m² u = c² Δu: the wave equation with γ = m = 0, the telegraph equation
    with γ > 0, Klein and Gordon's with m > 0. Without damping `force(t, u)` and `drift(t, v)` serve `StoermerVerlet` and
    `Yoshida4`, which keep the energy up to a wobble; `Exponential` takes the exact flow, one step to each output time. As
    pressure and flux, which shows what flows where: `Acoustics`.

    Good values: on the unit sphere c = 1 the mode of degree l swings at √(l(l + 1)); m = 2 lifts that to √(l(l + 1) + 4); with
    γ = 0.5 it fades as e^(−t/4).

    Invariants: the energy, conserved with γ = 0, and else never increasing.

    Args:
        laplacian: L = M⁻¹ C, positive semi-definite, in 1/length² on a surface.
        speed: c > 0, in length/time: a number, `learned(...)`, or a function of time; see `Coefficient`. A field (n, 1) gives
            c_i² (Δu)_i, sound where the stiffness is even and the density is not.
        damping: γ ≥ 0, in 1/time; likewise. A field γ, as in a layer that absorbs, leaves no exact flow; nor does a field c or m.
        mass: m ≥ 0, in 1/time; likewise.
        learn: make a number c a parameter; it is kept positive by learning log c.

    Source: Klein (1926) Z. Phys. 37 and Gordon (1926) Z. Phys. 40, with ħ = 1 and m for m c²/ħ.
    """

    def __init__(
        self,
        laplacian: Laplacian,
        speed: CoefficientLike = 1.0,
        *,
        damping: CoefficientLike = 0.0,
        mass: CoefficientLike = 0.0,
        learn: bool = False,
    ) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.c = as_coefficient(speed, laplacian, "speed", positive=True, learn=learn)
        self.gamma = as_coefficient(damping, laplacian, "damping", nonnegative=True)
        self.m = as_coefficient(mass, laplacian, "mass", nonnegative=True)

    @property
    def speed(self) -> Tensor:
        """c."""
        return self.c()

    @property
    def damping(self) -> Tensor:
        """γ."""
        return self.gamma()

    @property
    def mass(self) -> Tensor:
        """m."""
        return self.m()

    def drift(self, t: Tensor, v: Tensor) -> Tensor:
        """du/dt."""
        return v

    def force(self, t: Tensor, u: Tensor) -> Tensor:
        """dv/dt, but for the damping."""
        push: Tensor = -(self.c(t) ** 2) * (self.laplacian @ u)
        return push if self.m.absent else push - self.m(t) ** 2 * u

    def forward(self, t: Tensor, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        u, v = as_pair(x, "(u, v)")
        push = self.force(t, u)
        return v, push if self.gamma.absent else push - self.gamma(t) * v

    @property
    def _scalar(self) -> bool:
        return self.c.scalar and self.gamma.scalar and self.m.scalar

    @property
    def linear(self) -> LinearPart | None:
        if not self._scalar:
            return None
        if not (self.gamma.absent and self.m.absent):
            return DampedWavePart(self.laplacian, self.c(), self.gamma(), self.m())
        return WavePart(self.laplacian, self.c())

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        if not (self.c.scalar and self.m.scalar and self.gamma.steady) or self.gamma.negative:
            return ()
        with torch.no_grad():
            law = Law.CONSERVED if self.gamma.absent else Law.NON_INCREASING
            return (WaveEnergy(self.laplacian, law, speed=self.c().clone(), mass=self.m().clone()),)

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return (Permutation(), RigidMotion()) if self._scalar else ()


class WavePart:
    """G (u, v) = (v, −c² L u) as a linear part, with its exact flow."""

    self_adjoint = False

    def __init__(self, laplacian: Laplacian, speed: Tensor) -> None:
        self.laplacian = laplacian
        self.speed = speed

    def held(self, hold: Hold) -> WavePart:
        """G on the nodes that are free, with zeros at the others."""
        return WavePart(hold(self.laplacian), self.speed)

    def __matmul__(self, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        u, v = as_pair(x, "(u, v)")
        return v.clone(), -(self.speed**2) * (self.laplacian @ u)

    def norm_bound(self) -> float:
        return max(1.0, float(self.speed.detach()) ** 2 * self.laplacian.norm_bound())

    def solve(self, shift: Tensor, b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        # (I + s²c²L) u = a + s b, then v = b − s c² L u, which stays right as s → 0.
        first, second = b
        u = self.laplacian.solve((shift * self.speed) ** 2, first + shift * second)
        return u, second - shift * self.speed**2 * (self.laplacian @ u)

    def keep_factors(self, count: int) -> None:
        """Keep so many factors, for a method that goes round so many shifts."""
        self.laplacian.keep_factors(count)

    def exponential(self, h: Time, x: tuple[Tensor, Tensor], tolerance: float | None = None) -> tuple[Tensor, Tensor]:
        """exp(hG)(u, v) through cos(ch√L) and sin(ch√L)/√L, by one Chebyshev recurrence for all."""
        u, v = as_pair(x, "(u, v)")
        u, w = wave_propagator(self.laplacian, h * self.speed, u, v / self.speed, tolerance=tolerance)
        return u, self.speed * w

    def exponential_products(self, h: Time, tolerance: float | None = None) -> int:
        """The number of products with L that `exponential` takes."""
        return wave_degree(self.laplacian, h * self.speed, tolerance=tolerance)


class DampedWavePart:
    """G (u, v) = (v, −A u − γ v) with A = c² L + m² as a linear part, with its exact flow.

    With ω² = A − γ²/4 it is e^(−γt/2) times cos(ωt) and sin(ωt)/ω, which are smooth functions of L, also where ω² < 0.
    """

    self_adjoint = False

    def __init__(self, laplacian: Laplacian, speed: Tensor, damping: Tensor, mass: Tensor) -> None:
        self.laplacian = laplacian
        self.speed, self.damping, self.mass = speed, damping, mass

    def held(self, hold: Hold) -> DampedWavePart:
        """G on the nodes that are free, with zeros at the others."""
        return DampedWavePart(hold(self.laplacian), self.speed, self.damping, self.mass)

    def _stiff(self, u: Tensor) -> Tensor:
        """A u."""
        return self.speed**2 * (self.laplacian @ u) + self.mass**2 * u

    def __matmul__(self, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        u, v = as_pair(x, "(u, v)")
        return v.clone(), -self._stiff(u) - self.damping * v

    def _top(self) -> float:
        """A bound of the spectrum of A."""
        speed, mass = float(self.speed.detach()), float(self.mass.detach())
        return speed**2 * self.laplacian.norm_bound() + mass**2

    def norm_bound(self) -> float:
        return max(1.0, self._top()) + abs(float(self.damping.detach()))

    def solve(self, shift: Tensor, b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        # (1 + σA) u = a + s/(1 + sγ) b with σ = s²/(1 + sγ), and (1 + sγ) v = b − s A u.
        first, second = b
        growth = 1 + shift * self.damping
        sigma = shift**2 / growth
        lifted = 1 + sigma * self.mass**2
        u = self.laplacian.solve(sigma * self.speed**2 / lifted, (first + shift / growth * second) / lifted)
        return u, (second - shift * self._stiff(u)) / growth

    def keep_factors(self, count: int) -> None:
        """Keep so many factors, for a method that goes round so many shifts."""
        self.laplacian.keep_factors(count)

    def exponential(self, h: Time, x: tuple[Tensor, Tensor], tolerance: float | None = None) -> tuple[Tensor, Tensor]:
        """exp(hG)(u, v), by one Chebyshev recurrence in L for all four parts."""
        c = self._coefficients(h, self.exponential_products(h, tolerance))
        kind = real_dtype(self.laplacian.dtype)
        new = chebyshev_sums(self.laplacian, torch.stack(x), c[..., None].to(self.laplacian.device, kind), self._ends())
        return new[0], new[1]

    def exponential_products(self, h: Time, tolerance: float | None = None) -> int:
        """The number of products with L that `exponential` takes."""
        with torch.no_grad():
            wave = abs(float(h.detach() if isinstance(h, Tensor) else h)) * math.sqrt(max(self._top(), 1e-30))
            points = 2 * math.ceil(wave / 2) + 64
            if points > 2 * MAX_DEGREE:
                raise ConvergenceError(f"more than {MAX_DEGREE} products with L are needed for so long: take a smaller dt")
            c = self._coefficients(h, points).abs()
            # v is as large as √A u.
            root = math.sqrt(max(self._top(), 1e-30))
            sizes = (c / c.new_tensor([[1.0, 1 / root], [root, 1.0]])).amax((1, 2))
            tails = sizes.flip(0).cummax(0).values.flip(0)
            # Below 8 ulp of double precision is the rounding of the coefficients themselves.
            limit = max(tolerance_of(self.laplacian, tolerance) / 8, 2e-15) * max(1.0, float(tails[0]))
            small = (tails[1:] <= limit).nonzero()
        gradient = any(isinstance(value, Tensor) and value.requires_grad for value in (h, self.speed, self.damping, self.mass))
        return (int(small[0]) if len(small) else points) + 2 * gradient

    def _ends(self) -> tuple[float, float]:
        bound = self.laplacian.norm_bound()
        return 0.0, bound if bound > 0 else 1.0

    def _coefficients(self, h: Time, degree: int) -> Tensor:
        """Those of the four parts of exp(hG) as functions of L; (K + 1, 2, 2)."""
        given = (h, self.speed, self.damping, self.mass)
        t, c, gamma, m = (torch.as_tensor(value, dtype=torch.float64, device="cpu") for value in given)

        def parts(x: Tensor) -> Tensor:
            stiff = c**2 * x + m**2
            cosine, sine = fading_swing(t, stiff - gamma**2 / 4, gamma / 2)
            drag = gamma / 2 * sine
            return torch.stack([cosine + drag, sine, -stiff * sine, cosine - drag], dim=1)

        return coefficients_of(parts, degree, self._ends()).reshape(-1, 2, 2)


def fading_swing(t: Tensor, square: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """e^(−rt) cos(ωt) and e^(−rt) sin(ωt)/ω for a real ω², of either sign."""
    # Never zero, where the root has no derivative.
    root, swings = square.abs().clamp(min=1e-30).sqrt(), square > 0
    creep = torch.where(swings, 0.0, root)
    # Both exponents at once: cosh alone would overflow where the product is small.
    slow, fast = torch.exp(t * (creep - rate)) / 2, torch.exp(-t * (creep + rate)) / 2
    fading = torch.exp(-rate * t)
    near = (t * root).abs() < 1e-4
    straight = fading * t * (1 - torch.where(near, t**2 * square, 0.0) / 6)
    cosine = torch.where(swings, fading * torch.cos(t * root), slow + fast)
    sine = torch.where(near, straight, torch.where(swings, fading * torch.sin(t * root), slow - fast) / root)
    return cosine, sine


@dataclass(frozen=True, eq=False)
class WaveEnergy(LaplacianInvariant):
    """H(u, v) = ½ ‖v‖²_M + ½ c² ⟨u, L u⟩_M + ½ m² ‖u‖²_M of a state (u, v), what the undamped equation keeps.

    Args:
        speed: c.
        mass: m.
    """

    speed: Tensor | float = field(default=1.0, kw_only=True)
    mass: Tensor | float = field(default=0.0, kw_only=True)

    def measure(self, x: State) -> Tensor:
        u, v = parts_of(x)
        weights = self._mass(v)
        kinetic = mass_weighted_norm(weights, v) ** 2 / 2
        potential = self.speed**2 * dirichlet_energy(self.laplacian.to_wide(u), u)
        return kinetic + potential + self.mass**2 * mass_weighted_norm(weights, u) ** 2 / 2

    def scale(self, x: State) -> Tensor:
        return self.measure(x)

    @property
    def name(self) -> str:
        return "wave energy"
