"""Surfaces from VTK files (.vtk, .vtu, .vtp) through VTK's own readers, which run in a process apart; .vtk writing.

VTK's readers crash on damaged files and return indices that are out of range, so they get a child process with
limits on time and memory, and what it hands back is checked as if it were hostile. The child is `vtk_child.py`.
"""

import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from operators.mesh_parsing import Floats, Ints, MeshFileError, Polygons, failure
from operators.vtk_child import REFUSED

VTK_SUFFIXES = (".vtk", ".vtu", ".vtp")
SECONDS = 30  # for the start and a small file; a large one gets a second more for every BYTES_PER_SECOND
BYTES_PER_SECOND = 4_000_000  # a tenth of what ascii files take
MEMORY = 2 * 1024**3  # for VTK itself and a small file; a large one gets MEMORY_PER_BYTE times its size more
MEMORY_PER_BYTE = 16

_CHILD = Path(__file__).with_name("vtk_child.py")
_CURE = "open and save it again with ParaView or pyvista, or convert it to .ply"


def read_vtk(path: Path) -> Polygons:
    """The polygons of a VTK file; strips are cut into triangles, volume cells give their surface.

    Raises:
        MeshFileError: VTK refuses the file, crashes, hangs, or takes too much memory.
        ImportError: VTK is not installed.
    """
    with path.open("rb") as file:  # for the errors of the operating system
        size = file.seek(0, 2)
    spec = find_spec("vtkmodules")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f'{path.suffix} files are read by VTK: pip install "neuralpde-toolkit[mesh]", or convert to .ply')
    library = Path(next(iter(spec.submodule_search_locations))).parent
    seconds, memory = SECONDS + size // BYTES_PER_SECOND, MEMORY + MEMORY_PER_BYTE * size
    with TemporaryDirectory() as folder:
        target, reason, log = (Path(folder, name) for name in ("surface", "reason", "log"))
        command = [sys.executable, "-I", str(_CHILD), str(path.absolute()), str(target), str(library)]
        with reason.open("wb") as output, log.open("wb") as noise:
            try:
                status = subprocess.run(
                    [*command, str(seconds), str(memory)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=noise,
                    cwd=folder,
                    timeout=seconds,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                raise failure("file", f"VTK did not finish within {seconds} s", _CURE) from None
        if status != 0:
            raise _explained(status, seconds, memory, _end_of(reason if status == REFUSED else log))
        return _checked(target, memory)


def serialize_vtk(vertices: Floats, faces: Ints) -> bytes:
    """Legacy binary .vtk with double positions, for ParaView (VTK file formats, version 3.0)."""
    header = f"# vtk DataFile Version 3.0\nneuralpde\nBINARY\nDATASET POLYDATA\nPOINTS {len(vertices)} double\n"
    records = np.column_stack([np.full(len(faces), 3), faces])
    if len(vertices) > 2**31:
        raise failure("vertices", f"{len(vertices)} vertices exceed the format's 32 bits", "write .ply")
    middle = f"\nPOLYGONS {len(faces)} {records.size}\n"
    return header.encode() + vertices.astype(">f8").tobytes() + middle.encode() + records.astype(">i4").tobytes() + b"\n"


def _explained(status: int, seconds: int, memory: int, text: str) -> MeshFileError:
    """What became of a child that failed."""
    if status == REFUSED:
        return failure("file", text, _CURE)
    if "MemoryError" in text or "bad_alloc" in text or "llocat" in text:
        return failure("file", f"VTK took more than the {memory >> 20} MiB of memory that a file of this size may need", _CURE)
    if -status == getattr(signal, "SIGXCPU", None):
        return failure("file", f"VTK did not finish within {seconds} s", _CURE)
    if status < 0:
        return failure("file", f"VTK crashed ({_signal(-status)}): the file is probably damaged", _CURE)
    return failure("file", f"VTK failed with exit status {status}: {text}", _CURE)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _end_of(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 400))
        return " ".join(file.read().decode("utf-8", "replace").split())


def _checked(target: Path, limit: int) -> Polygons:
    """The child's arrays, if their sizes agree; `triangles` checks the positions and indices."""
    size = target.stat().st_size if target.is_file() else 0
    if 24 <= size <= limit:
        data = target.read_bytes()
        points, faces, corners = (int(number) for number in np.frombuffer(data, np.int64, 3))
        if min(points, faces, corners) >= 0 and len(data) == 24 + 24 * points + 8 * faces + 8 * corners:
            vertices = np.frombuffer(data, np.float64, 3 * points, 24).reshape(-1, 3).copy()
            numbers = np.frombuffer(data, np.int64, faces + corners, 24 + 24 * points).copy()
            sizes = numbers[:faces]
            # Sizes within [0, corners] cannot overflow their sum, unless there are 2³¹ of them.
            if not faces or (sizes.min() >= 0 and sizes.max() <= corners and int(sizes.sum()) == corners):
                return vertices, sizes, numbers[faces:]
    raise failure("file", "VTK's process handed back no surface that makes sense", _CURE)
