"""Gray and Scott's autocatalysis: spots, stripes and worms from two species."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from neuralpde.coefficient import CoefficientLike, as_coefficient
from neuralpde.invariants import Invariant
from neuralpde.reaction import ReactionDiffusion
from operators import Laplacian


class GrayScott(ReactionDiffusion):
    """du/dt = −D_u L u − u v² + F (1 − u), dv/dt = −D_v L v + u v² − (F + k) v: v lives on u, which is fed in.

    Good values: `GrayScott.spots(L)`, `.labyrinth(L)`, `.dividing(L)`, `.solitons(L)`, `.worms(L)`, from u = 1, v = 0 with a few
    patches of u ≈ ½, v ≈ ¼, as `.seeded()` gives. D_u = 0.16, D_v = 0.08 are for spacings h near 1 (patterns have a wavelength of
    10 to 15), times h² for others: `scale=h**2`. They form within some 2,000 to 10,000 units of time; `Euler(dt=1.0)` will do,
    or `ARK324()`.

    Args:
        laplacian: L = M⁻¹ C, positive semi-definite, in 1/length² on a surface.
        feed: F > 0 in 1/time, 0.01 to 0.08.
        kill: k > 0 in 1/time, 0.045 to 0.07. Beyond √F / 2 − F nothing uniform is steady but v = 0. Below it `uniform()` is, and
            at F = 0.055, k = 0.062 that breaks up into waves of length 11.9 by itself.
        diffusivities: D_u, D_v in length²/time.

    Invariants: 0 ≤ u ≤ 1 and v ≥ 0, with edge weights ≥ 0.

    Gray and Scott 1984, Chem. Eng. Sci. 39; regimes: Pearson 1993, Science 261 (his D_u = 2e-5, D_v = 1e-5, on spacings of 0.01).
    """

    names = ("u", "v")

    def __init__(
        self,
        laplacian: Laplacian,
        feed: CoefficientLike = 0.037,
        kill: CoefficientLike = 0.06,
        diffusivities: Sequence[CoefficientLike] = (0.16, 0.08),
    ) -> None:
        super().__init__(laplacian, diffusivities)
        self.F = as_coefficient(feed, laplacian, "feed", positive=True)
        self.k = as_coefficient(kill, laplacian, "kill", positive=True)

    @classmethod
    def spots(cls, laplacian: Laplacian, scale: float = 1.0) -> GrayScott:
        """Spots that fill the surface and stay (F = 0.035, k = 0.065)."""
        return cls(laplacian, 0.035, 0.065, (0.16 * scale, 0.08 * scale))

    @classmethod
    def dividing(cls, laplacian: Laplacian, scale: float = 1.0) -> GrayScott:
        """Spots that divide, as cells do (F = 0.0367, k = 0.0649)."""
        return cls(laplacian, 0.0367, 0.0649, (0.16 * scale, 0.08 * scale))

    @classmethod
    def labyrinth(cls, laplacian: Laplacian, scale: float = 1.0) -> GrayScott:
        """Stripes that wind through the plane (F = 0.037, k = 0.06)."""
        return cls(laplacian, 0.037, 0.06, (0.16 * scale, 0.08 * scale))

    @classmethod
    def solitons(cls, laplacian: Laplacian, scale: float = 1.0) -> GrayScott:
        """Lone spots that keep their distance (F = 0.03, k = 0.062)."""
        return cls(laplacian, 0.03, 0.062, (0.16 * scale, 0.08 * scale))

    @classmethod
    def worms(cls, laplacian: Laplacian, scale: float = 1.0) -> GrayScott:
        """Worms and loops (F = 0.058, k = 0.063)."""
        return cls(laplacian, 0.058, 0.063, (0.16 * scale, 0.08 * scale))

    @property
    def feed(self) -> Tensor:
        """F."""
        return self.F()

    @property
    def kill(self) -> Tensor:
        """k."""
        return self.k()

    def uniform(self) -> tuple[Tensor, Tensor]:
        """The uniform steady state with more v, beside (1, 0), which always is one.

        Raises:
            ValueError: k > √F / 2 − F, where there is none.
        """
        F, removal = self.F(), self.F() + self.k()
        square = F * F - 4 * F * removal**2
        if float(square.detach()) < 0:
            limit = float(F.detach().sqrt() / 2 - F.detach())
            raise ValueError(f"beside v = 0 nothing uniform is steady for k > √F / 2 − F = {limit:.4g}")
        v = (F + square.sqrt()) / (2 * removal)
        return removal / v, v

    def reaction(self, t: Tensor, *fields: Tensor) -> tuple[Tensor, ...]:
        u, v = fields
        F, eaten = self.F(t), u * v * v
        return F * (1 - u) - eaten, eaten - (F + self.k(t)) * v

    def seeded(self, patches: int = 12, seed: int = 0, spread: float = 0.02) -> tuple[Tensor, Tensor]:
        """A start: u = 1, v = 0 but u = ½, v = ¼ in patches around random nodes, with noise; (n, 1) each.

        Args:
            patches: how many. spread: the part of the nodes in each patch.
        """
        if not 0 < spread <= 1:
            raise ValueError(f"spread is the part of the nodes in each patch, above 0 and at most 1, not {spread}")
        n, dtype, device = self.laplacian.shape[0], self.laplacian.dtype, self.laplacian.device
        generator = torch.Generator().manual_seed(seed)
        peaks = torch.zeros(n, patches, dtype=torch.float64)
        peaks[torch.randint(n, (patches,), generator=generator), torch.arange(patches)] = 1.0
        with torch.no_grad():
            mass = self.laplacian.mass.double()
            # Heat from a node for a time spreads over an area in proportion to it, whatever the domain.
            time = spread * float(mass.sum()) / (4 * math.pi)
            heat = self.laplacian.solve(time, (peaks / mass.cpu()[:, None]).to(device=device, dtype=dtype))
            # Where a patch's piece of the domain is too small for it, heat is zero beyond.
            warmest = heat.topk(max(1, round(spread * n)), dim=0).values[-1].clamp(min=torch.finfo(dtype).eps * heat.amax(0))
            within = (heat >= warmest).any(1, keepdim=True)
        noise = 0.02 * torch.rand(n, 2, generator=generator, dtype=torch.float64).to(device=device, dtype=dtype)
        inside = within.to(dtype)
        return 1 - 0.5 * inside - noise[:, :1] * inside, 0.25 * inside + noise[:, 1:] * inside

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        return self.region((0.0, 0.0), (1.0, math.inf)) if self.F.steady and self.k.steady else ()
