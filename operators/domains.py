"""Where fields live: graphs, triangle meshes and point clouds, frozen and validated."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from operators import exchange, neighbours
from operators.checks import DomainError, DomainWarning, as_index, as_points, check_finite, is_integer
from operators.mesh_files import read_mesh, write_mesh
from operators.mesh_repair import (
    CleanMesh,
    as_tensor,
    check_capacity,
    clean_mesh,
    coincident_vertices,
    first_defect,
    lost_digits,
)
from operators.report import GraphReport, MeshReport, PointReport, report_graph, report_mesh, report_points
from operators.topology import Connectivity

# What an operator wants that asks a domain of another kind for this attribute.
_WANTED = {
    "edge_index": "a Graph, such as mesh.graph() or cloud.knn_graph(6)",
    "points": "a PointCloud, such as PointCloud(mesh.vertices)",
    "spacing": "a Grid",
    **dict.fromkeys(
        ("vertices", "faces", "arrays", "connectivity"), "a TriangleMesh, such as load_mesh(path) or cloud.triangulated()"
    ),
    **dict.fromkeys(
        ("shape", "stiffness", "dtype"), "a Laplacian, such as robust_laplacian(mesh) or combinatorial_laplacian(graph)"
    ),
}


class Domain:
    """What graphs, meshes and point clouds share: they are frozen, and move between devices and precisions."""

    @property
    def num_nodes(self) -> int:
        """The number of nodes n of a field (..., n, c) on this domain."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """The device that the domain lives on."""
        return next(value.device for value in vars(self).values() if isinstance(value, Tensor))

    if not TYPE_CHECKING:  # which would then take any name for an attribute

        def __getattr__(self, name: str) -> Any:
            """Only called where there is no such attribute, as when an operator was given the wrong kind of domain."""
            wanted = f": what is wanted here is {_WANTED[name]}" if name in _WANTED else ""
            raise AttributeError(f"a {type(self).__name__} has no attribute {name!r}{wanted}", name=name, obj=self)

    def __repr__(self) -> str:
        """What it holds, by shape."""
        shown = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.repr}  # type: ignore[arg-type]
        told = [f"{name}={_shape(value) if isinstance(value, Tensor) else value}" for name, value in shown.items()]
        return f"{type(self).__name__}({', '.join(told)}, {self.device})"

    def to(
        self,
        *targets: torch.device | str | torch.dtype,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """A copy on another device, with floating-point tensors in another precision, or both."""
        copy = self
        for target in (*targets, device, dtype):
            if target is None:
                continue
            rounds = isinstance(target, torch.dtype)
            tensors = {field.name: getattr(copy, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
            moving = {name: x for name, x in tensors.items() if isinstance(x, Tensor) and (x.is_floating_point() or not rounds)}
            copy = copy._with(**{name: x.to(target) for name, x in moving.items()})
            if rounds:
                copy._check_rounding()
        return copy

    def _with(self, **changed: Any) -> Self:
        """A copy with other content that is known to be valid: nothing is checked again, no warning repeated."""
        copy = object.__new__(type(self))
        copy.__dict__.update({field.name: getattr(self, field.name) for field in dataclasses.fields(self)}, **changed)  # type: ignore[arg-type]
        return copy

    def _check_rounding(self) -> None:
        """Raise or warn if rounding to another precision has spoilt the content."""


@dataclass(frozen=True, eq=False, repr=False)
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
        if not is_integer(self.nodes) or self.nodes < 1:
            raise DomainError(f"nodes must be a positive integer, not {self.nodes!r}: a graph needs at least one node")
        index = as_tensor(self.edge_index, "edge_index")
        check_capacity(index, "edge_index", int(self.nodes))
        index = as_index(index, "edge_index", 2, None, int(self.nodes))
        weight = self.edge_weight
        if weight is None:
            weight = torch.ones(index.shape[1], dtype=torch.get_default_dtype(), device=index.device)
        weight = as_tensor(weight, "edge_weight").to(index.device)
        if weight.shape != (index.shape[1],):
            raise DomainError(f"edge_weight must have shape ({index.shape[1]},), one for each edge, not {tuple(weight.shape)}")
        object.__setattr__(self, "nodes", int(self.nodes))
        object.__setattr__(self, "edge_index", index)
        object.__setattr__(self, "edge_weight", weight)
        self._check_rounding()

    def _check_rounding(self) -> None:
        if self.edge_weight.dtype not in (torch.float32, torch.float64):
            raise DomainError(f"edge_weight must be float32 or float64, not {self.edge_weight.dtype}: convert with .to(...)")
        check_finite(self.edge_weight, "edge_weight")

    @property
    def num_nodes(self) -> int:
        return self.nodes

    def undirected(self) -> Graph:
        """The undirected graph with weights (w_ij + w_ji) / 2: the documented cure for a directed graph."""
        index = torch.cat([self.edge_index, self.edge_index.flip(0)], dim=1)
        return Graph(index, self.nodes, torch.cat([self.edge_weight, self.edge_weight]) / 2)

    def report(self) -> GraphReport:
        """Components, degrees, isolated nodes, weights: print it before trusting a graph."""
        return report_graph(self.edge_index, self.nodes, self.edge_weight)

    @classmethod
    def from_pyg(cls, data: Any) -> Graph:
        """From a PyG `Data` with `edge_index`, and `edge_weight` (or a one-column `edge_attr`) if present."""
        index, nodes, weight = exchange.edges_of_pyg(data)
        return cls(index, nodes, weight)  # type: ignore[arg-type]

    def to_pyg(self) -> Any:
        """A PyG `Data` with edge_index, edge_weight and num_nodes."""
        return exchange.to_pyg(edge_index=self.edge_index, edge_weight=self.edge_weight, num_nodes=self.nodes)


@dataclass(frozen=True, eq=False, repr=False)
class TriangleMesh(Domain):
    """A triangulated surface, with or without boundary, in two or three dimensions; need not be manifold.

    Args:
        vertices: (n, 2) or (n, 3), float32 or float64.
        faces: integers (m, 3), entries in [0, n).

    Raises:
        DomainError: non-finite or wildly scaled coordinates, bad indices, repeated-index, zero-area or duplicate
            faces, unreferenced vertices. `clean_mesh(vertices, faces)` repairs the last four.

    Warns:
        DomainWarning: coincident vertices, across which no field flows; `mesh.clean()` welds them. Vertices so far
            from the origin that their precision leaves no digits for the shape.

    `cleaning` says what `clean()` did and carries fields to and from the original vertices; None if nothing was cleaned.
    """

    vertices: Tensor
    faces: Tensor
    cleaning: CleanMesh | None = dataclasses.field(default=None, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        vertices = as_points(as_tensor(self.vertices, "vertices"), "vertices", (2, 3))
        index = as_tensor(self.faces, "faces")
        check_capacity(index, "faces", vertices.shape[0])
        faces = as_index(index, "faces", None, 3, vertices.shape[0]).to(vertices.device)
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
        self._warn_of_lost_digits()

    def _check_rounding(self) -> None:
        as_points(self.vertices, "vertices")
        self._warn_of_lost_digits()

    def _warn_of_lost_digits(self) -> None:
        lost = lost_digits(*self.arrays, self.vertices.dtype)
        if lost is not None:
            cure = "subtract the centroid from the original float64 coordinates, then round"
            warnings.warn(f"{lost}; {cure}", DomainWarning, stacklevel=4)

    @cached_property
    def arrays(self) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.int64]]]:
        """Vertices (n, 3) in float64 and faces (m, 3), as NumPy arrays; planar meshes get z = 0."""
        # Copies: what shares memory with a tensor is garbage once torch sends the tensor to another process.
        points = self.vertices.detach().to("cpu", torch.float64).numpy().copy()
        if points.shape[1] == 2:
            points = np.column_stack([points, np.zeros(len(points))])
        return points, self.faces.cpu().numpy().copy()

    @property
    def num_nodes(self) -> int:
        return self.vertices.shape[0]

    @cached_property
    def edges(self) -> Tensor:
        """Each edge once, (2, E) with row 0 < row 1, sorted."""
        return torch.from_numpy(self.connectivity.edges.T.copy()).to(self.faces.device)

    @cached_property
    def connectivity(self) -> Connectivity:
        """Edges, fans, components and boundary, as NumPy arrays."""
        return Connectivity(self.arrays[1], self.num_nodes)

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

    def report(self) -> MeshReport:
        """Components, boundary, manifoldness, orientation, angles, Delaunay quality: print it before trusting a mesh."""
        return report_mesh(self.vertices, self.faces)

    def clean(self, *, tolerance: float = 0.0, orient: bool = True) -> TriangleMesh:
        """The mesh welded and consistently oriented, with the map back in its `cleaning`; see `clean_mesh`.

        Differentiable in the vertices.
        """
        points = self.vertices.detach().to("cpu", torch.float64).numpy()
        repaired = clean_mesh(points, self.arrays[1], tolerance=tolerance, orient=orient)
        return TriangleMesh(repaired.to_clean(self.vertices, mean=False), torch.from_numpy(repaired.faces), cleaning=repaired)

    @classmethod
    def from_clean(cls, mesh: CleanMesh, dtype: torch.dtype = torch.float64) -> TriangleMesh:
        """From the result of `clean_mesh`, which becomes its `cleaning`."""
        return cls(torch.from_numpy(mesh.vertices).to(dtype), torch.from_numpy(mesh.faces), cleaning=mesh)

    @classmethod
    def from_pyg(cls, data: Any) -> TriangleMesh:
        """From a PyG `Data` with `pos` (n, 3) and `face` (3, m)."""
        return cls(*exchange.triangles_of_pyg(data))

    def to_pyg(self) -> Any:
        """A PyG `Data` with pos, face and the edges in both directions."""
        return exchange.to_pyg(pos=self.vertices, face=self.faces.T.contiguous(), edge_index=self.graph().edge_index)

    @classmethod
    def from_pyvista(cls, surface: Any, *, clean: bool = False) -> TriangleMesh:
        """From a PyVista `PolyData`, in the precision of its points; polygons become fans of triangles."""
        return cls._from_foreign(*exchange.from_pyvista(surface), clean)

    def to_pyvista(self, **fields: Any) -> Any:
        """A PyVista `PolyData`; every field (n,) or (n, c), a tensor or an array, becomes its point data."""
        return exchange.to_pyvista(*self.arrays, self.vertices.dtype, fields)

    @classmethod
    def from_trimesh(cls, surface: Any, *, clean: bool = False) -> TriangleMesh:
        """From a `trimesh.Trimesh`."""
        return cls._from_foreign(*exchange.from_trimesh(surface), clean)

    def to_trimesh(self) -> Any:
        """A `trimesh.Trimesh` with the same vertices and faces in the same order."""
        return exchange.to_trimesh(*self.arrays)

    @classmethod
    def _from_foreign(cls, vertices: Tensor, faces: Tensor, clean: bool) -> TriangleMesh:
        return cls.from_clean(clean_mesh(vertices, faces), vertices.dtype) if clean else cls(vertices, faces)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a .ply, .obj, .off, .stl or .vtk file, whole or not at all; see `write_mesh`."""
        write_mesh(path, *self.arrays)


