"""Distances, directions and shortest paths along a surface: the heat methods and edge flips of potpourri3d, made safe.

The native code reads out of bounds on a bad index, gives constants or NaN across components, and fails on a small shape
far from the origin; so indices are checked, and each component is centred, scaled to one and solved by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import potpourri3d
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from operators.checks import DomainError, check_no_gradient
from operators.domains import TriangleMesh

Array = NDArray[Any]


class HeatMethod:
    """Geodesic distance by the heat method (Crane, Weischedel and Wardetzky 2013), factored once for many sources.

    Heat flows from the sources for a time t = smoothing · (mean edge length)², its gradient is normalised, and the
    distance is the function with that gradient. On the intrinsic Delaunay tufted cover, so any mesh will do; the error
    falls with the edge length, to about 1 % of the diameter at a few thousand vertices.

    Args:
        mesh: n vertices; may be non-manifold and in several components.
        smoothing: from 0.1 to 1000; more gives smoother and less exact distances.

    Raises:
        DomainError: a smoothing out of range, vertices that require a gradient, which the native code has not, or a mesh
            whose geometry it refuses.
    """

    def __init__(self, mesh: TriangleMesh, smoothing: float = 1.0) -> None:
        check_no_gradient(mesh.vertices, "the heat method")
        self.mesh = mesh
        self.smoothing = _smoothing(smoothing)
        self._pieces = _Pieces(mesh)
        self._solvers: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_solvers": {}}

    def distance(self, sources: int | Sequence[int] | Tensor) -> Tensor:
        """The distance of every vertex from the nearest source, (n,); infinite on components without a source.

        Args:
            sources: a vertex index, or several.
        """
        # Named twice, a source would send out twice the heat of the others, and seem nearer than they are.
        index = np.unique(_sources(sources, self.mesh.num_nodes))
        distance = np.full(self.mesh.num_nodes, np.inf)
        for piece in np.unique(self._pieces.label[index]):
            points, faces, nodes, size = self._pieces[piece]
            if piece not in self._solvers:
                self._solvers[piece] = _native(potpourri3d.MeshHeatMethodDistanceSolver, points, faces, self.smoothing)
            local = np.searchsorted(nodes, index[self._pieces.label[index] == piece])
            found = _native(self._solvers[piece].compute_distance_multisource, local.tolist())
            # The method leaves a constant free, and round-off below zero.
            found = np.maximum(found - found[local].min(), 0.0)
            found[local] = 0.0
            distance[nodes] = found * size
        return _on_mesh(distance, self.mesh)


class VectorHeatMethod:
    """Logarithmic maps, parallel transport and extension by the vector heat method (Sharp, Soliman and Crane 2019).

    Tangent vectors are pairs of components in `frames`.

    Args:
        mesh: manifold and consistently oriented, with or without boundary; may be in several components.
        smoothing: from 0.1 to 1000.

    Raises:
        DomainError: an edge of more than two faces, faces that disagree in orientation, a vertex where two fans meet, or
            vertices that require a gradient.
    """

    def __init__(self, mesh: TriangleMesh, smoothing: float = 1.0) -> None:
        check_no_gradient(mesh.vertices, "the vector heat method")
        _check_manifold(mesh)
        self.mesh = mesh
        self.smoothing = _smoothing(smoothing)
        self._pieces = _Pieces(mesh)
        self._solvers: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_solvers": {}}

    @property
    def frames(self) -> Tensor:
        """The orthonormal tangent vectors e₁, e₂ and the normal at every vertex, (n, 3, 3) by rows."""
        frames = np.empty((self.mesh.num_nodes, 3, 3))
        for piece in range(self._pieces.count):
            frames[self._pieces[piece][2]] = np.stack(_native(self._solver(piece).get_tangent_frames), axis=1)
        return _on_mesh(frames, self.mesh)

    def log_map(self, source: int) -> Tensor:
        """Direction and distance from the source to every vertex, (n, 2); infinite on other components.

        The components are those of the tangent vector at the source, in its frame, along which a geodesic reaches the
        vertex. Angles around the source are scaled to a sum of 2π (of π on the boundary). Beyond the cut locus, such as
        the antipode of a sphere, neighbouring directions are averaged and mean nothing.
        """
        index = _vertex(source, self.mesh.num_nodes)
        result = np.full((self.mesh.num_nodes, 2), np.inf)
        piece = int(self._pieces.label[index])
        _, _, nodes, size = self._pieces[piece]
        local = int(np.searchsorted(nodes, index))
        logarithm = _native(self._solver(piece).compute_log_map, local)
        logarithm[local] = 0.0
        result[nodes] = logarithm * size
        return _on_mesh(result, self.mesh)

    def transport(self, source: int, vector: Sequence[float] | Tensor) -> Tensor:
        """The tangent vector at the source carried in parallel along geodesics to every vertex, (n, 2); zero elsewhere."""
        index = _vertex(source, self.mesh.num_nodes)
        components = np.asarray(torch.as_tensor(vector, dtype=torch.float64))
        if components.shape != (2,) or not np.isfinite(components).all():
            raise DomainError(f"a tangent vector has two finite components in the frame at its vertex, not {vector!r}")
        result = np.zeros((self.mesh.num_nodes, 2))
        piece = int(self._pieces.label[index])
        nodes = self._pieces[piece][2]
        # Squares would leave the range where the vector does not.
        length = math.hypot(*components)
        if length > 0:
            local = int(np.searchsorted(nodes, index))
            carried = _native(self._solver(piece).transport_tangent_vector, local, (components / length).tolist())
            result[nodes] = carried * length
        return _on_mesh(result, self.mesh)

    def _solver(self, piece: int) -> Any:
        if piece not in self._solvers:
            points, faces, _, _ = self._pieces[piece]
            self._solvers[piece] = _native(potpourri3d.MeshVectorHeatSolver, points, faces, self.smoothing)
        return self._solvers[piece]


def geodesic_distance(mesh: TriangleMesh, sources: int | Sequence[int] | Tensor) -> Tensor:
    """The distance along the surface from the nearest source, (n,); see `HeatMethod`, which keeps its factor."""
    return HeatMethod(mesh).distance(sources)


def log_map(mesh: TriangleMesh, source: int) -> Tensor:
    """The logarithmic map at the source, (n, 2); see `VectorHeatMethod`, which keeps its factor."""
    return VectorHeatMethod(mesh).log_map(source)


def geodesic_path(mesh: TriangleMesh, start: int, end: int) -> Tensor:
    """A locally shortest path as a polyline (p, 3) over the surface, by edge flips (Sharp and Crane 2020).

    Straight: no small change shortens it, though on the other side of the surface a shorter one may exist.

    Args:
        mesh: manifold and consistently oriented.

    Raises:
        DomainError: a bad index, two components, a mesh that is not manifold, or vertices that require a gradient.
    """
    check_no_gradient(mesh.vertices, "a geodesic path")
    a, b = _vertex(start, mesh.num_nodes), _vertex(end, mesh.num_nodes)
    _check_manifold(mesh)
    pieces = _Pieces(mesh)
    if pieces.label[a] != pieces.label[b]:
        raise DomainError(f"vertices {a} and {b} lie on different components of the surface: no path joins them")
    whole, _ = mesh.arrays
    if a == b:
        return _on_mesh(whole[[a]], mesh)
    points, faces, nodes, size = pieces[int(pieces.label[a])]
    solver = _native(potpourri3d.EdgeFlipGeodesicSolver, points, faces)
    path = _native(solver.find_geodesic_path, *(int(np.searchsorted(nodes, end)) for end in (a, b)))
    return _on_mesh(path * size + pieces.centre(int(pieces.label[a])), mesh)


class _Pieces:
    """The connected components of a mesh, each about its own centre, with a size of one."""

    def __init__(self, mesh: TriangleMesh) -> None:
        self.points, self.faces = mesh.arrays
        n = len(self.points)
        rows, columns = self.faces[:, [0, 1]].reshape(-1), self.faces[:, [1, 2]].reshape(-1)
        graph = coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(n, n))
        self.count, self.label = connected_components(graph, directed=False)

    def centre(self, piece: int) -> Array:
        return np.asarray(self.points[self.label == piece].mean(axis=0))

    def __getitem__(self, piece: int) -> tuple[Array, Array, Array, float]:
        """Points, faces, the indices of the points in the mesh, ascending, and the size that was divided out."""
        nodes = np.flatnonzero(self.label == piece)
        faces = np.searchsorted(nodes, self.faces[self.label[self.faces[:, 0]] == piece])
        points = self.points[nodes] - self.centre(piece)
        size = float(np.abs(points).max())
        return points / size, faces, nodes, size


def _native(function: Any, *arguments: Any) -> Any:
    """Call native code on checked arguments; what it still refuses, or answers with NaN, is the mesh's geometry."""
    try:
        result = function(*arguments)
    except (RuntimeError, ValueError) as error:
        raise DomainError(
            f"the geodesic solver refuses this mesh ({error}): clean it with clean_mesh(vertices, faces)"
        ) from error
    if isinstance(result, np.ndarray) and not np.isfinite(result).all():
        raise DomainError("the geodesic solver gives NaN on this mesh: its triangles are too thin; remesh or decimate it first")
    return result


