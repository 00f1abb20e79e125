"""What the child hands over, without VTK: cells cut up, arrays written, messages found."""

import io
import signal
import subprocess
import sys
from collections import defaultdict

import numpy as np
import pytest

from operators import vtk_child
from operators.vtk_child import first_message, polygons, write


def cells(*lists):
    return np.cumsum([0, *map(len, lists)]), np.array([corner for one in lists for corner in one], np.int64)


def test_polygons_pixels_and_strips():
    types = np.array([5, 8, 6, 3, 9, 7])
    sizes, corners = polygons(types, *cells([0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1], [4, 5, 6, 7], [1, 2, 3, 4, 5]))
    found = [part.tolist() for part in np.split(corners, np.cumsum(sizes)[:-1])]
    plain = [[0, 1, 2], [4, 5, 6, 7], [1, 2, 3, 4, 5]]
    assert found == [*plain, [0, 1, 3, 2], [0, 1, 2], [2, 1, 3], [2, 3, 4]]


def test_no_cells_give_no_polygons():
    sizes, corners = polygons(np.zeros(0, np.int64), np.zeros(1, np.int64), np.zeros(0, np.int64))
    assert len(sizes) == len(corners) == 0


@pytest.mark.parametrize("offsets", [[0, 3, 99], [0, 5, 3], [2, 3, 6]])
def test_offsets_that_do_not_fit_are_no_polygons(offsets):
    with pytest.raises((IndexError, ValueError)):
        polygons(np.array([5, 5]), np.array(offsets), np.arange(6))


def test_arrays_are_written_as_counts_positions_sizes_corners():
    file = io.BytesIO()
    write(file, np.arange(6, dtype=np.float32).reshape(2, 3), np.array([3]), np.array([0, 1, 1]))
    data = file.getvalue()
    assert np.frombuffer(data, np.int64, 3).tolist() == [2, 1, 3]
    assert np.frombuffer(data, np.float64, 6, 24).tolist() == list(range(6))
    assert np.frombuffer(data, np.int64, 4, 72).tolist() == [3, 0, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\x1b[31m( 0.1s) [ABC] vtkReader.cxx:12 ERR| vtkReader (0x55d): Zlib error.\x1b[0m\nnext", "Zlib error."),
        ("ERROR: In vtkReader.cxx, line 3\nvtkReader (0x7f): Cannot  read", "Cannot read"),
        ("( 0.1s) [ABC] vtkReader.cxx:12 WARN| Error reading binary data!", "Error reading binary data!"),
        ("anything\nelse", "anything else"),
    ],
)
def test_the_first_message_is_found(text, message):
    assert first_message(text) == message


@pytest.mark.skipif(sys.platform == "win32", reason="signals and resource limits are POSIX")
def test_a_child_out_of_processor_time_is_told_apart_from_one_that_is_killed():
    code = f"import runpy\nrunpy.run_path({vtk_child.__file__!r})['limit_resources'](1, 2**31)\nwhile True: pass"
    done = subprocess.run([sys.executable, "-I", "-c", code], timeout=60, check=False)
    assert done.returncode == -signal.SIGXCPU


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX")
@pytest.mark.parametrize("seconds", [5, -1])
def test_limits_are_never_raised_above_those_in_force(seconds, monkeypatch):
    import resource

    hard, held = defaultdict(lambda: resource.RLIM_INFINITY, {resource.RLIMIT_CPU: seconds, resource.RLIMIT_FSIZE: 40}), {}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (0, hard[kind]))
    monkeypatch.setattr(resource, "setrlimit", held.__setitem__)
    vtk_child.limit_resources(10, 50)
    cpu = (5, 5) if seconds == 5 else (10, resource.RLIM_INFINITY)
    sizes = {resource.RLIMIT_AS: (50, 50), resource.RLIMIT_FSIZE: (40, 40), resource.RLIMIT_CORE: (0, 0)}
    assert held == {resource.RLIMIT_CPU: cpu, **sizes}
