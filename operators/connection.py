"""The connection Laplacian of tangent vector fields, as complex numbers in a frame at every vertex."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from operators.checks import DomainError
from operators.domains import TriangleMesh
from operators.laplacian import Laplacian
from operators.sparse import SparseOperator
from operators.surface import cotangent_laplacian
from operators.topology import Connectivity


def connection_laplacian(mesh: TriangleMesh, weights: Callable[[TriangleMesh], Laplacian] = cotangent_laplacian) -> Laplacian:
    """The vector Laplacian ∇*∇: (C u)_i = Σ_j w_ij (u_i − r_ji u_j), Hermitian, with the mass of `weights(mesh)`.

    u_i is a tangent vector at vertex i as a complex number: u = x + iy is x e₁ + y e₂ with the frame of
    `tangent_basis(mesh)`. |r_ji| = 1 turns the frame at j into the frame at i along their edge, by the discrete
    Levi-Civita connection: directions at an inner vertex are measured by its corner angles, rescaled to a full turn
    (Knöppel et al. 2013; Sharp et al. 2019). At the boundary angles stay as they are, which keeps a flat
    mesh flat: constant fields are its kernel. On a curved surface there is none (on a sphere of radius 1 the least
    eigenvalue is 1). Another choice of frames is a unitary change of coordinates; the spectrum does not see it.

    xᴴ C x = Σ w_ij |u_i − r_ji u_j|², so C is positive semi-definite wherever no weight is negative. Negative cotangent
    weights (a mesh that is not Delaunay), harmless to functions, can make it slightly indefinite on curved parts:
    λ_min is then below zero. Weights that are never negative, such as those of the graph Laplacian
    `lambda mesh: combinatorial_laplacian(mesh.graph())`, keep the law on any mesh. Differentiable in the vertices.

    Args:
        mesh: manifold and consistently oriented, with or without boundary; several components are welcome.
        weights: a function of the mesh that returns a real Laplacian whose edges are edges of the mesh.

    Raises:
        DomainError: a non-manifold edge or vertex, inconsistent orientation, or weights on pairs that are no edges (as
            `robust_laplacian` has, which flips edges).
    """
    scalar = weights(mesh)
    if scalar.shape[0] != mesh.num_nodes:
        raise DomainError(f"the weights are for {scalar.shape[0]} nodes but the mesh has {mesh.num_nodes} vertices")
    directions, n = _Directions.of(mesh), mesh.num_nodes
    pattern, values = scalar.stiffness.pattern, scalar.stiffness.values
    upper = (pattern.row < pattern.col) & (values.detach() != 0)
    i, j = pattern.row[upper], pattern.col[upper]
    stray = ~torch.isin(i * n + j, directions.key)
    if bool(stray.any()):
        raise DomainError(
            f"{int(stray.sum())} weights join vertices that share no edge of the mesh (an intrinsic Delaunay Laplacian flips "
            "edges): use cotangent_laplacian, or the Laplacian of mesh.graph()"
        )
    nodes = torch.arange(n, device=i.device)
    diagonal = scalar.stiffness.diagonal()
    # One triangle is computed and mirrored, so that C is Hermitian to the last bit.
    entry = values[upper] * directions.transport(torch.stack([i, j]), n).to(values.dtype.to_complex())
    stiffness = SparseOperator.from_entries(
        torch.cat([i, j, nodes]),
        torch.cat([j, i, nodes]),
        torch.cat([entry, entry.conj(), torch.complex(diagonal, torch.zeros_like(diagonal))]),
        (n, n),
    )
    return Laplacian(stiffness, scalar.mass, partial(connection_laplacian, weights=weights))


def tangent_basis(mesh: TriangleMesh) -> Tensor:
    """The frames (e₁, e₂) of `connection_laplacian(mesh)` in space, (n, 2, 3), orthonormal, e₁ × e₂ the vertex normal.

    A tangent field V (n, 3) has the coordinates u = V·e₁ + i V·e₂, and u stands for the field Re(u) e₁ + Im(u) e₂:

        coordinates = torch.complex(*(basis * V[:, None]).sum(-1).unbind(-1))[:, None]         # (n, 1)
        vectors = (torch.view_as_real(coordinates[:, 0])[:, :, None] * basis).sum(1)           # (n, 3)

    The normal is the mean of the face normals weighted by area; e₁ averages the directions of the edges, each turned
    back by its angle. A planar mesh lies in z = 0.

    Raises:
        DomainError: as `connection_laplacian`, and where the faces at a vertex cancel, so that it has no normal.
    """
    points, faces = _points(mesh), mesh.faces
    a, b, c = (points[faces[:, k]] for k in range(3))
    facing = torch.linalg.cross(b - a, c - a)
    normal = points.new_zeros(mesh.num_nodes, 3).index_add(0, faces.reshape(-1), facing.repeat_interleave(3, dim=0))
    size = points.new_zeros(mesh.num_nodes).index_add(0, faces.reshape(-1), _length(facing).repeat_interleave(3))
    flat = _length(normal) <= 1e-9 * size
    if bool(flat.any()):
        raise DomainError(
            f"the faces at vertex {int(flat.nonzero()[0])} cancel, so that it has no normal and no tangent plane: "
            "the surface folds back on itself there; split the vertex or refine the fold"
        )
    normal = normal / _length(normal)[:, None]
    directions = _Directions.of(mesh)
    tail, head = directions.tail, directions.head
    along = points[head] - points[tail]
    up = normal[tail]
    along = along - (along * up).sum(1, keepdim=True) * up
    along = along / _length(along).clamp(min=torch.finfo(along.dtype).tiny)[:, None]
    angle = directions.angle[:, None]
    # Rodrigues' rotation about the normal by −φ, for a vector in the tangent plane.
    back = torch.cos(angle) * along - torch.sin(angle) * torch.linalg.cross(up, along)
    first = points.new_zeros(mesh.num_nodes, 3).index_add(0, tail, back)
    first = first - (first * normal).sum(1, keepdim=True) * normal
    lost = _length(first) <= 1e-9
    if bool(lost.any()):
        raise DomainError(
            f"the edges at vertex {int(lost.nonzero()[0])} give no tangent direction: the surface is folded there; refine it"
        )
    first = first / _length(first)[:, None]
    return torch.stack([first, torch.linalg.cross(normal, first)], dim=1).to(mesh.vertices.dtype)


@dataclass(frozen=True, eq=False)
class _Directions:
    """The angle φ of every edge direction tail → head in the frame of its tail, (2E,) in float64; sorted by `key`."""

    tail: Tensor
    head: Tensor
    angle: Tensor
    key: Tensor

    @classmethod
    def of(cls, mesh: TriangleMesh) -> _Directions:
        """Measure the directions; raises DomainError on a mesh without consistent tangent planes."""
        _check_surface(mesh)
        n, faces = mesh.num_nodes, mesh.faces
        # Side c of a face leaves its corner c: tail → head. Counter-clockwise around the corner follows tail → back.
        tail, head, back = (faces.roll(-k, dims=1).reshape(-1) for k in range(3))
        corner = _corner_angles(_points(mesh)[faces]).reshape(-1)
        before = _fans(tail * n + head, tail * n + back, tail, n)
        # Pointer doubling: after k rounds the angle counts from up to 2^k corners back. A last entry ends every fan.
        angle = torch.cat([corner, corner.new_zeros(1)])[before]
        while bool((before < len(tail)).any()):
            angle = angle + torch.cat([angle, angle.new_zeros(1)])[before]
            before = torch.cat([before, before.new_full((1,), len(tail))])[before]
        total = corner.new_zeros(n).index_add(0, tail, corner)
        open_fan = torch.zeros(n, dtype=torch.bool, device=tail.device)
        last = ~torch.isin(tail * n + back, tail * n + head)
        open_fan[tail[last]] = True
        scale = torch.where(open_fan, 1.0, 2 * math.pi / total)
        tails, heads = torch.cat([tail, tail[last]]), torch.cat([head, back[last]])
        angle = torch.cat([angle, (angle + corner)[last]]) * scale[tails]
        key, order = torch.sort(tails * n + heads)
        return cls(tails[order], heads[order], angle[order], key)

    def transport(self, edges: Tensor, n: int) -> Tensor:
        """r_ji = exp(i (φ_ij − φ_ji − π)), from the frame of j to that of i, for edges (i, j) given as (2, E)."""
        there, back = (torch.searchsorted(self.key, a * n + b) for a, b in (edges, edges.flip(0)))
        turn = self.angle[there] - self.angle[back]
        return torch.complex(-torch.cos(turn), -torch.sin(turn))


def _fans(outgoing: Tensor, following: Tensor, tail: Tensor, n: int) -> Tensor:
    """For every corner the one before it, clockwise around its vertex; `len(tail)` where a fan begins."""
    keys, order = torch.sort(following)
    place = torch.searchsorted(keys, outgoing).clamp(max=len(keys) - 1)
    before = torch.where(keys[place] == outgoing, order[place], len(tail))
    closed = torch.ones(n, dtype=torch.bool, device=tail.device)
    closed[tail[before == len(tail)]] = False
    # A closed fan is cut at its first corner, whose side is then the real axis.
    corners = torch.arange(len(tail), device=tail.device)
    first = corners.new_full((n,), len(tail)).scatter_reduce(0, tail, corners, "amin")
    before[first[closed]] = len(tail)
    return before


def _check_surface(mesh: TriangleMesh) -> None:
    connectivity = Connectivity(mesh.arrays[1], mesh.num_nodes)
    crowded = np.flatnonzero(connectivity.sides_of_edge > 2)
    if crowded.size:
        i, j = connectivity.edges[crowded[0]].tolist()
        raise DomainError(
            f"{crowded.size} edges belong to more than two faces, the first is ({i}, {j}): such a surface has no tangent plane "
            "there, and no vector Laplacian; delete the extra faces or cut the surface along the edge"
        )
    pinched = connectivity.non_manifold_vertices()
    if pinched.size:
        raise DomainError(
            f"{pinched.size} vertices join surfaces that share no edge there, the first is vertex {pinched[0]}: it has no single "
            "tangent plane; split the vertex, one copy for each fan of faces"
        )
    sides = connectivity.sides
    directed = np.sort(sides[:, 0] * mesh.num_nodes + sides[:, 1])
    repeated = directed[1:][directed[1:] == directed[:-1]]
    if repeated.size:
        i, j = divmod(int(repeated[0]), mesh.num_nodes)
        _, orientable = connectivity.orientation()
        cure = (
            "orient the faces with mesh.clean()"
            if bool(orientable.all())
            else "this surface cannot be oriented (a Möbius band, a Klein bottle): cut it open"
        )
        raise DomainError(
            f"the faces at {repeated.size} edges are oriented inconsistently, the first is ({i}, {j}), so that angles have no "
            f"common sense of rotation: {cure}"
        )


def _points(mesh: TriangleMesh) -> Tensor:
    """Centred vertices (n, 3) in float64; a planar mesh gets z = 0."""
    points = mesh.vertices.double()
    points = points - points.mean(0)
    return torch.nn.functional.pad(points, (0, 3 - points.shape[1]))


def _corner_angles(corners: Tensor) -> Tensor:
    """The angle of each triangle (m, 3, 3) at each of its corners, (m, 3)."""
    a, b = corners.roll(-1, dims=1) - corners, corners.roll(-2, dims=1) - corners
    return torch.atan2(_length(torch.linalg.cross(a, b)), (a * b).sum(-1))


def _length(vectors: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return length
