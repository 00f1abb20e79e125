"""The paper's sizes, and that training helps."""

from dataclasses import replace

import pytest
import torch
from sensor_cases import case, fit, scattered, with_gaps

from neuralpde.sensor_baselines import Persistence
from neuralpde.sensor_networks import Gru, Mlp, PerceptronStep, RecurrentStep
from neuralpde.sensor_score import score


def count(network):
    return sum(one.numel() for one in network.parameters())


def test_the_numbers_of_parameters_of_table_4():
    assert count(PerceptronStep(1, 64)) == 4417
    assert count(RecurrentStep(1, 64)) == 37889
    assert count(Mlp().network(1)) == 4417
    assert count(Gru().network(1)) == 37889


def test_a_rollout_is_its_own_steps():
    torch.manual_seed(0)
    frames = torch.randn(7, 5, 2)
    for network in (PerceptronStep(2, 8), RecurrentStep(2, 8)):
        path = network(frames, 3)
        assert path.shape == (7, 3, 2)
        first = network(frames, 1)
        torch.testing.assert_close(path[:, :1], first)
        torch.testing.assert_close(path[:, 1:2], network(torch.cat([frames, first], 1), 1))


@pytest.mark.parametrize(
    "method",
    [Mlp(steps=120, width=16, learning_rate=1e-2), Gru(steps=60, width=16, learning_rate=1e-2)],
    ids=lambda method: method.name,
)
def test_it_beats_persistence_anywhere(tmp_path, method):
    found = fit(method, folder=tmp_path)
    persistence = fit(Persistence(), folder=tmp_path)
    for test in (case("test", 90, 20), case("elsewhere", 90, 20, placement=scattered(5, seed=4))):
        assert score(found, test).value("mae", 4) < 0.9 * score(persistence, test).value("mae", 4)
    assert bool(found.forecast(with_gaps(case(windows=3)).inputs).isfinite().all())


def test_several_placements_and_channels(tmp_path):
    cases = [case(), case(placement=scattered(5, seed=4))]
    cases = [replace(one, values=one.values.repeat(1, 1, 1, 2), seen=one.seen.repeat(1, 1, 1, 2)) for one in cases]
    found = fit(Mlp(steps=3, width=4), cases, cases, tmp_path)
    assert found.forecast(cases[1].inputs).shape == (40, 4, 5, 2)
