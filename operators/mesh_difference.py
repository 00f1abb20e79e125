"""The fixed operators that learned differences are compared with: plain ones of a graph, and those of a triangulation."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.checks import DomainError, check_field
from operators.difference import Differences, modulated_gradient, modulated_laplacian
from operators.difference_graph import DifferenceGraph, points_of
from operators.differential import vertex_gradient
from operators.domains import PointCloud, TriangleMesh
from operators.operator import Operator
from operators.pattern import SparsityPattern
from operators.sparse import SparseOperator
from operators.surface import cotangent_laplacian


class FixedDifference(Differences):
    """Differences without anything learned: a Laplacian, differences along edges, and a gradient at nodes, all linear in x.

    Args:
        laplacian: (n, n), positive; rows sum to zero.
        gradient: (n·d, n), row i·d + a for axis a.
        edges: b, (n, n) without diagonal.
    """

    def __init__(self, laplacian: SparseOperator, gradient: SparseOperator, edges: SparseOperator) -> None:
        super().__init__()
        self.laplacian, self.gradient, self._edges = laplacian, gradient, edges
        self.dimensions = gradient.shape[0] // gradient.shape[1]

    @property
    def edges(self) -> SparseOperator:
        return self._edges

    def along_edges(self, x: Tensor) -> Tensor:
        """The differences of x along the edges, (..., n, c) → (..., E, c)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Operator, Tensor]:
        check_field(x, self.laplacian.shape[1], self.laplacian.dtype, self.laplacian.device)
        return self.laplacian, self.along_edges(x)

    def node_gradient(self, x: Tensor) -> Tensor:
        """The gradient at each node, (..., n, c) → (..., n, d, c)."""
        slopes: Tensor = self.gradient @ x
        return slopes.reshape(*slopes.shape[:-2], self.laplacian.shape[0], self.dimensions, slopes.shape[-1])

    def features(self, x: Tensor) -> Tensor:
        """(∇x, ∆x) at each node, what a regression on differences reads: (..., n, c) → (..., n, d + 1, c)."""
        return torch.cat([self.node_gradient(x), (self.laplacian @ x)[..., None, :]], dim=-2)


class StandardDifference(FixedDifference):
    """StandardOP: the differences x_j − x_i on the edges of a graph, and the Laplacian Σ_j (x_i − x_j).

    The gradient at a node is the sum over its edges of their unit directions times the differences, Σ_j e_ij (x_j − x_i), as the
    authors' code has it. None of them knows the edges' lengths, so they have the unit of x.

    Args:
        graph: where differences are taken.

    Source: Seo, Meng and Liu 2020, §2.1.
    """

    def __init__(self, graph: DifferenceGraph) -> None:
        ones = torch.ones_like(graph.lengths)
        laplacian = modulated_laplacian(graph.edges, ones, ones)
        n, d = graph.points.shape
        pattern = graph.pattern
        axes = torch.arange(d, device=ones.device)
        rows = pattern.row[:, None] * d + axes
        own, there = pattern.row[:, None].expand_as(rows), pattern.col[:, None].expand_as(rows)
        gradient = SparseOperator.from_entries(
            torch.cat([rows.flatten(), rows.flatten()]),
            torch.cat([there.flatten(), own.flatten()]),
            torch.cat([graph.directions.flatten(), -graph.directions.flatten()]),
            (n * d, n),
        )
        super().__init__(laplacian, gradient, graph.edges)
        self.graph = graph

    def along_edges(self, x: Tensor) -> Tensor:
        ones = torch.ones_like(self.graph.lengths)
        return modulated_gradient(self.graph.edges, x, ones, ones)

    def on(self, domain: PointCloud | TriangleMesh) -> StandardDifference:
        return StandardDifference(self.graph.on(domain))


