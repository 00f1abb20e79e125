"""Pictures show every field on one scale, and refuse what they cannot show."""

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from neuralpde.viz import save_fields
from operators import FieldError, grid, icosphere


def test_a_picture_shows_what_the_field_is(tmp_path):
    mesh = icosphere(2)
    for name, value in (("low", 0.0), ("high", 1.0)):
        save_fields(tmp_path / f"{name}.png", mesh, {"u": torch.full((162, 1), value)}, limits=(0.0, 1.0), colours="gray")
    low, high = (imread(tmp_path / f"{name}.png")[..., 0] for name in ("low", "high"))
    height, width = low.shape
    middle = (slice(height // 2 - 5, height // 2 + 5), slice(width // 3 - 5, width // 3 + 5))
    assert float(np.mean(high[middle])) > float(np.mean(low[middle])) + 0.5


def test_every_field_has_a_panel_of_its_own_also_in_the_plane(tmp_path):
    mesh = grid(5, 5)
    one, three = ({str(k): torch.rand(25) for k in range(count)} for count in (1, 3))
    save_fields(tmp_path / "one.png", mesh, one)
    save_fields(tmp_path / "three.png", mesh, three)
    assert imread(tmp_path / "three.png").shape[1] > 2 * imread(tmp_path / "one.png").shape[1]


@pytest.mark.parametrize("field", [torch.zeros(7, 1), torch.zeros(25, 2), torch.zeros(25, 1, dtype=torch.complex64)])
def test_what_cannot_be_drawn_is_refused(tmp_path, field):
    with pytest.raises(FieldError, match="is drawn"):
        save_fields(tmp_path / "x.png", grid(5, 5), {"u": field})
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(FieldError, match="no field"):
        save_fields(tmp_path / "x.png", grid(5, 5), {})


def test_a_field_without_a_title_is_refused(tmp_path):
    with pytest.raises(TypeError, match="name each field"):
        save_fields(tmp_path / "x.png", grid(5, 5), torch.zeros(25, 1))
