"""VTK's readers in a child process: whatever becomes of it, the parent gets a mesh or a MeshFileError."""

import re
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from operators import vtk_files
from operators.mesh_files import MAX_BYTES, MeshFileError, read_mesh, write_mesh

needs_vtk = pytest.mark.skipif(find_spec("vtkmodules") is None, reason='no VTK: pip install "neuralpde-toolkit[mesh]"')

TETRAHEDRON = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]) / 3
TRIANGLES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])

POINTS = "0 0 0  1 0 0  1 1 0  0 1 0  2 0 0  2 1 0"
LEGACY = f"# vtk DataFile Version 3.0\ntitle\nASCII\nDATASET {{}}\nPOINTS 6 float\n{POINTS}\n{{}}\n"
POLYDATA = LEGACY.format("POLYDATA", "POLYGONS 2 9\n4 0 1 2 3\n3 1 4 5\nTRIANGLE_STRIPS 1 5\n4 0 1 3 2\n")
GRID = LEGACY.format("UNSTRUCTURED_GRID", "CELLS 4 17\n3 0 1 2\n4 0 1 3 2\n4 1 4 5 2\n2 0 5\nCELL_TYPES 4\n5\n8\n9\n3\n")
HEXAHEDRON = (
    "# vtk DataFile Version 3.0\nx\nASCII\nDATASET UNSTRUCTURED_GRID\nPOINTS 9 double\n"
    "0 0 0 1 0 0 1 1 0 0 1 0 0 0 1 1 0 1 1 1 1 0 1 1 9 9 9\nCELLS 1 9\n8 0 1 2 3 4 5 6 7\nCELL_TYPES 1\n12\n"
)
IMAGE = "# vtk DataFile Version 3.0\nx\nASCII\nDATASET STRUCTURED_POINTS\nDIMENSIONS {} 2 2\nORIGIN 0 0 0\nSPACING 1 1 1\n"


def xml(kind, cells):
    array = '<DataArray type="{}" Name="{}" {}format="ascii">{}</DataArray>'
    points = array.format("Float64", "p", 'NumberOfComponents="3" ', POINTS)
    arrays = "".join(array.format("Int64", name, "", values) for name, values in cells.items())
    element, counts = ("Cells", "NumberOfCells") if kind == "UnstructuredGrid" else ("Polys", "NumberOfPolys")
    piece = f'<Piece NumberOfPoints="6" {counts}="2"><Points>{points}</Points><{element}>{arrays}</{element}></Piece>'
    attributes = f'type="{kind}" version="1.0" byte_order="LittleEndian" header_type="UInt64"'
    return f"<VTKFile {attributes}><{kind}>{piece}</{kind}></VTKFile>"


CELLS = {"connectivity": "0 1 2 3 1 4 5", "offsets": "4 7"}
VTP, VTU = xml("PolyData", CELLS), xml("UnstructuredGrid", CELLS | {"types": "9 5"})
FAN = [[0, 1, 2], [0, 2, 3], [1, 4, 5]]


def read(folder, suffix, content):
    path = folder / f"mesh{suffix}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_mesh(path)


def refuse(folder, suffix, content, pattern):
    with pytest.raises(MeshFileError, match=pattern) as info:
        read(folder, suffix, content)
    assert f"mesh{suffix}: " in str(info.value)
    assert "; " in str(info.value)


@needs_vtk
def test_what_is_written_is_read_by_vtk(tmp_path):
    write_mesh(tmp_path / "mesh.vtk", TETRAHEDRON, TRIANGLES)
    vertices, faces = read_mesh(tmp_path / "mesh.vtk")
    assert (vertices.dtype, faces.dtype) == (np.float64, np.int64)
    assert vertices.tobytes() == TETRAHEDRON.tobytes()
    assert np.array_equal(faces, TRIANGLES)


