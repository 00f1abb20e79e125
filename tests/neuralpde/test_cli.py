"""Every mistake ends with status 1 and a message that names cause and cure, never with a traceback."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from integrators import SolveError, Status
from neuralpde import cli
from neuralpde.cli import main

ROOT = Path(__file__).parents[2]


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a failing command says."""
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    last = said[said.rindex("neuralpde: ") :]
    assert last.endswith("\n")
    return last


def change(arguments: list[str], **options: str) -> list[str]:
    """The arguments with the values after some flags replaced."""
    changed = list(arguments)
    for name, value in options.items():
        changed[changed.index(f"--{name.replace('_', '-')}") + 1] = value
    return changed


def expect(pattern: str, said: str) -> None:
    assert re.search(pattern, said, re.S), said


def test_folder_in_use(tiny, finished, capsys):
    said = complaint([*tiny, "--out", str(finished)], capsys)
    expect(r"already holds a run: continue it with --resume, or choose another folder with --out", said)


def test_folder_with_something_else_in_it(tiny, tmp_path, capsys):
    (tmp_path / "thesis.tex").touch()
    expect(r"is not an empty folder: choose another with --out", complaint([*tiny, "--out", str(tmp_path)], capsys))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way(tiny, tmp_path, capsys):
    (tmp_path / "file").touch()
    said = complaint([*tiny, "--out", str(tmp_path / "file")], capsys)
    expect(r"file exists and is not an empty folder: choose another with --out", said)
    said = complaint([*tiny, "--out", str(tmp_path / "file" / "run")], capsys)
    expect(r"cannot write .*config\.json: .*choose another folder with --out", said)


def test_nothing_to_resume(tiny, tmp_path, capsys):
    said = complaint([*tiny, "--out", str(tmp_path), "--resume"], capsys)
    expect(r"there is no run to resume in .*: start it without --resume", said)


@pytest.mark.parametrize(("option", "value"), [("steps", "9"), ("batch", "3")])
def test_resume_with_contradicting_settings(option, value, tiny, finished, capsys):
    said = complaint([*change(tiny, **{option: value}), "--out", str(finished), "--resume"], capsys)
    expect(rf"this run was started with {option} = .*, not {value}: resume without that option, or start another", said)


def test_resume_with_other_meshes(tiny, finished, mesh_files, tmp_path, capsys):
    other = shutil.copy(mesh_files["unseen"], tmp_path / "other.ply")
    said = complaint([*change(tiny, test_mesh=str(other)), "--out", str(finished), "--resume"], capsys)
    expect(r"this run was started with test_mesh = .*unseen\.ply.*other\.ply", said)


def test_resume_with_another_truth(finished, capsys):
    said = complaint(["run", "heat", "--truth", "published", "--out", str(finished), "--resume"], capsys)
    expect(r"this run was started with truth = surface, not", said)


