"""Coverage-guided fuzzing of the mesh readers with atheris (libFuzzer): any bytes give a valid mesh or a MeshFileError.

    pip install atheris
    python tests/fuzz/fuzz_mesh_files.py ply CORPUS -max_total_time=150 -timeout=5 -rss_limit_mb=2048

for each of ply, obj, off and stl. CORPUS is a folder that grows by every input with new coverage; it is filled with
the seeds below and those in tests/fuzz/corpus/FORMAT first. What fails is written to ./crash-*, ./timeout-* or
./oom-*; give that file in place of CORPUS to run it alone. To minimise a corpus into an empty folder:

    python tests/fuzz/fuzz_mesh_files.py ply NEW CORPUS -merge=1
"""

import hashlib
import shlex
import sys
import tempfile
from pathlib import Path

import numpy as np

FORMATS = ("ply", "obj", "off", "stl")
CORPUS = Path(__file__).parent / "corpus"

FACET = b"facet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 1 1 0\nendloop\nendfacet\n"
HEAD = b"ply\nformat binary_%s_endian 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
LIST = b"element face 2\nproperty list %s %s vertex_indices\nend_header\n"
POINTS = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
HANDWRITTEN: dict[str, list[bytes]] = {
    "ply": [
        b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty double z\nproperty uchar red\n"
        b"element face 2\nproperty short flag\nproperty list uchar int vertex_indices\nproperty list char float t\nend_header\n"
        b"0 0 0 1\n1 0 0 2\n0 1 0 3\n0 3 0 1 2 1 .5\n0 4 0 1 2 0 0\n",
        b"ply\r\nformat ascii 1.0\r\ncomment x\r\nelement vertex 1\r\nproperty float x\r\nproperty float y\r\n"
        b"property float z\r\n"
        b"element face 1\r\nproperty list uint uint vertex_index\r\nend_header\r\n1e999 nan -0\r\n3 0 0 0\r\n",
        HEAD % b"little" + LIST % (b"uchar", b"int") + np.array(POINTS, "<f4").tobytes() + b"\3" + bytes(12) + b"\4" + bytes(16),
        HEAD % b"big" + LIST % (b"int", b"ushort") + np.array(POINTS, ">f4").tobytes() + b"\0\0\0\3\0\0\0\1\0\2" * 2,
        HEAD % b"little" + LIST % (b"char", b"char") + np.array(POINTS, "<f4").tobytes() + b"\xff\xff",
        HEAD % b"little" + LIST % (b"uint", b"double") + np.array(POINTS, "<f4").tobytes() + b"\xff\xff\xff\xff" + bytes(9),
        HEAD.replace(b"vertex 3", b"vertex 999999999999") % b"little" + LIST % (b"uchar", b"uchar"),
    ],
    "obj": [
        b"# c\nmtllib a\no s\nv 0 0 0\nv 1 0 0 1\nv 1 1 0 .1 .2 .3\nv 0 1 0\nvn 0 0 1\nvt 0 0\ns off\n"
        b"f 1/1 2//2 3/3/3 4\nf -4 -3 -2\n",
        b"v 0 0 0\rv 1e400 0 0\rv 0 1_0 0\rf 1 2 3\r",
        b"f 1 2 3\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 99999999999999999999 -99 0\nl 1 2\np 1\n",
        b"v 0 0 0\nf 1 1 1 1 1 1\nf 1.5 2 3\nf /1 2 3\nf 1/\n",
    ],
    "off": [
        b"OFF\n4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3 255 0 0\n3 0 1 2\n",
        b"COFF 3 1 0 # c\n0 0 0 9 9 9 9\n1 0 0 9 9 9 9\n1 1 0 9 9 9 9\n3 0 1 2\n",
        b"STCNOFF\n\n1 1\n0 0 0 1 2 3\n3 0 0 -1\n",
        b"OFF\n999999999999999999 1 0\n0 0 0\n1e300 1 2\n",
    ],
    "stl": [
        b"solid s\n" + FACET + FACET.replace(b"1 0 0", b"1 nan 0") + b"endsolid s\n",
        b"solid" + bytes(75) + b"\2\0\0\0" + bytes(100),
        b"  SOLID\n" + FACET.upper() + b"endsolid",
        bytes(80) + b"\xff\xff\xff\xff" + bytes(50),
        bytes(84),
    ],
}


def seeds(kind: str) -> list[bytes]:
    """The handwritten files, and a mesh as our writer writes it."""
    from operators.mesh_files import write_mesh

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"mesh.{kind}")
        write_mesh(path, np.eye(4, 3) / 3, [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
        return [path.read_bytes(), *HANDWRITTEN[kind]]


def check(kind: str, data: bytes) -> None:
    """The law: a valid mesh or a MeshFileError, and nothing else."""
    from operators.mesh_files import MeshFileError, parse_mesh

    try:
        vertices, faces = parse_mesh(data, f".{kind}")
    except MeshFileError as error:
        if len(str(error)) > 1000 or "; " not in str(error):
            raise ValueError(f"no message for a person: {str(error)[:300]!r}") from error
        return
    if (vertices.dtype, faces.dtype) != (np.float64, np.int64) or vertices.shape[1:] != (3,) or faces.shape[1:] != (3,):
        raise ValueError(f"{vertices.dtype} {vertices.shape}, {faces.dtype} {faces.shape}")
    if not len(vertices) or not len(faces) or not np.isfinite(vertices).all():
        raise ValueError("empty or not finite")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError(f"indices from {faces.min()} to {faces.max()} for {len(vertices)} vertices")


def main() -> None:
    import atheris

    kind = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if kind not in FORMATS:
        sys.exit(f"name a format first: {', '.join(FORMATS)}")
    import operators  # the package imports torch, which need not be instrumented

    for name in ("mesh_parsing", "ply_files", "mesh_files"):
        del sys.modules[f"operators.{name}"]
        delattr(operators, name)
    with atheris.instrument_imports(include=["operators.mesh_parsing", "operators.ply_files", "operators.mesh_files"]):
        import operators.mesh_files

    folder = next((Path(word) for word in sys.argv[1:] if not word.startswith("-")), None)
    if folder is not None and folder.is_dir() and not any(word.startswith("-merge") for word in sys.argv):
        kept = [path.read_bytes() for path in (CORPUS / kind).glob("*")]
        for seed in [*seeds(kind), *kept]:
            (folder / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    # To merge, libFuzzer starts itself again by its first argument, in a shell.
    command = shlex.join([sys.executable, __file__, kind])
    atheris.Setup([command, *sys.argv[1:]], lambda data: check(kind, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
