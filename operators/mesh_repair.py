"""Finding and repairing what makes a triangle list unfit for operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from operators.checks import DomainError, FieldError, as_field, as_index, as_points
from operators.topology import Connectivity, components_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# A triangle whose height is below this share of its longest edge has no usable cotangent in float64.
FLATNESS = 1e-8
# Angles feel the rounding of coordinates 2.5 times (measured on round spheres far from the origin).
_ROUNDING_FELT = 2.5
_ROUNDING_WORTH_A_WORD = 1e-3


@dataclass(frozen=True, eq=False, repr=False)
class CleanMesh:
    """The arrays of a repaired mesh (`TriangleMesh.from_clean` makes one), what was done, and the way there and back for fields.

    `vertex_map` (old n,) gives each old vertex its new index, −1 if it was dropped; `face_map` (m,) gives each face its
    old index; the counts say what was removed or turned over. Not `orientable` means that some piece, such as a Möbius
    band, has no consistent orientation and was left as it was.
    """

    vertices: Floats
    faces: Ints
    vertex_map: Ints
    face_map: Ints
    welded: int
    degenerate_faces: int
    duplicate_faces: int
    unreferenced: int
    flipped_faces: int
    orientable: bool

    def __repr__(self) -> str:
        return f"CleanMesh({len(self.vertices)} vertices, {len(self.faces)} faces: {self})"

    def __str__(self) -> str:
        done = [
            (self.welded, "vertices welded"),
            (self.degenerate_faces, "degenerate faces dropped"),
            (self.duplicate_faces, "duplicate faces dropped"),
            (self.unreferenced, "vertices without a face dropped"),
            (self.flipped_faces, "faces turned over"),
        ]
        told = ", ".join(f"{count} {what}" for count, what in done if count) or "nothing to repair"
        return told if self.orientable else f"{told}; not orientable, so that faces disagree about the outside"

    def to_clean(self, x: Tensor, *, mean: bool = True) -> Tensor:
        """A field on the original vertices carried to the repaired mesh; (..., old n, c) → (..., n, c).

        Args:
            mean: take the mean over vertices that were welded into one; otherwise the value of the first of them, as
                labels want.
        """
        old = len(self.vertex_map)
        as_field(x, old)
        target = torch.from_numpy(self.vertex_map).to(x.device)
        kept = target >= 0
        if mean:
            if not (x.is_floating_point() or x.is_complex()):
                raise FieldError(f"there is no mean of {x.dtype} values: pass x.float(), or mean=False to take the first value")
            share = torch.bincount(target[kept], minlength=len(self.vertices)).to(x.real.dtype).reciprocal()
            total = x.new_zeros(*x.shape[:-2], len(self.vertices), x.shape[-1])
            return total.index_add(-2, target[kept], x[..., kept, :]) * share[:, None]
        _, first = np.unique(self.vertex_map[self.vertex_map >= 0], return_index=True)
        return x.index_select(-2, kept.nonzero()[:, 0][torch.from_numpy(first).to(x.device)])

    def to_original(self, x: Tensor, fill: float = 0.0) -> Tensor:
        """A field on the repaired mesh carried back; (..., n, c) → (..., old n, c); dropped vertices get `fill`."""
        as_field(x, len(self.vertices))
        if not (x.is_floating_point() or x.is_complex()) and torch.tensor(fill).to(x.dtype).item() != fill:
            raise FieldError(f"the fill {fill} is no {x.dtype} value: choose another, or pass x.float()")
        source = torch.from_numpy(self.vertex_map).to(x.device)
        return x.index_select(-2, source.clamp(min=0)).masked_fill((source < 0)[:, None], fill)


def as_tensor(values: object, name: str) -> Tensor:
    """Any array as a dense tensor; NumPy arrays are copied, so that a frozen domain does not change with them.

    Raises:
        DomainError: what is no array of numbers, such as a ragged list.
    """
    try:
        if isinstance(values, np.ndarray):
            native = values.astype(values.dtype.newbyteorder("="), order="C", copy=True)
            return torch.from_numpy(native)
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise DomainError(f"{name} must be an array or tensor of numbers, not this {type(values).__name__}: {error}") from None
    if tensor.layout is not torch.strided:
        raise DomainError(f"{name} must be a dense tensor, not {tensor.layout}: convert with .to_dense()")
    return tensor


def check_capacity(index: Tensor, name: str, count: int) -> None:
    """Raise if the integers are too narrow for `count` points: then the larger indices have wrapped around."""
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        return
    largest = torch.iinfo(index.dtype).max
    if largest < count - 1:
        raise DomainError(
            f"{name} are {index.dtype}, which ends at {largest}, but there are {count} points: larger indices have "
            "wrapped around; build them as int64"
        )


def first_defect(vertices: Floats, faces: Ints) -> str | None:
    """Describe the first defect that would make an operator silently wrong, or None."""
    repeated = np.flatnonzero(repeated_faces(faces))
    if repeated.size:
        return f"{repeated.size} faces repeat a vertex, the first is face {repeated[0]} {faces[repeated[0]].tolist()}"
    flat = np.flatnonzero(flat_faces(vertices, faces))
    if flat.size:
        return f"{flat.size} faces have no area, the first is face {flat[0]} {faces[flat[0]].tolist()}"
    duplicates = np.flatnonzero(duplicate_faces(faces))
    if duplicates.size:
        return (
            f"{duplicates.size} faces are named twice, the first is face {duplicates[0]} {faces[duplicates[0]].tolist()}, "
            "so that area would be counted double"
        )
    unreferenced = np.flatnonzero(np.bincount(faces.ravel(), minlength=len(vertices)) == 0)
    if unreferenced.size:
        return f"{unreferenced.size} vertices belong to no face, the first is vertex {unreferenced[0]}: they have no area"
    return None


def coincident_vertices(vertices: Floats) -> int:
    """The number of vertices at exactly the position of an earlier one."""
    return int((first_of_equal_rows(vertices) != np.arange(len(vertices))).sum())


def lost_digits(vertices: Floats, faces: Ints, dtype: torch.dtype) -> str | None:
    """Describe the rounding of a mesh so far from the origin that its coordinates have no digits left, or None.

    Vertices that are float64 now but were float32 before, as those of most files, have lost them just the same.
    """
    reach = float(np.abs(vertices).max())
    extent = float(np.ptp(vertices, axis=0).max())
    if reach < 10 * extent:
        return None
    name = "float32" if dtype == torch.float32 or _was_rounded_to_float32(vertices, reach) else "float64"
    rounding = np.finfo(name).eps / 2 * reach
    corners = vertices[faces]
    edge = float(np.median(np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)))
    error = _ROUNDING_FELT * rounding / edge
    if error < _ROUNDING_WORTH_A_WORD:
        return None
    return (
        f"the vertices lie {reach:.1e} from the origin, {reach / extent:.1e} times their extent: there {name} rounds "
        f"angles and weights by about {min(100 * error, 100):.1g} %"
    )


def clean_mesh(vertices: Any, faces: Any, *, tolerance: float = 0.0, orient: bool = True) -> CleanMesh:
    """Weld coincident vertices, drop repeated-index, zero-area and duplicate faces and unreferenced vertices, and orient.

    Of vertices welded into one, the first keeps its place. Faces are turned over where that makes the neighbours at
    edges of exactly two faces agree; in every piece the majority stays.

    Args:
        vertices: (n, 2) or (n, 3) floats, finite.
        faces: integers (m, 3) in [0, n).
        tolerance: also weld vertices closer than this share of the diagonal of the bounding box. Closeness is passed
            on: a row of vertices, each close to the next, becomes one vertex.
        orient: turn faces over; otherwise keep them as they are.

    Raises:
        DomainError: input that has no repair (non-finite coordinates, indices out of range, nothing left).
    """
    points, triangles = _checked_arrays(vertices, faces)
    count = len(points)
    weld = first_of_equal_rows(points) if tolerance == 0 else _first_of_close_rows(points, tolerance)
    kept = np.arange(len(triangles))
    triangles = weld[triangles]
    flat = repeated_faces(triangles)
    flat[~flat] |= flat_faces(_in_space(points), triangles[~flat])
    triangles, kept = triangles[~flat], kept[~flat]
    duplicate = duplicate_faces(triangles)
    triangles, kept = triangles[~duplicate], kept[~duplicate]
    if len(triangles) == 0:
        cause = "every triangle was degenerate" if tolerance == 0 else f"make the tolerance smaller than {tolerance}"
        raise DomainError(f"no face is left after cleaning: {cause}")
    turned, orientable = Connectivity(triangles, count).orientation()
    turned &= orient
    triangles = np.where(turned[:, None], triangles[:, ::-1], triangles)
    used = np.unique(triangles)
    new_index = np.full(count, -1, dtype=np.int64)
    new_index[used] = np.arange(len(used))
    vertex_map = new_index[weld]
    return CleanMesh(
        vertices=points[used],
        faces=new_index[triangles],
        vertex_map=vertex_map,
        face_map=kept,
        welded=int((weld != np.arange(count)).sum()),
        degenerate_faces=int(flat.sum()),
        duplicate_faces=int(duplicate.sum()),
        unreferenced=int((vertex_map < 0).sum()),
        flipped_faces=int(turned.sum()),
        orientable=bool(orientable.all()),
    )


def repeated_faces(faces: Ints) -> Bools:
    """Which faces name a vertex more than once, (m,)."""
    repeated: Bools = (faces[:, 0] == faces[:, 1]) | (faces[:, 1] == faces[:, 2]) | (faces[:, 2] == faces[:, 0])
    return repeated


def flat_faces(vertices: Floats, faces: Ints) -> Bools:
    """Which faces are lower than `FLATNESS` times their longest edge, (m,)."""
    if len(faces) == 0:
        return np.zeros(0, dtype=bool)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    longest = np.max([np.linalg.norm(e, axis=1) for e in (b - a, c - b, a - c)], axis=0)
    twice_area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    flat: Bools = twice_area <= FLATNESS * longest**2
    return flat


def duplicate_faces(faces: Ints) -> Bools:
    """Which faces have the three vertices of an earlier one, in any order, (m,)."""
    later: Bools = first_of_equal_rows(np.sort(faces, axis=1)) != np.arange(len(faces))
    return later


def first_of_equal_rows(table: NDArray[Any]) -> Ints:
    """For every row the index of the first row equal to it, (n,)."""
    # Stable, so that the first of equal rows comes first; many times faster than np.unique over rows.
    order = np.lexsort(table.T[::-1])
    fresh = np.ones(len(table), dtype=bool)
    fresh[1:] = (table[order[1:]] != table[order[:-1]]).any(axis=1)
    first = np.empty(len(table), dtype=np.int64)
    first[order] = order[fresh][np.cumsum(fresh) - 1]
    return first


def _first_of_close_rows(points: Floats, tolerance: float) -> Ints:
    if not 0 < tolerance < 1:
        raise DomainError(f"tolerance is a share of the mesh's size, from 0 to below 1, not {tolerance}")
    first = first_of_equal_rows(points)
    places, place = np.unique(first, return_inverse=True)
    radius = tolerance * float(np.linalg.norm(np.ptp(points, axis=0)))
    tree = cKDTree(points[places])
    close = int(tree.count_neighbors(tree, radius)) - len(places)
    if close > 100 * len(places):
        raise DomainError(
            f"a tolerance of {tolerance} would weld {close / len(places):.0f} neighbours to every vertex: make it smaller"
        )
    i, j = tree.query_pairs(radius, output_type="ndarray").reshape(-1, 2).T
    _, cluster = components_of(i, j, len(places))
    _, index, inverse = np.unique(cluster, return_index=True, return_inverse=True)
    result: Ints = places[index][inverse.reshape(-1)][place.reshape(-1)]
    return result


def _was_rounded_to_float32(vertices: Floats, reach: float) -> bool:
    large = vertices[np.abs(vertices) > reach / 2]
    with np.errstate(over="ignore"):
        narrow = large.astype(np.float32)
    # Whole metres far away are float32 numbers too, but have not been rounded to its last bit.
    return bool((narrow == large).all()) and bool((narrow.view(np.int32) & 1).mean() > 0.1)


def _checked_arrays(vertices: Any, faces: Any) -> tuple[Floats, Ints]:
    points = as_points(as_tensor(vertices, "vertices"), "vertices", (2, 3)).detach().cpu().numpy().astype(np.float64)
    index = as_tensor(faces, "faces")
    check_capacity(index, "faces", len(points))
    return points, as_index(index, "faces", None, 3, len(points)).cpu().numpy()


def _in_space(points: Floats) -> Floats:
    return points if points.shape[1] == 3 else np.column_stack([points, np.zeros(len(points))])
