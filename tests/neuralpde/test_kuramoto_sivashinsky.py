"""Kuramoto and Sivashinsky: growth at k² − k⁴, chaos that stays bounded, an exact law of the mean."""

import copy
import math
import pickle

import pytest
import torch

from integrators import ARK324, ETDRK4, RK4, integrate
from neuralpde.coefficient import learned
from neuralpde.invariants import Law, Mass
from neuralpde.kuramoto_sivashinsky import KuramotoSivashinsky, squared_gradient
from operators import Boundary, Graph, Grid, combinatorial_laplacian, cotangent_laplacian, grid_laplacian, icosphere

PERIODIC = Boundary.PERIODIC


def line(n, length):
    return Grid(n, torch.tensor([length / n], dtype=torch.float64), PERIODIC)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("solver", [ETDRK4(dt=0.25), ARK324(1e-8, 1e-14)])
def test_small_modes_grow_at_exactly_their_rates(solver):
    """α λ − β λ² with the eigenvalue λ of the grid's mode; 2e-9 of it is left of the nonlinear part."""
    grid = line(32, 22.0)
    f = KuramotoSivashinsky(grid_laplacian(grid), grid, growth=1.2, damping=0.9)
    for mode in (1, 2, 4):
        k = 2 * math.pi * mode / 22
        eigenvalue = (2 - 2 * math.cos(k * 22 / 32)) / (22 / 32) ** 2
        u0 = 1e-9 * torch.cos(k * grid.points)
        with torch.no_grad():
            u = integrate(f, u0, [0.0, 2.0], solver).final
        rate = math.log(float((u * u0).sum() / (u0 * u0).sum())) / 2
        expected = float(f.growth_rate(eigenvalue))
        assert expected == pytest.approx(1.2 * eigenvalue - 0.9 * eigenvalue**2)
        # ETDRK4 takes α²/4β explicitly: (0.4 · 0.25)⁵ / 120 a step.
        assert rate == pytest.approx(expected, abs=1e-6)


def test_chaos_at_length_22_stays_within_its_attractor():
    """|u| up to about 3.5 on the attractor (Cvitanović, Davidchack and Siminos 2010), whatever the start."""
    grid = line(32, 22.0)
    f = KuramotoSivashinsky(grid_laplacian(grid), grid)
    start = random(1, 32, 1)
    start = torch.cat([start, start * (1 + 1e-2)])
    start = 0.1 * (start - start.mean(-2, keepdim=True))
    with torch.no_grad():
        x = integrate(f, start, [0.0, 50.0, 70.0, 90.0], ARK324(dt=0.4)).x
    late = x[1:]
    assert float(late.abs().amax()) < 4.0
    assert bool((late.abs().amax((-2, -1)) > 1.0).all())
    # The two starts, a hundredth apart, have parted.
    assert float((late[-1, 0] - late[-1, 1]).norm() / late[-1, 0].norm()) > 0.05
    assert Mass(f.laplacian).violation(x) < 1e-10


def test_below_a_length_of_two_pi_everything_decays():
    grid = line(32, 6.0)
    f = KuramotoSivashinsky(grid_laplacian(grid), grid)
    with torch.no_grad():
        u = integrate(f, torch.sin(2 * math.pi * grid.points / 6), [0.0, 60.0], ARK324(dt=0.5)).final
    assert float(u.abs().max()) < 1e-2


def test_the_integral_form_is_the_derivative_form_integrated():
    """u = ∂h/∂x: to second order in the spacing while both are smooth."""
    errors = []
    for n in (48, 96):
        grid = line(n, 22.0)
        L, k = grid_laplacian(grid), 2 * math.pi / 22
        h0, u0 = torch.cos(k * grid.points), -k * torch.sin(k * grid.points)
        with torch.no_grad():
            h = integrate(KuramotoSivashinsky(L), h0, [0.0, 2.0], ARK324(dt=0.1)).final
            u = integrate(KuramotoSivashinsky(L, grid), u0, [0.0, 2.0], ARK324(dt=0.1)).final
        slope = (h.roll(-1, 0) - h.roll(1, 0)) / (2 * 22 / n)
        errors.append(float((slope - u).norm() / u.norm()))
    assert errors[1] < errors[0] / 3.5
    assert errors[1] < 0.01


def test_the_mean_falls_at_half_the_energy_on_any_surface():
    L = cotangent_laplacian(icosphere(3, 6.0))
    f = KuramotoSivashinsky(L)
    h, t = random(642, 1), torch.tensor(0.0)
    rate = (L.mass[:, None] * f(t, h)).sum()
    size = float((L.mass[:, None] * f(t, h).abs()).sum())
    assert float(rate + L.inner(h, L @ h) / 2) == pytest.approx(0.0, abs=1e-13 * size)
    (law,) = f.invariants
    assert law.law is Law.NON_INCREASING
    with torch.no_grad():
        path = integrate(f, 0.1 * h, [0.0, 5.0, 10.0, 15.0], ARK324(dt=0.25)).x
    assert law.violation(path) < 1e-12
    assert float(path[-1].std()) > float(path[0].std())


def test_the_squared_gradient_is_that_of_smooth_functions_and_sees_no_constant():
    grid = line(64, 2 * math.pi)
    L = grid_laplacian(grid)
    h = torch.sin(grid.points)
    assert float((squared_gradient(L, h) - torch.cos(grid.points) ** 2).abs().max()) < (2 * math.pi / 64) ** 2
    assert float((squared_gradient(L, h + 1e6) - squared_gradient(L, h)).abs().max()) < 1e-7
    assert float(squared_gradient(L, torch.ones(64, 1, dtype=torch.float64)).abs().max()) == 0.0
    expected = h * (L @ h) - L @ (h * h) / 2
    assert float((squared_gradient(L, h) - expected).abs().max()) < 1e-11


