"""Networks start as persistence, learn, see what they are said to see, and repeat bit for bit."""

from pathlib import Path

import pytest
import torch
from weather_cases import case

from neuralpde.forecast_networks import GCNMethod, RUniMeshMethod
from neuralpde.weather_forecasts import Persistence, score

METHODS = (
    GCNMethod(steps=40, width=16, layers=2, learning_rate=1e-2),
    RUniMeshMethod(steps=40, width=16, layers=2, learning_rate=1e-2, order=4),
)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_learning_beats_persistence_and_repeats(method, tmp_path):
    one = case(leads=2)
    first, again = (method.fit(one, 3, tmp_path / f"{k}.safetensors", lambda *told: None) for k in range(2))
    batch = one.windows.batch([0])
    assert torch.equal(first.forecast(batch.inputs, batch.times), again.forecast(batch.inputs, batch.times))
    error, persistence = (score(f, one.windows, one.climatology).rmse for f in (first.forecast, Persistence()))
    assert bool((error < persistence).all())
    assert first.parameters == sum(p.numel() for p in first.forecast.stepper.parameters())


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_untrained_it_is_persistence(method):
    one = case(leads=2)
    torch.manual_seed(0)
    network = method.network(one, 8, 1)
    assert not bool(network(torch.randn(3, one.static.shape[0], 8)).detach().any())


def test_a_finished_training_is_not_repeated(tmp_path: Path):
    one, told = case(leads=2), []
    for _ in range(2):
        METHODS[0].fit(one, 0, tmp_path / "w.safetensors", lambda *x: told.append(x))
    assert len(told) == METHODS[0].steps
