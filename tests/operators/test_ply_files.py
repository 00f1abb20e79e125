"""PLY headers and binary bodies, at their limits of size and time."""

import time

import numpy as np
import pytest

from operators.mesh_files import parse_mesh, write_mesh
from operators.mesh_parsing import MeshFileError
from operators.ply_files import MAX_HEADER, parse_ply, serialize_ply

TETRAHEDRON = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
TRIANGLES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


def seconds(function, *arguments):
    """The CPU time of the best of three runs: on a busy machine one run may take several times as long."""
    taken = []
    for _ in range(3):
        began = time.process_time()
        function(*arguments)
        taken.append(time.process_time() - began)
    return min(taken)


def refuse(data):
    with pytest.raises(MeshFileError):
        parse_ply(data)


def header(lines):
    return b"ply\nformat ascii 1.0\n" + b"".join(lines) + b"end_header\n"


def test_what_is_written_is_parsed():
    vertices, sizes, corners = parse_ply(serialize_ply(TETRAHEDRON, TRIANGLES))
    assert np.array_equal(vertices, TETRAHEDRON)
    assert sizes.tolist() == [3] * 4
    assert np.array_equal(corners.reshape(-1, 3), TRIANGLES)


@pytest.mark.parametrize(
    "line", [b"property uchar p%d\n", b"element e%d 0\nproperty int x\n", b"comment %d\n", b"element f%d 1\n"]
)
def test_the_time_for_a_header_is_linear_in_its_length(line):
    # As a set was rebuilt for every line, ten thousand lines took as long as a mesh of a million vertices.
    start = [b"element vertex 1\nproperty float x\n"]
    short, long = (header([*start, *(line % k for k in range(count))]) for count in (2_000, 20_000))
    # Linear is a factor of 10, quadratic one of 100 and some seconds.
    assert seconds(refuse, long) < 60 * seconds(refuse, short) + 1.0
    assert len(long) < MAX_HEADER


def test_a_header_is_bounded():
    data = header([b"comment\n" * (MAX_HEADER // 8)]) + b"0 0 0\n"
    with pytest.raises(MeshFileError, match="no header from 'ply' to 'end_header'"):
        parse_ply(data)


def test_mixed_polygons_are_read_one_by_one():
    polygons = [[0, 1, 2], [0, 1, 2, 3], [1, 2, 3]] * 20_000
    body = b"".join(bytes([len(p)]) + np.array(p, "<i4").tobytes() for p in polygons)
    head = b"ply\nformat binary_little_endian 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
    head += b"element face 60000\nproperty list uchar int vertex_indices\nend_header\n"
    data = head + TETRAHEDRON.astype("<f4").tobytes() + body
    began = time.process_time()
    _, faces = parse_mesh(data, ".ply")
    # A quarter of a second; what is quadratic in the polygons takes minutes.
    assert time.process_time() - began < 20
    assert len(faces) == 80_000
    assert faces[:4].tolist() == [[0, 1, 2], [0, 1, 2], [0, 2, 3], [1, 2, 3]]


def test_a_list_in_another_element_is_skipped(tmp_path):
    write_mesh(tmp_path / "mesh.ply", TETRAHEDRON, TRIANGLES)
    data = (tmp_path / "mesh.ply").read_bytes()
    extra = b"element strip 2\nproperty list int short i\nelement face"
    body = data.index(b"end_header\n") + 11 + 96
    strips = b"\2\0\0\0\1\0\2\0" + b"\0\0\0\0"
    vertices, faces = parse_mesh((data[:body] + strips + data[body:]).replace(b"element face", extra, 1), ".ply")
    assert np.array_equal(vertices, TETRAHEDRON)
    assert np.array_equal(faces, TRIANGLES)
