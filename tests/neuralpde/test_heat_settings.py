"""A run folder remembers its settings, and refuses to be two runs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from neuralpde import RunFolderError
from neuralpde.heat_data import Truth
from neuralpde.heat_settings import HeatSettings, open_run, record_run


@pytest.fixture
def settings(mesh_files, tmp_path) -> HeatSettings:
    """A run on copies of the surfaces, so that they can be changed."""
    copies = {name: Path(shutil.copy(path, tmp_path / path.name)) for name, path in mesh_files.items()}
    return HeatSettings(
        train_mesh=(copies["ball"], copies["ring"]),
        test_mesh=(copies["unseen"],),
        truth=Truth.PUBLISHED,
        out=tmp_path / "run",
        steps=8,
        seed=5,
    )


def start(settings: HeatSettings) -> None:
    assert open_run(settings) is settings
    record_run(settings)


def test_defaults_are_a_run():
    assert HeatSettings().train_mesh == ()
    assert HeatSettings().truth is Truth.SURFACE


def test_resume_gives_back_the_settings(settings):
    start(settings)
    again = open_run(HeatSettings(out=settings.out, resume=True))
    assert again == replace(settings, resume=True)
    # What belongs to a session, not to the run, is taken from the session.
    rows = Path("rows.json")
    assert open_run(HeatSettings(out=settings.out, resume=True, json=rows)).json == rows


def test_config_is_plain_json(settings):
    start(settings)
    stored = json.loads((settings.out / "config.json").read_text())
    assert stored["truth"] == "published"
    assert stored["steps"] == 8
    assert set(stored["mesh_sha256"]) == {str(path) for path in settings.train_mesh + settings.test_mesh}
    assert not {"out", "json", "resume"} & set(stored)


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 9), ("batch", 3), ("seed", 1), ("threads", 2), ("truth", Truth.SURFACE)]
)
def test_contradiction(field, value, settings):
    start(settings)
    given = HeatSettings(out=settings.out, resume=True)
    if value == getattr(given, field):
        # The default cannot be told from an option that was left out, so the run's own setting wins.
        assert getattr(open_run(replace(given, **{field: value})), field) == getattr(settings, field)
        return
    with pytest.raises(
        RunFolderError, match=rf"was started with {field} = .*resume without that option, or start another"
    ):
        open_run(replace(given, **{field: value}))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_changed_or_lost_mesh(index, settings):
    start(settings)
    path = (*settings.train_mesh, *settings.test_mesh)[index]
    path.write_bytes(path.read_bytes() + b" ")
    for _ in range(2):
        with pytest.raises(RunFolderError, match=rf"{path.name} is gone or has changed .*restore it, or start anew"):
            open_run(HeatSettings(out=settings.out, resume=True))
        path.unlink(missing_ok=True)


def test_folders_in_use(settings, tmp_path):
    start(settings)
    with pytest.raises(RunFolderError, match=r"already holds a run: continue it with --resume, or choose another"):
        open_run(settings)
    with pytest.raises(RunFolderError, match=r"not an empty folder: choose another with --out"):
        open_run(replace(settings, out=tmp_path))
    (tmp_path / "empty").mkdir()
    start(replace(settings, out=tmp_path / "empty"))
    with pytest.raises(RunFolderError, match=r"no run to resume in .*start it without --resume"):
        open_run(replace(settings, out=tmp_path / "never", resume=True))
    assert not (tmp_path / "never").exists()


def test_opening_writes_nothing(settings):
    open_run(settings)
    assert not settings.out.exists()


def test_a_missing_mesh_is_no_run(settings):
    settings.test_mesh[0].unlink()
    with pytest.raises(RunFolderError, match=r"there is no mesh file .*unseen\.ply: check the path"):
        record_run(settings)
    assert not settings.out.exists()


def test_what_a_kill_left_is_swept_up(settings):
    start(settings)
    left = settings.out / "weights" / ".gcn.safetensors.123.tmp"
    left.parent.mkdir()
    left.touch()
    record_run(open_run(HeatSettings(out=settings.out, resume=True)))
    assert not left.exists()
    assert open_run(HeatSettings(out=settings.out, resume=True)) == replace(settings, resume=True)


def test_a_place_for_rows_that_is_missing_is_named_at_once(settings, tmp_path):
    with pytest.raises(RunFolderError, match=r"cannot write .*rows\.json: .*choose another --json"):
        open_run(replace(settings, json=tmp_path / "gone" / "rows.json"))


def test_refusals(settings, tmp_path):
    for name in ("steps", "batch", "threads"):
        with pytest.raises(RunFolderError, match=f"--{name} must be at least 1, not 0"):
            replace(settings, **{name: 0})
    with pytest.raises(RunFolderError, match=r"both trained and tested on"):
        replace(settings, test_mesh=(tmp_path / "x" / ".." / "ring.ply",))
    for absent in ("train", "test"):
        with pytest.raises(RunFolderError, match=f"--{absent}-mesh is missing: give surfaces"):
            replace(settings, **{f"{absent}_mesh": ()})
