"""Burgers' equation against its closed forms: Cole and Hopf's front, a shock at the right place, a changing source."""

import copy
import math
import pickle

import pytest
import torch

from integrators import ARK324, ETDRK4, RK4, Euler, integrate
from neuralpde.burgers import Burgers
from neuralpde.coefficient import learned
from neuralpde.invariants import Law, Mass, MaximumPrinciple, Norm, check_invariants
from operators import Boundary, FieldError, Grid, cotangent_laplacian, grid_laplacian, icosphere
from operators.advection import Flux
from operators.cell_sides import cell_sides

PERIODIC = Boundary.PERIODIC


def line(n):
    return Grid(n, torch.tensor([2 * math.pi / n], dtype=torch.float64), PERIODIC)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def front(x, t, nu):
    """u = −2ν φ_x / φ for the heat φ = 1 + ½ e^(−νt) cos x (Cole 1951, Hopf 1950)."""
    heat = 0.5 * math.exp(-nu * t)
    return 2 * nu * heat * torch.sin(x) / (1 + heat * torch.cos(x))


@pytest.mark.parametrize(("flux", "expected"), [(Flux.UPWIND, 0.9), (Flux.CENTRED, 1.95)])
def test_the_front_of_cole_and_hopf_at_the_order_of_the_flux(flux, expected):
    nu, errors = 0.2, []
    for n in (64, 128):
        grid = line(n)
        f = Burgers(grid_laplacian(grid), grid, nu, flux=flux)
        with torch.no_grad():
            u = integrate(f, front(grid.points, 0.0, nu), [0.0, 2.0], ARK324(dt=0.05)).final
        errors.append(float((u - front(grid.points, 2.0, nu)).abs().max()))
    assert math.log2(errors[0] / errors[1]) > expected


def test_a_moving_front_in_two_dimensions_with_a_source_converges_in_time():
    """u = 1 + ½ sin(x + y − t), which its source makes a solution; in time against a fine solution of the same grid."""
    grid = Grid((12, 12), torch.full((2,), 2 * math.pi / 12, dtype=torch.float64), PERIODIC)
    s = grid.points.sum(1, keepdim=True)
    nu = 0.1

    def source(t, u):
        wave, slope = torch.sin(s - t), torch.cos(s - t)
        return -0.5 * slope + (1 + 0.5 * wave) * slope + nu * wave

    f = Burgers(grid_laplacian(grid), grid, nu, flux=Flux.CENTRED) + source
    with torch.no_grad():
        paths = [integrate(f, 1 + 0.5 * torch.sin(s), [0.0, 1.0], ETDRK4(dt=dt)).final for dt in (1 / 4, 1 / 8, 1 / 32)]
    errors = [float((u - paths[2]).norm()) for u in paths[:2]]
    assert math.log2(errors[0] / errors[1]) > 3.7
    # Second differences of a wave of 12 spacings.
    assert float((paths[2] - 1 - 0.5 * torch.sin(s - 1)).abs().max()) < 0.1


def test_a_shock_runs_at_the_mean_of_its_two_sides_and_stays_sharp():
    n = 200
    grid = Grid(n, torch.tensor([1 / n], dtype=torch.float64), PERIODIC)
    f = Burgers(grid_laplacian(grid), grid)
    u0 = ((grid.points > 0.3) & (grid.points < 0.6)).double()
    with torch.no_grad():
        u = integrate(f, u0, [0.0, 0.4], Euler(dt=f.largest_step(u0))).final[:, 0]
    x = grid.points[:, 0]
    # The shock from 0.6 at the speed ½, the rarefaction u = (x − 0.3) / t behind it.
    ahead, behind = u[(x > 0.81)], u[(x > 0.74) & (x < 0.78)]
    assert float(ahead.max()) < 1e-3
    assert float((behind - 1).abs().max()) < 0.02
    fan = (x > 0.35) & (x < 0.65)
    assert float((u[fan] - (x[fan] - 0.3) / 0.4).abs().max()) < 0.05


def test_transonic_rarefactions_open():
    """From −1 to 1: an entropy-violating scheme keeps the jump for ever."""
    grid = line(100)
    f = Burgers(grid_laplacian(grid), grid)
    u0 = torch.where(grid.points < math.pi, -1.0, 1.0).double()
    with torch.no_grad():
        u = integrate(f, u0, [0.0, 1.0], RK4(dt=0.02)).final[:, 0]
    x = grid.points[:, 0]
    middle = (x - math.pi).abs() < 0.8
    assert float((u[middle] - (x[middle] - math.pi)).abs().max()) < 0.15


@pytest.mark.parametrize("flux", [Flux.UPWIND, Flux.CENTRED])
@pytest.mark.parametrize("nu", [0.0, 0.05])
@pytest.mark.parametrize("kind", ["box", "sphere"])
def test_declared_invariants_hold(flux, nu, kind):
    if kind == "box":
        domain = Grid((9, 8), 0.5, PERIODIC)
        f = Burgers(grid_laplacian(domain), domain, nu, flux=flux)
    else:
        domain = icosphere(1)
        f = Burgers(cotangent_laplacian(domain), domain, nu, cell_sides(domain).stream(-domain.vertices[:, 2]), flux)
    laws = {type(i): i.law for i in f.invariants}
    assert laws[Mass] is Law.CONSERVED
    assert laws[Norm] is (Law.CONSERVED if flux is Flux.CENTRED and nu == 0 else Law.NON_INCREASING)
    assert (MaximumPrinciple in laws) == (flux is Flux.UPWIND)
    u0 = random(domain.num_nodes, 2)
    step = f.largest_step(u0)
    with torch.no_grad():
        path = integrate(f, u0, torch.linspace(0, 20 * step, 9, dtype=torch.float64), RK4(dt=step / 8)).x
    for check in check_invariants(f.invariants, path, 1e-6):
        assert check.holds, check


