"""The command end to end on a few graphs: tables, rows, picture, a killed run that continues, and what cannot be."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

import neuralpde.reproduce_unigraph as module
import neuralpde.toy_heat_training as training
from neuralpde.files import RunFolderError
from neuralpde.reproduce_unigraph import NAMES, PUBLISHED, SEEN, TABLE, UniGraphSettings, reproduce_unigraph
from neuralpde.toy_heat_networks import METHODS

FAST = ("persistence", "stencil", "r-unigraph")


def small(tmp_path, **options):
    given = {"methods": FAST, "seeds": 2, "graphs": 100, "epochs": 1, "out": tmp_path / "run"}
    return UniGraphSettings(**{**given, **options})


def printed(settings):
    console = Console(width=140, file=io.StringIO())
    return reproduce_unigraph(settings, console), console.file.getvalue()


def finished(settings):
    return {path.name: path.stat().st_mtime_ns for path in settings.folder.parts.iterdir()}


@pytest.fixture
def brief(monkeypatch):
    """Networks that are as they are drawn, so that every row is there at little cost."""
    monkeypatch.setattr(training.Trained, "learn", lambda self, items, schedule, seed, *rest: self.drawn(items, seed))
    monkeypatch.setattr(training.Fitted, "learn", lambda self, items, schedule, seed, *rest: self.drawn(items, seed))


def test_every_row_is_there(tmp_path, brief):
    assert list(NAMES) == [method.name for method in METHODS]
    settings = small(tmp_path, methods=NAMES, json=tmp_path / "rows.json")
    rows, text = printed(settings)
    record = json.loads((tmp_path / "rows.json").read_text())
    assert record["rows"] == rows
    assert json.loads((tmp_path / "run" / "table.json").read_text()) == record
    assert (tmp_path / "run" / "rayleigh.png").stat().st_size > 10_000
    found = {(row["table"], row["method"], row["metric"]): row for row in rows}
    assert len(found) == len(rows)
    for name in NAMES:
        assert name in text
        for table in (TABLE, SEEN):
            for metric, published in zip(("mse", "mre"), PUBLISHED.get(name, (None, None)), strict=True):
                row = found[table, name, metric]
                assert row["published"] == published
                assert row["value"] >= 0
                assert row["n"] == (1 if name in ("persistence", "implicit-euler", "stencil") else 2)
    # Untrained unitary layers keep the Rayleigh quotient: their Rayleigh error is persistence's, to float32.
    kept, persistence = found[TABLE, "unitary", "mre"], found[TABLE, "persistence", "mre"]
    assert kept["value"] == pytest.approx(persistence["value"], abs=1e-5)
    assert found[TABLE, "unitary", "readout_mre"]["value"] != pytest.approx(persistence["value"], abs=1e-3)
    assert "held out" in text


def test_a_killed_run_continues_and_gives_the_same_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "draw", lambda *picture: None)
    settings = small(tmp_path)
    whole, _ = printed(replace(settings, out=tmp_path / "whole"))
    real = training.Trained.learn

    def killed(self, items, schedule, seed, *rest):
        if seed == 1:
            raise KeyboardInterrupt
        return real(self, items, schedule, seed, *rest)

    monkeypatch.setattr(training.Trained, "learn", killed)
    with pytest.raises(KeyboardInterrupt):
        printed(settings)
    monkeypatch.setattr(training.Trained, "learn", real)
    before = finished(settings)
    assert sorted(before) == ["persistence-0.json", "r-unigraph-0.json", "stencil-0.json"]
    with pytest.raises(RunFolderError, match="continue it with --resume"):
        printed(settings)
    rows, _ = printed(replace(settings, resume=True))
    after = finished(settings)
    assert {name: after[name] for name in before} == before
    for one, other in zip(rows, whole, strict=True):
        assert one == other or one["metric"] == "seconds"
    # Methods may be added, settings not changed.
    printed(replace(settings, methods=("stencil",), resume=True))
    with pytest.raises(RunFolderError, match="made with other settings"):
        printed(replace(settings, graphs=120, resume=True))


def test_what_cannot_be_is_said(tmp_path):
    for options, words in (
        ({"seeds": 0}, "--seeds must be at least 1"),
        ({"graphs": 0}, "--graphs must be at least 1"),
        ({"epochs": 0}, "--epochs must be at least 1"),
        ({"threads": 0}, "--threads must be at least 1"),
        ({"data_seed": -1}, "--data-seed must not be negative"),
        ({"methods": ()}, "at least one method"),
    ):
        with pytest.raises(RunFolderError, match=words):
            small(tmp_path, **options)
    with pytest.raises(RunFolderError, match=r"--graphs: .*draw 100 at least"):
        printed(small(tmp_path, graphs=1))
    with pytest.raises(RunFolderError, match="no run to resume"):
        printed(small(tmp_path, resume=True))
    with pytest.raises(RunFolderError, match="choose another --json"):
        printed(small(tmp_path, json=tmp_path / "nowhere" / "rows.json"))
    assert not (tmp_path / "run").exists()
