"""`reproduce laplacian-983` in its reduced form."""

import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from neuralpde.files import RunFolderError
from neuralpde.reproduce_laplacian_983 import LaplacianSettings, laplacian_case, reproduce_laplacian_983


def test_the_table_is_whole_and_resumed_without_work(tmp_path):
    settings = LaplacianSettings(
        methods=("mesh-op", "joint-linear", "sdl", "ours"),
        seeds=1,
        nodes=200,
        functions=60,
        steps=3,
        out=tmp_path / "run",
        json=tmp_path / "rows.json",
    )
    console = Console(record=True, width=120)
    rows = reproduce_laplacian_983(settings, console)
    value = {(row["table"], row["method"]): row["value"] for row in rows if row["metric"] == "rne"}
    assert value["laplacian-983", "ours"] < 0.5 * value["laplacian-983", "mesh-op"]
    assert value["laplacian-983-unseen", "ours"] < 0.5 * value["laplacian-983-unseen", "mesh-op"]
    # It belongs to its placement.
    assert ("laplacian-983-unseen", "joint-linear") not in value
    assert next(row for row in rows if row["method"] == "mesh-op" and row["metric"] == "rne")["published"] == 0.138
    assert json.loads((tmp_path / "rows.json").read_text())["rows"] == rows
    assert (tmp_path / "run" / "report.html").is_file()
    assert "unseen RNE" in console.export_text()
    assert reproduce_laplacian_983(replace(settings, resume=True), Console(quiet=True)) == rows


def test_weights_that_were_learned_with_other_settings_are_not_continued(tmp_path, monkeypatch):
    """Killed between training and scoring, then resumed with other functions: as if the first run had not been."""

    def killed(*anything):
        raise KeyboardInterrupt

    settings = LaplacianSettings(methods=("sdl",), seeds=1, nodes=100, functions=30, steps=3, out=tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("neuralpde.reproduce_laplacian_983._scores", killed)
        with pytest.raises(KeyboardInterrupt):
            reproduce_laplacian_983(settings, Console(quiet=True))
    assert list((tmp_path / "run" / "checkpoints").iterdir())
    mixed = reproduce_laplacian_983(replace(settings, functions=20, resume=True), Console(quiet=True))
    fresh = reproduce_laplacian_983(replace(settings, functions=20, out=tmp_path / "fresh"), Console(quiet=True))
    assert [row["value"] for row in mixed if row["metric"] == "rne"] == [row["value"] for row in fresh if row["metric"] == "rne"]


def test_no_function_is_both_learned_from_and_scored():
    case = laplacian_case(100, 20, 0)
    sizes = [len(part.values) for part in (case.train, case.validation, case.test)]
    assert sizes == [14, 3, 3]
    every = torch.cat([case.train.values, case.validation.values, case.test.values])
    distances = torch.cdist(every, every) + 1e3 * torch.eye(20)
    assert float(distances.min()) > 1
    assert not torch.equal(case.torus.points, case.unseen.points)


def test_settings_say_what_is_wrong():
    for wrong, name in (({"seeds": 0}, "--seeds"), ({"nodes": 50}, "--nodes"), ({"functions": 5}, "--functions")):
        with pytest.raises(RunFolderError, match=name):
            LaplacianSettings(**wrong)
    with pytest.raises(RunFolderError, match="--methods"):
        LaplacianSettings(methods=())
