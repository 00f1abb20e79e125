"""Pictures of stations are written whole, of any record."""

import struct
from pathlib import Path

import pytest
import torch

from neuralpde.station_cases import StationSplit
from neuralpde.station_checks import StationError
from neuralpde.station_figures import draw_stations
from neuralpde.station_synthetic import SyntheticStations


def test_a_picture(tmp_path: Path) -> None:
    record = SyntheticStations(stations=20, frames=120, missing=0.1, outages=0.1).record()
    path = draw_stations(tmp_path / "stations.png", record, StationSplit(6, 3))
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert min(struct.unpack(">II", header[16:24])) > 400
    assert list(tmp_path.iterdir()) == [path]


def test_two_stations_and_a_frame_without_values(tmp_path: Path) -> None:
    record = SyntheticStations(stations=2, frames=20).record()
    silent = torch.zeros_like(record.seen)
    silent[5] = True
    assert draw_stations(tmp_path / "silent.svg", record.hide(silent), frame=5).stat().st_size > 1000


def test_bad_name(tmp_path: Path) -> None:
    with pytest.raises(StationError, match=r"\.png, \.svg or \.pdf"):
        draw_stations(tmp_path / "stations", SyntheticStations(stations=8, frames=60).record())
