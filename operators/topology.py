"""How triangles hang together: edges, fans, components, orientation and boundary chains, also where a surface is no manifold."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Connectivity:
    """The connectivity of faces (m, 3) that repeat no vertex; memory and time grow as m (log m, for sorting).

    Side s = 3f + k of face f runs from its corner k to its corner k + 1; corner k of face f is numbered 3f + k too.
    """

    faces: Ints
    vertices: int

    @cached_property
    def sides(self) -> Ints:
        """From where to where every side runs, (3m, 2)."""
        sides: Ints = self.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
        return sides

    @cached_property
    def _unique(self) -> tuple[Ints, Ints, Ints]:
        keys = self.sides.min(axis=1) * self.vertices + self.sides.max(axis=1)
        edges, edge_of_side, counts = np.unique(keys, return_inverse=True, return_counts=True)
        return edges, edge_of_side.reshape(-1), counts

    @property
    def edges(self) -> Ints:
        """Each edge once, (E, 2), the smaller vertex first, sorted."""
        keys = self._unique[0]
        return np.stack([keys // max(self.vertices, 1), keys % max(self.vertices, 1)], axis=1)

    @property
    def edge_of_side(self) -> Ints:
        """The edge on which every side lies, (3m,)."""
        return self._unique[1]

    @property
    def sides_of_edge(self) -> Ints:
        """How many faces meet at every edge, (E,): 1 on the boundary, 2 inside, more where no manifold is."""
        return self._unique[2]

    @cached_property
    def _neighbours(self) -> tuple[Ints, Ints]:
        """Consecutive sides of the same edge: pairs of sides (P,) and (P,), E of them fewer than there are sides."""
        order = np.argsort(self.edge_of_side, kind="stable")
        same = self.edge_of_side[order[1:]] == self.edge_of_side[order[:-1]]
        return order[:-1][same], order[1:][same]

    @property
    def inner(self) -> tuple[Ints, Ints]:
        """The two sides of every edge at which exactly two faces meet, (I,) and (I,)."""
        left, right = self._neighbours
        two = self.sides_of_edge[self.edge_of_side[left]] == 2
        return left[two], right[two]

    @cached_property
    def boundary_sides(self) -> Ints:
        """The sides at which no other face is, (B,)."""
        return np.flatnonzero(self.sides_of_edge[self.edge_of_side] == 1)

    def components(self) -> tuple[int, Ints]:
        """The number of pieces that share no vertex, and the piece of every vertex, (n,); a bare vertex is none: −1."""
        _, label = components_of(self.sides[:, 0], self.sides[:, 1], self.vertices)
        used = np.zeros(self.vertices, dtype=bool)
        used[self.faces] = True
        pieces, label[used] = np.unique(label[used], return_inverse=True)
        label[~used] = -1
        return len(pieces), label

    def face_components(self) -> tuple[int, Ints]:
        """The number of pieces of faces joined across edges, and the piece of every face, (m,)."""
        left, right = self._neighbours
        return components_of(left // 3, right // 3, len(self.faces))

    @cached_property
    def fans(self) -> Ints:
        """The fan of every corner, (3m,): corners of one vertex whose faces follow one another across shared edges."""
        left, right = self._neighbours
        joined = []
        for s in (left, right):
            joined.append(np.stack([s, s - s % 3 + (s + 1) % 3], axis=1))
        (a, b), (c, d) = joined[0].T, joined[1].T
        flat = self.faces.reshape(-1)
        along = flat[a] == flat[c]
        first = np.concatenate([a, b])
        second = np.concatenate([np.where(along, c, d), np.where(along, d, c)])
        return components_of(first, second, 3 * len(self.faces))[1]

    def non_manifold_vertices(self) -> Ints:
        """The vertices at which more than one fan meets, as in the middle of a bow-tie."""
        fan, first = np.unique(self.fans, return_index=True)
        met = np.bincount(self.faces.reshape(-1)[first], minlength=self.vertices) if len(fan) else np.zeros(0, np.int64)
        return np.flatnonzero(met > 1)

    def orientation(self) -> tuple[Bools, Bools]:
        """Which faces to turn over so that neighbours agree, (m,), and which pieces can be oriented at all, (pieces,).

        Neighbours are the faces at an edge of exactly two. In every piece the majority stays; a piece that cannot be
        oriented, such as a Möbius band, stays as it is.
        """
        m = len(self.faces)
        left, right = self.inner
        opposed = self.sides[left, 0] != self.sides[right, 0]
        f, g = left // 3, right // 3
        # The double cover has two copies of every face, one for each orientation; a piece is orientable if they part.
        above, below = np.where(opposed, g, g + m), np.where(opposed, g + m, g)
        _, cover = components_of(np.concatenate([f, f + m]), np.concatenate([above, below]), 2 * m)
        count, piece = components_of(f, g, m)
        orientable = np.ones(count, dtype=bool)
        orientable[piece[cover[:m] == cover[m:]]] = False
        sheet = cover[:m] > cover[m:]
        upper = np.bincount(piece, weights=sheet, minlength=count)
        size = np.bincount(piece, minlength=count)
        turned = (sheet != (2 * upper > size)[piece]) & orientable[piece]
        return turned, orientable


def chains_of(connectivity: Connectivity) -> list[tuple[Ints, bool]]:
    """The boundary as ordered chains of vertices, each with whether it closes; the longest first."""
    sides = connectivity.boundary_sides
    ends = connectivity.sides[sides].tolist()
    link = _linked_ends(connectivity).tolist()
    seen, chains = [False] * len(ends), []
    # Open chains first, from their loose ends: what remains then are closed loops.
    loose = [end for end, other in enumerate(link) if other < 0]
    for start in [*sorted(loose, key=lambda end: end % 2), *range(0, 2 * len(ends), 2)]:
        if seen[start // 2]:
            continue
        end, vertices = start, []
        while True:
            side, into = divmod(end, 2)
            seen[side] = True
            vertices.append(ends[side][into])
            leaving = 2 * side + 1 - into
            end = link[leaving]
            if end < 0:
                vertices.append(ends[side][1 - into])
            if end < 0 or end == start:
                break
        chains.append((np.array(vertices, dtype=np.int64), end >= 0))
    return sorted(chains, key=lambda chain: -len(chain[0]))


def count_chains(connectivity: Connectivity) -> int:
    """The number of chains that `chains_of` finds, without walking them."""
    link = _linked_ends(connectivity)
    linked = np.flatnonzero(link >= 0)
    return components_of(linked // 2, link[linked] // 2, len(link) // 2)[0]


def _linked_ends(connectivity: Connectivity) -> Ints:
    """The end of a boundary side that follows each end 2b (tail) and 2b + 1 (head) of side b, −1 where none does."""
    sides = connectivity.boundary_sides
    corners = np.stack([sides, sides - sides % 3 + (sides + 1) % 3], axis=1).reshape(-1)
    fan = connectivity.fans[corners]
    # A fan of a manifold edge has two such ends; where edges of three faces give it more, they are paired as they come.
    order = np.argsort(fan, kind="stable")
    place = np.arange(len(order)) - np.searchsorted(fan[order], fan[order])
    first = np.flatnonzero((place % 2 == 0)[:-1] & (fan[order[1:]] == fan[order[:-1]]))
    link = np.full(len(order), -1, dtype=np.int64)
    link[order[first]], link[order[first + 1]] = order[first + 1], order[first]
    return link


def split_faces(connectivity: Connectivity) -> Ints:
    """The faces (4m, 3) with every edge e split by a new vertex n + e; orientation is kept."""
    a, b, c = connectivity.faces.T
    ab, bc, ca = connectivity.vertices + connectivity.edge_of_side.reshape(-1, 3).T
    split = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return np.concatenate([np.stack(corners, axis=1) for corners in split])


def components_of(rows: Ints, columns: Ints, count: int) -> tuple[int, Ints]:
    """The number of pieces of `count` nodes joined by the pairs (rows, columns), and the piece of every node."""
    graph = sp.coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(count, count))
    if count == 0:
        return 0, np.zeros(0, dtype=np.int64)
    pieces, label = connected_components(graph, directed=False)
    return int(pieces), label.astype(np.int64)
