"""`neuralpde reproduce meshpde-hard`, reduced: ours has at most half the error of the best baseline."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import neuralpde.reproduce_hard as module
from neuralpde.files import RunFolderError
from neuralpde.reproduce_hard import HardSettings, hard_methods, reproduce_hard

ROWS = ("zero", "persistence", "stencil-two", "stencil-cubic", "gcn", "ours")


def test_the_reduced_table(tmp_path: Path) -> None:
    settings = HardSettings(small=True, seeds=1, steps=2, methods=ROWS, out=tmp_path / "run", json=tmp_path / "rows.json")
    rows = reproduce_hard(settings, Console(file=io.StringIO()))
    assert (tmp_path / "rows.json").exists()
    assert (tmp_path / "run" / "report.html").exists()
    assert {row["table"] for row in rows} == {"meshpde-hard"}
    value = {row["method"]: row["value"] for row in rows if row["metric"] == "nrmse"}
    assert set(value) == set(ROWS)
    assert abs(value["zero"] - 196) < 0.01
    others = [each for method, each in value.items() if method != "ours" and each is not None]
    assert value["ours"] <= min(others) / 2
    assert {"rayleigh_error", "smape"} < {row["metric"] for row in rows}


def test_settings_are_checked() -> None:
    with pytest.raises(RunFolderError, match="--seeds must be at least 1"):
        HardSettings(seeds=0)
    with pytest.raises(RunFolderError, match="--data-seed must not be negative"):
        HardSettings(data_seed=-1)
    with pytest.raises(RunFolderError, match="no such row"):
        HardSettings(methods=("oracle",))
    with pytest.raises(RunFolderError, match="either --small or --data"):
        HardSettings(small=True, data=Path("meshes"))


def test_names_are_distinct_and_ablations_are_asked_for() -> None:
    names = [method.name for method in hard_methods(ablations=True)]
    assert len(set(names)) == len(names)
    assert names[-2:] == ["ours-isotropic", "ours-uniform"]
    assert names[:-2] == [method.name for method in hard_methods()] == [method.name for method in HardSettings().chosen]
    assert [method.name for method in HardSettings(methods=("ours", "zero")).chosen] == ["zero", "ours"]


def test_another_data_seed_is_other_data(tmp_path):
    values = []
    for seed in (0, 1):
        settings = HardSettings(small=True, seeds=1, methods=("persistence",), data_seed=seed, out=tmp_path / str(seed))
        rows = reproduce_hard(settings, Console(file=io.StringIO()))
        values.append(next(row["value"] for row in rows if row["metric"] == "nrmse"))
    assert values[0] != values[1]


def test_a_run_killed_while_it_simulates_goes_on(tmp_path, monkeypatch):
    settings = HardSettings(small=True, seeds=1, methods=("zero",), out=tmp_path / "run")
    with monkeypatch.context() as killed:
        killed.setattr(module, "hard_cases", interrupted)
        with pytest.raises(KeyboardInterrupt):
            reproduce_hard(settings)
    assert reproduce_hard(replace(settings, resume=True), Console(file=io.StringIO()))


def interrupted(*arguments, **options):
    raise KeyboardInterrupt


def test_a_wrong_folder_leaves_nothing_in_the_way(tmp_path):
    with pytest.raises(RunFolderError, match=r"there is no mesh sphere\.ply"):
        reproduce_hard(HardSettings(data=tmp_path, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
