"""The cache gives back what was computed from the very same inputs, whatever kills, damages or shares it."""

import functools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from operators.cache import COMPLEX, SUFFIX, Cache
from operators.domains import TriangleMesh
from operators.laplacian import combinatorial_laplacian
from operators.magnetic import magnetic_laplacian
from operators.shapes import icosphere
from operators.surface import cotangent_laplacian, robust_laplacian

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64, torch.complex128]
WRITER = """
import sys, torch
from operators.cache import Cache
cache = Cache(sys.argv[1], 2**20)
print("ready", flush=True)
k = 0
while True:
    k += 1
    found = cache.get("kill", {"k": k % 5}, lambda: {"x": torch.full((20000,), float(k % 5))})
    assert bool((found["x"] == k % 5).all())
    if k % 7 == 0:
        cache.clear()
"""


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def entries(cache):
    return sorted(cache.folder.glob(f"*{SUFFIX}"))


def never():
    raise AssertionError("computed although it was stored")


def start_writer(folder):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, env=environment)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 2)], ids=str)
def test_what_was_stored_comes_back_to_the_last_bit(dtype, shape, cache):
    given_tensor = (
        (torch.randn(shape, dtype=torch.complex128) * 3).to(dtype) if dtype.is_complex else torch.randn(shape).to(dtype)
    )
    first = cache.get("any", {}, lambda: {"a": given_tensor, "b": given_tensor.T if given_tensor.ndim == 2 else given_tensor})
    again = cache.get("any", {}, never)
    for name in ("a", "b"):
        assert again[name].dtype == dtype
        assert torch.equal(again[name], first[name])
    assert torch.equal(again["a"], given_tensor)


BASE = {"x": torch.arange(6.0).reshape(2, 3), "k": 3, "name": "a"}
OTHERS = {
    "one bit": BASE
    | {"x": (BASE["x"].view(torch.int32) ^ torch.tensor([[0, 0, 0], [0, 0, 1]], dtype=torch.int32)).view(torch.float32)},
    "dtype": BASE | {"x": BASE["x"].double()},
    "same bytes as another dtype": BASE | {"x": BASE["x"].view(torch.int32)},
    "shape": BASE | {"x": BASE["x"].reshape(3, 2)},
    "transposed": BASE | {"x": BASE["x"].T},
    "array": BASE | {"x": BASE["x"].numpy()},
    "number": BASE | {"k": 4},
    "float": BASE | {"k": 3.0},
    "bool": BASE | {"k": True},
    "string": BASE | {"k": "3"},
    "absent": {"x": BASE["x"], "k": 3},
    "none": BASE | {"name": None},
    "moved between names": {"x": BASE["x"], "name": 3, "k": "a"},
    "nested": BASE | {"k": [3]},
}


def test_every_difference_makes_another_key(cache):
    keys = [cache.key("kind", inputs) for inputs in [BASE, *OTHERS.values()]]
    keys += [
        cache.key("other", BASE),
        cache.key("kind", BASE, version=2),
        cache.key("kind", BASE, libraries=("numpy",)),
        cache.key("kind", BASE, libraries=("numpy", "scipy")),
    ]
    assert len(set(keys)) == len(keys)


def test_order_of_names_and_layout_in_memory_make_no_difference(cache):
    strided = torch.arange(6.0).reshape(2, 3).T.contiguous().T
    assert not strided.is_contiguous()
    assert cache.key("kind", {"name": "a", "k": 3, "x": strided}) == cache.key("kind", BASE)


@given(a=st.lists(st.text()), b=st.lists(st.text()))
def test_lists_of_strings_are_never_confused(a, b):
    key = functools.partial(Cache.key, None, "kind")
    assert (key({"x": a}) == key({"x": b})) == (a == b)


@pytest.mark.parametrize("place", [0, 40, -1])
def test_a_damaged_entry_is_computed_anew_and_replaced(place, cache):
    inputs = {"k": 1}
    cache.get("any", inputs, lambda: {"x": torch.arange(100)})
    (path,) = entries(cache)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    for damaged in (bytes(content), bytes(content[:50]), b"", b"\0" * 200):
        path.write_bytes(damaged)
        assert torch.equal(cache.get("any", inputs, lambda: {"x": torch.arange(100)})["x"], torch.arange(100))
        assert torch.equal(cache.get("any", inputs, never)["x"], torch.arange(100))


def test_least_recently_used_entries_leave_first(tmp_path):
    cache = Cache(tmp_path, max_bytes=5000)

    def put(k):
        cache.get("any", {"k": k}, lambda: {"x": torch.full((200,), float(k), dtype=torch.float64)})
        time.sleep(0.01)

    put(0)
    put(1)
    cache.get("any", {"k": 0}, never)
    time.sleep(0.01)
    put(2)
    assert cache.size() <= 5000
    cache.get("any", {"k": 0}, never)
    cache.get("any", {"k": 2}, never)
    with pytest.raises(AssertionError, match="computed although"):
        cache.get("any", {"k": 1}, never)
    cache.clear()
    assert cache.size() == 0


def test_a_result_larger_than_the_cache_is_given_but_not_kept(tmp_path):
    cache = Cache(tmp_path, max_bytes=100)
    with pytest.warns(UserWarning, match="larger than the whole cache: raise max_bytes"):
        assert cache.get("any", {}, lambda: {"x": torch.ones(100)})["x"].sum() == 100
    assert cache.size() == 0


