"""Baselines recover what they can express, and never look ahead."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sensor_cases import case, fit, scattered, with_gaps

from neuralpde.files import RunFolderError
from neuralpde.sensor_baselines import Climatology, JointVar, Persistence, Var, clock_features, clock_periods
from neuralpde.sensor_case import SensorCase
from neuralpde.sensor_score import score


def process(matrix, b, windows=60, seed=0, frames=10, noise=0.0, placement=None):
    """Windows of u(t + 1) = A u(t) + b from random starts."""
    n = len(matrix)
    u = [torch.randn(windows, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)]
    for _ in range(frames - 1):
        u.append(u[-1] @ matrix.mT + b)
    values = torch.stack(u, 1)[..., None].float()
    times = torch.arange(frames, dtype=torch.float64).expand(windows, frames)
    return SensorCase(
        "linear", placement or scattered(n, earth=False), values, torch.ones_like(values, dtype=torch.bool), times, 5
    )


def test_persistence_is_the_last_value_seen(tmp_path):
    one = with_gaps(case(windows=5), 0.5)
    path = fit(Persistence(), folder=tmp_path).forecast(one.inputs)
    for k in range(5):
        for i in range(8):
            at = one.seen[k, :6, i, 0].nonzero()
            if len(at):
                assert torch.equal(path[k, :, i, 0], one.values[k, int(at[-1]), i, 0].expand(4))


def test_var_has_three_numbers_and_finds_them(tmp_path):
    one = process(torch.eye(6, dtype=torch.float64) * 0.8, 0.3)
    found = fit(Var(), [one], [one], tmp_path)
    assert found.parameters == 3
    # In float32 data, of size one.
    assert score(found, process(torch.eye(6, dtype=torch.float64) * 0.8, 0.3, seed=5)).value("mae", 5) < 1e-5


def test_var_of_two_channels(tmp_path):
    one = process(torch.eye(6, dtype=torch.float64) * 0.8, 0.3)
    two = replace(one, values=one.values.repeat(1, 1, 1, 2), seen=one.seen.repeat(1, 1, 1, 2))
    found = fit(Var(), [two], [two], tmp_path)
    assert found.parameters == 10
    assert score(found, two).value("mae", 5) < 1e-4


def test_joint_var_finds_a_full_matrix(tmp_path):
    g = torch.Generator().manual_seed(3)
    matrix = torch.linalg.qr(torch.randn(6, 6, generator=g, dtype=torch.float64)).Q * 0.95
    one = process(matrix, 0.1)
    found = fit(JointVar(), [one], [process(matrix, 0.1, seed=1)], tmp_path)
    assert score(found, process(matrix, 0.1, seed=5)).value("mae", 5) < 1e-3
    assert found.parameters >= 6 * 6 + 6


def test_joint_var_takes_no_more_lags_than_are_given(tmp_path):
    one = process(torch.eye(6, dtype=torch.float64) * 0.8, 0.3)  # five frames are given, of ten
    with pytest.raises(RunFolderError, match=r"gives 5 of 10 frames.*ask for fewer lags"):
        fit(JointVar(lags=(6,)), [one], [one], tmp_path)
    assert fit(JointVar(lags=(5, 6)), [one], [one], tmp_path).lags == 5


def test_joint_var_takes_the_ridge_that_validation_likes(tmp_path):
    noisy = [case(name, start, 30, seed=seed) for name, start, seed in (("train", 0, 1), ("validation", 60, 2), ("test", 120, 3))]
    best = fit(JointVar(), [noisy[0]], [noisy[1]], tmp_path)
    errors = [
        score(fit(JointVar(lags=(1,), ridges=(ridge,), clock=False), [noisy[0]], [noisy[1]], tmp_path), noisy[1]).value("mae", 4)
        for ridge in JointVar().ridges
    ]
    assert score(best, noisy[1]).value("mae", 4) <= min(errors) + 1e-9


def test_joint_var_is_for_one_placement(tmp_path):
    with pytest.raises(RunFolderError, match="one placement"):
        fit(JointVar(), [case(), case(placement=scattered(5, 1))], [case()], tmp_path)


@pytest.mark.parametrize("method", [Persistence(), Climatology(), Var(), JointVar()], ids=lambda method: method.name)
def test_gaps_and_irregular_times_do_not_break_it(tmp_path, method):
    found = fit(method, folder=tmp_path)
    one = with_gaps(case("test", 80, 6), 0.6)
    uneven = replace(one, times=one.times + 0.3 * torch.sin(torch.arange(10, dtype=torch.float64)))
    assert bool(found.forecast(uneven.inputs).isfinite().all())


def test_climatology_is_the_harmonics_of_the_day(tmp_path):
    one = case(windows=60)
    hours = one.times[..., None, None]
    values = (1 + 2 * torch.cos(2 * math.pi * hours / 24 - 0.5) * torch.arange(8)[:, None]).float()
    one = replace(one, values=values)
    found = fit(Climatology(), [one], [one], tmp_path)
    # The tiny ridge that guards sensors that saw nothing is felt at 1e-6.
    np.testing.assert_allclose(found.forecast(one.inputs).numpy(), values[:, 6:].numpy(), atol=1e-4)
    elsewhere = case(placement=scattered(3, seed=9), windows=60)
    mean = found.forecast(elsewhere.inputs)
    np.testing.assert_allclose(mean.numpy(), values[:, 6:].mean(2, keepdim=True).expand(-1, -1, 3, -1).numpy(), atol=1e-4)


def test_only_waves_that_the_times_resolve_and_span():
    daily = replace(case(windows=30), times=24 * case(windows=30).times)
    assert clock_periods([case(windows=30)], 2) == [24, 12]
    assert clock_periods([daily], 2) == []
    assert clock_features(torch.zeros(3, 4), [24.0]).shape == (3, 4, 3)


def test_climatology_knows_each_of_many_sensors(tmp_path):
    # Where torch finds distances by products of matrices, some of these were not at their own place.
    one = case(windows=40, placement=scattered(60), seed=3)
    values = one.values + torch.arange(60.0)[:, None]
    one = replace(one, values=values)
    path = fit(Climatology(harmonics=0), [one], folder=tmp_path).forecast(one.inputs)
    assert torch.allclose(path[0, 0, :, 0], values.mean((0, 1))[:, 0], atol=0.05)
