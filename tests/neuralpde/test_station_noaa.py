"""NOAA's hourly layouts: their scales, codes and flags."""

import gzip
import math
from pathlib import Path

import numpy as np
import pytest

from neuralpde.station_checks import StationError
from neuralpde.station_noaa import read_global_hourly, read_isd_lite, read_lcd

HISTORY = """"USAF","WBAN","STATION NAME","CTRY","LAT","LON","ELEV(M)"
"071100","99999","BREST","FR","+48.450","-4.417","+0099.0"
"71200","99999","RENNES","FR","+48.070","-1.735","+0036.9"
"""
BREST = (
    "2020 01 31 00   101    88 10132   250   41     8     0 -9999\n2020 01 31 01    99 -9999 10130   240   36     8    -1 -9999\n"
)
RENNES = "2020 01 31 01    52    40 10128   230   21     4     0 -9999\n"


def test_isd_lite(tmp_path: Path) -> None:
    (tmp_path / "isd-history.csv").write_text(HISTORY)
    (tmp_path / "071100-99999-2020").write_text(BREST)
    (tmp_path / "071200-99999-2020.gz").write_bytes(gzip.compress(RENNES.encode()))
    files = [tmp_path / "071100-99999-2020", tmp_path / "071200-99999-2020.gz"]
    record = read_isd_lite(files, tmp_path / "isd-history.csv", ("t", "td", "slp", "rain_1h"))
    assert record.ids == ("071100-99999", "071200-99999")
    assert record.placement.points.tolist() == [[48.45, -4.417], [48.07, -1.735]]
    assert record.times.tolist() == np.array(["2020-01-31T00", "2020-01-31T01"], "datetime64[ns]").tolist()
    assert record.values[:, 0].tolist() == [[10.1, 8.8, 1013.2, 0.0], [9.9, 0.0, 1013.0, -0.1]]
    assert record.seen[:, 0].tolist() == [[True] * 4, [True, False, True, True]]
    assert record.seen[0, 1].tolist() == [False] * 4
    assert record.elevation is not None
    assert record.elevation.tolist() == [99.0, 36.9]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("brest.txt", BREST, "USAF-WBAN-YEAR"),
        ("071100-99999-2020", "2020 01 31\n", "line 1 has 3 fields"),
        ("071100-99999-2020", BREST.replace("101 ", "abc "), "line 1 holds no numbers"),
        ("071100-99999-2020", "", "empty"),
        ("999999-99999-2020", BREST, "does not say where"),
    ],
    ids=["name", "short", "letters", "empty", "unknown"],
)
def test_bad_isd_lite(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / "isd-history.csv").write_text(HISTORY)
    (tmp_path / name).write_text(text)
    with pytest.raises(StationError, match=told):
        read_isd_lite(tmp_path / name, tmp_path / "isd-history.csv")


HOURLY = """"STATION","DATE","LATITUDE","LONGITUDE","ELEVATION","REPORT_TYPE","TMP","SLP","WND"
"A","2020-01-31T00:51:00","40.1","-80.2","10","FM-15","+0123,1","10132,1","250,1,N,0062,1"
"A","2020-01-31T01:51:00","40.1","-80.2","10","FM-15","+0150,3","99999,9","999,9,V,9999,9"
"B","2020-01-31T00:51:00","41.1","-80.2","12","FM-15","-0021,1","10150,1","010,1,N,0010,1"
"B","2020-01-31T00:51:00","41.1","-80.2","12","FM-16","-0030,1","10151,1","010,1,N,0010,1"
"B","2020-01-31T02:10:00","41.1","-80.2","12","FM-12","+9999,9","99999,9","999,9,9,9999,9"
"""


def test_global_hourly(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HOURLY)
    record = read_global_hourly(tmp_path / "a.csv", ("t", "slp", "wind_speed"))
    # The second report is suspect and the last one empty: neither leaves a frame.
    assert [str(time)[:16] for time in record.times] == ["2020-01-31T00:51"]
    assert record.values.tolist() == [[[12.3, 1013.2, 6.2], [-2.1, 1015.0, 1.0]]]
    with pytest.raises(StationError, match="no variable snow"):
        read_global_hourly(tmp_path / "a.csv", ("snow",))
    (tmp_path / "b.csv").write_text(HOURLY.replace("+0123,1", "12.3"))
    with pytest.raises(StationError, match=r"row 1 of TMP is '12\.3'"):
        read_global_hourly(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text(HOURLY.replace("TMP", "T"))
    with pytest.raises(StationError, match="no column TMP"):
        read_global_hourly(tmp_path / "c.csv")


LCD = """STATION,DATE,LATITUDE,LONGITUDE,ELEVATION,REPORT_TYPE,HourlyDryBulbTemperature,HourlyPrecipitation,HourlyWindDirection
A,2020-01-30T19:51:00,40.1,-80.2,10,FM-15,41,T,VRB
A,2020-01-30T20:51:00,40.1,-80.2,10,FM-15,72s,0.02,250
A,2020-01-30T23:59:00,40.1,-80.2,10,SOD  ,,,
B,2020-01-30T19:51:00,41.1,-80.2,12,FM-15,*,0.00s,010
B,2020-01-30T20:51:00,41.1,-80.2,12,FM-15,38,,020
"""


def test_lcd(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(LCD)
    record = read_lcd(tmp_path / "a.csv", -5.0, ("t", "rain_1h", "wind_direction"))
    assert [str(time)[:16] for time in record.times] == ["2020-01-31T00:51", "2020-01-31T01:51"]
    assert record.seen.tolist() == [
        [[True, True, False], [False, False, True]],
        [[False, True, True], [True, False, True]],
    ]
    assert record.values[0, 0].tolist() == [41.0, 0.0, 0.0]
    assert record.variables[0].units == "degF"
    assert read_lcd(tmp_path / "a.csv", 0, metric=True).variables[0].units == "degC"
    apart = read_lcd(tmp_path / "a.csv", {"A": -5, "B": -6})
    assert len(apart) == 2
    assert (apart.times[1] - apart.times[0]) / np.timedelta64(1, "h") == 2
    with pytest.raises(StationError, match="utc_offset is given for station B"):
        read_lcd(tmp_path / "a.csv", {"A": -5})


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_lcd(tmp_path / "none.csv", 0)
    with pytest.raises(StationError, match="at least one"):
        read_global_hourly([])


def test_offsets_in_minutes_and_no_variable(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "STATION,DATE,LATITUDE,LONGITUDE,HourlyDryBulbTemperature\nA,2020-01-01T00:00,1,2,50\nB,2020-01-01T00:00,2,2,50\n"
    )
    for offset in (-300.0, math.nan, {"A": -5.0, "B": 900.0}):
        with pytest.raises(StationError, match="in hours"):
            read_lcd(path, offset)
    with pytest.raises(StationError, match="no variable"):
        read_lcd(path, -5.0, ())
    with pytest.raises(StationError, match="no variable"):
        read_global_hourly(path, ())
