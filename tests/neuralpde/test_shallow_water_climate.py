"""The climate: a balanced state of rest that forcing leaves alone, and disturbances that are the seed's."""

import math

import pytest
import torch

from neuralpde.shallow_water_climate import ClimateSettings, Relaxation, mountains, zonal_jets
from operators.sphere_meshes import centroidal_icosphere

MESH = centroidal_icosphere(2)


def test_relaxation_is_exponential_and_leaves_its_state_alone():
    state = (torch.ones(3, 1), torch.zeros(4, 1))
    pull = Relaxation(state, 10.0)
    assert all(not bool(rate.any()) for rate in pull(0.0, state))
    assert torch.equal(pull(0.0, (state[0] + 5.0, state[1]))[0], torch.full((3, 1), -0.5))
    with pytest.raises(ValueError, match="relaxation"):
        Relaxation(state, 0.0)


def test_the_jets_blow_eastward_along_the_sphere():
    points = torch.nn.functional.normalize(MESH.vertices.double(), dim=1)
    wind = zonal_jets(points)
    assert float((wind * points).sum(1).abs().max()) < 1e-12
    assert float(wind[:, 2].abs().max()) == 0.0
    assert bool(torch.isfinite(wind).all())


def test_mountains_are_where_they_are_said_to_be():
    top = torch.tensor([[math.cos(0.7) * math.cos(-1.8), math.cos(0.7) * math.sin(-1.8), math.sin(0.7)]], dtype=torch.float64)
    # The two others are far.
    assert float(mountains(top)) == pytest.approx(2500.0, rel=1e-3)


def test_starts_are_balanced_of_the_given_mean_depth_and_repeat():
    settings = ClimateSettings()
    climate = settings.on(MESH, 4800.0)
    one, again, other = (settings.starts(climate, 2, seed) for seed in (0, 0, 1))
    assert torch.equal(one[0], again[0])
    assert not torch.equal(one[0], other[0])
    area = climate.flow.grid.cell_areas[:, None]
    mean = (area * one[0]).sum(1) / area.sum()
    assert torch.allclose(mean, torch.full_like(mean, 8000.0), rtol=1e-12)
    spreading = climate.flow.grid.divergence(climate.flow(0.0, one)[1])
    turning = climate.flow.grid.curl(one[1])
    # dδ/dt against f ζ, the size of each of the two terms that balance.
    assert float(spreading.abs().max()) < 1e-2 * 1.4e-4 * float(turning.abs().max())
