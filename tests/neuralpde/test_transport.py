"""Advection and diffusion: orders on grid and sphere, laws of any field, every kind of velocity, and the way to the solvers."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from integrators import ARK324, ETDRK4, RK4, CrankNicolson, Euler, Exponential, integrate
from neuralpde.coefficient import learned
from neuralpde.heat import Heat
from neuralpde.invariants import Law, Mass, MaximumPrinciple, Norm, check_invariants
from neuralpde.transport import Advection, AdvectionDiffusion, StreamFunction, Wind, averages
from operators import (
    Boundary,
    DirichletLaplacian,
    FieldError,
    Graph,
    Grid,
    TriangleMesh,
    combinatorial_laplacian,
    cotangent_laplacian,
    grid,
    grid_laplacian,
    icosphere,
    normalized_laplacian,
    robust_laplacian,
    torus,
)
from operators.advection import Flux

PERIODIC = Boundary.PERIODIC


def turning(p):
    """The wind that turns a sphere about z once in 2π."""
    return torch.stack([-p[:, 1], p[:, 0], 0 * p[:, 2]], dim=1)


def bump(p, angle=0.0):
    centre = torch.tensor([math.cos(angle), math.sin(angle), 0.3], dtype=torch.float64)
    return torch.exp(-4 * (p - centre / centre.norm()).square().sum(1))[:, None]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def line(n):
    return Grid(n, 2 * math.pi / n, PERIODIC)


def order(errors):
    return math.log2(errors[-2] / errors[-1])


@pytest.mark.parametrize(("flux", "expected"), [(Flux.UPWIND, 0.9), (Flux.CENTRED, 1.9), (Flux.LIMITED, 1.5)])
def test_a_wave_in_a_changing_wind_converges_on_a_grid_at_the_order_of_the_flux(flux, expected):
    """u = 1.5 + sin(x − sin t) is carried by b = cos t."""
    errors = []
    for n in (64, 128):
        axis = line(n)
        f = Advection(axis, lambda t: torch.cos(t), flux)
        with torch.no_grad():
            u = integrate(f, 1.5 + torch.sin(axis.points), [0.0, 1.0], RK4(dt=1 / n)).final
        errors.append(float((u - 1.5 - torch.sin(axis.points - math.sin(1.0))).square().mean().sqrt()))
    assert order(errors) > expected


@pytest.mark.parametrize(("flux", "expected"), [(Flux.UPWIND, 0.65), (Flux.CENTRED, 1.85), (Flux.LIMITED, 1.6)])
@pytest.mark.parametrize("stream", [False, True])
def test_a_bump_turned_on_the_sphere_converges_at_the_order_of_the_flux(flux, expected, stream):
    """In the norm over the sphere: at the twelve vertices of degree five the median dual is not centred."""
    errors = []
    for level in (3, 4):
        mesh = icosphere(level)
        p = mesh.vertices
        f = Advection(mesh, StreamFunction(mesh, -p[:, 2]) if stream else Wind(mesh, turning), flux)
        with torch.no_grad():
            u = integrate(f, bump(p), [0.0, 1.0], RK4(dt=0.64 / 2**level)).final
        m = f.sides.mass[:, None]
        errors.append(float((m * (u - bump(p, 1.0)) ** 2).sum().sqrt()))
    # Upwind, whose diffusion |b|h/2 is as wide as the bump here, comes to its order (0.82 at the next level) slowly.
    assert order(errors) > expected


def test_advection_and_diffusion_together_converge_in_space_and_time_with_a_source():
    """u = e^(−t) sin(x) cos(y) in the wind b = (sin y + 0.5, cos x), κ = 0.3, with the source that makes it a solution."""
    kappa = 0.3

    def exact(p, t):
        return (math.exp(-t) * torch.sin(p[:, 0]) * torch.cos(p[:, 1]))[:, None]

    def error(n, solver):
        grid = Grid((n, n), 2 * math.pi / n, PERIODIC)
        x, y = grid.points.T
        wind = torch.stack([torch.sin(y) + 0.5, torch.cos(x)], dim=1)
        f = AdvectionDiffusion(grid_laplacian(grid), grid, wind, kappa)

        def source(t, u):
            e = torch.exp(-t)
            s = torch.sin(x) * torch.cos(y) * (2 * kappa - 1)
            s = s + wind[:, 0] * torch.cos(x) * torch.cos(y) - wind[:, 1] * torch.sin(x) * torch.sin(y)
            return e * s[:, None]

        forced = f + source
        with torch.no_grad():
            u = integrate(forced, exact(grid.points, 0.0), [0.0, 1.0], solver).final
        return float((u - exact(grid.points, 1.0)).square().mean().sqrt()), u

    in_space = [error(n, ARK324(dt=0.05))[0] for n in (16, 32)]
    assert order(in_space) > 1.9
    # In time against a fine solution of the same space discretisation.
    fine = error(16, ETDRK4(dt=1 / 32))[1]
    in_time = [float((error(16, ARK324(dt=dt))[1] - fine).norm()) for dt in (0.2, 0.1)]
    assert order(in_time) > 2.7


@pytest.mark.parametrize("flux", list(Flux))
@pytest.mark.parametrize("kind", ["sphere", "grid", "graph"])
def test_declared_invariants_hold_from_rough_fields(flux, kind):
    if kind == "sphere":
        mesh = icosphere(2)
        f = Advection(mesh, StreamFunction(mesh, random(162)), flux)
    elif kind == "grid":
        f = Advection(Grid((7, 5), 0.5, (PERIODIC, Boundary.NEUMANN)), random(35, 2), flux)
    else:
        f = Advection(Graph(torch.randint(12, (2, 30), generator=torch.Generator().manual_seed(0)), 12), random(30).float(), flux)
    n = f.sides.mass.numel()
    u0 = random(n, 2, seed=1).to(f.sides.mass.dtype)
    names = {type(i) for i in f.invariants}
    assert Mass in names
    assert (MaximumPrinciple in names) == (kind == "sphere" and flux is not Flux.CENTRED)
    assert (Norm in names) == (kind == "sphere" and flux is not Flux.LIMITED)
    fastest = float((f.sides.sizes(f.flows(0.0)) / f.sides.mass).max())
    with torch.no_grad():
        for start in (u0, u0.abs()):
            path = integrate(f, start, torch.linspace(0, 8 / fastest, 9, dtype=torch.float64), RK4(dt=0.1 / fastest)).x
            # RK4 damps the norm of what it carries by (0.1)⁶/72 a step at most; the rest is round-off of 80 steps.
            for check in check_invariants(f.invariants, path, 1e-5 if f.sides.mass.dtype == torch.float32 else 1e-6):
                assert check.holds, check


def test_euler_at_the_courant_bound_makes_no_new_extrema_and_keeps_the_mass():
    mesh = torus(20, 12)
    for flux in (Flux.UPWIND, Flux.LIMITED):
        f = Advection(mesh, StreamFunction(mesh, random(240)), flux)
        step = f.largest_step()
        u0 = (random(240, 1) > 0).double()
        with torch.no_grad():
            path = integrate(f, u0, [0.0, 50 * step], Euler(dt=step)).final
        assert float(path.min()) >= -1e-13
        assert float(path.max()) <= 1 + 1e-13
        assert float((f.sides.mass[:, None] * (path - u0)).sum().abs()) <= 1e-13 * float(f.sides.mass.sum())
    assert Advection(mesh, StreamFunction(mesh, random(240)), Flux.CENTRED).largest_step() == 0.0


def test_centred_advection_is_a_rotation_that_exact_and_implicit_solvers_keep():
    mesh = icosphere(2)
    f = Advection(mesh, StreamFunction(mesh, -mesh.vertices[:, 2]), Flux.CENTRED)
    (norm,) = [i for i in f.invariants if isinstance(i, Norm)]
    assert norm.law is Law.CONSERVED
    u0 = random(162, 1)
    with torch.no_grad():
        exact = integrate(f, u0, [0.0, 0.5, 3.0], Exponential()).x
        implicit = integrate(f, u0, [0.0, 0.5, 3.0], CrankNicolson(dt=0.02, damped=0)).x
        matrix = torch.linalg.matrix_exp(3.0 * f.operator().matrix())
    assert norm.violation(exact) < 1e-12
    assert norm.violation(implicit) < 1e-9
    assert float((exact[-1] - matrix @ u0).norm() / u0.norm()) < 1e-11


def test_constants_stay_in_a_stream_and_in_the_advective_form():
    mesh = torus(12, 9)
    one = torch.ones(108, 1, dtype=torch.float64)
    for flux in Flux:
        for f in (
            Advection(mesh, StreamFunction(mesh, random(108)), flux),
            Advection(mesh, random(108, 3), flux, conservative=False),
        ):
            fastest = float((f.sides.sizes(f.flows(0.0)) / f.sides.mass).max())
            assert float(f(torch.tensor(0.0), one).abs().max()) < 1e-13 * fastest
    assert not Advection(mesh, random(108, 3)).solenoidal


def test_an_open_boundary_lets_the_field_out():
    square = grid(9, 9)
    mesh = TriangleMesh(square.vertices[:, :2], square.faces)
    wind = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    u0 = torch.ones(81, 1, dtype=torch.float64)
    with torch.no_grad():
        closed = integrate(Advection(mesh, wind), u0, [0.0, 3.0], RK4(dt=0.02)).final
        f = Advection(mesh, wind, open_boundary=True)
        left = integrate(f, u0, [0.0, 3.0], RK4(dt=0.02)).final
    mass = f.sides.mass[:, None]
    assert float((mass * closed).sum()) == pytest.approx(1.0, rel=1e-12)
    assert float((mass * left).sum()) < 1e-4
    assert Mass not in {type(i) for i in f.invariants}


@pytest.mark.parametrize("flux", list(Flux))
def test_what_leaves_a_surface_carries_what_is_there_and_takes_its_norm_along(flux):
    square = grid(9, 9)
    mesh = TriangleMesh(square.vertices[:, :2], square.faces)
    f = Advection(mesh, torch.tensor([[1.0, 0.3]], dtype=torch.float64), flux, open_boundary=True)
    with torch.no_grad():
        path = integrate(f, random(81, 1).abs(), [0.0, 0.2, 0.6, 4.0], RK4(dt=0.04)).x
        slope = f(0.0, torch.ones(81, 1, dtype=torch.float64))[:, 0]
    # A constant stays behind the wind but at the walls where nothing enters.
    downwind = (mesh.vertices > 0.01).all(1)
    assert float(slope[downwind].abs().max()) < 1e-12
    size = (f.sides.mass[:, None] * path).sum((1, 2))
    assert abs(float(size[-1])) < 0.01 * float(size[0])
    assert (Norm in {type(i) for i in f.invariants}) == (flux is not Flux.LIMITED)
    for check in check_invariants(f.invariants, path, 1e-12):
        assert check.holds, check


def test_what_is_kept_in_inference_mode_can_be_differentiated_later():
    mesh = icosphere(0)
    f, u = Advection(mesh, turning(mesh.vertices)), random(12, 1)
    with torch.inference_mode():
        f(0.0, u)
    assert torch.autograd.gradcheck(lambda v: f(0.0, v), u.requires_grad_())


def test_diffusion_averages_only_where_constants_do_not_grow():
    ring = Graph(torch.tensor([[0, 1, 2, 0], [1, 2, 0, 3]]), 4, torch.ones(4, dtype=torch.float64)).undirected()
    assert averages(combinatorial_laplacian(ring))
    assert averages(DirichletLaplacian(combinatorial_laplacian(ring), torch.tensor([3])))
    uneven = normalized_laplacian(combinatorial_laplacian(ring))
    assert float((uneven @ torch.ones(4, 1, dtype=torch.float64)).min()) < -0.1
    assert not averages(uneven)


def test_velocities_of_every_kind_are_the_same_velocity():
    mesh = icosphere(1)
    p, u, t = mesh.vertices, random(42, 1), torch.tensor(0.5)
    wind = turning(p)
    expected = Advection(mesh, wind)(t, u)
    kinds = {
        "function": lambda t: wind,
        "parameter": nn.Parameter(wind.clone()),
        "learned": learned(wind),
        "positions": Wind(mesh, turning),
        "positions and time": Wind(mesh, lambda t, p: 2 * t * turning(p), steady=False),
        "flows": Advection(mesh, wind).flows(),
    }
    for name, velocity in kinds.items():
        f = Advection(mesh, velocity)
        assert float((f(t, u) - expected).detach().abs().max()) < 1e-14, name
        assert (f.linear is None) == (name in ("function", "positions and time")), name
    assert torch.equal(Advection(mesh, wind).velocity, wind)
    assert torch.equal(Advection(mesh, Wind(mesh, turning)).velocity, wind)
    assert Advection(line(8), 2.0).flows().tolist() == [2.0] * 8


def test_gradients_in_velocity_stream_function_diffusivity_and_field():
    mesh = icosphere(0)
    t, L = torch.tensor(0.0), cotangent_laplacian(mesh)
    u, wind, psi = random(12, 1), random(12, 3, seed=1), random(12, seed=2)
    for flux in Flux:
        def of_wind(b, v, flux=flux):
            return Advection(mesh, lambda t: b, flux)(t, v)

        def of_psi(s, v, kappa, flux=flux):
            return AdvectionDiffusion(L, mesh, StreamFunction(mesh, lambda t: s), lambda t: kappa, flux)(t, v)

        wanted = [x.clone().requires_grad_() for x in (wind, u, psi, torch.tensor(0.3, dtype=torch.float64))]
        if flux is Flux.CENTRED:
            assert torch.autograd.gradcheck(of_wind, (wanted[0], wanted[1]))
        else:
            assert torch.autograd.gradcheck(of_psi, (wanted[2], wanted[1], wanted[3]))


def test_a_stream_function_is_learned_from_two_pictures():
    grid = Grid((8, 8), 2 * math.pi / 8, PERIODIC)
    x, y = grid.points.T
    psi = torch.sin(x) * torch.cos(y)
    u0 = torch.stack([torch.sin(y), torch.cos(x), torch.sin(x + y)], dim=1)
    with torch.no_grad():
        truth = integrate(Advection(grid, StreamFunction(grid, psi), Flux.CENTRED), u0, [0.0, 0.5], RK4(dt=0.1)).final
    f = Advection(grid, StreamFunction(grid, learned(torch.zeros(64, dtype=torch.float64))), Flux.CENTRED)
    optimizer = torch.optim.LBFGS(f.parameters(), max_iter=30, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = (integrate(f, u0, [0.0, 0.5], RK4(dt=0.1)).final - truth).square().mean()
        value.backward()
        return value

    first = float(loss().detach())
    optimizer.step(loss)
    assert float(loss().detach()) < 1e-4 * first
    found, wanted = f.flows(0.0).detach(), f.sides.stream(psi)
    assert float((found - wanted).norm() / wanted.norm()) < 0.05


@pytest.mark.parametrize("kind", ["mesh", "grid", "graph"])
def test_the_parts_are_the_equation(kind):
    if kind == "mesh":
        domain = icosphere(1)
        L, b = robust_laplacian(domain), random(42, 3)
    elif kind == "grid":
        domain = Grid((5, 4), 0.5, Boundary.DIRICHLET)
        L, b = grid_laplacian(domain), torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    else:
        domain = Graph(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]), 4, torch.ones(4, dtype=torch.float64)).undirected()
        L, b = combinatorial_laplacian(domain), random(8)
    f = AdvectionDiffusion(L, domain, b, 0.2)
    u, t = random(L.shape[0], 2), torch.tensor(0.0)
    assert float((f(t, u) - f.linear @ u - f.nonlinear(t, u)).abs().max()) < 1e-13 * float(f(t, u).abs().max())
    alone = Heat(L, 0.2) + Advection(domain, b, Flux.CENTRED)
    if kind != "mesh":  # The robust Laplacian has masses of its own.
        assert float((f(t, u) - alone(t, u)).abs().max()) < 1e-12 * float(f(t, u).abs().max())
    with torch.no_grad():
        solutions = [integrate(f, u, [0.0, 0.1], solver).final for solver in (ARK324(1e-5, 1e-7), ETDRK4(dt=0.01), RK4(dt=0.002))]
    for solution in solutions[:2]:
        assert float((solution - solutions[2]).norm() / u.norm()) < 1e-4


def test_sums_keep_what_both_promise():
    mesh = icosphere(1)
    stream = StreamFunction(mesh, random(42))
    L = cotangent_laplacian(mesh)
    declared = {type(i): i.law for i in (Heat(L, 0.1) + Advection(mesh, stream)).invariants}
    assert declared[Mass] is Law.CONSERVED
    assert declared[Norm] is Law.NON_INCREASING
    both = AdvectionDiffusion(L, mesh, stream, 0.1, Flux.UPWIND)
    assert averages(L)
    assert {type(i) for i in both.invariants} >= {Mass, Norm, MaximumPrinciple}
    assert AdvectionDiffusion(L, mesh, stream, lambda t: t).invariants == ()


def test_the_peclet_number_tells_where_wiggles_begin():
    grid = Grid(21, 0.05, Boundary.DIRICHLET)
    L = grid_laplacian(grid)
    for kappa, wiggles in ((0.03, False), (0.02, True)):
        f = AdvectionDiffusion(L, grid, 1.0, kappa)
        assert f.peclet() == pytest.approx(0.05 / kappa, rel=1e-6)
        # The off-diagonal entries of κL − A: all of one sign is what forbids wiggles.
        matrix = L.matrix() * kappa - f.advection.operator().matrix()
        assert bool((matrix - matrix.diagonal().diag() > 1e-12).any()) == wiggles == (f.peclet() > 2)


def test_on_another_domain_the_wind_goes_along():
    mesh, other = icosphere(1), icosphere(2)
    scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    class Turning(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = scale

        def forward(self, p):
            return self.scale * turning(p)

    f = AdvectionDiffusion(cotangent_laplacian(mesh), mesh, Wind(mesh, Turning()), learned(0.1))
    f(torch.tensor(0.0), random(42, 1))
    moved = f.on(other)
    fresh = AdvectionDiffusion(cotangent_laplacian(other), other, 2 * turning(other.vertices), 0.1)
    u = random(162, 1)
    assert float((moved(torch.tensor(0.0), u) - fresh(torch.tensor(0.0), u)).detach().abs().max()) < 1e-12
    assert {id(p) for p in moved.parameters()} == {id(p) for p in f.parameters()}
    stream = StreamFunction(mesh, lambda t: torch.ones(162, dtype=torch.float64))
    assert Advection(mesh, stream).on(other)(0.0, u).shape == (162, 1)
    steady = Advection(line(8), 2.0)
    steady.operator()
    assert steady.on(line(16)).operator().shape == (16, 16)


def test_a_changed_velocity_is_seen_and_copies_are_independent():
    mesh = icosphere(1)
    u = random(42, 1)
    f = Advection(mesh, turning(mesh.vertices))
    first = f(0.0, u)
    f.b.value.mul_(2.0)
    assert float((f(0.0, u) - 2 * first).abs().max()) < 1e-13
    for twin in (copy.deepcopy(f), pickle.loads(pickle.dumps(f))):
        assert torch.equal(twin(0.0, u), f(0.0, u))
        assert torch.equal(twin.b.value, f.b.value)
    single = copy.deepcopy(f).to(torch.float32)
    assert single(torch.tensor(0.0), u.float()).dtype == torch.float32
    assert float((single(0.0, u.float()) - f(0.0, u)).abs().max()) < 1e-4
    batch = random(3, 42, 2)
    assert torch.equal(f(0.0, batch)[1], f(0.0, batch[1]))


def test_what_cannot_be_is_refused_before_anything_runs():
    mesh = icosphere(0)
    with pytest.raises(FieldError, match=r"flows of shape \(30,\)"):
        Advection(mesh, random(12, 2))
    with pytest.raises(ValueError, match="finite"):
        Advection(mesh, torch.full((12, 3), math.nan))
    with pytest.raises(ValueError, match="build the Laplacian on this domain"):
        AdvectionDiffusion(cotangent_laplacian(icosphere(1)), mesh, random(12, 3))
    with pytest.raises(ValueError, match="not linear"):
        Advection(mesh, random(12, 3), Flux.LIMITED).operator()
    with pytest.raises(ValueError, match="function of time"):
        Advection(mesh, lambda t: random(12, 3)).operator()
    with pytest.raises(ValueError, match=r"Flux\.UPWIND"):
        Advection(mesh, random(12, 3), "fast")
    with pytest.raises(FieldError, match="one value a node"):
        StreamFunction(mesh, random(7))
    limited = Advection(mesh, random(12, 3), Flux.LIMITED)
    for u in (random(11, 1), random(13, 1), random(12), random(12, 1).float(), random(12, 1).to(torch.complex128)):
        with pytest.raises(FieldError):
            limited(0.0, u)


def test_one_vector_is_no_flows_even_on_a_single_triangle():
    triangle = TriangleMesh(torch.eye(3, dtype=torch.float64), torch.tensor([[0, 1, 2]]))
    vector = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(Advection(triangle, vector).flows(), Advection(triangle, vector.expand(3, 3)).flows(), atol=1e-15)
