"""GHCN-Daily: tenths, flags of quality, both layouts."""

from pathlib import Path

import pytest
import torch

from neuralpde.station_checks import StationError
from neuralpde.station_ghcn import read_ghcn_daily

STATIONS = """ACW00011604  17.1167  -61.7833   10.1    ST JOHNS COOLIDGE FLD
ACW00011647  17.1333  -61.7833   19.2    ST JOHNS
"""
OF_STATION = """"STATION","DATE","LATITUDE","LONGITUDE","ELEVATION","NAME","TMAX","TMAX_ATTRIBUTES","PRCP","PRCP_ATTRIBUTES"
"ACW00011604","2020-01-01","17.1167","-61.7833","10.1","COOLIDGE, AG","  289",",,X","   12",",,X"
"ACW00011604","2020-01-02","17.1167","-61.7833","10.1","COOLIDGE, AG","  500",",G,X",,
"""
OTHER = """"STATION","DATE","LATITUDE","LONGITUDE","ELEVATION","NAME","TMAX","TMAX_ATTRIBUTES"
"ACW00011647","2020-01-02","17.1333","-61.7833","19.2","ST JOHNS","271",",,X"
"""
OF_YEAR = """ACW00011604,20200101,TMAX,289,,,X,
ACW00011604,20200101,PRCP,12,,,X,
ACW00011604,20200102,TMAX,500,,G,X,
ACW00011647,20200102,TMAX,271,,,X,0700
ELSEWHERE01,20200102,TMAX,100,,,X,
ACW00011647,20200102,WT01,1,,,X,
"""


def test_both_layouts_say_the_same(tmp_path: Path) -> None:
    for name, text in (("a.csv", OF_STATION), ("b.csv", OTHER), ("2020.csv", OF_YEAR), ("ghcnd-stations.txt", STATIONS)):
        (tmp_path / name).write_text(text)
    stations = read_ghcn_daily([tmp_path / "a.csv", tmp_path / "b.csv"], elements=("TMAX", "PRCP"))
    year = read_ghcn_daily(tmp_path / "2020.csv", tmp_path / "ghcnd-stations.txt", ("TMAX", "PRCP"))
    assert stations.ids == year.ids == ("ACW00011604", "ACW00011647")
    assert stations.values[..., 0].tolist() == [[28.9, 0.0], [0.0, 27.1]]
    assert stations.seen[..., 0].tolist() == [[True, False], [False, True]]
    assert stations.values[0, 0, 1] == 1.2
    assert torch.equal(stations.placement.points, year.placement.points)
    assert torch.equal(stations.values[:1], year.values[:1])
    # What failed its check leaves no value in either.
    assert torch.equal(stations.seen, year.seen)
    assert str(stations.times[1])[:10] == "2020-01-02"


def test_wrong_requests(tmp_path: Path) -> None:
    (tmp_path / "2020.csv").write_text(OF_YEAR)
    (tmp_path / "bad.txt").write_text("ACW00011604 somewhere\n")
    with pytest.raises(StationError, match="does not say where"):
        read_ghcn_daily(tmp_path / "2020.csv")
    with pytest.raises(StationError, match="no element 'WARM'"):
        read_ghcn_daily(tmp_path / "2020.csv", elements=("WARM",))
    with pytest.raises(StationError, match="line 1 is not as in"):
        read_ghcn_daily(tmp_path / "2020.csv", tmp_path / "bad.txt")
    with pytest.raises(FileNotFoundError):
        read_ghcn_daily(tmp_path / "2020.csv", tmp_path / "none.txt")
