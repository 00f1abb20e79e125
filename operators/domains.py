"""Where fields live: graphs, triangle meshes and point clouds, frozen and validated."""

from __future__ import annotations

import dataclasses
import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from operators.checks import DomainError, DomainWarning, as_index, as_points, check_finite
from operators.mesh_files import read_mesh, write_mesh
from operators.mesh_repair import CleanMesh, clean_mesh, coincident_vertices, first_defect


class Domain:
    """What graphs, meshes and point clouds share: they are frozen, and move between devices and precisions."""

    @property
    def num_nodes(self) -> int:
        """The number of nodes n of a field (..., n, c) on this domain."""
        raise NotImplementedError

    def to(self, target: torch.device | str | torch.dtype) -> Self:
        """A copy on another device, or with floating-point tensors in another precision."""
        moved = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                cast = not isinstance(target, torch.dtype) or value.is_floating_point()
                moved[field.name] = value.to(target) if cast else value
        # Nothing is validated again: the content is the same, and warnings would be repeated.
        copy = object.__new__(type(self))
        copy.__dict__.update({field.name: getattr(self, field.name) for field in dataclasses.fields(self)}, **moved)  # type: ignore[arg-type]
        return copy


@dataclass(frozen=True, eq=False)
class Graph(Domain):
    """A weighted graph; messages flow from row 0 (source) to row 1 (target) of `edge_index`, as in PyG.

    Args:
        edge_index: integers (2, E), entries in [0, nodes). An undirected graph names each edge in both directions.
        nodes: the number of nodes; isolated nodes are welcome, so it cannot be guessed from the edges.
        edge_weight: (E,) float, finite; ones if absent.

    Raises:
        DomainError: anything that no operator could be built on.
    """

    edge_index: Tensor
    nodes: int
    edge_weight: Tensor = dataclasses.field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if isinstance(self.nodes, bool) or not isinstance(self.nodes, (int, np.integer)) or self.nodes < 1:
            raise DomainError(f"nodes must be a positive integer, not {self.nodes!r}: a graph needs at least one node")
        index = as_index(self.edge_index, "edge_index", 2, None, int(self.nodes))
        weight = self.edge_weight
        if weight is None:
            weight = torch.ones(index.shape[1], dtype=torch.get_default_dtype(), device=index.device)
        weight = torch.as_tensor(weight)
        if weight.shape != (index.shape[1],):
            raise DomainError(f"edge_weight must have shape ({index.shape[1]},), one for each edge, not {tuple(weight.shape)}")
        if weight.dtype not in (torch.float32, torch.float64):
            raise DomainError(f"edge_weight must be float32 or float64, not {weight.dtype}")
        check_finite(weight, "edge_weight")
        object.__setattr__(self, "nodes", int(self.nodes))
        object.__setattr__(self, "edge_index", index)
        object.__setattr__(self, "edge_weight", weight)

    @property
    def num_nodes(self) -> int:
        return self.nodes

    def undirected(self) -> Graph:
        """The undirected graph with weights (w_ij + w_ji) / 2: the documented cure for a directed graph."""
        index = torch.cat([self.edge_index, self.edge_index.flip(0)], dim=1)
        return Graph(index, self.nodes, torch.cat([self.edge_weight, self.edge_weight]) / 2)

    @classmethod
    def from_pyg(cls, data: Any) -> Graph:
        """From a PyG `Data` with `edge_index`, and `edge_weight` (or a one-column `edge_attr`) if present."""
        if getattr(data, "edge_index", None) is None:
            raise DomainError("this Data has no edge_index: build a PointCloud and connect it with .knn_graph(k)")
        weight = getattr(data, "edge_weight", None)
        attributes = getattr(data, "edge_attr", None)
        if weight is None and attributes is not None and attributes.numel() == data.edge_index.shape[1]:
            weight = attributes.reshape(-1)
        nodes = data.num_nodes
        return cls(data.edge_index, int(nodes)) if weight is None else cls(data.edge_index, int(nodes), weight)

    def to_pyg(self) -> Any:
        """A PyG `Data` with edge_index, edge_weight and num_nodes."""
        from torch_geometric.data import Data

        return Data(edge_index=self.edge_index, edge_weight=self.edge_weight, num_nodes=self.nodes)


