"""A result as JSON and as rows."""

import json
import math

from sensor_cases import case

from neuralpde.sensor_result import Result, rows_of, table_name
from neuralpde.sensor_score import Score


def score(absolute, squared=(1.0, 1.0)):
    return Score(list(absolute), list(squared), [2.0, 2.0], [0.1, math.nan], 0.0)


def result(value, tests=("", "missing")):
    return Result({test: {"test": score((value, 3 * value))} for test in tests}, 7, 1.5, 0.5)


def test_it_is_kept_as_json():
    one = result(1.0)
    again = Result.from_record(json.loads(json.dumps(one.record())))
    assert again.record() == one.record()
    assert again.value("", "mae", 2) == 1.0


def test_rows():
    methods = {"persistence": [result(2.0)], "ours": [result(1.0), result(2.0)], "bound": [result(1.0, ("",)).__class__(
        {"": {"test": score((1.0, 1.0))}, "missing": {}}, 3, 0.0, 0.0)]}  # fmt: skip
    tests = {"": [case("test")], "missing": [case("test")]}
    rows = {
        (one["table"], one["method"], one["metric"], one.get("horizon")): one for one in rows_of("t", methods, tests, [1, 2], {})
    }
    ours = rows["t", "ours", "mae", 2]
    assert (ours["value"], ours["n"], ours["unit"], ours["horizon"]) == (1.5, 2, "z", 2)
    assert ours["against_persistence"] == 0.25
    assert ours["against_complete"] is None
    assert rows["t-missing", "ours", "mae", 2]["against_complete"] == 0
    assert rows["t", "ours", "mse", 1]["unit"] == "z²"
    assert rows["t", "ours", "mae", 1]["value"] == 0.75
    assert ("t-missing", "bound", "mae", 1) not in rows
    assert rows["t", "bound", "parameters", None]["value"] == 3


def test_what_diverges_has_no_value():
    tests = {"": [case("test")]}
    broken = Result({"": {"test": score((math.nan, 1.0))}}, 1, 0.0, 0.0)
    rows = rows_of("t", {"persistence": [result(1.0)], "ours": [broken, result(1.0)]}, tests, [1], {})
    one = next(row for row in rows if row["method"] == "ours")
    assert (one["value"], one["std"], one["against_persistence"]) == (None, None, None)
    assert one["cases"] == {"test": None}


def test_names():
    assert (table_name("t", ""), table_name("t", "held-out")) == ("t", "t-held-out")
