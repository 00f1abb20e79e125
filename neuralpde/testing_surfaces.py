"""The tiny surfaces that drawn meshes start from, and the edits that make them hard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from neuralpde.testing_bounds import heights_of
from operators.neighbours import nearest_distances

__all__ = [
    "BASES",
    "PLANAR",
    "Copy",
    "Detach",
    "Edit",
    "Flip",
    "Move",
    "Pinch",
    "Remove",
    "Sliver",
    "Squeeze",
    "Subdivide",
    "Surface",
    "beside",
    "usable",
]

Floats = NDArray[np.float64]
Faces = NDArray[np.int64]
Surface = tuple[Floats, Faces]

BASES: dict[str, tuple[list[tuple[float, float, float]], list[tuple[int, int, int]]]] = {
    "triangle": ([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(0, 1, 2)]),
    "square": ([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], [(0, 1, 2), (0, 2, 3)]),
    "fan": (
        [(0, 0, 0), (2, 0, 0), (1, 2, 0), (-1, 1.5, 0), (-2, -0.5, 0), (0, -2, 0)],
        [(0, 1, 2), (0, 2, 3), (0, 3, 4), (0, 4, 5), (0, 5, 1)],
    ),
    "tetrahedron": ([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)], [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]),
    "bow-tie": ([(0, 0, 0), (1, 0, 0), (1, 1, 0), (-1, 0, 0), (-1, -1, 0)], [(0, 1, 2), (0, 3, 4)]),
    "three faces at one edge": (
        [(0, 0, 0), (0, 0, 1), (1, 0, 0), (-1, 1, 0.5), (-1, -1, 0.25)],
        [(0, 1, 2), (0, 1, 3), (1, 0, 4)],
    ),
    "five faces at one edge": (
        [(0, 0, 0), (0, 0, 1), (1, 0, 0), (-1, 1, 0.5), (-1, -1, 0.25), (0.5, 1, -0.25), (0.25, -1.5, 0.75)],
        [(0, 1, 2), (0, 1, 3), (1, 0, 4), (0, 1, 5), (1, 0, 6)],
    ),
    "Möbius band": (
        [(2, 0, -0.5), (2, 0, 0.5), (-1, 1.75, -0.5), (-1, 1.75, 0.5), (-1.25, -1.75, -0.25), (-0.75, -1.75, 0.25)],
        [(0, 1, 2), (1, 3, 2), (2, 3, 4), (3, 5, 4), (4, 5, 1), (5, 0, 1)],
    ),
    "Möbius band without an obtuse angle": (
        [(1, 0, 0), (-0.5, 0.875, 0), (-0.5, -0.875, 0), (0, 0, 0.8125), (0, 0, -0.8125)],
        [(0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 0), (4, 0, 1)],
    ),
    "two tetrahedra at one edge": (
        [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 0, 0), (0, -1, 0)],
        [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3), (0, 5, 4), (0, 4, 3), (0, 3, 5), (4, 5, 3)],
    ),
    # Without symmetry, so that no four vertices lie on one circle, where round-off decides between two triangulations.
    "torus": (
        [
            *[(3, 0.125, 0), (1.5, -0.125, 0.875), (1.75, 0, -0.75)],
            *[(-1.5, 2.625, 0.125), (-0.75, 1.25, 1), (-0.875, 1.375, -0.875)],
            *[(-1.375, -2.75, 0), (-0.625, -1.25, 0.75), (-0.75, -1.5, -0.875)],
        ],
        [
            *[(0, 3, 4), (0, 4, 1), (1, 4, 5), (1, 5, 2), (2, 5, 3), (2, 3, 0)],
            *[(3, 6, 7), (3, 7, 4), (4, 7, 8), (4, 8, 5), (5, 8, 6), (5, 6, 3)],
            *[(6, 0, 1), (6, 1, 7), (7, 1, 2), (7, 2, 8), (8, 2, 0), (8, 0, 6)],
        ],
    ),
    # The faces of an icosahedron, opposite ones taken together, at six places that leave no angle obtuse.
    "projective plane": (
        [(1.25, 0, 0), (-1, 0, 0), (0, 1.5, 0), (0, -0.75, 0), (0, 0, 0.875), (0, 0, -1.375)],
        [(0, 1, 2), (0, 2, 3), (0, 3, 4), (0, 4, 5), (0, 5, 1), (1, 2, 4), (2, 3, 5), (3, 4, 1), (4, 5, 2), (5, 1, 3)],
    ),
}
PLANAR = ("triangle", "square", "fan", "bow-tie")


class Edit(Protocol):
    """A change of a surface; its numbers count faces or vertices modulo how many there are."""

    def __call__(self, points: Floats, faces: Faces) -> Surface: ...


@dataclass(frozen=True)
class Subdivide:
    """A new vertex at the centroid of a face, where some angle is at least 120°."""

    face: int

    def __call__(self, points: Floats, faces: Faces) -> Surface:
        return Sliver(self.face, 1 / 3)(points, faces)


@dataclass(frozen=True)
class Move:
    """A vertex elsewhere."""

    vertex: int
    by: tuple[float, float, float]

    def __call__(self, points: Floats, faces: Faces) -> Surface:
        moved = points.copy()
        moved[self.vertex % len(points)] += self.by
        return moved, faces


@dataclass(frozen=True)
class Sliver:
    """A new vertex in a face, at `height` of the face's height above the middle of its second side: one flat triangle."""

    face: int
    height: float

    def __call__(self, points: Floats, faces: Faces) -> Surface:
        which, n = self.face % len(faces), len(points)
        a, b, c = faces[which]
        rest = (1 - self.height) / 2
        new = points[a] * self.height + points[b] * rest + points[c] * rest
        return np.concatenate([points, new[None]]), np.concatenate(
            [np.delete(faces, which, axis=0), [[a, b, n], [b, c, n], [c, a, n]]]
        )


