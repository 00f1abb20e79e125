"""Schnakenberg's pattern has the wavelength of linear theory, where there is one, and none where there is not."""

import math
import pickle

import pytest
import torch

from integrators import ARK324, SBDF2, integrate
from neuralpde.coefficient import learned
from neuralpde.schnakenberg import Schnakenberg
from operators import Boundary, Grid, cotangent_laplacian, grid_laplacian, icosphere


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_uniform_state_rests_and_growth_follows_murray():
    f = Schnakenberg(cotangent_laplacian(icosphere(0)), (1.0, 10.0), a=0.2, b=1.3, rate=2.0)
    u, v = f.uniform()
    fields = (torch.full((12, 1), float(u), dtype=torch.float64), torch.full((12, 1), float(v), dtype=torch.float64))
    assert all(float(rate.abs().max()) < 1e-14 for rate in f(0.0, fields))
    # λ-roots of the trace and determinant of J − λD (Murray 2003, eq. 2.25).
    for eigenvalue in (0.0, 0.5, 3.0):
        fu, fv, gu, gv = (2 * r for r in ((1.3 - 0.2) / 1.5, 1.5**2, -2 * 1.3 / 1.5, -(1.5**2)))
        trace = fu + gv - 11 * eigenvalue
        determinant = (fu - eigenvalue) * (gv - 10 * eigenvalue) - fv * gu
        root = torch.tensor(trace**2 - 4 * determinant, dtype=torch.complex128).sqrt()
        assert float(f.growth_rate(eigenvalue, (u, v))) == pytest.approx(float(((trace + root) / 2).real), rel=1e-10)


def test_the_turing_wavelength_on_a_periodic_axis():
    grid = Grid(150, 1.0, Boundary.PERIODIC)
    f = Schnakenberg(grid_laplacian(grid))
    u, v = f.uniform()
    wavelength = 2 * math.pi / math.sqrt(f.preferred((u, v)))
    assert wavelength == pytest.approx(14.94, abs=0.01)
    x0 = (u + 0.01 * random(150, 1), v + 0.01 * random(150, 1, seed=1))
    with torch.no_grad():
        x = integrate(f, x0, [0.0, 10.0, 80.0], SBDF2(dt=0.1)).x
    (region,) = f.invariants
    assert region.violation(x) == 0.0
    early, late = (torch.fft.rfft(field[:, 0] - field.mean()).abs() ** 2 for field in x[0][1:])
    mean_wave = float((early * torch.arange(len(early))).sum() / early.sum())
    assert 150 / mean_wave == pytest.approx(wavelength, rel=0.12)
    # What is left in the end is near it, but chosen by chance among those that grow.
    assert 150 / int(late.argmax()) == pytest.approx(wavelength, rel=0.2)
    assert float(x[0][2].max() - x[0][2].min()) > 1.0


def test_without_the_conditions_nothing_forms():
    L = grid_laplacian(Grid(40, 1.0, Boundary.PERIODIC))
    for keywords, rates in (({}, (1.0, 2.0)), ({"a": 0.9, "b": 0.1}, (1.0, 40.0))):
        f = Schnakenberg(L, rates, **keywords)
        u, v = f.uniform()
        assert f.preferred((u, v)) == 0.0
        with torch.no_grad():
            x = integrate(f, (u + 0.05 * random(40, 1), v + 0.05 * random(40, 1, seed=1)), [0.0, 80.0], SBDF2(dt=0.25)).final
        assert float((x[0] - u).abs().max()) < 1e-3


def test_a_pattern_on_the_sphere_is_of_the_degree_that_grows_fastest():
    mesh = icosphere(2)
    L = cotangent_laplacian(mesh)
    f = Schnakenberg(L, rate=35.0)
    u, v = f.uniform()
    # λ = l(l + 1) = 6 for l = 2.
    assert f.preferred((u, v)) == pytest.approx(6.0, abs=0.3)
    with torch.no_grad():
        x = integrate(f, (u + 0.001 * random(162, 1), v + 0.001 * random(162, 1, seed=1)), [0.0, 0.4], ARK324(dt=0.01)).final
    w = x[0] - (L.mass[:, None] * x[0]).sum() / L.mass.sum()
    assert float(L.inner(w, L @ w) / L.inner(w, w)) == pytest.approx(6.0, rel=0.25)


def test_parts_parameters_and_copies():
    L = cotangent_laplacian(icosphere(1))
    f = Schnakenberg(L, (learned(1.0), learned(10.0)), a=learned(0.1), b=learned(0.9), rate=learned(2.0))
    x, t = (1 + 0.1 * random(42, 1), 0.9 + 0.1 * random(42, 1, seed=1)), torch.tensor(0.0)
    for whole, linear, rest in zip(f(t, x), f.linear @ x, f.nonlinear(t, x), strict=True):
        assert float((whole - linear - rest).detach().abs().max()) < 1e-12 * float(whole.detach().abs().max())
    integrate(f, x, [0.0, 0.1], ARK324(dt=0.05)).final[0].square().sum().backward()
    assert all(p.grad is not None and float(p.grad.abs()) > 0 for p in f.parameters())
    twin = pickle.loads(pickle.dumps(f))
    assert all(torch.equal(a, b) for a, b in zip(twin(t, x), f(t, x), strict=True))
    assert Schnakenberg(L, a=-0.1).invariants == ()
    with pytest.raises(ValueError, match="rate must be positive"):
        Schnakenberg(L, rate=0.0)
