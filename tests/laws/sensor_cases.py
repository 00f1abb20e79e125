"""Small cases at sensors: waves that a wind carries over them, hourly."""

import math

import torch

from neuralpde.sensor_case import SensorCase
from neuralpde.sensor_placement import Placement


def scattered(n=8, seed=0, earth=True):
    """Sensors within a few degrees, or in the unit square."""
    points = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Placement(f"scattered-{seed}", points * 4 + 45 if earth else points, earth)


def carried(placement, times, seed=0, noise=0.02):
    """Two waves carried across the sensors, and the hour of the day; (K, T) → (K, T, n, 1)."""
    g = torch.Generator().manual_seed(seed)
    x = placement.plane / placement.plane.abs().max()
    t = times[..., None]
    wave = torch.sin(3 * x[:, 0] - 0.25 * t) + 0.5 * torch.cos(2 * x[:, 1] + 0.15 * t) + 0.5 * torch.sin(2 * math.pi * t / 24)
    return (wave + noise * torch.randn(wave.shape, generator=g, dtype=torch.float64))[..., None].float()


def case(name="train", start=0, windows=40, given=6, horizon=4, placement=None, seed=0, **more):
    """Windows of consecutive hours."""
    placement = placement or scattered()
    times = start + torch.arange(windows, dtype=torch.float64)[:, None] + torch.arange(given + horizon)
    values = carried(placement, times, seed)
    return SensorCase(name, placement, values, torch.ones_like(values, dtype=torch.bool), times, given, **more)


def with_gaps(one, share=0.3, seed=0):
    """The same with some of the given values hidden."""
    kept = torch.rand(one.seen.shape, generator=torch.Generator().manual_seed(seed)) > share
    kept[:, one.given :] = True
    seen = one.seen & kept
    values = torch.where(seen, one.values, 0.0)
    return SensorCase(one.name, one.placement, values, seen, one.times, one.given, one.scored)


def fit(method, train=None, validation=None, folder=None, seed=0):
    """A forecaster from small cases."""
    train = train or [case()]
    validation = validation or [case("validation", 60, 10)]
    return method.fit(train, validation, seed, folder / f"{method.name}.safetensors", lambda step, steps, note: None)
