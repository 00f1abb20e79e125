"""Learned differences for flows, exact on polynomials whatever was learned: in the place of a spatial difference layer."""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn

from operators.checks import DomainError
from operators.consistent import ConsistentGradient, ConsistentLaplacian
from operators.consistent_corrections import NetworkCorrection
from operators.consistent_moments import Moments, Neighbours
from operators.consistent_positive import PositiveLaplacian, PositiveMoments
from operators.difference import Differences
from operators.domains import PointCloud
from operators.sparse import SparseOperator


class ConsistentDifference(Differences):
    """x ↦ (the consistent Laplacian at x, its gradient along every edge), both exact on polynomials for any parameters.

    (∇x)_ij = (x_j − x_i)ᵃ g_ia with g the gradient at i and the offset of the points: what `SpatialDifference` gives to first
    order, in the same unit. The edges carry b_ij = Σ_a e_a G_{ia,j}, of a learned direction e and the gradient without its
    correction, so that Σ_j b_ij (∇x)_ij = e·∇x: a `DifferenceFlow` of it is dx/dt = κ Δx + β e·∇x.

    Args:
        gradient, laplacian: on the same points.

    `ConsistentDifference.learned(cloud)` builds both with corrections that read the field, as the layer of PA-DGN does.
    """

    def __init__(self, gradient: ConsistentGradient, laplacian: ConsistentLaplacian) -> None:
        super().__init__()
        n, d = gradient.moments.num_nodes, gradient.moments.dimensions
        if (laplacian.moments.num_nodes, laplacian.moments.dimensions) != (n, d):
            raise DomainError(f"the gradient has {n} nodes, the Laplacian {laplacian.moments.num_nodes}: build both on one cloud")
        self.gradient, self.laplacian = gradient, laplacian
        self.direction = nn.Parameter(gradient.moments.root.new_full((d,), d**-0.5))

    @classmethod
    def learned(
        cls,
        cloud: PointCloud,
        channels: int = 1,
        width: int = 16,
        hops: int = 1,
        *,
        neighbours: Neighbours = None,
        order: int = 2,
        positive: bool = False,
    ) -> Self:
        """With weights from graph networks that read the field; untrained they are least squares.

        Args:
            cloud: n points in d dimensions.
            channels: c of the fields (..., n, c).
            width, hops: of the networks, see `NetworkCorrection`.
            neighbours, order: see `Moments`.
            positive: keep the off-diagonal entries of the Laplacian non-positive (`PositiveLaplacian`).
        """
        d = cloud.points.shape[1]
        moments = Moments(cloud, neighbours, order)
        slope = ConsistentGradient(moments, NetworkCorrection(d, d, width, hops, channels))
        second = NetworkCorrection(d, 1, width, hops, channels)
        if positive:
            return cls(slope, PositiveLaplacian(PositiveMoments(cloud, neighbours, order), second))
        return cls(slope, ConsistentLaplacian(moments, second))

    @property
    def edges(self) -> SparseOperator:
        """b_ij, (n, n) without diagonal, in 1/length: edges (i, j) from a node i to those that its gradient reads."""
        moments = self.gradient.moments
        weights = self.gradient.base()
        return SparseOperator(moments.edges, moments.along_edges((weights @ self.direction)[..., None]).squeeze(-1))

    def forward(self, x: Tensor) -> tuple[SparseOperator, Tensor]:
        """The Laplacian at x, (n, n), one a batch member where it reads the field, and the gradient on edges, (..., E, c)."""
        moments = self.gradient.moments
        return self.laplacian.operator(x), moments.along_edges(moments.offsets @ self.gradient.vectors(x))

    def vectors(self, x: Tensor) -> Tensor:
        """∇x as vectors, (..., n, d, c)."""
        return self.gradient.vectors(x)
