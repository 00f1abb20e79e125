"""Triangle meshes from and to PLY, OBJ, OFF and STL files, in pure Python and NumPy.

A file is read whole or refused with a `MeshFileError` that says where it is wrong and what to do. Counts are
compared with the bytes that follow before anything is allocated, so a lying header costs nothing. Two kinds
of damage leave no trace: an OBJ file cut between lines (it has no counts), a last number that lost digits.

Formats: PLY (Turk 1994), OBJ (Wavefront, appendix B1), OFF (Geomview manual), STL (3D Systems 1989).
"""

import os
import re
import stat
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar
from uuid import uuid4

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["MAX_BYTES", "MeshFileError", "read_mesh", "write_mesh"]

MAX_BYTES = 2 * 1024**3  # a text takes about ten times its size in memory; published meshes are far below

T = TypeVar("T")
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Polygons = tuple[Floats, Ints, Ints]  # vertices (n, 3), number of corners (p,), the corners back to back
Column = tuple[Ints, NDArray[Any]]  # a property: number of values of each entry (p,), the values back to back
Columns = dict[str, dict[str, Column]]  # by element and property
Lines = list[tuple[int, bytes]]  # line numbers and stripped lines, none of them blank

_OS_CURES: dict[type[OSError], str] = {
    FileNotFoundError: "check the spelling and that the folder exists (relative to the current one)",
    IsADirectoryError: "this is a folder: name a mesh file inside it",
    PermissionError: "check the permissions of the file and of its folder",
}
_PLY_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_PLY_TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"}
_PLY_TYPES |= {"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"}
_PLY_TYPES |= {"float": "f4", "float32": "f4", "double": "f8", "float64": "f8"}
_OBJ_IGNORED = set(
    b"vn vt vp g o s l p mg usemtl mtllib usemap maplib lod bevel shadow_obj trace_obj".split()
)
_STL_FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_STL_WORDS = (b"facet", b"outer", b"vertex", b"vertex", b"vertex", b"endloop", b"endfacet")


class MeshFileError(ValueError):
    """A mesh file cannot be read or written; the text names the file, the place, the cause and the cure."""


def read_mesh(path: str | os.PathLike[str]) -> tuple[Floats, Ints]:
    """Read the vertices and triangles of a .ply, .obj, .off or .stl file.

    A polygon c₀ … c_k becomes the fan (c₀ c₁ c₂), (c₀ c₂ c₃), …, exact where it is convex and planar. STL has
    no connectivity, so exactly equal corner positions are welded into one vertex and the vertices are sorted;
    other formats keep their vertices. Colours, normals and texture coordinates are ignored.

    Returns:
        vertices (n, 3) float64, finite, and faces (m, 3) int64 in [0, n), with n and m positive.

    Raises:
        MeshFileError: the content is damaged or no mesh, over `MAX_BYTES`, or the suffix is unknown.
        FileNotFoundError, IsADirectoryError, PermissionError: no file can be read there.
    """
    path = Path(path)
    with _explained(path):
        return _triangles(*_by_suffix(_READERS, path)(_contents(path)))


def write_mesh(path: str | os.PathLike[str], vertices: ArrayLike, faces: ArrayLike) -> None:
    """Write vertices (n, 3) and faces (m, 3) as the suffix says: .ply and .stl binary, .obj and .off text.

    The file appears whole or not at all, in place of an older one. Coordinates keep every bit, except in STL,
    which rounds them to float32 and drops the vertices without a face.

    Raises:
        MeshFileError: the suffix is unknown or the arrays are no mesh.
        FileNotFoundError, IsADirectoryError, PermissionError: no file can be written there.
    """
    path = Path(path)
    with _explained(path):
        serialize = _by_suffix(_WRITERS, path)
        points, triangles = np.asarray(vertices, np.float64), np.asarray(faces)
        if points.ndim != 2 or points.shape[1] != 3:
            raise _error("vertices", f"shape {points.shape}", "pass (n, 3), with z = 0 in the plane")
        if triangles.ndim != 2 or triangles.shape[1] != 3 or triangles.dtype.kind not in "iu":
            raise _error("faces", f"{triangles.dtype} {triangles.shape}", "pass integers of shape (m, 3)")
        corners = triangles.astype(np.int64).ravel()
        _replace(path, serialize(*_triangles(points, np.full(len(triangles), 3), corners)))


def _error(where: str, cause: str, cure: str = "download or export it again") -> MeshFileError:
    return MeshFileError(f"{where}: {cause}; {cure}")


