"""The command on simulated stations, on a file of one's own, and what it refuses."""

from dataclasses import replace
from io import StringIO

import pytest
import torch
from rich.console import Console

from neuralpde.files import RunFolderError
from neuralpde.reproduce_padgn_stations import StationsSettings, found, reproduce_stations, station_record, station_tests
from neuralpde.station_synthetic import SyntheticStations


def test_all_tests_of_one_set(tmp_path, monkeypatch):
    monkeypatch.setattr("neuralpde.sensor_report.write_sensor_report", lambda *given: "no report")
    settings = StationsSettings(
        "synthetic", methods=("joint-var", "mlp"), steps=2, seeds=1, stride=4, apart=True, out=tmp_path / "run",
        json=tmp_path / "rows.json",
    )  # fmt: skip
    console = Console(file=StringIO(), width=140)
    rows = {(one["table"], one["method"], one.get("horizon")): one for one in reproduce_stations(settings, console)}
    tables = {table for table, _, _ in rows}
    name = "padgn-stations-synthetic"
    assert tables == {name, *(f"{name}-{test}" for test in ("held-out", "missing", "irregular", "degraded"))}
    assert {horizon for _, _, horizon in rows} == {1, 6, 12, None}
    assert (name, "joint-var", 12) in rows
    assert (f"{name}-held-out", "joint-var", 12) not in rows
    assert rows[f"{name}-held-out", "mlp", 12]["value"] > 0
    assert (tmp_path / "rows.json").is_file()
    with pytest.raises(RunFolderError, match="already holds a run"):
        reproduce_stations(settings)


def test_every_test_has_the_same_targets():
    settings = StationsSettings("synthetic", stride=6, apart=True)
    cases, tests = station_tests(station_record(settings), settings)
    known = len(cases.ids)
    plain = tests[""][0]
    assert plain.given == 12
    for name, (one,) in tests.items():
        values, seen = one.targets
        assert torch.equal(values[:, :, :known], plain.targets[0])
        assert torch.equal(seen[:, :, :known], plain.targets[1])
        assert one.given == 12, name
    assert not bool(tests["held-out"][0].scored[:known].any())
    share = 1 - float(tests["missing"][0].inputs.seen.double().mean() / plain.inputs.seen.double().mean())
    # Thousands of independent draws.
    assert abs(share - 0.3) < 0.02
    steps = tests["irregular"][0].inputs.times.diff(dim=1)
    assert float(steps.min()) == 1
    assert float(steps.max()) > 1
    assert not tests["degraded"][0].inputs.complete


def test_a_file_of_ones_own(tmp_path):
    record = SyntheticStations(stations=5, frames=30).record()
    lines = ["station,time,latitude,longitude,temperature"]
    for t, time in enumerate(record.times):
        for i, (latitude, longitude) in enumerate(record.placement.points.tolist()):
            value = float(record.values[t, i, 0]) if (t + i) % 7 else -9999
            lines.append(f"s{i},{time},{latitude},{longitude},{value}")
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(lines))
    settings = StationsSettings("file", data=path, variables=("temperature:K",), missing=(-9999,), hours=2.0)
    read = station_record(settings)
    assert read.variables[0].units == "K"
    assert read.placement.num_nodes == 5
    assert len(read) == 15
    assert float(read.values[read.seen].min()) > 200


@pytest.mark.parametrize(
    ("change", "text"),
    [({"seeds": 0}, "--seeds"), ({"steps": 0}, "--steps"), ({"held_out": 0.0}, "--held-out"), ({"hidden": 1.0}, "--hidden")],
)
def test_what_it_refuses(change, text):
    with pytest.raises(RunFolderError, match=text):
        replace(StationsSettings(), **change)


def test_where_data_are_looked_for(tmp_path):
    with pytest.raises(RunFolderError, match="there is no"):
        found(tmp_path / "absent", "a.npz")
    with pytest.raises(RunFolderError, match=r"a\.npz is not in"):
        found(tmp_path, "a.npz")
    (tmp_path / "sensors").mkdir()
    inside = tmp_path / "sensors" / "a.npz"
    inside.touch()
    assert found(tmp_path, "a.npz") == found(inside, "a.npz") == inside


def test_folders_and_horizons():
    assert StationsSettings().folder.name == "padgn-stations-molene"
    assert StationsSettings().horizons == (1, 6, 12)
    assert StationsSettings(horizon=4).horizons == (1, 4)
