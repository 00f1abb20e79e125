"""The command in small: tables, report, and nothing computed twice."""

import json

import pytest
from rich.console import Console

from neuralpde import reproduce_padgn_nonlinear as module
from neuralpde.files import RunFolderError
from neuralpde.nonlinear_sensors_ours import LearnedFieldMethod
from neuralpde.reproduce_padgn_nonlinear import NonlinearSettings, nonlinear_methods, reproduce_nonlinear
from neuralpde.sensor_baselines import JointVar, Persistence

SMALL = LearnedFieldMethod(cells=8, substeps=1, highest=2, windows=2, rounds=1, of_fields=3, of_coefficients=1, assimilate=4)


def test_the_tables_are_written_and_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "nonlinear_methods", lambda: (Persistence(), JointVar(clock=False), SMALL))
    sizes = {"sensors": 16, "placements": 2, "unseen": 1, "windows": 4, "given": 3, "horizon": 2, "seeds": 1}
    settings = NonlinearSettings(pde="gray-scott", out=tmp_path / "run", json=tmp_path / "t.json", **sizes)
    rows = reproduce_nonlinear(settings, Console(quiet=True))
    found = {(row["table"], row["method"]) for row in rows if row["metric"] == "mse" and row["value"] is not None}
    both = {("padgn-gray-scott", name) for name in ("persistence", "joint-var", "ours")}
    assert found >= both | {("padgn-gray-scott-unseen", "persistence"), ("padgn-gray-scott-unseen", "ours")}
    assert (tmp_path / "run" / "report.html").exists()
    assert json.loads((tmp_path / "t.json").read_text())["rows"] == rows

    def nothing(*args, **options):
        raise AssertionError("fitted again")

    monkeypatch.setattr(LearnedFieldMethod, "fit", nothing)
    resumed = NonlinearSettings(pde="gray-scott", out=tmp_path / "run", resume=True, **sizes)
    again = reproduce_nonlinear(resumed, Console(quiet=True))
    assert [row["value"] for row in again] == [row["value"] for row in rows]


def test_every_row_of_the_issue_is_there():
    names = [method.name for method in nonlinear_methods()]
    assert len(set(names)) == len(names)
    assert {"persistence", "var", "joint-var", "mlp", "gru", "gn", "rgn", "pa-dgn", "ours"} <= set(names)


@pytest.mark.parametrize(("option", "value"), [("seeds", 0), ("sensors", 3), ("windows", 1), ("data_seed", -1), ("steps", 0)])
def test_bad_settings_are_refused(option, value):
    with pytest.raises(RunFolderError, match=f"--{option.replace('_', '-')} must"):
        NonlinearSettings(**{option: value})
