"""Additive attention, that of graph attention networks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.attention import heads_of
from operators.checks import DomainError
from operators.diffusivity import SOFTMAX, Diffusivity, Joint, check_channels, joined
from operators.domains import Graph
from operators.laplacian import Laplacian
from operators.normalisation import Normalisation


class GAT(Diffusivity):
    """s_ij = LeakyReLU(a_i·W z_i + a_j·W z_j), where i receives and j gives (Veličković et al. 2018, ICLR, eq. 1).

    With W = `lin.weight`, a_i = `att_dst` and a_j = `att_src` of PyTorch Geometric's `GATConv`, and `self_loops=1.0`, the
    shares of every head are its attention coefficients (before their mean over heads is taken, which is A). Without loops,
    `GATConv(..., add_self_loops=False)`.

    Args:
        edges, heads, normalise, self_loops: as in `Diffusivity`.
        channels: c of the fields (..., n, c); of a pair (u, x) the channels of both together.
        width: the rows of W per head.
        slope: of the LeakyReLU where its argument is negative.

    Good values: width 8, 8 heads, slope 0.2, as published.

    Raises:
        DomainError: no channels, no width, or a slope that is not finite.
    """

    def __init__(
        self,
        edges: Laplacian | Graph,
        channels: int,
        width: int = 8,
        heads: int = 1,
        *,
        slope: float = 0.2,
        normalise: Normalisation = SOFTMAX,
        self_loops: float = 0.0,
    ) -> None:
        super().__init__(edges, heads, normalise=normalise, self_loops=self_loops)
        if not math.isfinite(slope):
            raise DomainError(f"the slope must be finite, not {slope}")
        self.slope = slope
        self.weight = heads_of(channels, width, heads, self.edges.weight)
        self.receiver = nn.Parameter(self.edges.weight.new_empty(heads, width))
        self.giver = nn.Parameter(self.edges.weight.new_empty(heads, width))
        for parameter in (self.weight.weight, self.receiver, self.giver):
            nn.init.xavier_uniform_(parameter)

    def score(self, z: Joint) -> Tensor:
        z = joined(z)
        check_channels(z, self.weight.in_features, "this GAT")
        pattern, per_head = self.edges.pattern, self.weight.weight.reshape(*self.receiver.shape, -1)
        # a·(W z) = (Wᵀ a)·z: one number a node and head, and W z is never made.
        received, given = (z @ torch.einsum("hwc,hw->ch", per_head, a) for a in (self.receiver, self.giver))
        both = pattern.gather_rows(received) + pattern.gather_columns(given)
        return F.leaky_relu(both.movedim(-1, 0), self.slope)
