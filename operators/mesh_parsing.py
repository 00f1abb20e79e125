"""What the readers of all mesh formats share: errors with a place and a cure, tables of numbers, polygons.

Counts are compared with the bytes that follow before anything is allocated, so a lying header costs nothing,
and a text is parsed line by line, so that memory stays within a small multiple of the file.
"""

import io
import re
from array import array
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Polygons = tuple[Floats, Ints, Ints]  # vertices (n, 3), number of corners (p,), the corners back to back
Column = tuple[Ints, NDArray[Any]]  # a property: number of values of each entry (p,), the values back to back
Columns = dict[str, dict[str, Column]]  # by element and property
Lines = Iterator[tuple[int, bytes]]  # line numbers and stripped lines, none of them blank


class MeshFileError(ValueError):
    """A mesh file cannot be read or written; the text names the file, the place, the cause and the cure."""


def failure(where: str, cause: str, cure: str = "download or export it again") -> MeshFileError:
    """The error in the words of this package."""
    return MeshFileError(f"{where}: {cause}; {cure}")


def truncated(where: str, promised: int, kind: str, found: int) -> MeshFileError:
    """The error of a file that ends too early."""
    promise = f"the header promises {promised} {kind} entries"
    return failure(where, f"the file is truncated: {promise}, the data end after {found}")


def reject(bad: NDArray[np.bool_], explain: Callable[[int], MeshFileError]) -> None:
    """Raise what `explain` says of the first bad entry."""
    if bad.any():
        raise explain(int(bad.argmax()))


def triangles(vertices: Floats, sizes: Ints, corners: Ints) -> tuple[Floats, Ints]:
    """Check the polygons and cut each into a fan: c₀ … c_k becomes (c₀ c₁ c₂), (c₀ c₂ c₃), …"""
    if not len(vertices) or not len(sizes):
        cause = f"the mesh is empty: {len(vertices)} vertices, {len(sizes)} faces"
        raise failure("end of file", cause, "export it with its faces; a point cloud is no mesh")
    check_finite(vertices)
    last, cure = len(vertices) - 1, "all counted from 0; repair or export it again"
    reject(sizes < 3, lambda i: failure(f"face {i}", f"it has {sizes[i]} corners, 3 are needed", cure))
    ends = np.cumsum(sizes)

    def outside(corner: int) -> MeshFileError:
        face = int(np.searchsorted(ends, corner, side="right"))
        return failure(f"face {face}", f"vertex {corners[corner]} is not among 0 to {last}", cure)

    reject((corners < 0) | (corners > last), outside)
    if (sizes == 3).all():
        return vertices, corners.reshape(-1, 3)
    begin = ends - sizes
    first, second = np.repeat(begin, sizes - 2), runs(begin + 1, sizes - 2)
    return vertices, np.stack([corners[first], corners[second], corners[second + 1]], axis=1)


def check_finite(vertices: Floats) -> None:
    """Refuse NaN and infinite positions."""
    cause, cure = "the position {} is not finite", "counted from 0; repair or remove this vertex"
    wrong = ~np.all(np.isfinite(vertices), axis=1)
    reject(wrong, lambda i: failure(f"vertex {i}", cause.format(vertices[i].tolist()), cure))


def runs(starts: Ints, sizes: Ints) -> Ints:
    """The runs starts[i], starts[i] + 1, … of sizes[i] integers, back to back."""
    return np.repeat(starts - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))


def as_float(values: NDArray[Any]) -> Floats:
    """In float64, whatever the bytes spell."""
    # Damaged bytes may spell a signalling NaN, of which NumPy warns; it stays a NaN and is refused as such.
    with np.errstate(invalid="ignore"):
        return values.astype(np.float64)


def whole(values: NDArray[Any], where: Callable[[int], str]) -> Ints:
    """Integers from numbers that must be integers; above 2⁵³ floats skip some."""
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 4:
        return values.astype(np.int64)
    numbers = as_float(values)
    wrong = (np.abs(numbers) >= 2**53) | (np.floor(numbers) != numbers)
    reject(wrong, lambda i: failure(where(i), f"{numbers[i]} is neither an index nor a length"))
    return numbers.astype(np.int64)


def count(word: str, where: str) -> int:
    """The count that a header gives."""
    if re.fullmatch("[0-9]{1,18}", word):
        return int(word)
    raise failure(where, f"{word[:40]!r} is not a count")


