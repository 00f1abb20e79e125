"""Pairs of levels are found; on maps moved by a flow of known deformation number that number is chosen, and beats persistence."""

from pathlib import Path

import pytest
import torch

from integrators import integrate
from integrators.rk4 import RK4
from neuralpde.climatology import MeanClimatology
from neuralpde.forecast_case import ForecastCase, latitude_features
from neuralpde.forecast_geostrophic import BalancedFlow
from neuralpde.forecast_geostrophic_ours import GeostrophicOurs, paired
from neuralpde.shallow_water import EARTH_RADIUS
from neuralpde.weather_forecasts import score
from neuralpde.weather_place import MeshNodes
from neuralpde.weather_record import Variable, WeatherError, WeatherRecord, regular_times
from operators.sphere_meshes import centroidal_icosphere

FOUR = [Variable(name, level) for name in ("geopotential", "temperature") for level in (850, 500)]


def test_pairs():
    assert paired(FOUR) == ((1, 3), (0, 2))
    for wrong in (FOUR[:3], FOUR[::2], [*FOUR, Variable("2m_temperature")]):
        with pytest.raises(WeatherError, match="balanced flow"):
            paired(wrong)


def test_the_flow_is_found_again():
    mesh = centroidal_icosphere(3, dtype=torch.float32)
    x, y, z = mesh.vertices.unbind(1)
    flow = BalancedFlow(mesh, 12.0)
    waves = torch.stack([x * x - y * y, x * y], dim=1) * z[:, None]
    start = flow.start(5e4 - 4e3 * z[:, None] ** 2 + 3e3 * waves, 260 - 30 * z[:, None] ** 2 + 4 * waves)
    q, temperature = integrate(flow, start, torch.arange(4) * 43200.0, RK4(dt=1800.0)).x
    geopotential = 5e4 + flow.coriolis * (flow.stream(q)) * EARTH_RADIUS**2
    record = WeatherRecord.of(
        torch.cat([geopotential, temperature], dim=-1)[None], regular_times("2001-01-01", 12.0, 4), MeshNodes(mesh), FOUR
    )
    train, test = record.split(0.5, inputs=1)
    case = ForecastCase("moved", train, test, 1, 2, 1, MeanClimatology.of(train), latitude_features(train))
    method = GeostrophicOurs(refinements=3, deformations=(3.0, 12.0, 50.0))
    learned = method.fit(case, 0, Path("unused"), lambda *told: None)
    change = (test.nodes()[0, 1:] - test.nodes()[0, :-1]).square().mean(1).sqrt()[0]
    assert bool((score(learned.forecast, case.windows, case.climatology).rmse[0] < 0.5 * change).all())