def _truncated(where: str, promised: int, kind: str, found: int) -> MeshFileError:
    promise = f"the header promises {promised} {kind} entries"
    return _error(where, f"the file is truncated: {promise}, the data end after {found}")


def _reject(bad: NDArray[np.bool_], explain: Callable[[int], MeshFileError]) -> None:
    """Raise what `explain` says of the first bad entry."""
    if bad.any():
        raise explain(int(bad.argmax()))


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


def _by_suffix(functions: Mapping[str, T], path: Path) -> T:
    suffix = path.suffix.lower()
    if suffix not in functions:
        raise _error("file name", f"unknown suffix {suffix!r}", f"convert to one of {', '.join(functions)}")
    return functions[suffix]


def _contents(path: Path) -> bytes:
    status = path.stat()
    # A pipe or a device would block for ever; a folder passes, for Python to refuse.
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise _error("file", "this is a pipe or a device", "save it to a regular file first")
    if status.st_size > MAX_BYTES:
        raise _error("file", f"{status.st_size} bytes, over the limit of {MAX_BYTES}", "decimate the mesh")
    if content := path.read_bytes():
        return content
    raise _error("byte 0", "the file is empty")


def _replace(path: Path, content: bytes) -> None:
    """Write beside the target and rename, so that no reader and no crash ever meets half a file."""
    temporary = path.with_name(f".{uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _triangles(vertices: Floats, sizes: Ints, corners: Ints) -> tuple[Floats, Ints]:
    """Check the polygons and cut each into a fan."""
    if not len(vertices) or not len(sizes):
        cause = f"the mesh is empty: {len(vertices)} vertices, {len(sizes)} faces"
        raise _error("end of file", cause, "export it with its faces; a point cloud is no mesh")
    _check_finite(vertices)
    last, cure = len(vertices) - 1, "all counted from 0; repair or export it again"
    _reject(sizes < 3, lambda i: _error(f"face {i}", f"it has {sizes[i]} corners, 3 are needed", cure))
    owner = np.repeat(np.arange(len(sizes)), sizes)
    outside = (corners < 0) | (corners > last)
    cause = "vertex {} is not among 0 to {}"
    _reject(outside, lambda i: _error(f"face {owner[i]}", cause.format(corners[i], last), cure))
    begin = np.cumsum(sizes) - sizes
    first, second = np.repeat(begin, sizes - 2), _runs(begin + 1, sizes - 2)
    return vertices, np.stack([corners[first], corners[second], corners[second + 1]], axis=1)


def _check_finite(vertices: Floats) -> None:
    cause, cure = "the position {} is not finite", "counted from 0; repair or remove this vertex"
    wrong = ~np.all(np.isfinite(vertices), axis=1)
    _reject(wrong, lambda i: _error(f"vertex {i}", cause.format(vertices[i].tolist()), cure))


def _runs(starts: Ints, sizes: Ints) -> Ints:
    """The runs starts[i], starts[i] + 1, … of sizes[i] integers, back to back."""
    return np.repeat(starts - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))


def _as_float(values: NDArray[Any]) -> Floats:
    # Damaged bytes may spell a signalling NaN, of which NumPy warns; it stays a NaN and is refused as such.
    with np.errstate(invalid="ignore"):
        return values.astype(np.float64)


def _whole(values: NDArray[Any], where: Callable[[int], str]) -> Ints:
    """Integers from numbers that must be integers; above 2⁵³ floats skip some."""
    numbers = _as_float(values)
    wrong = (np.abs(numbers) >= 2**53) | (np.floor(numbers) != numbers)
    _reject(wrong, lambda i: _error(where(i), f"{numbers[i]} is neither an index nor a length"))
    return numbers.astype(np.int64)


def _count(word: str, where: str) -> int:
    if re.fullmatch("[0-9]{1,18}", word):
        return int(word)
    raise _error(where, f"{word[:40]!r} is not a count")


def _lines(data: bytes, first: int = 1, comment: bytes = b"\n") -> Lines:
    texts = (text.partition(comment)[0].strip() for text in data.splitlines())
    return [(number, text) for number, text in enumerate(texts, first) if text]