def _sources(sources: Any, n: int) -> Array:
    """Vertex indices (s,) as int64: whole numbers in [0, n), at least one."""
    if isinstance(sources, Tensor):
        sources = sources.detach().cpu().numpy()
    index = np.atleast_1d(np.asarray(sources))
    whole = index.dtype.kind in "iu" and not any(
        isinstance(s, bool) for s in (sources if isinstance(sources, (list, tuple)) else [sources])
    )
    if index.ndim != 1 or index.size == 0 or not whole:
        raise DomainError(f"sources must be one or more vertex indices, whole numbers, not {sources!r}")
    if int(index.min()) < 0 or int(index.max()) >= n:
        wrong = int(index.min()) if int(index.min()) < 0 else int(index.max())
        raise DomainError(f"there is no vertex {wrong}: the {n} vertices are numbered 0 to {n - 1}")
    return index.astype(np.int64)


def _vertex(vertex: Any, n: int) -> int:
    index = _sources(vertex, n)
    if len(index) != 1:
        raise DomainError(f"exactly one vertex is needed here, not {len(index)}: call once for each")
    return int(index[0])


def _smoothing(value: float) -> float:
    if isinstance(value, bool) or not (math.isfinite(value) and 0.1 <= value <= 1000):
        raise DomainError(f"smoothing must lie between 0.1 and 1000, not {value}: heat must cross edges, but not the surface")
    return float(value)


