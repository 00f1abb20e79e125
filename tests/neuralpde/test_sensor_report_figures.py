"""Pictures are drawn whatever diverges, is not scored or was not seen."""

import math

import torch
from sensor_cases import case, scattered

from neuralpde.sensor_case import SensorCase
from neuralpde.sensor_report_figures import error_curves, looks, sensor_maps, traces
from neuralpde.sensor_score import Score


def drawn(path):
    return path.read_bytes().startswith(b"\x89PNG")


def test_error_curves_without_what_diverges(tmp_path):
    good, bad = (
        Score([1.0, 2.0], [1.0, 4.0], [2.0, 2.0], [1.0], 0.0),
        Score([math.nan] * 2, [math.nan] * 2, [2.0, 2.0], [1.0], 1.0),
    )
    error_curves(tmp_path / "a.png", {"persistence": good, "ours": good, "rgn": bad})
    error_curves(tmp_path / "b.png", {"rgn": bad})
    assert drawn(tmp_path / "a.png")
    assert drawn(tmp_path / "b.png")


def test_maps_on_earth_and_in_the_plane(tmp_path):
    errors = {"ours": [0.1] * 7 + [math.nan], "rgn": [0.2] * 8}
    for earth in (True, False):
        sensor_maps(tmp_path / f"{earth}.png", scattered(8, earth=earth), errors)
        assert drawn(tmp_path / f"{earth}.png")
    sensor_maps(tmp_path / "none.png", scattered(2), {})
    assert drawn(tmp_path / "none.png")


def test_traces_of_a_scored_sensor(tmp_path):
    one = case("held-out", windows=2, scored=torch.arange(8) == 3)
    seen = one.seen.clone()
    seen[:, 2] = False
    one = SensorCase(one.name, one.placement, torch.where(seen, one.values, 0.0), seen, one.times, 6, one.scored)
    traces(tmp_path / "a.png", one, {"ours": torch.randn(2, 4, 8, 1), "rgn": torch.full((2, 4, 8, 1), math.nan)})
    assert drawn(tmp_path / "a.png")


def test_ours_is_on_top():
    found = looks(["persistence", "var", "ours", "pa-dgn"])
    assert found["ours"]["zorder"] > found["pa-dgn"]["zorder"]
    assert found["persistence"]["linestyle"] != found["var"]["linestyle"]


def test_traces_where_nothing_was_seen_in_a_window(tmp_path):
    one = case("held-out", windows=3)
    seen = one.seen.clone()
    seen[0] = False
    one = SensorCase(one.name, one.placement, torch.where(seen, one.values, 0.0), seen, one.times, 6)
    traces(tmp_path / "a.png", one, {"ours": torch.randn(3, 4, 8, 1)})
    assert drawn(tmp_path / "a.png")
