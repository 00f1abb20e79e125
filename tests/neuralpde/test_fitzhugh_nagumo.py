"""FitzHugh and Nagumo's medium: it rests, fires over a threshold, and its pulses run at a constant speed."""

import pickle

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from integrators import ARK324, RK4, SBDF2, integrate
from neuralpde.coefficient import learned
from neuralpde.fitzhugh_nagumo import FitzHughNagumo
from operators import Boundary, Graph, Grid, combinatorial_laplacian, cotangent_laplacian, grid_laplacian, icosphere


def resting(f, n):
    return tuple(torch.full((n, 1), value, dtype=torch.float64) for value in f.rest())


def test_the_rest_state_rests():
    f = FitzHughNagumo(cotangent_laplacian(icosphere(0)))
    assert f.rest() == pytest.approx((-1.1994, -0.6243), abs=1e-4)
    assert all(float(rate.abs().max()) < 1e-14 for rate in f(0.0, resting(f, 12)))
    with pytest.raises(ValueError, match="one number each"):
        FitzHughNagumo(f.laplacian, current=lambda t: t).rest()


def test_one_node_is_the_ordinary_differential_equation():
    graph = Graph(torch.zeros(2, 0, dtype=torch.int64), 1, torch.zeros(0, dtype=torch.float64))
    f = FitzHughNagumo(combinatorial_laplacian(graph), current=0.5)
    x0 = tuple(torch.tensor([[value]], dtype=torch.float64) for value in (-1.0, 0.3))
    with torch.no_grad():
        v, w = integrate(f, x0, [0.0, 30.0], RK4(dt=0.1)).final

    def slope(t, y):
        return [y[0] - y[0] ** 3 / 3 - y[1] + 0.5, 0.08 * (y[0] + 0.7 - 0.8 * y[1])]

    truth = solve_ivp(slope, (0, 30), [-1.0, 0.3], rtol=1e-10, atol=1e-12)
    assert np.allclose([float(v), float(w)], truth.y[:, -1], atol=1e-4)


def test_a_small_push_dies_out_and_a_large_one_runs_as_a_pulse_of_constant_speed_and_height():
    grid = Grid(200, 0.6, Boundary.NEUMANN)
    f = FitzHughNagumo(grid_laplacian(grid))
    (region,) = f.invariants
    tops = {}
    for push in (0.3, 2.5):
        v, w = resting(f, 200)
        v[:8] += push
        with torch.no_grad():
            x = integrate(f, (v, w), [0.0, 60.0, 80.0, 100.0], SBDF2(dt=0.1)).x
        assert region.violation(x) < 1e-12
        tops[push] = x[0][1:, :, 0]
    assert float((tops[0.3] - f.rest()[0]).abs().max()) < 1e-2
    # Where v crosses 0 upwards from the right: the front.
    fronts = [0.6 * float((v > 0).nonzero().max()) for v in tops[2.5]]
    first, second = (fronts[1] - fronts[0]) / 20, (fronts[2] - fronts[1]) / 20
    assert first == pytest.approx(second, abs=0.03)
    assert second == pytest.approx(0.8, abs=0.05)
    # It runs as high as before, and the tail has come back to rest far behind.
    heights = tops[2.5].amax(1)
    assert float(heights.max() - heights.min()) < 0.05
    assert float(heights.min()) > 1.5
    assert float(tops[2.5][2, :20].max()) < -0.9


def test_the_rectangle_is_invariant_and_found_from_the_coefficients():
    L = cotangent_laplacian(icosphere(1))
    for keywords in ({}, {"current": 0.5}, {"recovery": 2.0, "threshold": -0.3}):
        f = FitzHughNagumo(L, (0.5, 0.2), **keywords)
        (region,) = f.invariants
        A, B = region.highs
        generator = torch.Generator().manual_seed(0)
        corner = tuple(s * torch.randn(42, 1, generator=generator, dtype=torch.float64).sign() for s in (A, B))
        with torch.no_grad():
            x = integrate(f, corner, torch.linspace(0, 3, 7, dtype=torch.float64), RK4(dt=0.02)).x
        assert region.violation(x) < 1e-6
        # A tenth smaller, it is not: at the corner v grows.
        t, at = torch.tensor(0.0), torch.ones(42, 1, dtype=torch.float64)
        assert float(f(t, (A * at, -B * at))[0].max()) <= 1e-6
        assert float(f(t, (0.9 * A * at, -B * at))[0].max()) > 0
    assert FitzHughNagumo(L, current=lambda t: t).invariants == ()


def test_parts_parameters_and_copies():
    L = cotangent_laplacian(icosphere(1))
    f = FitzHughNagumo(L, (learned(1.0), 0.1), timescale=learned(0.08), current=learned(0.1))
    x = tuple(torch.randn(42, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in range(2))
    t = torch.tensor(0.0)
    for whole, linear, rest in zip(f(t, x), f.linear @ x, f.nonlinear(t, x), strict=True):
        assert float((whole - linear - rest).detach().abs().max()) < 1e-12 * float(whole.detach().abs().max())
    integrate(f, x, [0.0, 0.5], ARK324(dt=0.1)).final[0].sum().backward()
    assert all(p.grad is not None and float(p.grad.abs()) > 0 for p in f.parameters())
    twin = pickle.loads(pickle.dumps(f))
    assert all(torch.equal(a, b) for a, b in zip(twin(t, x), f(t, x), strict=True))
    with pytest.raises(ValueError, match="recovery must be positive"):
        FitzHughNagumo(L, recovery=0.0)
