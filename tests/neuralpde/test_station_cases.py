"""Cases from stations: spans that do not overlap, statistics of training alone, held-out stations apart."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.station_cases import StationScaling, StationSplit, to_cases
from neuralpde.station_checks import StationError
from neuralpde.station_synthetic import SyntheticStations

RECORD = SyntheticStations(stations=12, frames=240, missing=0.1).record()
SPLIT = StationSplit(given=6, horizon=4)


@settings(max_examples=25, deadline=None)
@given(
    inputs=st.integers(1, 8), horizon=st.integers(1, 8), stride=st.integers(1, 4), embargo=st.integers(0, 6),
    held_out=st.sampled_from([0.0, 0.2, 0.5]), outages=st.sampled_from([0.0, 0.15]),
)  # fmt: skip
def test_no_test_frame_in_training_or_validation(
    inputs: int, horizon: int, stride: int, embargo: int, held_out: float, outages: float
) -> None:
    record = SyntheticStations(stations=6, frames=240, outages=outages).record()
    split = StationSplit(inputs, horizon, held_out=held_out, stride=stride, embargo=embargo, gap=math.inf)
    cases = to_cases(record, split)
    train, validation, test = (set(one.times.flatten().tolist()) for one in (cases.train, cases.validation, cases.test))
    assert max(train) < min(validation)
    assert max(validation) < min(test)
    hours = record.hours.tolist()
    assert hours.index(min(validation)) - hours.index(max(train)) > embargo
    assert cases.train.given == inputs
    assert cases.train.horizon == horizon
    assert set(cases.ids) | set(cases.held_ids) == set(record.ids)
    assert not set(cases.ids) & set(cases.held_ids)
    assert (cases.held_out is None) == (held_out == 0)


def test_values_are_those_of_the_record() -> None:
    cases = to_cases(RECORD, SPLIT)
    assert cases.held_out is not None
    for case in (cases.train, cases.test, cases.held_out):
        ids = cases.ids if case is not cases.held_out else cases.ids + cases.held_ids
        mine = RECORD.take(ids)
        for k in (0, len(case.values) - 1):
            frames = torch.searchsorted(RECORD.hours, case.times[k])
            restored = cases.scaling.restore(case.values[k].double())
            seen = case.seen[k]
            assert torch.equal(seen, mine.seen[frames])
            # Normalised values of size 3 in float32, times the standard deviation.
            assert torch.allclose(restored[seen], mine.values[frames][seen], atol=1e-5, rtol=0)


def test_scaling_is_of_training_stations_and_frames() -> None:
    cases = to_cases(RECORD, SPLIT)
    mine = RECORD.take(cases.ids).frames(slice(0, SPLIT.spans(len(RECORD))[0].stop))
    values = mine.values[mine.seen]
    assert torch.allclose(cases.scaling.mean, values.mean())
    assert torch.allclose(cases.scaling.std, values.std(correction=0))
    assert torch.allclose(cases.scaling.restore(cases.scaling.normalise(values)), values)


def test_held_out_stations_come_last_and_alone_are_scored() -> None:
    cases = to_cases(RECORD, SPLIT)
    assert cases.held_out is not None
    assert cases.held_out.scored is not None
    assert cases.held_out.scored.tolist() == [False] * len(cases.ids) + [True] * len(cases.held_ids)
    assert torch.equal(cases.held_out.placement.points[: len(cases.ids)], cases.test.placement.points)
    assert torch.equal(cases.held_out.values[:, :, : len(cases.ids)], cases.test.values)
    assert len(cases.held_ids) == 2


def test_windows_with_gaps_are_left_out() -> None:
    kept = torch.ones(len(RECORD), dtype=torch.bool)
    kept[50] = False
    record = RECORD.frames(kept)
    strict, lax = (to_cases(record, StationSplit(6, 4, gap=gap)).train for gap in (1.5, math.inf))
    assert float(strict.times.diff(dim=1).max()) == 1.0
    assert len(strict.values) == len(lax.values) - 9
    assert float(lax.times.diff(dim=1).max()) == 2.0


def test_months_are_no_gaps() -> None:
    # Days of which every 31st, 28th, ... is kept: as uneven as months.
    days = torch.tensor([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]).repeat(4).cumsum(0) - 31
    record = SyntheticStations(stations=4, frames=int(days.max()) + 1, hours=24.0).record()
    months = record.frames(torch.isin(torch.arange(len(record)), days))
    assert len(to_cases(months, StationSplit(3, 2)).test.values) == 4


@pytest.mark.parametrize(
    ("split", "told"),
    [
        (StationSplit(given=30, horizon=30), "span has 40 frames"),
        (StationSplit(given=4, horizon=2, held_out=0.99), "fewer than two"),
    ],
    ids=["short", "stations"],
)
def test_impossible_splits(split: StationSplit, told: str) -> None:
    with pytest.raises(StationError, match=told):
        to_cases(RECORD, split)


@pytest.mark.parametrize(
    "bad",
    [{"given": 0}, {"test": 0.0}, {"test": 0.6, "validation": 0.5}, {"held_out": 1.0}, {"gap": 0.5}, {"embargo": -1}],
    ids=str,
)
def test_bad_settings(bad: dict[str, float]) -> None:
    with pytest.raises(StationError):
        StationSplit(**bad)  # type: ignore[arg-type]


def test_a_constant_has_no_scaling() -> None:
    flat = RECORD.hide(torch.zeros(1, dtype=torch.bool))
    flat.values[:] = 280.0
    with pytest.raises(StationError, match="constant"):
        StationScaling.of(flat)
    with pytest.raises(StationError, match="not seen"):
        StationScaling.of(RECORD.hide(torch.tensor(True)))


def test_only_gaps_is_an_error() -> None:
    with pytest.raises(StationError, match="every window"):
        to_cases(SyntheticStations(stations=6, frames=240, outages=0.4).record(), SPLIT)
