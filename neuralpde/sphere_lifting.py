"""From a coarse sphere to a fine one: the smoothest fine field whose averages are the coarse one."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor, nn

from neuralpde.transfer import Transfer
from operators.checks import DomainError, as_field, is_integer
from operators.domains import TriangleMesh
from operators.sparse import SparseOperator

# The faces whose centres are nearest to a point. One of the first few holds it, unless triangles are long and thin.
CANDIDATES = (12, 400)
INSIDE = -1e-9
# Dense matrices of (fine n) x (coarse n).
MOST_NODES = 6000


def hats(mesh: TriangleMesh, points: Tensor) -> SparseOperator:
    """Linear interpolation from the vertices of a sphere's triangulation to other points of the sphere, (points, vertices).

    A point has the barycentric coordinates of its ray from the origin in the face that it passes through: rows sum to one.

    Args:
        mesh: a closed triangulation of a sphere about the origin.
        points: (p, 3), of any length.

    Raises:
        DomainError: some point lies in none of the faces near it.
    """
    target, vertices = _directions(points), _directions(mesh.vertices)
    faces = mesh.faces.cpu().numpy()
    corners = vertices[faces]
    tree = cKDTree(_unit(corners.mean(1)))
    held = np.zeros(len(target), np.int64)
    weights = np.full((len(target), 3), -np.inf)
    for count in CANDIDATES:
        (open_points,) = np.nonzero(weights.min(1) < INSIDE)
        if len(open_points):
            near = np.asarray(tree.query(target[open_points], k=min(count, len(faces)))[1], np.int64)
            held[open_points], weights[open_points] = _face_of(target[open_points], corners, near)
    outside = int((weights.min(1) < INSIDE).sum())
    if outside:
        raise DomainError(
            f"{outside} points lie in no face near them: the mesh must be a closed sphere about the origin, with triangles that "
            "are not too thin"
        )
    weights = np.clip(weights, 0, None)
    columns = torch.from_numpy(faces[held].reshape(-1))
    rows = torch.arange(len(target)).repeat_interleave(3)
    values = torch.from_numpy((weights / weights.sum(1, keepdims=True)).reshape(-1))
    return SparseOperator.from_entries(rows, columns, values, (len(target), mesh.num_nodes))


def _face_of(
    points: NDArray[np.float64], corners: NDArray[np.float64], near: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Of the candidate faces (p, k), the one that holds each point, and its coordinates (p, 3); negative where none does."""
    weights = np.linalg.solve(corners[near].transpose(0, 1, 3, 2), points[:, None, :, None])[..., 0]
    total = weights.sum(-1, keepdims=True)
    # A ray meets the far side of the sphere, too, with coordinates of the other sign.
    weights = np.where(total > 0, weights / np.where(total > 0, total, 1.0), -np.inf)
    best = weights.min(-1).argmax(1)
    row = np.arange(len(points))
    return near[row, best], weights[row, best]


def observation(fine: TriangleMesh, areas: Tensor, coarse: TriangleMesh) -> Transfer:
    """What a coarse sphere sees of a fine one: averages over the hats of its vertices, weighted by the areas of fine cells."""
    return Transfer(hats(coarse, fine.vertices), areas.double())


class Lifting(nn.Module):
    """S (R S)⁻¹: the fine field whose averages R are the given coarse one, interpolated by the cubic splines S.

    S interpolates by |x − y|³ and linear functions of x, the smoothest way through the coarse values; (R S)⁻¹ undoes what
    averaging takes away: R lift(u) = u to round-off. Constants stay constant.

    Args:
        fine: the fine sphere, about the origin.
        areas: (fine n,) of its cells.
        coarse: the coarse sphere; at most 6,000 vertices, as the matrix is dense.
    """

    matrix: Tensor

    def __init__(self, fine: TriangleMesh, areas: Tensor, coarse: TriangleMesh) -> None:
        super().__init__()
        if coarse.num_nodes > MOST_NODES or not coarse.num_nodes <= fine.num_nodes:
            raise DomainError(
                f"lifting from {coarse.num_nodes} to {fine.num_nodes} nodes: the coarse sphere must have at most {MOST_NODES} "
                "and no more than the fine one"
            )
        dtype = fine.vertices.dtype
        transfer = observation(fine, areas, coarse)
        splines = torch.from_numpy(_splines(_directions(coarse.vertices), _directions(fine.vertices)))
        matrix = splines @ torch.linalg.inv(transfer.restrict(splines))
        self.restriction = transfer.to(dtype)
        self.register_buffer("matrix", matrix.to(dtype), persistent=False)

    def restrict(self, u: Tensor) -> Tensor:
        """R u; (..., fine n, c) → (..., coarse n, c)."""
        return self.restriction.restrict(u)

    def forward(self, u: Tensor) -> Tensor:
        """(..., coarse n, c) → (..., fine n, c)."""
        return self.matrix @ as_field(u, self.matrix.shape[1])


def rotated(mesh: TriangleMesh, angles: tuple[float, float]) -> TriangleMesh:
    """The sphere turned about x, then about z, by angles in radians: the same geometry with its nodes elsewhere."""
    (a, b), dtype = angles, mesh.vertices.dtype
    about_x = torch.tensor([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]], dtype=torch.float64)
    about_z = torch.tensor([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]], dtype=torch.float64)
    return TriangleMesh((mesh.vertices.double() @ (about_z @ about_x).T).to(dtype), mesh.faces)


def check_refinements(coarse: int, fine: int) -> None:
    """Raise DomainError unless coarse ≤ fine are refinements that a lifting can take."""
    if not (is_integer(coarse) and is_integer(fine) and 1 <= coarse <= fine <= 6 and 10 * 4**coarse + 2 <= MOST_NODES):
        raise DomainError(
            f"refinements must be whole numbers 1 <= coarse <= 4 and coarse <= fine <= 6, not {coarse!r} and {fine!r}: 3 and 4 "
            "are usual"
        )


def _splines(knots: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix (points, knots) of interpolation by Σ a |x − knot|³ + linear."""

    def kernel(x: NDArray[np.float64]) -> NDArray[np.float64]:
        squares = np.clip(2 - 2 * x @ knots.T, 0, None)
        return np.asarray(np.concatenate([squares**1.5, np.ones((len(x), 1)), x], axis=1))

    n = len(knots)
    linear = np.concatenate([np.ones((n, 1)), knots], axis=1)
    system = np.concatenate([kernel(knots), np.concatenate([linear.T, np.zeros((4, 4))], axis=1)])
    return np.asarray(np.linalg.solve(system.T, kernel(points).T)[:n].T)


def _directions(points: Tensor) -> NDArray[np.float64]:
    return _unit(points.detach().to("cpu", torch.float64).numpy())


def _unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))
