"""The readers give back what was written and refuse, with a place and a cure, everything that is damaged."""

import contextlib
import csv
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from operators import mesh_files, ply_files
from operators.mesh_files import MeshFileError, read_mesh, write_mesh

SUFFIXES = (".ply", ".obj", ".off", ".stl", ".vtk")
DATA = Path(os.environ.get("NEURALPDE_DATA") or Path(__file__).parents[3] / "shared" / "data")
TABLE = next((p for p in (DATA / "meshes.tsv", DATA / "meshes" / "meshes.tsv") if p.is_file()), None)

# The temporary folder is shared by the examples of one test; each of them overwrites its file.
bounded = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

TETRAHEDRON = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
TRIANGLES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])

ASCII_PLY = """ply
format ascii 1.0
comment a square with colours, an edge element and a list of texture coordinates
element vertex 4
property uchar red
property float x
property float y
property double z
element edge 1
property int a
property int b
element face 1
property short flag
property list uchar int vertex_indices
property list uchar float texcoord
end_header
7 0 0 0
7 1 0 0
7 1 1 0
7 0 1 0.5
0 1
9 4 0 1 2 3 2 .5 .5
"""
OBJ = "# square\nmtllib a.mtl\no s\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0.5\nvn 0 0 1\nvt 0 0\ns off\n"
OFF = "OFF # square\n\n4 1 0\n0 0 0\n1 0 0 # second\n1 1 0\n\n0 1 0.5\n4 0 1 2 3 255 0 0\n"
FACET = "facet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 1 1 0\nendloop\nendfacet\n"
STL = f"solid s\n{FACET}{FACET.replace('vertex 1 0 0', 'vertex 0 1 .5')}endsolid s\n"
SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.5]])


@st.composite
def meshes(draw, width=64):
    n = draw(st.integers(1, 12))
    numbers = st.floats(allow_nan=False, allow_infinity=False, width=width)
    vertices = draw(arrays(np.float64, (n, 3), elements=numbers))
    faces = draw(arrays(np.int64, st.tuples(st.integers(1, 20), st.just(3)), elements=st.integers(0, n - 1)))
    return vertices, faces


def read(folder, suffix, content):
    path = folder / f"mesh{suffix}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_mesh(path)


def refuse(folder, suffix, content, *parts):
    """The error that the content raises, which must name the file, give a cure and hold all the parts."""
    with pytest.raises(MeshFileError) as info:
        read(folder, suffix, content)
    text = str(info.value)
    assert f"mesh{suffix}: " in text
    assert "; " in text
    for part in parts:
        assert part in text
    return text


def binary_ply(vertices, polygons, order="<", kind="f4", index="i4", length="u1", extra=b""):
    names = {
        "f4": "float",
        "f8": "double",
        "i4": "int",
        "u4": "uint",
        "u2": "ushort",
        "u1": "uchar",
        "i1": "char",
    }
    header = f"ply\nformat binary_{'little' if order == '<' else 'big'}_endian 1.0\n"
    header += f"element vertex {len(vertices)}\n" + "".join(f"property {names[kind]} {a}\n" for a in "xyz")
    header += f"property uchar quality\nelement face {len(polygons)}\n"
    header += f"property list {names[length]} {names[index]} vertex_index\nend_header\n"
    body = b"".join(np.asarray(v, order + kind).tobytes() + b"\x07" for v in vertices)
    for polygon in polygons:
        body += np.array(len(polygon), order + length).tobytes() + np.array(polygon, order + index).tobytes()
    return header.encode() + body + extra


def valid_content(suffix, folder):
    path = folder / f"valid{suffix}"
    write_mesh(path, TETRAHEDRON, TRIANGLES)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".off", ".PLY"])
