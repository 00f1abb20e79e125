"""Held values: still to the last bit, moving at their rate, and right in closed forms on intervals and surfaces."""

import copy
import itertools
import math
import pickle

import pytest
import torch

from integrators import (
    ARK324,
    ETDRK2,
    RK4,
    SBDF2,
    SDIRK3,
    BackwardEuler,
    CaratheodoryFejer,
    Dopri5,
    Exponential,
    StoermerVerlet,
    integrate,
)
from neuralpde.boundary_conditions import Robin
from neuralpde.coefficient import learned
from neuralpde.coupled import Coupled
from neuralpde.dirichlet import Dirichlet
from neuralpde.heat import Heat
from neuralpde.invariants import DirichletEnergy, Mass, Norm, Rayleigh
from neuralpde.phase_field import AllenCahn, CahnHilliard
from neuralpde.schroedinger import Schroedinger
from neuralpde.sources import Decay, PositionalSource, Source
from neuralpde.waves import Wave, WaveEnergy
from operators import FieldError, Grid, boundary_vertices, cotangent_laplacian, grid, grid_laplacian, icosphere, robust_laplacian
from operators.boundary_terms import named_boundary

NOW = torch.tensor(0.3, dtype=torch.float64)
MESH = grid(5, 5)
L = cotangent_laplacian(MESH)
RIM = boundary_vertices(MESH)
U = torch.randn(25, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def rod(n: int):
    """n nodes from 0 to 1, both ends among them."""
    return grid_laplacian(Grid(n, torch.tensor([1.0 / (n - 1)], dtype=torch.float64))), torch.linspace(
        0, 1, n, dtype=torch.float64
    )[:, None]


class Sine(torch.nn.Module):
    """g(t, p) = sin(3 (p − half) + t)."""

    def __init__(self, half: float) -> None:
        super().__init__()
        self.half = half

    def forward(self, t, points):
        return torch.sin(3 * (points - self.half) + t)


def parts_of(x):
    return x if isinstance(x, tuple) else (x,)


FIELD = 0.5 + torch.rand(25, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
HELD = {
    "heat": (lambda: Heat(L, 0.3), 0.0),
    "uneven heat": (lambda: Heat(robust_laplacian(MESH), FIELD), 2.0),
    "heat with a source": (lambda: Heat(L, 0.3) + Source(L, lambda t: t) + Decay(L, 0.2), lambda t: torch.sin(t)),
    "heat with exchange": (lambda: Heat(L, 0.3) + Robin(L, named_boundary(L, [12]), 1.0, 1.0), lambda t, p: t * p[:, :1]),
    "Allen–Cahn": (lambda: AllenCahn(L, 0.3), -1.0),
    "wave": (lambda: Wave(L, 1.3), (0.0, 0.0)),
    "damped wave": (lambda: Wave(L, 1.3, damping=0.4, mass=1.0), (lambda t: torch.sin(t), lambda t: torch.cos(t))),
    "Schrödinger": (lambda: Schroedinger(L, 0.5, FIELD), 0.0),
    "a system": (lambda: Coupled(u=[Heat(L, 0.1)], v=[Heat(L, 0.2), lambda u, v: u * v]), (1.0, None)),
}


def state(name: str):
    if "wave" in name or "system" in name:
        return U, U.flip(0) ** 2
    return torch.complex(U, U.flip(0)) if "Schr" in name else U


@pytest.mark.parametrize("name", HELD)
def test_the_parts_are_the_equation_and_the_solves_invert_the_linear_one(name):
    make, values = HELD[name]
    f, x = Dirichlet(make(), RIM, values, domain=MESH), state(name)
    rest = f.nonlinear
    whole, linear = parts_of(f(NOW, x)), parts_of(f.linear @ x)
    other = parts_of(rest(NOW, x)) if rest else [torch.zeros_like(part) for part in whole]
    for one, two, three in zip(whole, linear, other, strict=True):
        torch.testing.assert_close(two + three, one)
    s = torch.tensor(0.2, dtype=torch.float64)
    y = f.linear.solve(s, x)
    for left, right, b in zip(parts_of(y), parts_of(f.linear @ y), parts_of(x), strict=True):
        torch.testing.assert_close(left - 0.2 * right, b)
    # Whatever the state has at the rim, only the values there act inside.
    other_rim = f.impose(NOW, x)
    for one, two in zip(parts_of(f(NOW, other_rim)), whole, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("name", HELD)
def test_every_solver_goes_to_the_same_state(name):
    make, values = HELD[name]
    f = Dirichlet(make(), RIM, values, domain=MESH)
    x = f.impose(0.0, state(name))
    exact = integrate(f, x, [0.0, 0.4], Dopri5(1e-6, 1e-8)).final
    # SBDF2 damps what swings.
    solvers = [ARK324(1e-4, 1e-6)] if "wave" in name or "Schr" in name else [SBDF2(dt=0.02)]
    if f.nonlinear is None:
        solvers += [Exponential(), SDIRK3(1e-4, 1e-6)]
    for solver in solvers:
        found = integrate(f, x, [0.0, 0.4], solver).final
        for one, two in zip(parts_of(found), parts_of(exact), strict=True):
            assert float((one - two).abs().max()) < 2e-3 * (1 + float(two.abs().max())), solver
    at_the_end = f.impose(0.4, exact)
    for one, two in zip(parts_of(at_the_end), parts_of(exact), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("solver", [Exponential(), BackwardEuler(dt=0.1), CaratheodoryFejer(), RK4(dt=0.01), ARK324(1e-4, 1e-6)])
def test_still_values_stay_to_the_last_bit(solver):
    f = Dirichlet(Heat(L, 0.3), RIM, 0.0)
    path = integrate(f, f.impose(0.0, U), [0.0, 0.5, 1.0], solver).x
    assert (path[:, RIM] == 0).all()
    if isinstance(solver, Exponential):
        return
    values = torch.rand(len(RIM), 1, dtype=torch.float64)
    g = Dirichlet(Heat(L, 0.3), RIM, values)
    if g.nonlinear is not None and not isinstance(solver, CaratheodoryFejer):
        assert torch.equal(integrate(g, g.impose(0.0, U), [0.0, 0.5], solver).final[RIM], values)


def test_the_slowest_mode_of_a_rod_with_order_two():
    """sin(πx) falls at κπ²."""
    errors = []
    for n in (9, 17, 33):
        laplacian, x = rod(n)
        u0 = torch.sin(math.pi * x)
        f = Dirichlet(Heat(laplacian, 0.5), [0, n - 1])
        final = integrate(f, f.impose(0.0, u0), [0.0, 0.2], Exponential()).final
        errors.append(float((final - math.exp(-0.1 * math.pi**2) * u0).abs().max()))
    assert all(math.log2(a / b) == pytest.approx(2, abs=0.1) for a, b in itertools.pairwise(errors))


def test_a_rod_between_two_temperatures_settles_on_a_line():
    laplacian, x = rod(17)
    f = Dirichlet(Heat(laplacian), [16, 0], torch.tensor([[3.0], [1.0]], dtype=torch.float64))
    final = integrate(f, f.impose(0.0, 0 * x), [0.0, 5.0], SBDF2(dt=0.1)).final
    torch.testing.assert_close(final, 1 + 2 * x, rtol=1e-6, atol=1e-6)


def test_moving_ends_with_order_two_in_space_and_the_solvers_in_time():
    """u = sin(3x + t) on a rod: s = cos(3x + t) + 9 sin(3x + t)."""
    errors = []
    for n in (5, 9, 17):
        laplacian, x = rod(n)
        # Nodes of a grid begin half a cell inside.
        domain = Grid(n, torch.tensor([1.0 / (n - 1)], dtype=torch.float64))
        half = 0.5 / (n - 1)
        source = PositionalSource(domain, lambda t, p, h=half: torch.cos(3 * (p - h) + t) + 9 * torch.sin(3 * (p - h) + t))
        f = Dirichlet(Heat(laplacian) + source, [0, n - 1], Sine(half), domain=domain)
        final = integrate(f, torch.sin(3 * x), [0.0, 1.0], SBDF2(dt=0.01)).final
        errors.append(float((final - torch.sin(3 * x + 1)).abs().max()))
    assert all(math.log2(a / b) == pytest.approx(2, abs=0.15) for a, b in itertools.pairwise(errors))


def test_a_drum_keeps_its_energy_and_swings_at_its_pitch():
    """A square drum: ω = √2 π / side, in Verlet and exactly."""
    mesh = grid(13, 13)
    laplacian, rim = cotangent_laplacian(mesh), boundary_vertices(mesh)
    low, high = mesh.vertices.min(0).values, mesh.vertices.max(0).values
    side = float((high - low)[0])
    x, y = ((mesh.vertices - low) / side)[:, :2].T
    u0 = (torch.sin(math.pi * x) * torch.sin(math.pi * y))[:, None]
    f = Dirichlet(Wave(laplacian), rim, (0.0, 0.0))
    (energy,) = f.invariants
    assert isinstance(energy, WaveEnergy)
    start = f.impose(0.0, (u0, torch.zeros_like(u0)))
    period = 2 * side / math.sqrt(2)
    path = integrate(f, start, period * torch.linspace(0, 5, 11, dtype=torch.float64), Exponential()).x
    assert energy.violation(path) < 1e-11
    assert float((path[0][2] - u0).norm() / u0.norm()) < 0.05
    path = integrate(f, start, period * torch.linspace(0, 5, 6, dtype=torch.float64), StoermerVerlet(dt=period / 200)).x
    assert energy.violation(path) < 0.01


def test_what_is_declared_and_holds():
    f = Dirichlet(Heat(L, 0.3), RIM)
    assert {type(i) for i in f.invariants} == {Norm, Rayleigh, DirichletEnergy}
    path = integrate(f, f.impose(0.0, U), [0.0, 0.1, 1.0], Exponential()).x
    for invariant in f.invariants:
        assert invariant.violation(path) < 1e-12, invariant.name
    assert Mass(L).violation(path) > 0.01
    psi = torch.complex(U, U.flip(0))
    g = Dirichlet(Schroedinger(L, 0.5, FIELD), RIM)
    assert len(g.invariants) == 2
    path = integrate(g, g.impose(0.0, psi), [0.0, 1.0, 5.0], Exponential()).x
    for invariant in g.invariants:
        assert invariant.violation(path) < 1e-11, invariant.name
    assert Dirichlet(Heat(L), RIM, 1.0).invariants == ()
    assert Dirichlet(AllenCahn(L, 0.3), RIM).invariants == ()


def test_equations_that_cannot_be_held_are_solved_as_a_whole():
    f = Dirichlet(CahnHilliard(L, 0.3), RIM)
    assert f.linear is None
    assert f.nonlinear is None
    final = integrate(f, f.impose(0.0, U), [0.0, 1e-4], RK4(dt=1e-5)).final
    assert (final[RIM] == 0).all()
    plain = Dirichlet(lambda t, u: -u, [0], 2.0)
    torch.testing.assert_close(plain(NOW, U)[1:], -U[1:])
    assert plain(NOW, U)[0] == 0


def test_the_block_of_the_free_nodes_follows_the_equation():
    kappa = torch.ones(12, 1, dtype=torch.float64)
    f, u = Dirichlet(Heat(robust_laplacian(icosphere(0)), kappa), [0, 5]), torch.randn(12, 1, dtype=torch.float64)
    first, block = f.linear @ u, f.linear.part.laplacian
    assert f.linear.part.laplacian is block
    f.rhs.kappa.value.mul_(2.0)
    torch.testing.assert_close(f.linear @ u, 2 * first)


@pytest.mark.parametrize("values", [torch.cos, lambda t, k=1.0: torch.cos(k * t)], ids=["builtin", "default"])
def test_values_of_time_alone_are_told_from_those_of_positions(values):
    f = Dirichlet(Heat(robust_laplacian(icosphere(0)), 0.3), [0, 5], values, domain=icosphere(0))
    now, u = torch.tensor(0.3, dtype=torch.float64), torch.ones(12, 1, dtype=torch.float64)
    assert f.impose(now, u)[5, 0] == torch.cos(now)
    assert f(now, u)[5, 0] == -torch.sin(now)


def test_rates():
    pattern = torch.rand(len(RIM), 2, dtype=torch.float64)
    u = torch.randn(3, 25, 2, dtype=torch.float64)
    f = Dirichlet(Heat(L), RIM, lambda t: torch.sin(2 * t) * pattern)
    torch.testing.assert_close(f(NOW, u)[:, RIM], (2 * torch.cos(2 * NOW) * pattern).expand(3, -1, -1))
    g = Dirichlet(Heat(L), RIM, lambda t: math.sin(2 * float(t)), rate=lambda t: 2 * math.cos(2 * float(t)))
    torch.testing.assert_close(g(NOW, u)[:, RIM], (2 * torch.cos(2 * NOW)).expand(3, len(RIM), 2))
    with pytest.raises((ValueError, RuntimeError)):
        Dirichlet(Heat(L), RIM, lambda t: torch.tensor(math.sin(2 * t.detach().item())))(NOW, u)
    with torch.inference_mode():
        torch.testing.assert_close(f(NOW, u)[:, RIM], (2 * torch.cos(2 * NOW) * pattern).expand(3, -1, -1))
    t = torch.tensor([0.0, 0.5], dtype=torch.float64)
    path = f.impose(t, torch.zeros(2, 3, 25, 2, dtype=torch.float64))
    torch.testing.assert_close(path[1][:, RIM], (torch.sin(2 * t[1]) * pattern).expand(3, -1, -1))


def test_values_and_what_is_inside_are_learned_through_every_kind_of_solver():
    start = torch.rand(len(RIM), 1, dtype=torch.float64)
    f = Dirichlet(Heat(L, 0.3, learn=True), RIM, learned(start))
    parameters = list(f.parameters())
    assert len(parameters) == 2
    for solver in (SBDF2(dt=0.05), ARK324(dt=0.1), ETDRK2(dt=0.1), RK4(dt=0.05)):

        def loss(solver=solver):
            return integrate(f, f.impose(0.0, U), [0.0, 0.3], solver).final.pow(3).sum()

        slopes = torch.autograd.grad(loss(), parameters)
        for p, slope in zip(parameters, slopes, strict=True):
            along = torch.rand_like(p)
            with torch.no_grad():
                p.add_(1e-5 * along)
                high = loss()
                p.sub_(2e-5 * along)
                low = loss()
                p.add_(1e-5 * along)
            assert float((slope * along).sum()) == pytest.approx(float(high - low) / 2e-5, rel=1e-4), solver
    tempo = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    g = Dirichlet(Heat(L, 0.3), RIM, lambda t: torch.sin(tempo * t))
    (slope,) = torch.autograd.grad(integrate(g, g.impose(0.0, U), [0.0, 0.3], RK4(dt=0.02)).final.sum(), tempo)
    values = []
    for change in (1e-5, -2e-5):
        with torch.no_grad():
            tempo.add_(change)
            values.append(float(integrate(g, g.impose(0.0, U), [0.0, 0.3], RK4(dt=0.02)).final.sum()))
    assert float(slope) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)


def test_another_domain_copies_and_single_precision():
    f = Dirichlet(Heat(L, 0.3, learn=True), boundary_vertices, lambda t, p: t + p[:, :1], domain=MESH)
    other = grid(4, 6)
    moved = f.on(other)
    assert torch.equal(moved.fixed, boundary_vertices(other))
    assert next(moved.parameters()) is next(f.parameters())
    u = torch.randn(24, 1, dtype=torch.float64)
    torch.testing.assert_close(moved.impose(1.0, u)[moved.fixed], 1 + other.vertices[moved.fixed, :1])
    assert moved(NOW, u).shape == (24, 1)
    with pytest.raises(NotImplementedError, match="boundary_vertices"):
        Dirichlet(Heat(L), RIM).on(other)
    plain = Dirichlet(Heat(L, 0.3), boundary_vertices, 1.0, domain=MESH)
    for again in (copy.deepcopy(plain), pickle.loads(pickle.dumps(plain))):
        assert torch.equal(again(NOW, U), plain(NOW, U))
        single = again.to(torch.float32)
        final = integrate(single, single.impose(0.0, U.float()), [0.0, 0.2], SBDF2(dt=0.05)).final
        assert final.dtype == torch.float32
        assert (final[RIM] == 1).all()
    assert plain.on(other)(NOW, u).shape == (24, 1)


def test_bad_conditions_are_refused():
    for nodes in ([], [0, 0], [-1], [0.5]):
        with pytest.raises(FieldError, match="the held nodes"):
            Dirichlet(Heat(L), nodes)
    with pytest.raises(FieldError, match="has 25 nodes"):
        Dirichlet(lambda t, u: -u, [99])(NOW, U)
    with pytest.raises(TypeError, match="name it"):
        Dirichlet(Heat(L), boundary_vertices)
    with pytest.raises(TypeError, match="name the domain"):
        Dirichlet(Heat(L), RIM, lambda t, p: t * p[:, :1])
    with pytest.raises(TypeError, match="a tuple of one for each field"):
        Dirichlet(Wave(L), RIM, (None, None))
    with pytest.raises(FieldError, match="2 fields"):
        Dirichlet(Heat(L), RIM, (0.0, 0.0))(NOW, U)
    assert icosphere(0).num_nodes == 12
