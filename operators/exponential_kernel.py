"""Attention by distance: the Gaussian kernel of features, of positions, or of both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from operators.attention import heads_of
from operators.checks import FieldError
from operators.diffusivity import SOFTMAX, Diffusivity, Joint, aligned, check_channels, joined
from operators.domains import Graph
from operators.laplacian import Laplacian
from operators.normalisation import Normalisation
from operators.pattern import SparsityPattern
from operators.position_space import PositionSpace
from operators.sampled_distance import squared_distance


class ExponentialKernel(Diffusivity):
    """s_ij = σ² exp(−|q_j − k_i|² / (2 ℓ²)), the graph's bilateral filter; of a pair (u, x) a product of two such kernels.

    The product is s_ij = σ_u² σ_x² exp(−d_u² / (2 ℓ_u²) − d_x² / (2 ℓ_x²)) (Chamberlain et al. 2021, supplement), each
    kernel with keys, queries, σ and ℓ of its own, or with the distance d(u_i, u_j) of a position space, without keys and
    queries. σ > 0 and ℓ > 0 are learned for every head, as logarithms that start at 0: weight decay then draws them to 1.
    W_Q starts at W_K: an untrained kernel prefers the neighbours that are near.

    Args:
        edges, heads, normalise, self_loops: as in `Diffusivity`.
        channels: c of the fields (..., n, c); of a pair the channels of both together, or of x alone where `positions` is given.
        width: the dimension of keys and queries per head.
        positions: the channels of u, for a kernel of its own; or the space that measures them, such as `PoincareBall()`.

    Good values: width 8, 4 heads on channels of unit variance. Scores lie in (0, σ²], so a large σ makes attention sharp.

    Raises:
        DomainError: no channels; at a state, positions outside the ball.
    """

    def __init__(
        self,
        edges: Laplacian | Graph,
        channels: int,
        width: int = 8,
        heads: int = 1,
        *,
        positions: int | PositionSpace | None = None,
        normalise: Normalisation = SOFTMAX,
        self_loops: float = 0.0,
    ) -> None:
        super().__init__(edges, heads, normalise=normalise, self_loops=self_loops)
        like = self.edges.weight
        self.features = ProjectedKernel(channels, width, heads, like)
        self.positions: ProjectedKernel | MetricKernel | None = None
        if isinstance(positions, PositionSpace):
            self.positions = MetricKernel(positions, heads, like)
        elif positions is not None:
            self.positions = ProjectedKernel(positions, width, heads, like)

    def score(self, z: Joint) -> Tensor:
        pattern = self.edges.pattern
        if self.positions is None:
            alone: Tensor = self.features(joined(z), pattern)
            return alone.exp()
        if not isinstance(z, tuple):
            raise FieldError(
                "this ExponentialKernel has a kernel of positions: give it a pair (u, x), or build it without `positions`"
            )
        u, x = aligned(*z)
        both: Tensor = self.features(x, pattern) + self.positions(u, pattern)
        return both.exp()


class ProjectedKernel(nn.Module):
    """log σ² − |q_j − k_i|² / (2 ℓ²) for keys k = W_K z and queries q = W_Q z.

    Args:
        channels: c of z (..., n, c). width: of keys and queries per head. heads: how many.
        like: a tensor of the precision and device wanted.
    """

    def __init__(self, channels: int, width: int, heads: int, like: Tensor) -> None:
        super().__init__()
        self.key, self.query = heads_of(channels, width, heads, like), heads_of(channels, width, heads, like)
        with torch.no_grad():
            self.query.weight.copy_(self.key.weight)
        self.scale = Scale(heads, like)

    def forward(self, z: Tensor, pattern: SparsityPattern) -> Tensor:
        """The logarithm of the kernel, (heads, ..., E)."""
        check_channels(z, self.key.in_features, "this ExponentialKernel")
        heads = len(self.scale.log_sigma)
        key, query = (f(z).unflatten(-1, (heads, -1)).unbind(-2) for f in (self.key, self.query))
        # One head at a time: they then share the tiled pattern of the batch.
        squares = torch.stack([squared_distance(k, q, pattern) for k, q in zip(key, query, strict=True)])
        scaled: Tensor = self.scale(squares)
        return scaled


class MetricKernel(nn.Module):
    """log σ² − d(u_i, u_j)² / (2 ℓ²) with the distance of a space of positions.

    Args:
        space: where positions live. heads: how many. like: a tensor of the precision and device wanted.
    """

    def __init__(self, space: PositionSpace, heads: int, like: Tensor) -> None:
        super().__init__()
        self.space = space
        self.scale = Scale(heads, like)

    def forward(self, u: Tensor, pattern: SparsityPattern) -> Tensor:
        """The logarithm of the kernel, (heads, ..., E). Raises DomainError where a position is not in the space."""
        if not torch.compiler.is_compiling():
            self.space.check(u)
        distance = self.space.distance(pattern.gather_rows(u), pattern.gather_columns(u))
        scaled: Tensor = self.scale(distance.square().expand(len(self.scale.log_sigma), *distance.shape))
        return scaled


class Scale(nn.Module):
    """d² ↦ 2 log σ − d² / (2 ℓ²), σ and ℓ learned for each head."""

    def __init__(self, heads: int, like: Tensor) -> None:
        super().__init__()
        self.log_sigma = nn.Parameter(like.new_zeros(heads))
        self.log_length = nn.Parameter(like.new_zeros(heads))

    def forward(self, squares: Tensor) -> Tensor:
        """(heads, ..., E) → (heads, ..., E)."""
        sigma, length = (p.reshape(-1, *(1,) * (squares.ndim - 1)) for p in (self.log_sigma, self.log_length))
        scaled: Tensor = 2 * sigma - squares * (-2 * length).exp() / 2
        return scaled
