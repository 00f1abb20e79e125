"""Timings are medians of warm runs in turns, and rows say what they are."""

import json
import time

from neuralpde.bench import Row, interleaved, write_rows


def test_candidates_take_turns_and_only_the_warm_run_counts():
    order = []

    def candidate(name, cold):
        def run():
            order.append(name)
            if order.count(name) % 2:
                time.sleep(cold)

        return run

    seconds = interleaved({"a": candidate("a", 0.05), "b": candidate("b", 0.0)}, 3, "turns")
    assert order == ["a", "a", "b", "b"] * 3
    assert seconds["a"] < 0.05


def test_rows_keep_an_impossible_value_as_null_with_its_reason(tmp_path):
    rows = [Row("t", "ours", "ratio", 0.5, "ratio", "best"), Row("t", "other", "time", None, "s", note="out of memory")]
    write_rows(tmp_path / "rows.json", rows)
    record = json.loads((tmp_path / "rows.json").read_text())
    assert record["rows"] == [
        {"table": "t", "method": "ours", "metric": "ratio", "value": 0.5, "unit": "ratio", "baseline": "best"},
        {"table": "t", "method": "other", "metric": "time", "value": None, "unit": "s", "note": "out of memory"},
    ]
    assert {"command", "version", "device"} <= record.keys()