def _check_manifold(mesh: TriangleMesh) -> None:
    """Raise unless every edge has one or two faces that agree in orientation, and every vertex one fan of faces."""
    _, faces = mesh.arrays
    n, m = mesh.num_nodes, len(faces)
    tail, head = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    _, counts = np.unique(np.minimum(tail, head) * n + np.maximum(tail, head), return_counts=True)
    if (counts > 2).any():
        raise DomainError(
            f"{int((counts > 2).sum())} edges have more than two faces, and directions need a manifold: split the mesh there"
        )
    _, directed = np.unique(tail * n + head, return_counts=True)
    if (directed > 1).any():
        raise DomainError(
            f"{int((directed > 1).sum())} edges have faces that disagree in orientation: reverse some faces so that all agree "
            "(impossible on a Möbius band)"
        )
    # Corners of one vertex are joined where their faces share an edge at it: one fan is one component.
    corner = np.arange(3 * m).reshape(m, 3)
    following = np.roll(corner, -1, axis=1).reshape(-1)
    order = np.argsort(np.minimum(tail, head) * n + np.maximum(tail, head), kind="stable")
    key = (np.minimum(tail, head) * n + np.maximum(tail, head))[order]
    first, second = order[:-1][key[1:] == key[:-1]], order[1:][key[1:] == key[:-1]]
    # A half-edge starts at its own corner and ends at the following one; its twin runs the other way.
    rows, columns = np.concatenate([first, following[first]]), np.concatenate([following[second], second])
    fans, _ = connected_components(
        coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(3 * m, 3 * m)), directed=False
    )
    if fans > n:
        raise DomainError(
            f"at {fans - n} places two fans of faces meet in one vertex, and directions need a manifold: split the vertex"
        )


def _on_mesh(values: Array, mesh: TriangleMesh) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(mesh.vertices.device, mesh.vertices.dtype)
