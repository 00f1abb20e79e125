"""Gaps and irregular times against NumPy's interpolation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_cases import case, scattered, with_gaps

from neuralpde.sensor_case import Given
from neuralpde.sensor_gaps import Stepping, at_wanted, filled, regular, steps_needed, time_step, whole


def drawn(seed, K=3, w=6, n=4, share=0.4):
    g = torch.Generator().manual_seed(seed)
    times = torch.rand(K, w + 3, generator=g, dtype=torch.float64).add(0.05).cumsum(1)
    seen = torch.rand(K, w, n, 1, generator=g) > share
    values = torch.where(seen, torch.randn(K, w, n, 1, generator=g), 0.0)
    return Given(scattered(n), values, seen, times[:, :w], times[:, w:])


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 0.95))
def test_gaps_are_filled_linearly_in_time(seed, share):
    one = drawn(seed, share=share)
    result = filled(one)
    assert torch.equal(result[one.seen], one.values[one.seen])
    some = one.seen.any(1)
    for k, i in some[..., 0].nonzero().tolist():
        at = one.seen[k, :, i, 0].numpy()
        expected = np.interp(one.times[k].numpy(), one.times[k].numpy()[at], one.values[k, :, i, 0].numpy()[at])
        np.testing.assert_allclose(result[k, :, i, 0].numpy(), expected, atol=1e-6)
    for k, i in (~some[..., 0]).nonzero().tolist():
        others = result[k][:, some[k, :, 0], 0]
        expected = others.mean(1) if others.shape[1] else torch.zeros(len(others))
        torch.testing.assert_close(result[k, :, i, 0], expected)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), step=st.floats(0.05, 2))
def test_irregular_times_become_regular(seed, step):
    one = drawn(seed)
    result, values = regular(one, step, 5), filled(one)
    for k in range(3):
        times = float(one.times[k, -1]) - step * np.arange(4, -1, -1)
        for i in range(4):
            expected = np.interp(times, one.times[k].numpy(), values[k, :, i, 0].numpy())
            np.testing.assert_allclose(result[k, :, i, 0].numpy(), expected, atol=2e-6)


def test_what_is_regular_stays_bit_for_bit():
    one = case().inputs
    assert torch.equal(regular(one, 1.0, 4), one.values[:, -4:])
    path = torch.randn(40, 4, 8, 1)
    assert at_wanted(path, one, 1.0) is path


def test_wanted_times_between_steps():
    one = case(windows=2).inputs
    half = Given(one.placement, one.values, one.seen, one.times, one.times[:, -1:] + torch.tensor([0.5, 1.0, 1.75]).double())
    assert steps_needed(half, 1.0) == 2
    path = torch.randn(2, 2, 8, 1)
    result = at_wanted(path, half, 1.0)
    torch.testing.assert_close(result[:, 0], (one.values[:, -1] + path[:, 0]) / 2)
    torch.testing.assert_close(result[:, 1], path[:, 0])
    torch.testing.assert_close(result[:, 2], 0.25 * path[:, 0] + 0.75 * path[:, 1])


def test_a_single_frame():
    one = case(windows=2, given=1).inputs
    assert torch.equal(regular(one, 0.7, 3), one.values.expand(-1, 3, -1, -1))


class Doubling(Stepping):
    def roll(self, frames, steps, given):
        return torch.stack([frames[:, -1] * 2.0**k for k in range(1, steps + 1)], dim=1)


def test_stepping_forecasts_what_is_wanted():
    one = case(windows=3)
    result = Doubling(1.0, 2).forecast(one.inputs)
    assert result.shape == (3, 4, 8, 1)
    torch.testing.assert_close(result[:, 3], 16 * one.values[:, 5])
    gappy = with_gaps(one)
    assert bool(Doubling(0.5, 3).forecast(gappy.inputs).isfinite().all())


def test_step_and_whole():
    one = case(windows=2)
    assert time_step([one]) == 1.0
    assert whole(one).values is one.values
    assert whole(one).wanted.shape == (2, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_is_kept(dtype):
    one = drawn(0)
    assert filled(Given(one.placement, one.values.to(dtype), one.seen, one.times, one.wanted)).dtype == dtype