class _Table(NamedTuple):
    """The numbers of ragged lines: line lines[i] of the file holds values[starts[i]:ends[i]]."""

    values: Floats
    starts: Ints
    ends: Ints
    lines: Ints

    def take(self, cursor: Ints, listed: bool) -> tuple[Column, Ints]:
        """From every line, at its cursor, a number or a list of them; and the cursors behind."""
        sizes = np.ones_like(cursor)
        if listed:
            (_, lengths), cursor = self.take(cursor, listed=False)
            sizes = _whole(lengths, lambda i: f"line {self.lines[i]}")
        left = self.ends - cursor
        cause = "{} more numbers are due on this line, {} follow"
        lacks = (sizes < 0) | (sizes > left)
        _reject(lacks, lambda i: _error(f"line {self.lines[i]}", cause.format(sizes[i], left[i])))
        return (sizes, self.values[_runs(cursor, sizes)]), cursor + sizes

    def points(self, widths: tuple[int, ...]) -> Floats:
        """The first three numbers of every line, (n, 3), if it has one of the allowed counts of numbers."""
        found = self.ends - self.starts
        cure = "give x, y and z (z = 0 in the plane) or export it again"
        wrong = ~np.isin(found, widths)
        _reject(wrong, lambda i: _error(f"line {self.lines[i]}", f"a vertex with {found[i]} numbers", cure))
        return np.stack([self.values[self.starts + axis] for axis in range(3)], axis=1)


def _table(lines: Lines) -> _Table:
    """Parse every word of the lines as a number."""
    values, widths = array("d"), np.empty(len(lines), np.int64)
    for i, (number, text) in enumerate(lines):
        words = text.split()
        widths[i] = len(words)
        try:
            values.extend(map(float, words))
        except ValueError as error:
            raise _error(f"line {number}", str(error)) from None
        if b"_" in text:  # Python takes 1_000 for a number, no mesh format does
            raise _error(f"line {number}", f"{text[:40]!r} has an underscore in a number")
    ends = np.cumsum(widths)
    return _Table(np.array(values), ends - widths, ends, np.array([number for number, _ in lines], np.int64))


class _Element(NamedTuple):
    """A block of entries; a property is its name, its NumPy type, and, of a list, the type of its length."""

    name: str
    entries: int
    properties: list[tuple[str, str, str]]
    loose: bool = False  # lines may go on after the last property


def _text_body(lines: Lines, elements: list[_Element]) -> Columns:
    """Read the elements one after the other, one entry a line."""
    columns = {}
    for element in elements:
        if element.entries > len(lines):
            raise _truncated("end of file", element.entries, element.name, len(lines))
        columns[element.name] = _text_entries(lines[: element.entries], element)
        lines = lines[element.entries :]
    if lines:
        raise _error(f"line {lines[0][0]}", "trailing lines after the last entry that the header promises")
    return columns


def _text_entries(lines: Lines, element: _Element) -> dict[str, Column]:
    table = _table(lines)
    cursor, columns = table.starts, dict[str, Column]()
    for name, _, length in element.properties:
        columns[name], cursor = table.take(cursor, listed=bool(length))
    surplus = (cursor < table.ends) & (not element.loose)
    _reject(surplus, lambda i: _error(f"line {table.lines[i]}", f"too many numbers for a {element.name}"))
    return columns


def _binary_body(data: bytes, start: int, order: str, elements: list[_Element]) -> Columns:
    """Read the elements one after the other from byte `start` on."""
    columns = {}
    for element in elements:
        # The smallest entry has only empty lists.
        least = sum(int((length or kind)[1]) for _, kind, length in element.properties)
        fitting = (len(data) - start) // least
        if element.entries > fitting:
            raise _truncated(f"byte {len(data)}", element.entries, element.name, fitting)
        columns[element.name], start = _binary_entries(data, start, order, element)
    if start < len(data):
        raise _error(f"byte {start}", f"{len(data) - start} trailing bytes after the entries of the header")
    return columns


def _binary_entries(data: bytes, start: int, order: str, element: _Element) -> tuple[dict[str, Column], int]:
    """Read all entries at once if their lists are as long as those of the first, else one by one."""
    first, end = _walk(data, start, order, element._replace(entries=min(element.entries, 1)))
    stop = start + element.entries * (end - start)
    if not start < stop <= len(data):
        return _walk(data, start, order, element)
    layout: list[Any] = []
    for name, kind, length in element.properties:
        layout += [(f"length of {name}", order + length)] if length else []
        layout += [(name, order + kind, (int(first[name][0][0]),))]
    records = np.frombuffer(data, np.dtype(layout), element.entries, start)
    for name, _, length in element.properties:
        if length and np.any(records[f"length of {name}"] != first[name][0]):
            return _walk(data, start, order, element)
    sizes = {name: np.repeat(column[0], element.entries) for name, column in first.items()}
    return {name: (sizes[name], records[name].ravel()) for name in first}, stop


