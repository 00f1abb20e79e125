"""Attention by angle: how alike the directions of keys and queries are, whatever their lengths."""

from __future__ import annotations

from torch import Tensor

from operators.attention import Projected
from operators.checks import DomainError
from operators.diffusivity import SOFTMAX
from operators.domains import Graph
from operators.laplacian import Laplacian
from operators.normalisation import Normalisation
from operators.sparse import sampled_product

EPSILON = 1e-5
"""Vectors shorter than this count as that long: a direction of rounding errors is none."""


class Cosine(Projected):
    """s_ij = k_i·q_j / (max(|k_i|, ε) max(|q_j|, ε)) with ε = 10⁻⁵, between −1 and 1 (Chamberlain et al. 2021, supplement).

    No edge weighs more than e² = 7.4 times another one, so training is calm, and scaling the field changes nothing. W_Q starts at
    W_K: an untrained diffusivity prefers neighbours that point the same way.

    Good values: width 8, heads 4. Arguments as in `Projected`.
    """

    def pairs(self, key: Tensor, query: Tensor) -> Tensor:
        return sampled_product(direction(key), direction(query), self.edges.pattern)


class Pearson(Cosine):
    """The cosine after each key and query has lost its mean, k − k̄: Pearson's correlation (Chamberlain et al. 2021, supplement).

    Good values: width 16, heads 4. Arguments as in `Projected`.

    Raises:
        DomainError: a width of one, where nothing is left after subtracting the mean.
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
        if width == 1:
            raise DomainError("the correlation of vectors of one number is not defined: give Pearson a width of at least 2")
        super().__init__(edges, channels, width, heads, normalise=normalise, self_loops=self_loops)

    def pairs(self, key: Tensor, query: Tensor) -> Tensor:
        return super().pairs(key - key.mean(-1, keepdim=True), query - query.mean(-1, keepdim=True))


def direction(x: Tensor) -> Tensor:
    """x / max(|x|, ε) along the last axis; (..., d) → (..., d), without overflow and with finite derivatives at zero."""
    # In units of its largest entry, or of ε, no square overflows, and a vector longer than ε has a length of at least one.
    unit = x.detach().abs().amax(-1, keepdim=True).clamp(min=EPSILON)
    scaled = x / unit
    return scaled * scaled.square().sum(-1, keepdim=True).clamp(min=1.0).rsqrt()
