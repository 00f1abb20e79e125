import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.station_ours_kernel import DriftingCovariance


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.floats(0.1, 3.0))
def test_it_is_a_covariance_for_any_parameters(seed, size):
    g = torch.Generator().manual_seed(seed)
    kernel = DriftingCovariance(100.0, (24.0,))
    with torch.no_grad():
        for parameter in kernel.parameters():
            parameter += size * torch.randn(parameter.shape, generator=g, dtype=torch.float64)
    places = 200 * torch.rand(4, 2, generator=g, dtype=torch.float64)
    times = torch.arange(5.0, dtype=torch.float64)
    lags = (times[:, None] - times).flatten()
    with torch.no_grad():
        table = kernel(places[:, None] - places, lags, torch.eye(4))
    matrix = table.reshape(5, 5, 4, 4).transpose(1, 2).reshape(20, 20)
    torch.testing.assert_close(matrix, matrix.T)
    # Rounding in float64 of a matrix of this size.
    assert float(torch.linalg.eigvalsh(matrix).min()) > -1e-10 * float(matrix.diagonal().sum())


def test_what_the_wind_carries_is_found_downwind():
    kernel = DriftingCovariance(1.0)
    with torch.no_grad():
        kernel.wind[:, 0] = 5.0
        kernel.gusts.fill_(-6)
    offsets = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]], dtype=torch.float64)
    later = kernel(offsets, torch.tensor([2.0]), torch.zeros(1, 2)).detach()
    assert float(later[0, 0, 0]) > float(later[0, 0, 1])


def test_a_cycle_comes_back_after_its_period():
    kernel = DriftingCovariance(1.0, (24.0,))
    with torch.no_grad():
        kernel.amplitude.fill_(-40)
        kernel.own.fill_(-40)
        kernel.cycle_memory.fill_(math.log(1e9))
    at = kernel(torch.zeros(1, 1, 2), torch.tensor([0.0, 12.0, 24.0]), torch.zeros(1, 1)).detach().flatten()
    torch.testing.assert_close(at[0], at[2])
    assert float(at[1]) < float(at[0])
