"""`neuralpde data meshpde`: made once, continued, checked, and the same with any number of workers."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

import neuralpde.mesh_data_command as command
from neuralpde.files import RunFolderError
from neuralpde.heat_data import Truth
from neuralpde.mesh_data import read_case
from neuralpde.mesh_data_command import MeshDataSettings, make_mesh_data
from neuralpde.mesh_data_file import DataFormat, digest
from neuralpde.mesh_manifest import MANIFEST
from neuralpde.mesh_pde import Pde


@pytest.fixture(scope="module")
def meshes(surfaces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("meshes")
    surfaces["ball"].save(folder / "sphere.ply")
    surfaces["ring"].save(folder / "spot_low.ply")
    return folder


@pytest.fixture
def settings(meshes, tmp_path):
    pde, truth = (Pde.HEAT, Pde.WAVE), (Truth.PUBLISHED,)
    return MeshDataSettings(pde=pde, truth=truth, meshes=meshes, out=tmp_path / "out", conditions=1)


def contents(settings):
    return {path.name: path.read_bytes() for path in settings.out.iterdir()}


def told(settings):
    text = io.StringIO()
    make_mesh_data(settings, Console(file=text))
    return text.getvalue()


def test_one_file_for_each_equation_truth_and_mesh(settings, capsys):
    paths = make_mesh_data(settings, Console(file=io.StringIO()))
    names = {f"{pde}-published-{mesh}.safetensors" for pde in ("heat", "wave") for mesh in ("sphere", "spot_low")}
    assert {path.name for path in paths} == names
    assert set(contents(settings)) == names | {MANIFEST}
    assert read_case(paths[0]).scene.name == "sphere"
    beside = capsys.readouterr()
    assert beside.out == ""
    assert beside.err.count("does not hold bunny_coarse") == 1


def test_a_killed_run_continues(settings, monkeypatch):
    work, calls = command._work, []

    def killed(part, path):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(path)
        return work(part, path)

    monkeypatch.setattr(command, "_work", killed)
    with pytest.raises(KeyboardInterrupt):
        make_mesh_data(settings, Console(file=io.StringIO()))
    half = {path: path.stat().st_mtime_ns for path in calls}
    (settings.out / ".x.safetensors.9.tmp").write_text("left over")
    (settings.out / ".x.zarr.9.tmp").mkdir()
    monkeypatch.setattr(command, "_work", work)
    assert "4 files" in (text := told(settings))
    assert "2 made, 2 kept" in text.replace("\n", " ")
    assert {path: path.stat().st_mtime_ns for path in calls} == half
    fresh = replace(settings, out=settings.out.parent / "fresh")
    make_mesh_data(fresh, Console(file=io.StringIO()))
    assert contents(settings) == contents(fresh)


def test_workers_change_nothing(settings):
    settings = replace(settings, pde=(Pde.WAVE,))
    two = replace(settings, out=settings.out.parent / "two", workers=2)
    make_mesh_data(settings, Console(file=io.StringIO()))
    make_mesh_data(two, Console(file=io.StringIO()))
    assert contents(settings) == contents(two)


def test_tampering_is_seen_and_mended(settings, capsys):
    make_mesh_data(settings, Console(file=io.StringIO()))
    before = contents(settings)
    assert "4 files" in told(replace(settings, verify=True))
    path = settings.out / "heat-published-sphere.safetensors"
    path.write_bytes(before[path.name][:-1] + bytes([before[path.name][-1] ^ 1]))
    with pytest.raises(RunFolderError, match=r"heat-published-sphere.safetensors has changed"):
        make_mesh_data(replace(settings, verify=True))
    capsys.readouterr()
    assert "1 made, 3 kept" in told(settings).replace("\n", " ")
    assert "is made anew" in capsys.readouterr().err
    assert contents(settings) == before
    # Without the list nothing is known of the files.
    (settings.out / MANIFEST).unlink()
    assert "4 made, 0 kept" in told(settings).replace("\n", " ")
    assert contents(settings) == before


def test_folders_of_others_are_left_alone(settings, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to.txt").write_text("dear")
    with pytest.raises(RunFolderError, match="holds other things"):
        make_mesh_data(replace(settings, out=tmp_path / "letters"))
    with pytest.raises(RunFolderError, match="is not a folder"):
        make_mesh_data(replace(settings, out=tmp_path / "letters" / "to.txt"))
    with pytest.raises(RunFolderError, match="no MANIFEST"):
        make_mesh_data(replace(settings, out=tmp_path / "letters", verify=True))
    make_mesh_data(settings, Console(file=io.StringIO()))
    with pytest.raises(RunFolderError, match="other settings"):
        make_mesh_data(replace(settings, seed=1))


def test_zarr(settings):
    pytest.importorskip("zarr")
    settings = replace(settings, pde=(Pde.HEAT,), format=DataFormat.ZARR)
    paths = make_mesh_data(settings, Console(file=io.StringIO()))
    assert [path.suffix for path in paths] == [".zarr", ".zarr"]
    assert read_case(paths[0]).frames.shape[0] == 1
    before = [digest(path) for path in paths]
    next(inner for inner in paths[1].rglob("frames/*.0") if inner.is_file()).write_bytes(b"?")
    with pytest.raises(RunFolderError, match="has changed"):
        read_case(paths[1])
    make_mesh_data(settings, Console(file=io.StringIO()))
    assert [digest(path) for path in paths] == before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"workers": 0}, "--workers"), ({"conditions": 0}, "--conditions"), ({"seed": -1}, "--seed"), ({"pde": ()}, "--pde")],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(RunFolderError, match=message):
        MeshDataSettings(**wrong)
