"""The same record comes back from every layout that it was written in."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuralpde.station_checks import StationError
from neuralpde.station_files import read_stations, write_stations
from neuralpde.station_record import StationRecord
from neuralpde.station_synthetic import SyntheticStations
from neuralpde.station_table import Columns, Sites, read_table
from neuralpde.weather_record import Variable

RECORD = SyntheticStations(stations=5, frames=20, missing=0.2, outages=0.2, variables=2).record()
UNITS = [Variable("t", units="K"), Variable("p", units="hPa")]


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def cell(record: StationRecord, t: int, n: int, c: int, nothing: str = "") -> str:
    return repr(float(record.values[t, n, c])) if bool(record.seen[t, n, c]) else nothing


def long_rows(nothing: str = "") -> list[list[str]]:
    rows = [
        [f"s{RECORD.ids[n]}", str(RECORD.times[t]), *(repr(x) for x in RECORD.placement.points[n].tolist())]
        + [cell(RECORD, t, n, c, nothing) for c in range(2)]
        for t in range(len(RECORD))
        for n in range(5)
    ]
    # In no order.
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]


def sites(path: Path) -> Path:
    rows = [[f"s{one}", *map(repr, place), 7] for one, place in zip(RECORD.ids, RECORD.placement.points.tolist(), strict=True)]
    return write_rows(path, ["station", "latitude", "longitude", "elevation"], rows)


def assert_same(found: StationRecord, expected: StationRecord = RECORD) -> None:
    assert np.array_equal(found.times, expected.times)
    assert [one.removeprefix("s") for one in found.ids] == list(expected.ids)
    assert torch.equal(found.placement.points, expected.placement.points)
    assert torch.equal(found.seen, expected.seen)
    assert torch.equal(found.values, expected.values)
    assert [str(v) for v in found.variables] == [str(v) for v in expected.variables]


HEADER = ["station", "time", "lat", "lon", "t", "p"]


def test_long(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "long.csv", HEADER, long_rows())
    assert_same(read_stations(path))
    assert read_stations(path, variables=UNITS).variables[0].units == "K"
    assert_same(read_stations(path, variables=["p"]), RECORD.select(["p"]))
    marked = write_rows(tmp_path / "marked.csv", HEADER, long_rows("-9999"))
    assert_same(read_stations(marked, missing=(-9999,)))
    with pytest.raises(StationError, match=r"-9999 in .* places.*missing=\(-9999,\)"):
        read_stations(marked)


def test_longest(tmp_path: Path) -> None:
    rows = [[*row[:4], name, value] for row in long_rows() for name, value in zip("tp", row[4:], strict=True) if value]
    path = write_rows(tmp_path / "longest.csv", [*HEADER[:4], "variable", "value"], rows)
    assert_same(read_stations(path).select(["t", "p"]))
    twice = write_rows(tmp_path / "twice.csv", [*HEADER[:4], "variable", "value"], [*rows, rows[3]])
    with pytest.raises(StationError, match="two values"):
        read_stations(twice)


def test_other_names_and_a_table_of_stations(tmp_path: Path) -> None:
    rows = [[row[0], row[1], *row[4:]] for row in long_rows()]
    path = write_rows(tmp_path / "named.csv", ["poste", "quand", "t", "p"], rows)
    columns = Columns(station="poste", time="quand")
    where = sites(tmp_path / "sites.csv")
    record = read_stations(path, where, columns=columns)
    assert_same(record)
    assert record.elevation is not None
    assert record.elevation.tolist() == [7.0] * 5
    assert_same(read_stations(path, Sites.of(read_table(where)), columns=columns))
    with pytest.raises(StationError, match="no column of times"):
        read_stations(path, where)
    with pytest.raises(StationError, match="no column latitude"):
        read_stations(path, columns=columns)


def test_wide(tmp_path: Path) -> None:
    rows = [[str(RECORD.times[t]), *(cell(RECORD, t, n, 0) for n in range(5))] for t in range(len(RECORD))]
    path = write_rows(tmp_path / "wide.csv", ["time", *(f"s{one}" for one in RECORD.ids)], rows)
    where = sites(tmp_path / "sites.csv")
    assert_same(read_stations(path, where, [UNITS[0]]), RECORD.select(["t"]))
    with pytest.raises(StationError, match="table of stations"):
        read_stations(path)
    with pytest.raises(StationError, match="of one variable"):
        read_stations(path, where, UNITS)
    # Frames out of order are an error in a table of frames.
    shuffled = write_rows(tmp_path / "shuffled.csv", ["time", *(f"s{one}" for one in RECORD.ids)], rows[::-1])
    with pytest.raises(StationError, match="sort"):
        read_stations(shuffled, where)


def test_parquet(tmp_path: Path) -> None:
    arrow: Any = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet  # type: ignore[import-not-found, import-untyped, unused-ignore]

    columns = dict(zip(HEADER, zip(*long_rows(), strict=True), strict=True))
    numbers = {name: [float(one) if one else None for one in columns[name]] for name in HEADER[2:]}
    times = np.array(columns["time"], "datetime64[ns]")
    parquet.write_table(arrow.table({"station": list(columns["station"]), "time": times, **numbers}), tmp_path / "t.parquet")
    assert_same(read_stations(tmp_path / "t.parquet"))


def test_arrays_go_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "record.npz"
    write_stations(RECORD, path)
    record = read_stations(path)
    assert_same(record)
    assert [one.units for one in record.variables] == ["K", "hPa"]
    assert_same(read_stations(path, variables=["p"]), RECORD.select(["p"]))
    assert list(tmp_path.iterdir()) == [path]
    write_stations(RECORD.select(["t"]), path)
    assert_same(read_stations(path), RECORD.select(["t"]))
    with pytest.raises(StationError, match=r"\.npz"):
        write_stations(RECORD, tmp_path / "record.csv")


def test_incomplete_arrays(tmp_path: Path) -> None:
    path = tmp_path / "part.npz"
    np.savez(path, values=np.zeros((3, 2)), time=np.array(["2020-01-01"]), lat=[1.0, 2.0])
    with pytest.raises(StationError, match="no array longitude"):
        read_stations(path)
    np.savez(path, values=np.zeros((1, 2, 2)), time=np.array(["2020-01-01"]), lat=[1.0, 2.0], lon=[1.0, 2.0])
    with pytest.raises(StationError, match="2 variables"):
        read_stations(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: [*rows, rows[0]], "keep one of each"),
        (lambda rows: [[*rows[0][:2], "10", *rows[0][3:]], *rows[1:]], "stands at"),
        (lambda rows: [[rows[0][0], "31/01/2020", *rows[0][2:]], *rows[1:]], "cannot be read"),
        (lambda rows: [[*row[:2], "", *row[3:]] for row in rows], "coordinates"),
        (lambda rows: [[*row[:4], "cold", row[5]] for row in rows], "no number"),
    ],
    ids=["twice", "moved", "time", "nowhere", "word"],
)
def test_bad_rows(tmp_path: Path, change: Any, told: str) -> None:
    path = write_rows(tmp_path / "bad.csv", HEADER, change(long_rows()))
    with pytest.raises(StationError, match=told):
        read_stations(path, variables=UNITS)


def test_a_count_of_rows_is_no_variable(tmp_path: Path) -> None:
    rows = [[str(k), *row] for k, row in enumerate(long_rows())]
    assert [str(v) for v in read_stations(write_rows(tmp_path / "a.csv", ["", *HEADER], rows)).variables] == ["t", "p"]
    wide = [[str(k), f"2020-01-0{k + 1}", str(20 + k), str(21 + k)] for k in range(3)]
    found = read_stations(write_rows(tmp_path / "w.csv", ["", "time", "s0", "s1"], wide), sites(tmp_path / "sites.csv"))
    assert found.ids == ("s0", "s1")


def test_a_text_among_numbers_is_not_passed_over(tmp_path: Path) -> None:
    rows = [row for row in long_rows() if row[4]]
    rows[7][4] = "ERR"
    path = write_rows(tmp_path / "a.csv", HEADER, rows)
    with pytest.raises(StationError, match="row 8 of column t is 'ERR'"):
        read_stations(path)
    assert [str(v) for v in read_stations(path, variables=["p"]).variables] == ["p"]
    noted = [[*row, "3" if k % 3 == 0 else "clear"] for k, row in enumerate(long_rows())]
    assert len(read_stations(write_rows(tmp_path / "b.csv", [*HEADER, "sky"], noted)).variables) == 2


@pytest.mark.parametrize("name", ["", "NaN"])
def test_rows_of_no_station(tmp_path: Path, name: str) -> None:
    rows = [*long_rows(), [name, "2020-01-01T00:00", "1", "2", "280", "1000"]]
    with pytest.raises(StationError, match="no name"):
        read_stations(write_rows(tmp_path / "a.csv", HEADER, rows))


DAYS = np.array(["2020-01-01", "2020-01-02"], "datetime64[D]")


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"values": np.array(1.0)}, "shape"),
        ({"values": np.array([["a", "b"], ["c", "d"]])}, "must be numbers"),
        ({"values": np.ones((2, 2)) * 1j}, "complex"),
        ({"values": np.ones((2, 2)), "units": ["K", "K"]}, "2 units are given for 1"),
        ({"values": np.ones((2, 2)), "lat": ["1", "x"]}, "coordinates must be numbers"),
        ({"values": np.ones((2, 2)), "elevation": ["1", "x"]}, "elevations must be numbers"),
    ],
    ids=["scalar", "texts", "complex", "units", "latitude", "elevation"],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: dict[str, Any], told: str) -> None:
    np.savez(tmp_path / "a.npz", **({"time": DAYS, "lat": [1.0, 2.0], "lon": [3.0, 4.0], "variables": ["a"]} | arrays))
    with pytest.raises(StationError, match=told):
        read_stations(tmp_path / "a.npz")
