"""Finer and coarser meshes of the same surface, with the sparse maps that carry fields between them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from operators.checks import DomainError, DomainWarning, check_no_gradient, is_integer
from operators.domains import TriangleMesh
from operators.mesh_repair import CleanMesh, clean_mesh
from operators.sparse import SparseOperator
from operators.topology import Connectivity, split_faces

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_FACES = 50_000_000


@dataclass(frozen=True, eq=False)
class Refinement:
    """A finer mesh, and `prolongation` P (fine n, coarse n): fields u ↦ P u, and positions too. Rows sum to one."""

    mesh: TriangleMesh
    prolongation: SparseOperator


@dataclass(frozen=True, eq=False)
class Coarsening:
    """A coarser mesh, and selections by the nearest vertex in space.

    `restriction` (coarse n, fine n) samples a fine field, `prolongation` (fine n, coarse n) is piecewise constant.
    """

    mesh: TriangleMesh
    restriction: SparseOperator
    prolongation: SparseOperator


def subdivide(mesh: TriangleMesh, times: int = 1, *, smooth: bool = False) -> Refinement:
    """Split every triangle into four, `times` over; the coarse vertices stay the first ones.

    Args:
        smooth: place and interpolate by Loop's rules, which give a smooth limit surface; otherwise by edge midpoints,
            which keep the surface. Boundary and non-manifold edges follow the cubic spline of their own vertices.

    The positions are differentiable in the coarse ones. Loop (1987), with the vertex weights of Warren (1995).
    """
    if not is_integer(times) or times < 0:
        raise DomainError(f"times must be an integer from 0, not {times!r}")
    faces, n = mesh.arrays[1], mesh.num_nodes
    # In this order, so that times = 1000 is not a number of a thousand digits.
    if times > 15 or len(faces) * 4**times > MOST_FACES:
        raise DomainError(f"{len(faces)} faces subdivided {times} times are more than {MOST_FACES}: subdivide fewer times")
    total: Any = sp.eye_array(n, format="csr")
    for _ in range(times):
        connectivity = Connectivity(faces, total.shape[0])
        step = loop_weights(connectivity) if smooth else midpoint_weights(connectivity)
        total = step @ total
        faces = split_faces(connectivity)
    prolongation = SparseOperator.from_scipy(total).to(mesh.vertices.device)
    vertices = (prolongation @ mesh.vertices.double()).to(mesh.vertices.dtype)
    return Refinement(_rebuilt(vertices, torch.from_numpy(faces)), prolongation.to(mesh.vertices.dtype))


def midpoint_weights(connectivity: Connectivity) -> Any:
    """The matrix (n + E, n) that keeps the vertices and puts a new one in the middle of every edge."""
    edges, n = connectivity.edges, connectivity.vertices
    rows = np.concatenate([np.arange(n), np.repeat(n + np.arange(len(edges)), 2)])
    columns = np.concatenate([np.arange(n), edges.reshape(-1)])
    values = np.concatenate([np.ones(n), np.full(2 * len(edges), 0.5)])
    return sp.csr_array((values, (rows, columns)), shape=(n + len(edges), n))


def loop_weights(connectivity: Connectivity) -> Any:
    """The matrix (n + E, n) of one step of Loop's scheme.

    An inner edge takes ⅜ of its ends and ⅛ of the corners opposite; a vertex with k neighbours gives each of them
    3/8k (3/16 if k = 3). An edge of one face or more than two is a crease: its middle is new, and a vertex on two of
    them takes ⅛ of their other ends; a vertex on one crease, or on more than two, stays.
    """
    edges, n = connectivity.edges, connectivity.vertices
    inner = connectivity.sides_of_edge == 2
    crease = edges[~inner]
    creases = np.bincount(crease.reshape(-1), minlength=n)
    neighbours = np.bincount(edges.reshape(-1), minlength=n)
    each = np.where(neighbours == 3, 3 / 16, 3 / (8 * np.maximum(neighbours, 1)))
    # New vertices.
    ends = n + np.arange(len(edges))
    entries = [(np.repeat(ends, 2), edges.reshape(-1), np.repeat(np.where(inner, 3 / 8, 1 / 2), 2))]
    opposite = connectivity.faces[:, [2, 0, 1]].reshape(-1)
    across = inner[connectivity.edge_of_side]
    entries.append((n + connectivity.edge_of_side[across], opposite[across], np.full(int(across.sum()), 1 / 8)))
    # Old vertices: what they give away to each neighbour, and what they keep.
    along = np.concatenate([edges, edges[:, ::-1]])
    smooth = creases[along[:, 0]] == 0
    entries.append((along[smooth, 0], along[smooth, 1], each[along[smooth, 0]]))
    along = np.concatenate([crease, crease[:, ::-1]])
    spline = creases[along[:, 0]] == 2
    entries.append((along[spline, 0], along[spline, 1], np.full(int(spline.sum()), 1 / 8)))
    kept = np.where(creases == 0, 1 - neighbours * each, np.where(creases == 2, 3 / 4, 1.0))
    entries.append((np.arange(n), np.arange(n), kept))
    rows, columns, values = (np.concatenate(part) for part in zip(*entries, strict=True))
    return sp.csr_array((values, (rows, columns)), shape=(n + len(edges), n))


def decimate(mesh: TriangleMesh, faces: int, by: Callable[[Floats, Ints, int], tuple[Any, Any]] | None = None) -> Coarsening:
    """A mesh of about `faces` triangles, made by any function of arrays, validated and cleaned here.

    Args:
        by: (vertices (n, 3), faces (m, 3), target) ↦ (vertices, faces), such as a quadric simplification of another
            library; `cluster_vertices` if absent. Welding, dropping and orienting are done for it.

    Raises:
        DomainError: a target out of range, or a result that has no repair.
    """
    points, triangles = mesh.arrays
    if not is_integer(faces) or not 1 <= faces <= len(triangles):
        raise DomainError(f"faces must be an integer from 1 to the {len(triangles)} there are, not {faces!r}")
    check_no_gradient(mesh.vertices, "decimate")
    made = (by or cluster_vertices)(points.copy(), triangles.copy(), faces)
    if not isinstance(made, (tuple, list)) or len(made) != 2:
        raise DomainError(f"by must return (vertices, faces), not {type(made).__name__}")
    try:
        cleaned: CleanMesh = clean_mesh(*made)
    except DomainError as error:
        raise DomainError(f"what `by` returned is no mesh: {error}") from None
    if cleaned.vertices.shape[1] != 3:
        raise DomainError(f"by must return vertices (n, 3), not {cleaned.vertices.shape}")
    nearest_fine = cKDTree(points).query(cleaned.vertices)[1]
    nearest_coarse = cKDTree(cleaned.vertices).query(points)[1]
    vertices = torch.from_numpy(cleaned.vertices[:, : mesh.vertices.shape[1]].copy()).to(mesh.vertices.dtype)
    coarse = _rebuilt(vertices.to(mesh.vertices.device), torch.from_numpy(cleaned.faces))
    return Coarsening(coarse, _selection(nearest_fine, len(points), coarse), _selection(nearest_coarse, coarse.num_nodes, coarse))


def cluster_vertices(points: Floats, faces: Ints, target: int) -> tuple[Floats, Ints]:
    """Merge the vertices of each cell of the finest cubic lattice that leaves at most `target` faces.

    Fast and blunt: it may join sheets that are close in space (Rossignac and Borrel 1993).
    """
    low, size = points.min(axis=0), float(np.ptp(points, axis=0).max())
    best: tuple[Floats, Ints] | None = None
    coarse, fine = 1, max(4, 2 * int(np.sqrt(len(points))) * 4)
    while coarse <= fine:
        cells = (coarse + fine) // 2
        place = np.minimum((points - low) / size * cells, cells - 1).astype(np.int64)
        key = (place[:, 0] * cells + place[:, 1]) * cells + place[:, 2]
        _, cluster, count = np.unique(key, return_inverse=True, return_counts=True)
        cluster = cluster.reshape(-1)
        middle = np.stack([np.bincount(cluster, weights=points[:, k]) / count for k in range(3)], axis=1)
        try:
            found = clean_mesh(middle, cluster[faces], orient=False)
        except DomainError:  # nothing but needles is left
            coarse = cells + 1
            continue
        if len(found.faces) <= target:
            best, coarse = (found.vertices, found.faces), cells + 1
        else:
            fine = cells - 1
    if best is None:
        raise DomainError(f"no lattice leaves from 1 to {target} faces: ask for more, or decimate by another function")
    return best


def _selection(index: Any, columns: int, mesh: TriangleMesh) -> SparseOperator:
    chosen = torch.from_numpy(np.asarray(index, dtype=np.int64))
    ones = torch.ones(len(chosen), dtype=mesh.vertices.dtype)
    return SparseOperator.from_entries(torch.arange(len(chosen)), chosen, ones, (len(chosen), columns)).to(mesh.vertices.device)


def _rebuilt(vertices: Any, faces: Any) -> TriangleMesh:
    with warnings.catch_warnings():
        # Seams and lost digits are those of the mesh that this one was made from.
        warnings.simplefilter("ignore", DomainWarning)
        return TriangleMesh(vertices, faces)
