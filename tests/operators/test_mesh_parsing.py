"""Tables of numbers, fans of polygons, and errors for a tired person."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.mesh_parsing import Element, MeshFileError, Table, count, lines_of, runs, text_body, triangles, whole

polygons = st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=7), min_size=1, max_size=9)


@given(polygons)
def test_a_polygon_of_k_corners_becomes_a_fan_of_k_minus_2_triangles(polygons):
    sizes, corners = np.array([len(p) for p in polygons]), np.array([c for p in polygons for c in p])
    _, faces = triangles(np.zeros((10, 3)), sizes, corners)
    assert faces.tolist() == [[p[0], p[k], p[k + 1]] for p in polygons for k in range(1, len(p) - 1)]


@pytest.mark.parametrize(
    ("sizes", "corners", "text"),
    [
        ([3, 3], [0, 1, 2, 0, 1, 3], r"face 1: vertex 3 is not among 0 to 2"),
        ([4, 3], [0, 1, 2, -1, 0, 1, 2], r"face 0: vertex -1 is not among 0 to 2"),
        ([3, 2], [0, 1, 2, 0, 1], r"face 1: it has 2 corners, 3 are needed"),
        ([], [], r"the mesh is empty: 3 vertices, 0 faces"),
    ],
)
def test_bad_polygons_are_named(sizes, corners, text):
    with pytest.raises(MeshFileError, match=text):
        triangles(np.zeros((3, 3)), np.array(sizes, np.int64), np.array(corners, np.int64))


@given(st.lists(st.lists(st.floats(allow_nan=False), min_size=1, max_size=4), min_size=1, max_size=6))
def test_a_table_gives_back_its_rows(rows):
    table = Table()
    for number, row in enumerate(rows, 1):
        table.add(number, " ".join(map(repr, row)).encode())
    assert len(table) == len(rows)
    assert [table.values[a:b].tolist() for a, b in zip(table.starts, table.ends, strict=True)] == rows
    assert table.lines.tolist() == list(range(1, len(rows) + 1))


def test_a_word_that_is_no_number_is_quoted_in_part():
    with pytest.raises(MeshFileError, match="line 7: could not convert") as info:
        Table().add(7, b"1 2 " + b"x" * 10**6)
    assert len(str(info.value)) < 200


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_lines_are_counted_whatever_ends_them(ending):
    data = ending.join([b"a # b", b"", b"  ", b"# c", b" d\t"])
    assert list(lines_of(data, comment=b"#")) == [(1, b"a"), (5, b"d")]


def test_runs_are_concatenated():
    assert runs(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 2.0**53])
def test_indices_are_never_rounded(value):
    with pytest.raises(MeshFileError, match="neither an index nor a length"):
        whole(np.array([1.0, value]), "entry {}".format)
    assert whole(np.array([1.0, 2.0**53 - 1]), str).tolist() == [1, 2**53 - 1]


@pytest.mark.parametrize("word", ["-1", "1.0", "", "1" * 19, "٣"])
def test_counts_are_plain_digits(word):
    with pytest.raises(MeshFileError, match="is not a count"):
        count(word, "line 1")


def test_memory_is_a_small_multiple_of_the_text():
    # The shortest lines that hold a number: 2 bytes, for which a list of lines would take a hundred.
    data = b"1\n" * 50_000
    tracemalloc.start()
    columns = text_body(lines_of(data), [Element("e", 50_000, {"a": ("f8", "")})])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(columns["e"]["a"][1]) == 50_000
    assert peak < 60 * len(data)
