"""The toy data solve the heat equation of their graphs, and the scores are what they say."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch

from neuralpde.toy_heat import (
    FRAMES,
    SOURCES,
    GridHeat,
    diffused,
    first,
    grid_graph,
    pairs,
    parted,
    rayleigh,
    score,
    toy_heat,
    toy_laplacian,
)
from operators import symmetric_laplacian


def dense_grid(side):
    """The adjacency matrix of a grid, from a path's by Kronecker products."""
    path = scipy.sparse.diags([1.0, 1.0], [-1, 1], shape=(side, side))
    return (scipy.sparse.kron(path, np.eye(side)) + scipy.sparse.kron(np.eye(side), path)).toarray()


@pytest.fixture(scope="module")
def items():
    return toy_heat(120, 0)


def test_frames_solve_the_heat_equation(items):
    for item in (items[0], items[-1]):
        W = dense_grid(item.side)
        L = np.diag(W.sum(1)) - W
        # λ_max in closed form: 2 − 2 cos(π (s − 1)/s) along each axis.
        scale = 2 * (2 - 2 * np.cos(np.pi * (item.side - 1) / item.side))
        step = scipy.sparse.linalg.expm(-0.5 * L / scale)
        frames = item.frames[..., 0].double().numpy()
        np.testing.assert_allclose(frames[:, 1:], frames[:, :-1] @ step, atol=2e-7)  # float32
        starts = frames[:, 0]
        np.testing.assert_allclose(starts, starts.round(), atol=1e-6)
        assert set(np.unique(starts.round())) == {0.0, 1.0}
        assert (starts.round().sum(1) == SOURCES).all()
        np.testing.assert_allclose(toy_laplacian(item.graph).matrix(), L / scale, atol=1e-6)
        assert frames.shape[1] == FRAMES


def test_sizes_are_drawn_as_published_and_sides_are_held_out():
    items = toy_heat(4000, 1)
    sides = np.repeat([item.side for item in items], [len(item.frames) for item in items])
    assert len(sides) == 4000
    assert abs(sides.mean() - 10) < 4 * np.sqrt(2 / 4000) + 0.01
    # Rounding adds a twelfth.
    assert abs(sides.var() - (2 + 1 / 12)) < 0.25
    seen, held_out = parted(items)
    assert not {item.side for item in seen} & {item.side for item in held_out}
    assert {item.side % 3 for item in held_out} == {0}
    assert 0.2 < sum(len(item.frames) for item in held_out) / 4000 < 0.45


def test_the_same_seed_is_the_same_data(items):
    for one, other in zip(items, toy_heat(120, 0), strict=True):
        assert one.side == other.side
        assert torch.equal(one.frames, other.frames)
    assert not torch.equal(items[2].frames[:1], toy_heat(120, 1)[2].frames[:1])


def test_rayleigh_quotient_of_real_and_complex_fields(items):
    item = items[1]
    x = item.frames[:2, 1]
    dense = symmetric_laplacian(item.graph).matrix().double()
    wide = x[..., 0].double()
    expected = (wide @ dense * wide).sum(-1) / wide.square().sum(-1)
    torch.testing.assert_close(rayleigh(item, x), expected, rtol=1e-6, atol=1e-6)
    # A phase changes nothing; a zero field scores zero.
    torch.testing.assert_close(rayleigh(item, x * (0.6 + 0.8j)), expected, rtol=1e-6, atol=1e-6)
    assert float(rayleigh(item, torch.zeros_like(x)).abs().max()) == 0


def test_score_of_known_predictions(items):
    truth = {item.side: item.frames[:, 4] for item in items}
    perfect = score(items, lambda item, x: truth[item.side])
    assert perfect.mse == 0
    assert perfect.mre == pytest.approx(0, abs=1e-15)
    shifted = score(items, lambda item, x: truth[item.side] + 0.5)
    assert shifted.mse == pytest.approx(0.25, rel=1e-6)
    # The imaginary part counts in the Rayleigh error alone, and in neither where the real part is looked at.
    rough = score(items, lambda item, x: torch.complex(truth[item.side], 10 * item.frames[:, 0]))
    assert rough.mse == 0
    assert rough.readout_mre == pytest.approx(0, abs=1e-15)
    assert rough.mre > 0.1
    persistence = score(items, lambda item, x: x)
    assert persistence.mre == persistence.readout_mre


def test_pairs_and_first(items):
    x, y = pairs(items[0], [0, 2])
    torch.testing.assert_close(x, items[0].frames[:, [0, 2]].flatten(0, 1))
    torch.testing.assert_close(y, items[0].frames[:, [1, 3]].flatten(0, 1))
    assert [len(item.frames) for item in first(items, 3)] == [min(3, len(item.frames)) for item in items]


def test_diffusion_is_a_semigroup():
    start = np.random.default_rng(0).normal(size=(2, 25))
    path = diffused(5, start, np.array([0.0, 0.7, 1.4]))
    np.testing.assert_allclose(path[:, 0], start, atol=1e-13)
    np.testing.assert_allclose(diffused(5, path[:, 1], np.array([0.7]))[:, 0], path[:, 2], atol=1e-13)


def test_too_few_graphs_are_refused():
    with pytest.raises(ValueError, match="draw 100 at least"):
        toy_heat(1, 0)


def test_the_operator_moves_to_another_graph():
    moved = toy_laplacian(grid_graph(5)).on(grid_graph(6))
    assert moved.shape == (36, 36)
    assert float(np.linalg.eigvalsh(moved.matrix().double().numpy()).max()) == pytest.approx(1, rel=1e-5)
    assert GridHeat(6, torch.zeros(1, FRAMES, 36, 1)).held_out
