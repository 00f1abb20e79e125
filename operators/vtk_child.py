"""The process in which VTK reads one file, so that no crash, hang or leak of its readers reaches the user's.

Run as a script by `operators.vtk_files`, with the source, the target, VTK's folder, seconds and bytes as arguments.
It imports nothing of ours, and VTK only here. Exit status 0: the target holds the surface; 3: the reason is on stdout.
"""

import importlib
import re
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

REFUSED = 3
_READERS = {
    ".vtk": ("vtkIOLegacy", "vtkGenericDataObjectReader"),
    ".vtu": ("vtkIOXML", "vtkXMLUnstructuredGridReader"),
    ".vtp": ("vtkIOXML", "vtkXMLPolyDataReader"),
}
_STRIP, _PIXEL, _POLYGONS, _LINEAR = 6, 8, (5, 7, 9), 10  # vtkCellType.h; below 10 all are linear, of at most 2 dimensions

Cells = tuple[NDArray[np.int64], NDArray[np.int64]]  # offsets (p + 1,) and the corners back to back


class RefusedError(Exception):
    """VTK read something, and it is no surface."""


def main(arguments: list[str]) -> int:
    """Read, convert, write; the exit status."""
    source, target, library, seconds, size = arguments
    limit_resources(int(seconds), int(size))
    # An isolated interpreter lacks the user's own paths; VTK lies where the parent found it.
    sys.path.append(library)
    try:
        points, sizes, corners = surface(read(source))
    except RefusedError as refusal:
        print(str(refusal).encode("ascii", "replace").decode())
        return REFUSED
    except (IndexError, ValueError):
        print("its cells do not fit their offsets, the file is damaged")
        return REFUSED
    except MemoryError:
        print("MemoryError", file=sys.stderr)
        return 1
    with open(target, "wb") as file:
        write(file, points, sizes, corners)
    return 0


def limit_resources(seconds: int, size: int) -> None:
    """Bound processor time, memory and output, where the system can; no core files."""
    try:
        import resource
    except ImportError:  # Windows; the parent's clock is left
        return
    limits = ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, size), (resource.RLIMIT_FSIZE, size))
    for kind, limit in (*limits, (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        # Seconds end with SIGXCPU, which tells the parent why; at the hard limit they end with SIGKILL, which does not.
        resource.setrlimit(kind, (limit, hard if kind == resource.RLIMIT_CPU else limit))


def write(file: BinaryIO, points: NDArray[Any], sizes: NDArray[Any], corners: NDArray[Any]) -> None:
    """Three counts as int64, then positions as float64, numbers of corners and corners as int64."""
    for values in ([len(points), len(sizes), len(corners)], sizes, corners):
        if values is sizes:
            file.write(points.astype(np.float64).tobytes())
        file.write(np.asarray(values, np.int64).tobytes())


def read(source: str) -> Any:
    """What VTK's reader gives for the suffix, if it has nothing to complain about."""
    core = vtk("vtkCommonCore")
    window = core.vtkStringOutputWindow()
    core.vtkOutputWindow.SetInstance(window)
    module, name = _READERS["." + source.rsplit(".", 1)[-1].lower()]
    reader = getattr(vtk(module), name)()
    reader.SetFileName(source)
    reader.Update()
    if complaint := window.GetOutput():
        text = complaint if isinstance(complaint, str) else complaint.decode("utf-8", "replace")
        raise RefusedError(f"VTK says {first_message(text)!r}")
    data = reader.GetOutput()
    if data is None or not data.IsA("vtkDataSet"):
        raise RefusedError(f"it holds {data.GetClassName() if data else 'nothing that VTK knows'}, not a surface")
    return data


def first_message(text: str) -> str:
    """The first of VTK's messages, without colours, places and addresses."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    found = re.search(r"(?:\(0x[0-9a-f]+\): |(?:ERR|WARN)\| (?!\w+ \(0x))(.+)", plain)
    message = found[1] if found else plain
    return " ".join(message.split())[:200]


def surface(data: Any) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Positions, numbers of corners and corners of the polygons; of volume cells, those of their surface."""
    if data.IsA("vtkUnstructuredGrid"):
        types = np.array([data.GetCellType(i) for i in range(data.GetNumberOfCells())], np.int64)
        if (types < _LINEAR).all():
            return positions(data), *polygons(types, *arrays(data.GetCells()))
    if not data.IsA("vtkPolyData"):
        skin = vtk("vtkFiltersGeometry").vtkGeometryFilter()
        skin.SetInputData(data)
        skin.Update()
        data = skin.GetOutput()
    pieces = [
        polygons(np.full(cells.GetNumberOfCells(), kind), *arrays(cells))
        for kind, cells in ((_POLYGONS[1], data.GetPolys()), (_STRIP, data.GetStrips()))
    ]
    sizes, corners = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return positions(data), sizes, corners


def polygons(types: NDArray[np.int64], offsets: NDArray[np.int64], corners: NDArray[np.int64]) -> Cells:
    """Numbers of corners and corners: polygons as they are, then pixels turned into quads, then strips cut up."""
    starts, sizes = offsets[:-1], np.diff(offsets)
    plain, pixel = np.isin(types, _POLYGONS), types == _PIXEL
    found_sizes = [sizes[plain], sizes[pixel]]
    quads = starts[pixel, None] + np.array([0, 1, 3, 2])
    found = [corners[np.repeat(plain, sizes)], corners[quads].ravel()]
    for start, size in zip(starts[types == _STRIP], sizes[types == _STRIP], strict=True):
        strip = corners[start : start + size]
        cut = np.stack([strip[:-2], strip[1:-1], strip[2:]], axis=1)
        cut[1::2, :2] = cut[1::2, 1::-1]  # every other triangle of a strip is named backwards
        found_sizes.append(np.full(len(cut), 3))
        found.append(cut.ravel())
    return np.concatenate(found_sizes), np.concatenate(found)


def arrays(cells: Any) -> Cells:
    """Offsets and corners of VTK's cells."""
    if cells is None or cells.GetNumberOfCells() == 0:
        return np.zeros(1, np.int64), np.zeros(0, np.int64)
    cells.ConvertTo64BitStorage()
    to_numpy = numpy_of()
    return to_numpy(cells.GetOffsetsArray()), to_numpy(cells.GetConnectivityArray())


def positions(data: Any) -> NDArray[Any]:
    """Positions (n, 3)."""
    if data.GetNumberOfPoints() == 0:
        return np.zeros((0, 3))
    return numpy_of()(data.GetPoints().GetData())


def numpy_of() -> Callable[[Any], NDArray[Any]]:
    """VTK's own conversion."""
    convert: Callable[[Any], NDArray[Any]] = vtk("util.numpy_support").vtk_to_numpy
    return convert


def vtk(module: str) -> Any:
    """A module of VTK."""
    return importlib.import_module(f"vtkmodules.{module}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