def lines_of(data: bytes, first: int = 1, comment: bytes = b"\n") -> Lines:
    """The lines of a text, which may end in \\n, \\r\\n or \\r, without comments and blanks."""
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for number, line in enumerate(io.BytesIO(data), first):
        text = line.partition(comment)[0].strip()
        if text:
            yield number, text


class Table:
    """The numbers of ragged lines: line lines[i] of the file holds values[starts[i]:ends[i]]."""

    def __init__(self) -> None:
        self._values, self._ends, self._lines = array("d"), array("q"), array("q")

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, number: int, text: bytes) -> None:
        """Parse every word of a line as a number."""
        try:
            self._values.extend(map(float, text.split()))
        except ValueError as error:
            raise failure(f"line {number}", str(error)[:80]) from None
        if b"_" in text:  # Python takes 1_000 for a number, no mesh format does
            raise failure(f"line {number}", f"{text[:40]!r} has an underscore in a number")
        self._ends.append(len(self._values))
        self._lines.append(number)

    @property
    def values(self) -> Floats:
        return np.frombuffer(self._values, np.float64)

    @property
    def ends(self) -> Ints:
        return np.frombuffer(self._ends, np.int64)

    @property
    def starts(self) -> Ints:
        return np.concatenate([np.zeros(1, np.int64), self.ends])[:-1]

    @property
    def lines(self) -> Ints:
        return np.frombuffer(self._lines, np.int64)

    def take(self, cursor: Ints, listed: bool) -> tuple[Column, Ints]:
        """From every line, at its cursor, a number or a list of them; and the cursors behind."""
        sizes = np.ones_like(cursor)
        if listed:
            (_, lengths), cursor = self.take(cursor, listed=False)
            sizes = whole(lengths, lambda i: f"line {self.lines[i]}")
        left = self.ends - cursor
        cause = "{} more numbers are due on this line, {} follow"
        lacks = (sizes < 0) | (sizes > left)
        reject(lacks, lambda i: failure(f"line {self.lines[i]}", cause.format(sizes[i], left[i])))
        return (sizes, self.values[runs(cursor, sizes)]), cursor + sizes

    def points(self, widths: tuple[int, ...]) -> Floats:
        """The first three numbers of every line, (n, 3), if it has one of the allowed counts of numbers."""
        starts, lines = self.starts, self.lines
        found = self.ends - starts
        cure = "give x, y and z (z = 0 in the plane) or export it again"
        wrong = ~np.isin(found, widths)
        reject(wrong, lambda i: failure(f"line {lines[i]}", f"a vertex with {found[i]} numbers", cure))
        if (found == 3).all():
            return self.values.reshape(-1, 3)
        return np.stack([self.values[starts + axis] for axis in range(3)], axis=1)


class Element(NamedTuple):
    """A block of entries; a property is its NumPy type and, of a list, the type of its length, by name."""

    name: str
    entries: int
    properties: dict[str, tuple[str, str]]
    loose: bool = False  # lines may go on after the last property


def text_body(lines: Lines, elements: list[Element]) -> Columns:
    """Read the elements one after the other, one entry a line."""
    columns = {}
    for element in elements:
        table = Table()
        for number, text in islice(lines, element.entries):
            table.add(number, text)
        if len(table) < element.entries:
            raise truncated("end of file", element.entries, element.name, len(table))
        columns[element.name] = _text_entries(table, element)
    for number, _ in lines:
        raise failure(f"line {number}", "trailing lines after the last entry that the header promises")
    return columns


def _text_entries(table: Table, element: Element) -> dict[str, Column]:
    cursor, columns = table.starts, dict[str, Column]()
    for name, (_, length) in element.properties.items():
        columns[name], cursor = table.take(cursor, listed=bool(length))
    surplus = (cursor < table.ends) & (not element.loose)
    reject(surplus, lambda i: failure(f"line {table.lines[i]}", f"too many numbers for a {element.name}"))
    return columns


def polygons_of(columns: Columns, indices: str) -> Polygons:
    """Vertices and polygons from the columns x, y, z of `vertex` and the lists of `face`."""
    vertices = np.stack([as_float(columns["vertex"][axis][1]) for axis in "xyz"], axis=1)
    sizes, corners = columns["face"][indices]
    return vertices, sizes, whole(corners, lambda i: f"corner {i} of the faces")