class MeshDifference(FixedDifference):
    """MeshOP: the gradient and the cotangent Laplacian of a triangulation.

    The gradient at a vertex is the mean of the face gradients by area (`vertex_gradient`); on the edge (i, j) it is
    (∇x)_i · e_ij, with e_ij the unit vector from i to j. The Laplacian is Σ_j (cot α_ij + cot β_ij)(x_i − x_j) / 2 m_i, m_i
    a third of the area of the faces at i (`cotangent_laplacian`). Cotangents of obtuse angles are negative, as they must be for
    linear functions to be harmonic: the authors' code takes their absolute value on nearest-neighbour graphs.

    Args:
        domain: a mesh; or a cloud in a plane, whose Delaunay triangulation is taken. Coincident points of a cloud share a corner,
            which has the mean of their values. Differentiable in the points.

    Source: Seo, Meng and Liu 2020, §2.2; Crane 2018.
    """

    directions: Tensor

    def __init__(self, domain: PointCloud | TriangleMesh) -> None:
        mesh, corner = _triangulated(domain)
        cotangent = cotangent_laplacian(mesh)
        stiffness = cotangent.stiffness
        laplacian = SparseOperator(stiffness.pattern, stiffness.values / cotangent.mass[stiffness.pattern.row])
        gradient: SparseOperator = vertex_gradient(mesh).stencil
        if corner is not None:
            laplacian = _on_copies(laplacian, corner, 1)
            gradient = _on_copies(gradient, corner, mesh.vertices.shape[1])
        pattern, n = laplacian.pattern, laplacian.shape[0]
        off = pattern.row != pattern.col
        joined = SparsityPattern(pattern.row[off], pattern.col[off], (n, n))
        super().__init__(laplacian, gradient, SparseOperator(joined, -laplacian.values[off]))
        points = points_of(domain)
        offsets = points.double()[joined.col] - points.double()[joined.row]
        lengths = torch.linalg.vector_norm(offsets, dim=1)
        # √ has no derivative at zero, where coincident points have no direction.
        safe = torch.where(lengths > 0, lengths, 1.0)
        self.register_buffer("directions", (offsets / safe[:, None]).to(points.dtype), persistent=False)

    def along_edges(self, x: Tensor) -> Tensor:
        at = self.edges.pattern.gather_rows(self.node_gradient(x).flatten(-2))
        along: Tensor = (self.directions[..., None] * at.reshape(*at.shape[:-1], self.dimensions, -1)).sum(-2)
        return along

    def on(self, domain: PointCloud | TriangleMesh) -> MeshDifference:
        values = self.laplacian.values
        return MeshDifference(domain).to(device=values.device, dtype=values.dtype)


def _triangulated(domain: PointCloud | TriangleMesh) -> tuple[TriangleMesh, Tensor | None]:
    """The mesh, and the corner of each point where some points coincide."""
    if isinstance(domain, TriangleMesh):
        return domain, None
    if not isinstance(domain, PointCloud):
        raise DomainError(f"mesh differences need a TriangleMesh or a PointCloud in a plane, not a {type(domain).__name__}")
    distinct, corner = torch.unique(domain.points.detach(), dim=0, return_inverse=True)
    if len(distinct) == len(domain.points):
        return domain.triangulated(), None
    count = torch.bincount(corner).to(domain.points.dtype)
    means = torch.zeros_like(distinct).index_add(0, corner, domain.points) / count[:, None]
    return PointCloud(means).triangulated(), corner


def _on_copies(operator: SparseOperator, corner: Tensor, rows: int) -> SparseOperator:
    """The operator of corners, for points several of which may share a corner: it reads the mean and gives each the result."""
    pattern = operator.pattern
    count = torch.bincount(corner)
    points = torch.argsort(corner, stable=True)
    first = count.cumsum(0) - count
    target, axis = pattern.row // rows, pattern.row % rows
    copies = count[target] * count[pattern.col]
    entry = torch.repeat_interleave(torch.arange(pattern.nnz, device=corner.device), copies)
    place = torch.arange(len(entry), device=corner.device) - (copies.cumsum(0) - copies)[entry]
    width = count[pattern.col[entry]]
    to, of = points[first[target[entry]] + place // width], points[first[pattern.col[entry]] + place % width]
    n = len(corner)
    return SparseOperator.from_entries(to * rows + axis[entry], of, operator.values[entry] / width, (n * rows, n))