@dataclass(frozen=True, eq=False)
class TriangleMesh(Domain):
    """A triangulated surface, with or without boundary, in two or three dimensions; need not be manifold.

    Args:
        vertices: (n, 2) or (n, 3), float32 or float64.
        faces: integers (m, 3), entries in [0, n).

    Raises:
        DomainError: non-finite or wildly scaled coordinates, bad indices, repeated-index, zero-area or duplicate
            faces, unreferenced vertices. `clean_mesh(vertices, faces)` repairs the last four.

    Warns:
        DomainWarning: coincident vertices, across which no field flows; `mesh.clean()` welds them.
    """

    vertices: Tensor
    faces: Tensor

    def __post_init__(self) -> None:
        vertices = as_points(self.vertices, "vertices", (2, 3))
        faces = as_index(self.faces, "faces", None, 3, vertices.shape[0]).to(vertices.device)
        if faces.shape[0] == 0:
            raise DomainError("faces are empty: a surface needs at least one triangle; for bare points use PointCloud")
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "faces", faces)
        points, triangles = self.arrays
        defect = first_defect(points, triangles)
        if defect is not None:
            raise DomainError(f"{defect}: repair with clean_mesh(vertices, faces) or load_mesh(path, clean=True)")
        coincident = coincident_vertices(points)
        if coincident:
            warnings.warn(
                f"{coincident} vertices coincide with an earlier one, and no field flows across such a seam: weld them "
                "with mesh.clean() or load_mesh(path, clean=True), or keep the seam and ignore this warning",
                DomainWarning,
                stacklevel=3,
            )

    @cached_property
    def arrays(self) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.int64]]]:
        """Vertices (n, 3) in float64 and faces (m, 3), as NumPy arrays; planar meshes get z = 0."""
        points = self.vertices.detach().to("cpu", torch.float64).numpy()
        if points.shape[1] == 2:
            points = np.column_stack([points, np.zeros(len(points))])
        return points, self.faces.cpu().numpy()

    @property
    def num_nodes(self) -> int:
        return self.vertices.shape[0]

    @cached_property
    def edges(self) -> Tensor:
        """Each edge once, (2, E) with row 0 < row 1, sorted."""
        pairs = torch.cat([self.faces[:, [0, 1]], self.faces[:, [1, 2]], self.faces[:, [2, 0]]])
        unique: Tensor = torch.unique(pairs.sort(dim=1).values, dim=0)
        return unique.T.contiguous()

    @cached_property
    def area(self) -> float:
        """The total area, in squared units of the coordinates."""
        points, faces = self.arrays
        a, b, c = points[faces[:, 0]], points[faces[:, 1]], points[faces[:, 2]]
        return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)

    def graph(self) -> Graph:
        """The graph of the mesh's edges, both directions, unit weights."""
        both = torch.cat([self.edges, self.edges.flip(0)], dim=1)
        return Graph(both, self.num_nodes, torch.ones(both.shape[1], dtype=self.vertices.dtype, device=both.device))

    def clean(self) -> TriangleMesh:
        """The mesh with coincident vertices welded; `clean_mesh` also returns the map back."""
        points, faces = self.arrays
        repaired = clean_mesh(points[:, : self.vertices.shape[1]], faces)
        return TriangleMesh.from_arrays(repaired, self.vertices.dtype).to(self.vertices.device)

    @classmethod
    def from_arrays(cls, mesh: CleanMesh, dtype: torch.dtype = torch.float64) -> TriangleMesh:
        """From the result of `clean_mesh`."""
        return cls(torch.from_numpy(mesh.vertices).to(dtype), torch.from_numpy(mesh.faces))

    @classmethod
    def from_pyg(cls, data: Any) -> TriangleMesh:
        """From a PyG `Data` with `pos` (n, 3) and `face` (3, m)."""
        if getattr(data, "pos", None) is None or getattr(data, "face", None) is None:
            raise DomainError("this Data needs `pos` (n, 3) and `face` (3, m) to be a mesh")
        return cls(data.pos, data.face.T)

    def to_pyg(self) -> Any:
        """A PyG `Data` with pos, face and the edges in both directions."""
        from torch_geometric.data import Data

        return Data(pos=self.vertices, face=self.faces.T.contiguous(), edge_index=self.graph().edge_index)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write .ply, .obj, .off or .stl, atomically."""
        write_mesh(path, *self.arrays)


@dataclass(frozen=True, eq=False)
class PointCloud(Domain):
    """Scattered points, such as sensors.

    Args:
        points: (n, d), float32 or float64, finite.
    """

    points: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", as_points(self.points, "points"))

    @property
    def num_nodes(self) -> int:
        return self.points.shape[0]

    def knn_graph(self, k: int) -> Graph:
        """The undirected graph that joins every point to its k nearest others (among equally near ones, any)."""
        n = self.num_nodes
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k < n:
            raise DomainError(f"k must be an integer from 1 to {n - 1} (one less than the {n} points), not {k!r}")
        points = self.points.detach().to("cpu", torch.float64).numpy()
        _, neighbours = cKDTree(points).query(points, k=k + 1)
        target = np.repeat(np.arange(n), k + 1)
        # With coincident points the tree may return the point itself anywhere, or not at all.
        source, keep = neighbours.reshape(-1), np.ones(n * (k + 1), dtype=bool)
        keep &= source != target
        extra = keep.reshape(n, k + 1).all(axis=1)
        keep.reshape(n, k + 1)[extra, -1] = False
        pairs = np.stack([source[keep], target[keep]])
        both = np.unique(np.concatenate([pairs, pairs[::-1]], axis=1), axis=1)
        weight = torch.ones(both.shape[1], dtype=self.points.dtype)
        return Graph(torch.from_numpy(both), n, weight).to(self.points.device)

    @classmethod
    def from_pyg(cls, data: Any) -> PointCloud:
        """From a PyG `Data` with `pos`."""
        if getattr(data, "pos", None) is None:
            raise DomainError("this Data has no pos: a point cloud needs coordinates")
        return cls(data.pos)

    def to_pyg(self) -> Any:
        """A PyG `Data` with pos."""
        from torch_geometric.data import Data

        return Data(pos=self.points)


def load_mesh(path: str | os.PathLike[str], *, clean: bool = False, dtype: torch.dtype = torch.float64) -> TriangleMesh:
    """Read a .ply, .obj, .off or .stl surface.

    Args:
        clean: weld coincident vertices; drop degenerate and duplicate faces and unreferenced vertices.

    Raises:
        MeshFileError: unreadable, truncated or malformed file. DomainError: a readable file of a defective mesh.
    """
    vertices, faces = read_mesh(path)
    try:
        if clean:
            return TriangleMesh.from_arrays(clean_mesh(vertices, faces), dtype)
        return TriangleMesh(torch.from_numpy(vertices).to(dtype), torch.from_numpy(faces))
    except DomainError as error:
        raise DomainError(f"{os.fspath(path)}: {error}") from None
