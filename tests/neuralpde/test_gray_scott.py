"""Gray and Scott's regimes: stripes, spots, death, and a uniform state that breaks up at the wavelength of linear theory."""

import copy
import math
import pickle

import pytest
import torch
from scipy import ndimage

from integrators import ARK324, Euler, integrate
from neuralpde.coefficient import learned
from neuralpde.gray_scott import GrayScott
from operators import Boundary, Graph, Grid, combinatorial_laplacian, cotangent_laplacian, grid_laplacian, icosphere


@pytest.fixture(scope="module")
def L():
    return grid_laplacian(Grid((48, 48), 1.0, Boundary.PERIODIC))


def grown(f, until):
    with torch.no_grad():
        x = integrate(f, f.seeded(patches=6), [0.0, until / 2, until], Euler(dt=1.0)).x
    (region,) = f.invariants
    assert region.violation(x) == 0.0
    return x[0][-1], x[1][-1]


def pieces(v):
    """Connected pieces where v is large, on the periodic square."""
    bright = (v > (v.max() + v.min()) / 2).reshape(48, 48).numpy()
    labels, count = ndimage.label(bright)
    across = [*zip(labels[0], labels[-1], strict=True), *zip(labels[:, 0], labels[:, -1], strict=True)]
    joined = {frozenset(pair) for pair in across if all(pair) and pair[0] != pair[1]}
    return count - len(joined), bright.mean()


def test_stripes_are_long_and_spots_are_many(L):
    stripes, spots = grown(GrayScott.labyrinth(L), 1600.0)[1], grown(GrayScott.spots(L), 1600.0)[1]
    (few, wide), (many, _) = pieces(stripes), pieces(spots)
    # The stripes fill the square, in a few pieces; the spots are single.
    assert wide > 0.3
    assert many >= 8
    assert few < many / 2
    assert float(stripes.max() - stripes.min()) > 0.2
    assert float(spots.max() - spots.min()) > 0.2


def test_beyond_the_kill_rate_everything_dies(L):
    u, v = grown(GrayScott(L, 0.037, 0.08), 400.0)
    assert float(v.abs().max()) < 1e-8
    assert float((1 - u).abs().max()) < 1e-3
    with pytest.raises(ValueError, match=r"k > √F / 2 − F = 0\.05918"):
        GrayScott(L, 0.037, 0.08).uniform()


def test_the_uniform_state_is_one_and_grows_waves_as_linear_theory_says(L):
    f = GrayScott(L, 0.055, 0.062)
    rest = f.uniform()
    fields = tuple(torch.full((2304, 1), float(value), dtype=torch.float64) for value in rest)
    assert all(float(rate.abs().max()) < 1e-15 for rate in f(0.0, fields))
    wavelength = 2 * math.pi / math.sqrt(f.preferred(rest))
    assert wavelength == pytest.approx(11.87, abs=0.01)
    axis = Grid(240, 1.0, Boundary.PERIODIC)
    on_axis = f.on(axis)
    generator = torch.Generator().manual_seed(0)
    x0 = tuple(float(value) * (1 + 1e-4 * torch.randn(240, 1, dtype=torch.float64, generator=generator)) for value in rest)
    with torch.no_grad():
        v = integrate(on_axis, x0, [0.0, 600.0], Euler(dt=1.0)).x[1][-1][:, 0]
    power = torch.fft.rfft(v - v.mean()).abs() ** 2
    mean_wave = float((power * torch.arange(len(power))).sum() / power.sum())
    assert 240 / mean_wave == pytest.approx(wavelength, rel=0.1)


def test_regimes_on_a_surface_scale_with_its_spacing():
    coarse, fine = cotangent_laplacian(icosphere(1, 4.0)), cotangent_laplacian(icosphere(1, 1.0))
    for regime in (GrayScott.spots, GrayScott.dividing, GrayScott.labyrinth, GrayScott.solitons, GrayScott.worms):
        x = regime(coarse).seeded()
        for a, b in zip(regime(coarse)(0.0, x), regime(fine, scale=1 / 16)(0.0, x), strict=True):
            assert float((a - b).abs().max()) < 1e-14


def test_seeds_are_where_they_are_said_to_be(L):
    f = GrayScott(L)
    u, v = f.seeded(patches=3, seed=4)
    inside = v[:, 0] > 0
    assert 0.02 <= float(inside.double().mean()) <= 0.09
    assert float(v[inside].min()) >= 0.25
    assert torch.equal(u[~inside], torch.ones_like(u[~inside]))
    assert torch.equal(f.seeded(seed=4, patches=3)[0], u)
    assert not torch.equal(f.seeded(seed=5, patches=3)[0], u)


def test_seeds_stay_in_their_piece_of_the_domain():
    ring = torch.arange(100)
    edges = torch.cat([torch.stack([ring, (ring + 1) % 100]), torch.tensor([[100], [101]])], dim=1)
    f = GrayScott(combinatorial_laplacian(Graph(edges, 102, torch.ones(101, dtype=torch.float64)).undirected()))
    for seed in range(4):
        # Twenty patches of three nodes at most, some of them in the piece of two nodes.
        inside = f.seeded(patches=20, seed=seed, spread=0.03)[1] > 0
        assert int(inside.sum()) <= 60


def test_feed_and_kill_are_learned_and_coefficients_checked():
    L = cotangent_laplacian(icosphere(1))
    x0 = GrayScott(L).seeded()
    with torch.no_grad():
        truth = integrate(GrayScott(L), x0, [0.0, 4.0], ARK324(dt=1.0)).final
    f = GrayScott(L, learned(0.05), learned(0.05))
    optimizer = torch.optim.LBFGS(f.parameters(), max_iter=15, line_search_fn="strong_wolfe", tolerance_change=1e-14)

    def loss():
        optimizer.zero_grad()
        found = integrate(f, x0, [0.0, 4.0], ARK324(dt=1.0)).final
        value = sum((a - b).square().mean() for a, b in zip(found, truth, strict=True)) * 1e4
        value.backward()
        return value

    optimizer.step(loss)
    assert float(f.feed.detach()) == pytest.approx(0.037, rel=1e-3)
    assert float(f.kill.detach()) == pytest.approx(0.06, rel=1e-3)
    with pytest.raises(ValueError, match="spread is the part"):
        f.seeded(spread=2.0)
    with pytest.raises(ValueError, match="feed must be positive"):
        GrayScott(L, -0.1)


def test_copies_and_precision(L):
    f = GrayScott(L)
    x = f.seeded()
    twin = pickle.loads(pickle.dumps(f))
    assert all(torch.equal(a, b) for a, b in zip(twin(0.0, x), f(0.0, x), strict=True))
    single = copy.deepcopy(f).to(torch.float32)
    assert [u.dtype for u in single(0.0, single.seeded())] == [torch.float32] * 2