@dataclass(frozen=True)
class Flip:
    """A face that turns the other side out."""

    face: int

    def __call__(self, points: Floats, faces: Faces) -> Surface:
        flipped, which = faces.copy(), self.face % len(faces)
        flipped[which] = flipped[which, ::-1]
        return points, flipped


@dataclass(frozen=True)
class Detach:
    """A face as a component of its own, if every corner has another face to stay with."""

    face: int

    def __call__(self, points: Floats, faces: Faces) -> Surface:
        which, n = self.face % len(faces), len(points)
        rest = np.delete(faces, which, axis=0)
        if not np.isin(faces[which], rest).all():
            return points, faces
        return np.concatenate([points, points[faces[which]] + np.array([-8, 0, 0])]), np.concatenate([rest, [[n, n + 1, n + 2]]])


@dataclass(frozen=True)
class Remove:
    """A face left out, where its corners have others: a closed surface gets a boundary."""

    face: int

    def __call__(self, points: Floats, faces: Faces) -> Surface:
        which = self.face % len(faces)
        rest = np.delete(faces, which, axis=0)
        return (points, rest) if np.isin(faces[which], rest).all() else (points, faces)


@dataclass(frozen=True)
class Copy:
    """All of it once more, at a distance; not of more than 20 faces."""

    distance: int

    def __call__(self, points: Floats, faces: Faces) -> Surface:
        return beside((points, faces), (points, faces), self.distance) if len(faces) <= 20 else (points, faces)


@dataclass(frozen=True)
class Squeeze:
    """The second coordinate times a factor: needles without an obtuse angle, where triangles had a right one."""

    factor: float

    def __call__(self, points: Floats, faces: Faces) -> Surface:
        return points * np.array([1.0, self.factor, 1.0]), faces


@dataclass(frozen=True)
class Pinch:
    """A triangle, or a `closed` tetrahedron, that shares one vertex with the rest: the one that is farthest along the axes."""

    closed: bool

    def __call__(self, points: Floats, faces: Faces) -> Surface:
        far, n = int(points.sum(axis=1).argmax()), len(points)
        corners = points[far] + np.eye(3)[: 3 if self.closed else 2]
        # The three axes meet at right angles, so nothing is obtuse.
        added = [[far, n, n + 1], [far, n + 2, n], [far, n + 1, n + 2], [n, n + 2, n + 1]] if self.closed else [[far, n, n + 1]]
        return np.concatenate([points, corners]), np.concatenate([faces, added])


def beside(one: Surface, other: Surface, distance: float) -> Surface:
    """Two surfaces as one of more components, the second moved along the first axis."""
    points, faces = other
    return np.concatenate([one[0], points + np.array([distance, 0, 0])]), np.concatenate([one[1], faces + len(one[0])])


def usable(points: Floats, faces: Faces, thinnest: float, planar: bool) -> bool:
    """Whether all vertices are apart, no triangle is too flat and, in the plane, all are counter-clockwise."""
    longest = float(np.ptp(points, axis=0).max())
    # So far apart that an offset of a thousand sizes does not round two vertices to one.
    if not nearest_distances(points).min() > 1e-9 * longest:
        return False
    heights = heights_of(points, faces)
    if not bool((heights > thinnest / 4 * longest).all()):
        return False
    if planar:
        a, b, c = (points[faces[:, k], :2] for k in range(3))
        signed = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
        # All counter-clockwise: then the fan around an inner vertex closes, and linear functions are harmonic there.
        return bool((signed > 0).all())
    return True
