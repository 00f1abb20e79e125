"""The command end to end on small files: table, rows, a killed run that continues, and messages for what cannot be."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

import neuralpde.reproduce_blend as module
import neuralpde.run_folder as run_folder
from neuralpde.cli import blend
from neuralpde.files import RunFolderError
from neuralpde.node_data import Dataset
from neuralpde.node_splits import random_split
from neuralpde.reproduce_blend import BlendSettings, reproduce_blend
from neuralpde.testing_nodes import node_blocks, write_arrays, write_citations
from operators import DomainError

METRICS = {"accuracy", "parameters", "nfe", "seconds_per_epoch", "peak_mb"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_citations(node_blocks(800, isolated=3), folder, "Cora")
    write_arrays(node_blocks(1700), folder, "Photo", "amazon_electronics_photo.npz")
    return folder


def small(root, tmp_path, **options):
    given = {"seeds": 2, "methods": ("ours", "gcn"), "epochs": 2, "data": root, "out": tmp_path / "run"}
    return BlendSettings(**{**given, **options})


def printed(settings):
    console = Console(width=120, file=io.StringIO())
    return reproduce_blend(settings, console), console.file.getvalue()


def finished(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "seeds").iterdir()}


def test_the_whole_command(root, tmp_path, capsys):
    methods = ("ours", "blend", "blend-knn", "grand-l", "gcn", "gat")
    settings = small(root, tmp_path, methods=methods, seeds=1, epochs=1, json=tmp_path / "rows.json")
    blend(settings)
    out = capsys.readouterr().out
    record = json.loads((tmp_path / "rows.json").read_text())
    assert json.loads((tmp_path / "run" / "table.json").read_text()) == record
    assert {(row["method"], row["metric"]) for row in record["rows"]} == {(m, metric) for m in methods for metric in METRICS}
    for row in record["rows"]:
        assert row["table"] == "blend-cora-planetoid"
        assert row["n"] == 1
        assert row["value"] is not None
        assert row["std"] == 0.0
    accuracies = {row["method"]: row for row in record["rows"] if row["metric"] == "accuracy"}
    assert accuracies["blend"]["published"] == 84.2
    assert accuracies["grand-l"]["published"] is None
    assert "84.2±0.6" in out
    assert "1 seed " in out
    assert "±0.00" not in out  # one seed has no deviation
    assert "nodes are isolated" in out
    assert all(method in out for method in methods)


def test_means_and_deviations_are_over_the_seeds(root, tmp_path):
    rows, text = printed(small(root, tmp_path))
    kept = [json.loads(path.read_text())["result"] for path in (tmp_path / "run" / "seeds").glob("gcn-*.json")]
    (row,) = [row for row in rows if (row["method"], row["metric"]) == ("gcn", "accuracy")]
    values = [one["accuracy"] for one in kept]
    assert row["n"] == 2
    assert row["value"] == pytest.approx(sum(values) / 2)
    assert row["std"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert f"{row['value']:.2f}±{row['std']:.2f}" in text
    assert not list((tmp_path / "run").rglob("*.tmp"))


def test_a_killed_run_continues_where_it_was(root, tmp_path, monkeypatch):
    settings = small(root, tmp_path, methods=("gcn",), seeds=3)
    real, calls = module.train_nodes, []

    def killed_in_the_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(module, "train_nodes", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        printed(settings)
    before = finished(settings.folder)
    assert sorted(before) == ["gcn-0.json", "gcn-1.json"]
    with pytest.raises(RunFolderError, match="continue it with --resume"):
        printed(settings)
    rows, _ = printed(replace(settings, resume=True))
    after = finished(settings.folder)
    assert {name: after[name] for name in before} == before
    monkeypatch.setattr(module, "train_nodes", real)
    whole, _ = printed(replace(settings, out=tmp_path / "whole"))
    for one, other in zip(rows, whole, strict=True):
        if one["metric"] in ("accuracy", "parameters", "nfe"):
            assert one == other


def test_seeds_and_methods_may_be_added_but_settings_not_changed(root, tmp_path):
    settings = small(root, tmp_path, methods=("gcn",), seeds=1)
    printed(settings)
    more = replace(settings, methods=("gcn", "gat"), seeds=2, resume=True)
    rows, _ = printed(more)
    assert {row["n"] for row in rows} == {2}
    with pytest.raises(RunFolderError, match="made with other settings or data"):
        printed(replace(more, epochs=3))
    path = settings.folder / "seeds" / "gcn-0.json"
    path.write_text("{")
    with pytest.raises(RunFolderError, match=r"gcn-0\.json is damaged"):
        printed(more)


def test_a_run_killed_before_its_first_seed_continues(root, tmp_path, monkeypatch):
    settings = small(root, tmp_path, methods=("blend",), seeds=1)
    real = module.train_nodes
    monkeypatch.setattr(module, "train_nodes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        printed(settings)
    monkeypatch.setattr(module, "train_nodes", real)
    rows, _ = printed(replace(settings, resume=True))
    assert rows


def interrupted(*arguments):
    raise KeyboardInterrupt


def test_results_of_another_version_or_number_of_threads_are_not_mixed(root, tmp_path, monkeypatch):
    settings = small(root, tmp_path, methods=("gcn",), seeds=1)
    printed(settings)
    with pytest.raises(RunFolderError, match="threads 1, not 2"):
        printed(replace(settings, threads=2, resume=True))
    monkeypatch.setattr(run_folder, "version", lambda name: "999")
    with pytest.raises(RunFolderError, match=r"version .*, not 999"):
        printed(replace(settings, resume=True))


def test_a_seed_without_a_class_is_known_before_any_is_trained(root, tmp_path, monkeypatch):
    def second_fails(labels, seed, development):
        if seed:
            raise DomainError("no training node is of class [1]")
        return random_split(labels, seed, development)

    monkeypatch.setattr(module, "random_split", second_fails)
    with pytest.raises(DomainError, match="no training node"):
        printed(small(root, tmp_path, dataset=Dataset.PHOTO, split="random", methods=("gcn",)))
    assert not (tmp_path / "run").exists()


def test_random_splits_are_of_the_largest_component(root, tmp_path):
    settings = small(root, tmp_path, dataset=Dataset.PHOTO, split="random", methods=("gcn",))
    assert settings.folder == tmp_path / "run"
    rows, text = printed(settings)
    assert rows[0]["table"] == "blend-photo-random"
    assert "random split" in text
    assert "isolated" not in text
    assert replace(settings, out=None).folder.name == "blend-photo-random"


def test_what_cannot_be_is_said(root, tmp_path):
    with pytest.raises(RunFolderError, match="no published split: use --split random"):
        printed(small(root, tmp_path, dataset=Dataset.PHOTO))
    with pytest.raises(DomainError, match="leaves no test set"):
        printed(small(root, tmp_path, split="random"))
    with pytest.raises(RunFolderError, match="no run to resume"):
        printed(small(root, tmp_path, resume=True))
    with pytest.raises(RunFolderError, match="choose another --json"):
        printed(small(root, tmp_path, json=tmp_path / "nowhere" / "rows.json"))
    with pytest.raises(RunFolderError, match="is a folder: give --json the name of a file"):
        printed(small(root, tmp_path, json=tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot make .*: choose another folder with --out"):
        printed(small(root, tmp_path, out=tmp_path / "file" / "run"))
    with pytest.raises(RunFolderError, match="is not a folder"):
        printed(small(root, tmp_path, out=tmp_path / "file"))
    for options, words in (
        ({"seeds": 0}, "--seeds must be at least 1"),
        ({"epochs": 0}, "--epochs must be at least 1"),
        ({"first_seed": -1}, "--first-seed must not be negative"),
        ({"methods": ()}, "at least one method"),
    ):
        with pytest.raises(RunFolderError, match=words):
            small(root, tmp_path, **options)
    assert not (tmp_path / "run").exists()
