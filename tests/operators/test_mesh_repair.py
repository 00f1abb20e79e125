"""clean_mesh removes each defect, keeps the rest, and its map and counts are right."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import meshes
from operators import DomainError, TriangleMesh, clean_mesh
from operators.mesh_repair import FLATNESS, coincident_vertices, first_defect


@st.composite
def dirty_meshes(draw):
    """A good mesh, the arrays of a spoilt copy of it, and how often each defect was added."""
    mesh = draw(meshes(slivers=False))
    points, faces = (a.copy() for a in mesh.arrays)
    added = dict.fromkeys(["split", "repeat", "flat", "duplicate", "stray"], 0)
    for defect, which in draw(st.lists(st.tuples(st.sampled_from(list(added)), st.integers(0, 99)), max_size=6)):
        added[defect] += 1
        corner, face = faces[which % len(faces), which % 3], mesh.faces[which % len(mesh.faces)].numpy()
        if defect == "split":  # a seam: a face gets a vertex of its own at the same place
            points = np.concatenate([points, points[corner][None]])
            faces[which % len(faces), which % 3] = len(points) - 1
        elif defect == "repeat":
            faces = np.concatenate([faces, [[face[0], face[1], face[0]]]])
        elif defect == "flat":
            points = np.concatenate([points, (points[face[0]] * 0.75 + points[face[1]] * 0.25)[None]])
            faces = np.concatenate([faces, [[face[0], face[1], len(points) - 1]]])
        elif defect == "duplicate":
            faces = np.concatenate([faces, np.roll(face, which)[None] if which % 2 else face[::-1][None]])
        else:
            points = np.concatenate([points, points[:1] + np.array([0, 0, 37 + len(points)])])
    return mesh, points, faces, added


def as_set(faces):
    return sorted(map(tuple, np.sort(faces, axis=1).tolist()))


@given(case=dirty_meshes())
def test_cleaning_gives_back_the_good_mesh_with_the_map_and_the_counts(case):
    mesh, points, faces, added = case
    clean = clean_mesh(points, faces)
    assert first_defect(clean.vertices, clean.faces) is None
    assert coincident_vertices(clean.vertices) == 0
    assert np.array_equal(clean.vertices, mesh.arrays[0])
    assert as_set(clean.faces) == as_set(mesh.arrays[1])
    kept = clean.vertex_map >= 0
    index = {tuple(point): i for i, point in enumerate(mesh.arrays[0].tolist())}
    assert clean.vertex_map.tolist() == [index.get(tuple(point), -1) for point in points.tolist()]
    assert clean.welded == coincident_vertices(points)
    assert clean.degenerate_faces == added["repeat"] + added["flat"]
    assert clean.duplicate_faces == added["duplicate"]
    assert clean.unreferenced == (~kept).sum()


@given(case=dirty_meshes())
def test_cleaning_twice_changes_nothing_more(case):
    once = clean_mesh(case[1], case[2])
    twice = clean_mesh(once.vertices, once.faces)
    assert np.array_equal(twice.vertices, once.vertices)
    assert np.array_equal(twice.faces, once.faces)
    assert np.array_equal(twice.vertex_map, np.arange(len(once.vertices)))
    assert (twice.welded, twice.degenerate_faces, twice.duplicate_faces, twice.unreferenced) == (0, 0, 0, 0)


@given(case=dirty_meshes())
def test_input_is_not_changed(case):
    points, faces = case[1].copy(), case[2].copy()
    clean_mesh(points, faces)
    assert np.array_equal(points, case[1])
    assert np.array_equal(faces, case[2])


def test_zero_and_minus_zero_are_one_place():
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [-0.0, -0.0, 0], [-1, -1, 0]])
    assert clean_mesh(points, np.array([[0, 1, 2], [3, 2, 4]])).welded == 1


def test_a_triangle_is_flat_below_the_stated_share_of_its_longest_edge():
    for height, flat in ((FLATNESS / 2, True), (FLATNESS * 2, False)):
        points = np.array([[0.0, 0, 0], [1, 0, 0], [0.5, height, 0]])
        assert (first_defect(points, np.array([[0, 1, 2]])) is not None) == flat


def test_planar_vertices_stay_planar():
    points = np.array([[0.0, 0], [1, 0], [0, 1], [0, 0]])
    clean = clean_mesh(points, np.array([[3, 1, 2], [0, 1, 1]]))
    assert clean.vertices.shape == (3, 2)
    assert clean.faces.tolist() == [[0, 1, 2]]
    assert TriangleMesh.from_arrays(clean, torch.float32).vertices.dtype == torch.float32


TRIANGLE = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize(
    ("vertices", "faces", "match"),
    [
        (TRIANGLE * np.nan, [[0, 1, 2]], "vertices hold 9 non-finite values, the first"),
        (TRIANGLE * 1e80, [[0, 1, 2]], "change the unit of length"),
        (TRIANGLE, [[0, 1, 3]], "index 3, but there are only 3 points"),
        (TRIANGLE, [[0, -1, 2]], "negative index -1"),
        (TRIANGLE, [[0.0, 1.0, 2.0]], "faces must hold integers"),
        (TRIANGLE, [[0, 1, 2, 0]], "triangulate polygons first"),
        (TRIANGLE, [[0, 1, 1]], "no face is left after cleaning"),
        (TRIANGLE, np.zeros((0, 3), dtype=np.int64), "no face is left after cleaning"),
        (TRIANGLE[:0], [[0, 1, 2]], "vertices is empty"),
        (TRIANGLE.astype(int), [[0, 1, 2]], "float32 or float64, not"),
    ],
)
def test_what_has_no_repair_is_refused(vertices, faces, match):
    with pytest.raises(DomainError, match=match):
        clean_mesh(vertices, faces)