@needs_vtk
@pytest.mark.parametrize(
    ("suffix", "content", "faces"),
    [
        (".vtk", POLYDATA, [*FAN, [0, 1, 3], [3, 1, 2]]),  # the strip 0 1 3 2 turns every other triangle round
        (".vtk", GRID, [[0, 1, 2], [1, 4, 5], [1, 5, 2], [0, 1, 2], [0, 2, 3]]),  # a pixel 0 1 3 2 is the quad 0 1 2 3
        (".vtp", VTP, FAN),
        (".VTU", VTU, FAN),
    ],
)
def test_surfaces_keep_their_vertices(tmp_path, suffix, content, faces):
    vertices, found = read(tmp_path, suffix, content)
    assert np.array_equal(vertices, np.array(POINTS.split(), float).reshape(-1, 3))
    assert found.tolist() == faces


@needs_vtk
@pytest.mark.parametrize("content", [HEXAHEDRON, IMAGE.format(2)])
def test_a_volume_becomes_its_surface(tmp_path, content):
    vertices, faces = read(tmp_path, ".vtk", content)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    assert (len(vertices), len(faces)) == (8, 12)
    assert np.einsum("ij,ij", a, np.cross(b, c)) / 6 == pytest.approx(1.0, rel=1e-12)


@needs_vtk
@pytest.mark.parametrize(
    ("suffix", "content", "pattern"),
    [
        (".vtk", "", "VTK says"),
        (".vtk", "no mesh", "VTK says"),
        (".vtk", POLYDATA.replace("4 0 1 2 3", "4 0 1 2 6"), "face 0: vertex 6 is not among 0 to 5"),
        (".vtk", POLYDATA.replace("4 0 1 2 3", "4 0 1 2 -1"), "face 0: vertex -1"),
        (".vtk", POLYDATA.replace("1 1 0", "nan 1 0"), "vertex 2: the position .* is not finite|VTK says"),
        (".vtk", POLYDATA.replace("3 1 4 5\n", "2 1 4\n").replace("2 9", "2 8"), "2 corners"),
        (".vtk", POLYDATA[:160], "VTK says|empty"),
        (".vtk", LEGACY.format("POLYDATA", "LINES 1 3\n2 0 1\n"), "the mesh is empty: 6 vertices, 0 faces"),
        (".vtk", IMAGE.format(10**9), "more than the .* MiB|VTK says|did not finish|crashed|failed"),
        (".vtp", VTP[:-60], "VTK says"),
        (".vtp", VTU, "VTK says|empty"),
        (".vtp", VTP.replace("4 7", "4 70"), "damaged|offset|not fit|VTK says|crashed"),
        (".vtp", VTP.replace("1 4 5", "1 4 99"), "face 1: vertex 99"),
        (".vtu", VTU.replace("4 7", "7 4"), "damaged|VTK says|crashed|corners"),
    ],
)
def test_damage_is_refused(tmp_path, suffix, content, pattern):
    refuse(tmp_path, suffix, content, pattern)


@needs_vtk
def test_mutants_give_a_valid_mesh_or_a_mesh_file_error(tmp_path):
    generator = np.random.default_rng(0)
    for suffix, content in ((".vtk", POLYDATA), (".vtp", VTP), (".vtu", VTU)):
        for _ in range(2):
            changed = bytearray(content.encode())
            for place in generator.integers(100, len(changed), 2):
                changed[place] = generator.integers(32, 127)
            try:
                vertices, faces = read(tmp_path, suffix, bytes(changed))
            except MeshFileError:
                continue
            assert np.isfinite(vertices).all()
            assert 0 <= faces.min() <= faces.max() < len(vertices)