@given(mesh=meshes())
@bounded
def test_round_trip_keeps_every_bit(tmp_path, suffix, mesh):
    path = tmp_path / f"mesh{suffix}"
    write_mesh(path, *mesh)
    vertices, faces = read_mesh(path)
    assert (vertices.dtype, faces.dtype) == (np.float64, np.int64)
    assert vertices.tobytes() == mesh[0].tobytes()
    assert np.array_equal(faces, mesh[1])
    assert [p for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


@given(mesh=meshes(width=32))
@bounded
def test_stl_round_trip_keeps_the_triangles_and_welds(tmp_path, mesh):
    write_mesh(tmp_path / "mesh.stl", *mesh)
    vertices, faces = read_mesh(tmp_path / "mesh.stl")
    assert np.array_equal(vertices[faces], mesh[0][mesh[1]])
    assert len(np.unique(vertices + 0.0, axis=0)) == len(vertices) == len(np.unique(faces))


def test_stl_rounds_to_float32(tmp_path):
    write_mesh(tmp_path / "mesh.stl", TETRAHEDRON / 3, TRIANGLES)
    vertices, faces = read_mesh(tmp_path / "mesh.stl")
    assert np.array_equal(vertices[faces], (TETRAHEDRON / 3).astype(np.float32)[TRIANGLES])


@pytest.mark.skipif(
    TABLE is None, reason="no meshes.tsv: set NEURALPDE_DATA to the folder of the real meshes"
)
def test_real_meshes_have_the_sizes_of_their_table():
    with TABLE.open(newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert rows
    for row in rows:
        vertices, faces = read_mesh(TABLE.parent / row["file"])
        assert (row["file"], len(vertices), len(faces)) == (
            row["file"],
            int(row["vertices"]),
            int(row["faces"]),
        )


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".ply", ASCII_PLY),
        (".ply", ASCII_PLY.replace("\n", "\r\n")),
        (".obj", OBJ + "f 1 2 3 4\n"),
        (".obj", OBJ + "f 1/1 2/1 3/1 4/1\n"),
        (".obj", OBJ + "f 1/1/1 2/1/1 3//1 4//1\n"),
        (".obj", OBJ + "f -4 -3 -2 -1\nl 1 2\np 1\ng end\n"),
        (".obj", OBJ.replace("v 0 0 0\n", "v 0 0 0 1 .5 .5\n") + "f\t-4/1 2 -2//1 4 # done\n"),
        (".off", OFF),
        (".off", OFF.replace("OFF # square\n\n4 1 0", "OFF 4 1 0")),
        (".off", OFF.replace("OFF", "COFF").replace("1 1 0\n", "1 1 0 9 9 9 9\n")),
    ],
)
def test_text_variants_give_the_square_as_a_fan(tmp_path, suffix, content):
    vertices, faces = read(tmp_path, suffix, content)
    assert np.array_equal(vertices, SQUARE)
    assert faces.tolist() == [[0, 1, 2], [0, 2, 3]]


def test_negative_obj_indices_count_from_their_own_line(tmp_path):
    vertices, faces = read(tmp_path, ".obj", OBJ + "f -4 -3 -2\nv 9 9 9\nf -4 -3 -2 -1\n")
    assert len(vertices) == 5
    assert faces.tolist() == [[0, 1, 2], [1, 2, 3], [1, 3, 4]]


def test_ascii_stl_is_welded(tmp_path):
    vertices, faces = read(tmp_path, ".stl", STL)
    assert len(vertices) == 4
    triangles = vertices[faces].tolist()
    assert triangles[0] == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert len(triangles) == 2


def test_binary_stl_may_begin_with_solid(tmp_path):
    content = b"solid liar" + valid_content(".stl", tmp_path)[10:]
    assert len(read(tmp_path, ".stl", content)[1]) == 4


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kind", "index", "length"), [("f4", "i4", "u1"), ("f8", "u4", "u2"), ("i4", "u1", "i4")]
)
@pytest.mark.parametrize(
    "polygons", [[[0, 1, 2, 3]], [[0, 1, 2], [0, 1, 2, 3], [3, 2, 1]], [[0, 1, 2], [2, 1, 3]]]
)
def test_binary_ply_of_any_order_and_types(tmp_path, order, kind, index, length, polygons):
    square = np.floor(SQUARE)
    vertices, faces = read(tmp_path, ".ply", binary_ply(square, polygons, order, kind, index, length))
    fan = [[p[0], p[i], p[i + 1]] for p in polygons for i in range(1, len(p) - 1)]
    assert np.array_equal(vertices, square)
    assert faces.tolist() == fan


