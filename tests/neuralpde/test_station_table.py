"""Tables: columns by name, cells that are numbers, places of stations."""

import gzip
import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuralpde.station_checks import StationError
from neuralpde.station_table import Columns, Sites, Table, read_table


def table(**columns: list[Any]) -> Table:
    return Table("here", {name: np.array(column, object) for name, column in columns.items()})


@pytest.mark.parametrize("mark", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_separators_and_packing(tmp_path: Path, mark: str) -> None:
    text = mark.join(["\ufeffstation", "t"]) + "\n" + mark.join(['"Brest, port"', "1.5"]) + "\n\n" + mark.join(["b", ""]) + "\n"
    (tmp_path / "plain.csv").write_text(text, encoding="utf-8")
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("plain.csv", "packed.csv.gz"):
        read = read_table(tmp_path / name)
        assert read.texts("station") == ["Brest, port", "b"]
        assert read.numbers("t")[0] == 1.5
        assert math.isnan(read.numbers("t")[1])
        assert len(read) == 2


def test_parquet(tmp_path: Path) -> None:
    arrow: Any = pytest.importorskip("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    columns = {"id": [7, 8], "when": np.array(["2020-01-01T06", "2020-01-02"], "datetime64[ns]"), "t": [1.5, None]}
    parquet.write_table(arrow.table(columns), tmp_path / "t.parquet")
    read = read_table(tmp_path / "t.parquet")
    assert read.texts("id") == ["7", "8"]
    assert read.columns["when"].dtype.kind == "M"
    assert math.isnan(read.numbers("t")[1])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and more")
    with pytest.raises(StationError, match="parquet"):
        read_table(tmp_path / "bad.parquet")


def test_parquet_without_arrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    (tmp_path / "t.parquet").write_bytes(b"")
    with pytest.raises(ImportError, match="pip install pyarrow"):
        read_table(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("text", "told"),
    [("", "no rows"), ("a,b\n", "no rows"), ("a,b\n1\n", "row 1 has 1 cells"), ("a,a\n1,2\n", "several columns named 'a'")],
    ids=["empty", "header", "short", "twice"],
)
def test_bad_tables(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "bad.csv").write_text(text, encoding="utf-8")
    with pytest.raises(StationError, match=told):
        read_table(tmp_path / "bad.csv")


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "none.csv")
    with pytest.raises(StationError, match="folder"):
        read_table(tmp_path)
    (tmp_path / "latin.csv").write_bytes("a\nÅre\n".encode("latin-1"))
    with pytest.raises(StationError, match="UTF-8"):
        read_table(tmp_path / "latin.csv")
    (tmp_path / "not.csv.gz").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(StationError, match="cannot be read"):
        read_table(tmp_path / "not.csv.gz")


def test_cells() -> None:
    read = table(t=["1", " NA ", "-2e1", None, "n/a"], comma=["1,5", "2", "3", "4", "5"], word=["1", "warm", "3", "4", "5"])
    assert np.array_equal(read.numbers("t"), [1, math.nan, -20, math.nan, math.nan], equal_nan=True)
    with pytest.raises(StationError, match=r"row 1 of column comma.*decimal points"):
        read.numbers("comma")
    with pytest.raises(StationError, match="row 2 of column word is 'warm'"):
        read.numbers("word")


def test_columns_are_found_under_their_usual_names() -> None:
    read = table(STATION=["a"], DATE=["2020"], Lat=["1"], LON=["2"], t=["3"])
    named = Columns().within(read)
    assert (named.station, named.time, named.latitude, named.longitude, named.elevation) == (
        "STATION",
        "DATE",
        "Lat",
        "LON",
        None,
    )
    assert Columns(station="t").within(read).station == "t"
    with pytest.raises(StationError, match="no column where"):
        Columns(station="where").within(read)


def test_sites() -> None:
    sites = Sites.of(table(id=["a", "a", "b"], lat=["1", "1.001", "2"], lon=["3", "3", "4"], alt=["5", "5", ""]))
    latitude, _, elevation = sites.find(["b", "a"])
    assert latitude.tolist() == [2.0, 1.0]
    assert elevation[1] == 5.0
    with pytest.raises(StationError, match="where 1 stations stand, the first is 'c'"):
        sites.find(["a", "c"])
    with pytest.raises(StationError, match="station a stands at"):
        Sites.of(table(id=["a", "a"], lat=["1", "2"], lon=["3", "3"]))
    with pytest.raises(StationError, match="no column latitude"):
        Sites.of(table(id=["a"], lon=["3"]))


def test_a_damaged_archive(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"".join(b"%d,%d\n" % (k, k * k) for k in range(2000))))
    packed[30:60] = b"x" * 30
    (tmp_path / "a.csv.gz").write_bytes(packed)
    with pytest.raises(StationError, match="cannot be read"):
        read_table(tmp_path / "a.csv.gz")


def test_cells_that_only_look_like_numbers() -> None:
    table = Table("a", {"x": np.array(["1_5"], object), "t": np.array(["2020-01-01"], "datetime64[ns]")})
    for name in table.columns:
        with pytest.raises(StationError, match="number"):
            table.numbers(name)
    assert Table("a", {"s": np.array([None, "b"], object)}).texts("s") == ["", "b"]
    assert Table("a", {"s": np.array([math.nan, 3.0])}).texts("s") == ["", "3"]
