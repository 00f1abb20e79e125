"""Heat keeps mass and bounds, only loses energy, and decays spherical harmonics at l(l + 1); also in uneven materials."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from integrators import (
    ARK324,
    BDF2,
    ETDRK2,
    ETDRK4,
    RK4,
    SBDF2,
    SDIRK2,
    SDIRK3,
    BackwardEuler,
    CaratheodoryFejer,
    Checkpointed,
    CrankNicolson,
    Direct,
    Dopri5,
    Exponential,
    NewtonKrylov,
    RadauIIA5,
    integrate,
)
from neuralpde.coefficient import learned
from neuralpde.heat import Diffusion, Heat
from neuralpde.invariants import DirichletEnergy, Law, Mass, MaximumPrinciple, Norm, Rayleigh
from neuralpde.sources import Decay, PositionalSource
from neuralpde.testing import fields, graphs, meshes, roundoff
from neuralpde.testing_right_hand_side import another_domain_shares_the_parameters, assert_right_hand_side
from neuralpde.testing_search import Search
from operators import (
    Boundary,
    ConjugateGradient,
    DomainError,
    FieldError,
    Grid,
    Jacobi,
    combinatorial_laplacian,
    conductance_laplacian,
    cotangent_laplacian,
    grid_laplacian,
    icosphere,
    robust_laplacian,
    torus,
)

LAPLACIANS = st.one_of(
    graphs(weights=("ones", "dyadic")).map(combinatorial_laplacian), meshes(slivers=False).map(robust_laplacian)
)
NOW = torch.tensor(0.3, dtype=torch.float64)


@given(data=st.data(), angle=st.sampled_from([0.1, 1.0, 100.0, 1e6]), kappa=st.sampled_from([0.1, 1.0, 7.0]))
def test_backward_euler_keeps_every_law_for_any_step(data, angle, kappa):
    laplacian = data.draw(LAPLACIANS)
    heat = Heat(laplacian, kappa)
    u0 = data.draw(fields(laplacian.shape[0], 2))
    assume(bool(u0.abs().sum() > 0))
    steps = 5
    dt = angle / (kappa * max(laplacian.norm_bound(), 1e-30))
    with torch.no_grad():
        path = integrate(heat, u0, dt * torch.arange(steps + 1, dtype=torch.float64), BackwardEuler(dt)).x
    n = laplacian.shape[0]
    # A solve with I + sL magnifies the rounding of its entries by at most its condition number in the maximum norm,
    # which the mass ratio bounds.
    ratio = float(laplacian.mass.max() / laplacian.mass.min())
    tolerance = 64 * n * steps * roundoff(u0.dtype) * (1 + angle) * ratio
    assert MaximumPrinciple(laplacian, Law.NON_INCREASING).violation(path) <= tolerance
    assert {type(i) for i in heat.invariants} == {Norm, Rayleigh, DirichletEnergy, Mass}
    for invariant in heat.invariants:
        # The Rayleigh quotient of a field that has died out is one of round-off.
        if not isinstance(invariant, Rayleigh) or angle <= 1:
            assert invariant.violation(path) <= tolerance, invariant.name


def test_bounds_and_mass_on_real_meshes(real_mesh):
    laplacian = robust_laplacian(real_mesh)
    u0 = torch.rand(laplacian.shape[0], 1, dtype=torch.float64)
    for step in (1e-3, 1.0, 1e3):
        # Units of area: every mesh has its own.
        dt = step * float(laplacian.mass.sum()) / 100
        with torch.no_grad():
            path = integrate(Heat(laplacian), u0, [0.0, dt, 2 * dt], BackwardEuler(dt)).x
        assert MaximumPrinciple(laplacian, Law.NON_INCREASING).violation(path) < 1e-9, step
        assert Mass(laplacian).violation(path) < 1e-7, step


HARMONICS = {
    1: lambda x, y, z: z,
    2: lambda x, y, z: 3 * z**2 - 1,
    3: lambda x, y, z: x * y * z,
}


def fitted_rate(degree: int, refinements: int, radius: float = 1.0) -> float:
    """The rate at which a spherical harmonic is seen to fall, in units of 1/radius²."""
    mesh = icosphere(refinements, radius)
    L = robust_laplacian(mesh)
    u0 = HARMONICS[degree](*(mesh.vertices / radius).T)[:, None]
    t = radius**2 * torch.linspace(0, 0.5, 6, dtype=torch.float64)
    path = integrate(Heat(L), u0, t, Exponential(tol=1e-9)).x
    height = torch.stack([L.inner(u0, u) for u in path]) / L.inner(u0, u0)
    return float(-(height.log() * (t - t.mean())).sum() / ((t - t.mean()) ** 2).sum()) * radius**2


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_spherical_harmonics_decay_at_their_eigenvalue_with_order_two(degree):
    expected = degree * (degree + 1)
    coarse, middle, fine = (abs(fitted_rate(degree, k) / expected - 1) for k in (2, 3, 4))
    assert fine < 4e-3
    assert math.log2(coarse / middle) > 1.8
    assert math.log2(middle / fine) > 1.8


def test_lengths_scale():
    assert fitted_rate(2, 2, 5.0) == pytest.approx(fitted_rate(2, 2), rel=1e-6)


def test_integrators_agree():
    laplacian = robust_laplacian(icosphere(1))
    heat = Heat(laplacian, 0.3)
    u0 = torch.randn(42, 1, dtype=torch.float64)
    exact = torch.linalg.matrix_exp(-0.3 * 0.5 * laplacian.matrix()) @ u0
    for solver, tolerance in ((Exponential(), 1e-12), (Dopri5(1e-9, 1e-11), 1e-7), (BackwardEuler(1e-3), 2e-3)):
        found = integrate(heat, u0, [0.0, 0.5], solver).x[-1]
        assert float((found - exact).norm()) < tolerance * float(u0.norm()), solver


def test_the_exponential_of_heat_backwards_errs_by_round_off_of_what_it_grows_to():
    laplacian = robust_laplacian(icosphere(2))
    n, time = laplacian.shape[0], 1.0
    u0 = torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = torch.linalg.matrix_exp(time * (laplacian @ torch.eye(n, dtype=torch.float64))) @ u0
    solution = integrate(Heat(laplacian), u0, [time, 0.0], Exponential())
    # One series would err by round-off of e^(norm_bound), 10¹⁵ times more than e^(largest eigenvalue).
    assert float((solution.final - exact).norm() / exact.norm()) < 1e-11
    assert solution.stats.nfe > 100


def test_linear_part_is_the_equation():
    laplacian = robust_laplacian(icosphere(1))
    heat = Heat(laplacian, 0.3)
    u = torch.randn(42, 2, dtype=torch.float64)
    torch.testing.assert_close(heat.linear @ u, heat(torch.zeros(()), u))
    solved = heat.linear.solve(torch.tensor(0.2, dtype=torch.float64), u)
    torch.testing.assert_close(solved - 0.2 * (heat.linear @ solved), u)
    top = torch.linalg.eigvals(laplacian.matrix()).abs().max()
    assert heat.linear.norm_bound() >= 0.3 * float(top) * (1 - 1e-12)


def test_diffusivity_is_learned_only_on_request():
    laplacian = robust_laplacian(icosphere(1))
    assert list(Heat(laplacian).parameters()) == []
    heat = Heat(laplacian, 0.5, learn=True)
    u0 = torch.randn(42, 1, dtype=torch.float64)
    gradients = []
    for solver in (Exponential(), BackwardEuler(0.005), Dopri5(1e-8, 1e-10)):
        heat.zero_grad()
        integrate(heat, u0, [0.0, 0.1], solver).x[-1].square().sum().backward()
        gradients.append(float(heat.kappa.log_value.grad))
    h = 1e-5
    both = [
        float(integrate(Heat(laplacian, 0.5 * math.exp(s)), u0, [0.0, 0.1], Exponential()).x[-1].square().sum()) for s in (h, -h)
    ]
    expected = (both[0] - both[1]) / (2 * h)
    assert gradients[0] == pytest.approx(expected, rel=1e-6)
    assert gradients[2] == pytest.approx(expected, rel=1e-4)
    assert gradients[1] == pytest.approx(expected, rel=0.05)


def test_on_shares_the_diffusivity():
    heat = Heat(robust_laplacian(icosphere(1)), 0.5, learn=True)
    moved = heat.on(torus(9, 5))
    assert moved.kappa.log_value is heat.kappa.log_value
    assert moved.linear.laplacian is moved.laplacian
    assert moved.laplacian.shape == (45, 45)


def test_mass_is_declared_only_where_constants_are_killed():
    uneven = robust_laplacian(torus(9, 5)).symmetrized()
    assert Mass not in {type(i) for i in Heat(uneven).invariants}
    assert Heat(uneven).dissipative


@pytest.mark.parametrize("kappa", [0.0, -1.0, math.nan, math.inf])
def test_backward_heat_is_refused(kappa):
    with pytest.raises(ValueError, match="diffusivity must be positive and finite"):
        Heat(robust_laplacian(icosphere(0)), kappa)


def uneven(n: int) -> torch.Tensor:
    return 0.5 + torch.rand(n, 1, dtype=torch.float64)


@pytest.mark.parametrize("domain", ["sphere", "torus", "graph"])
def test_a_field_stands_inside_of_the_divergence(domain):
    """Mass stays, norm and energy fall, whatever the field; the linear part is the assembled Laplacian."""
    make = {
        "sphere": lambda: robust_laplacian(icosphere(1)),
        "torus": lambda: robust_laplacian(torus(9, 6)),
        "graph": lambda: combinatorial_laplacian(icosphere(1).to(torch.float64).graph()),
    }[domain]
    L = make()
    n = L.shape[0]
    kappa = uneven(n)
    f, u = Heat(L, kappa), torch.randn(3, n, 2, dtype=torch.float64)
    low, high = f.edges.edges
    expected = -(conductance_laplacian(L, ((kappa[low] + kappa[high]) / 2)[:, 0]) @ u)
    torch.testing.assert_close(f(NOW, u), expected)
    torch.testing.assert_close(f.linear @ u, expected)
    path = integrate(f, u, [0.0, 0.1, 0.5], Exponential()).x
    assert {type(i) for i in f.invariants} == {Norm, DirichletEnergy, Mass}
    for invariant in f.invariants:
        assert invariant.violation(path) < 1e-12, invariant.name
    # One number as a field is the number.
    torch.testing.assert_close(Heat(L, torch.full((n, 1), 0.7, dtype=torch.float64))(NOW, u), Heat(L, 0.7)(NOW, u))


def test_a_field_for_each_channel_is_the_channels_apart():
    L = robust_laplacian(icosphere(1))
    kappa, u = torch.cat([uneven(42), uneven(42)], 1), torch.randn(42, 2, dtype=torch.float64)
    f = Heat(L, kappa)
    apart = torch.cat([Heat(L, kappa[:, k : k + 1])(NOW, u[:, k : k + 1]) for k in (0, 1)], 1)
    torch.testing.assert_close(f(NOW, u), apart)
    assert f.linear is None
    rates = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(Heat(L, rates)(NOW, u), -rates * (L @ u))


def manufactured_error(laplacian, domain, points, k) -> float:
    """κ = 1 + z/2 on the unit sphere with u = e^(−t) z: the source that makes it so, and the error at t = 1."""
    z = points[:, 2:]

    def source(t, p):
        h = p[:, 2:]
        return torch.exp(-t) * (-h + 2 * h * (1 + h / 2) - (1 - h**2) / 2)

    f = Heat(laplacian, 1 + z / 2) + PositionalSource(domain, source)
    final = integrate(f, z, [0.0, 1.0], SBDF2(dt=0.02)).x[-1]
    return float((final - z / math.e).norm() / z.norm())


def test_an_uneven_material_on_the_sphere_is_solved_with_order_two():
    errors = []
    for k in (1, 2, 3):
        mesh = icosphere(k)
        errors.append(manufactured_error(robust_laplacian(mesh), mesh, mesh.vertices, k))
    assert math.log2(errors[0] / errors[1]) > 1.8
    assert math.log2(errors[1] / errors[2]) > 1.8


def test_an_uneven_material_on_a_grid_is_solved_with_order_two():
    """κ = 1 + ½ sin x, u = e^(−t) cos x on a circle: ∂(κ ∂u) = e^(−t) (−κ cos x − ½ cos x sin x)."""
    errors = []
    for n in (16, 32, 64):
        grid = Grid(n, 2 * math.pi / n, Boundary.PERIODIC)
        x = grid.points
        kappa = 1 + torch.sin(x) / 2

        def source(t, x):
            k = 1 + torch.sin(x) / 2
            return torch.exp(-t) * (-torch.cos(x) + k * torch.cos(x) + torch.cos(x) * torch.sin(x) / 2)

        f = Heat(grid_laplacian(grid), kappa) + PositionalSource(grid, source)
        final = integrate(f, torch.cos(x), [0.0, 1.0], SBDF2(dt=0.01)).x[-1]
        errors.append(float((final - torch.cos(x) / math.e).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(
    ("method", "order"), [(BackwardEuler, 1), (CrankNicolson, 2), (BDF2, 2), (SBDF2, 2), (ETDRK2, 2), (ARK324, 3), (ETDRK4, 4)]
)
def test_forced_heat_is_solved_with_the_order_of_the_method(method, order):
    """u = cos(t) φ for an eigenvector φ: the source is −sin(t) φ + κ λ cos(t) φ."""
    grid = Grid(8, 1.0, Boundary.PERIODIC)
    L, phi = grid_laplacian(grid), torch.cos(math.pi / 4 * grid.points)
    rate = 2 - 2 * math.cos(math.pi / 4)
    f = Heat(L, 0.5) + (lambda t, u: (-torch.sin(t) + 0.5 * rate * torch.cos(t)) * phi)
    errors = []
    for dt in (0.05, 0.025) if order < 3 else (0.25, 0.125):
        final = integrate(f, phi, [0.0, 1.0], method(dt=dt)).x[-1]
        errors.append(float((final - math.cos(1.0) * phi).norm()))
    assert math.log2(errors[0] / errors[1]) > order - 0.25


def test_a_diffusivity_in_time_takes_the_integral_as_its_time():
    L = robust_laplacian(icosphere(1))
    u = torch.randn(42, 1, dtype=torch.float64)
    f = Heat(L, lambda t: 0.1 + t)
    assert f.linear is None
    found = integrate(f, u, [0.0, 1.0], Dopri5(1e-9, 1e-11)).x[-1]
    expected = integrate(Heat(L, 1.0), u, [0.0, 0.6], Exponential()).x[-1]
    assert float((found - expected).norm()) < 1e-7 * float(u.norm())
    moving = Heat(L, lambda t: 0.1 + t * torch.ones(42, 1, dtype=torch.float64))
    torch.testing.assert_close(moving(NOW, u), f(NOW, u))


def test_a_field_is_learned_through_every_kind_of_solver():
    L = robust_laplacian(icosphere(0))
    u = torch.randn(12, 1, dtype=torch.float64)
    field, along = uneven(12), torch.randn(12, 1, dtype=torch.float64)

    def loss(log, solver):
        f = Heat(L, learned(field))
        f.kappa.log_value.data.copy_(log)
        value = integrate(f, u, [0.0, 0.1], solver).x[-1].pow(3).sum()
        return value, f.kappa.log_value

    for solver in (Exponential(), SDIRK3(dt=0.05), ETDRK2(dt=0.05), RK4(dt=0.02), CaratheodoryFejer()):
        value, parameter = loss(field.log(), solver)
        (slope,) = torch.autograd.grad(value, parameter)
        h = 1e-5
        with torch.no_grad():
            quotient = (loss(field.log() + h * along, solver)[0] - loss(field.log() - h * along, solver)[0]) / (2 * h)
        assert float((slope * along).sum()) == pytest.approx(float(quotient), rel=1e-5), solver


def test_conjugate_gradients_solve_as_the_factor_does():
    L = robust_laplacian(icosphere(2))
    kappa = uneven(162)
    u = torch.randn(162, 1, dtype=torch.float64)
    by = ConjugateGradient(tolerance=1e-12, preconditioner=Jacobi())
    for f, g in ((Heat(L, kappa), Heat(L, kappa, solver=by)), (Heat(L, 0.2), Heat(L, 0.2, solver=by) + Decay(L, 0.0))):
        one, two = (integrate(h, u, [0.0, 0.2], SDIRK3(dt=0.1)).x[-1] for h in (f, g))
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


def test_an_assembled_field_is_kept_until_it_changes():
    f = Heat(robust_laplacian(icosphere(1)), uneven(42))
    first = f.linear.laplacian
    assert f.linear.laplacian is first
    f.kappa.value.mul_(2.0)
    assert f.linear.laplacian is not first
    for other in (copy.deepcopy(f), pickle.loads(pickle.dumps(f))):
        u = torch.randn(42, 1, dtype=torch.float64)
        assert torch.equal(other.linear @ u, f.linear @ u)
        single = other.to(torch.float32)
        assert single.linear.laplacian.dtype == torch.float32
        assert single(NOW, u.float()).dtype == torch.float32
    moved = Heat(robust_laplacian(icosphere(1)), lambda t: 0.5).on(icosphere(0))
    assert moved(NOW, torch.randn(12, 1, dtype=torch.float64)).shape == (12, 1)


def test_fields_that_do_not_fit_are_refused():
    L = robust_laplacian(icosphere(1))
    with pytest.raises(FieldError, match="diffusivity must be one number or a field"):
        Heat(L, torch.ones(42, dtype=torch.float64))
    with pytest.raises(ValueError, match="positive"):
        Heat(L, torch.zeros(42, 1, dtype=torch.float64))
    with pytest.raises(DomainError, match="sum to zero"):
        Heat(robust_laplacian(torus(9, 5)).symmetrized(), torch.ones(45, 1, dtype=torch.float64))
    with pytest.raises(FieldError, match="does not fit"):
        Heat(L, lambda t: torch.ones(7, 1, dtype=torch.float64))(NOW, torch.ones(42, 1, dtype=torch.float64))


def parts(L):
    return {
        "equal": Heat(L, 0.3) + Heat(L, 0.2),
        "two Laplacians": Heat(L, 0.3) + Heat(L, uneven(L.shape[0])),
        "multiples": 2.0 * Heat(L, 0.3) - Heat(L, 0.1) + Heat(L, uneven(L.shape[0])) * torch.tensor(0.5, dtype=torch.float64),
        "decay": Heat(L, 0.3) + Decay(L, 0.7),
        "decay between": Heat(L, 0.3) + Decay(L, 0.7) + Heat(L, uneven(L.shape[0])),
        "uneven decay": Decay(L, uneven(L.shape[0])) + Heat(L, 0.3),
        "growth": Heat(L, 0.3) - Decay(L, 0.2) + Decay(L, 0.1),
    }


@pytest.mark.parametrize("name", parts(robust_laplacian(icosphere(0))))
def test_sums_of_diffusions_have_solves_and_an_exponential(name):
    L = robust_laplacian(icosphere(1))
    f = parts(L)[name]
    u = torch.randn(42, 2, dtype=torch.float64)
    assert isinstance(f.linear, Diffusion)
    torch.testing.assert_close(f.linear @ u, f(NOW, u))
    y = f.linear.solve(torch.tensor(0.3, dtype=torch.float64), u)
    torch.testing.assert_close(y - 0.3 * (f.linear @ y), u)
    G = f.linear @ torch.eye(42, dtype=torch.float64)
    assert f.linear.norm_bound() >= float(torch.linalg.eigvals(G).abs().max()) * (1 - 1e-12)
    exact = torch.linalg.matrix_exp(0.3 * G) @ u
    for solver, tolerance in ((Exponential(), 1e-12), (SDIRK3(1e-4, 1e-6), 1e-3)):
        found = integrate(f, u, [0.0, 0.3], solver).x[-1]
        assert float((found - exact).norm()) < tolerance * float(u.norm())


def test_diffusions_of_other_masses_do_not_merge():
    L = robust_laplacian(icosphere(1))
    f = Heat(L) + Heat(combinatorial_laplacian(icosphere(1).graph()))
    with pytest.raises(NotImplementedError, match="no common factorisation"):
        f.linear.solve(torch.tensor(0.1), torch.ones(42, 1, dtype=torch.float64))


NEWTON = NewtonKrylov(rtol=1e-14)
IMPLICIT = [BackwardEuler, CrankNicolson, SDIRK2, SDIRK3, BDF2, RadauIIA5]
LINEAR = {
    **{method.__name__: lambda g, method=method: method(dt=0.15, gradient=g, newton=NEWTON) for method in IMPLICIT},
    **{method.__name__: lambda g, method=method: method(dt=0.15, gradient=g) for method in (SBDF2, ARK324, ETDRK2, ETDRK4)},
    "Exponential": lambda g: Exponential(gradient=g),
    "CF": lambda g: CaratheodoryFejer(gradient=g),
}


@pytest.mark.parametrize("name", LINEAR)
def test_every_solver_learns_the_diffusivity(name):
    """The first and second derivative in log κ, by central differences; no part is lost."""
    f = Heat(cotangent_laplacian(icosphere(0)), 0.7, learn=True) + Decay(cotangent_laplacian(icosphere(0)), 0.2)
    (constant,) = f.parameters()
    u = torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None]

    def slope(gradient, change=0.0, create_graph=False):
        with torch.no_grad():
            constant.add_(change)
        value = (integrate(f, u, [0.0, 0.4], LINEAR[name](gradient)).final * torch.sin(3 * u)).sum()
        return value.detach(), torch.autograd.grad(value, constant, create_graph=create_graph)[0]

    h = 1e-5
    _, first = slope(Direct(), create_graph=True)
    (second,) = torch.autograd.grad(first, constant)
    first = first.detach()
    _, again = slope(Checkpointed(snapshots=2))
    (right, right_slope), (left, left_slope) = slope(Direct(), h), slope(Direct(), -2 * h)
    # h² of the third derivative, and round-off of the values divided by h.
    assert abs(float(first - (right - left) / (2 * h))) <= 1e-7 * (1 + abs(float(first)))
    assert abs(float(second - (right_slope - left_slope) / (2 * h))) <= 1e-7 * (1 + abs(float(second)))
    assert abs(float(first - again)) <= 1e-11 * (1 + abs(float(first)))


def test_the_kit_finds_no_fault():
    few = Search(examples=5, folder=None)
    assert_right_hand_side(lambda mesh: Heat(robust_laplacian(mesh), 0.3), meshes(slivers=False), search=few)
    # A fixed field does not go to another domain.
    assert_right_hand_side(
        lambda graph: Heat(combinatorial_laplacian(graph), uneven(graph.nodes)),
        graphs(min_nodes=2),
        without=[another_domain_shares_the_parameters],
        search=few,
    )
