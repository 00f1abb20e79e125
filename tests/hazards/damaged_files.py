"""Mesh files on which the readers below us crash, hang or return garbage, and checkpoints that are cut off."""

import contextlib
import os
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from cases import Cases, check, main

import neuralpde as npde
from neuralpde.files import RunFolderError, read_tensors, write_tensors

cases = Cases()
refuses, answers = cases.refuses, cases.answers
folder = Path(tempfile.mkdtemp())
POINTS = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"
sphere = npde.icosphere(2)


def read(suffix, content):
    path = folder / f"mesh{suffix}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return npde.load_mesh(path)


def refused(name, suffix, content, pattern):
    refuses(name, npde.MeshFileError, pattern, lambda: read(suffix, content))


def written(suffix):
    sphere.save(folder / f"valid{suffix}")
    return (folder / f"valid{suffix}").read_bytes()


def ascii_ply(body, faces=1):
    axes = "".join(f"property float {axis}\n" for axis in "xyz")
    header = f"ply\nformat ascii 1.0\nelement vertex 3\n{axes}element face {faces}\n"
    return f"{header}property list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n{body}"


refused("io_obj_2coord", ".obj", "v 0 0\nv 1 0\nv 0 1\nf 1 2 3\n", "line 1: a vertex with 2 numbers")
refused("io_obj_huge_index", ".obj", POINTS + "f 1 2 2147483647\n", "vertex 2147483646 is not among 0 to 2")
refused("io_obj_nan", ".obj", POINTS.replace("1 0 0", "nan 0 0") + "f 1 2 3\n", "vertex 1: the position .* is not finite")
refused("io_obj_oob", ".obj", POINTS + "f 1 2 9\n", "vertex 8 is not among 0 to 2")
refused("io_obj_text", ".obj", "v a b c\n" + POINTS + "f 1 2 3\n", "line 1: could not convert")
refused("io_obj_truncated io_obj_two_vertex_face", ".obj", POINTS + "f 1 2\n", "2 corners, 3 are needed")
refused("io_obj_binary", ".obj", bytes(range(256)), "unknown keyword")
refused("io_obj_zero_index", ".obj", POINTS + "f 0 1 2\n", "counts from 1")
refused("io_off_bad", ".off", "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 9\n", "vertex 9 is not among")
refused("io_off_truncated", ".off", "OFF\n3 1 0\n0 0 0\n1 0 0\n", "truncated")
refused("io_empty", ".ply", b"", "empty")
refused("io_unknown_ext", ".xyz9", b"0 0 0", "unknown suffix '.xyz9'; convert to one of .ply")
refused("io_ply_oob", ".ply", ascii_ply("3 0 1 7\n"), "vertex 7 is not among")
refused("io_ply_header_lies_count", ".ply", ascii_ply("3 0 1 2\n", faces=10**15), f"promises {10**15} face")
refused("io_ply_truncated ply_ascii_minus_12_bytes", ".ply", ascii_ply("3 0 1 2\n" * 2, faces=2)[:-12], "truncated|more numbers")
cut = ascii_ply("3 0 1 2\n")
refused("ply_ascii_half", ".ply", cut[: len(cut) // 2], "no header|truncated")
binary = written(".ply")
start = binary.index(b"end_header\n") + len(b"end_header\n") + 24 * sphere.num_nodes
big = binary[:start] + b"\xff" + binary[start + 1 :]
refused("io_ply_binary_biglist ply_byte_flipped", ".ply", big, "truncated")
garbage = binary[: start + 1] + b"\xc3" * (len(binary) - start - 1)
refused("io_ply_binary_garbage", ".ply", garbage, "truncated|is not among")
refused("ply_binary_half", ".ply", binary[: len(binary) // 2], "truncated")
refused("ply_minus_10_bytes", ".ply", binary[:-10], "truncated")
more = binary.replace(b"vertex 162", b"vertex 163")
refused("ply_vertex_count_plus_1", ".ply", more, "0 corners|truncated|is not among")
refused("ply_face_count_lies", ".ply", binary.replace(b"face 320", b"face 32000000"), "truncated")
stl = written(".stl")
refused("io_stl_truncated_binary stl_half", ".stl", stl[: len(stl) // 2], "promises 320 facet entries")
refused("stl_count_1e6", ".stl", stl[:80] + (10**6).to_bytes(4, "little") + stl[84:], "promises 1000000 facet entries")
refuses("io_missing", FileNotFoundError, "check the spelling", lambda: npde.load_mesh(folder / "absent.obj"))


def negative_indices():
    mesh = read(".obj", POINTS + "f -3 -2 -1\n")
    check(mesh.faces.tolist() == [[0, 1, 2]])


def quads_beside_triangles():
    mesh = read(".obj", POINTS + "v 1 1 0\nv 2 2 1\nf 1 2 4 3\nf 2 5 4\n")
    check(mesh.faces.tolist() == [[0, 1, 3], [0, 3, 2], [1, 4, 3]])


def mutants(suffix, count):
    """Damage gives a MeshFileError, a DomainError or a mesh whose indices are in range, at once."""
    content, generator = written(suffix), np.random.default_rng(0)
    for _ in range(count):
        changed = bytearray(content)
        for place in generator.integers(0, len(content), 4):
            changed[place] = generator.integers(0, 256)
        began = time.perf_counter()
        with contextlib.suppress(npde.MeshFileError, npde.DomainError):
            mesh = read(suffix, bytes(changed))
            check(int(mesh.faces.min()) >= 0 and int(mesh.faces.max()) < mesh.num_nodes, "index out of range")
        # A second, most of it for the child to import VTK; the reader's own limit is 30 s.
        check(time.perf_counter() - began < 25, "slow")


def vtk_mutants():
    try:
        import vtkmodules.vtkCommonCore  # noqa: F401
    except ImportError:
        absent = Cases()
        absent.refuses("vtk_absent", ImportError, r"neuralpde-toolkit\[mesh\]", lambda: read(".vtk", written(".vtk")))
        absent.functions["vtk_absent"]()
        return
    mutants(".vtk", 6)


def killed_writer():
    """A checkpoint that is written again and again by a process that is killed is always whole."""
    path = folder / "checkpoint.safetensors"
    write_tensors(path, {"x": torch.zeros(100_000)}, {"step": 0})
    for k in range(5):
        child = os.fork()
        if child == 0:
            while True:
                write_tensors(path, {"x": torch.zeros(100_000)}, {"step": 1})
        time.sleep(0.02 + 0.01 * k)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        tensors, notes = read_tensors(path)
        check(tensors["x"].shape == (100_000,) and notes["step"] in (0, 1))


def cut_checkpoint():
    path = folder / "cut.safetensors"
    write_tensors(path, {"x": torch.zeros(1000)}, {"step": 0})
    path.write_bytes(path.read_bytes()[:2000])
    return npde.load_weights(path, torch.nn.Linear(1, 1))


answers("io_obj_negative", negative_indices)
answers("io_obj_quad_tri_mix", quads_beside_triangles)
answers("obj_mutants", lambda: mutants(".obj", 150))
answers("ply_mutants", lambda: mutants(".ply", 150))
answers("vtk_mutants", vtk_mutants)
answers("save_kill_9", killed_writer)
refuses("cut_checkpoint", RunFolderError, "damaged", cut_checkpoint)

if __name__ == "__main__":
    main(cases)
