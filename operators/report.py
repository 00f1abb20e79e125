"""What a mesh, a graph or a point cloud is like, counted and measured, for a person to read before trusting it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.checks import DomainError
from operators.mesh_repair import (
    as_tensor,
    coincident_vertices,
    duplicate_faces,
    first_of_equal_rows,
    flat_faces,
    repeated_faces,
)
from operators.neighbours import affine_rank, nearest_distances
from operators.topology import Connectivity, components_of, count_chains

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Angles opposite an edge that add up to 180° + this many degrees are still Delaunay: files round to float32.
ANGLE_SLACK = 1e-4
THIN_DEGREES = 1.0


class _Report:
    """A table of the fields, one line each, and the problems below it."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, with the cure; empty for a domain without a fault."""
        raise NotImplementedError

    def __repr__(self) -> str:
        lines = [type(self).__name__]
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            lines.append(f"  {field.name.replace('_', ' '):<32} {_shown(field.name, getattr(self, field.name))}")
        problems = [f"  - {problem}" for problem in self.problems]
        return "\n".join([*lines, "problems:", *problems] if problems else [*lines, "no problems"])


@dataclass(frozen=True, repr=False)
class MeshReport(_Report):
    """Counts and measures of a triangle list, valid or not.

    Connectivity counts the faces whose indices are in range and distinct; areas and angles those that also have finite
    vertices. Angles leave out flat faces. Shares lie in [0, 1]: of the edges with two faces, those
    where the opposite angles exceed 180°, and of those with one face, where the opposite angle exceeds 90°; there the
    plain cotangent formula has negative weights. `volume` is None unless the surface is closed and consistently
    oriented; `None` also stands for an angle or a share of nothing.
    """

    vertices: int
    faces: int
    non_finite_vertices: int
    out_of_range_faces: int
    repeated_index_faces: int
    flat_faces: int
    thin_faces: int
    duplicate_faces: int
    unreferenced_vertices: int
    coincident_vertices: int
    components: int
    boundary_edges: int
    boundary_loops: int
    non_manifold_edges: int
    non_manifold_vertices: int
    orientable: bool
    consistently_oriented: bool
    euler_characteristic: int
    extent: float
    distance_from_origin: float
    area: float
    volume: float | None
    least_angle_degrees: float | None
    largest_angle_degrees: float | None
    non_delaunay_share: float | None
    obtuse_boundary_share: float | None

    @property
    def closed(self) -> bool:
        """Whether no edge has a single face."""
        return self.faces > 0 and self.boundary_edges == 0

    @property
    def manifold(self) -> bool:
        """Whether every edge has at most two faces and the faces at every vertex form one fan."""
        return self.non_manifold_edges == 0 and self.non_manifold_vertices == 0

    @property
    def problems(self) -> tuple[str, ...]:
        told = [
            (self.faces == 0, "there is no face: use PointCloud for bare points"),
            (self.non_finite_vertices, "vertices are NaN or infinite: remove or repair them at the source"),
            (self.out_of_range_faces, "faces name vertices that do not exist: files often count from 1"),
            (self.repeated_index_faces, "faces repeat a vertex: clean_mesh drops them"),
            (self.flat_faces, "faces have no area: clean_mesh drops them"),
            (self.duplicate_faces, "faces are named twice, so that area would be counted double: clean_mesh drops them"),
            (self.unreferenced_vertices, "vertices belong to no face: clean_mesh drops them"),
            (self.coincident_vertices, "vertices coincide with another, and no field flows across: clean_mesh welds them"),
            (self.non_manifold_edges, "edges have more than two faces: robust_laplacian takes them, other tools may not"),
            (self.non_manifold_vertices, "vertices join pieces that share no edge there: robust_laplacian takes them"),
            (not self.orientable, "the surface has no consistent orientation: normals and volume mean nothing"),
            (
                self.orientable and not self.consistently_oriented,
                "neighbouring faces disagree about the outside: clean_mesh turns them over",
            ),
            (self.thin_faces, f"faces have an angle below {THIN_DEGREES}°: expect stiff operators; remesh if you can"),
        ]
        return tuple(text if isinstance(count, bool) else f"{count} {text}" for count, text in told if count)


@dataclass(frozen=True, repr=False)
class GraphReport(_Report):
    """Counts of a graph; `edges` are the columns of edge_index, `components` join nodes whatever the direction.

    `degree` counts distinct neighbours that send to a node, self-loops left out.
    """

    nodes: int
    edges: int
    undirected: bool
    self_loops: int
    repeated_edges: int
    isolated_nodes: int
    components: int
    least_degree: int
    mean_degree: float
    largest_degree: int
    negative_weights: int
    zero_weights: int
    least_weight: float | None
    largest_weight: float | None

    @property
    def problems(self) -> tuple[str, ...]:
        told = [
            (not self.undirected, "the graph is directed, and has no symmetric Laplacian: use graph.undirected()"),
            (self.negative_weights, "weights are negative: no Laplacian with them is positive semi-definite"),
            (self.self_loops, "edges join a node with itself: Laplacians leave them out"),
            (self.repeated_edges, "edges repeat an earlier one: Laplacians add them up"),
            (self.isolated_nodes, "nodes have no neighbour: fields stay as they are there"),
        ]
        return tuple(text if isinstance(count, bool) else f"{count} {text}" for count, text in told if count)


