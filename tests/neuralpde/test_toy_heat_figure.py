"""The picture of the toy experiment, and the curves in it."""

import matplotlib.image
import numpy as np
import pytest

from neuralpde.run_folder import row
from neuralpde.toy_heat_figure import STEPS, draw, quotients, rolled_out, watched
from neuralpde.toy_heat_methods import ImplicitEuler, Persistence, Schedule


def predictor(method):
    return method.fit([], Schedule(1), 0, None, lambda *told: None).predict


def test_curves():
    item = watched(6)
    assert item.frames.shape == (16, STEPS + 1, 36, 1)
    truth = quotients(item, item.frames)
    assert (np.diff(truth) < 0).all()  # heat smooths
    held = rolled_out(item, predictor(Persistence()))
    assert held == pytest.approx([truth[0]] * (STEPS + 1))
    followed = rolled_out(item, predictor(ImplicitEuler()))
    assert followed[0] == pytest.approx(truth[0])
    assert np.abs(np.subtract(followed, truth)).max() < 0.1
    # A complex prediction is fed back by its real part.
    turned = rolled_out(item, lambda item, x: x * (1 + 5j))
    assert turned == pytest.approx(held)


def test_picture(tmp_path):
    curve = [1.0] * (STEPS + 1)
    rows = [
        row("table", name, metric, [value], "", published=published)
        for name, metric, value, published in (
            ("unitary", "mse", 1e-3, 1.4e-3),
            ("unitary", "mre", 0.09, 0.0886),
            ("ours", "mse", 0.0, None),
            ("ours", "mre", 1e-6, None),
        )
    ]
    draw(tmp_path / "picture.png", {"unitary": curve, "ours": curve}, rows, "table")
    image = matplotlib.image.imread(tmp_path / "picture.png")
    assert image.shape[0] > 300
    assert image[..., :3].std() > 0.05
    assert not list(tmp_path.glob(".*.tmp"))
