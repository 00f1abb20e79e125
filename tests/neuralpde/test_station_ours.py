import copy
from dataclasses import replace

import pytest
import torch
from sensor_cases import case, fit, scattered, with_gaps

from neuralpde.sensor_baselines import Persistence
from neuralpde.sensor_leaks import leaks_of_forecaster, leaks_of_method
from neuralpde.sensor_score import mean_error
from neuralpde.station_cases import StationSplit, to_cases
from neuralpde.station_ours import StationOurs, between
from neuralpde.station_synthetic import SyntheticStations
from operators import DomainError

QUICK = StationOurs(kernel_steps=15, steps=60, members=2, width=16, copies=1)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    train, validation = [case(windows=150)], [case("validation", 160, 20)]
    return fit(QUICK, train, validation, tmp_path_factory.mktemp("ours"))


def test_it_beats_persistence_by_a_quarter(learned, tmp_path):
    test = [case("test", 190, 20)]
    assert mean_error(learned, test) < 0.75 * mean_error(fit(Persistence(), folder=tmp_path), test)


def test_with_gaps_it_still_beats_persistence_without(learned, tmp_path):
    test = case("test", 190, 20)
    assert mean_error(learned, [with_gaps(test)]) < 0.75 * mean_error(fit(Persistence(), folder=tmp_path), [test])
    blind = replace(test.inputs, values=torch.zeros_like(test.inputs.values), seen=torch.zeros_like(test.inputs.seen))
    assert bool(learned.forecast(blind).isfinite().all())


def test_any_times_and_any_sensors(learned):
    one = case("test", 190, 5, placement=scattered(11, seed=3)).inputs
    g = torch.Generator().manual_seed(0)
    times = one.times + 0.4 * torch.rand(one.times.shape, generator=g, dtype=torch.float64)
    odd = replace(one, times=times, wanted=times[:, -1:] + torch.tensor([0.5, 3.0, 40.0], dtype=torch.float64))
    path = learned.forecast(odd)
    assert path.shape == (5, 3, 11, 1)
    assert bool(path.isfinite().all())


def test_a_window_is_told_nothing_by_others(learned):
    assert leaks_of_forecaster(learned, case("test", 190, 6), tolerance=1e-5) == ()


def test_what_was_not_seen_does_not_matter(learned):
    one = with_gaps(case("test", 190, 6)).inputs
    odd = replace(one, values=torch.where(one.seen, one.values, 1e3))
    assert torch.equal(learned.forecast(one), learned.forecast(odd))


def test_it_can_be_copied_and_has_parameters(learned):
    one = case("test", 190, 4).inputs
    assert torch.equal(copy.deepcopy(learned).forecast(one), learned.forecast(one))
    assert learned.parameters > 100


def test_other_channels_are_refused(learned):
    one = case("test", 190, 4).inputs
    two = replace(one, values=one.values.expand(-1, -1, -1, 2), seen=one.seen.expand(-1, -1, -1, 2))
    with pytest.raises(DomainError, match="1 channels"):
        learned.forecast(two)


def test_nothing_of_the_future_or_of_held_out_stations_is_known(tmp_path):
    record = SyntheticStations(stations=8, frames=150).record()
    tiny = StationOurs(kernel_steps=2, steps=3, members=1, width=8, copies=1)
    split = StationSplit(given=5, horizon=3)
    assert leaks_of_method(tiny, lambda r: to_cases(r, split), record, tmp_path) == ()


def test_without_validation_the_correction_is_kept(tmp_path):
    train = [case(windows=60)]
    tiny = StationOurs(kernel_steps=2, steps=30, members=1, width=8, copies=0, drop=0.0)
    never = case("validation", 70, 5)
    never = replace(never, seen=torch.zeros_like(never.seen), values=torch.zeros_like(never.values))
    for name, validation in (("none", []), ("never", [never])):
        found = tiny.fit(train, validation, 0, tmp_path / name, lambda step, steps, note: None)
        committee = found.channels[0].committee
        assert committee is not None
        assert bool(committee.weights[-1].any())


def test_a_correction_begins_at_nothing_and_stays():
    path = between(torch.tensor([1.0, 3.0])[None, :, None], torch.tensor([[0.5, 1.0, 1.5, 9.0]]))
    assert path.flatten().tolist() == [0.5, 1.0, 2.0, 3.0]
