"""Cells, tables and the choice of what is shown."""

import math

import pytest

from neuralpde.mesh_report import accuracy_table, drift, mesh_table, number, shown_methods
from neuralpde.mesh_results import MEASURED, Result, rows_of


def result(name, value):
    rollouts = {"one": {metric: [value, value] for metric in MEASURED}}
    return Result(name, 0, 3, 1.5, rollouts, {"one": {}}, [])


def test_cells():
    assert [number(v) for v in (3.2e-6, 0.00321, 12.345, 1234.5, 123456.0, None, math.nan, math.inf)] == [
        "3.2e-06",
        "0.0032",
        "12.35",
        "1234",
        "1.2e+05",
        "diverged",
        "diverged",
        "diverged",
    ]


def test_tables_put_the_papers_numbers_beside_and_ours_in_bold():
    results = {"zero": [result("zero", 196.0)], "ours": [result("ours", 0.5), result("ours", 1.5)]}
    rows = rows_of("t", results, {("ours", "nrmse"): 51.9})
    table = accuracy_table("t", rows)
    assert table.rows[1][:3] == ["ours", "1.00 ± 0.7071", "51.9"]
    assert table.rows[0][1] == "196.00"
    assert table.emphasis == {1}
    assert drift(3.2e-7) == "3e-07"
    assert drift(math.nan) == drift(None) == "diverged"
    by_mesh = mesh_table(rows, ["one"])
    assert by_mesh.header == ["method", "NRMSE, one", "Rayleigh error, one"]
    assert by_mesh.rows[0] == ["zero", "196.00", "196.00"]


def test_what_is_shown():
    values = {"zero": 196, "persistence": 200, "a": 3, "b": 1, "c": math.nan, "d": 2, "r-unimesh": 50, "ours": 0.1, "e": 9}
    results = {name: [result(name, float(value))] for name, value in values.items()}
    assert shown_methods(results) == ["persistence", "b", "d", "r-unimesh", "ours"]
    assert shown_methods({"zero": [result("zero", 1.0)], "c": [result("c", math.nan)]}) == []


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_perfect_score_is_a_number(value):
    assert number(value) in ("0.0000", "1.00")
