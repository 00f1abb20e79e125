"""Heat keeps mass and bounds, only loses energy, and decays spherical harmonics at l(l + 1)."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from neuralpde import (
    ARK324,
    BDF2,
    ETDRK2,
    ETDRK4,
    SBDF2,
    SDIRK2,
    SDIRK3,
    BackwardEuler,
    CaratheodoryFejer,
    Checkpointed,
    CrankNicolson,
    Direct,
    DirichletEnergy,
    Dopri5,
    Exponential,
    Heat,
    Law,
    Mass,
    MaximumPrinciple,
    NewtonKrylov,
    Norm,
    RadauIIA5,
    Rayleigh,
    combinatorial_laplacian,
    cotangent_laplacian,
    icosphere,
    integrate,
    robust_laplacian,
    torus,
)
from neuralpde.equations import AllenCahn, CahnHilliard, Wave
from neuralpde.testing import fields, graphs, meshes, roundoff

LAPLACIANS = st.one_of(
    graphs(weights=("ones", "dyadic")).map(combinatorial_laplacian), meshes(slivers=False).map(robust_laplacian)
)


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


@pytest.mark.parametrize("step", [1e-3, 1.0, 1e3])
def test_bounds_and_mass_on_real_meshes(real_mesh, step):
    laplacian = robust_laplacian(real_mesh)
    u0 = torch.rand(laplacian.shape[0], 1, dtype=torch.float64)
    # Units of area: every mesh has its own.
    dt = step * float(laplacian.mass.sum()) / 100
    with torch.no_grad():
        path = integrate(Heat(laplacian), u0, [0.0, dt, 2 * dt], BackwardEuler(dt)).x
    assert MaximumPrinciple(laplacian, Law.NON_INCREASING).violation(path) < 1e-9
    assert Mass(laplacian).violation(path) < 1e-7


HARMONICS = {
    1: lambda x, y, z: z,
    2: lambda x, y, z: 3 * z**2 - 1,
    3: lambda x, y, z: x * y * z,
}


def decay_error(degree: int, refinements: int, radius: float = 1.0) -> float:
    """The relative error of the field at time r²/(l(l+1)), when the exact one has fallen to 1/e."""
    mesh = icosphere(refinements, radius)
    u0 = HARMONICS[degree](*(mesh.vertices / radius).T)[:, None]
    time = radius**2 / (degree * (degree + 1))
    path = integrate(Heat(robust_laplacian(mesh)), u0, [0.0, time], Exponential()).x
    return float((path[1] - u0 / math.e).norm() / u0.norm())


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_spherical_harmonics_decay_at_their_eigenvalue(degree):
    coarse, fine = decay_error(degree, 2), decay_error(degree, 3)
    assert fine < 0.008
    # The mesh is of order 2.
    assert fine < coarse / 3
    assert decay_error(degree, 2, 5.0) == pytest.approx(coarse, rel=1e-6)


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
    assert not Heat(laplacian).log_diffusivity.requires_grad
    heat = Heat(laplacian, 0.5, learn=True)
    u0 = torch.randn(42, 1, dtype=torch.float64)
    gradients = []
    for solver in (Exponential(), BackwardEuler(0.005), Dopri5(1e-8, 1e-10)):
        heat.zero_grad()
        integrate(heat, u0, [0.0, 0.1], solver).x[-1].square().sum().backward()
        gradients.append(float(heat.log_diffusivity.grad))
    h = 1e-5
    both = [
        float(integrate(Heat(laplacian, 0.5 * math.exp(s)), u0, [0.0, 0.1], Exponential()).x[-1].square().sum())
        for s in (h, -h)
    ]
    expected = (both[0] - both[1]) / (2 * h)
    assert gradients[0] == pytest.approx(expected, rel=1e-6)
    assert gradients[2] == pytest.approx(expected, rel=1e-4)
    assert gradients[1] == pytest.approx(expected, rel=0.05)


def test_on_shares_the_diffusivity():
    heat = Heat(robust_laplacian(icosphere(1)), 0.5, learn=True)
    moved = heat.on(torus(9, 5))
    assert moved.log_diffusivity is heat.log_diffusivity
    assert moved.linear.laplacian is moved.laplacian
    assert moved.laplacian.shape == (45, 45)


def test_mass_is_declared_only_where_constants_are_killed():
    uneven = robust_laplacian(torus(9, 5)).symmetrized()
    assert Mass not in {type(i) for i in Heat(uneven).invariants}
    assert Heat(uneven).dissipative


@pytest.mark.parametrize("kappa", [0.0, -1.0, math.nan, math.inf])
def test_backward_heat_is_refused(kappa):
    with pytest.raises(ValueError, match=r"diffusivity must be positive and finite.*ill-posed"):
        Heat(robust_laplacian(icosphere(0)), kappa)


def both(x):
    return x if isinstance(x, tuple) else (x,)


def equations():
    L = cotangent_laplacian(icosphere(1))
    return {
        "heat": Heat(L, 0.7),
        "wave": Wave(L, 1.3),
        "Allen–Cahn": AllenCahn(L, 0.3),
        "Cahn–Hilliard": CahnHilliard(L, 0.3),
        "a sum": Heat(L, 0.1) + (lambda t, u: t * u**2),
        "a multiple": 2.5 * CahnHilliard(L, 0.3),
    }


@pytest.mark.parametrize("name", equations().keys())
def test_the_linear_and_the_nonlinear_part_are_the_equation_and_the_solves_invert_the_linear_one(name):
    f, n = equations()[name], 42
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(n, 2, dtype=torch.float64, generator=generator) for _ in range(2))
    x = (u, v) if name == "wave" else u
    t = torch.tensor(0.3, dtype=torch.float64)
    rest = f.nonlinear
    assert (rest is None) == (name in ("heat", "wave"))
    for whole, linear, other in zip(both(f(t, x)), both(f.linear @ x), both(rest(t, x)) if rest else (0, 0), strict=False):
        assert float((whole - linear - other).abs().max()) <= 1e-12 * float(whole.abs().max())
    for s in (0.0, 1e-3, 0.4):
        y = f.linear.solve(torch.tensor(s, dtype=torch.float64), x)
        for left, right, b in zip(both(y), both(f.linear @ y), both(x), strict=True):
            # Round-off of G y, whose norm is about s‖G‖ times that of y.
            assert float((left - s * right - b).abs().max()) <= 1e-13 * (1 + s * f.linear.norm_bound())


def test_linear_parts_that_have_no_common_factorisation_say_so():
    L = cotangent_laplacian(icosphere(1))
    f = Heat(L) + AllenCahn(L, 0.3)
    with pytest.raises(NotImplementedError, match="no common factorisation"):
        f.linear.solve(torch.tensor(0.1), torch.ones(42, 1, dtype=torch.float64))


def test_the_wave_splits_into_drift_and_force():
    f = equations()["wave"]
    u, v = torch.randn(42, 1, dtype=torch.float64), torch.randn(42, 1, dtype=torch.float64)
    du, dv = f(torch.tensor(0.0), (u, v))
    assert torch.equal(du, f.drift(0.0, v))
    assert torch.equal(dv, f.force(0.0, u))


@pytest.mark.parametrize(("equation", "name"), [(Wave, "speed"), (AllenCahn, "width"), (CahnHilliard, "width")])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_constants_must_be_positive(equation, name, value):
    with pytest.raises(ValueError, match=f"{name} must be positive and finite"):
        equation(cotangent_laplacian(icosphere(0)), value)


NEWTON = NewtonKrylov(rtol=1e-14)
IMPLICIT = [BackwardEuler, CrankNicolson, SDIRK2, SDIRK3, BDF2, RadauIIA5]
LINEAR = {
    **{method.__name__: lambda g, method=method: method(dt=0.15, gradient=g, newton=NEWTON) for method in IMPLICIT},
    **{method.__name__: lambda g, method=method: method(dt=0.15, gradient=g) for method in (SBDF2, ARK324, ETDRK2, ETDRK4)},
}
EXACT = {"Exponential": lambda g: Exponential(gradient=g)}
LEARNED = {
    "heat": (lambda L: Heat(L, 0.7, learn=True), {**LINEAR, **EXACT, "CF": lambda g: CaratheodoryFejer(gradient=g)}),
    "wave": (lambda L: Wave(L, 0.7, learn=True), {**LINEAR, **EXACT}),
    "Allen–Cahn": (lambda L: AllenCahn(L, 0.6), LINEAR),
    "Cahn–Hilliard": (lambda L: CahnHilliard(L, 0.3), LINEAR),
}


@pytest.mark.parametrize(("equation", "solver"), [(name, solver) for name in LEARNED for solver in LEARNED[name][1]])
def test_every_solver_learns_the_constant_of_every_equation(equation, solver):
    """The first and second derivative in it, through `linear` and its solves, by central differences; no part is lost."""
    make, solvers = LEARNED[equation]
    f = make(cotangent_laplacian(icosphere(0)))
    (constant,) = (p.requires_grad_() for p in f.parameters())
    u = torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None]
    x0 = (u, u.flip(0) ** 2) if equation == "wave" else u

    def slope(gradient, change=0.0, create_graph=False):
        with torch.no_grad():
            constant.add_(change)
        final = both(integrate(f, x0, [0.0, 0.4], solvers[solver](gradient)).final)
        value = sum((part * torch.sin(3 * u)).sum() for part in final)
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


def test_cahn_hilliards_energy_falls_and_its_mass_stays_on_real_meshes(real_mesh):
    """E(u) = ε²/2 ⟨u, L u⟩ + ¼ ∫ (u² − 1)², from noise, in steps of ε²."""
    L = robust_laplacian(real_mesh)
    n, area = L.shape[0], float(L.mass.sum())
    width = 3 * math.sqrt(area / n)
    u0 = 0.1 * torch.randn(n, 1, dtype=torch.float64)
    with torch.no_grad():
        u = integrate(CahnHilliard(L, width), u0, width**2 * torch.arange(11, dtype=torch.float64), SBDF2(dt=width**2)).x
        wells = (L.mass[:, None] * (u**2 - 1) ** 2).sum((1, 2)) / 4
        energy = wells + 0.5 * width**2 * torch.stack([L.inner(v, L @ v).sum() for v in u])
        mass = (L.mass[:, None] * u).sum((1, 2))
    assert float(energy.diff().max()) < 0
    # Round-off of one solve and one sum a step, where the entries reach at most `largest`.
    largest = float(u.abs().max())
    assert float((mass - mass[0]).abs().max()) <= 10 * n * roundoff(u.dtype) * largest * area