def _walk(data: bytes, start: int, order: str, element: _Element) -> tuple[dict[str, Column], int]:
    """Read entry by entry, whatever the lengths of their lists."""
    sizes: dict[str, list[int]] = {name: [] for name, _, _ in element.properties}
    values = {name: bytearray() for name in sizes}
    endian: Literal["little", "big"] = "little" if order == "<" else "big"
    for index in range(element.entries):
        for name, kind, length in element.properties:
            size, begin = 1, start + int(length[1:] or 0)
            if length:
                size = int.from_bytes(data[start:begin], endian, signed=length[0] == "i")
            start = begin + size * int(kind[1])
            if size < 0:
                raise _error(f"{element.name} {index} (byte {begin})", f"a list of {size} values")
            if start > len(data):
                raise _truncated(f"byte {len(data)}", element.entries, element.name, index)
            sizes[name].append(size)
            values[name] += data[begin:start]
    columns = {}
    for name, kind, _ in element.properties:
        columns[name] = np.array(sizes[name], np.int64), np.frombuffer(values[name], order + kind)
    return columns, start


def _ply(data: bytes) -> Polygons:
    opening = re.match(rb"ply[ \t]*\r?\n", data)
    closing = re.search(rb"\nend_header[ \t]*\r?\n", data)
    if not opening or not closing:
        raise _error("line 1", f"no header from 'ply' to 'end_header', it begins with {data[:24]!r}")
    header = data[: closing.start()].decode("ascii", "replace").split("\n")
    order, elements = _ply_header(header)
    if order:
        columns = _binary_body(data, closing.end(), order, elements)
    else:
        columns = _text_body(_lines(data[closing.end() :], len(header) + 2), elements)
    vertex, face = columns.get("vertex", {}), columns.get("face", {})
    indices = "vertex_indices" if "vertex_indices" in face else "vertex_index"
    scalars = {name for name, (sizes, _) in vertex.items() if (sizes == 1).all()}
    if not {"x", "y", "z"} <= scalars or indices not in face:
        cause = "a vertex needs the numbers x, y, z and a face the list vertex_indices or vertex_index"
        raise _error("header", cause, "export it as a mesh with faces")
    return _polygons(columns, indices)


def _ply_header(header: list[str]) -> tuple[str, list[_Element]]:
    """The byte order, empty for text, and the elements."""
    order, elements = None, list[_Element]()
    for number, line in enumerate(header[1:], 2):
        match line.split():
            case [] | ["comment" | "obj_info", *_]:
                continue
            case ["format", name, "1.0"] if name in _PLY_ORDERS and order is None:
                order = _PLY_ORDERS[name]
            case ["element", name, count] if name not in {element.name for element in elements}:
                elements.append(_Element(name, _count(count, f"line {number}"), []))
            case ["property", *types, name] if _is_property(types, name, elements):
                length, kind = ["", *(_PLY_TYPES[word] for word in types if word != "list")][-2:]
                elements[-1].properties.append((name, kind, length))
            case _:
                raise _error(f"line {number}", f"{line[:60].strip()!r} has no place in a PLY header here")
    if order is None or any(not element.properties for element in elements):
        raise _error("header", "it has no format line, or an element without properties")
    return order, elements


def _is_property(types: list[str], name: str, elements: list[_Element]) -> bool:
    known = not elements or name in {other for other, _, _ in elements[-1].properties}
    scalar = len(types) == 1 and types[0] in _PLY_TYPES
    listed = len(types) == 3 and types[0] == "list" and set(types[1:]) <= _PLY_TYPES.keys()
    return not known and (scalar or (listed and _PLY_TYPES[types[1]][0] in "iu"))


def _obj(data: bytes) -> Polygons:
    vertices, faces, seen = Lines(), Lines(), list[int]()
    for number, text in _lines(data, comment=b"#"):
        keyword, *rest = text.split(None, 1)
        if keyword == b"v":
            vertices.append((number, b"".join(rest)))
        elif keyword == b"f":
            faces.append((number, re.sub(rb"(?<=\d)/\S*", b"", b"".join(rest))))
            seen.append(len(vertices))
        elif keyword not in _OBJ_IGNORED:
            raise _error(f"line {number}", f"unknown keyword {keyword[:40]!r}")
    table = _table(faces)
    sizes = table.ends - table.starts
    lines = np.repeat(table.lines, sizes)
    indices = _whole(table.values, lambda i: f"line {lines[i]}")
    _reject(indices == 0, lambda i: _error(f"line {lines[i]}", "vertex 0, but OBJ counts from 1"))
    # A negative index counts back from the vertices above its line.
    corners = np.where(indices < 0, indices + np.repeat(seen, sizes), indices - 1)
    return _table(vertices).points((3, 4, 6, 7)), sizes, corners


