import torch

from neuralpde.sensor_placement import Placement
from neuralpde.station_ours_joint import fit_steps, nearby
from neuralpde.station_ours_kernel import DriftingCovariance


def test_a_linear_step_is_found_and_rolled():
    g = torch.Generator().manual_seed(0)
    placement = Placement("here", torch.rand(3, 2, generator=g, dtype=torch.float64))
    a = 0.9 * torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64)).Q
    x = [torch.randn(40, 3, generator=g, dtype=torch.float64)]
    for _ in range(5):
        x.append(x[-1] @ a.T + 0.1)
    values, times = torch.stack(x, 1), torch.arange(6.0, dtype=torch.float64).expand(40, -1)
    step = fit_steps(placement, values, times, (), 1.0, 1, (1e-10,))[0]
    torch.testing.assert_close(step.roll(values[:, :2], times[:, 1], 4), values[:, 2:], atol=1e-6, rtol=0)
    assert step.lags == 1


def test_a_large_ridge_is_persistence():
    g = torch.Generator().manual_seed(0)
    placement = Placement("here", torch.rand(3, 2, generator=g, dtype=torch.float64))
    values = torch.randn(40, 6, 3, generator=g, dtype=torch.float64)
    values = values - values.mean((0, 1))
    times = torch.arange(6.0, dtype=torch.float64).expand(40, -1)
    step = fit_steps(placement, values, times, (), 1.0, 2, (1e12,))[0]
    assert float(step.weights.abs().max()) < 1e-9


def test_known_sensors_keep_what_they_have():
    kernel = DriftingCovariance(1.0)
    plane = torch.rand(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = nearby(kernel, plane, torch.tensor([0, 2, 3]))
    assert torch.equal(weights[[0, 2, 3]], torch.eye(3, dtype=torch.float64))
    # What is common to all is nearly kept: the variance of it is large.
    torch.testing.assert_close(weights.sum(1), torch.ones(5, dtype=torch.float64), atol=0.05, rtol=0)