# What a child may do instead of its work, and what the user reads.
TARGET = "import sys, struct\nwrite = open(sys.argv[2], 'wb').write\n"
PACK = "write(struct.pack('=%dq', {}))\n"
CHILDREN = {
    "crash": ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", r"VTK crashed \(SIGSEGV\).*ParaView"),
    "abort": ("import os\nos.abort()", r"VTK crashed \(SIGABRT\)"),
    "hang": ("import time\ntime.sleep(60)", "VTK did not finish within 1 s"),
    "spin": ("from operators_child import *\nlimit_resources(1, 2**31)\nwhile True: pass", "VTK did not finish within 1 s"),
    "memory": ("from operators_child import *\nlimit_resources(9, 2**28)\nbytes(2**29)", "more than the 2048 MiB of memory"),
    "exit": ("import sys\nsys.exit('no luck')", "VTK failed with exit status 1: no luck"),
    "refusal": ("print('a line')\nraise SystemExit(3)", "file: a line; open and save"),
    "nothing": ("", "no surface that makes sense"),
    "short": (TARGET + "write(bytes(23))", "no surface that makes sense"),
    "negative": (TARGET + PACK.replace("%d", "3").format("-1, 0, 3"), "no surface that makes sense"),
    "lie": (TARGET + PACK.replace("%d", "3").format("2**60, 2**60, 2**60"), "no surface that makes sense"),
    "sizes": (TARGET + PACK.replace("%d", "6").format("0, 2, 1, 2**62, -2**62 + 1, 0"), "no surface that makes sense"),
    "no corners": (TARGET + PACK.replace("%d", "7").format("1, 1, 0, 0, 0, 0, 0"), "face 0: .*corners"),
    "index": (TARGET + PACK.replace("%d", "13").format("2, 1, 3, *[0] * 6, 3, 0, 1, 2"), "face 0: vertex 2 is not among 0 to 1"),
    "signalling nan": (TARGET + PACK.replace("%d", "10").format("1, 1, 3, 2047 * 2**52 + 1, 0, 0, 3, 0, 0, 0"), "not finite"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="signals and resource limits are POSIX")
@pytest.mark.parametrize("case", CHILDREN)
def test_a_child_that_misbehaves_does_no_harm(tmp_path, monkeypatch, case):
    code, pattern = CHILDREN[case]
    child = Path(vtk_files.__file__).with_name("vtk_child.py")
    code = code.replace("from operators_child import *", f"import runpy\nglobals().update(runpy.run_path({str(child)!r}))")
    (tmp_path / "child.py").write_text(code)
    monkeypatch.setattr(vtk_files, "_CHILD", tmp_path / "child.py")
    monkeypatch.setattr(vtk_files, "find_spec", lambda name: spec_at(tmp_path))
    if case in ("hang", "spin"):
        monkeypatch.setattr(vtk_files, "SECONDS", 1)
    refuse(tmp_path, ".vtk", POLYDATA, pattern)


def spec_at(folder):
    spec = ModuleSpec("vtkmodules", None, is_package=True)
    spec.submodule_search_locations = [str(folder / "vtkmodules")]
    return spec


def test_without_vtk_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(vtk_files, "find_spec", lambda name: None)
    write_mesh(tmp_path / "mesh.vtk", TETRAHEDRON, TRIANGLES)
    with pytest.raises(ImportError, match=re.escape('pip install "neuralpde-toolkit[mesh]"')):
        read_mesh(tmp_path / "mesh.vtk")


def test_vtk_is_never_imported_here(tmp_path):
    write_mesh(tmp_path / "mesh.vtk", TETRAHEDRON, TRIANGLES)
    before = {name for name in sys.modules if name.startswith("vtk")}
    if find_spec("vtkmodules") is not None:
        read_mesh(tmp_path / "mesh.vtk")
    assert {name for name in sys.modules if name.startswith("vtk")} <= before | {"vtkmodules"}


def test_large_and_absent_files_are_refused_before_a_child_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(vtk_files.subprocess, "run", lambda *_, **__: pytest.fail("a child was started"))
    with pytest.raises(FileNotFoundError, match="check the spelling"):
        read_mesh(tmp_path / "absent.vtp")
    with (tmp_path / "large.vtu").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(MeshFileError, match="over the limit"):
        read_mesh(tmp_path / "large.vtu")
    (tmp_path / "folder.vtk").mkdir()
    with pytest.raises(IsADirectoryError, match="name a mesh file inside it"):
        read_mesh(tmp_path / "folder.vtk")
