"""Learned diffusivities: a field decides how strongly its neighbours mix."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from operators import kernels
from operators.checks import DomainError, FieldError, check_field
from operators.laplacian import Laplacian, adjacency_of
from operators.operator import Movable
from operators.pattern import SparsityPattern
from operators.sparse import SparseOperator, sampled_product


class ScaledDotProduct(Movable):
    """x ↦ A(x), row-stochastic: a_ij = w_ij exp(s_ij) / Σ_k w_ik exp(s_ik), s_ij = (W_K x_i)·(W_Q x_j) / √d.

    The weights w are those of the Laplacian's edges, so at zero scores A is the random walk D⁻¹ W of the geometry, and
    on an unweighted graph A is the papers' softmax attention (Chamberlain et al. 2021, BLEND, eq. 13). Heads are
    averaged. A node without neighbours attends to itself. W_Q starts at zero: an untrained diffusivity is the geometry.

    Args:
        laplacian: gives the edges and their weights w ≥ 0.
        channels: c of the fields (..., n, c).
        width: d, the dimension of queries and keys per head.
        heads: the number of heads.
    """

    def __init__(self, laplacian: Laplacian, channels: int, width: int = 8, heads: int = 1) -> None:
        super().__init__()
        for name, value in (("channels", channels), ("width", width), ("heads", heads)):
            if value < 1:
                raise DomainError(f"{name} must be at least 1, not {value}")
        self.edges = _EdgePrior(laplacian)
        self.width, self.heads = width, heads
        self.key = nn.Linear(channels, width * heads, bias=False, dtype=laplacian.dtype, device=laplacian.device)
        self.query = nn.Linear(channels, width * heads, bias=False, dtype=laplacian.dtype, device=laplacian.device)
        nn.init.zeros_(self.query.weight)

    @property
    def rate(self) -> Tensor:
        """Σ_j w_ij / m_i of shape (n,): how fast each node forgets itself under the Laplacian, in 1/time."""
        return self.edges.rate

    def forward(self, x: Tensor) -> SparseOperator:
        """The diffusivity at x (..., n, c): a row-stochastic (n, n) operator, one per batch member. Raises FieldError."""
        pattern = self.edges.pattern
        check_field(x, pattern.shape[0], self.edges.log_weight.dtype, self.edges.log_weight.device)
        if x.shape[-1] != self.key.in_features or x.is_complex():
            raise FieldError(
                f"this attention reads {self.key.in_features} real channels, not {x.shape[-1]} of {x.dtype}: build it with as "
                "many as the field has; a complex field has twice as many, torch.view_as_real(x).flatten(-2)"
            )
        key, query = (f(x).unflatten(-1, (self.heads, self.width)).unbind(-2) for f in (self.key, self.query))
        # One head at a time: they then share the tiled pattern of the batch with the product that follows.
        heads = [sampled_product(k / math.sqrt(self.width), q, pattern) for k, q in zip(key, query, strict=True)]
        score = torch.stack(heads)
        return SparseOperator(pattern, row_softmax(score + self.edges.log_weight, pattern).mean(0))


def row_softmax(logits: Tensor, pattern: SparsityPattern) -> Tensor:
    """exp(s_e) / Σ over the row of e, for logits (..., E) in the pattern's order; exact for any finite logits.

    Raises:
        FieldError: another shape, or no real numbers. DomainError: a logit is not finite.
    """
    if not logits.is_floating_point() or logits.shape[-1:] != (pattern.nnz,):
        raise FieldError(f"logits must be floating point of shape (..., {pattern.nnz}), not {logits.dtype} {tuple(logits.shape)}")
    return kernels.row_softmax(logits, pattern.entries)


class _EdgePrior(nn.Module):
    """The edges of a Laplacian with their log-weights, an isolated node joined to itself."""

    log_weight: Tensor
    rate: Tensor

    def __init__(self, laplacian: Laplacian) -> None:
        super().__init__()
        self.laplacian = laplacian
        adjacency = adjacency_of(laplacian)
        degree = adjacency.row_sums()
        alone = (degree == 0).nonzero().squeeze(1)
        pattern = adjacency.pattern
        joined = SparseOperator.from_entries(
            torch.cat([pattern.row, alone]),
            torch.cat([pattern.col, alone]),
            torch.cat([adjacency.values, torch.ones_like(degree[alone])]),
            adjacency.shape,
        )
        self.pattern = joined.pattern
        self.register_buffer("log_weight", joined.values.log(), persistent=False)
        self.register_buffer("rate", degree / laplacian.mass, persistent=False)

    def on(self, domain: Any) -> _EdgePrior:
        return _EdgePrior(self.laplacian.on(domain))
