"""The command in reduced form: its rows, its resumption, and our model ahead of persistence and climatology."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from neuralpde.files import RunFolderError
from neuralpde.reproduce_weather import WeatherSettings, reproduce_weather
from neuralpde.weather_synthetic import SyntheticWeather, make_weather


def quiet():
    return Console(file=io.StringIO(), width=120)


def rmse(rows, method, variable):
    return {
        r["lead_hours"]: r["value"] for r in rows if (r["method"], r["metric"], r.get("variable")) == (method, "rmse", variable)
    }


def test_shallow_water(tmp_path: Path):
    settings = WeatherSettings(
        trajectories=4,
        days=4,
        spin_up_days=4,
        refinements=2,
        seeds=1,
        steps=4,
        methods=("persistence", "climatology", "gcn", "ours"),
        out=tmp_path / "run",
        json=tmp_path / "rows.json",
    )
    console = quiet()
    rows = reproduce_weather(settings, console)
    assert json.loads((tmp_path / "rows.json").read_text())["rows"] == rows
    assert {r["table"] for r in rows} == {"weather-shallow-water"}
    assert {r["method"] for r in rows} == set(settings.methods)
    assert "weather-shallow-water: height" in console.file.getvalue()
    ours = rmse(rows, "ours", "height")
    for baseline in ("persistence", "climatology"):
        other = rmse(rows, baseline, "height")
        # This coarse, short set is at most a check of the pipeline: two days.
        assert all(ours[hours] < other[hours] for hours in (12.0, 24.0, 48.0))
    assert (tmp_path / "run" / "map.png").is_file()
    assert reproduce_weather(replace(settings, resume=True), quiet()) == rows
    with pytest.raises(RunFolderError, match="--resume"):
        reproduce_weather(settings, quiet())


def test_a_store(tmp_path: Path):
    make_weather(SyntheticWeather(out=tmp_path / "w.zarr", rows=9, columns=16, days=60))
    settings = WeatherSettings(
        set="wb2", data=tmp_path / "w.zarr", days=2, out=tmp_path / "run", methods=("persistence", "climatology", "ours")
    )
    rows = reproduce_weather(settings, quiet())
    assert {r.get("variable") for r in rows} == {"geopotential 500 hPa", "temperature 850 hPa", None}
    ours, persistence = (rmse(rows, method, "geopotential 500 hPa") for method in ("ours", "persistence"))
    assert all(ours[hours] < persistence[hours] for hours in ours)


@pytest.mark.parametrize("wrong", [{"seeds": 0}, {"threads": 0}, {"days": 0}, {"steps": 0}, {"trajectories": 0}])
def test_settings(wrong):
    with pytest.raises(RunFolderError, match="at least 1"):
        WeatherSettings(**wrong)
