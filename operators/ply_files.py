"""PLY, ascii and binary of either byte order (Turk 1994), from and to bytes."""

import re
from array import array
from typing import Any, Literal

import numpy as np

from operators.mesh_parsing import (
    Column,
    Columns,
    Element,
    Floats,
    Ints,
    Polygons,
    count,
    failure,
    lines_of,
    polygons_of,
    text_body,
    truncated,
)

MAX_HEADER = 2**20  # published headers are below a thousandth of it, and every property costs a pass over the data

_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"}
_TYPES |= {"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"}
_TYPES |= {"float": "f4", "float32": "f4", "double": "f8", "float64": "f8"}


def parse_ply(data: bytes) -> Polygons:
    """The polygons of a PLY file; everything but positions and face corners is skipped."""
    opening = re.match(rb"ply[ \t]*\r?\n", data)
    closing = re.compile(rb"\nend_header[ \t]*\r?\n").search(data, 0, MAX_HEADER)
    if not opening or not closing:
        raise failure("line 1", f"no header from 'ply' to 'end_header', it begins with {data[:24]!r}")
    header = data[: closing.start()].decode("ascii", "replace").split("\n")
    order, elements = _header(header)
    if order:
        columns = _binary_body(data, closing.end(), order, elements)
    else:
        columns = text_body(lines_of(data[closing.end() :], len(header) + 2), elements)
    vertex, face = columns.get("vertex", {}), columns.get("face", {})
    indices = "vertex_indices" if "vertex_indices" in face else "vertex_index"
    scalars = {name for name, (sizes, _) in vertex.items() if (sizes == 1).all()}
    if not {"x", "y", "z"} <= scalars or indices not in face:
        cause = "a vertex needs the numbers x, y, z and a face the list vertex_indices or vertex_index"
        raise failure("header", cause, "export it as a mesh with faces")
    return polygons_of(columns, indices)


def serialize_ply(vertices: Floats, faces: Ints) -> bytes:
    """Binary little-endian, with double positions."""
    axes = "".join(f"property double {axis}\n" for axis in "xyz")
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n{axes}"
    header += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    records = np.empty(len(faces), [("size", "u1"), ("corners", "<i4", 3)])
    records["size"], records["corners"] = 3, faces
    return header.encode() + vertices.astype("<f8").tobytes() + records.tobytes()


def _header(header: list[str]) -> tuple[str, list[Element]]:
    """The byte order, empty for text, and the elements."""
    order, elements = None, dict[str, Element]()
    properties: dict[str, tuple[str, str]] | None = None
    for number, line in enumerate(header[1:], 2):
        match line.split():
            case [] | ["comment" | "obj_info", *_]:
                continue
            case ["format", name, "1.0"] if name in _ORDERS and order is None:
                order = _ORDERS[name]
            case ["element", name, entries] if name not in elements:
                properties = {}
                elements[name] = Element(name, count(entries, f"line {number}"), properties)
            case ["property", kind, name] if properties is not None and name not in properties and kind in _TYPES:
                properties[name] = _TYPES[kind], ""
            case ["property", "list", length, kind, name] if (
                properties is not None and name not in properties and kind in _TYPES and _TYPES.get(length, "f")[0] in "iu"
            ):
                properties[name] = _TYPES[kind], _TYPES[length]
            case _:
                raise failure(f"line {number}", f"{line[:60].strip()!r} has no place in a PLY header here")
    if order is None or any(not element.properties for element in elements.values()):
        raise failure("header", "it has no format line, or an element without properties")
    return order, list(elements.values())


def _binary_body(data: bytes, start: int, order: str, elements: list[Element]) -> Columns:
    """Read the elements one after the other from byte `start` on."""
    columns = {}
    for element in elements:
        # The smallest entry has only empty lists.
        least = sum(int((length or kind)[1]) for kind, length in element.properties.values())
        fitting = (len(data) - start) // least
        if element.entries > fitting:
            raise truncated(f"byte {len(data)}", element.entries, element.name, fitting)
        columns[element.name], start = _binary_entries(data, start, order, element)
    if start < len(data):
        raise failure(f"byte {start}", f"{len(data) - start} trailing bytes after the entries of the header")
    return columns


def _binary_entries(data: bytes, start: int, order: str, element: Element) -> tuple[dict[str, Column], int]:
    """Read all entries at once if their lists are as long as those of the first, else one by one."""
    first, end = _walk(data, start, order, element._replace(entries=min(element.entries, 1)))
    stop = start + element.entries * (end - start)
    if not start < stop <= len(data):
        return _walk(data, start, order, element)
    layout: list[Any] = []
    for name, (kind, length) in element.properties.items():
        layout += [(f"length of {name}", order + length)] if length else []
        layout += [(name, order + kind, (int(first[name][0][0]),))]
    records = np.frombuffer(data, np.dtype(layout), element.entries, start)
    for name, (_, length) in element.properties.items():
        if length and np.any(records[f"length of {name}"] != first[name][0]):
            return _walk(data, start, order, element)
    sizes = {name: np.repeat(column[0], element.entries) for name, column in first.items()}
    return {name: (sizes[name], records[name].ravel()) for name in first}, stop


def _walk(data: bytes, start: int, order: str, element: Element) -> tuple[dict[str, Column], int]:
    """Read entry by entry, whatever the lengths of their lists."""
    sizes = {name: array("q") for name in element.properties}
    values = {name: bytearray() for name in sizes}
    endian: Literal["little", "big"] = "little" if order == "<" else "big"
    for index in range(element.entries):
        for name, (kind, length) in element.properties.items():
            size, begin = 1, start + int(length[1:] or 0)
            if length:
                size = int.from_bytes(data[start:begin], endian, signed=length[0] == "i")
            start = begin + size * int(kind[1])
            if size < 0:
                raise failure(f"{element.name} {index} (byte {begin})", f"a list of {size} values")
            if start > len(data):
                raise truncated(f"byte {len(data)}", element.entries, element.name, index)
            sizes[name].append(size)
            values[name] += data[begin:start]
    columns = {}
    for name, (kind, _) in element.properties.items():
        columns[name] = np.frombuffer(sizes[name], np.int64), np.frombuffer(values[name], order + kind)
    return columns, start
