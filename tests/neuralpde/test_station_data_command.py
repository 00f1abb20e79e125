"""The user's own measurements, checked and shown."""

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from neuralpde.files import RunFolderError
from neuralpde.station_checks import StationError
from neuralpde.station_data_command import Layout, StationDataSettings, show_station_data, variable_of
from neuralpde.station_files import read_stations, write_stations
from neuralpde.station_synthetic import SyntheticStations
from neuralpde.weather_record import Variable


def shown(settings: StationDataSettings) -> str:
    text = StringIO()
    show_station_data(settings, Console(file=text, width=200))
    return text.getvalue()


def test_without_data(tmp_path: Path) -> None:
    text = shown(StationDataSettings(out=tmp_path / "made.npz"))
    assert "synthetic: 30 stations, 480 times" in text
    assert "leaks: none found" in text
    assert len(read_stations(tmp_path / "made.npz")) == 480


def test_a_file_of_the_users(tmp_path: Path) -> None:
    record = SyntheticStations(stations=6, frames=60, outages=0.3).record()
    write_stations(record, tmp_path / "mine.npz")
    settings = StationDataSettings((tmp_path / "mine.npz",), variables=("t:K",), hours=2.0, out=tmp_path / "regular.npz")
    assert "not ready for learning" in shown(settings)
    assert torch.equal(read_stations(tmp_path / "regular.npz").values, record.resampled(2.0).values)
    with pytest.raises(StationError, match="look like K"):
        shown(StationDataSettings((tmp_path / "mine.npz",), variables=("t:degC",)))


def test_warnings_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = SyntheticStations(stations=6, frames=60).record()
    record.values[3, 3] = 400.0
    write_stations(record, tmp_path / "spike.npz")
    shown(StationDataSettings((tmp_path / "spike.npz",)))
    assert "1 values of t lie outside" in " ".join(capsys.readouterr().err.split())


def test_a_layout_of_noaas(tmp_path: Path) -> None:
    # The second station is a degree warmer.
    rows = [
        f'"{name}","2020-01-{day:02d}","{50 + k}.0","1.0","5","{name}","{20 + day + 10 * k}",",,X","{day}",",,X"'
        for k, name in enumerate(("A", "B"))
        for day in range(1, 31)
    ]
    header = '"STATION","DATE","LATITUDE","LONGITUDE","ELEVATION","NAME","TMAX","TMAX_ATTRIBUTES","TMIN","TMIN_ATTRIBUTES"'
    (tmp_path / "days.csv").write_text("\n".join([header, *rows]))
    picture = tmp_path / "days.svg"
    text = shown(StationDataSettings((tmp_path / "days.csv",), Layout.GHCN_DAILY, given=2, horizon=1, picture=picture))
    assert picture.stat().st_size > 1000
    assert "2 stations, 30 times" in text
    assert "usually every 24 h" in text


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"given": 0}, "at least 1"),
        ({"files": (Path("a.csv"), Path("b.csv"))}, "one file"),
        ({"layout": Layout.LCD}, "--files is missing"),
        ({"layout": Layout.LCD, "files": (Path("a"),)}, "--utc-offset is missing"),
        ({"layout": Layout.ISD_LITE, "files": (Path("a"),)}, "--stations is missing"),
        ({"out": Path("a.csv")}, r"\.npz"),
    ],
    ids=["given", "files", "none", "offset", "stations", "out"],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(RunFolderError, match=told):
        StationDataSettings(**settings)


def test_variables() -> None:
    assert variable_of("t:degC").units == "degC"
    assert variable_of("t").units == ""
    with pytest.raises(StationError):
        variable_of(":K")


def test_brackets_in_names_are_shown(tmp_path: Path) -> None:
    made = SyntheticStations(stations=6, frames=60).record()
    record = replace(made, variables=(Variable("t [degC]", units="[/b]"),))
    write_stations(record, tmp_path / "a[mm].npz")
    text = shown(StationDataSettings((tmp_path / "a[mm].npz",)))
    assert "t [degC]" in text
    assert "[/b]" in text
    assert "a[mm]: 6 stations" in text
