"""What is finished is kept, and never mixed with what was made otherwise."""

import json
import os
from dataclasses import replace

import pytest

import neuralpde.run_folder as module
from neuralpde.files import RunFolderError
from neuralpde.run_folder import RunFolder, row


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run", json=tmp_path / "rows.json")
    folder.check()
    folder.make()
    return folder


def test_a_part_is_kept_and_found_again(run):
    assert run.kept("ours-0", "settings") is None
    run.keep("ours-0", "settings", {"score": 1.5, "curve": [1.0, 2.0]})
    again = replace(run, resume=True)
    again.check()
    assert again.kept("ours-0", "settings") == {"score": 1.5, "curve": [1.0, 2.0]}
    assert not list(run.path.rglob("*.tmp"))


def test_what_was_made_otherwise_is_refused(run, monkeypatch):
    run.keep("ours-0", "settings", {"score": 1.5})
    with pytest.raises(RunFolderError, match="other settings or data"):
        run.kept("ours-0", "other settings")
    with pytest.raises(RunFolderError, match="threads 1, not 2"):
        replace(run, threads=2).kept("ours-0", "settings")
    monkeypatch.setattr(module, "version", lambda name: "999")
    with pytest.raises(RunFolderError, match=r"version .*, not 999"):
        run.kept("ours-0", "settings")


DAMAGED = ["{", "[]", "3", '{"result": {}}', '{"circumstances": {}, "result": 3}', '{"circumstances": 1, "result": {}}']


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_part_is_named(run, text):
    (run.parts / "ours-0.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"ours-0\.json is damaged .*delete it and resume"):
        run.kept("ours-0", "settings")


def test_a_run_is_not_overwritten_nor_resumed_from_nothing(run, tmp_path):
    run.keep("ours-0", "settings", {"score": 1.5})
    with pytest.raises(RunFolderError, match="continue it with --resume"):
        run.check()
    with pytest.raises(RunFolderError, match="no run to resume"):
        RunFolder(tmp_path / "absent", resume=True).check()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="is not a folder"):
        RunFolder(tmp_path / "file").check()
    with pytest.raises(RunFolderError, match="cannot make"):
        RunFolder(tmp_path / "file" / "run").make()
    with pytest.raises(RunFolderError, match="is a folder: give --json"):
        RunFolder(tmp_path / "new", json=tmp_path).check()
    with pytest.raises(RunFolderError, match="choose another --json"):
        RunFolder(tmp_path / "new", json=tmp_path / "nowhere" / "rows.json").check()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_known_at_once(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(RunFolderError, match="cannot make"):
            RunFolder(tmp_path / "run").make()
    finally:
        tmp_path.chmod(0o755)


def test_the_table_is_written_beside_and_where_asked(run):
    rows = [row("toy", "ours", "mse", [1.0, 3.0], "1", published=2.0)]
    run.finish(rows)
    written = json.loads((run.path / "table.json").read_text())
    assert written == json.loads(run.json.read_text())
    (one,) = written["rows"]
    assert one == {
        "table": "toy", "method": "ours", "metric": "mse", "value": 2.0, "std": 2**0.5, "n": 2, "unit": "1", "published": 2.0
    }  # fmt: skip


def test_one_value_has_no_spread():
    assert row("toy", "ours", "mse", [1.0], "1")["std"] == 0.0
