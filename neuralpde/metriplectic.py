"""Metriplectic flows: a rotation that keeps the norm and a dissipation that lowers it, both functions of one Laplacian."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn

from integrators import State
from integrators.state import parts_of
from neuralpde.heat import diffusion_invariants
from neuralpde.invariants import DirichletEnergy, Invariant, LaplacianInvariant, Law, Mass, Norm, Rayleigh
from neuralpde.metriplectic_part import SpectralPart, turned
from neuralpde.rhs import RightHandSide
from neuralpde.symmetry import Permutation, RigidMotion, Symmetry
from neuralpde.waves import as_pair, fading_swing
from operators import FieldError, Laplacian, rayleigh_quotient
from operators.operator import rebuild


class Metriplectic(RightHandSide):
    """What both orders in time share: the Laplacian L, the time step τ, and coefficients θ² ≥ 0 of powers of τL or τ²L.

    The coefficients have no unit, because masses and time step are in L and τ. What is learned on some surfaces holds on others:
    `over(L', τ')` is the same flow there, and `on(mesh)` the same with the same τ.
    """

    def __init__(self, laplacian: Laplacian, time_step: float) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.time_step = _positive(time_step)

    def over(self, laplacian: Laplacian, time_step: float) -> Self:
        """The same (shared) coefficients with another Laplacian and time step."""
        view = rebuild(self, lambda child: laplacian)
        view.time_step = _positive(time_step)
        return view

    @property
    def learned(self) -> tuple[Tensor, ...]:
        """Every learned tensor."""
        return tuple(self.parameters())

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return Permutation(), RigidMotion()


class MetriplecticFlow(Metriplectic):
    """dx/dt = J(L) x − R(L) x with τJ = Σ_k σᵏ ⊗ W_k skew and τR = Σ_k ρ_k σᵏ, ρ_k ≥ 0, where σ = τL and k = 1, 2, ...

    The W_k are skew matrices that act on the channels of x, so J is skew and R positive semi-definite in ⟨x, y⟩_M whatever is
    learned, and R grows with λ. With r(λ) the eigenvalues of R and under the spectral density of x,

        d‖x‖²/dt = −2⟨x, R x⟩ ∈ [−2 r(λ_max) ‖x‖², 0],   dR_q/dt = −2 Cov(λ, r(λ)) ∈ [−2 Var(λ) max r′, 0],

    for the Rayleigh quotient R_q, which is kept exactly where ρ = 0. All ρ are learned as θ², and all W_k as V_k − V_kᵀ; one that
    starts at zero stays there. `Exponential` takes the exact flow, by one Chebyshev recurrence in L for all channels.

    Good values: ρ = (1,) is heat u_t = −L u. Steps of explicit Euler, 1 − σ, have ρ = (1, ½, ⅓, ...); of implicit Euler ρ_2 < 0,
    which no flow of this kind has.

    Args:
        laplacian: L, whose inner product it is.
        time_step: τ > 0, in the unit of 1/L for heat: the time between two frames.
        dissipation: ρ_1, ρ_2, ... ≥ 0 at the start; none for a flow that keeps the norm.
        width: channels d of the state (..., n, d).
        rotation: the highest power of J; 0 for J = 0.
        scale: the standard deviation of V_k's entries at the start.
    """

    def __init__(
        self,
        laplacian: Laplacian,
        time_step: float,
        dissipation: Sequence[float] = (1.0,),
        *,
        width: int = 1,
        rotation: int = 0,
        scale: float = 0.1,
    ) -> None:
        super().__init__(laplacian, time_step)
        if rotation < 0 or width < 1:
            raise ValueError(f"width ({width}) must be at least 1 and rotation ({rotation}) at least 0")
        if rotation and width == 1:
            raise ValueError("one channel cannot turn, for its skew matrices are zero: take width=2 or more, or rotation=0")
        self.width = width
        self.root = nn.Parameter(roots(dissipation, "dissipation", laplacian))
        shape = (rotation, width, width)
        self.V = nn.Parameter(scale * torch.randn(shape, dtype=laplacian.dtype, device=laplacian.device))

    @property
    def dissipation(self) -> Tensor:
        """ρ_1, ρ_2, ... ≥ 0."""
        return self.root**2

    @property
    def turning(self) -> Tensor:
        """W_1, W_2, ..., skew; (k, d, d)."""
        return (self.V - self.V.mT) / 2

    def _checked(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.width:
            raise FieldError(f"x has {x.shape[-1]} channels but the flow {self.width}: pad with pad_channels(x, {self.width})")
        return x

    def _coefficients(self) -> Tensor:
        """W_k − ρ_k, (k, d, d)."""
        powers = max(len(self.root), len(self.V))
        eye = torch.eye(self.width, dtype=self.V.dtype, device=self.V.device)
        damped = _padded(self.dissipation, powers)[:, None, None] * eye
        return torch.cat([self.turning, self.V.new_zeros(powers - len(self.V), self.width, self.width)]) - damped

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        slope = torch.zeros_like(self._checked(x))
        for coefficient in self._coefficients().flip(0):
            turned = x @ coefficient.to(x.dtype) if self.width > 1 else x * coefficient.to(x.dtype)[0, 0]
            slope = self.time_step * self.laplacian(slope + turned)
        return slope / self.time_step

    def rayleigh_rate(self, x: Tensor) -> Tensor:
        """dR_q/dt = −2 Cov(λ, r(λ)) = −2 (⟨L x, R x⟩ − R_q ⟨x, R x⟩)/‖x‖² ≤ 0 at a state; (..., n, d) → (...)."""
        L, quotient = self.laplacian, rayleigh_quotient(self.laplacian, x)
        damped = -_horner(L, -self.dissipation, self.time_step, x) / self.time_step
        overlap = L.inner(L(x), damped).real - quotient * L.inner(x, damped).real
        return -2 * overlap / L.inner(x, x).real

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        if bool((self.root.detach() != 0).any()):
            return diffusion_invariants(self.laplacian)
        kept = tuple(quantity(self.laplacian) for quantity in (Norm, Rayleigh, DirichletEnergy))
        return (*kept, Mass(self.laplacian)) if self.laplacian.kills_constants else kept

    @property
    def linear(self) -> SpectralPart:
        return _FlowPart(self)


class _FlowPart(SpectralPart):
    def __init__(self, flow: MetriplecticFlow) -> None:
        super().__init__(flow.laplacian, flow.learned)
        self.of = flow

    def _sum(self, eigenvalues: Tensor, coefficients: Tensor) -> Tensor:
        """Σ_k c_k σᵏ/τ."""
        powers = (self.of.time_step * eigenvalues[:, None]) ** torch.arange(1, len(coefficients) + 1)
        total: Tensor = torch.tensordot(powers, coefficients.to("cpu", torch.float64), 1)
        return total / self.of.time_step

    def _damping(self, eigenvalues: Tensor) -> Tensor:
        """r(λ)."""
        return self._sum(eigenvalues, self.of.dissipation)

    def symbol(self, eigenvalues: Tensor) -> Tensor:
        eye = torch.eye(self.of.width, dtype=torch.float64)
        # x W mixes the channels by Wᵀ.
        return self._sum(eigenvalues, self.of.turning.mT) - self._damping(eigenvalues)[:, None, None] * eye

    def flow(self, eigenvalues: Tensor, t: Tensor) -> Tensor:
        # The two commute: the rotation alone has no scale but its angle.
        damped = torch.exp(-t * self._damping(eigenvalues))[:, None, None]
        if self.of.width == 1:
            return damped
        return damped * turned(t * self._sum(eigenvalues, self.of.turning.mT))

    def fields(self, x: Tensor) -> Tensor:
        return self.of._checked(x).movedim(-1, 0)[..., None]

    def state(self, fields: Tensor) -> Tensor:
        return fields[..., 0].movedim(0, -1)

    def growth(self) -> float:
        flow = self.of
        return _value(flow.dissipation, flow.time_step * flow.laplacian.norm_bound()) / flow.time_step

    def __matmul__(self, x: Tensor) -> Tensor:
        slope: Tensor = self.of(torch.zeros(()), x)
        return slope

    def norm_bound(self) -> float:
        flow = self.of
        sizes = torch.linalg.matrix_norm(flow.turning.detach(), ord=2)
        return self.growth() + _value(sizes, flow.time_step * flow.laplacian.norm_bound()) / flow.time_step


class MetriplecticWave(Metriplectic):
    """dq/dt = p, dp/dt = −Ω²(L) q − D(L) p with τ²Ω² = Σ_k ω_k σᵏ, τD = Σ_k δ_k σᵏ, ω_k, δ_k ≥ 0, where σ = τ²L and k = 1, 2, ...

    In the inner product of the energy H = ½‖p‖² + ½⟨q, Ω² q⟩ this is J − R with J (q, p) = (p, −Ω² q) skew, R (q, p) = (0, D p)
    positive semi-definite, whatever is learned: dH/dt = −⟨p, D p⟩ ∈ [−2 d(λ_max) H, 0]. The Rayleigh quotient of (q, p) in that
    inner product is kept where δ = 0. `Exponential` takes the exact flow, by one Chebyshev recurrence in L for both fields;
    without damping `force` and `drift` serve `StoermerVerlet`.

    Good values: ω = (1,) is u_tt = −L u. The steps of leapfrog, cos(Ωτ) = 1 − σ/2, have ω = (1, 1/12, 1/90, 1/560, ...).

    Args:
        laplacian: L, in the unit of 1/τ².
        time_step: τ > 0: the time between two frames.
        stiffness: ω_1, ω_2, ... ≥ 0 at the start, learned as θ².
        damping: δ_1, δ_2, ... ≥ 0 at the start, learned likewise; none keeps the energy.
    """

    def __init__(
        self, laplacian: Laplacian, time_step: float, stiffness: Sequence[float] = (1.0,), damping: Sequence[float] = ()
    ) -> None:
        super().__init__(laplacian, time_step)
        self.root_stiffness = nn.Parameter(roots(stiffness, "stiffness", laplacian))
        self.root_damping = nn.Parameter(roots(damping, "damping", laplacian))

    @property
    def stiffness(self) -> Tensor:
        """ω_1, ω_2, ... ≥ 0."""
        return self.root_stiffness**2

    @property
    def damping(self) -> Tensor:
        """δ_1, δ_2, ... ≥ 0."""
        return self.root_damping**2

    def drift(self, t: Tensor, p: Tensor) -> Tensor:
        """dq/dt."""
        return p

    def force(self, t: Tensor, q: Tensor) -> Tensor:
        """dp/dt, but for the damping."""
        scale = self.time_step**2
        return -_horner(self.laplacian, self.stiffness, scale, q) / scale

    def forward(self, t: Tensor, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        q, p = as_pair(x, "(q, p)")
        drag = _horner(self.laplacian, self.damping, self.time_step**2, p) / self.time_step
        return p.clone(), self.force(t, q) - drag

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        law = Law.NON_INCREASING if bool((self.root_damping.detach() != 0).any()) else Law.CONSERVED
        return (OscillationEnergy(self.laplacian, law, stiffness=self.stiffness.detach().clone(), time_step=self.time_step),)

    @property
    def linear(self) -> SpectralPart:
        return _WavePart(self)


class _WavePart(SpectralPart):
    def __init__(self, flow: MetriplecticWave) -> None:
        super().__init__(flow.laplacian, flow.learned)
        self.of = flow
        # p in units of Ω q, so that no entry of the flow is far larger than another.
        self.unit = max(self._top() ** 0.5, 1e-6 / flow.time_step)

    def _top(self) -> float:
        flow = self.of
        return _value(flow.stiffness, flow.time_step**2 * flow.laplacian.norm_bound()) / flow.time_step**2

    def _sum(self, eigenvalues: Tensor, coefficients: Tensor) -> Tensor:
        """Σ_k c_k σᵏ."""
        powers = (self.of.time_step**2 * eigenvalues[:, None]) ** torch.arange(1, len(coefficients) + 1)
        return powers @ coefficients.to("cpu", torch.float64)

    def _laws(self, eigenvalues: Tensor) -> tuple[Tensor, Tensor]:
        """Ω²(λ) and d(λ)."""
        tau = self.of.time_step
        return self._sum(eigenvalues, self.of.stiffness) / tau**2, self._sum(eigenvalues, self.of.damping) / tau

    def symbol(self, eigenvalues: Tensor) -> Tensor:
        square, drag = self._laws(eigenvalues)
        return _two_by_two(torch.zeros_like(square), torch.full_like(square, self.unit), -square / self.unit, -drag)

    def flow(self, eigenvalues: Tensor, t: Tensor) -> Tensor:
        square, drag = self._laws(eigenvalues)
        cosine, sine = fading_swing(t, square - drag**2 / 4, drag / 2)
        lean = drag / 2 * sine
        return _two_by_two(cosine + lean, self.unit * sine, -square / self.unit * sine, cosine - lean)

    def fields(self, x: tuple[Tensor, Tensor]) -> Tensor:
        q, p = as_pair(x, "(q, p)")
        return torch.stack([q, p / self.unit])

    def state(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        return fields[0], self.unit * fields[1]

    def growth(self) -> float:
        flow = self.of
        return _value(flow.damping, flow.time_step**2 * flow.laplacian.norm_bound()) / flow.time_step

    def __matmul__(self, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        slope: tuple[Tensor, Tensor] = self.of(torch.zeros(()), x)
        return slope

    def norm_bound(self) -> float:
        return max(1.0, self._top()) + self.growth()


@dataclass(frozen=True, eq=False)
class OscillationEnergy(LaplacianInvariant):
    """H(q, p) = ½ ‖p‖²_M + ½ ⟨q, Ω²(L) q⟩_M of a state (q, p), with τ²Ω² = Σ_k ω_k (τ²L)ᵏ.

    Args:
        stiffness: ω_1, ω_2, ...
        time_step: τ.
    """

    stiffness: Tensor = field(kw_only=True)
    time_step: float = field(kw_only=True)

    def measure(self, x: State) -> Tensor:
        q, p = parts_of(x)
        L = self.laplacian.to_wide(p)
        potential = L.inner(q, _horner(L, self.stiffness, self.time_step**2, q)) / self.time_step**2
        return (L.inner(p, p) + potential).real / 2

    def scale(self, x: State) -> Tensor:
        """The most that the fields can hold."""
        q, p = parts_of(x)
        L = self.laplacian.to_wide(p)
        top = _value(self.stiffness, self.time_step**2 * L.norm_bound()) / self.time_step**2
        return (L.inner(p, p) + top * L.inner(q, q)).real / 2

    @property
    def name(self) -> str:
        return "oscillation energy"


def _horner(laplacian: Laplacian, coefficients: Tensor, scale: float, x: Tensor) -> Tensor:
    """Σ_k c_k (s L)ᵏ x for k = 1, 2, ..."""
    total = torch.zeros_like(x)
    for c in coefficients.flip(0):
        total = scale * laplacian(total + c.to(x.real.dtype) * x)
    return total


def _two_by_two(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """[[a, b], [c, d]] for each entry; (m, 2, 2)."""
    return torch.stack([a, b, c, d], dim=1).reshape(-1, 2, 2)


def _value(coefficients: Tensor, argument: float) -> float:
    """Σ_k c_k aᵏ for k = 1, 2, ..."""
    total: float = sum(c * argument**k for k, c in enumerate(coefficients.detach().tolist(), start=1))
    return total


def _padded(c: Tensor, length: int) -> Tensor:
    return torch.cat([c, c.new_zeros(length - len(c))])


def roots(values: Sequence[float], name: str, laplacian: Laplacian) -> Tensor:
    if any(not 0 <= value < float("inf") for value in values):
        raise ValueError(f"the coefficients of {name} must start finite and not negative, not {tuple(values)}: they are squares")
    return torch.tensor(list(values), dtype=torch.float64).sqrt().to(device=laplacian.device, dtype=laplacian.dtype)


def _positive(time_step: float) -> float:
    if not 0 < time_step < float("inf"):
        raise ValueError(f"the time step must be positive and finite, not {time_step}")
    return float(time_step)
