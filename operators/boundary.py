"""The boundary of a surface: its edges, its vertices, and the loops they form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.domains import TriangleMesh
from operators.topology import chains_of


@dataclass(frozen=True, eq=False)
class BoundaryLoop:
    """A chain of boundary edges, as the vertices (k,) it runs through in the direction of the faces there.

    `closed` chains do not repeat their first vertex. A chain is open only where edges of more than two faces leave an
    odd number of boundary edges at a vertex.
    """

    vertices: Tensor
    closed: bool


def boundary_edges(mesh: TriangleMesh) -> Tensor:
    """The edges with one face, (2, B), from row 0 to row 1 as that face runs."""
    return _tensor(mesh, mesh.connectivity.sides[mesh.connectivity.boundary_sides].T.copy())


def boundary_vertices(mesh: TriangleMesh) -> Tensor:
    """The vertices of the boundary edges, sorted, (b,): where to fix a field with `dirichlet(laplacian, nodes)`."""
    return _tensor(mesh, np.unique(mesh.connectivity.sides[mesh.connectivity.boundary_sides]))


def boundary_loops(mesh: TriangleMesh) -> tuple[BoundaryLoop, ...]:
    """The boundary as ordered loops, the longest first; where two loops touch in a vertex, they stay two."""
    return tuple(BoundaryLoop(_tensor(mesh, vertices), closed) for vertices, closed in chains_of(mesh.connectivity))


def _tensor(mesh: TriangleMesh, values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(mesh.faces.device)
