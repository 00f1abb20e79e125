"""The intrinsic Delaunay triangulation of a surface, by edge flips, and its cotangent Laplacian."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from operators.checks import ConvergenceError, DomainError
from operators.domains import TriangleMesh
from operators.laplacian import Laplacian
from operators.surface import stiffness_of_edges

# An edge whose angles exceed π by less than this counts as co-circular and stays: were round-off to decide, a rotation of the
# surface would choose another of its equally Delaunay triangulations, and with it another lumped mass.
COCIRCULAR = 1e-12
# Real meshes take a dozen rounds at most, a strip of n slanted needles n of them.
ROUNDS = 10_000


@dataclass(eq=False)
class IntrinsicTriangulation:
    """Flat triangles glued along their sides: a surface without an embedding.

    Side h = 3 f + s of face f leads from its corner s to its corner s + 1. A gluing is a Δ-complex: both ends of an
    edge may be one vertex, and several edges may join the same two.

    Args:
        origin: int64 (3m,), the vertex that side h starts from.
        side: (3m, 2), the vector along side h, in a plane of its face where the face is counter-clockwise.
        twin: int64 (3m,), the side glued to h, −1 on a boundary or where more than two faces meet.
        parallel: bool (3m,), whether h and its twin lead the same way, as they do where two faces disagree in orientation.
    """

    origin: Tensor
    side: Tensor
    twin: Tensor
    parallel: Tensor

    @classmethod
    def of(cls, vertices: Tensor, faces: Tensor) -> IntrinsicTriangulation:
        """The triangulation as given, each face laid out in the plane; differentiable in the vertices (n, 3)."""
        corners = vertices[faces]
        along = corners.roll(-1, 1) - corners
        # Every side is projected by itself: a short one, as a difference of two long ones, would lose its direction.
        first = along[:, 0] / torch.linalg.vector_norm(along[:, 0], dim=1, keepdim=True)
        normal = torch.linalg.cross(along[:, 0], along[:, 1])
        second = torch.linalg.cross(normal / torch.linalg.vector_norm(normal, dim=1, keepdim=True), first)
        side = torch.stack([(along * first[:, None]).sum(2), (along * second[:, None]).sum(2)], dim=2).reshape(-1, 2)
        origin = faces.reshape(-1)
        twin = _twins(torch.stack([origin, faces.roll(-1, 1).reshape(-1)]), vertices.shape[0])
        return cls(origin.clone(), side, twin, (twin >= 0) & (origin[twin] == origin))

    def angle_excess(self, h: Tensor) -> Tensor:
        """sin(α + β) of the angles opposite glued sides h: negative where the edge is not Delaunay; (k,) → (k,)."""
        (cos_a, sin_a), (cos_b, sin_b) = self._opposite_angle(h), self._opposite_angle(self.twin[h])
        return sin_a * cos_b + cos_a * sin_b

    def _opposite_angle(self, h: Tensor) -> tuple[Tensor, Tensor]:
        dot, cross = _dot_and_cross(self.side[_next(h)], self.side[_previous(h)])
        length = torch.hypot(dot, cross)
        return -dot / length, cross / length

    def cotangents(self) -> Tensor:
        """The cotangent of the angle opposite every side, (3m,)."""
        h = torch.arange(self.origin.numel(), device=self.origin.device)
        dot, cross = _dot_and_cross(self.side[_next(h)], self.side[_previous(h)])
        return -dot / cross

    def areas(self) -> Tensor:
        """The area of every face, (m,)."""
        sides = self.side.reshape(-1, 3, 2)
        return _dot_and_cross(sides[:, 0], sides[:, 1])[1] / 2

    def flip_to_delaunay(self) -> int:
        """Flip edges in place until α + β ≤ π at every edge of two faces; returns the number of flips.

        Every round flips an independent set of edges, no two in one face. Which edges flip does not depend smoothly on
        the vertices, where to does: gradients pass through the sides.

        Raises:
            ConvergenceError: no end after `ROUNDS` rounds.
        """
        flips = 0
        moved = torch.arange(self.origin.numel(), device=self.origin.device)
        turned = torch.zeros_like(self.parallel)
        claims = torch.full((moved.numel() // 3,), -1, device=moved.device)
        active = moved.clone()
        for round_number in range(ROUNDS):
            with torch.no_grad():
                glued = active[self.twin[active] >= 0]
                glued = torch.unique(torch.minimum(glued, self.twin[glued]))
                # An edge with both sides in one face needs no flip: two angles of one triangle never exceed π.
                glued = glued[glued // 3 != self.twin[glued] // 3]
                bad = glued[self.angle_excess(glued) < -COCIRCULAR]
                if bad.numel() == 0:
                    return flips
                chosen = self._independent(bad, claims, round_number)
            touched = self._flip(bad[chosen], moved, turned)
            flips += int(chosen.sum())
            active = torch.cat([touched, bad[~chosen]])
        raise ConvergenceError(
            f"the edge flips did not end after {ROUNDS} rounds ({flips} flips): the triangles are extremely thin; "
            "remesh the surface, or use robust_laplacian(mesh)"
        )

    def _independent(self, bad: Tensor, claims: Tensor, round_number: int) -> Tensor:
        # A multiplicative hash ranks the edges afresh each round: ranks by place or by size could make a long chain wait in line.
        rank = bad * (2654435761 + 2 * round_number) % 2**32
        here, there = bad // 3, self.twin[bad] // 3
        claims.scatter_reduce_(0, torch.cat([here, there]), rank.repeat(2), "amax")
        chosen = (claims[here] == rank) & (claims[there] == rank)
        claims[here] = claims[there] = -1
        return chosen

    def _flip(self, ab: Tensor, moved: Tensor, turned: Tensor) -> Tensor:
        """Replace the edge ab of faces abc and bad by the edge cd of faces cad and dbc; returns the four outer sides."""
        ba = self.twin[ab]
        bc, ca = _next(ab), _previous(ab)
        mirrored = self.parallel[ab]
        ad = torch.where(mirrored, _previous(ba), _next(ba))
        db = torch.where(mirrored, _next(ba), _previous(ba))
        a, b, c, d = self.origin[ab], self.origin[bc], self.origin[ca], self.origin[_previous(ba)]

        # The second face is laid out beside the first: reversed where it runs the other way, then turned about their edge.
        vector_ab, vector_bc, vector_ca = self.side[ab], self.side[bc], self.side[ca]
        sign = torch.ones_like(vector_ab)
        sign[mirrored, 0] = -1
        vector_ba, vector_ad, vector_db = (sign * self.side[h] for h in (ba, ad, db))
        cosine, sine = _dot_and_cross(vector_ba, -vector_ab)
        length = torch.hypot(cosine, sine)
        rotation = torch.stack([cosine / length, sine / length], dim=1)
        vector_ad, vector_db = _turn(vector_ad, rotation), _turn(vector_db, rotation)
        through_a, through_b = vector_ca + vector_ad, -(vector_db + vector_bc)
        with torch.no_grad():
            nearer = _lengths(vector_ca) + _lengths(vector_ad) <= _lengths(vector_db) + _lengths(vector_bc)
        vector_cd = torch.where(nearer[:, None], through_a, through_b)

        first, second = 3 * (ab // 3), 3 * (ba // 3)
        old, new = torch.cat([ca, ad, db, bc]), torch.cat([first, first + 1, second, second + 1])
        moved[old] = new
        turned[torch.cat([ad, db])] = mirrored.repeat(2)
        partner = self.twin[old]
        glued = partner >= 0
        target = torch.where(glued, moved[partner], -1)
        parallel = self.parallel[old] ^ turned[old] ^ (turned[partner] & glued)
        moved[old] = old
        turned[old] = False

        self.twin[new], self.parallel[new] = target, parallel
        self.twin[target[glued]], self.parallel[target[glued]] = new[glued], parallel[glued]
        self.twin[first + 2], self.twin[second + 2] = second + 2, first + 2
        self.parallel[first + 2] = self.parallel[second + 2] = False
        places = torch.cat([first, first + 1, first + 2, second, second + 1, second + 2])
        self.origin[places] = torch.cat([c, a, d, d, b, c])
        # In place also under autograd: indexing saves indices alone.
        self.side[places] = torch.cat([vector_ca, vector_ad, -vector_cd, vector_db, vector_bc, vector_cd])
        return new


def intrinsic_delaunay(mesh: TriangleMesh) -> tuple[IntrinsicTriangulation, float]:
    """The intrinsic Delaunay triangulation of a surface, and the power of two that its lengths were divided by."""
    vertices = mesh.vertices.double()
    vertices = vertices - vertices.mean(0)
    if vertices.shape[1] == 2:
        vertices = torch.cat([vertices, vertices.new_zeros(len(vertices), 1)], dim=1)
    unit = float(torch.exp2(torch.floor(torch.log2(vertices.detach().abs().max()))))
    triangulation = IntrinsicTriangulation.of(vertices / unit, mesh.faces)
    triangulation.flip_to_delaunay()
    return triangulation, unit


def intrinsic_delaunay_laplacian(mesh: TriangleMesh) -> Laplacian:
    """The cotangent Laplacian of the intrinsic Delaunay triangulation of the surface as given, with lumped mass.

    C_ij = −½ Σ (cot α + cot β) over the intrinsic edges between i and j, M_i = a third of the intrinsic faces at i. The
    triangulation has the same vertices and the same geometry as the mesh, but its edges are geodesics across the faces.

    Weights of interior edges are non-negative, where those of `cotangent_laplacian` are not. Linear functions are in
    the kernel at interior vertices of a planar mesh, where those of `robust_laplacian` are not: it also makes weights
    at the boundary non-negative, and both together are impossible where a boundary angle is obtuse. Here the
    weights of an edge of one face, or of more than two, stay negative if its angles are obtuse: use `robust_laplacian`
    where a maximum principle is needed on a surface with a boundary. On a closed manifold the two are equal, up to
    the 1e-5 by which `robust_laplacian` lengthens the edges of slivers.

    Differentiable in the vertex positions, through the flips. Where faces are co-circular, as in a grid, C does not
    depend on how they are split; its gradient and M do, and are those of one of the two triangulations.

    Raises:
        ConvergenceError: no end of the edge flips, on triangles as thin as round-off.

    Source: Bobenko and Springborn 2007, definition 16; flips as in Fisher, Springborn, Schröder and Bobenko 2007.
    """
    surface, unit = intrinsic_delaunay(mesh)
    cotangent, area = surface.cotangents(), surface.areas()
    h = torch.arange(surface.origin.numel(), device=surface.origin.device)
    alone = h[surface.twin < 0]
    pairs = h[surface.twin > h]
    inner = (cotangent[pairs] + cotangent[surface.twin[pairs]]) / 2
    # Round-off below zero is cut off, but not its gradient, which is that of this triangulation.
    inner = inner + (inner.clamp(min=0) - inner).detach()
    edges, weights = torch.cat([alone, pairs]), torch.cat([cotangent[alone] / 2, inner])
    i, j = surface.origin[edges], surface.origin[_next(edges)]
    mass = area.new_zeros(mesh.num_nodes).index_add(0, surface.origin, area.repeat_interleave(3) / 3) * unit**2
    if not bool((area > 0).all()):
        raise DomainError("an intrinsic triangle lost its area to round-off: clean the mesh or use robust_laplacian(mesh)")
    dtype = mesh.vertices.dtype
    stiffness = stiffness_of_edges(i, j, weights, mesh.num_nodes, dtype)
    return Laplacian(stiffness, mass.to(dtype), intrinsic_delaunay_laplacian)


def _twins(ends: Tensor, n: int) -> Tensor:
    """For each side with these ends (2, 3m), the other side with the same ends, −1 unless there is exactly one."""
    key = ends.min(0).values * n + ends.max(0).values
    _, edge, count = torch.unique(key, return_inverse=True, return_counts=True)
    order = torch.argsort(edge, stable=True)
    pairs = order[count[edge[order]] == 2].reshape(-1, 2)
    twin = torch.full_like(edge, -1)
    twin[pairs[:, 0]], twin[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
    return twin


def _next(h: Tensor) -> Tensor:
    return torch.where(h % 3 == 2, h - 2, h + 1)


def _previous(h: Tensor) -> Tensor:
    return torch.where(h % 3 == 0, h + 2, h - 1)


def _dot_and_cross(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1], a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _turn(vector: Tensor, rotation: Tensor) -> Tensor:
    (x, y), (cosine, sine) = vector.unbind(1), rotation.unbind(1)
    return torch.stack([cosine * x - sine * y, sine * x + cosine * y], dim=1)


def _lengths(vectors: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1)
    return lengths
