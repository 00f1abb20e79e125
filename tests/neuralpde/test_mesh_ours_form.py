"""What forms share: single steps, least squares with signs, and rollouts at the frames asked for."""

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.heat_data import Truth
from neuralpde.mesh_case import Case, Scene
from neuralpde.mesh_ours_form import Normal, single_steps
from neuralpde.mesh_ours_linear import Dissipative
from operators import icosphere


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), signs=st.lists(st.booleans(), min_size=1, max_size=4))
def test_least_squares_with_signs(seed, signs):
    """The stationarity of the bounded problem, and with all signs bounded SciPy's answer."""
    draw = np.random.default_rng(seed)
    A, b = draw.normal(size=(12, len(signs))), draw.normal(size=12)
    normal = Normal(len(signs))
    normal.add(torch.from_numpy(A), torch.from_numpy(b))
    x = normal.solved(signs).numpy()
    slope = A.T @ (A @ x - b)
    for k, bounded in enumerate(signs):
        assert not bounded or x[k] >= 0
        assert abs(slope[k]) <= 1e-9 or (bounded and x[k] == 0)
    if all(signs) and len(signs) == 1:
        assert np.allclose(x, scipy.optimize.nnls(A, b)[0], atol=1e-9)


def test_every_surface_weighs_the_same_whatever_its_size():
    normal = Normal(1)
    normal.add(torch.tensor([[1.0]], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64))
    normal.add(torch.tensor([[1000.0]], dtype=torch.float64), torch.tensor([4000.0], dtype=torch.float64))
    assert float(normal.solved([False])[0]) == pytest.approx((2 / 4 + 4 / 16) / (1 / 4 + 1 / 16))


def test_a_term_that_vanishes_has_no_coefficient():
    normal = Normal(2)
    normal.add(torch.tensor([[1.0, 0.0], [2.0, 0.0]], dtype=torch.float64), torch.tensor([3.0, 6.0], dtype=torch.float64))
    assert normal.solved([False, True]).tolist() == pytest.approx([3.0, 0.0])


def test_single_steps_follow_one_another():
    scene = Scene("ball", icosphere(0).to(torch.float32), 0.1, Truth.SURFACE)
    frames = (torch.arange(2 * 50).reshape(2, 50, 1, 1) + torch.zeros(12, 1)).float()
    before, now, after = single_steps(Case(scene, frames, frames), most=10)
    assert now.dtype == torch.float64
    assert torch.equal(now - before, torch.ones_like(now))
    assert torch.equal(after - now, torch.ones_like(now))
    assert 10 <= len(now) <= 12


def test_frames_asked_for_are_those_of_a_longer_rollout():
    scene = Scene("ball", icosphere(1).to(torch.float32), 0.02, Truth.SURFACE)
    frames = torch.randn(2, 5, 42, 1, generator=torch.Generator().manual_seed(0))
    given_ = Case(scene, frames, frames).given
    form = Dissipative(scene, [1.0, 0.1], False)
    with torch.no_grad():
        some, many = form.evolved(given_, (2, 7)), form.evolved(given_, range(1, 8))
    assert some.shape == (2, 2, 42, 1)
    assert torch.allclose(some, many[:, [1, 6]], rtol=0, atol=1e-5)
