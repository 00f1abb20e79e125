"""What is kept of a method: it survives JSON, and its rows are its means."""

import json
import math
from dataclasses import replace

import pytest

from neuralpde.mesh_results import MEASURED, Result, fingerprint, kept_frames, rows_of
from neuralpde.testing_mesh_cases import small_case


def result(seed=0, values=(1.0, 2.0, 3.0)):
    a, b, c = values
    rollouts = {"one": {metric: [a, b] for metric in MEASURED}, "two": {metric: [c] for metric in MEASURED}}
    return Result("net", seed, 7, 0.5, rollouts, {"one": {"nrmse": [a, math.inf]}}, [0.1])


def test_json_and_back():
    for values in ((1.0, 2.0, 3.0), (1.0, math.inf, 2.0)):
        kept = result(values=values)
        text = json.dumps(kept.record(), allow_nan=False)
        assert Result.from_record(json.loads(text)) == kept
    broken = Result.from_record(json.loads(json.dumps(result(values=(math.nan, 1.0, 2.0)).record(), allow_nan=False)))
    assert math.isnan(broken.rollouts["one"]["nrmse"][0])
    assert broken.taking(9.0).seconds == 9.0


def test_means_weigh_rollouts_alike():
    assert result().mean("nrmse") == 2.0
    assert result().mean("nrmse", "one") == 1.5
    assert result().diverged == 0
    assert result(values=(1.0, math.nan, 3.0)).diverged == pytest.approx(1 / 3)


def test_rows():
    rows = rows_of("table", {"net": [result(), result(1, (2.0, 3.0, 4.0))]}, {("net", "nrmse"): 51.9})
    by_metric = {row["metric"]: row for row in rows}
    assert set(by_metric) == {*MEASURED, "parameters", "seconds"}
    nrmse = by_metric["nrmse"]
    assert (nrmse["value"], nrmse["n"], nrmse["published"]) == (2.5, 2, 51.9)
    assert nrmse["std"] == pytest.approx(0.5**0.5)
    assert nrmse["meshes"] == {"one": 2.0, "two": 3.5}
    assert by_metric["rayleigh_error"]["published"] is None
    assert by_metric["parameters"]["value"] == 7


def test_what_diverged_has_no_value():
    rows = rows_of("table", {"net": [result(), result(1, (2.0, math.inf, 4.0))]}, {})
    nrmse = rows[0]
    assert nrmse["value"] is None
    assert nrmse["std"] is None
    assert nrmse["diverged"] == pytest.approx(1 / 6)
    assert nrmse["meshes"] == {"one": None, "two": 3.5}
    json.dumps(rows, allow_nan=False)


def test_the_fingerprint_sees_everything():
    case = small_case()
    other = [
        small_case(seed=1),
        small_case("other"),
        replace(case, clean=case.clean + 1),
        replace(case, context=case.clean[:, 0]),
        replace(case, scene=replace(case.scene, dt=2.0)),
        case.first(1, 12),
    ]
    digests = {fingerprint([one]) for one in [case, *other]}
    assert len(digests) == 7
    assert fingerprint([small_case()]) == fingerprint([case])


def test_kept_frames():
    assert kept_frames(3) == [0, 1, 2]
    many = kept_frames(196)
    assert (many[0], many[-1], len(many)) == (0, 195, 40)