@dataclass(frozen=True, eq=False, repr=False)
class PointCloud(Domain):
    """Scattered points, such as sensors.

    Args:
        points: (n, d), float32 or float64, finite.
    """

    points: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", as_points(as_tensor(self.points, "points"), "points"))

    def _check_rounding(self) -> None:
        as_points(self.points, "points")

    @property
    def num_nodes(self) -> int:
        return self.points.shape[0]

    @cached_property
    def array(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The points (n, d) in float64, as a NumPy array."""
        return self.points.detach().to("cpu", torch.float64).numpy()

    def report(self) -> PointReport:
        """Size, rank, coincident points and spacing: print it before trusting a cloud."""
        return report_points(self.points)

    def knn_graph(self, k: int, weight: Callable[[Tensor], Tensor] | None = None) -> Graph:
        """The undirected graph that joins every point to its k nearest others (among equally near ones, any).

        Args:
            weight: of the distances (E,), such as `Gaussian(width)` or `InverseDistance()`; ones if absent.
        """
        return self._joined(neighbours.nearest_neighbours(self.array, k), weight)

    def radius_graph(
        self, radius: float, weight: Callable[[Tensor], Tensor] | None = None, *, most_edges: int = neighbours.MOST_EDGES
    ) -> Graph:
        """The undirected graph that joins points at most `radius` apart; refused before it outgrows `most_edges`."""
        return self._joined(neighbours.within_radius(self.array, radius, most_edges), weight)

    def delaunay_graph(self, weight: Callable[[Tensor], Tensor] | None = None) -> Graph:
        """The undirected graph that joins points of a common Delaunay cell, in the flat that the points span."""
        return self._joined(neighbours.delaunay_neighbours(self.array), weight)

    def triangulated(self) -> TriangleMesh:
        """The Delaunay triangulation of points in a plane, with the points as its vertices in the same order."""
        return TriangleMesh(self.points, torch.from_numpy(neighbours.delaunay_triangles(self.array)))

    def _joined(self, pairs: np.ndarray[Any, np.dtype[np.int64]], weight: Callable[[Tensor], Tensor] | None) -> Graph:
        index = torch.from_numpy(pairs).to(self.points.device)
        if weight is None:
            return Graph(index, self.num_nodes, self.points.new_ones(index.shape[1]))
        # Rounded only at the end, so that points far from the origin keep their distances.
        points = self.points.double()
        distance = torch.linalg.vector_norm(points[index[0]] - points[index[1]], dim=1)
        return Graph(index, self.num_nodes, as_tensor(weight(distance), "the weight").to(self.points.dtype))

    @classmethod
    def from_pyg(cls, data: Any) -> PointCloud:
        """From a PyG `Data` with `pos`."""
        return cls(exchange.points_of_pyg(data))

    def to_pyg(self) -> Any:
        """A PyG `Data` with pos."""
        return exchange.to_pyg(pos=self.points)


def _shape(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def load_mesh(path: str | os.PathLike[str], *, clean: bool = False, dtype: torch.dtype = torch.float64) -> TriangleMesh:
    """Read a surface from any format of `read_mesh`.

    Args:
        clean: weld coincident vertices; drop degenerate and duplicate faces and unreferenced vertices; orient. What was
            done, and the way back for fields, is in the mesh's `cleaning`.

    Raises:
        MeshFileError: unreadable, truncated or malformed file. DomainError: a readable file of a defective mesh.
    """
    vertices, faces = read_mesh(path)
    try:
        if clean:
            return TriangleMesh.from_clean(clean_mesh(vertices, faces), dtype)
        return TriangleMesh(torch.from_numpy(vertices).to(dtype), torch.from_numpy(faces))
    except DomainError as error:
        raise DomainError(f"{os.fspath(path)}: {error}") from None
