"""Beltrami flow: diffusion with a learned, state-dependent diffusivity."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from neuralpde.averaging import Averaging
from neuralpde.invariants import Invariant, Law, Mass, MaximumPrinciple, Part
from neuralpde.rhs import RightHandSide
from neuralpde.symmetry import Permutation, RigidMotion, Symmetry
from operators import FieldError
from operators.diffusivity import Diffusivity, Joint
from operators.normalisation import Over
from operators.position_space import Euclidean, PositionSpace, check_space
from operators.sparse import SparseOperator

EUCLIDEAN = Euclidean()


class BeltramiFlow(RightHandSide):
    """dz_i/dt = α r_i Σ_j a_ij(z) (z_j − z_i) + β z_i(0), on joint positional and feature coordinates z = (u, x).

    The graph Beltrami flow (Chamberlain et al. 2021, eqs. 7 and 8). On the edges of a graph r = 1, the paper's α (A(z) − I) z; on
    a Laplacian r_i = Σ_j w_ij / m_i is the geometry's own rate, so that at zero scores dz/dt = −α L z. Where the diffusivity is
    normalised over its columns, it is α (A(z) − I) r z instead, which conserves Σ_i z_i.

    The state is one tensor (..., n, c), or a pair (u, x) of positions and features. Positions of a pair move along the geodesics
    of their space, du_i/dt = α r_i Σ_j a_ij log_{u_i}(u_j), which is the same formula where the space is Euclidean.

    Args:
        diffusivity: z ↦ A(z), such as `ScaledDotProduct(graph, channels)`.
        rate: α > 0 at the start, learned as log α.
        source: β at the start, learned; None for no source. It adds to features and Euclidean positions alike.
        frozen: A is computed once, at the start of each solve. The flow is then linear in z, and `Exponential` and
            implicit solvers solve it exactly in a few products; else A is computed anew at every evaluation. Solvers of other
            libraries, which tell f of no start, are given `flow.starting_at(z0)`.
        space: where the positions of a pair live, `Euclidean()` or `PoincareBall()`. On the ball take fixed steps h with
            α r_i h ≤ 1, or an adaptive solver: a longer one may end outside.
        moving: whether the positions of a pair move; else they only steer the diffusivity (MoNet, DIGL).
        mixing: W, an `OnsagerMixing` of the channels: the diffusion becomes (A − I) z W (§3.4). For a pair, of the features.

    Invariants: the hull of every channel (rows), or the sum over nodes (columns), where there is no source and no mixing.

    Raises:
        ValueError: a rate that is not positive; a space that is none; a frozen flow with mixing, on a curved space or in stages,
            which has no closed form.
    """

    def __init__(
        self,
        diffusivity: Diffusivity,
        rate: float = 1.0,
        *,
        source: float | None = None,
        frozen: bool = False,
        space: PositionSpace = EUCLIDEAN,
        moving: bool = True,
        mixing: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(diffusivity, Diffusivity):
            name = type(diffusivity).__name__
            raise TypeError(f"a diffusivity such as ScaledDotProduct(graph, channels) drives this flow, not {name}")
        if source is not None and not math.isfinite(source):
            raise ValueError(f"source must be finite, or None for no source, not {source}")
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"rate must be positive and finite, not {rate}")
        check_space(space)
        if frozen and (mixing is not None or not isinstance(space, Euclidean)):
            raise ValueError("a frozen flow is linear only without mixing and on Euclidean positions: drop those, or frozen=True")
        if frozen and diffusivity.jumps:
            raise ValueError("a diffusivity in stages changes on the way and cannot be frozen at its start: drop frozen=True")
        if diffusivity.over is Over.COLUMNS and not isinstance(space, Euclidean):
            raise ValueError("geodesic motion averages over rows: normalise the diffusivity over rows on a curved space")
        like = diffusivity.rate
        self.diffusivity = diffusivity
        self.log_rate = nn.Parameter(torch.tensor(rate, dtype=like.dtype, device=like.device).log())
        self.source = None if source is None else nn.Parameter(torch.tensor(float(source), dtype=like.dtype, device=like.device))
        self.frozen_attention, self.space, self.moving, self.mixing = frozen, space, moving, mixing
        self.start: Joint | None = None

    @property
    def jumps(self) -> tuple[float, ...]:
        return self.diffusivity.jumps

    def starting_at(self, x0: Joint) -> RightHandSide:
        """The flow of a solve from x0: with its A if it is frozen, and its source. Itself if it remembers nothing.

        Raises FieldError where x0 is not on these edges, or no pair on a curved space; DomainError for positions outside it.
        """
        self.diffusivity.check(x0)
        if isinstance(x0, tuple):
            self.space.check(x0[0])
        elif not isinstance(self.space, Euclidean):
            raise FieldError(f"this state is one tensor, of which no part lies in {self.space}: give a pair (u, x)")
        if self.start is not None or (self.source is None and not self.frozen_attention):
            return self
        if self.frozen_attention:
            now = torch.zeros((), dtype=torch.float64)
            return Averaging(
                self.diffusivity.at(now)(x0),
                self.log_rate.exp() * self.diffusivity.rate,
                over=self.diffusivity.over,
                source=None if self.source is None else (self.source, x0),
                moving=self.moving,
            )
        begun = copy.copy(self)
        begun.__dict__ = {**self.__dict__, "start": x0}
        return begun

    def forward(self, t: Tensor, z: Joint) -> Any:
        if self.start is None and self.source is not None:
            raise FieldError("this flow has a source β z(0): integrate gives it z(0); by hand, call flow.starting_at(z0)(t, z)")
        A = self.diffusivity.at(t)(z)
        rate = (self.log_rate.exp() * self.diffusivity.rate)[:, None]
        if not isinstance(z, tuple):
            return self._driven(self._mixed(self._spread(A, rate, z)), 0)
        u, x = z
        moved = torch.zeros_like(u)
        if self.moving:
            moved = self._spread(A, rate, u) if isinstance(self.space, Euclidean) else rate * self._drift(A, u)
            if isinstance(self.space, Euclidean):
                moved = self._driven(moved, 0)
        return moved, self._driven(self._mixed(self._spread(A, rate, x)), 1)

    def _spread(self, A: SparseOperator, rate: Tensor, z: Tensor) -> Tensor:
        if self.diffusivity.over is Over.COLUMNS:
            z = rate * z
            given: Tensor = A @ z - z
            return given
        slope: Tensor = rate * (A @ z - z)
        return slope

    def _drift(self, A: SparseOperator, u: Tensor) -> Tensor:
        """Σ_j a_ij log_{u_i}(u_j)."""
        i, j = A.pattern.row, A.pattern.col
        steps = A.values[..., None] * self.space.log(u[..., i, :], u[..., j, :])
        return torch.zeros_like(u).index_add(-2, i, steps)

    def _mixed(self, slope: Tensor) -> Tensor:
        mixed: Tensor = slope if self.mixing is None else self.mixing(slope)
        return mixed

    def _driven(self, slope: Tensor, part: int) -> Tensor:
        if self.source is None or self.start is None:
            return slope
        start = self.start[part] if isinstance(self.start, tuple) else self.start
        return slope + self.source * start

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        laplacian = self.diffusivity.laplacian
        if laplacian is None or self.source is not None or self.mixing is not None:
            return ()
        if self.diffusivity.over is Over.ROWS:
            hull = MaximumPrinciple(laplacian, Law.NON_INCREASING)
            # Geodesics of a curved space leave the hull of their ends' coordinates.
            return (hull,) if isinstance(self.space, Euclidean) else (Part(1, hull, "features"),)
        even = bool((laplacian.mass == laplacian.mass[0]).all())
        return (Mass(laplacian, Law.CONSERVED),) if even else ()

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        # Geometry enters through the weights of the edges alone, and a pair's positions are coordinates of their own.
        return (Permutation(), RigidMotion())


class OnsagerMixing(nn.Module):
    """W = B Bᵀ, symmetric and positive semi-definite: channels drive each other, and no energy grows (Onsager 1931).

    Args:
        channels: c. B starts at the identity: no mixing.
    """

    def __init__(self, channels: int, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.root = nn.Parameter(torch.eye(channels, dtype=dtype))

    @property
    def matrix(self) -> Tensor:
        """W (c, c)."""
        return self.root @ self.root.T

    def forward(self, slope: Tensor) -> Tensor:
        if slope.shape[-1] != len(self.root) or slope.dtype != self.root.dtype:
            raise FieldError(
                f"this OnsagerMixing is of {len(self.root)} channels in {self.root.dtype}, and the field has {slope.shape[-1]} "
                f"in {slope.dtype}: build OnsagerMixing({slope.shape[-1]}, {slope.dtype}); of a pair (u, x) it mixes x"
            )
        return slope @ self.matrix
