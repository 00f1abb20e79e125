"""The scale benchmark walks the whole path and reports it."""

import json

import pytest

from neuralpde import bench_scale as module
from neuralpde.bench_scale import STAGES, Scale, ScaleBench, measure
from neuralpde.cli import main
from neuralpde.files import RunFolderError
from operators import icosphere


def test_measure_walks_from_file_to_gradient(tmp_path):
    icosphere(2).save(tmp_path / "sphere.ply")
    scale = measure(tmp_path / "sphere.ply")
    assert scale.vertices == 162
    assert len(scale.seconds) == len(STAGES)
    assert 0 < scale.idle <= scale.peak


def test_the_command_prints_and_writes_every_size(tmp_path, capsys):
    assert main(["bench", "scale", "--vertices", "100", "--json", str(tmp_path / "scale.json")]) == 0
    rows = json.loads((tmp_path / "scale.json").read_text())["rows"]
    assert {row["metric"] for row in rows} == {*STAGES, "peak", "peak per vertex"}
    assert "GiB" in capsys.readouterr().out


def test_sizes_that_make_no_torus_are_refused():
    with pytest.raises(RunFolderError, match="at least 64"):
        ScaleBench(vertices=(10,))


def test_no_number_or_word_is_cut_on_a_terminal_of_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(module, "_in_a_process", lambda *_: Scale(1_000_000, (100.1, 100.2, 100.3, 100.4), 12.34, 0.31))
    module.bench_scale(ScaleBench(vertices=(1_000_000,)))
    said = capsys.readouterr().out
    assert "…" not in said
    for word in ("1,000,000", "100.1", "100.4", "12.34", "Laplacian", "gradient"):
        assert word in said
