"""Triangle meshes from and to PLY, OBJ, OFF, STL and VTK files.

A file is read whole or refused with a `MeshFileError` that says where it is wrong and what to do. Two kinds of
damage leave no trace: an OBJ file cut between lines (it has no counts), a last number that lost digits.

Formats: PLY (Turk 1994), OBJ (Wavefront, appendix B1), OFF (Geomview manual), STL (3D Systems 1989), all in Python
and NumPy; and VTK's .vtk, .vtu and .vtp through its own reader, in a process apart (`operators.vtk_files`).
"""

import os
import re
import stat
from array import array
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.typing import ArrayLike

from operators.mesh_parsing import (
    Element,
    Floats,
    Ints,
    Lines,
    MeshFileError,
    Polygons,
    Table,
    as_float,
    check_finite,
    count,
    failure,
    lines_of,
    polygons_of,
    reject,
    text_body,
    triangles,
    truncated,
    whole,
)
from operators.ply_files import parse_ply, serialize_ply
from operators.vtk_files import VTK_SUFFIXES, read_vtk, serialize_vtk

__all__ = ["MAX_BYTES", "MeshFileError", "parse_mesh", "read_mesh", "write_mesh"]

MAX_BYTES = 2 * 1024**3  # a text takes a few times its size in memory; published meshes are far below

_OS_CURES: dict[type[OSError], str] = {
    FileNotFoundError: "check the spelling and that the folder exists (relative to the current one)",
    IsADirectoryError: "this is a folder: name a mesh file inside it",
    PermissionError: "check the permissions of the file and of its folder",
}
_OBJ_IGNORED = set(b"vn vt vp g o s l p mg usemtl mtllib usemap maplib lod bevel shadow_obj trace_obj".split())
_STL_FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_STL_WORDS = (b"facet", b"outer", b"vertex", b"vertex", b"vertex", b"endloop", b"endfacet")


def read_mesh(path: str | os.PathLike[str]) -> tuple[Floats, Ints]:
    """Read the vertices and triangles of a .ply, .obj, .off, .stl, .vtk, .vtu or .vtp file.

    A polygon c₀ … c_k becomes the fan (c₀ c₁ c₂), (c₀ c₂ c₃), …, exact where it is convex and planar. STL has
    no connectivity, so exactly equal corner positions are welded into one vertex and the vertices are sorted;
    other formats keep their vertices, except that a VTK volume becomes its surface, with that surface's vertices.
    Colours, normals, texture coordinates and other data are ignored.

    Returns:
        vertices (n, 3) float64, finite, and faces (m, 3) int64 in [0, n), with n and m positive.

    Raises:
        MeshFileError: the content is damaged or no mesh, over `MAX_BYTES`, or the suffix is unknown.
        FileNotFoundError, IsADirectoryError, PermissionError: no file can be read there.
        ImportError: a VTK file, and no VTK: `pip install "neuralpde-toolkit[mesh]"`.
    """
    path = Path(path)
    with _explained(path):
        suffix = _known(path, (*_PARSERS, *VTK_SUFFIXES))
        _check_size(path)
        if suffix in VTK_SUFFIXES:
            return triangles(*read_vtk(path))
        return parse_mesh(path.read_bytes(), suffix)


def parse_mesh(content: bytes, suffix: str) -> tuple[Floats, Ints]:
    """What `read_mesh` makes of a file with this content, if its suffix is .ply, .obj, .off or .stl."""
    if not content:
        raise failure("byte 0", "the file is empty")
    return triangles(*_PARSERS[suffix](content))