def test_the_skew_form_makes_the_energy_rate_exact():
    domain = icosphere(1)
    L = cotangent_laplacian(domain)
    f = Burgers(L, domain, 0.3, random(42, 3), Flux.CENTRED)
    u, t = random(42, 1), torch.tensor(0.0)
    divergence = f.sides.divergence(f.sides.flows(f.b()))[:, None]
    # Σ m u du/dt = −⅙ Σ m div b u³ − ν ⟨u, L u⟩.
    expected = -(L.mass[:, None] * divergence * u**3).sum() / 6 - 0.3 * L.inner(u, L @ u)
    assert float((L.inner(u, f(t, u)) - expected).abs()) < 1e-12 * float(L.inner(u.abs(), f(t, u).abs()))


def test_the_parts_are_the_equation_and_channels_do_not_meet():
    grid = line(16)
    f = Burgers(grid_laplacian(grid), grid, 0.1)
    u, t = random(3, 16, 2), torch.tensor(0.0)
    assert float((f(t, u) - f.linear @ u - f.nonlinear(t, u)).abs().max()) < 1e-13 * float(f(t, u).abs().max())
    assert torch.equal(f(t, u)[1, :, :1], f(t, u[1, :, :1]))
    changing = Burgers(grid_laplacian(grid), grid, lambda t: 0.1 + 0 * t)
    assert changing.linear is None
    assert torch.equal(changing(t, u), f(t, u))
    assert changing.invariants == ()


def test_open_walls_let_waves_out():
    grid = Grid(50, 0.02, Boundary.DIRICHLET)
    f = Burgers(grid_laplacian(grid), grid)
    u0 = torch.ones(50, 1, dtype=torch.float64)
    with torch.no_grad():
        u = integrate(f, u0, [0.0, 4.0], Euler(dt=0.02)).final
    # A rarefaction x / t from the left wall, over a length of one.
    assert float((u - grid.points / 4).abs().max()) < 0.02
    assert f.invariants == ()


@pytest.mark.parametrize("flux", [Flux.UPWIND, Flux.CENTRED])
def test_gradients_in_viscosity_direction_and_field(flux):
    domain = icosphere(0)
    L = cotangent_laplacian(domain)

    def rate(nu, b, u):
        return Burgers(L, domain, lambda t: nu, lambda t: b, flux)(torch.tensor(0.0), u)

    inputs = (torch.tensor(0.2, dtype=torch.float64), random(12, 3), random(12, 2, seed=1))
    assert torch.autograd.gradcheck(rate, tuple(x.requires_grad_() for x in inputs))


def test_the_viscosity_is_learned_through_the_solver():
    grid = line(32)
    L, u0 = grid_laplacian(grid), torch.sin(grid.points)
    with torch.no_grad():
        truth = integrate(Burgers(L, grid, 0.2, flux=Flux.CENTRED), u0, [0.0, 1.0], ARK324(dt=0.1)).final
    f = Burgers(L, grid, learned(0.5), flux=Flux.CENTRED)
    (nu,) = f.parameters()
    for _ in range(6):
        # Gauss–Newton on one number.
        u = integrate(f, u0, [0.0, 1.0], ARK324(dt=0.1)).final
        misfit = (u - truth).square().sum() / 2
        (slope,) = torch.autograd.grad(misfit, nu)
        with torch.no_grad():
            nu += 1e-4
            nudged = integrate(f, u0, [0.0, 1.0], ARK324(dt=0.1)).final
            nu -= 1e-4 + slope / ((nudged - u) / 1e-4).square().sum()
    assert float(f.viscosity.detach()) == pytest.approx(0.2, rel=1e-4)


def test_other_domains_precision_and_copies():
    grid, other = line(16), line(32)
    f = Burgers(grid_laplacian(grid), grid, learned(0.1), 1.0)
    moved = f.on(other)
    u = random(32, 1)
    fresh = Burgers(grid_laplacian(other), other, 0.1, 1.0)
    assert float((moved(0.0, u) - fresh(torch.tensor(0.0), u)).detach().abs().max()) < 1e-12
    assert next(moved.parameters()) is next(f.parameters())
    v = random(16, 1)
    for twin in (copy.deepcopy(f), pickle.loads(pickle.dumps(f))):
        assert torch.equal(twin(0.0, v), f(0.0, v))
    assert copy.deepcopy(f).to(torch.float32)(0.0, v.float()).dtype == torch.float32


def test_what_cannot_be_is_refused():
    mesh = icosphere(0)
    with pytest.raises(ValueError, match="direction"):
        Burgers(cotangent_laplacian(mesh), mesh)
    with pytest.raises(ValueError, match="UPWIND for shocks"):
        Burgers(cotangent_laplacian(mesh), mesh, direction=random(12, 3), flux=Flux.LIMITED)
    with pytest.raises(ValueError, match="UPWIND for shocks"):
        Burgers(cotangent_laplacian(mesh), mesh, direction=random(12, 3), flux="limited")
    f = Burgers(cotangent_laplacian(mesh), mesh, direction=random(12, 3))
    for u in (random(11, 1), random(12, 1).float(), random(12, 1).to(torch.complex128)):
        with pytest.raises(FieldError):
            f.nonlinear(0.0, u)
    with pytest.raises(ValueError, match="viscosity"):
        Burgers(cotangent_laplacian(mesh), mesh, -0.1, random(12, 3))
