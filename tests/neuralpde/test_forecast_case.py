"""A case knows its windows, weights and lead times, refuses parts that do not fit, and is told from others."""

from dataclasses import replace

import pytest
import torch
from weather_cases import case, turning

from neuralpde.forecast_case import latitude_features
from neuralpde.weather_record import WeatherError, WeatherRecord


def test_windows_weights_and_leads():
    one = case()
    assert float(one.weights.sum()) == pytest.approx(1.0, abs=1e-6)
    assert one.lead_hours == [6.0 * k for k in range(1, 9)]
    assert len(one.windows) == 2 * len(range(0, 60 - 11 + 1, 4))
    assert one.training_windows(1000).leads == 57


def test_the_features_are_the_place():
    features = latitude_features(turning())
    assert torch.allclose(features[:, 0].square() + features[:, 1].square(), torch.ones(len(features)), atol=1e-6)


def test_fingerprints():
    one = case()
    assert one.fingerprint() == case().fingerprint()
    assert one.fingerprint() != case(noise=0.03).fingerprint()
    assert one.fingerprint() != replace(one, leads=7).fingerprint()


def test_parts_that_do_not_fit():
    one = case()
    with pytest.raises(WeatherError, match="static"):
        replace(one, static=one.static[1:])
    with pytest.raises(WeatherError, match="same variables"):
        replace(one, test=one.test.every(2))


def test_a_change_of_any_frame_is_another_case():
    before = case(frames=20)
    record = before.test
    values = record.nodes().clone()
    values[1, 9, 3] += 1
    changed = replace(before, test=WeatherRecord.of(values, record.times, record.place, record.variables))
    assert changed.fingerprint() != before.fingerprint()
