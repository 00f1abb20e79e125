"""Schnakenberg's reaction: the simplest Turing pattern, with its linear theory."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from neuralpde.coefficient import CoefficientLike, as_coefficient
from neuralpde.invariants import Invariant
from neuralpde.reaction import ReactionDiffusion, numbers_of
from operators import Laplacian


class Schnakenberg(ReactionDiffusion):
    """du/dt = −D_u L u + γ (a − u + u² v), dv/dt = −D_v L v + γ (b − u² v): the simplest Turing pattern.

    About the steady state u = a + b, v = b / (a + b)², a mode of L with eigenvalue λ grows at
    `growth_rate(λ, uniform())`. Patterns form if b > a, so that u feeds itself, (a + b)³ > b − a, so that nothing oscillates, and
    D_v / D_u is large enough; what comes out has nearly the wavelength 2π / √λ of the fastest mode, `preferred(uniform())`.

    Good values: a = 0.1, b = 0.9, D_u = 1, D_v = 40, γ = 1: λ = 0.28 and a wavelength of 12, spacings up to 1; on a sphere of
    radius 1, γ = 30 and D_u = 1 gives patterns of degree l ≈ 2. From the steady state with noise of 1 %; patterns within 50 / γ.

    Args:
        laplacian: L = M⁻¹ C, positive semi-definite, in 1/length² on a surface.
        diffusivities: D_u, D_v in length²/time.
        a, b: feeds, without unit, a + b > 0.
        rate: γ > 0 in 1/time.

    Invariants: u ≥ 0 and v ≥ 0, for a, b ≥ 0 and edge weights ≥ 0.

    Schnakenberg 1979, J. Theor. Biol. 81; analysis: Murray 2003, Mathematical Biology II, section 2.4.
    """

    names = ("u", "v")

    def __init__(
        self,
        laplacian: Laplacian,
        diffusivities: Sequence[CoefficientLike] = (1.0, 40.0),
        *,
        a: CoefficientLike = 0.1,
        b: CoefficientLike = 0.9,
        rate: CoefficientLike = 1.0,
    ) -> None:
        super().__init__(laplacian, diffusivities)
        self.a = as_coefficient(a, laplacian, "a")
        self.b = as_coefficient(b, laplacian, "b")
        self.gamma = as_coefficient(rate, laplacian, "rate", positive=True)

    def reaction(self, t: Tensor, *fields: Tensor) -> tuple[Tensor, ...]:
        u, v = fields
        made = u * u * v
        return self.gamma(t) * (self.a(t) - u + made), self.gamma(t) * (self.b(t) - made)

    def uniform(self) -> tuple[Tensor, Tensor]:
        """(a + b, b / (a + b)²), where nothing happens."""
        total = self.a() + self.b()
        return total, self.b() / total**2

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        numbers = numbers_of(self.a, self.b, self.gamma)
        positive = numbers is not None and min(numbers) >= 0
        return self.region((0.0, 0.0), (math.inf, math.inf)) if positive else ()
