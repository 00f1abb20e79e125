"""Domains to and from PyG, PyVista and trimesh, none of which is imported before it is needed."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.checks import DomainError
from operators.mesh_repair import as_tensor

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def edges_of_pyg(data: Any) -> tuple[Tensor, int, Tensor | None]:
    """The edge_index (2, E) of a PyG `Data`, its number of nodes, and its edge_weight or one-column edge_attr, if any."""
    if getattr(data, "edge_index", None) is None:
        raise DomainError("this Data has no edge_index: build a PointCloud and connect it with .knn_graph(k)")
    weight = getattr(data, "edge_weight", None)
    attributes = getattr(data, "edge_attr", None)
    if weight is None and attributes is not None and attributes.numel() == data.edge_index.shape[1]:
        weight = attributes.reshape(-1)
    with warnings.catch_warnings():
        # PyG only warns where it guesses the number of nodes from the edges, and then isolated nodes at the end are lost.
        warnings.simplefilter("error", UserWarning)
        try:
            nodes = int(data.num_nodes)
        except UserWarning as warning:
            raise DomainError("this Data does not say how many nodes it has: set data.num_nodes") from warning
    return data.edge_index, nodes, weight


def triangles_of_pyg(data: Any) -> tuple[Tensor, Tensor]:
    """The vertices (n, 3) and faces (m, 3) of a PyG `Data` with pos and face."""
    if getattr(data, "pos", None) is None or getattr(data, "face", None) is None:
        raise DomainError("this Data needs `pos` (n, 3) and `face` (3, m) to be a mesh")
    return data.pos, data.face.T


def points_of_pyg(data: Any) -> Tensor:
    """The points (n, d) of a PyG `Data` with pos."""
    if getattr(data, "pos", None) is None:
        raise DomainError("this Data has no pos: a point cloud needs coordinates")
    points: Tensor = data.pos
    return points


def to_pyg(**content: Any) -> Any:
    """A PyG `Data` of the content."""
    from torch_geometric.data import Data

    return Data(**content)


def from_pyvista(surface: Any) -> tuple[Tensor, Tensor]:
    """The points (n, 3) of a `PolyData`, and its polygons as fans of triangles (m, 3), exact where they are convex.

    Lines and single vertices of the PolyData are left out.
    """
    if not hasattr(surface, "faces") or not hasattr(surface, "points"):
        raise DomainError(f"a {type(surface).__name__} is no PolyData: take its surface with .extract_surface()")
    if getattr(surface, "n_strips", 0):
        raise DomainError("this PolyData has triangle strips: take them apart with .triangulate()")
    return torch.from_numpy(np.array(surface.points)), torch.from_numpy(fans(np.array(surface.faces, dtype=np.int64)))


def to_pyvista(vertices: Floats, faces: Ints, dtype: torch.dtype, fields: Mapping[str, Any]) -> Any:
    """A `PolyData` of the triangles, with fields (n,) or (n, c) as its point data."""
    pyvista = _imported("pyvista")
    # Copies throughout: VTK keeps the arrays that it is given.
    points = torch.from_numpy(vertices.copy()).to(dtype).numpy()
    surface = pyvista.PolyData.from_regular_faces(points, faces.copy())
    for name, field in fields.items():
        values = as_tensor(field, name)
        if values.ndim not in (1, 2) or values.shape[0] != len(vertices):
            raise DomainError(f"{name} must have shape ({len(vertices)},) or ({len(vertices)}, c), not {tuple(values.shape)}")
        surface.point_data[name] = values.detach().cpu().numpy().copy()
    return surface


def from_trimesh(surface: Any) -> tuple[Tensor, Tensor]:
    """The vertices (n, 3) and faces (m, 3) of a `trimesh.Trimesh`."""
    if not hasattr(surface, "faces") or not hasattr(surface, "vertices"):
        raise DomainError(f"a {type(surface).__name__} is no Trimesh: join a scene with .to_geometry()")
    return torch.from_numpy(np.array(surface.vertices)), torch.from_numpy(np.array(surface.faces, dtype=np.int64))


def to_trimesh(vertices: Floats, faces: Ints) -> Any:
    """A `trimesh.Trimesh` of the same vertices and faces: nothing merged, nothing reordered."""
    return _imported("trimesh").Trimesh(vertices.copy(), faces.copy(), process=False)


def fans(padded: Ints) -> Ints:
    """Triangles (m, 3) of polygons stored one after the other as count, corner, corner, …, as VTK does.

    Raises:
        DomainError: polygons of fewer than three corners, or an array that ends within one.
    """
    counts, starts, at = [], [], 0
    while at < len(padded):
        counts.append(int(padded[at]))
        starts.append(at + 1)
        if counts[-1] < 3:
            raise DomainError(f"polygon {len(counts) - 1} has {counts[-1]} corners: a face needs three; drop it first")
        at += 1 + counts[-1]
    if at > len(padded):
        raise DomainError(f"the array of polygons ends within polygon {len(counts) - 1}: export the surface again")
    triangles = np.array(counts, dtype=np.int64) - 2
    start = np.repeat(np.array(starts, dtype=np.int64), triangles)
    place = np.arange(len(start)) - np.repeat(np.cumsum(triangles) - triangles, triangles)
    return np.stack([padded[start], padded[start + place + 1], padded[start + place + 2]], axis=1)


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is not installed: pip install 'neuralpde-toolkit[mesh]'") from error
