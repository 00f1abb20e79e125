"""Surfaces made from formulas: no download, any resolution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from operators.checks import DomainError, check_no_gradient, is_integer
from operators.domains import TriangleMesh
from operators.topology import Connectivity, split_faces

Array = NDArray[Any]

MOST_VERTICES = 50_000_000


def icosphere(refinements: int = 3, radius: float = 1.0, *, dtype: torch.dtype = torch.float64) -> TriangleMesh:
    """A sphere from a repeatedly subdivided icosahedron, with 10·4^refinements + 2 vertices, nearly equilateral."""
    if not 0 <= _whole(refinements, "refinements") <= 9:
        raise DomainError(f"refinements must lie in 0..9 (9 gives 2.6 million vertices), not {refinements}")
    golden = (1 + math.sqrt(5)) / 2
    base = [(-1, golden, 0), (1, golden, 0), (-1, -golden, 0), (1, -golden, 0)]
    corners = [p for x, y, z in base for p in [(x, y, z)]] + [(0, x, y) for x, y, _ in base] + [(y, 0, x) for x, y, _ in base]
    vertices = np.array(corners, dtype=np.float64)
    vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
    faces = _convex_triangles(vertices)
    for _ in range(refinements):
        connectivity = Connectivity(faces, len(vertices))
        vertices = np.concatenate([vertices, vertices[connectivity.edges].mean(axis=1)])
        vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
        faces = split_faces(connectivity)
    return TriangleMesh(torch.from_numpy(_positive(radius, "radius") * vertices).to(dtype), torch.from_numpy(faces))


def torus(
    around: int = 48, across: int = 20, radius: float = 1.0, tube: float = 0.4, *, dtype: torch.dtype = torch.float64
) -> TriangleMesh:
    """A torus of `around` × `across` vertices, with the centre line at `radius` and the tube of radius `tube`."""
    if _whole(around, "around") < 3 or _whole(across, "across") < 3:
        raise DomainError(f"a torus needs at least 3 × 3 vertices, not {around} × {across}")
    _check_count(around, across)
    if not 0 < tube < _positive(radius, "radius"):
        raise DomainError(f"the tube ({tube}) must be positive and thinner than the radius ({radius})")
    u, v = np.meshgrid(
        np.linspace(0, 2 * math.pi, around, endpoint=False), np.linspace(0, 2 * math.pi, across, endpoint=False), indexing="ij"
    )
    ring = radius + tube * np.cos(v)
    vertices = np.stack([ring * np.cos(u), ring * np.sin(u), tube * np.sin(v)], axis=-1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(around), np.arange(across), indexing="ij")
    right, up = (i + 1) % around, (j + 1) % across
    faces = _split_quads(i * across + j, right * across + j, right * across + up, i * across + up)
    return TriangleMesh(torch.from_numpy(vertices).to(dtype), torch.from_numpy(faces))


def grid(
    columns: int = 24, rows: int = 24, width: float = 1.0, height: float = 1.0, *, dtype: torch.dtype = torch.float64
) -> TriangleMesh:
    """A flat rectangle [0, width] × [0, height] with a boundary, of `columns` × `rows` vertices in the plane."""
    if _whole(columns, "columns") < 2 or _whole(rows, "rows") < 2:
        raise DomainError(f"a grid needs at least 2 × 2 vertices, not {columns} × {rows}")
    _check_count(columns, rows)
    x, y = np.meshgrid(
        np.linspace(0, _positive(width, "width"), columns), np.linspace(0, _positive(height, "height"), rows), indexing="ij"
    )
    i, j = np.meshgrid(np.arange(columns - 1), np.arange(rows - 1), indexing="ij")
    corner = i * rows + j
    faces = _split_quads(corner, corner + rows, corner + rows + 1, corner + 1)
    vertices = np.stack([x, y, np.zeros_like(x)], axis=-1).reshape(-1, 3)
    return TriangleMesh(torch.from_numpy(vertices).to(dtype), torch.from_numpy(faces))


def bumpy(mesh: TriangleMesh, amplitude: float = 0.15, bumps: int = 6, seed: int = 0) -> TriangleMesh:
    """The mesh with smooth random bumps: x ↦ x (1 + amplitude·b(x)/max|b|), b a sum of `bumps` plane waves.

    Rays from the origin stay rays, so a star-shaped surface stays free of self-intersection for |amplitude| < 1.
    """
    if not 0 <= amplitude < 1:
        raise DomainError(f"amplitude must lie in [0, 1), not {amplitude}: larger bumps turn the surface inside out")
    if _whole(bumps, "bumps") < 1:
        raise DomainError(f"bumps must be at least 1, not {bumps}")
    check_no_gradient(mesh.vertices, "bumpy")
    random = np.random.default_rng(seed)
    points, faces = mesh.arrays
    scale = float(np.linalg.norm(points - points.mean(0), axis=1).mean())
    directions = random.normal(size=(bumps, 3))
    phases = random.uniform(0, 2 * math.pi, size=bumps)
    wave = np.cos(2.0 * points @ directions.T / scale + phases).sum(axis=1)
    factor = 1 + amplitude * wave / max(float(np.abs(wave).max()), 1e-12)
    return TriangleMesh(torch.from_numpy(points * factor[:, None]).to(mesh.vertices.dtype), torch.from_numpy(faces))


def _positive(value: float, name: str) -> float:
    if not (math.isfinite(value) and value > 0):
        raise DomainError(f"{name} must be positive and finite, not {value}")
    return value


def _whole(value: int, name: str) -> int:
    if not is_integer(value):
        raise DomainError(f"{name} must be an integer, not {value!r}")
    return int(value)


def _check_count(columns: int, rows: int) -> None:
    if columns * rows > MOST_VERTICES:
        raise DomainError(f"{columns} × {rows} vertices are over the limit of {MOST_VERTICES}: ask for fewer")


def _convex_triangles(vertices: Array) -> Array:
    from scipy.spatial import ConvexHull

    faces = ConvexHull(vertices).simplices.astype(np.int64)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), a) < 0
    faces[inward] = faces[inward][:, ::-1]
    return faces


def _split_quads(a: Array, b: Array, c: Array, d: Array) -> Array:
    a, b, c, d = (corner.reshape(-1) for corner in (a, b, c, d))
    return np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)]).astype(np.int64)