def test_a_folder_that_cannot_be_written_costs_a_warning_not_the_result(cache, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match="could not be written .*No space left.*: the result is not kept"):
        assert cache.get("any", {}, lambda: {"x": torch.ones(3)})["x"].sum() == 3
    assert list(cache.folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error_with_its_cure(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot be made .*give Cache a folder that is yours"):
        Cache(tmp_path / "file" / "cache")


def test_what_would_lose_a_gradient_or_has_no_bytes_is_refused(cache):
    learned = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match=r"inputs\['x'\] requires a gradient"):
        cache.get("any", {"x": learned}, never)
    with pytest.raises(ValueError, match="the result 'y' requires a gradient"):
        cache.get("any", {}, lambda: {"y": 2 * learned})
    with pytest.raises(TypeError, match=r"inputs\['x'\] is a object, which has no canonical bytes"):
        cache.get("any", {"x": object()}, never)
    with pytest.raises(TypeError, match="array of Python objects"):
        cache.get("any", {"x": np.array([object()])}, never)
    with pytest.raises(ValueError, match="max_bytes must be a positive integer"):
        Cache(cache.folder, 0)
    own = lambda mesh: robust_laplacian(mesh)  # noqa: E731
    for module in (__name__, "operators.surface"):  # a lambda has a name that says nothing, wherever it was made
        own.__module__ = module
        with pytest.raises(ValueError, match="use get"):
            cache.laplacian(own, icosphere(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("build", [robust_laplacian, cotangent_laplacian])
def test_a_laplacian_from_the_cache_is_the_one_that_was_built(build, dtype, cache, monkeypatch):
    mesh = icosphere(1, dtype=dtype)
    for _ in range(2):
        L = cache.laplacian(build, mesh)
        assert torch.equal(L.stiffness.values, build(mesh).stiffness.values)
        assert torch.equal(L.mass, build(mesh).mass)
        assert torch.equal(L.matrix(), build(mesh).matrix())
        assert L.on(icosphere(0)).shape == (12, 12)
    assert len(entries(cache)) == 1
    cache.laplacian(build, TriangleMesh(mesh.vertices * 2, mesh.faces))
    assert len(entries(cache)) == 2


def test_settings_of_a_partial_belong_to_the_key_and_complex_values_survive(cache):
    graph = icosphere(0).graph()
    for charge in (0.1, 0.2):
        build = functools.partial(magnetic_laplacian, charge=charge)
        for _ in range(2):
            assert torch.equal(cache.laplacian(build, graph).stiffness.values, build(graph).stiffness.values)
    cache.laplacian(combinatorial_laplacian, graph)
    assert len(entries(cache)) == 3
    assert COMPLEX not in "".join(cache.get("any", {}, lambda: {"z": torch.ones(1, dtype=torch.complex128)}))


def test_the_default_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert Cache.default().folder == tmp_path / "mine" / "neuralpde"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Cache.default().folder == tmp_path / ".cache" / "neuralpde"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
def test_an_entry_that_vanishes_while_it_is_counted_is_no_error(cache):
    cache.get("any", {}, lambda: {"x": torch.ones(3)})
    size = cache.size()
    (cache.folder / f"gone{SUFFIX}").symlink_to(cache.folder / "nowhere")
    assert cache.size() == size


def test_killed_and_concurrent_writers_leave_only_whole_entries(tmp_path):
    steady = start_writer(tmp_path)
    steady.stdout.readline()
    for delay in (0.11, 0.02):
        victim = start_writer(tmp_path)
        victim.stdout.readline()
        time.sleep(delay)
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
    assert steady.poll() is None
    steady.kill()
    steady.communicate()
    cache = Cache(tmp_path, 2**20)
    for k in range(5):
        found = cache.get("kill", {"k": k}, lambda k=k: {"x": torch.full((20000,), float(k))})
        assert (found["x"] == k).all()
        # What a kill left behind goes with the next write, once it is old.
    for part in tmp_path.glob(".*.part"):
        os.utime(part, (0, 0))
    cache.get("new", {}, lambda: {"x": torch.ones(1)})
    assert list(tmp_path.glob(".*.part")) == []


def test_keys_of_another_type_and_fields_of_another_name_are_other_inputs(cache):
    assert cache.key("any", {"x": {1: 2}}) != cache.key("any", {"x": {"1": 2}})
    assert cache.key("any", {"x": {1: 2, "b": 3}}) == cache.key("any", {"x": {"b": 3, 1: 2}})
    one, other = (np.zeros(2, dtype=[(name, np.int64)]) for name in "ab")
    assert cache.key("any", {"x": one}) != cache.key("any", {"x": other})


def test_a_result_named_like_a_complex_one_is_refused(cache):
    with pytest.raises(ValueError, match="which marks complex tensors here: call it otherwise"):
        cache.get("any", {}, lambda: {f"a{COMPLEX}": torch.ones(2)})


def test_a_function_of_the_users_own_is_refused_since_nobody_sees_it_change(cache):
    def mine(mesh):
        return robust_laplacian(mesh)

    mine.__qualname__ = "mine"
    with pytest.raises(ValueError, match=r"do not tell when .*mine changes: use get\(kind, inputs, compute, version=\.\.\.\)"):
        cache.laplacian(mine, icosphere(0))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_in_place_of_an_entry_is_neither_read_nor_counted(cache):
    path = cache.folder / f"{cache.key('kind', {'k': 1})}{SUFFIX}"
    os.mkfifo(path)
    (cache.folder / f"other{SUFFIX}").mkdir()
    assert torch.equal(cache.get("kind", {"k": 1}, lambda: {"x": torch.ones(2)})["x"], torch.ones(2))
    assert path.is_file()
    cache.clear()
    assert cache.size() == 0
