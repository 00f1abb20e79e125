"""The table keeps its names, says the same everywhere, and admits a broken law."""

import io
import json

import pytest
import torch
from rich.console import Console

from neuralpde import Check
from neuralpde.heat_report import print_table, rows_of
from neuralpde.heat_rollout import Outcome

METHODS = ["zero", "persistence", "stencil", "gcn", "unitary", "truncated", "relaxed", "beltrami", "difference"]
METRICS = ["nrmse", "rayleigh_error", "parameters", "nfe", "seconds"]


def outcome(name: str, checks: tuple[Check, ...] = ()) -> Outcome:
    return Outcome(name, 7, 1.5, 196.0, {"a": [1.0, 2.0], "b": [6.0]}, {"a": [0.5, 0.5], "b": [2.0]}, {}, list(checks))


def test_rows_have_the_fixed_names(finished):
    record = json.loads((finished / "table.json").read_text())
    rows = record["rows"]
    assert {tuple(row) for row in rows} == {("table", "method", "metric", "value", "std", "n", "unit")}
    assert {"command", "version", "device", "rows"} <= set(record)
    assert {row["table"] for row in rows} == {"heat", "heat-unseen"}
    whole = [(row["method"], row["metric"]) for row in rows if row["table"] == "heat"]
    assert sorted(whole) == sorted((method, metric) for method in METHODS for metric in METRICS)
    assert all(isinstance(row["value"], float) and row["value"] >= 0 for row in rows)
    value = {(row["method"], row["metric"]): row["value"] for row in rows if row["table"] == "heat"}
    assert value["zero", "nrmse"] == pytest.approx(196, rel=1e-4)
    assert value["stencil", "nrmse"] < value["persistence", "nrmse"]
    assert all(value[method, "seconds"] > 0 for method in METHODS[3:])


def test_the_same_rows_go_to_the_named_file(finished):
    assert json.loads((finished.parent / "rows.json").read_text()) == json.loads((finished / "table.json").read_text())


def test_rows_are_means_and_spreads():
    rows = {(row["table"], row["metric"]): row for row in rows_of([outcome("gcn")])}
    row = rows["heat", "nrmse"]
    assert (row["value"], row["n"]) == (3.0, 3)
    assert row["std"] == pytest.approx(float(torch.tensor([1.0, 2.0, 6.0]).std()))
    assert (rows["heat-b", "nrmse"]["value"], rows["heat-b", "nrmse"]["std"]) == (6.0, 0.0)
    assert rows["heat", "parameters"]["value"] == 7
    assert len(rows) == 2 * 3 + 3


def printed(outcomes: list[Outcome]) -> str:
    text = io.StringIO()
    print_table(outcomes, [], Console(file=text, width=200))
    return text.getvalue()


def test_printed_table():
    kept = Check("norm", "never increases", 1e-7, 1e-6)
    text = printed([outcome("zero"), outcome("relaxed", (kept,))])
    assert "every invariant that the trained flows declare holds" in text
    assert "3.00" in text


def test_a_broken_law_is_admitted():
    broken = Check("norm", "never increases", 1e-2, 1e-6)
    text = printed([outcome("relaxed", (broken,))])
    assert "norm (never increases) is broken by 1.0e-02" in text
    assert "every invariant" not in text
    # The truncated flow is there to break them.
    assert "every invariant" in printed([outcome("truncated", (broken,))])


def test_report_tells_everything(finished):
    page = (finished / "report.html").read_text(encoding="utf-8")
    for words in ("NRMSE", "Rayleigh error", "Invariants of the trained flows", "unseen", "truth beside prediction"):
        assert words in page
    for name in ("loss", "rayleigh", "error", "error-map-unseen"):
        assert (finished / "figures" / f"{name}.png").exists()
    assert page.count("data:image/png") >= 4