@dataclass(frozen=True, repr=False)
class PointReport(_Report):
    """Measures of a point cloud; `rank` is the dimension of the flat that holds it (1: on a line, 2: in a plane)."""

    points: int
    dimensions: int
    rank: int
    coincident_points: int
    extent: float
    distance_from_origin: float
    least_spacing: float | None
    median_spacing: float | None
    largest_spacing: float | None

    @property
    def problems(self) -> tuple[str, ...]:
        told = [
            (self.coincident_points, "points coincide with an earlier one: estimates of area count them double"),
            (self.rank < self.dimensions, f"the points span {self.rank} of their {self.dimensions} dimensions only"),
            (
                self.median_spacing is not None and self.largest_spacing is not None
                # More than chance makes of a cloud of even density.
                and self.largest_spacing > 20 * self.median_spacing > 0,
                "some point is more than 20 times as far from its neighbour as is usual: look for outliers",
            ),
        ]  # fmt: skip
        return tuple(text if isinstance(count, bool) else f"{count} {text}" for count, text in told if count)


def report_mesh(vertices: Any, faces: Any) -> MeshReport:
    """Count and measure any triangle list, also one that no TriangleMesh can be built from.

    Args:
        vertices: (n, 2) or (n, 3) numbers, NaN and infinity included.
        faces: integers (m, 3), out of range included.

    Raises:
        DomainError: arrays of another shape or kind.
    """
    points, triangles = _raw_arrays(vertices, faces)
    n = len(points)
    finite: Bools = np.asarray(np.isfinite(points).all(axis=1))
    in_range = ((triangles >= 0) & (triangles < n)).all(axis=1)
    repeated = repeated_faces(triangles) & in_range
    proper = triangles[in_range & ~repeated]
    connectivity = Connectivity(proper, n)
    boundary = len(connectivity.boundary_sides)
    left, right = connectivity.inner
    _, orientable = connectivity.orientation()
    used = np.bincount(proper.reshape(-1), minlength=n) > 0
    whole: Bools = np.asarray(finite[proper].all(axis=1))
    # Measured around the middle and in units of the size: far away and at 1e±150, squares would lose or leave all digits.
    origin, unit = _frame(points[finite])
    placed = np.where(finite[:, None], points - origin, 0.0) / unit
    flat = flat_faces(placed, proper[whole])
    angles = np.full((len(proper), 3), np.nan)
    angles[np.flatnonzero(whole)[~flat]] = corner_angles(placed, proper[whole][~flat])
    opposite = angles[:, [2, 0, 1]].reshape(-1)
    consistent = not bool((connectivity.sides[left, 0] == connectivity.sides[right, 0]).any())
    closed = len(proper) > 0 and bool((connectivity.sides_of_edge % 2 == 0).all())
    a, b, c = (placed[proper[whole][:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    area, volume = np.linalg.norm(normals, axis=1).sum() / 2, (a * normals).sum() / 6
    return MeshReport(
        vertices=n,
        faces=len(triangles),
        non_finite_vertices=int((~finite).sum()),
        out_of_range_faces=int((~in_range).sum()),
        repeated_index_faces=int(repeated.sum()),
        flat_faces=int(flat.sum()),
        thin_faces=int((np.fmin.reduce(angles, axis=1) < THIN_DEGREES).sum()),
        duplicate_faces=int(duplicate_faces(proper).sum()),
        unreferenced_vertices=n - int(used.sum()),
        coincident_vertices=coincident_vertices(points[finite]),
        components=connectivity.components()[0],
        boundary_edges=boundary,
        boundary_loops=count_chains(connectivity),
        non_manifold_edges=int((connectivity.sides_of_edge > 2).sum()),
        non_manifold_vertices=len(connectivity.non_manifold_vertices()),
        orientable=bool(orientable.all()),
        consistently_oriented=consistent,
        euler_characteristic=int(used.sum()) - len(connectivity.edges) + len(proper),
        extent=unit if len(points[finite]) else 0.0,
        distance_from_origin=float(np.abs(origin).max(initial=0.0)),
        area=_in_units(area, unit, 2),
        volume=_in_units(volume, unit, 3) if closed and consistent else None,
        least_angle_degrees=_or_none(np.fmin.reduce, angles),
        largest_angle_degrees=_or_none(np.fmax.reduce, angles),
        non_delaunay_share=_share(opposite[left] + opposite[right], 180 + ANGLE_SLACK),
        obtuse_boundary_share=_share(opposite[connectivity.boundary_sides], 90 + ANGLE_SLACK),
    )


def corner_angles(vertices: Floats, faces: Ints) -> Floats:
    """The angle of every face at every corner, (m, 3), in degrees; accurate for needles and flat ones too."""
    angles = np.empty((len(faces), 3))
    for k in range(3):
        at = vertices[faces[:, k]]
        u, v = vertices[faces[:, (k + 1) % 3]] - at, vertices[faces[:, (k + 2) % 3]] - at
        angles[:, k] = np.arctan2(np.linalg.norm(np.cross(u, v), axis=1), (u * v).sum(axis=1))
    return np.degrees(angles)


def report_graph(edge_index: Tensor, nodes: int, edge_weight: Tensor) -> GraphReport:
    """Count the edges (2, E) of a graph and their weights (E,)."""
    source, target = edge_index.cpu().numpy()
    weight = edge_weight.detach().cpu().double().numpy()
    proper = source != target
    keys, index, inverse = np.unique(source * nodes + target, return_index=True, return_inverse=True)
    total = np.bincount(inverse.reshape(-1), weights=weight, minlength=len(keys))
    back = np.searchsorted(keys, target[index] * nodes + source[index]).clip(max=max(len(keys) - 1, 0))
    mirrored = keys[back] == target[index] * nodes + source[index] if len(keys) else np.zeros(0, dtype=bool)
    # Repeated edges may be summed in another order in the two directions.
    tolerance = 8 * torch.finfo(edge_weight.dtype).eps
    undirected = bool(mirrored.all()) and bool(np.allclose(total, total[back], rtol=tolerance, atol=0.0))
    degree = np.bincount(target[index][proper[index]], minlength=nodes)
    sending = np.bincount(source[proper], minlength=nodes)
    return GraphReport(
        nodes=nodes,
        edges=len(source),
        undirected=undirected,
        self_loops=int((~proper).sum()),
        repeated_edges=len(source) - len(keys),
        isolated_nodes=int(((degree == 0) & (sending == 0)).sum()),
        components=components_of(source, target, nodes)[0],
        least_degree=int(degree.min()),
        mean_degree=float(degree.mean()),
        largest_degree=int(degree.max()),
        negative_weights=int((weight < 0).sum()),
        zero_weights=int((weight == 0).sum()),
        least_weight=float(weight.min()) if len(weight) else None,
        largest_weight=float(weight.max()) if len(weight) else None,
    )


def report_points(points: Tensor) -> PointReport:
    """Measure points (n, d)."""
    values = points.detach().cpu().double().numpy()
    origin, extent = _frame(values)
    distinct = values[np.unique(first_of_equal_rows(values))]
    spacing = nearest_distances(distinct)
    return PointReport(
        points=len(values),
        dimensions=values.shape[1],
        rank=affine_rank(values),
        coincident_points=len(values) - len(distinct),
        extent=extent,
        distance_from_origin=float(np.abs(origin).max()),
        least_spacing=_or_none(np.min, spacing),
        median_spacing=_or_none(np.median, spacing),
        largest_spacing=_or_none(np.max, spacing),
    )


def _raw_arrays(vertices: Any, faces: Any) -> tuple[Floats, Ints]:
    points, triangles = as_tensor(vertices, "vertices").detach().cpu(), as_tensor(faces, "faces").cpu()
    if points.ndim != 2 or points.shape[1] not in (2, 3) or points.is_complex():
        raise DomainError(f"vertices must be real and of shape (n, 2 or 3), not {points.dtype} {tuple(points.shape)}")
    if triangles.dtype == torch.bool or triangles.is_floating_point() or triangles.is_complex():
        raise DomainError(f"faces must hold integers, not {triangles.dtype}: indices are never rounded for you")
    if triangles.ndim != 2 or triangles.shape[1] != 3:
        raise DomainError(f"faces must have shape (m, 3), not {tuple(triangles.shape)} (triangulate polygons first)")
    flat = points.double().numpy()
    return flat if flat.shape[1] == 3 else np.column_stack([flat, np.zeros(len(flat))]), triangles.long().numpy()


def _frame(points: Floats) -> tuple[Floats, float]:
    """The middle of the bounding box, and its longest side (1 for a single place)."""
    if len(points) == 0:
        return np.zeros(points.shape[1]), 1.0
    # Halved first: the difference of the two ends of the range of float64 is no number.
    low, high = points.min(axis=0) / 2, points.max(axis=0) / 2
    with np.errstate(over="ignore"):
        extent = 2 * float((high - low).max())
    return low + high, min(extent, float(np.finfo(np.float64).max)) or 1.0


def _in_units(measure: float, unit: float, power: int) -> float:
    with np.errstate(over="ignore"):
        return 0.0 if measure == 0 else float(measure * np.float64(unit) ** power)


def _or_none(measure: Any, values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(measure(known)) if known.size else None


def _share(angles: Floats, limit: float) -> float | None:
    known = angles[np.isfinite(angles)]
    return float((known > limit).mean()) if known.size else None


def _shown(name: str, value: object) -> str:
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and name.endswith("_share"):
        return f"{100 * value:.2f} %"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
