"""Waves keep their energy, swing at √(l(l + 1)), fade as they should, and every solver that fits them agrees."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from integrators import (
    ARK324,
    BDF2,
    ETDRK4,
    RK4,
    SBDF2,
    SDIRK3,
    BackwardEuler,
    Checkpointed,
    CrankNicolson,
    Direct,
    Dopri5,
    Exponential,
    ImplicitMidpoint,
    NewtonKrylov,
    RadauIIA5,
    StoermerVerlet,
    Strang,
    Yoshida4,
    integrate,
)
from neuralpde.coefficient import learned
from neuralpde.invariants import Law
from neuralpde.sources import Source
from neuralpde.testing import graphs, meshes
from neuralpde.testing_right_hand_side import assert_right_hand_side
from neuralpde.testing_search import Search
from neuralpde.waves import Wave, WaveEnergy
from operators import (
    Boundary,
    FieldError,
    Grid,
    combinatorial_laplacian,
    cotangent_laplacian,
    grid_laplacian,
    icosphere,
    robust_laplacian,
)

NOW = torch.tensor(0.3, dtype=torch.float64)
WAVES = {
    "wave": {},
    "Klein–Gordon": {"mass": 2.0},
    "damped": {"damping": 0.6},
    "over-damped": {"damping": 80.0},
    "critical": {"damping": 4.0, "mass": 2.0},
    "damped Klein–Gordon": {"damping": 0.6, "mass": 2.0},
}


def state(n: int, channels: int = 1, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(n, channels, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    return u, v


def matrix(part, n: int) -> np.ndarray:
    """G of a state (u, v) as a dense matrix."""
    eye = torch.eye(2 * n, dtype=torch.float64)
    return torch.cat(part @ (eye[:n], eye[n:])).numpy()


@pytest.mark.parametrize("name", WAVES)
@pytest.mark.parametrize("h", [0.7, -0.05])
def test_the_exact_flow_is_scipys(name, h):
    L = robust_laplacian(icosphere(1))
    f, x = Wave(L, 1.3, **WAVES[name]), state(42, 2)
    expected = scipy.linalg.expm(h * matrix(f.linear, 42)) @ torch.cat(x).numpy()
    found = torch.cat(f.linear.exponential(h, x)).numpy()
    # √b is how much larger v may be than u.
    assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()
    single = torch.cat(Wave(L.to(torch.float32), 1.3, **WAVES[name]).linear.exponential(h, state(42, 2, torch.float32)))
    assert single.dtype == torch.float32
    assert np.abs(single.numpy() - expected).max() <= 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", WAVES)
def test_the_linear_part_is_the_equation_and_its_solves_invert_it(name):
    f, x = Wave(robust_laplacian(icosphere(1)), 1.3, **WAVES[name]), state(42, 2)
    for one, two in zip(f(NOW, x), f.linear @ x, strict=True):
        torch.testing.assert_close(one, two)
    assert f.nonlinear is None
    assert np.linalg.norm(matrix(f.linear, 42), 2) <= 2 * f.linear.norm_bound()
    for s in (0.0, 1e-3, 0.4, 0.3 + 0.2j):
        y = f.linear.solve(torch.tensor(s, dtype=torch.complex128 if isinstance(s, complex) else torch.float64), x)
        for left, right, b in zip(y, f.linear @ y, x, strict=True):
            assert float((left - s * right - b).abs().max()) <= 1e-12 * (1 + abs(s) * f.linear.norm_bound())


@pytest.mark.parametrize("name", ["wave", "damped Klein–Gordon"])
def test_solvers_agree(name):
    L = robust_laplacian(icosphere(0))
    f, x = Wave(L, 0.8, **WAVES[name]), state(12)
    exact = torch.cat(integrate(f, x, [0.0, 1.0], Exponential()).final)
    for solver in (Dopri5(1e-6, 1e-8), RadauIIA5(1e-5, 1e-7), SDIRK3(1e-4, 1e-6)):
        found = torch.cat(integrate(f, x, [0.0, 1.0], solver).final)
        assert float((found - exact).norm()) < 1e-3 * float(exact.norm()), solver


def energy(L, x, c=1.0, m=0.0):
    return float(WaveEnergy(L, speed=c, mass=m).measure(x))


def test_the_energy_is_the_integral():
    grid = Grid(64, 2 * math.pi / 64, Boundary.PERIODIC)
    L, s = grid_laplacian(grid), grid.points
    # ½ ∫ (v² + c² u'² + m² u²) with u = sin 2s and v = cos s over a circle.
    expected = math.pi / 2 * (1 + 9 * 4 + 4)
    assert energy(L, (torch.sin(2 * s), torch.cos(s)), 3.0, 2.0) == pytest.approx(expected, rel=0.01)


def test_the_energy_of_plain_numbers_is_that_of_double_precision():
    L, x = robust_laplacian(icosphere(0)), state(12)
    exact = WaveEnergy(L, speed=torch.tensor(0.1, dtype=torch.float64), mass=torch.tensor(0.7, dtype=torch.float64))
    assert energy(L, x, 0.1, 0.7) == pytest.approx(float(exact.measure(x)), rel=1e-15)


@pytest.mark.parametrize("kind", [{}, {"mass": 2.0}])
def test_the_energy_is_kept_for_long(kind):
    L = robust_laplacian(icosphere(2))
    f, (u, v) = Wave(L, 1.5, **kind), state(162)
    x = (L.solve(0.1, u), L.solve(0.1, v))
    (declared,) = f.invariants
    assert declared.law is Law.CONSERVED
    t = torch.linspace(0, 200, 101, dtype=torch.float64)
    assert declared.violation(integrate(f, x, t, Exponential()).x) < 1e-11
    # The midpoint rule keeps every quadratic invariant.
    assert declared.violation(integrate(f, x, t[:11], ImplicitMidpoint(dt=1.0)).x) < 1e-11
    # Within (ω dt)²/4 of the fastest mode for Verlet, without a trend; its fourth power for Yoshida.
    top = 1.5 * math.sqrt(L.largest_eigenvalue() + 2)
    for solver, wobble in ((StoermerVerlet(dt=0.3 / top), 0.3**2 / 4), (Yoshida4(dt=0.3 / top), 0.3**4)):
        path = integrate(f, x, t[:6], solver).x
        assert declared.violation(path) < wobble


@given(data=st.data(), damping=st.sampled_from([0.1, 1.0, 100.0]), mass=st.sampled_from([0.0, 3.0]))
def test_damping_only_takes_energy_away(data, damping, mass):
    L = data.draw(st.one_of(graphs(min_nodes=2).map(combinatorial_laplacian), meshes(slivers=False).map(robust_laplacian)))
    f = Wave(L, 1.0, damping=damping, mass=mass)
    (declared,) = f.invariants
    assert declared.law is Law.NON_INCREASING
    assert f.dissipative
    top = math.sqrt(L.norm_bound() + mass**2) + damping
    path = integrate(f, state(L.shape[0]), torch.linspace(0, 3 / max(top, 1e-3), 4, dtype=torch.float64), Exponential()).x
    assert declared.violation(path) < 1e-11


def test_a_layer_that_absorbs():
    """γ only at some nodes: no exact flow, but the energy falls, and where γ is zero everywhere it is the plain wave."""
    L = robust_laplacian(icosphere(1))
    gamma = torch.zeros(42, 1, dtype=torch.float64)
    gamma[:10] = 5.0
    f, x = Wave(L, 1.0, damping=gamma), state(42)
    assert f.linear is None
    (declared,) = f.invariants
    path = integrate(f, x, torch.linspace(0, 5, 11, dtype=torch.float64), Dopri5(1e-8, 1e-10)).x
    assert declared.violation(path) < 1e-7
    assert float(declared.measure(path)[-1]) < 0.8 * float(declared.measure(path)[0])


def test_friction_is_refused_by_verlet_with_a_cure():
    f = Wave(robust_laplacian(icosphere(0)), damping=0.5)
    with pytest.raises(ValueError, match="friction"):
        integrate(f, state(12), [0.0, 1.0], StoermerVerlet(dt=0.01))
    split = Wave(f.laplacian) + (lambda t, x: (0 * x[0], -0.5 * x[1]))
    flows = (Exponential(), lambda t, h, x: (x[0], math.exp(-0.5 * h) * x[1]))
    found = integrate(split, state(12), [0.0, 1.0], Strang(dt=0.01, flows=flows)).final
    expected = integrate(f, state(12), [0.0, 1.0], Exponential()).final
    assert float((torch.cat(found) - torch.cat(expected)).abs().max()) < 1e-4


def fitted_frequency(degree: int, refinements: int, mass: float = 0.0) -> float:
    """ω of a spherical harmonic from u(t + δ) + u(t − δ) = 2 cos(ωδ) u(t), over a path."""
    mesh = icosphere(refinements)
    L = robust_laplacian(mesh)
    x, y, z = mesh.vertices.T
    u0 = {1: z, 2: 3 * z**2 - 1, 3: x * y * z}[degree][:, None]
    delta = 0.2
    path = integrate(Wave(L, mass=mass), (u0, torch.zeros_like(u0)), delta * torch.arange(9.0), Exponential(tol=1e-10)).x[0]
    height = torch.stack([L.inner(u0, u) for u in path])
    cosine = (height[1:-1] * (height[2:] + height[:-2])).sum() / (2 * height[1:-1] ** 2).sum()
    return math.acos(float(cosine)) / delta


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("mass", [0.0, 2.0])
def test_waves_on_the_sphere_swing_at_their_eigenvalue_with_order_two(degree, mass):
    expected = math.sqrt(degree * (degree + 1) + mass**2)
    coarse, middle, fine = (abs(fitted_frequency(degree, k, mass) / expected - 1) for k in (2, 3, 4))
    assert fine < 2e-3
    assert math.log2(coarse / middle) > 1.8
    assert math.log2(middle / fine) > 1.8


def test_dispersion_on_a_grid_is_of_order_two_in_space_and_time():
    """u = cos(x − t) on a circle."""
    errors = []
    for n in (16, 32, 64):
        grid = Grid(n, 2 * math.pi / n, Boundary.PERIODIC)
        x = grid.points
        start = (torch.cos(x), torch.sin(x))
        found = integrate(Wave(grid_laplacian(grid)), start, [0.0, 2.0], StoermerVerlet(dt=1.6 / n)).final[0]
        errors.append(float((found - torch.cos(x - 2.0)).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.15)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.15)


def test_a_speed_in_time():
    L = robust_laplacian(icosphere(1))
    x = state(42)
    f = Wave(L, lambda t: 1.3 + 0 * t)
    assert f.linear is None
    assert f.invariants == ()
    found = integrate(f, x, [0.0, 0.5], Dopri5(1e-9, 1e-11)).final
    expected = integrate(Wave(L, 1.3), x, [0.0, 0.5], Exponential()).final
    assert float((torch.cat(found) - torch.cat(expected)).abs().max()) < 1e-6


def test_it_splits_into_drift_and_force():
    f = Wave(cotangent_laplacian(icosphere(1)), 1.3, mass=0.7)
    u, v = state(42)
    du, dv = f(NOW, (u, v))
    assert torch.equal(du, f.drift(NOW, v))
    assert torch.equal(dv, f.force(NOW, u))


@pytest.mark.parametrize("name", ["speed", "damping", "mass"])
@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_constants_must_fit(name, value):
    with pytest.raises(ValueError, match=f"{name} must"):
        Wave(cotangent_laplacian(icosphere(0)), **{name: value})


def test_on_shares_the_parameters():
    f = Wave(robust_laplacian(icosphere(1)), learned(1.3), damping=learned(0.2))
    g = f.on(icosphere(0))
    assert g.c.log_value is f.c.log_value
    assert len(list(g.parameters())) == 2
    assert g(NOW, state(12))[1].shape == (12, 1)
    assert float(g.speed.detach()) == pytest.approx(1.3)
    assert float(g.damping.detach()) == pytest.approx(0.2)


NEWTON = NewtonKrylov(rtol=1e-14)
SOLVERS = {
    **{
        method.__name__: lambda g, method=method: method(dt=0.15, gradient=g, newton=NEWTON)
        for method in (BackwardEuler, CrankNicolson, SDIRK3, BDF2, RadauIIA5)
    },
    **{method.__name__: lambda g, method=method: method(dt=0.15, gradient=g) for method in (SBDF2, ARK324, ETDRK4)},
    "Exponential": lambda g: Exponential(gradient=g),
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["wave", "damped Klein–Gordon"])
def test_every_solver_learns_every_constant(kind, solver):
    """First and second derivatives, through `linear` and its solves, by central differences; no part is lost."""
    L = cotangent_laplacian(icosphere(0))
    constants = {"damping": learned(0.4), "mass": learned(1.5)} if kind != "wave" else {}
    f = Wave(L, learned(0.7), **constants)
    parameters = list(f.parameters())
    u = torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None]

    def slope(gradient, change=0.0, create_graph=False):
        with torch.no_grad():
            for p in parameters:
                p.add_(change)
        final = integrate(f, (u, u.flip(0) ** 2), [0.0, 0.4], SOLVERS[solver](gradient)).final
        value = sum((part * torch.sin(3 * u)).sum() for part in final)
        return value.detach(), sum(torch.autograd.grad(value, parameters, create_graph=create_graph))

    h = 1e-5
    _, first = slope(Direct(), create_graph=True)
    second = sum(torch.autograd.grad(first, parameters))
    first = first.detach()
    _, again = slope(Checkpointed(snapshots=2))
    (right, right_slope), (left, left_slope) = slope(Direct(), h), slope(Direct(), -2 * h)
    assert abs(float(first - (right - left) / (2 * h))) <= 1e-7 * (1 + abs(float(first)))
    assert abs(float(second - (right_slope - left_slope) / (2 * h))) <= 1e-7 * (1 + abs(float(second)))
    assert abs(float(first - again)) <= 1e-11 * (1 + abs(float(first)))


def test_a_driven_wave_resonates():
    """u″ = −ω² φ + cos(ωt) φ from rest is t sin(ωt)/(2ω) φ."""
    grid = Grid(8, 1.0, Boundary.PERIODIC)
    L, phi = grid_laplacian(grid), torch.cos(math.pi / 4 * grid.points)
    omega = math.sqrt(2 - 2 * math.cos(math.pi / 4))
    drive = Source(L, lambda t: torch.cos(omega * t) * phi)
    f = Wave(L) + (lambda t, x: (0 * x[0], drive(t, x[1])))
    u, _ = integrate(f, (0 * phi, 0 * phi), [0.0, 5.0], ETDRK4(dt=0.05)).final
    torch.testing.assert_close(u, 5 * math.sin(5 * omega) / (2 * omega) * phi, rtol=1e-5, atol=1e-5)


def test_the_kit_finds_no_fault():
    few = Search(examples=4, folder=None)
    assert_right_hand_side(
        lambda mesh: Wave(robust_laplacian(mesh), 1.3, damping=0.5, mass=0.3), meshes(slivers=False), search=few
    )


@pytest.mark.parametrize("state", [torch.ones(12, 1, dtype=torch.float64), (torch.ones(12, 1, dtype=torch.float64),) * 3])
@pytest.mark.parametrize("solver", [None, RK4(dt=0.1)])
def test_a_state_that_is_no_pair_is_named(state, solver):
    with pytest.raises(FieldError, match=r"the state is the tuple \(u, v\)"):
        integrate(Wave(robust_laplacian(icosphere(0))), state, [0.0, 0.2], solver)
