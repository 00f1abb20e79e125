"""Figures are drawn for any mix of methods and surfaces, and show what they are given."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from neuralpde.heat_data import GIVEN_FRAMES, Truth, surface
from neuralpde.heat_figures import FLOWS, STYLE, error_curves, error_map, loss_curves, rayleigh_curves
from neuralpde.heat_models import TITLES
from neuralpde.heat_rollout import Outcome


@pytest.fixture(scope="module")
def items(surfaces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return [surface(n, surfaces[n], Truth.SURFACE, 1, 0, folder / n, lambda: None) for n in ("unseen", "ring")]


def outcomes(items) -> list[Outcome]:
    found = []
    for k, name in enumerate(TITLES):
        path = {
            item.name: item.frames[0, GIVEN_FRAMES - 1 :, :, 0] * (0.0 if name == "zero" else 1 + 0.1 * k)
            for item in items
        }
        found.append(Outcome(name, 1, 1.0, 1.0, {}, {}, path, []))
    return found


def pixels(path: Path) -> np.ndarray:
    image = plt.imread(path)
    assert image.shape[0] > 200
    assert image.shape[1] > 200
    assert float(image[..., :3].std()) > 0.01
    return image


def test_every_method_has_a_style_and_a_title():
    assert set(STYLE) >= set(TITLES) - {"zero"}
    assert set(FLOWS) == {"relaxed", "beltrami", "difference"}
    assert len({style for style in STYLE.values()}) == len(STYLE)


@pytest.mark.parametrize("count", [1, 2])
def test_curves_and_maps(count, items, tmp_path):
    some = items[:count]
    found = outcomes(some)
    rayleigh_curves(tmp_path / "rayleigh.png", found, some)
    error_curves(tmp_path / "error.png", found, some)
    error_map(tmp_path / "map.png", found, some[0])
    for name in ("rayleigh", "error", "map"):
        pixels(tmp_path / f"{name}.png")
    assert plt.get_fignums() == [], "a figure stayed open"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["error.png", "map.png", "rayleigh.png"]


@pytest.mark.parametrize("steps", [1, 8, 100])
def test_loss_curves(steps, tmp_path):
    losses = {name: list(np.linspace(2, 0.1, steps)) for name in ("gcn", *FLOWS)}
    loss_curves(tmp_path / "loss.png", losses)
    first = pixels(tmp_path / "loss.png")
    loss_curves(tmp_path / "loss.png", {name: values[::-1] for name, values in losses.items()})
    assert (steps == 1) == bool(np.array_equal(first, pixels(tmp_path / "loss.png")))


def test_a_dead_field_is_no_obstacle(items, tmp_path):
    item = items[0]
    dead = type(item)(item.name, item.mesh, item.dt, torch.zeros_like(item.frames))
    found = [Outcome(o.name, 1, 1.0, 1.0, {}, {}, {k: 0 * v for k, v in o.path.items()}, []) for o in outcomes([item])]
    error_map(tmp_path / "map.png", found, dead)
    pixels(tmp_path / "map.png")