@pytest.mark.parametrize("damage", ["{half", "[]", "{}", '{"steps": 8}'])
def test_damaged_config(damage, tiny, finished, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(damage)
    said = complaint([*tiny, "--out", str(folder), "--resume"], capsys)
    expect(r"config\.json is damaged .*: start a new run in another folder", said)


def test_changed_mesh(tiny, finished, mesh_files, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    moved = tmp_path / "unseen.ply"
    shutil.copy(mesh_files["unseen"], moved)
    config = folder / "config.json"
    config.write_text(config.read_text().replace(str(mesh_files["unseen"]), str(moved)))
    with moved.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    resume = ["run", "heat", "--out", str(folder), "--resume"]
    expect(r"unseen\.ply is gone or has changed since .*: restore it, or start anew", complaint(resume, capsys))
    moved.unlink()
    expect(r"unseen\.ply is gone or has changed since .*: restore it, or start anew", complaint(resume, capsys))


def test_same_mesh_in_train_and_test(tiny, mesh_files, tmp_path, capsys):
    said = complaint([*change(tiny, test_mesh=str(mesh_files["ball"])), "--out", str(tmp_path / "run")], capsys)
    expect(r"ball\.ply is both trained and tested on", said)


def test_two_meshes_of_one_name(tiny, mesh_files, tmp_path, capsys):
    twin = tmp_path / "ring.ply"
    shutil.copy(mesh_files["ball"], twin)
    arguments = change(tiny, train_mesh=str(twin))
    expect(r"two meshes are called ring: rename one", complaint([*arguments, "--out", str(tmp_path / "run")], capsys))


def test_missing_mesh(tiny, tmp_path, capsys):
    said = complaint([*change(tiny, test_mesh=str(tmp_path / "gone.ply")), "--out", str(tmp_path / "run")], capsys)
    expect(r"gone\.ply: No such file or directory; check the spelling", said)
    assert not (tmp_path / "run").exists()
    said = complaint([*change(tiny, test_mesh=str(tmp_path)), "--out", str(tmp_path / "run")], capsys)
    expect(r"is a folder: name|unknown suffix .*convert to one of", said)


def test_one_kind_of_mesh_is_missing(mesh_files, tmp_path, capsys):
    arguments = ["run", "heat", "--train-mesh", str(mesh_files["ball"]), "--out", str(tmp_path / "run")]
    expect(r"--test-mesh is missing: give surfaces to train on and others to test on", complaint(arguments, capsys))


def test_truncated_mesh(tiny, mesh_files, tmp_path, capsys):
    half = tmp_path / "half.ply"
    content = mesh_files["unseen"].read_bytes()
    half.write_bytes(content[: len(content) // 2])
    said = complaint([*change(tiny, test_mesh=str(half)), "--out", str(tmp_path / "run")], capsys)
    expect(r"half\.ply.*(ends|truncated|cut)", said)
    # So that the same command works once the file is whole again.
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_no_mesh(tiny, tmp_path, capsys):
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    said = complaint([*change(tiny, test_mesh=str(text)), "--out", str(tmp_path / "run")], capsys)
    expect(r"notes\.txt.*\.ply", said)


@pytest.mark.parametrize("option", ["steps", "batch", "threads"])
def test_counts_below_one(option, tmp_path, capsys):
    said = complaint(["run", "heat", f"--{option}", "0", "--out", str(tmp_path / "run")], capsys)
    expect(rf"--{option} must be at least 1, not 0", said)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SolveError("diverged: take a smaller step", Status.DIVERGED), 1),
        (FloatingPointError("lower the rate"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_failures_within_a_run(error, status, tmp_path, monkeypatch, capsys):
    def fail(settings: object) -> None:
        raise error

    monkeypatch.setattr(cli, "run_heat", fail)
    assert main(["run", "heat", "--out", str(tmp_path / "run")]) == status
    expect(f"neuralpde: {error}" if status == 1 else "continue with --resume", capsys.readouterr().err)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["run", "heat", "--help"]])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 0
    assert "heat" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("reproduce", "meshpde-hard"),
        ("reproduce unigraph-heat", "--graphs"),
        ("reproduce meshpde", "--truth"),
        ("reproduce meshpde-hard", "--small"),
        ("reproduce weather", "--set"),
        ("reproduce padgn-derivatives", "--no-sparse"),
        ("reproduce padgn-convection", "--hard"),
        ("reproduce padgn-stations", "--held-out"),
        ("reproduce padgn-sst", "--horizon"),
        ("reproduce padgn-nonlinear", "--pde"),
        ("reproduce laplacian-983", "--functions"),
        ("data", "weather"),
        ("data stations", "--layout"),
        ("data meshpde", "--verify"),
        ("data weather", "--noise"),
    ],
)
def test_help_of_every_command_tells_its_options(words, told, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*words.split(), "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert told in out
    assert "For example:" in out


@pytest.mark.parametrize(
    "words",
    [
        "data meshpde --conditions 0",
        "reproduce meshpde --methods nonsense",
        "reproduce weather --seeds 0",
        "reproduce padgn-convection --seeds 0",
        "reproduce padgn-nonlinear --seeds 0",
    ],
)
def test_settings_that_cannot_be_are_one_paragraph(words, capsys):
    assert main(words.split()) == 1
    assert capsys.readouterr().err.startswith("neuralpde: --")


@pytest.mark.parametrize(
    "arguments", [["run", "cold"], ["run", "heat", "--stepz", "3"], ["run", "heat", "--steps", "many"]]
)
def test_unknown_words_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code not in (0, None)
    assert "Traceback" not in capsys.readouterr().err


def test_as_a_module(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "neuralpde", "run", "heat", "--out", str(tmp_path), "--resume"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("neuralpde: there is no run to resume")
    assert done.stdout == ""
