"""The geometry that differences along edges are taken on: nearest neighbours, Delaunay triangulations, meshes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from operators.checks import DomainError
from operators.domains import Graph, PointCloud, TriangleMesh
from operators.pattern import SparsityPattern
from operators.sparse import SparseOperator


@dataclass(frozen=True)
class KNearest:
    """Each point, or vertex of a mesh, joined with its k nearest others, both ways."""

    k: int = 4

    def __call__(self, domain: PointCloud | TriangleMesh) -> Graph:
        cloud = PointCloud(points_of(domain))
        return cloud.knn_graph(min(self.k, cloud.num_nodes - 1))


@dataclass(frozen=True)
class DelaunayEdges:
    """Points joined where they share a Delaunay cell."""

    def __call__(self, domain: PointCloud | TriangleMesh) -> Graph:
        return PointCloud(points_of(domain)).delaunay_graph()


@dataclass(frozen=True)
class MeshEdges:
    """The edges of a mesh, both ways."""

    def __call__(self, domain: PointCloud | TriangleMesh) -> Graph:
        if not isinstance(domain, TriangleMesh):
            raise DomainError(
                f"a {type(domain).__name__} has no mesh edges: join with KNearest(4) or DelaunayEdges(), or triangulate it first"
            )
        return domain.graph()


Join = Callable[[Any], Graph]


class DifferenceGraph(nn.Module):
    """Points and the edges between them along which differences are taken, both ways.

    The edge (i, j) is seen from i: its offset is p_j − p_i. Coincident points have the direction zero. `edges` is the adjacency
    matrix. It moves with `.on`.

    Args:
        domain: points (n, d), or the vertices of a mesh.
        join: `KNearest(k)`, `DelaunayEdges()` or `MeshEdges()`, or any function of the domain that gives a Graph; or a Graph.
            The four nearest if absent, of a mesh its edges. Weights and loops of the graph do not matter.

    Raises:
        DomainError: a graph of another number of nodes, or one without edges.
    """

    points: Tensor
    offsets: Tensor
    lengths: Tensor
    directions: Tensor

    def __init__(self, domain: PointCloud | TriangleMesh, join: Join | Graph | None = None) -> None:
        super().__init__()
        if join is None:
            join = MeshEdges() if isinstance(domain, TriangleMesh) else KNearest()
        points = points_of(domain)
        graph = join(domain) if callable(join) and not isinstance(join, Graph) else join
        if not isinstance(graph, Graph):
            raise DomainError(f"join must be KNearest(4), DelaunayEdges(), MeshEdges() or a Graph, not {join!r}")
        if graph.nodes != len(points):
            raise DomainError(f"the graph has {graph.nodes} nodes, the domain {len(points)}: one node for each point")
        source, target = graph.edge_index.to(points.device)
        keep = source != target
        source, target = torch.cat([source[keep], target[keep]]), torch.cat([target[keep], source[keep]])
        if not len(source):
            raise DomainError("the graph joins no two points, so there is nothing to take differences of: give it edges")
        key = torch.unique(target * len(points) + source)
        self.join = join
        self.pattern = SparsityPattern(key // len(points), key % len(points), (len(points), len(points)))
        self.pattern.with_diagonal()  # built now: torch.compile could not trace the building
        # In float64, so that points far from the origin keep their distances.
        offsets = points.double()[self.pattern.col] - points.double()[self.pattern.row]
        lengths = torch.linalg.vector_norm(offsets, dim=1)
        directions = offsets / torch.where(lengths > 0, lengths, 1.0)[:, None]
        self.edges = SparseOperator(self.pattern, points.new_ones(self.pattern.nnz))
        self.register_buffer("points", points, persistent=False)
        for name, value in (("offsets", offsets), ("lengths", lengths), ("directions", directions)):
            self.register_buffer(name, value.to(points.dtype), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the points."""
        return self.points.dtype

    @property
    def dimensions(self) -> int:
        """d of the points."""
        return self.points.shape[1]

    def on(self, domain: PointCloud | TriangleMesh) -> DifferenceGraph:
        """The same kind of graph on another domain, in this one's precision and on its device."""
        if isinstance(self.join, Graph):
            raise DomainError(
                "this difference graph was given its edges, so it cannot make those of another domain: build it with "
                "KNearest(4), DelaunayEdges() or MeshEdges()"
            )
        return DifferenceGraph(domain, self.join).to(device=self.points.device, dtype=self.dtype)


def points_of(domain: PointCloud | TriangleMesh) -> Tensor:
    """The points of a cloud or the vertices of a mesh, (n, d)."""
    if isinstance(domain, PointCloud):
        return domain.points
    if isinstance(domain, TriangleMesh):
        return domain.vertices
    raise DomainError(
        f"differences along edges need positions: give a PointCloud or a TriangleMesh, not a {type(domain).__name__}"
    )
