"""Less is given, and the same is asked."""

import pytest
import torch

from neuralpde.sensor_case import SensorCase
from neuralpde.station_cases import StationSplit, to_cases
from neuralpde.station_checks import StationError
from neuralpde.station_degraded import hidden, irregular, latest
from neuralpde.station_synthetic import SyntheticStations

CASE = to_cases(SyntheticStations(stations=10, frames=300).record(), StationSplit(given=8, horizon=4)).train


def assert_same_targets(case: SensorCase) -> None:
    assert all(torch.equal(a, b) for a, b in zip(case.targets, CASE.targets, strict=True))
    assert torch.equal(case.inputs.wanted, CASE.inputs.wanted)


def test_hidden_hides_that_share_of_inputs_alone() -> None:
    case = hidden(CASE, 0.3)
    assert_same_targets(case)
    share = 1 - float(case.inputs.seen.double().mean()) / float(CASE.inputs.seen.double().mean())
    assert abs(share - 0.3) < 0.02
    assert torch.equal(hidden(CASE, 0.0).values, CASE.values)
    assert torch.equal(hidden(CASE, 0.3).values, case.values)
    assert not torch.equal(hidden(CASE, 0.3, seed=1).seen, case.seen)


def test_irregular_keeps_the_newest_and_orders_the_rest() -> None:
    case = irregular(CASE, 4)
    assert_same_targets(case)
    assert case.given == 4
    assert torch.equal(case.times[:, 3], CASE.times[:, 7])
    assert bool((case.times.diff(dim=1) > 0).all())
    assert len(set(map(tuple, case.times[:, :4].sub(case.times[:, :1]).tolist()))) > 5
    # Each kept frame is the frame of its time.
    position = (CASE.times[:, None] == case.times[:, :, None]).double().argmax(-1)
    assert torch.equal(CASE.values[torch.arange(len(position))[:, None], position], case.values)


def test_latest() -> None:
    case = latest(CASE, 3)
    assert_same_targets(case)
    assert torch.equal(case.inputs.values, CASE.values[:, 5:8])
    assert torch.equal(latest(CASE, 8).values, CASE.values)
    assert torch.equal(irregular(CASE, 8).values, CASE.values)


def test_bad_settings() -> None:
    with pytest.raises(StationError):
        hidden(CASE, 1.0)
    with pytest.raises(StationError, match="from 1 to 8"):
        irregular(CASE, 9)
    with pytest.raises(StationError):
        latest(CASE, 0)
