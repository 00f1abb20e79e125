"""Reaction and diffusion: several species that spread at their own rates and react at every node, and the front of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from integrators import LinearPart
from neuralpde.coefficient import Coefficient, CoefficientLike, as_coefficient
from neuralpde.coupled import block_diagonal_part
from neuralpde.heat import Diffusion
from neuralpde.invariant_region import InvariantRegion
from neuralpde.invariants import Invariant
from neuralpde.rhs import RightHandSide
from neuralpde.symmetry import Permutation, RigidMotion, Symmetry
from neuralpde.transport import averages
from operators import FieldError, Laplacian


class ReactionDiffusion(RightHandSide):
    """du_k/dt = −D_k L u_k + R_k(t, u): the state is the tuple of the fields, in the order of `names`.

    A new system sets `names` and `diffusivities` and writes `reaction(t, u, v, ...)`, the tuple of the R_k:

        class Brusselator(npde.ReactionDiffusion):
            names = ("u", "v")

            def __init__(self, laplacian):
                super().__init__(laplacian, [1.0, 8.0])

            def reaction(self, t, u, v):
                return 4.5 - 8.5 * u + u**2 * v, 7.5 * u - u**2 * v

    The diffusion of each field with one constant diffusivity is the linear part, block by block; the rest is explicit.

    Args:
        laplacian: L = M⁻¹ C, positive semi-definite, in 1/length² on a surface.
        diffusivities: D_k ≥ 0 in length²/time, one for each name; see `Coefficient`. A field multiplies L u, outside
            the divergence.
    """

    names: tuple[str, ...] = ()

    def __init__(self, laplacian: Laplacian, diffusivities: Sequence[CoefficientLike]) -> None:
        super().__init__()
        if len(diffusivities) != len(self.names) or not self.names:
            given = f"{len(diffusivities)} diffusivities for the fields {self.names}"
            raise ValueError(f"{given}: give one to each name, 0 to what stays put")
        self.laplacian = laplacian
        self.D = torch.nn.ModuleList(
            as_coefficient(D, laplacian, f"diffusivity of {name}", nonnegative=True)
            for name, D in zip(self.names, diffusivities, strict=True)
        )

    @property
    def diffusivities(self) -> tuple[Tensor, ...]:
        """D_k."""
        return tuple(D() for D in self._rates())

    def reaction(self, t: Tensor, *fields: Tensor) -> tuple[Tensor, ...]:
        """R_k(t, u, v, ...), one for each field."""
        raise NotImplementedError(f"{type(self).__name__} must define reaction(self, t, {', '.join(self.names)})")

    def state(self, **fields: Tensor) -> tuple[Tensor, ...]:
        """The state of given fields, in the order of the names."""
        if set(fields) != set(self.names):
            raise TypeError(f"the fields are {', '.join(self.names)}, not {', '.join(fields)}")
        return tuple(fields[name] for name in self.names)

    def named(self, x: Sequence[Tensor]) -> dict[str, Tensor]:
        """A state, or the path of a solution, by name."""
        return dict(zip(self.names, x, strict=True))

    def forward(self, t: Tensor, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self._slopes(t, x, self._rates())

    def nonlinear(self, t: Tensor, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The reaction, and the diffusion of fields whose diffusivity is not one constant."""
        return self._slopes(t, x, [None if D.scalar else D for D in self._rates()])

    def _slopes(self, t: Tensor, x: Any, rates: Sequence[Coefficient | None]) -> tuple[Tensor, ...]:
        if not isinstance(x, tuple) or len(x) != len(self.names):
            form = f"a tuple of {len(x)}" if isinstance(x, tuple) else type(x).__name__
            raise FieldError(f"the state is the tuple ({', '.join(self.names)}), not {form}: make it with .state(...)")
        gains = self.reaction(t, *x)
        slopes = [r if D is None else r - D(t) * (self.laplacian @ u) for u, r, D in zip(x, gains, rates, strict=True)]
        return tuple(slopes)

    def growth_rate(self, eigenvalue: Tensor | float, state: Sequence[Tensor | float]) -> Tensor:
        """The largest real part of the rates at which a mode of L with this eigenvalue grows about a uniform steady state.

        The eigenvalues of J − λ diag(D), J the Jacobian of the reaction (Turing 1952, Phil. Trans. R. Soc. B 237). A pattern
        forms by itself where λ = 0 decays and some λ > 0 grows.

        Args:
            eigenvalue: λ, of any shape. state: the values of the fields.

        Raises:
            ValueError: a coefficient that is a field or depends on time.
        """
        uneven = [c.name for c in self.modules() if isinstance(c, Coefficient) and not c.scalar]
        if uneven:
            raise ValueError(f"the theory of a uniform state needs coefficients of one number each, which {uneven[0]} is not")
        dtype, device = self.laplacian.dtype, self.laplacian.device
        t = torch.zeros((), dtype=torch.float64, device=device)

        def reaction(values: Tensor) -> Tensor:
            return torch.cat([rate.reshape(1) for rate in self.reaction(t, *values.reshape(-1, 1, 1))])

        values = torch.stack([torch.as_tensor(value, dtype=dtype, device=device).reshape(()) for value in state])
        J = torch.func.jacrev(reaction)(values)
        D = torch.stack(self.diffusivities).diag()
        each = torch.as_tensor(eigenvalue, dtype=dtype, device=device)[..., None, None]
        rates: Tensor = torch.linalg.eigvals(J - each * D).real.amax(-1)
        return rates

    def preferred(self, state: Sequence[Tensor | float]) -> float:
        """The eigenvalue λ of the mode that grows fastest about a uniform steady state, in 1/length², to a thousandth.

        2π / √λ is its wavelength. Zero if no pattern forms: nothing grows, or nothing faster than the uniform mode.
        """
        with torch.no_grad():
            uniform = float(self.growth_rate(0.0, state))
            fastest = max(float(D) for D in self.diffusivities)
            if fastest <= 0:
                return 0.0
            # Evenly in the logarithm: rates and diffusivities may be of any unit.
            size = max(1.0, abs(uniform))
            eigenvalues = torch.logspace(-8, 4, 24_001, dtype=torch.float64).to(self.laplacian.device) * size / fastest
            rates = self.growth_rate(eigenvalues, state)
            best = int(rates.argmax())
            grows = float(rates[best]) > max(0.0, uniform)
            return float(eigenvalues[best]) if grows else 0.0

    def _rates(self) -> list[Coefficient]:
        return [D for D in self.D if isinstance(D, Coefficient)]

    @property
    def linear(self) -> LinearPart | None:
        parts = [Diffusion(self.laplacian, D()) if D.scalar and _moves(D) else None for D in self._rates()]
        return None if all(part is None for part in parts) else block_diagonal_part(parts)

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return (Permutation(), RigidMotion()) if all(c.scalar for c in self.modules() if isinstance(c, Coefficient)) else ()

    def region(self, lows: tuple[float, ...], highs: tuple[float, ...]) -> tuple[Invariant, ...]:
        """Bounds that the reaction keeps, if diffusion does."""
        bounded = averages(self.laplacian) and all(D.scalar for D in self._rates())
        return (InvariantRegion(lows, highs),) if bounded else ()


