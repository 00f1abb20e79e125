"""The reduced form of the whole command, and what it refuses before anything is computed."""

from dataclasses import replace
from io import StringIO
from unittest.mock import Mock

import pytest
from rich.console import Console

from neuralpde.files import RunFolderError
from neuralpde.heat_data import Truth
from neuralpde.mesh_baselines import Persistence
from neuralpde.mesh_pde import Pde
from neuralpde.reproduce_meshpde import MeshpdeSettings, reproduce_meshpde
from operators import bumpy, icosphere


@pytest.fixture(scope="module")
def meshes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("named")
    bumpy(icosphere(1), 0.2).save(folder / "sphere.ply")
    bumpy(icosphere(1), 0.3, seed=5).save(folder / "spot_low.ply")
    return folder


def run(settings):
    console = Console(file=StringIO(), width=120)
    return {(row["method"], row["metric"]): row for row in reproduce_meshpde(settings, console)}, console.file.getvalue()


@pytest.mark.parametrize(("pde", "truth"), [(Pde.HEAT, Truth.PUBLISHED), (Pde.WAVE, Truth.SURFACE)])
def test_a_run(pde, truth, meshes, tmp_path, monkeypatch):
    # A report is drawn in the tests of the table.
    monkeypatch.setattr("neuralpde.mesh_report.write_mesh_report", lambda *given: None)
    names = ("zero", "persistence", "stencil-rate", "implicit-euler", "gcn")
    settings = MeshpdeSettings(
        pde=pde, truth=truth, data=meshes, methods=names, seeds=1, steps=2, out=tmp_path / "run", json=tmp_path / "rows.json"
    )
    rows, text = run(settings)
    assert settings.table == {Pde.HEAT: "meshpde-heat", Pde.WAVE: "meshpde-wave-surface"}[pde]
    assert all(row["table"] == settings.table for row in rows.values())
    assert [method for method, metric in rows if metric == "nrmse"] == list(names)
    assert rows["zero", "nrmse"]["value"] == pytest.approx(196, rel=1e-3)
    assert rows["stencil-rate", "nrmse"]["value"] < (0.1 if truth is Truth.PUBLISHED else 196)
    assert "report.html" in text
    assert (tmp_path / "rows.json").is_file()
    again, _ = run(replace(settings, resume=True))
    assert again == rows


@pytest.mark.parametrize(
    ("wrong", "cure"),
    [
        ({"seeds": 0}, "--seeds must be at least 1"),
        ({"steps": 0}, "--steps must be at least 1"),
        ({"threads": 0}, "--threads must be at least 1"),
        ({"methods": ("gnc",)}, "the rows of meshpde-heat are zero, persistence"),
    ],
)
def test_settings_that_make_no_sense(wrong, cure):
    with pytest.raises(RunFolderError, match=cure):
        MeshpdeSettings(**wrong)


def test_a_folder_in_use_is_refused_before_anything_is_computed(meshes, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("precious")
    with pytest.raises(RunFolderError, match="--resume"):
        reproduce_meshpde(MeshpdeSettings(data=meshes, out=tmp_path / "run"))
    with pytest.raises(RunFolderError, match="no folder"):
        reproduce_meshpde(MeshpdeSettings(data=tmp_path / "absent", out=tmp_path / "other"))


def test_a_run_killed_while_it_simulates_goes_on(meshes, tmp_path, monkeypatch):
    monkeypatch.setattr("neuralpde.mesh_report.write_mesh_report", lambda *given: None)
    settings = MeshpdeSettings(data=meshes, methods=("zero",), out=tmp_path / "run")
    with monkeypatch.context() as killed:
        killed.setattr("neuralpde.mesh_data.make", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(settings)
    assert run(replace(settings, resume=True))[0]["zero", "nrmse"]["value"] == pytest.approx(196, rel=1e-3)


def test_a_wrong_folder_of_meshes_leaves_nothing_in_the_way(meshes, tmp_path):
    with pytest.raises(RunFolderError, match="no folder"):
        run(MeshpdeSettings(data=tmp_path / "absent", out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_methods_see_the_training_cut_and_five_frames_alone(meshes, tmp_path, monkeypatch):
    monkeypatch.setattr("neuralpde.mesh_report.write_mesh_report", lambda *given: None)
    fits, rollouts = [], []

    class Spy(Persistence):
        def fit(self, cases, seed, checkpoint, told):
            fits.extend(cases)
            return self

        def rollout(self, given, steps):
            rollouts.append((given, steps))
            return super().rollout(given, steps)

    monkeypatch.setattr("neuralpde.reproduce_meshpde.methods_of", lambda *given: [Spy()])
    run(MeshpdeSettings(data=meshes, out=tmp_path / "run"))
    assert [case.scene.name for case in fits] == ["sphere"]
    assert fits[0].frames.shape[:2] == fits[0].clean.shape[:2] == (3, 151)
    assert [(given.scene.name, given.frames.shape[:2], steps) for given, steps in rollouts] == [("spot_low", (5, 5), 196)]
