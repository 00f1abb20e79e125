"""Small networks of local invariants: learned terms that no numbering of the nodes and no motion of the surface can change."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from neuralpde.invariants import Invariant, Mass
from neuralpde.rhs import RightHandSide
from neuralpde.symmetry import Permutation, RigidMotion, Symmetry
from operators import FieldError, Laplacian, Movable


class LocalInvariants(Movable):
    """φ(u) = (u, ℓ²Lu, …, (ℓ²L)^k u, ℓ²|∇u|²), node by node: (..., n, c) → (..., n, (k + 2) c).

    |∇u|² = u Lu − ½ L(u²), so that the Laplacian alone is needed, on a graph as on a surface. Equivariant under permutation,
    and unchanged by rigid motions, as L is.

    Args:
        laplacian: L, real, positive semi-definite.
        powers: k ≥ 1, how often L is applied; each reaches one ring further.
        length: ℓ, which makes φ dimensionless; if absent, the spacing of the nodes, (mean L_ii)^-½, of whatever domain this is
            moved to. Give one for a law of nature, leave it for the error of a discretisation.
        geometry: append log(m_i / mean m), which tells the nodes of an irregular mesh apart.
    """

    def __init__(self, laplacian: Laplacian, powers: int = 2, length: float | None = None, *, geometry: bool = False) -> None:
        super().__init__()
        if isinstance(powers, bool) or not isinstance(powers, int) or powers < 1:
            raise ValueError(f"powers must be a positive integer, not {powers!r}")
        if length is not None and not (length > 0 and length < float("inf")):
            raise ValueError(f"length must be positive and finite, not {length}: it makes the invariants dimensionless")
        if laplacian.dtype.is_complex:
            raise FieldError("local invariants need a real Laplacian: a network of real numbers follows")
        self.laplacian = laplacian
        self.powers, self.length, self.geometry = powers, length, geometry

    def count(self, channels: int) -> int:
        """The number of invariants of a field with so many channels."""
        return (self.powers + 2) * channels + self.geometry

    @property
    def scale(self) -> Tensor:
        """ℓ², a scalar."""
        if self.length is not None:
            return self.laplacian.mass.new_tensor(self.length**2)
        return 1 / self.laplacian.diagonal().detach().mean().clamp(min=torch.finfo(self.laplacian.dtype).tiny)

    def forward(self, u: Tensor) -> Tensor:
        L, scale = self.laplacian, self.scale
        rows = [u]
        for _ in range(self.powers):
            rows.append(scale * (L @ rows[-1]))
        rows.append(u * rows[1] - scale / 2 * (L @ u.square()))
        if self.geometry:
            weight = (L.mass / L.mass.mean()).log()[:, None]
            rows.append(weight.expand(*u.shape[:-1], 1))
        return torch.cat(rows, dim=-1)


class Closure(RightHandSide):
    """c(t, u) = net(φ(u)): a learned reaction, the same at every node, which mixes the channels there.

    Zero before it is trained (the last layer starts at zero), so that physics + closure starts as the physics.

    Args:
        laplacian: gives the local invariants φ.
        channels: of the field.
        width, layers: of the network, with tanh between its layers, so that the closure is smooth.
        local: φ, if not `LocalInvariants(laplacian)`.
        outputs: the channels of the result, if not those of the field.
    """

    def __init__(
        self,
        laplacian: Laplacian,
        channels: int = 1,
        width: int = 24,
        layers: int = 3,
        local: LocalInvariants | None = None,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        if min(channels, width) < 1 or layers < 2:
            raise ValueError(f"a closure needs channels and width ≥ 1 and layers ≥ 2, not {channels}, {width} and {layers}")
        self.channels = channels
        self.local = LocalInvariants(laplacian) if local is None else local
        sizes = [self.local.count(channels), *[width] * (layers - 1), channels if outputs is None else outputs]
        parts: list[nn.Module] = []
        for a, b in pairwise(sizes):
            parts += [nn.Linear(a, b), nn.Tanh()]
        self.net = nn.Sequential(*parts[:-1]).to(device=laplacian.device, dtype=laplacian.dtype)
        last = self.net[-1]
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        if u.shape[-1] != self.channels:
            raise FieldError(f"this closure was made for {self.channels} channels, and the field has {u.shape[-1]}")
        result: Tensor = self.net(self.local(u))
        return result

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return (Permutation(), RigidMotion())


class ConservativeClosure(RightHandSide):
    """c(t, u) = div ((1 + μ) ∇p) with learned potential p and mobility 1 + μ, both local: a flux from node to node.

    What leaves one node enters its neighbour, q_ij = w_ij (1 + (μ_i + μ_j)/2)(p_j − p_i), whatever the network says, so that
    the mass stays what it was to round-off. In terms of L alone, div (μ̄ ∇p) = −½ (μ Lp + L(μp) − p Lμ).

    Args:
        laplacian, channels, width, layers, local: as of `Closure`. L must kill constants.

    Invariants: the mass of every channel.
    """

    def __init__(
        self,
        laplacian: Laplacian,
        channels: int = 1,
        width: int = 24,
        layers: int = 3,
        local: LocalInvariants | None = None,
    ) -> None:
        super().__init__()
        if not laplacian.kills_constants:
            raise ValueError(
                "the rows of this Laplacian do not sum to zero, so no flux along its edges is behind it: take the Laplacian "
                "before symmetrized() or dirichlet(), or use Closure"
            )
        self.laplacian = laplacian
        self.channels = channels
        self.potentials = Closure(laplacian, channels, width, layers, local, outputs=2 * channels)

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        p, mobility = self.potentials(t, u).chunk(2, dim=-1)
        L, scale = self.laplacian, self.potentials.local.scale
        along = L @ torch.cat([p, mobility, mobility * p], dim=-1)
        Lp, Lm, Lmp = along.chunk(3, dim=-1)
        rate: Tensor = -scale * (Lp + (mobility * Lp + Lmp - p * Lm) / 2)
        return rate

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        return (Mass(self.laplacian),)

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return (Permutation(), RigidMotion())

    def on(self, domain: Any) -> ConservativeClosure:
        view: ConservativeClosure = super().on(domain)
        # One Laplacian for both, as it was.
        view.laplacian = view.potentials.local.laplacian
        return view
