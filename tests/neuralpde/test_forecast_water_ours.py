"""Slopes are those of least squares; the learned force and factors make the simulator better on other trajectories."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from neuralpde.forecast_sets import shallow_water
from neuralpde.forecast_water_ours import Slope, WaterOurs, members
from neuralpde.shallow_water_set import ShallowWaterSet
from neuralpde.weather_forecasts import score
from neuralpde.weather_record import WeatherError


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    data = ShallowWaterSet(refinements=2, truth_refinements=3, trajectories=4, test_trajectories=1, days=5, spin_up_days=2)
    return shallow_water(data, tmp_path_factory.mktemp("set") / "set.safetensors", lambda *told: None).case


def learned(method, case):
    return method.fit(case, 0, Path("unused"), lambda *told: None)


def test_a_field_and_a_slope_by_least_squares():
    g = torch.Generator().manual_seed(0)
    x, field = torch.randn(30, 5, 1, generator=g), torch.randn(5, 1, generator=g)
    y, w = field - 0.3 * x + 0.1 * torch.randn(30, 5, 1, generator=g), torch.rand(5, 1, generator=g)
    slope = Slope()
    slope.add(y[:10], x[:10])
    slope.add(y[10:], x[10:])
    found, rate = slope.solve(w)
    design = torch.cat([torch.eye(5).repeat(30, 1), x.reshape(-1, 1)], dim=1) * w.sqrt().repeat(30, 1)
    expected = np.linalg.lstsq(design.numpy(), (y.reshape(-1, 1) * w.sqrt().repeat(30, 1)).numpy(), rcond=None)[0]
    assert np.allclose(torch.cat([found, rate.reshape(1, 1)]).numpy(), expected, atol=1e-4)
    with pytest.raises(WeatherError, match="two frames"):
        Slope().solve(w)


def test_forces_help_where_they_were_not_learned(case):
    short = replace(case, leads=8)
    method = WaterOurs(refinements=3, held_out=1, factor_stride=4)
    with_forces, bare = learned(method, short), learned(replace(method, forced=False), short)
    assert with_forces.parameters > bare.parameters > 0
    errors = [score(one.forecast, short.windows, short.climatology).rmse[-1, 0] for one in (with_forces, bare)]
    assert float(errors[0]) < float(errors[1])
    # The truth relaxes in 25 days, which a coarse sphere of five days tells roughly: a pull, not a push.
    assert bool((with_forces.forecast.force.rates > 0).all())


def test_it_needs_the_orography(case):
    with pytest.raises(WeatherError, match="orography"):
        learned(WaterOurs(), replace(case, orography=None))


def test_members(case):
    assert torch.equal(members(case.train, slice(1, None)).nodes(), case.train.nodes()[1:])
