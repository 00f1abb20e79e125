"""The prior: its variance is what it says, its conditional mean is kriging, and its spectrum is found from sensors."""

import pytest
import torch

from neuralpde.nonlinear_sensors_library import real_waves
from neuralpde.nonlinear_sensors_prior import SpectralPrior
from neuralpde.sensor_case import SensorCase
from neuralpde.sensor_placement import Placement
from neuralpde.testing import assert_within


def prior_of(scale=3.0, channels=2):
    prior = SpectralPrior(channels, cells=12, highest=4)
    with torch.no_grad():
        prior.shape[1] = torch.tensor(scale).log()
    return prior


def test_the_variance_at_a_point_is_that_of_the_spectrum():
    prior = prior_of()
    amplitude = prior.amplitudes().detach()
    s, mean = prior.shape.detach().exp()[0], prior.shape.detach().exp()[3]
    assert_within(amplitude.square().sum(1), s**2 + mean**2, 1e-5)
    white = torch.randn(4000, 2, 81, generator=torch.Generator().manual_seed(0))
    variance = prior.fields(white).detach().square().mean((0, 2, 3))
    assert_within(variance, s**2 + mean**2, 0.05 * float((s**2 + mean**2).max()))


def test_the_conditional_mean_is_that_of_the_gaussian():
    prior = prior_of()
    prior.mixing.copy_(torch.tensor([[1.0, 0.0], [0.6, 0.8]]))
    points = torch.rand(10, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = torch.randn(3, 10, 2, generator=torch.Generator().manual_seed(1))
    found = prior.mean(values, points).detach()
    independent = values.double() @ torch.linalg.inv(prior.mixing.double()).T
    for c in range(2):
        waves = real_waves(points, 4)[0] * prior.amplitudes()[c].detach().double()
        covariance = waves @ waves.T + (float(prior.noise[c].detach()) ** 2 + 1e-5) * torch.eye(10, dtype=torch.float64)
        expected = (waves.T @ torch.linalg.solve(covariance, independent[:, :, c].T)).T
        assert_within(found[:, c].double(), expected, 1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("scale", [1.5, 5.0])
def test_the_scale_of_fields_is_found_from_sensors(scale):
    truth = prior_of(scale, 1)
    points = torch.rand(24, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    white = torch.randn(60, 81, generator=torch.Generator().manual_seed(1)) * truth.amplitudes()[0].detach()
    values = (white @ real_waves(points, 4)[0].float().T)[:, None, :, None].expand(-1, 2, -1, -1).contiguous()
    times = torch.arange(2, dtype=torch.float64).expand(60, -1)
    case = SensorCase("a", Placement("a", points), values, torch.ones_like(values, dtype=torch.bool), times, 1)
    prior = SpectralPrior(1, cells=12, highest=4)
    prior.fit([case], steps=80)
    # k₀ and p are nearly exchangeable: what is compared is the spectrum's mean wave number.
    found, expected = (
        float((p.amplitudes().detach().square() * p.sizes).sum() / p.amplitudes().detach().square().sum()) for p in (prior, truth)
    )
    # 60 frames of 81 waves: the spectrum is known to some 5 %; mixing scales the field to unit variance.
    assert found == pytest.approx(expected, rel=0.15)
    assert not any(parameter.requires_grad for parameter in prior.parameters())
