"""A record of stations: what was measured, what was not, and nothing else."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.station_checks import StationError, StationWarning
from neuralpde.station_record import StationRecord
from neuralpde.station_synthetic import SyntheticStations
from neuralpde.weather_record import Variable, regular_times

RECORD = SyntheticStations(stations=7, frames=50, missing=0.2, outages=0.1, variables=2).record()


def of(**change: Any) -> StationRecord:
    arguments: dict[str, Any] = {
        "name": "here",
        "values": 10 + np.arange(12.0).reshape(4, 3) / 10,
        "times": regular_times("2020-01-01", 1, 4),
        "latitude": [50.0, 51.0, 52.0],
        "longitude": [0.0, 1.0, 2.0],
        "variables": [Variable("t", units="degC")],
        "ids": ["a", "b", "c"],
    }
    return StationRecord.of(**{**arguments, **change})


def test_what_goes_in() -> None:
    values = 10 + np.arange(12.0).reshape(4, 3) / 10
    values[1, 2], values[0, 0] = np.nan, -9999
    record = of(values=values, missing=(-9999,), elevation=[1.0, 2.0, math.nan])
    assert record.seen.sum() == 10
    assert float(record.values[1, 2, 0]) == float(record.values[0, 0, 0]) == 0.0
    assert float(record.values[2, 1, 0]) == values[2, 1]
    assert float(record.hours[0]) == 24 * (50 * 365 + 12)
    assert record.hours.diff().tolist() == [1.0] * 3
    assert record.coverage == pytest.approx(10 / 12)
    assert "t [degC] at 3 stations, 4 times" in repr(record)
    assert len(record) == 4
    texts = of(times=["2020-01-01", "2020-01-01T01", "2020-01-01T02:00", "2020-01-01 03:00:00"])
    assert texts.hours.tolist() == record.hours.tolist()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"values": np.zeros((4, 2))}, "shape"),
        ({"ids": ["a", "b", "a"]}, "station a occurs twice"),
        ({"ids": ["a", "b"]}, "2 names"),
        ({"latitude": [50.0, math.nan, 52.0]}, "coordinates of 1 stations are missing, the first is b"),
        ({"latitude": [50.0, 50.0, 52.0], "longitude": [0.0, 360.0, 2.0]}, "same place"),
        ({"latitude": [100.0, 101.0, 102.0]}, "swapped"),
        ({"latitude": [50000.0, 51000.0, 52000.0], "longitude": [100.0, 0.0, 0.0]}, "degrees"),
        ({"times": regular_times("2020-01-01", 1, 4)[::-1]}, "sort"),
        ({"times": np.arange(4)}, "datetime64"),
        ({"times": ["2020-01-01", "yesterday", "2020", "2021"]}, "cannot be read"),
        ({"values": np.full((4, 3), math.nan)}, "never measured"),
        ({"values": np.full((4, 3), 290.0)}, "look like K"),
        ({"variables": []}, "shape"),
        ({"values": np.zeros((4, 3, 2)), "variables": ["t", "t"]}, "occurs twice"),
        ({"values": np.zeros((4, 1)), "latitude": [1.0], "longitude": [1.0], "ids": None}, "two stations"),
    ],
    ids=[
        "shape",
        "twice",
        "names",
        "nan",
        "place",
        "swapped",
        "milli",
        "order",
        "type",
        "text",
        "empty",
        "unit",
        "none",
        "name",
        "one",
    ],
)
def test_bad_input(change: dict[str, Any], told: str) -> None:
    with pytest.raises(StationError, match=told):
        of(**change)


def test_selections_commute_and_keep_gaps_zero() -> None:
    chosen = RECORD.select(["p"]).take([4, 1]).every(3)
    assert torch.equal(chosen.values, RECORD.values[::3][:, [4, 1], 1:])
    assert torch.equal(chosen.seen, RECORD.take(torch.tensor([4, 1])).every(3).select(["p"]).seen)
    assert chosen.ids == (RECORD.ids[4], RECORD.ids[1])
    assert torch.equal(chosen.placement.points, RECORD.placement.points[[4, 1]])
    assert torch.equal(RECORD.take([RECORD.ids[2], RECORD.ids[0]]).values, RECORD.values[:, [2, 0]])
    for record in (RECORD, chosen, RECORD.hide(torch.rand(len(RECORD), 1, 1) < 0.3), RECORD.resampled(2.0)):
        assert bool((record.values[~record.seen] == 0).all())


def test_between_holds_its_start_and_not_its_stop() -> None:
    start, stop = RECORD.times[5], RECORD.times[11]
    part = RECORD.between(start, stop)
    assert torch.equal(part.values, RECORD.values[5:11])
    assert len(RECORD.between(str(RECORD.times[5]))) == len(RECORD) - 5
    with pytest.raises(StationError, match="no frame"):
        RECORD.between("2031-01-01")


def test_covered_and_within() -> None:
    mask = torch.zeros_like(RECORD.seen)
    mask[10:, 3, 0] = True
    assert RECORD.ids[3] not in RECORD.hide(mask).covered(0.5).ids
    assert RECORD.covered(0.5).ids == RECORD.ids
    with pytest.raises(StationError, match="fewer than two"):
        RECORD.covered(1.0).covered(1.0)
    values = np.full((400, 3), 10.0) + np.arange(1200).reshape(400, 3) / 1000
    values[7, 1] = 90
    with pytest.warns(StationWarning):
        record = of(values=values, times=regular_times("2020-01-01", 1, 400))
    assert (~record.within("t", -50, 50).seen).nonzero().tolist() == [[7, 1, 0]]


@settings(max_examples=30, deadline=None)
@given(hours=st.sampled_from([0.5, 1.0, 2.0, 6.0]), reach=st.sampled_from([None, 1.0, 5.0]), seed=st.integers(0, 50))
def test_resampling_takes_the_last_value_and_none_from_later(hours: float, reach: float | None, seed: int) -> None:
    record = SyntheticStations(stations=3, frames=30, missing=0.4, outages=0.3, seed=seed).record()
    # Irregular minutes.
    shift = np.random.default_rng(seed).integers(0, 3_599, len(record)).astype("timedelta64[s]")
    record = StationRecord.of(
        "shifted",
        np.where(record.seen, record.values, np.nan),
        record.times + shift,
        *record.placement.points.T.numpy(),
        record.variables,
    )
    regular = record.resampled(hours, reach)
    assert bool((regular.hours.diff() == hours).all())
    assert bool((regular.hours % hours == 0).all())
    for t, hour in enumerate(regular.hours.tolist()):
        for station in range(3):
            past = (record.hours <= hour) & record.seen[:, station, 0]
            expected = None
            if bool(past.any()):
                last = int(past.nonzero()[-1])
                if hour - float(record.hours[last]) < (reach or hours) - 1e-9:
                    expected = float(record.values[last, station, 0])
            found = float(regular.values[t, station, 0]) if bool(regular.seen[t, station, 0]) else None
            assert found == expected


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: RECORD.select(["u"]),
        lambda: RECORD.select([]),
        lambda: RECORD.take(["nowhere", "else"]),
        lambda: RECORD.take([0, 99]),
        lambda: RECORD.every(0),
        lambda: RECORD.resampled(0.0),
        lambda: RECORD.within("u", 0, 1),
        lambda: RECORD.resampled(10_000.0),
    ],
    ids=["variable", "none", "name", "index", "stride", "hours", "range", "long"],
)
def test_bad_requests(wrong: Any) -> None:
    with pytest.raises(StationError):
        wrong()


@pytest.mark.parametrize("hours", [1e-14, 1e-9, math.inf, 1e9])
def test_steps_that_no_memory_holds_are_refused(hours: float) -> None:
    with pytest.raises(StationError, match=r"longer steps|below a million"):
        SyntheticStations(stations=3, frames=5).record().resampled(hours)
