"""The best weights on validation are kept, through interruptions too."""

import math

import pytest
import torch
from sensor_cases import case, scattered
from torch import nn

from neuralpde.sensor_training import drawn, fit_network, spread_out, training_frames


def told(step, steps, note):
    pass


def line():
    return nn.Linear(1, 1, bias=False).requires_grad_()


def settings(path, **more):
    return {"steps": 30, "learning_rate": 0.3, "checkpoint": path, "seed": 0, "told": told, "notes": {}, "every": 1, **more}


def run(path, validate=None, stop=None):
    torch.manual_seed(0)
    model = line()
    seen = []

    def loss(step, random):
        if step == stop:
            raise KeyboardInterrupt
        return (model.weight - 5 + 0.1 * torch.randn(1, generator=random)).square().sum()

    def error():
        value = abs(float(model.weight.detach()) - 1.0)
        seen.append(value)
        return value

    fit_network(model, loss, validate or error, **settings(path))
    return float(model.weight.detach()), seen


def test_the_weights_that_validation_liked_best(tmp_path):
    # The loss pulls to 5; validation likes 1, which the path passes.
    weight, seen = run(tmp_path / "w.safetensors")
    assert abs(weight - 1) == min(seen)
    assert min(seen) < seen[-1]


def test_resumed_it_is_the_same(tmp_path):
    whole, _ = run(tmp_path / "whole.safetensors")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts.safetensors", stop=17)
    again, seen = run(tmp_path / "parts.safetensors")
    assert again == whole
    assert len(seen) < 20


def test_divergence_leaves_the_best_weights(tmp_path):
    model = line()

    def loss(step, random):
        return model.weight.sum() * (math.nan if step == 5 else 1.0)

    fit_network(model, loss, lambda: 1.0, **settings(tmp_path / "w.safetensors"))
    assert bool(model.weight.isfinite().all())
    with pytest.raises(FloatingPointError):
        fit_network(
            model, lambda step, random: model.weight.sum() * math.nan, lambda: math.inf, **settings(tmp_path / "v.safetensors")
        )


def test_batches():
    cases = [case(windows=10), case(windows=30, placement=scattered(5, 1))]
    frames = training_frames(cases, 1.0)
    assert torch.equal(frames[0], cases[0].values)
    places = set()
    for seed in range(20):
        place, batch = drawn(frames, 3, torch.Generator().manual_seed(seed))
        assert batch.shape == (3, 10, [8, 5][place], 1)
        places.add(place)
    assert places == {0, 1}


def test_validation_windows_are_spread_out():
    few = spread_out([case(windows=10), case(windows=2)], 4)
    assert [len(one.values) for one in few] == [4, 2]
    assert torch.equal(few[0].times[:, 0], torch.tensor([0.0, 3, 6, 9], dtype=torch.float64))
