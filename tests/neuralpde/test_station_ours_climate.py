import math

import pytest
import torch

from neuralpde.station_ours_climate import cycles, fit_climate, waves


def test_only_cycles_that_the_record_shows():
    assert cycles(torch.arange(240.0)) == (24.0, 12.0)
    assert cycles(24 * torch.arange(1000.0)) == (8765.82, 4382.91)
    assert cycles(torch.arange(20.0)) == ()
    assert cycles(torch.zeros(5)) == ()


@pytest.fixture
def field():
    g = torch.Generator().manual_seed(0)
    points = 100 * torch.rand(12, 2, generator=g, dtype=torch.float64)
    times = torch.arange(480.0, dtype=torch.float64)
    amplitude = 1 + points[:, 0] / 100
    values = 2 + amplitude * torch.cos(2 * math.pi * times[:, None] / 24)
    return points, times, values, amplitude


def test_cycles_are_found_in_spite_of_gaps(field):
    points, times, values, amplitude = field
    seen = torch.rand(values.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    climate = fit_climate(points, times, torch.where(seen, values, 0.0), seen, (24.0,), 1e-3)
    local = climate.among(points)
    torch.testing.assert_close(local.coefficients[:, 1], amplitude, atol=1e-4, rtol=0)
    torch.testing.assert_close(local.mean(times), values, atol=1e-3, rtol=0)
    assert not local.doubts.any()


def test_a_new_sensor_is_told_by_its_neighbours_and_doubted(field):
    points, times, values, amplitude = field
    climate = fit_climate(points, times, values, torch.ones_like(values, dtype=torch.bool), (24.0,), 1e-3)
    new = torch.arange(12) == 3
    local = climate.without(new).among(points)
    old = ~new
    torch.testing.assert_close(local.coefficients[old, 1], amplitude[old], atol=1e-4, rtol=0)
    gap, spread = (local.coefficients[3, 1] - amplitude[3]).abs(), (amplitude.mean() - amplitude[3]).abs()
    assert float(gap) < max(float(spread), 0.2)
    assert float(local.doubts[1, 3, 3]) > 0
    assert not local.doubts[:, old][:, :, old].any()


def test_waves_are_one_cos_sin():
    t = torch.tensor([0.0, 6.0])
    torch.testing.assert_close(
        waves(t, (24.0,)), torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]], dtype=torch.float64), atol=1e-12, rtol=0
    )
