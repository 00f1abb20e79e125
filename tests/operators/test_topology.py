"""Connectivity agrees with its definition, face by face, also where the surface is no manifold."""

from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import meshes
from operators.topology import Connectivity, chains_of, components_of, count_chains

MOEBIUS = np.array([(0, 1, 2), (1, 3, 2), (2, 3, 4), (3, 5, 4), (4, 5, 1), (5, 0, 1)])


@st.composite
def triangle_soups(draw):
    """Faces drawn at random on few vertices: most edges are shared by three or more."""
    n = draw(st.integers(3, 7))
    corners = st.lists(st.integers(0, n - 1), min_size=3, max_size=3, unique=True)
    faces = draw(st.lists(corners, min_size=1, max_size=12))
    return np.array(faces, dtype=np.int64), n


def of(mesh):
    return Connectivity(mesh.arrays[1], mesh.num_nodes)


anything = st.one_of(triangle_soups(), meshes().map(lambda mesh: (mesh.arrays[1], mesh.num_nodes)))


def sides(faces):
    return [(int(f[k]), int(f[(k + 1) % 3])) for f in faces for k in range(3)]


def pieces(nodes, pairs):
    """A partition by repeated merging: slow, and obviously right."""
    piece = {node: {node} for node in nodes}
    for a, b in pairs:
        if piece[a] is not piece[b]:
            piece[a] |= piece[b]
            for node in piece[b]:
                piece[node] = piece[a]
    return {frozenset(p) for p in piece.values()}


def groups(labels):
    found = defaultdict(set)
    for i, label in enumerate(labels):
        found[int(label)].add(i)
    return {frozenset(group) for group in found.values()}


@given(case=anything)
def test_every_edge_is_named_once_with_all_its_sides(case):
    faces, n = case
    connectivity = Connectivity(faces, n)
    counted = Counter(tuple(sorted(side)) for side in sides(faces))
    assert [tuple(edge) for edge in connectivity.edges.tolist()] == sorted(counted)
    assert connectivity.sides_of_edge.tolist() == [counted[edge] for edge in sorted(counted)]
    named = connectivity.edges[connectivity.edge_of_side]
    assert [tuple(edge) for edge in named.tolist()] == [tuple(sorted(side)) for side in sides(faces)]
    paired = [
        {s for s, side in enumerate(sides(faces)) if tuple(sorted(side)) == edge}
        for edge in sorted(counted)
        if counted[edge] == 2
    ]
    assert sorted(map(sorted, zip(*connectivity.inner, strict=True))) == sorted(map(sorted, paired))


@given(case=anything)
def test_components_join_what_shares_a_vertex_and_face_components_what_shares_an_edge(case):
    faces, n = case
    connectivity = Connectivity(faces, n)
    count, label = connectivity.components()
    used = set(faces.reshape(-1).tolist())
    assert groups(label) - {frozenset(set(range(n)) - used)} == pieces(used, sides(faces))
    assert count == len(pieces(used, sides(faces)))
    assert all(label[v] == -1 for v in set(range(n)) - used)
    edges = [frozenset(map(frozenset, sides([f]))) for f in faces]
    sharing = [(i, j) for i in range(len(faces)) for j in range(i) if edges[i] & edges[j]]
    count, label = connectivity.face_components()
    assert groups(label) == pieces(range(len(faces)), sharing)
    assert count == len(groups(label))


@given(case=anything)
def test_a_vertex_is_no_manifold_where_its_faces_form_more_than_one_fan(case):
    faces, n = case
    expected = []
    for v in range(n):
        around = [i for i in range(len(faces)) if v in faces[i]]
        others = {i: {int(w) for w in faces[i]} - {v} for i in around}
        fans = pieces(around, [(i, j) for i in around for j in around if others[i] & others[j]])
        expected += [v] if len(fans) > 1 else []
    assert Connectivity(faces, n).non_manifold_vertices().tolist() == expected


@given(case=anything)
def test_after_turning_faces_over_neighbours_agree_and_the_majority_has_stayed(case):
    faces, n = case
    connectivity = Connectivity(faces, n)
    turned, orientable = connectivity.orientation()
    after = Connectivity(np.where(turned[:, None], faces[:, ::-1], faces), n)
    left, right = after.inner
    agree = after.sides[left, 0] != after.sides[right, 0]
    _, piece = components_of(*(side // 3 for side in connectivity.inner), len(faces))
    assert agree[orientable[piece[left // 3]]].all()
    assert not turned[~orientable[piece]].any()
    assert (np.bincount(piece, weights=turned) * 2 <= np.bincount(piece)).all()


@given(mesh=meshes(), data=st.data())
def test_whatever_faces_are_turned_over_an_orientable_mesh_comes_back_oriented(mesh, data):
    faces = mesh.arrays[1]
    flips = np.array(data.draw(st.lists(st.booleans(), min_size=len(faces), max_size=len(faces))))
    _, before = of(mesh).orientation()
    _, after = Connectivity(np.where(flips[:, None], faces[:, ::-1], faces), mesh.num_nodes).orientation()
    assert np.array_equal(before, after)


def test_a_moebius_band_is_not_orientable_and_left_alone():
    turned, orientable = Connectivity(MOEBIUS, 6).orientation()
    assert orientable.tolist() == [False]
    assert not turned.any()
    assert Connectivity(MOEBIUS[:-1], 6).orientation()[1].all()


# Boundary -------------------------------------------------------------------------------------------------------------


@given(case=anything)
def test_chains_walk_every_boundary_side_once(case):
    faces, n = case
    connectivity = Connectivity(faces, n)
    chains = chains_of(connectivity)
    walked = []
    for vertices, closed in chains:
        ring = [*vertices.tolist(), *([int(vertices[0])] if closed else [])]
        walked += [tuple(sorted(pair)) for pair in pairwise(ring)]
    counted = Counter(tuple(sorted(side)) for side in sides(faces))
    assert sorted(walked) == sorted(edge for edge, count in counted.items() if count == 1)
    assert count_chains(connectivity) == len(chains)
    assert [len(vertices) for vertices, _ in chains] == sorted((len(vertices) for vertices, _ in chains), reverse=True)
    if all(count <= 2 for count in counted.values()):
        assert all(closed for _, closed in chains)


def test_three_leaves_on_one_edge_leave_an_open_chain():
    """Each end of the common edge has three boundary edges; two join and one is loose."""
    leaves = np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]])
    chains = chains_of(Connectivity(leaves, 5))
    assert sum(not closed for _, closed in chains) == 1
    assert {v for vertices, _ in chains for v in vertices.tolist()} == {0, 1, 2, 3, 4}


def test_nothing_has_no_boundary():
    empty = Connectivity(np.zeros((0, 3), dtype=np.int64), 0)
    assert chains_of(empty) == []
    assert count_chains(empty) == 0
    assert empty.components()[0] == 0
    assert empty.orientation()[1].tolist() == []
    assert empty.non_manifold_vertices().tolist() == []


def test_edges_of_a_real_mesh_are_its_connectivity(real_mesh):
    assert torch.equal(real_mesh.edges, torch.from_numpy(of(real_mesh).edges.T.copy()))
