"""Baselines are what they say, and damping is the regression on the last anomaly."""

from pathlib import Path

import torch
from weather_cases import case

from neuralpde.forecast_baselines import ClimatologyMethod, DampedPersistence, PersistenceMethod, padded
from neuralpde.weather_forecasts import score


def forecast(method, one):
    return method.fit(one, 0, Path("unused"), lambda *told: None).forecast


def test_baselines():
    one = case()
    batch = one.windows.batch([0, 5])
    last = batch.inputs[:, -1:].expand_as(batch.targets)
    climatology = one.climatology.at(batch.times)
    assert torch.equal(forecast(PersistenceMethod(), one)(batch.inputs, batch.times), last)
    assert torch.equal(forecast(ClimatologyMethod(), one)(batch.inputs, batch.times), climatology)
    damped = forecast(DampedPersistence(), one)(batch.inputs, batch.times)
    factor = (damped - climatology) / (last - climatology)
    spread = factor.flatten(2).std(-1)
    # One factor for each lead time, at all nodes.
    assert float(spread[(last - climatology).abs().flatten(2).min(-1).values > 1e-3].sum()) < 1e-3
    scores = [score(forecast(m, one), one.windows, one.climatology).rmse for m in (PersistenceMethod(), DampedPersistence())]
    assert bool((scores[1] <= scores[0] * 1.001).all())


def test_padding_repeats_the_last_weights():
    weights = torch.rand(3, 2, 1)
    assert torch.equal(padded(weights, 2), weights)
    assert torch.equal(padded(weights, 5)[3:], weights[[2, 2]])