def _moves(D: Coefficient) -> bool:
    """Whether a field spreads at all, or may learn to."""
    return bool(list(D.parameters())) or float(D()) > 0


def numbers_of(*coefficients: Coefficient) -> list[float] | None:
    """The coefficients as numbers, if all are."""
    return [float(c().detach()) for c in coefficients] if all(c.scalar for c in coefficients) else None


class FisherKPP(RightHandSide):
    """du/dt = −D L u + r u (1 − u): a population that grows and spreads, in fronts of speed 2√(rD).

    Good values: D = 1, r = 1 on a grid of spacing 0.5 or less: the front runs at 2 − 3 / (2t) and is some 5√(D/r) wide. Any
    u₀ ≥ 0 of bounded support will do; what is negative blows up.

    Args:
        laplacian: L = M⁻¹ C, positive semi-definite, in 1/length² on a surface.
        diffusivity: D ≥ 0 in length²/time.
        rate: r in 1/time.

    Invariants: 0 ≤ u ≤ 1, with edge weights ≥ 0 and r ≥ 0.

    Fisher 1937, Ann. Eugenics 7; Kolmogorov, Petrovsky and Piskunov 1937, Bull. Univ. Moscow 1.
    """

    def __init__(self, laplacian: Laplacian, diffusivity: CoefficientLike = 1.0, rate: CoefficientLike = 1.0) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.D = as_coefficient(diffusivity, laplacian, "diffusivity", nonnegative=True)
        self.r = as_coefficient(rate, laplacian, "rate")

    @property
    def diffusivity(self) -> Tensor:
        """D."""
        return self.D()

    @property
    def rate(self) -> Tensor:
        """r."""
        return self.r()

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return self.nonlinear(t, u) - self.D(t) * (self.laplacian @ u)

    @property
    def linear(self) -> LinearPart | None:
        return Diffusion(self.laplacian, self.D()) if self.D.scalar else None

    def nonlinear(self, t: Tensor, u: Tensor) -> Tensor:
        """N(t, u) = r u (1 − u)."""
        return self.r(t) * u * (1 - u)

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        kept = self.D.scalar and self.r.steady and bool((self.r() >= 0).all()) and averages(self.laplacian)
        return (InvariantRegion((0.0,), (1.0,)),) if kept else ()

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return (Permutation(), RigidMotion()) if self.D.scalar and self.r.scalar else ()