def test_a_large_binary_ply_is_read_as_a_block(tmp_path):
    n = 200_000
    write_mesh(tmp_path / "large.ply", np.zeros((n, 3)), np.arange(3 * n).reshape(n, 3) % n)
    start = time.process_time()
    assert len(read_mesh(tmp_path / "large.ply")[1]) == n
    # A twentieth of a second; face by face it would be several. CPU time, so that a busy machine does not count.
    assert time.process_time() - start < 1


PLY = ASCII_PLY.replace("7 1 1 0\n", "7 {} 1 0\n")
BAD = {
    "empty": (".ply", "", "empty"),
    "no header": (".ply", "version https://git-lfs", "line 1", "version https"),
    "no end_header": (".ply", "ply\nformat ascii 1.0\n", "end_header"),
    "version": (".ply", ASCII_PLY.replace("ascii 1.0", "ascii 2.0"), "line 2", "format ascii 2.0"),
    "no format": (".ply", ASCII_PLY.replace("format ascii 1.0\n", ""), "format"),
    "type": (".ply", ASCII_PLY.replace("float x", "half x"), "line 6", "property half x"),
    "float length": (".ply", ASCII_PLY.replace("list uchar int", "list float int"), "line 14"),
    "twice": (".ply", ASCII_PLY.replace("float y", "float x"), "line 7"),
    "negative count": (".ply", ASCII_PLY.replace("vertex 4", "vertex -4"), "line 4", "'-4' is not a count"),
    "digits": (".ply", ASCII_PLY.replace("vertex 4", "vertex " + "9" * 9999), "line 4", "not a count"),
    "no property": (".ply", ASCII_PLY.replace("edge 1\n", "edge 1\nelement e 1\n"), "properties"),
    "no z": (".ply", ASCII_PLY.replace("double z", "double w"), "x, y, z"),
    "list x": (".ply", ASCII_PLY.replace("float x", "list uchar int x"), "line 18"),
    "no faces": (".ply", ASCII_PLY.replace("vertex_indices", "indices"), "vertex_indices or vertex_index"),
    "lying count": (
        ".ply",
        ASCII_PLY.replace("vertex 4", "vertex 1000000000000"),
        "1000000000000",
        "truncated",
    ),
    "cut": (".ply", ASCII_PLY[:-24], "truncated", "1 edge", "after 0", "download"),
    "trailing line": (".ply", ASCII_PLY + "1 2 3\n", "line 23", "trailing"),
    "word": (".ply", PLY.format("1O"), "line 19", "1O"),
    "underscore": (".ply", PLY.format("1_0"), "line 19", "1_0"),
    "missing number": (".ply", PLY.format(""), "line 19", "1 more", "0 follow"),
    "surplus number": (".ply", PLY.format("1 1"), "line 19", "too many"),
    "nan": (".ply", PLY.format("nan"), "vertex 2", "not finite", "repair"),
    "inf": (".ply", PLY.format("1e999"), "vertex 2", "not finite"),
    "long list": (".ply", ASCII_PLY.replace("9 4 0", "9 40 0"), "line 22", "40 more"),
    "negative list": (".ply", ASCII_PLY.replace("9 4 0", "9 -4 0"), "line 22", "-4 more"),
    "half index": (".ply", ASCII_PLY.replace("0 1 2 3 2", "0 1 2.5 3 2"), "2.5", "index"),
    "huge index": (".ply", ASCII_PLY.replace("0 1 2 3 2", "0 1 1e300 3 2"), "1e+300"),
    "range": (".ply", ASCII_PLY.replace("0 1 2 3 2", "0 1 4 3 2"), "face 0", "vertex 4", "0 to 3"),
    "negative": (".ply", ASCII_PLY.replace("0 1 2 3 2", "0 1 -1 3 2"), "face 0", "vertex -1"),
    "binary range": (".ply", binary_ply(SQUARE, [[0, 1, 2], [0, 1, 4]]), "face 1", "vertex 4"),
    "binary digon": (".ply", binary_ply(SQUARE, [[0, 1, 2], [0, 1]]), "face 1", "2 corners"),
    "binary nan": (".ply", binary_ply(SQUARE * [1, np.nan, 1], [[0, 1, 2]]), "vertex 0", "nan"),
    "binary cut": (".ply", binary_ply(SQUARE, [[0, 1, 2], [0, 1, 3]])[:-3], "2 face", "after 1", "truncated"),
    "binary trailing": (".ply", binary_ply(SQUARE, [[0, 1, 2]], extra=b"xy"), "2 trailing bytes", "byte "),
    "binary lie": (
        ".ply",
        binary_ply(SQUARE, [[0, 1, 2]]).replace(b"vertex 4", b"vertex 1000000000000"),
        "promises 1000000000000 vertex entries",
        "end after 5",
    ),
    "binary list": (
        ".ply",
        binary_ply(SQUARE, [[0, 1, 2]], length="i1").replace(b"\x03\0\0\0\0", b"\xff\0\0\0\0"),
        "face 0 (byte",
        "-1 values",
    ),
    "empty mesh": (".ply", binary_ply(SQUARE, []), "the mesh is empty: 4 vertices, 0 faces"),
    "obj 2-d": (".obj", "v 0 0 0\nv 1 0\n", "line 2", "2 numbers", "z = 0"),
    "obj word": (".obj", OBJ + "f 1 b 3\n", "line 11", "'b'"),
    "obj slash": (".obj", OBJ + "f /1 2 3 4\n", "line 11", "/1"),
    "obj zero": (".obj", OBJ + "f 0 1 2\n", "line 11", "counts from 1"),
    "obj range": (".obj", OBJ + "f 1 2 5\n", "face 0", "vertex 4 is not among 0 to 3"),
    "obj far back": (".obj", OBJ + "f 1 2 -5\n", "face 0", "vertex -1"),
    "obj digon": (".obj", OBJ + "f 1 2 3\nf 1 2\n", "face 1", "2 corners"),
    "obj keyword": (".obj", OBJ + "curv 1 2 3\n", "line 11", "curv"),
    "obj points": (".obj", OBJ, "4 vertices, 0 faces", "point cloud"),
    "obj nothing": (".obj", "# nothing\n", "0 vertices, 0 faces"),
    "obj nan": (".obj", OBJ + "v nan 0 0\nf 1 2 3\n", "vertex 4", "not finite"),
    "off key": (".off", "4OFF\n", "line 1", "4OFF"),
    "off binary": (".off", "OFF BINARY\n4 1 0\n", "line 1", "counts"),
    "off blank": (".off", "# only\n", "line 1"),
    "off alone": (".off", "OFF\n", "line 1", "counts"),
    "off counts": (".off", OFF.replace("4 1 0\n", "4\n"), "line 3", "counts"),
    "off count": (".off", OFF.replace("4 1 0\n", "4 x 0\n"), "line 3", "'x' is not a count"),
    "off lie": (".off", OFF.replace("4 1 0\n", "4 1000000000000 0\n"), "1000000000000 face", "after 1"),
    "off trailing": (".off", OFF + "3 0 1 2\n", "line 10", "trailing"),
    "off 2-d": (".off", OFF.replace("1 1 0\n", "1 1\n"), "line 6", "0 follow"),
    "off colour": (".off", OFF.replace("1 1 0\n", "1 1 0 9\n"), "line 6", "too many"),
    "off empty": (".off", "OFF\n0 0 0\n", "0 vertices, 0 faces"),
    "off range": (".off", OFF.replace("1 2 3 255", "1 2 4 255"), "face 0", "vertex 4"),
    "off digon": (".off", OFF.replace("4 0 1 2 3 255", "2 0 1 255"), "face 0", "2 corners"),
    "off nan": (".off", OFF.replace("1 1 0\n", "1 nan 0\n"), "vertex 2"),
    "stl cut": (".stl", STL[: -len("endsolid s\n")], "truncated", "endsolid"),
    "stl half facet": (".stl", STL.replace("endfacet\nendsolid", "endsolid"), "truncated", "half a facet"),
    "stl order": (".stl", STL.replace("outer loop\n", "", 1), "line 3", "'outer' is due"),
    "stl 2-d": (".stl", STL.replace("vertex 1 0 0", "vertex 1 0"), "line 5", "2 numbers"),
    "stl nan": (".stl", STL.replace("vertex 1 0 0", "vertex 1 nan 0"), "vertex 1", "not finite"),
    "stl none": (".stl", "solid s\nendsolid s\n", "0 vertices, 0 faces"),
    "stl binary none": (".stl", bytes(84), "0 vertices, 0 faces"),
    "stl binary cut": (".stl", bytes(80) + b"\x02\0\0\0" + bytes(99), "2 facet", "after 1", "truncated"),
    "stl binary lie": (".stl", bytes(80) + b"\xff\xff\xff\xff" + bytes(50), "4294967295", "after 1"),
    "stl binary trailing": (".stl", bytes(80) + b"\x01\0\0\0" + bytes(51), "byte 134", "trailing"),
    "stl short": (".stl", b"\0" * 10, "byte 10", "truncated", "84 bytes"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_content_is_refused_with_its_place_and_a_cure(tmp_path, case):
    suffix, content, *parts = BAD[case]
    refuse(tmp_path, suffix, content, *parts)


def test_list_typed_coordinates_are_refused(tmp_path):
    # Every vertex line is well formed, but x is a list of two numbers.
    text = ASCII_PLY.replace("float x", "list uchar int x").replace("\n7 ", "\n7 2 1 ")
    refuse(tmp_path, ".ply", text, "numbers x, y, z")


def test_a_truncated_vertex_block_gives_both_counts(tmp_path):
    content = binary_ply(np.zeros((842, 3)), [[0, 1, 2]])
    end = content.index(b"end_header\n") + len(b"end_header\n")
    text = refuse(tmp_path, ".ply", content[: end + 310 * 13 + 5])
    assert "the file is truncated: the header promises 842 vertex entries, the data end after 310" in text


def test_a_lying_count_is_refused_before_an_entry_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(ply_files, "_walk", lambda *_: pytest.fail("an entry was read"))
    refuse(tmp_path, *BAD["binary lie"])


def test_signalling_nan_is_refused_without_a_warning(tmp_path):
    content = binary_ply(SQUARE, [[0, 1, 2]])
    end = content.index(b"end_header\n") + len(b"end_header\n")
    refuse(tmp_path, ".ply", content[:end] + b"\x01\0\xa0\x7f" + content[end + 4 :], "vertex 0", "nan")


def test_operating_system_errors_keep_their_type_and_gain_a_cure(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"check the spelling.*absent\.ply"):
        read_mesh(tmp_path / "absent.ply")
    (tmp_path / "folder.ply").mkdir()
    with pytest.raises(IsADirectoryError, match=r"name a mesh file inside it.*folder\.ply"):
        read_mesh(tmp_path / "folder.ply")
    with pytest.raises(IsADirectoryError, match=r"name a mesh file inside it.*folder\.ply"):
        write_mesh(tmp_path / "folder.ply", TETRAHEDRON, TRIANGLES)
    with pytest.raises(FileNotFoundError, match=r"folder exists.*mesh\.ply"):
        write_mesh(tmp_path / "absent" / "mesh.ply", TETRAHEDRON, TRIANGLES)
    write_mesh(tmp_path / "mesh.ply", TETRAHEDRON, TRIANGLES)

    def forbid(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", forbid)
    with pytest.raises(PermissionError, match=r"check the permissions.*mesh\.ply"):
        read_mesh(tmp_path / "mesh.ply")


@pytest.mark.parametrize("name", ["mesh.vts", "mesh", "mesh.ply.gz"])
def test_unknown_suffix_lists_the_known_ones(tmp_path, name):
    for call in (
        lambda: read_mesh(tmp_path / name),
        lambda: write_mesh(tmp_path / name, TETRAHEDRON, TRIANGLES),
    ):
        with pytest.raises(
            MeshFileError, match=re.escape("unknown suffix") + r".*\.ply, \.obj, \.off, \.stl"
        ):
            call()
    assert list(tmp_path.iterdir()) == []


def test_large_files_and_pipes_are_refused_unread(tmp_path, monkeypatch):
    write_mesh(tmp_path / "mesh.ply", TETRAHEDRON, TRIANGLES)
    monkeypatch.setattr(mesh_files, "MAX_BYTES", 100)
    with pytest.raises(MeshFileError, match="over the limit of 100"):
        read_mesh(tmp_path / "mesh.ply")
    os.mkfifo(tmp_path / "pipe.ply")
    with pytest.raises(MeshFileError, match="pipe"):
        read_mesh(tmp_path / "pipe.ply")


@pytest.mark.parametrize(
    ("vertices", "faces", "part"),
    [
        (TETRAHEDRON[:, :2], TRIANGLES, r"shape \(4, 2\)"),
        (TETRAHEDRON, TRIANGLES * 1.0, "float64"),
        (TETRAHEDRON, TRIANGLES[:, :2], r"\(m, 3\)"),
        (TETRAHEDRON, TRIANGLES + 1, "vertex 4"),
        (TETRAHEDRON * np.nan, TRIANGLES, "not finite"),
        (TETRAHEDRON, TRIANGLES[:0], "empty"),
        (TETRAHEDRON[:0], TRIANGLES, "empty"),
    ],
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_arrays_that_are_no_mesh_leave_the_old_file_alone(tmp_path, suffix, vertices, faces, part):
    path = tmp_path / f"mesh{suffix}"
    path.write_text("old")
    with pytest.raises(MeshFileError, match=part):
        write_mesh(path, vertices, faces)
    assert path.read_text() == "old"


def test_stl_refuses_what_float32_cannot_hold(tmp_path):
    with pytest.raises(MeshFileError, match="float32"):
        write_mesh(tmp_path / "mesh.stl", TETRAHEDRON * 1e300, TRIANGLES)


def test_a_failed_write_leaves_no_temporary_file(tmp_path, monkeypatch):
    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_mesh(tmp_path / "mesh.ply", TETRAHEDRON, TRIANGLES)
    assert list(tmp_path.iterdir()) == []


SEEDS = {
    "ply": (".ply", None),
    "mixed ply": (".ply", binary_ply(SQUARE, [[0, 1, 2], [0, 1, 2, 3]])),
    "big endian ply": (".ply", binary_ply(SQUARE, [[0, 1, 2, 3]], ">", "f8", "u2", "i4")),
    "ascii ply": (".ply", ASCII_PLY.encode()),
    "obj": (".obj", (OBJ + "f 1/1 2/1 3/1 4/1\nf -1 -2 -3\n").encode()),
    "off": (".off", OFF.encode()),
    "stl": (".stl", None),
    "ascii stl": (".stl", STL.encode()),
}


def mutated(data, content):
    """The content, cut, with some bytes changed, or with another number somewhere in its first lines."""
    kind = data.draw(st.sampled_from(["cut", "bytes", "number"]))
    if kind == "cut":
        return content[: data.draw(st.integers(0, len(content) - 1))]
    if kind == "bytes":
        changed = bytearray(content)
        for _ in range(data.draw(st.integers(1, 4))):
            changed[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        return bytes(changed)
    numbers = list(re.finditer(rb"\d+", content[:400])) or [re.match(b"", content)]
    place = data.draw(st.sampled_from(numbers))
    number = data.draw(st.one_of(st.integers(-2, 20), st.integers(0, 10**13)))
    return content[: place.start()] + str(number).encode() + content[place.end() :]


@pytest.mark.parametrize("seed", SEEDS)
@given(data=st.data())
@settings(bounded, max_examples=150)
def test_damage_gives_a_valid_mesh_or_a_mesh_file_error(tmp_path, seed, data):
    suffix, content = SEEDS[seed]
    damaged = mutated(data, content or valid_content(suffix, tmp_path))
    start = time.process_time()
    with contextlib.suppress(MeshFileError):
        vertices, faces = read(tmp_path, suffix, damaged)
        assert len(vertices)
        assert len(faces)
        assert np.isfinite(vertices).all()
        assert 0 <= faces.min() <= faces.max() < len(vertices)
    assert time.process_time() - start < 10  # milliseconds, if nothing hangs


@pytest.mark.parametrize(
    "seed", ["ply", "mixed ply", "big endian ply", "ascii ply", "off", "stl", "ascii stl"]
)
def test_every_cut_of_a_counted_format_is_refused(tmp_path, seed):
    suffix, content = SEEDS[seed]
    content = content or valid_content(suffix, tmp_path)
    # A text is whole without its last line end, and its last number may be shorter; an OFF face is whole
    # without its colour, and endsolid without the name of the solid.
    hidden = {".off": len(" 255 0 0\n"), ".stl": len(" s\n")}.get(suffix, 3) if content.endswith(b"\n") else 0
    for end in range(len(content) - hidden):
        refuse(tmp_path, suffix, content[:end])
