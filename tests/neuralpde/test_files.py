"""A file appears whole or not at all, and a damaged one is named together with the cure."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from neuralpde import RunFolderError
from neuralpde.files import read_tensors, write_atomically, write_json, write_lines, write_tensors

ROOT = Path(__file__).parents[2]


def test_round_trip_keeps_every_bit(tmp_path):
    tensors = {
        "a": torch.randn(3, 4, dtype=torch.float64),
        "b": torch.arange(6).reshape(2, 3).T,
        "c": torch.tensor(0.1, requires_grad=True),
    }
    notes = {"dt": 0.1 + 0.2, "name": "Möbius", "losses": [1e-300, 2.0]}
    write_tensors(tmp_path / "deep" / "er" / "x.safetensors", tensors, notes)
    found, read = read_tensors(tmp_path / "deep" / "er" / "x.safetensors")
    assert read == notes
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[k], tensors[k]) and found[k].dtype == tensors[k].dtype for k in tensors)


def test_json(tmp_path):
    write_json(tmp_path / "a.json", {"x": 0.1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 0.1}
    write_lines(tmp_path / "b.jsonl", [{"k": 1}, {"k": 2}])
    assert [json.loads(line)["k"] for line in (tmp_path / "b.jsonl").read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize("failure", [RuntimeError, OSError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file(failure, tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"version": 1})

    def write(temporary: Path) -> None:
        temporary.write_text("half of the new")
        raise failure("no space left")

    expected = RunFolderError if failure is OSError else failure
    with pytest.raises(expected, match="no space left"):
        write_atomically(path, write)
    assert json.loads(path.read_text()) == {"version": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    """SIGKILL while the same file is written again and again: it is always one of the versions, whole."""
    path = tmp_path / "x.safetensors"
    script = (
        "import sys, torch\nfrom pathlib import Path\nfrom neuralpde.files import write_tensors\n"
        "for k in range(10**9): write_tensors(Path(sys.argv[1]), {'x': torch.full((10**5,), float(k))}, {'k': k})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    writer = subprocess.Popen([sys.executable, "-c", script, str(path)], env=environment)
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    writer.send_signal(signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    tensors, notes = read_tensors(path)
    assert torch.equal(tensors["x"], torch.full((10**5,), float(notes["k"])))


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.json", tmp_path / "file" / "b" / "a.json"):
        with pytest.raises(RunFolderError, match=r"cannot write .*a\.json: .*choose another folder with --out"):
            write_json(path, {})
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(RunFolderError, match=r"cannot write .*folder\.json"):
        write_json(tmp_path / "folder.json", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.json"]


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def damage_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_text(path: Path) -> None:
    path.write_text("these are not tensors\n" * 9)


def damage_foreign(path: Path) -> None:
    save_file({"x": torch.ones(3)}, path)


def damage_notes(path: Path) -> None:
    save_file({"x": torch.ones(3)}, path, {"notes": "{half"})


@pytest.mark.parametrize(
    "damage",
    [damage_cut, damage_header, damage_empty, damage_text, damage_foreign, damage_notes],
    ids=lambda f: f.__name__,
)
def test_damage_is_named_with_the_cure(damage, tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"x": torch.ones(30)}, {"k": 1})
    damage(path)
    with pytest.raises(RunFolderError, match=r"x\.safetensors is damaged or not a file of this program .*: delete it"):
        read_tensors(path)


def test_a_missing_file_is_named_with_the_cure(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint at .*gone.*: check the path"):
        read_tensors(tmp_path / "gone.safetensors")
