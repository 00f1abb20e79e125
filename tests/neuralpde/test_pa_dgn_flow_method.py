from pathlib import Path

import torch

from neuralpde.pa_dgn_flow_method import PADGNFlowMethod
from neuralpde.sensor_case import Given, SensorCase
from neuralpde.sensor_placement import Placement


def case(name: str, seed: int, n: int) -> SensorCase:
    random = torch.Generator().manual_seed(seed)
    placement = Placement(name, torch.rand(n, 2, generator=random, dtype=torch.float64))
    seen = torch.rand(4, 6, n, 1, generator=random) > 0.3
    values = torch.randn(4, 6, n, 1, generator=random) * seen
    times = torch.cumsum(0.2 + torch.rand(4, 6, generator=random, dtype=torch.float64), dim=1)
    return SensorCase(name, placement, values, seen, times, given=4)


def test_irregular_times_and_missing_values_at_another_placement(tmp_path: Path) -> None:
    method = PADGNFlowMethod(steps=2, hidden=3, differences=2, width=4)
    forecaster = method.fit([case("a", 0, 7)], [case("a", 1, 7)], 0, tmp_path / "k.safetensors", lambda *a: None)
    given = case("b", 2, 8).inputs
    forecast = forecaster.forecast(given)
    assert forecast.shape == (4, 2, 8, 1)
    assert bool(torch.isfinite(forecast).all())
    # Forecasts depend on time differences only.
    later = Given(given.placement, given.values, given.seen, given.times + 5, given.wanted + 5)
    torch.testing.assert_close(forecaster.forecast(later), forecast, rtol=1e-4, atol=1e-5)