@pytest.mark.parametrize("form", ["integral", "derivative"])
def test_the_parts_are_the_equation_and_the_solves_invert(form):
    grid = line(24, 22.0)
    L = grid_laplacian(grid)
    f = KuramotoSivashinsky(L, None if form == "integral" else grid, growth=1.3, damping=0.7)
    u, t = random(2, 24, 2), torch.tensor(0.0)
    whole = f(t, u)
    plain = 1.3 * (L @ u) - 0.7 * (L @ (L @ u))
    steep = -squared_gradient(L, u) / 2 if form == "integral" else None
    if steep is not None:
        assert float((whole - plain - steep).abs().max()) < 1e-12 * float(plain.abs().max())
    G = f.linear
    for s in (0.0, 0.01, 0.7, 30.0, 0.4 + 0.9j, -0.01):
        shift = torch.tensor(s, dtype=torch.complex128 if isinstance(s, complex) else torch.float64)
        b = u.to(torch.complex128) if isinstance(s, complex) else u
        y = G.solve(shift, b)
        assert y.dtype == b.dtype
        assert float((y - shift * (G @ y) - b).abs().max()) < 1e-11 * (1 + abs(s) * G.norm_bound())
    matrix = torch.stack([G @ e[:, None] for e in torch.eye(24, dtype=torch.float64)], dim=1).squeeze(-1)
    eigenvalues = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    assert float(eigenvalues.max()) <= 1e-10
    assert float(eigenvalues.abs().max()) <= G.norm_bound() * (1 + 1e-12)
    assert float((matrix - matrix.T).abs().max()) < 1e-10


def test_orders_in_time():
    grid = line(24, 22.0)
    f = KuramotoSivashinsky(grid_laplacian(grid), grid)
    u0 = torch.cos(2 * math.pi * grid.points / 22)
    with torch.no_grad():
        fine = integrate(f, u0, [0.0, 1.0], ETDRK4(dt=1 / 16)).final
        for method, steps, order in ((ETDRK4, (0.5, 0.25), 3.5), (ARK324, (0.125, 0.0625), 2.6)):
            errors = [float((integrate(f, u0, [0.0, 1.0], method(dt=dt)).final - fine).norm()) for dt in steps]
            assert math.log2(errors[0] / errors[1]) > order


def test_gradients_in_growth_damping_direction_and_field():
    grid = line(6, 22.0)
    L = grid_laplacian(grid)
    t = torch.tensor(0.0)

    def rate(alpha, beta, b, u):
        f = KuramotoSivashinsky(L, grid, lambda t: b)
        f.alpha.value, f.beta.value = alpha, beta
        return f(t, u), f.linear.solve(torch.tensor(0.3), u)

    inputs = [torch.tensor(1.1, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64), random(6, 1), random(6, 1, seed=1)]
    assert torch.autograd.gradcheck(rate, tuple(x.requires_grad_() for x in inputs))


def test_other_domains_precision_and_copies():
    f = KuramotoSivashinsky(grid_laplacian(line(16, 22.0)), line(16, 22.0), growth=learned(1.1))
    moved = f.on(line(32, 22.0))
    u = random(32, 1)
    fresh = KuramotoSivashinsky(grid_laplacian(line(32, 22.0)), line(32, 22.0), growth=1.1)
    assert float((moved(0.0, u) - fresh(torch.tensor(0.0), u)).detach().abs().max()) < 1e-11 * float(fresh(0.0, u).abs().max())
    assert next(moved.parameters()) is next(f.parameters())
    v = random(16, 1)
    for twin in (copy.deepcopy(f), pickle.loads(pickle.dumps(f))):
        assert torch.equal(twin(0.0, v), f(0.0, v))
    single = KuramotoSivashinsky(grid_laplacian(line(16, 22.0))).to(torch.float32)
    with torch.no_grad():
        wide, narrow = (
            integrate(KuramotoSivashinsky(grid_laplacian(line(16, 22.0))), v, [0.0, 1.0], RK4(dt=0.01)).final,
            integrate(single, v.float(), [0.0, 1.0], ARK324(1e-4, 1e-6)).final,
        )
    assert narrow.dtype == torch.float32
    assert float((narrow - wide).norm() / wide.norm()) < 1e-3


def test_what_cannot_be_is_refused():
    L = cotangent_laplacian(icosphere(0))
    with pytest.raises(ValueError, match="a direction needs the domain"):
        KuramotoSivashinsky(L, direction=random(12, 3))
    with pytest.raises(ValueError, match="beyond one dimension"):
        KuramotoSivashinsky(L, icosphere(0))
    with pytest.raises(ValueError, match="one number each"):
        KuramotoSivashinsky(L, growth=lambda t: t)
    with pytest.raises(ValueError, match="damping must be positive"):
        KuramotoSivashinsky(L, damping=0.0)


def test_small_slopes_of_a_large_surface_are_not_lost_in_the_shift():
    """αLh − βL²h to round-off of itself, where it is 1e-12 of h; against the closed form on an eigenvector."""
    L = combinatorial_laplacian(Graph(torch.tensor([[0, 1], [1, 0]]), 2, torch.full((2,), 1e-12, dtype=torch.float64)))
    h = 1e-6 * torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    slope = KuramotoSivashinsky(L)(torch.zeros(()), h) + squared_gradient(L, h) / 2
    assert float((slope / (2e-12 * h) - 1).abs().max()) < 1e-9
