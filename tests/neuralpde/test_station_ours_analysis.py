import pytest
import torch

from neuralpde.station_ours_analysis import conditional_mean
from neuralpde.station_ours_climate import LocalClimate
from neuralpde.station_ours_kernel import DriftingCovariance


@pytest.fixture
def problem():
    g = torch.Generator().manual_seed(0)
    plane = torch.rand(6, 2, generator=g, dtype=torch.float64)
    climate = LocalClimate((), torch.zeros(6, 1, dtype=torch.float64), torch.zeros(1, 6, 6, dtype=torch.float64))
    kernel = DriftingCovariance(0.5).requires_grad_(False)
    x = torch.randn(3, 4, 6, generator=g, dtype=torch.float64)
    seen = torch.rand(3, 4, 6, generator=g) > 0.3
    times = torch.tensor([[-3.0, -2, -1, 0], [-3.75, -2.125, -0.625, 0], [-3, -2, -1, 0]], dtype=torch.float64)
    wanted = torch.tensor([[1.0, 2.5]] * 3, dtype=torch.float64)
    return kernel, plane, climate, x * seen, seen, times, wanted


def test_it_is_the_gaussian_conditional_mean(problem):
    kernel, plane, _, x, seen, times, wanted = problem
    found = conditional_mean(*problem)
    for k in range(3):
        t = torch.cat([times[k], wanted[k]])
        place, moment = plane.repeat(6, 1), t.repeat_interleave(6)
        which = torch.arange(6).repeat(6)
        c = torch.zeros(36, 36, dtype=torch.float64)
        for i in range(36):
            same = (which[i] == which).double()[None]
            # Every pair with the lag that is its own.
            c[i] = kernel((place[i] - place)[None], moment[i] - moment, same)[:, 0].diagonal()
        keep = torch.cat([seen[k].flatten(), torch.zeros(12, dtype=torch.bool)])
        noisy = c[keep][:, keep] + kernel.nugget * torch.eye(int(keep.sum()), dtype=torch.float64)
        expected = c[24:][:, keep] @ torch.linalg.solve(noisy, x[k].flatten()[seen[k].flatten()])
        torch.testing.assert_close(found[k].flatten(), expected, atol=1e-8, rtol=1e-8)


def test_a_window_is_told_nothing_by_others(problem):
    kernel, plane, climate, x, seen, times, wanted = problem
    alone = conditional_mean(kernel, plane, climate, x[1:2], seen[1:2], times[1:2], wanted[1:2])
    torch.testing.assert_close(alone[0], conditional_mean(*problem)[1], atol=1e-10, rtol=0)


def test_what_was_not_seen_does_not_matter(problem):
    kernel, plane, climate, x, seen, times, wanted = problem
    other = torch.where(seen, x, 1e6)
    assert torch.equal(conditional_mean(*problem), conditional_mean(kernel, plane, climate, other, seen, times, wanted))


def test_nothing_seen_is_nothing_expected(problem):
    kernel, plane, climate, x, seen, times, wanted = problem
    assert not conditional_mean(kernel, plane, climate, x, torch.zeros_like(seen), times, wanted).any()


def test_many_sensors_are_divided_by_place(problem):
    whole, parts = conditional_mean(*problem), conditional_mean(*problem, most=16)
    assert bool(parts.isfinite().all())
    assert float((whole - parts).norm() / whole.norm()) < 0.5


def test_a_covariance_that_is_none_is_refused(problem):
    kernel, *rest = problem
    kernel.length.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="positive definite"):
        conditional_mean(kernel, *rest)
