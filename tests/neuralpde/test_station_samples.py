"""The real samples, where their files are; damaged and foreign files are refused."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuralpde.station_checks import StationError
from neuralpde.station_record import StationRecord
from neuralpde.station_samples import (
    BRITAIN,
    MOLENE,
    PACIFIC,
    STRBOOK,
    era5_uk_sensors,
    molene,
    noaa_strbook,
    pacific_sst,
    read_arrays,
)

DATA = Path(os.environ.get("NEURALPDE_DATA", "")) / "sensors"


def sample(name: str) -> Path:
    if not (DATA / name).is_file():
        pytest.skip(f"set NEURALPDE_DATA to the folder that holds sensors/{name}")
    return DATA / name


@pytest.mark.parametrize(
    ("read", "name", "stations", "frames", "step"),
    [
        (molene, MOLENE, 44, 744, 1.0),
        (era5_uk_sensors, BRITAIN, 100, 744, 1.0),
        (noaa_strbook, STRBOOK, 137, 1461, 24.0),
        (pacific_sst, PACIFIC, 200, 399, 744.0),
    ],
    ids=["molene", "era5-uk", "noaa", "sst"],
)
def test_samples(read: Callable[[Path], StationRecord], name: str, stations: int, frames: int, step: float) -> None:
    record = read(sample(name))
    assert record.placement.num_nodes == stations
    assert len(record) == frames
    assert float(record.hours.diff().median()) == step
    assert record.coverage > 0.95
    assert len(record.variables) == 1


def test_values_are_those_of_the_files() -> None:
    arrays = read_arrays(sample(BRITAIN))
    record = era5_uk_sensors(sample(BRITAIN), 30, seed=3)
    for k, index in enumerate(map(int, record.ids)):
        row, column = divmod(index, 49)
        assert record.placement.points[k].tolist() == [arrays["lat"][row], arrays["lon"][column]]
        assert torch.equal(record.values[:, k, 0], torch.from_numpy(arrays["t2m"][:, row, column].astype(np.float64)))
    assert era5_uk_sensors(sample(BRITAIN), 30, seed=3).ids == record.ids
    several = molene(sample(MOLENE), ("u", "t"))
    assert torch.equal(several.select(["t"]).values, molene(sample(MOLENE)).values)
    assert several.elevation is not None


def test_wrong_requests() -> None:
    with pytest.raises(StationError, match="from 2 to 1617"):
        era5_uk_sensors(sample(BRITAIN), 5000)
    with pytest.raises(StationError, match="no variable snow"):
        molene(sample(MOLENE), ("snow",))


@pytest.mark.parametrize("read", [molene, era5_uk_sensors, noaa_strbook, pacific_sst])
def test_bad_files(read: Callable[[Path], StationRecord], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file"):
        read(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(StationError, match="damaged"):
        read(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(StationError, match="no array"):
        read(tmp_path / "other.npz")
    objects: Any = np.array([{}], dtype=object)
    np.savez(tmp_path / "objects.npz", allow_pickle=True, values=objects)
    with pytest.raises(StationError, match="damaged"):
        read(tmp_path / "objects.npz")
