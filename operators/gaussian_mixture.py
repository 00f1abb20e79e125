"""Attention by place alone: a learned mixture of Gaussians of pseudo-coordinates, that of MoNet."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from operators.checks import DomainError, FieldError
from operators.diffusivity import SOFTMAX, Diffusivity, Joint, check_channels
from operators.domains import Graph
from operators.laplacian import Laplacian
from operators.normalisation import Normalisation

Pseudo = Callable[[Tensor, Tensor], Tensor]
"""Pseudo-coordinates e_ij (..., E, d) of the positions u_i of who receives and u_j of who gives, (..., E, ·) each."""


def offset(receiver: Tensor, giver: Tensor) -> Tensor:
    """e_ij = u_j − u_i: where the neighbour lies, seen from i."""
    return giver - receiver


def ends(receiver: Tensor, giver: Tensor) -> Tensor:
    """e_ij = (u_i, u_j): both places. With u = 1/√degree these are MoNet's on citation graphs."""
    return torch.cat([receiver, giver], dim=-1)


class GaussianMixture(Diffusivity):
    """s_ij = log Σ_k p_k exp(−½ Σ_c (e_ij − μ_k)_c² / σ_kc²) of pseudo-coordinates e_ij = e(u_i, u_j) (Monti et al. 2017, CVPR).

    So under softmax a_ij is the mixture itself over its sum. It reads the positions of a pair (u, x) alone: while they stand
    still, the flow of x is linear. Weights p_k, means μ_k and widths σ_k are learned, p and σ as logarithms. They start at
    equal p, σ = 1 and means drawn from a normal distribution, so pseudo-coordinates should be of order one.

    Args:
        edges, normalise, self_loops: as in `Diffusivity`.
        dimensions: d of the pseudo-coordinates.
        kernels: K, the Gaussians of a head.
        heads: mixtures, whose shares are averaged.
        pseudo: `offset` (default), `ends`, or any function or module of (u_i, u_j), such as a learned one.

    Good values: 3 kernels, and positions scaled so that neighbours are about 1 apart.

    Raises:
        DomainError: no dimensions or no kernels. FieldError: a state without positions, or other pseudo-coordinates.
    """

    def __init__(
        self,
        edges: Laplacian | Graph,
        dimensions: int,
        kernels: int = 3,
        heads: int = 1,
        *,
        pseudo: Pseudo = offset,
        normalise: Normalisation = SOFTMAX,
        self_loops: float = 0.0,
    ) -> None:
        super().__init__(edges, heads, normalise=normalise, self_loops=self_loops)
        for name, value in (("dimensions", dimensions), ("kernels", kernels)):
            if value < 1:
                raise DomainError(f"{name} must be at least 1, not {value}")
        like = self.edges.weight
        self.pseudo = pseudo
        self.mean = nn.Parameter(torch.randn(heads, kernels, dimensions, dtype=like.dtype, device=like.device))
        self.log_width = nn.Parameter(like.new_zeros(heads, kernels, dimensions))
        self.logit = nn.Parameter(like.new_zeros(heads, kernels))

    def score(self, z: Joint) -> Tensor:
        if not isinstance(z, tuple):
            raise FieldError("a GaussianMixture reads positions: give it a pair (u, x)")
        u, pattern = z[0], self.edges.pattern
        e = self.pseudo(pattern.gather_rows(u), pattern.gather_columns(u))
        check_channels(e, self.mean.shape[-1], "this GaussianMixture, in its pseudo-coordinates,")
        apart = (e[..., None, None, :] - self.mean) * (-self.log_width).exp()
        mixture = (self.logit - apart.square().sum(-1) / 2).logsumexp(-1)
        return mixture.movedim(-1, 0)
