"""Diffusivities of keys and queries, and the scaled dot product of the transformer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from operators.checks import DomainError
from operators.diffusivity import SOFTMAX, Diffusivity, Joint, check_channels, joined
from operators.domains import Graph
from operators.laplacian import Laplacian
from operators.normalisation import Normalisation
from operators.sparse import sampled_product


class Projected(Diffusivity):
    """A diffusivity of keys k = W_K z and queries q = W_Q z, each of `heads` × `width` numbers; `pairs` scores one head.

    Args:
        edges, normalise, self_loops: as in `Diffusivity`.
        channels: c of the fields (..., n, c); of a pair (u, x) the channels of both together.
        width: the dimension of queries and keys per head.
        heads: the number of heads.
    """

    def __init__(
        self,
        edges: Laplacian | Graph,
        channels: int,
        width: int = 8,
        heads: int = 1,
        *,
        normalise: Normalisation = SOFTMAX,
        self_loops: float = 0.0,
    ) -> None:
        super().__init__(edges, heads, normalise=normalise, self_loops=self_loops)
        self.width = width
        self.key = heads_of(channels, width, heads, self.edges.weight)
        self.query = heads_of(channels, width, heads, self.edges.weight)
        with torch.no_grad():
            self.query.weight.copy_(self.first_query())

    def first_query(self) -> Tensor:
        """W_Q of an untrained diffusivity: W_K, so that it starts from how alike its nodes are."""
        return self.key.weight

    def score(self, z: Joint) -> Tensor:
        z = joined(z)
        check_channels(z, self.key.in_features, f"this {type(self).__name__}")
        key, query = (f(z).unflatten(-1, (self.heads, self.width)).unbind(-2) for f in (self.key, self.query))
        # One head at a time: they then share the tiled pattern of the batch with the product that follows.
        return torch.stack([self.pairs(k, q) for k, q in zip(key, query, strict=True)])

    def pairs(self, key: Tensor, query: Tensor) -> Tensor:
        """The scores (..., E) of one head from keys and queries (..., n, width): row i is the key, column j the query."""
        raise NotImplementedError(f"{type(self).__name__} must define pairs(self, key, query)")


class ScaledDotProduct(Projected):
    """s_ij = (W_K z_i)·(W_Q z_j) / √d (Chamberlain et al. 2021, BLEND, eq. 13).

    At zero scores A is the random walk D⁻¹ W of the geometry, and on an unweighted graph A is the papers' softmax attention.
    W_Q starts at zero: an untrained diffusivity is the geometry.
    """

    def first_query(self) -> Tensor:
        return torch.zeros_like(self.key.weight)

    def pairs(self, key: Tensor, query: Tensor) -> Tensor:
        return sampled_product(key / math.sqrt(self.width), query, self.edges.pattern)


def heads_of(channels: int, width: int, heads: int, like: Tensor) -> nn.Linear:
    """A linear map of c channels to `width` numbers a head, without bias, of the precision and device of a tensor."""
    for name, value in (("channels", channels), ("width", width)):
        if value < 1:
            raise DomainError(f"{name} must be at least 1, not {value}")
    return nn.Linear(channels, width * heads, bias=False, dtype=like.dtype, device=like.device)
