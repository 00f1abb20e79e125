"""clean_mesh removes each defect, keeps the rest, orients it, and its maps, counts and carried fields are right."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import damaged_meshes
from operators import DomainError, FieldError, TriangleMesh, clean_mesh, icosphere
from operators.mesh_repair import (
    FLATNESS,
    as_tensor,
    coincident_vertices,
    first_defect,
    first_of_equal_rows,
    lost_digits,
)
from operators.topology import Connectivity


def as_set(faces):
    return sorted(map(tuple, np.sort(faces, axis=1).tolist()))


@given(case=damaged_meshes())
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
    assert as_set(clean.vertex_map[faces[clean.face_map]]) == as_set(clean.faces)
    assert len(faces) - len(clean.face_map) == clean.degenerate_faces + clean.duplicate_faces


@given(case=damaged_meshes())
def test_cleaning_twice_changes_nothing_more(case):
    once = clean_mesh(case[1], case[2])
    twice = clean_mesh(once.vertices, once.faces)
    assert np.array_equal(twice.vertices, once.vertices)
    assert np.array_equal(twice.faces, once.faces)
    assert np.array_equal(twice.vertex_map, np.arange(len(once.vertices)))
    removed = (twice.welded, twice.degenerate_faces, twice.duplicate_faces, twice.unreferenced, twice.flipped_faces)
    assert removed == (0, 0, 0, 0, 0)
    assert str(twice).startswith("nothing to repair")


@given(case=damaged_meshes())
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
    assert TriangleMesh.from_clean(clean, torch.float32).vertices.dtype == torch.float32


@given(case=damaged_meshes())
def test_cleaning_orients_what_can_be_oriented_and_says_what_can_not(case):
    clean = clean_mesh(case[1], case[2])
    connectivity = Connectivity(clean.faces, len(clean.vertices))
    turned, orientable = connectivity.orientation()
    assert not turned.any()
    assert clean.orientable == orientable.all()
    assert clean.orientable or "not orientable" in str(clean)
    kept = clean_mesh(case[1], case[2], orient=False)
    assert kept.flipped_faces == 0
    assert np.array_equal(kept.vertex_map[case[2][kept.face_map]][:, 0] >= 0, np.ones(len(kept.faces), dtype=bool))
    assert clean.flipped_faces == (kept.faces != clean.faces).any(axis=1).sum()


# Fields there and back ------------------------------------------------------------------------------------------------


@given(case=damaged_meshes(), dtype=st.sampled_from([torch.float32, torch.float64, torch.complex64]))
def test_fields_of_the_clean_mesh_survive_the_way_back_and_forth(case, dtype):
    """Values are small multiples of ⅛ and groups at most seven, but a third of three thirds may round."""
    clean = clean_mesh(case[1], case[2])
    x = (torch.arange(2 * len(clean.vertices) * 3).reshape(2, -1, 3) / 8).to(dtype)
    original = clean.to_original(x, fill=-1.0)
    assert original.dtype == dtype
    assert torch.equal(clean.to_clean(original, mean=False), x)
    torch.testing.assert_close(clean.to_clean(original), x, rtol=1e-6, atol=0)
    dropped = torch.from_numpy(clean.vertex_map < 0)
    assert (original[:, dropped] == -1).all()
    assert (clean.to_original(x)[:, dropped] == 0).all()


def test_welded_vertices_give_their_mean_or_their_first_value():
    points = np.array([[0.0, 0], [1, 0], [0, 1], [0, 0], [5, 5]])
    clean = clean_mesh(points, np.array([[0, 1, 2], [3, 2, 1]]), orient=False)
    x = torch.tensor([[1.0], [5], [6], [3], [torch.nan]], requires_grad=True)
    assert clean.to_clean(x).flatten().tolist() == [2, 5, 6]
    assert clean.to_clean(x, mean=False).flatten().tolist() == [1, 5, 6]
    clean.to_clean(x).sum().backward()
    assert x.grad.flatten().tolist() == [0.5, 1, 1, 0.5, 0]
    assert clean.to_clean(torch.arange(5)[:, None], mean=False).flatten().tolist() == [0, 1, 2]
    with pytest.raises(FieldError, match=r"no mean of torch\.int64.*mean=False"):
        clean.to_clean(torch.arange(5)[:, None])
    with pytest.raises(FieldError, match=r"shape \(\.\.\., 5, c\), not \(3, 1\)"):
        clean.to_clean(torch.ones(3, 1))
    with pytest.raises(FieldError, match=r"shape \(\.\.\., 3, c\), not \(3,\)"):
        clean.to_original(torch.ones(3))


# Welding within a tolerance -------------------------------------------------------------------------------------------


@given(scale=st.sampled_from([2.0**-30, 1.0, 2.0**30]), seed=st.integers(0, 99))
def test_a_sphere_cut_into_single_triangles_and_shaken_comes_back(scale, seed):
    mesh = icosphere(1)
    points, faces = mesh.arrays
    shaken = points[faces.reshape(-1)] + np.random.default_rng(seed).uniform(-1e-6, 1e-6, (3 * len(faces), 3))
    clean = clean_mesh(shaken * scale, np.arange(3 * len(faces)).reshape(-1, 3), tolerance=1e-5)
    assert len(clean.vertices) == len(points)
    # The mean place is not needed: the first of the welded vertices stays where it was.
    assert np.isin(clean.vertices / scale, shaken).all()
    rank = np.empty(len(points), dtype=np.int64)
    rank[clean.vertex_map] = faces.reshape(-1)
    assert as_set(rank[clean.faces]) == as_set(faces)


@pytest.mark.parametrize("tolerance", [-1e-3, 1.0, np.nan, np.inf])
def test_a_tolerance_that_is_no_share_is_refused(tolerance):
    with pytest.raises(DomainError, match="tolerance is a share of the mesh's size, from 0 to below 1"):
        clean_mesh(TRIANGLE, [[0, 1, 2]], tolerance=tolerance)


def test_a_tolerance_that_would_weld_everything_is_refused_before_the_pairs_are_stored():
    points, faces = icosphere(4).arrays
    with pytest.raises(DomainError, match=r"a tolerance of 0\.9 would weld \d+ neighbours to every vertex"):
        clean_mesh(points, faces, tolerance=0.9)


# Digits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "dtype", "lost"),
    [
        (0.0, torch.float32, None),
        (1e2, torch.float32, None),
        (1e4, torch.float32, "float32"),
        (1e4, torch.float64, None),
        (1e13, torch.float64, "float64"),
    ],
)
def test_digits_lost_far_from_the_origin_are_told(offset, dtype, lost):
    points, faces = icosphere(2).arrays
    rounded = torch.from_numpy(points + offset).to(dtype).double().numpy()
    told = lost_digits(rounded, faces, dtype)
    assert (told is None) if lost is None else f"there {lost} rounds angles and weights by about" in told
    # Most files hold float32, and are read as float64: what is lost stays lost.
    assert (lost_digits(rounded, faces, torch.float64) is None) == (lost is None)


def test_whole_numbers_far_from_the_origin_have_lost_nothing():
    points, faces = icosphere(2).arrays
    assert lost_digits(np.round(points * 64) + 2.0**19, faces, torch.float64) is None


# Helpers --------------------------------------------------------------------------------------------------------------


@given(rows=st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, -0.0, 1.0])), max_size=12))
def test_first_of_equal_rows_is_the_first(rows):
    table = np.array(rows, dtype=np.float64).reshape(-1, 2)
    assert first_of_equal_rows(table).tolist() == [rows.index(row) for row in rows]


@pytest.mark.parametrize("values", ["vertices", None, [[1, 2], [3]], np.array([{}, {}]), {1: 2}, 10**400])
def test_what_is_no_array_of_numbers_is_refused(values):
    with pytest.raises(DomainError, match="vertices must be an array or tensor of numbers, not this"):
        as_tensor(values, "vertices")


def test_any_memory_layout_of_numpy_is_taken_and_copied():
    a = np.arange(6.0).reshape(2, 3)
    frozen = a.copy()
    frozen.setflags(write=False)
    for given_array in (a, a[:, ::-1][:, ::-1], a.astype(">f8"), np.asfortranarray(a), frozen):
        tensor = as_tensor(given_array, "vertices")
        assert tensor.tolist() == a.tolist()
    tensor = as_tensor(a, "vertices")
    a[0, 0] = 7
    assert tensor[0, 0] == 0
    with pytest.raises(DomainError, match=r"must be a dense tensor, not torch\.sparse_coo: convert with \.to_dense"):
        as_tensor(torch.eye(2).to_sparse(), "vertices")


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
        (np.ones((200, 3)), np.zeros((1, 3), dtype=np.int8), "int8, which ends at 127, but there are 200 points.*int64"),
    ],
)
def test_what_has_no_repair_is_refused(vertices, faces, match):
    with pytest.raises(DomainError, match=match):
        clean_mesh(vertices, faces)


@pytest.mark.parametrize(
    ("values", "fill"), [([2**53 + 1], -1), ([2**53 + 1], 0.0), ([True], False), ([1.5], float("nan")), ([7], 255)]
)
def test_dropped_vertices_get_the_fill_and_labels_keep_their_kind(values, fill):
    mesh = icosphere(0)
    points = np.concatenate([mesh.arrays[0], [[5.0, 5.0, 5.0]]])
    x = torch.tensor([values] * 12)
    back = clean_mesh(points, mesh.arrays[1]).to_original(x, fill)
    assert back.dtype == x.dtype
    assert torch.equal(back[:12], x)
    assert torch.equal(back[12], torch.tensor([fill]).to(x.dtype)) or back[12].isnan()


@pytest.mark.parametrize(("dtype", "fill"), [(torch.int64, float("nan")), (torch.int64, 0.5), (torch.uint8, -1), (torch.bool, 2)])
def test_a_fill_that_the_field_can_not_hold_is_refused(dtype, fill):
    clean = clean_mesh(*icosphere(0).arrays)
    with pytest.raises(FieldError, match="fill"):
        clean.to_original(torch.ones(12, 1, dtype=dtype), fill)


def test_a_tolerance_that_leaves_nothing_is_named():
    with pytest.raises(DomainError, match=r"smaller than 0\.4"):
        clean_mesh(*icosphere(1).arrays, tolerance=0.4)


def test_it_shows_what_it_did_and_no_arrays():
    shown = repr(clean_mesh(*icosphere(3).arrays))
    assert shown == "CleanMesh(642 vertices, 1280 faces: nothing to repair)"