def _off(data: bytes) -> Polygons:
    lines = _lines(data, comment=b"#")
    key, *inline = lines[0][1].split(None, 1) if lines else [b""]
    if not re.fullmatch(b"(ST)?C?N?OFF", key):
        raise _error("line 1", f"{key[:40]!r} is not OFF, COFF or NOFF", "convert it to plain OFF")
    (number, counts), *body = [(lines[0][0], inline[0]), *lines[1:]] if inline else lines[1:] or [(1, b"")]
    words = counts.decode("ascii", "replace").split()
    if len(words) not in (2, 3):
        raise _error(f"line {number}", "the counts of vertices, faces and edges are due")
    vertex_count, face_count, *_ = [_count(word, f"line {number}") for word in words]
    # The other kinds continue a vertex with a normal, colour or texture; any face may continue with a colour.
    vertex = _Element("vertex", vertex_count, [(axis, "f8", "") for axis in "xyz"], loose=key != b"OFF")
    face = _Element("face", face_count, [("corners", "i8", "u8")], loose=True)
    return _polygons(_text_body(body, [vertex, face]), "corners")


def _polygons(columns: Columns, indices: str) -> Polygons:
    vertices = np.stack([_as_float(columns["vertex"][axis][1]) for axis in "xyz"], axis=1)
    sizes, corners = columns["face"][indices]
    return vertices, sizes, _whole(corners, lambda i: f"corner {i} of the faces")


def _stl(data: bytes) -> Polygons:
    promised = int.from_bytes(data[80:84], "little")
    # Binary files may begin with "solid" too, so only the length decides.
    if len(data) == 84 + 50 * promised:
        corners = np.frombuffer(data, _STL_FACET, offset=84)["corners"] if promised else np.empty(0)
        return _weld(_as_float(corners).reshape(-1, 3))
    if data.lstrip()[:5].lower() == b"solid" and b"\0" not in data:
        return _weld(_stl_text(_lines(data)))
    if len(data) < 84:
        raise _error(f"byte {len(data)}", "the file is truncated: no 84 bytes of header, and no text STL")
    if len(data) < 84 + 50 * promised:
        raise _truncated(f"byte {len(data)}", promised, "facet", (len(data) - 84) // 50)
    raise _error(f"byte {84 + 50 * promised}", f"trailing bytes after the {promised} facets of the header")


def _stl_text(lines: Lines) -> Floats:
    """The corner positions (3m, 3) of a text STL."""
    facets = [line for line in lines if not line[1].lower().startswith((b"solid", b"endsolid"))]
    for (number, text), word in zip(facets, cycle(_STL_WORDS), strict=False):
        if text.split()[0].lower() != word:
            raise _error(f"line {number}", f"{text[:40]!r} where {word.decode()!r} is due")
    if len(facets) % len(_STL_WORDS) or not lines[-1][1].lower().startswith(b"endsolid"):
        raise _error(f"line {lines[-1][0]}", "the file is truncated: no endsolid, or half a facet")
    corners = [(number, text[6:]) for number, text in facets if text[:6].lower() == b"vertex"]
    return _table(corners).points((3,))


def _weld(points: Floats) -> Polygons:
    """Triangles from their corner positions (3m, 3), of which equal ones become one vertex."""
    _check_finite(points)
    order = np.lexsort(points.T)
    fresh = np.ones(len(points), np.bool_)
    fresh[1:] = (points[order[1:]] != points[order[:-1]]).any(axis=1)
    corners = np.empty(len(points), np.int64)
    corners[order] = np.cumsum(fresh) - 1
    return points[order[fresh]], np.full(len(points) // 3, 3), corners


def _to_ply(vertices: Floats, faces: Ints) -> bytes:
    axes = "".join(f"property double {axis}\n" for axis in "xyz")
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n{axes}"
    header += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    records = np.empty(len(faces), [("size", "u1"), ("corners", "<i4", 3)])
    records["size"], records["corners"] = 3, faces
    return header.encode() + vertices.astype("<f8").tobytes() + records.tobytes()


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
        raise _error("vertices", "STL holds float32 only, which overflows", "scale the mesh or write .ply")
    return bytes(80) + len(faces).to_bytes(4, "little") + facets.tobytes()


_READERS: dict[str, Callable[[bytes], Polygons]] = {".ply": _ply, ".obj": _obj, ".off": _off, ".stl": _stl}
_WRITERS = {".ply": _to_ply, ".obj": _to_obj, ".off": _to_off, ".stl": _to_stl}
