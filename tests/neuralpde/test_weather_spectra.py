"""Zonal spectra: a wave is found at its number, energy adds up, and grids without waves around the globe are refused."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.shallow_water import EARTH_RADIUS
from neuralpde.testing import assert_within, roundoff
from neuralpde.weather_spectra import zonal_spectrum
from operators import FieldError
from operators.lat_lon import LatLon


def globe(columns):
    return LatLon(torch.linspace(-90, 90, 7, dtype=torch.float64), torch.arange(columns) * (360 / columns))


@given(columns=st.integers(3, 16), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_energy_adds_up(columns, dtype):
    grid = globe(columns)
    x = torch.randn(2, 7, columns, 3, dtype=dtype)
    length = 2 * math.pi * EARTH_RADIUS * torch.cos(torch.deg2rad(grid.latitude))
    expected = length[:, None] * x.double().square().mean(-2)
    found = zonal_spectrum(x, grid)
    assert found.dtype == dtype
    assert found.shape == (2, 7, columns // 2 + 1, 3)
    assert_within(found.double().sum(-2), expected, 100 * columns * roundoff(dtype) * expected.max())


def test_a_wave_is_found_at_its_number():
    grid = globe(16)
    x = 3 * torch.cos(5 * torch.deg2rad(grid.longitude) + 0.3) + torch.ones(7, 1, dtype=torch.float64)
    energy = zonal_spectrum(x[..., None], grid)[3, :, 0] / (2 * math.pi * EARTH_RADIUS)
    expected = torch.zeros(9, dtype=torch.float64)
    expected[0], expected[5] = 1.0, 4.5
    assert_within(energy, expected, 1e-12)
    westward = LatLon(grid.latitude, grid.longitude.flip(0))
    assert_within(zonal_spectrum(x.flip(1)[..., None], westward), zonal_spectrum(x[..., None], grid), 1e-3)


def test_other_grids_are_refused():
    britain = LatLon(torch.linspace(58, 50, 9), torch.linspace(-10, 2, 13))
    with pytest.raises(FieldError, match="evenly spaced"):
        zonal_spectrum(torch.zeros(9, 13, 1), britain)
    uneven = LatLon(torch.linspace(58, 50, 9), torch.tensor([0.0, 80, 180, 270]))
    with pytest.raises(FieldError, match="evenly spaced"):
        zonal_spectrum(torch.zeros(9, 4, 1), uneven)
    with pytest.raises(FieldError, match=r"\(..., 7, 8, c\)"):
        zonal_spectrum(torch.zeros(8, 7, 1), globe(8))
