"""Unitary flows: strict, and relaxed by a learned dissipation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from integrators import LinearPart
from neuralpde.heat import diffusion_invariants
from neuralpde.invariants import DirichletEnergy, Invariant, Law, Mass, Norm, Rayleigh
from neuralpde.rhs import RightHandSide
from operators import Laplacian, SkewHermitian, UnitaryGenerator
from operators.unitary_exponential import UnitaryExponential


class UnitaryFlow(RightHandSide):
    """dx/dt = A x W − γ L x, with A a polynomial of L, W skew-Hermitian and γ ≥ 0.

    Strict (γ absent): exp(t A · W) keeps the norm and the Rayleigh quotient of L exactly, so it cannot smooth
    (Kiani et al. 2024). Integrated by `TruncatedTaylor(order=T_max)` it is the published relaxation (R-UniGraph).
    Dissipative: γ is learned, and non-negative by construction, so norm, energy and Rayleigh quotient can only fall:
    dR/dt = −2γ Var_x(L), the variance of L's eigenvalues under x's spectral density. γ is a rate (1/time where L is
    1/length²), so one that is learned on some surfaces is right on others.

    Args:
        laplacian: L; its inner product is the one that is kept.
        width: channels d of the state (..., n, d); pad fewer with `pad_channels`.
        adjacency: use A = I − L (the papers' form, for a normalised Laplacian) instead of A = L.
        dissipation: γ at the start, learned; None for the strict flow.
        complex_valued: a complex W; the state must be complex then.
    """

    def __init__(
        self,
        laplacian: Laplacian,
        width: int,
        *,
        adjacency: bool = False,
        dissipation: float | None = None,
        complex_valued: bool = False,
        scale: float = 0.1,
    ) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.adjacency = adjacency
        mixing = SkewHermitian(width, complex_valued=complex_valued, scale=scale, dtype=laplacian.dtype)
        self.mixing = mixing.to(laplacian.device)
        if dissipation is None:
            self.register_parameter("log_dissipation", None)
        else:
            if not dissipation > 0:
                raise ValueError(f"dissipation must start positive, not {dissipation}; it is learned as log γ")
            self.log_dissipation = nn.Parameter(torch.tensor(dissipation, dtype=laplacian.dtype).log())

    @property
    def dissipation(self) -> Tensor | None:
        """γ ≥ 0, or None for the strict flow."""
        return None if self.log_dissipation is None else self.log_dissipation.exp()

    @property
    def generator(self) -> UnitaryGenerator:
        """x ↦ A x W, the skew part."""
        return UnitaryGenerator(self.laplacian.complement() if self.adjacency else self.laplacian, self.mixing)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        rotation = self.generator @ x
        gamma = self.dissipation
        return rotation if gamma is None else rotation - gamma * self.laplacian(x)

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        if self.log_dissipation is not None:
            declared = diffusion_invariants(self.laplacian)
        else:
            quantities = (Norm, Rayleigh, DirichletEnergy)
            declared = tuple(quantity(self.laplacian, Law.CONSERVED) for quantity in quantities)
            if self.laplacian.kills_constants:
                declared = (*declared, Mass(self.laplacian))
        # Through A = I − L constants mix between the channels, so the mass of one channel is not kept.
        return tuple(i for i in declared if not (self.adjacency and isinstance(i, Mass)))

    @property
    def linear(self) -> LinearPart:
        return _UnitaryPart(self)


class _UnitaryPart:
    """The flow's right-hand side as a linear part, with its exact flow."""

    self_adjoint = False

    def __init__(self, flow: UnitaryFlow) -> None:
        self.flow = flow
        self._kept: tuple[Any, UnitaryExponential] | None = None

    def __matmul__(self, x: Tensor) -> Tensor:
        result: Tensor = self.flow(torch.zeros(()), x)
        return result

    def norm_bound(self) -> float:
        largest, gamma = self._rate()
        return self.flow.generator.norm_bound() + gamma * largest

    def _rate(self) -> tuple[float, float]:
        gamma = self.flow.dissipation
        return self.flow.laplacian.norm_bound(), 0.0 if gamma is None else float(gamma.detach())

    def exponential(self, h: Tensor | float, x: Tensor, tolerance: float | None = None) -> Tensor:
        """exp(hG) x, by one recurrence in A for all channels; backwards, where dissipation makes it grow, by several."""
        pieces = self._pieces(h)
        propagator = self._propagator(h / pieces, tolerance)
        for _ in range(pieces):
            x = propagator(x)
        return x

    def exponential_products(self, h: Tensor | float, tolerance: float | None = None) -> int:
        """The number of products with A that `exponential` takes."""
        pieces = self._pieces(h)
        return pieces * self._propagator(h / pieces, tolerance).degree

    def _pieces(self, h: Tensor | float) -> int:
        # A series errs by e^(|h|γb) for a bound b of the spectrum, but x may grow by less: short pieces keep the two close.
        largest, gamma = self._rate()
        return max(1, math.ceil(-float(torch.as_tensor(h).detach()) * gamma * largest / 8))

    def _propagator(self, h: Tensor | float, tolerance: float | None) -> UnitaryExponential:
        flow, gamma = self.flow, self.flow.dissipation
        if tolerance is None:
            # A cut tail is the same in every step and adds up; round-off is not and does not.
            tolerance = torch.finfo(flow.laplacian.dtype).eps / 4
        # One that carries a gradient belongs to one step; without, steps of one length share it while nothing is learned.
        plain = not (torch.is_grad_enabled() or isinstance(h, Tensor))
        now = (h, tolerance, self._rate(), flow.mixing.V.detach().clone()) if plain else None
        if now is not None and self._kept is not None:
            *same, V = self._kept[0]
            if same == [*now[:3]] and torch.equal(V, now[3]):
                return self._kept[1]
        damping: tuple[Tensor | float, Tensor | float] = (0.0, 0.0)
        if gamma is not None:  # −γ L, where A is I − L or L.
            damping = (gamma, -gamma) if flow.adjacency else (-gamma, 0.0)
        made = UnitaryExponential(flow.generator.operator, flow.mixing(), h, damping=damping, tolerance=tolerance)
        self._kept = None if now is None else (now, made)
        return made

    def solve(self, shift: Tensor, b: Tensor) -> Any:
        raise NotImplementedError(
            "a unitary flow mixes channels, so its implicit step has no sparse factorisation here: use Exponential, "
            "which is exact and keeps the norm"
        )