def write_mesh(path: str | os.PathLike[str], vertices: ArrayLike, faces: ArrayLike) -> None:
    """Write vertices (n, 3) and faces (m, 3) as the suffix says: .ply, .stl and .vtk binary, .obj and .off text.

    The file appears whole or not at all, in place of an older one. Coordinates keep every bit, except in STL,
    which rounds them to float32 and drops the vertices without a face.

    Raises:
        MeshFileError: the suffix is unknown or the arrays are no mesh.
        FileNotFoundError, IsADirectoryError, PermissionError: no file can be written there.
    """
    path = Path(path)
    with _explained(path):
        serialize = _WRITERS[_known(path, _WRITERS)]
        points, corners = np.asarray(vertices, np.float64), np.asarray(faces)
        if points.ndim != 2 or points.shape[1] != 3:
            raise failure("vertices", f"shape {points.shape}", "pass (n, 3), with z = 0 in the plane")
        if corners.ndim != 2 or corners.shape[1] != 3 or corners.dtype.kind not in "iu":
            raise failure("faces", f"{corners.dtype} {corners.shape}", "pass integers of shape (m, 3)")
        sizes = np.full(len(corners), 3)
        _replace(path, serialize(*triangles(points, sizes, corners.astype(np.int64).ravel())))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Put the name of the file into every error, and a cure into those of the operating system."""
    try:
        yield
    except MeshFileError as error:
        error.args = (f"{path}: {error}",)
        raise
    except tuple(_OS_CURES) as error:
        raise type(error)(error.errno, f"{error.strerror}; {_OS_CURES[type(error)]}", str(path)) from error


def _known(path: Path, suffixes: Collection[str]) -> str:
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        raise failure("file name", f"unknown suffix {suffix!r}", f"convert to one of {', '.join(suffixes)}")
    return suffix


def _check_size(path: Path) -> None:
    status = path.stat()
    # A pipe or a device would block for ever; a folder passes, for Python to refuse.
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise failure("file", "this is a pipe or a device", "save it to a regular file first")
    if status.st_size > MAX_BYTES:
        raise failure("file", f"{status.st_size} bytes, over the limit of {MAX_BYTES}", "decimate the mesh")


def _replace(path: Path, content: bytes) -> None:
    """Write beside the target and rename, so that no reader and no crash ever meets half a file."""
    temporary = path.with_name(f".{uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _obj(data: bytes) -> Polygons:
    vertices, faces, seen = Table(), Table(), array("q")
    for number, text in lines_of(data, comment=b"#"):
        keyword, *rest = text.split(None, 1)
        numbers = rest[0] if rest else b""
        if keyword == b"v":
            vertices.add(number, numbers)
        elif keyword == b"f":
            faces.add(number, re.sub(rb"(?<=\d)/\S*", b"", numbers) if b"/" in numbers else numbers)
            seen.append(len(vertices))
        elif keyword not in _OBJ_IGNORED:
            raise failure(f"line {number}", f"unknown keyword {keyword[:40]!r}")
    sizes = faces.ends - faces.starts
    above = np.frombuffer(seen, np.int64)

    def line(corner: int) -> str:
        return f"line {faces.lines[np.searchsorted(faces.ends, corner, side='right')]}"

    corners = whole(faces.values, line)
    reject(corners == 0, lambda i: failure(line(i), "vertex 0, but OBJ counts from 1"))
    # A negative index counts back from the vertices above its line.
    if (corners < 0).any():
        corners = np.where(corners < 0, corners + np.repeat(above, sizes), corners - 1)
    else:
        corners -= 1
    return vertices.points((3, 4, 6, 7)), sizes, corners


def _off(data: bytes) -> Polygons:
    lines = lines_of(data, comment=b"#")
    first, opening = next(lines, (1, b""))
    key, *inline = opening.split(None, 1) or [b""]
    if not re.fullmatch(b"(ST)?C?N?OFF", key):
        raise failure("line 1", f"{key[:40]!r} is not OFF, COFF or NOFF", "convert it to plain OFF")
    number, counts = (first, inline[0]) if inline else next(lines, (1, b""))
    words = counts[:100].decode("ascii", "replace").split()
    if len(words) not in (2, 3):
        raise failure(f"line {number}", "the counts of vertices, faces and edges are due")
    vertex_count, face_count, *_ = [count(word, f"line {number}") for word in words]
    # The other kinds continue a vertex with a normal, colour or texture; any face may continue with a colour.
    vertex = Element("vertex", vertex_count, {axis: ("f8", "") for axis in "xyz"}, loose=key != b"OFF")
    face = Element("face", face_count, {"corners": ("i8", "u8")}, loose=True)
    return polygons_of(text_body(lines, [vertex, face]), "corners")


def _stl(data: bytes) -> Polygons:
    promised = int.from_bytes(data[80:84], "little")
    # Binary files may begin with "solid" too, so only the length decides.
    if len(data) == 84 + 50 * promised:
        corners = np.frombuffer(data, _STL_FACET, offset=84)["corners"] if promised else np.empty(0)
        return _weld(as_float(corners).reshape(-1, 3))
    if data[:4096].lstrip()[:5].lower() == b"solid" and b"\0" not in data:
        return _weld(_stl_text(lines_of(data)))
    if len(data) < 84:
        raise failure(f"byte {len(data)}", "the file is truncated: no 84 bytes of header, and no text STL")
    if len(data) < 84 + 50 * promised:
        raise truncated(f"byte {len(data)}", promised, "facet", (len(data) - 84) // 50)
    raise failure(f"byte {84 + 50 * promised}", f"trailing bytes after the {promised} facets of the header")


def _stl_text(lines: Lines) -> Floats:
    """The corner positions (3m, 3) of a text STL."""
    words, corners, facets, closed = cycle(_STL_WORDS), Table(), 0, False
    number = 1
    for number, text in lines:
        start = text.split(None, 1)[0].lower()
        closed = start.startswith(b"endsolid")
        if closed or start.startswith(b"solid"):
            continue
        facets += 1
        if start != (word := next(words)):
            raise failure(f"line {number}", f"{text[:40]!r} where {word.decode()!r} is due")
        if word == b"vertex":
            corners.add(number, text[6:])
    if facets % len(_STL_WORDS) or not closed:
        raise failure(f"line {number}", "the file is truncated: no endsolid, or half a facet")
    return corners.points((3,))


def _weld(points: Floats) -> Polygons:
    """Triangles from their corner positions (3m, 3), of which equal ones become one vertex."""
    check_finite(points)
    order = np.lexsort(points.T)
    ordered = points[order]
    fresh = np.ones(len(points), np.bool_)
    fresh[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    corners = np.empty(len(points), np.int64)
    corners[order] = np.cumsum(fresh) - 1
    return ordered[fresh], np.full(len(points) // 3, 3), corners


def _to_obj(vertices: Floats, faces: Ints) -> bytes:
    return (_rows("v {!r} {!r} {!r}\n", vertices) + _rows("f {} {} {}\n", faces + 1)).encode()


def _to_off(vertices: Floats, faces: Ints) -> bytes:
    header = f"OFF\n{len(vertices)} {len(faces)} 0\n"
    return (header + _rows("{!r} {!r} {!r}\n", vertices) + _rows("3 {} {} {}\n", faces)).encode()


def _rows(template: str, rows: Floats | Ints) -> str:
    return "".join(template.format(*row) for row in rows.tolist())


def _to_stl(vertices: Floats, faces: Ints) -> bytes:
    facets = np.zeros(len(faces), _STL_FACET)  # a zero normal asks the reader to compute it
    with np.errstate(over="ignore"):
        facets["corners"] = vertices[faces]
    if not np.isfinite(facets["corners"]).all():
        raise failure("vertices", "STL holds float32 only, which overflows", "scale the mesh or write .ply")
    return bytes(80) + len(faces).to_bytes(4, "little") + facets.tobytes()


_PARSERS: dict[str, Callable[[bytes], Polygons]] = {".ply": parse_ply, ".obj": _obj, ".off": _off, ".stl": _stl}
_WRITERS: dict[str, Callable[[Floats, Ints], bytes]] = {
    ".ply": serialize_ply,
    ".obj": _to_obj,
    ".off": _to_off,
    ".stl": _to_stl,
    ".vtk": serialize_vtk,
}
