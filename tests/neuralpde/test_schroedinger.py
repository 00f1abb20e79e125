"""Schrödinger's equation: plane waves, the oscillator's ground state, and what it keeps."""

import cmath
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from integrators import ETDRK4, RK4, CrankNicolson, Dopri5, Exponential, ImplicitMidpoint, RadauIIA5, Strang, integrate
from neuralpde.coefficient import learned
from neuralpde.invariants import Law, Norm
from neuralpde.schroedinger import Schroedinger, SchroedingerEnergy
from neuralpde.testing import graphs, meshes
from neuralpde.testing_right_hand_side import assert_right_hand_side
from neuralpde.testing_search import Search
from operators import Boundary, Grid, combinatorial_laplacian, grid_laplacian, icosphere, robust_laplacian

NOW = torch.tensor(0.3, dtype=torch.float64)


def drawn(n: int, channels: int = 1) -> torch.Tensor:
    return torch.randn(n, channels, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))


@given(data=st.data(), h=st.sampled_from([0.3, 30.0, -2.0]))
def test_the_exact_flow_is_the_matrix_exponential_and_keeps_norm_and_energy(data, h):
    L = data.draw(st.one_of(graphs(min_nodes=2).map(combinatorial_laplacian), meshes(slivers=False).map(robust_laplacian)))
    n = L.shape[0]
    V = torch.randn(n, 1, dtype=torch.float64)
    f, psi = Schroedinger(L, 0.5, V * L.norm_bound()), drawn(n, 2)
    time = h / max(f.linear.norm_bound(), 1e-3)
    new = f.linear.exponential(time, psi)
    H = 0.5 * L.matrix() + torch.diag(V[:, 0] * L.norm_bound())
    root = L.mass.sqrt()
    values, vectors = torch.linalg.eigh(root[:, None] * H / root)
    vectors = (vectors / root[:, None]).to(psi.dtype)
    expected = vectors @ (torch.exp(-1j * time * values)[:, None] * (vectors.mT * L.mass) @ psi)
    size = float((L.mass[:, None] * psi.abs() ** 2).sum().sqrt())
    error = float((L.mass[:, None] * (new - expected).abs() ** 2).sum().sqrt())
    assert error <= 1e-12 * size * (1 + abs(h))
    norm, energy = f.invariants
    assert (type(norm), type(energy)) == (Norm, SchroedingerEnergy)
    path = torch.stack([psi, new])
    assert norm.violation(path) < 1e-12 * (1 + abs(h))
    assert energy.violation(path) < 1e-12 * (1 + abs(h))


@pytest.mark.parametrize("uneven", [False, True])
def test_a_parameter_of_ones_own_may_be_a_negative_dispersion(uneven):
    """A negative effective mass: over a long time too, where the series is long."""
    L = robust_laplacian(icosphere(0))
    V = torch.linspace(-1, 2, 12, dtype=torch.float64)[:, None] if uneven else torch.tensor(0.3, dtype=torch.float64)
    f, psi = Schroedinger(L, torch.nn.Parameter(torch.tensor(-0.5, dtype=torch.float64)), V), drawn(12)
    H = -0.5 * L.matrix() + torch.diag(V.expand(12, 1)[:, 0])
    with torch.no_grad():
        path = torch.stack([psi, f.linear.exponential(40.0, psi)])
        torch.testing.assert_close(path[1], torch.linalg.matrix_exp(-40j * H) @ psi, rtol=1e-10, atol=1e-10)
        y = f.linear.solve(torch.tensor(0.2, dtype=torch.float64), psi)
        torch.testing.assert_close(y + 0.2j * (H.to(y.dtype) @ y), psi)
    assert f.linear.norm_bound() >= float(torch.linalg.eigvals(H).abs().max())
    for invariant in f.invariants:
        assert invariant.violation(path) < 1e-11, invariant.name


def test_a_plane_wave_turns_at_its_energy():
    """ψ = exp(i(kx − ωt)) with ω = α (2 − 2 cos kΔ)/Δ² + V on a periodic grid."""
    step = 2 * math.pi / 32
    grid = Grid(32, torch.tensor([step], dtype=torch.float64), Boundary.PERIODIC)
    x = grid.points
    for k in (1, 5):
        omega = 0.5 * (2 - 2 * math.cos(k * step)) / step**2 + 0.3
        psi = torch.exp(1j * k * x)
        found = integrate(Schroedinger(grid_laplacian(grid), 0.5, 0.3), psi, [0.0, 7.0], Exponential()).final
        torch.testing.assert_close(found, psi * cmath.exp(-7j * omega), rtol=1e-11, atol=1e-11)


def oscillator_energy_error(n: int) -> float:
    """How far the energy of the ground state exp(−x²/2) of V = x²/2 lies from ½."""
    grid = Grid(n, 16.0 / n, Boundary.NEUMANN)
    x = grid.points - 8.0
    f = Schroedinger(grid_laplacian(grid), 0.5, x**2 / 2)
    psi = torch.exp(-(x**2) / 2).to(torch.complex128)
    final = integrate(f, psi, [0.0, 2.0], Exponential()).final
    overlap = (psi.conj() * final).sum() / (psi.conj() * psi).sum()
    assert float(overlap.abs()) > 0.99
    return abs(float(-overlap.angle()) / 2.0 - 0.5)


def test_the_oscillators_ground_state_has_energy_one_half_with_order_two():
    coarse, middle, fine = (oscillator_energy_error(n) for n in (40, 80, 160))
    assert fine < 1e-3
    assert math.log2(coarse / middle) == pytest.approx(2, abs=0.2)
    assert math.log2(middle / fine) == pytest.approx(2, abs=0.1)


def test_on_the_sphere_harmonics_turn_at_their_eigenvalue_with_order_two():
    errors = []
    for k in (2, 3, 4):
        mesh = icosphere(k)
        L = robust_laplacian(mesh)
        u = (3 * mesh.vertices[:, 2:] ** 2 - 1).to(torch.complex128)
        final = integrate(Schroedinger(L, 0.5), u, [0.0, 0.5], Exponential(tol=1e-9)).final
        errors.append(abs(float(-(L.inner(u, final) / L.inner(u, u)).angle()) / 0.5 - 3.0))
    assert errors[-1] < 0.01
    assert math.log2(errors[0] / errors[1]) > 1.8
    assert math.log2(errors[1] / errors[2]) > 1.8


def test_solvers_agree_and_keep_what_they_should():
    L = robust_laplacian(icosphere(1))
    V = torch.linspace(-2, 3, 42, dtype=torch.float64)[:, None]
    f, psi = Schroedinger(L, 0.5, V), drawn(42, 2)
    exact = integrate(f, psi, [0.0, 0.5], Exponential()).final
    for solver in (Dopri5(1e-6, 1e-8), RadauIIA5(1e-5, 1e-7), CrankNicolson(dt=0.01)):
        found = integrate(f, psi, [0.0, 0.5], solver).final
        assert float((found - exact).norm()) < 5e-3 * float(exact.norm()), solver
    t = torch.linspace(0, 100, 11, dtype=torch.float64)
    for solver in (Exponential(), ImplicitMidpoint(dt=1.0), CrankNicolson(dt=1.0, damped=0)):
        path = integrate(f, psi, t, solver).x
        for invariant in f.invariants:
            assert invariant.law is Law.CONSERVED
            assert invariant.violation(path) < 1e-11, (solver, invariant.name)


def test_the_linear_part_is_the_equation_and_its_solves_invert_it():
    L = robust_laplacian(icosphere(1))
    psi = drawn(42, 2)
    V = torch.linspace(-2, 3, 42, dtype=torch.float64)[:, None]
    for potential in (0.0, -1.5, V):
        f = Schroedinger(L, 0.7, potential)
        assert f.nonlinear is None
        torch.testing.assert_close(f.linear @ psi, f(NOW, psi))
        for s in (0.0, 0.4, 0.3 + 0.2j):
            y = f.linear.solve(torch.tensor(s, dtype=torch.complex128), psi)
            torch.testing.assert_close(y - s * (f.linear @ y), psi)
    moving = Schroedinger(L, 0.7, lambda t: t * V)
    torch.testing.assert_close(moving.linear @ psi + moving.nonlinear(NOW, psi), moving(NOW, psi))
    assert [type(i) for i in moving.invariants] == [Norm]


def test_a_potential_in_time_is_split_off():
    """V(t) = cos t, the same everywhere, only turns the phase by sin t."""
    L = robust_laplacian(icosphere(1))
    f, psi = Schroedinger(L, 0.5, lambda t: torch.cos(t)), drawn(42)
    expected = integrate(Schroedinger(L, 0.5), psi, [0.0, 1.0], Exponential()).final * cmath.exp(-1j * math.sin(1.0))
    split = Strang(dt=0.02, flows=(Exponential(), RK4(dt=0.02)))
    for solver, tolerance in ((split, 1e-3), (ETDRK4(dt=0.05), 1e-4), (Dopri5(1e-8, 1e-10), 1e-5)):
        found = integrate(f, psi, [0.0, 1.0], solver).final
        assert float((found - expected).norm()) < tolerance * float(psi.norm()), solver


def test_potential_and_dispersion_are_learned():
    L = robust_laplacian(icosphere(0))
    field, along, psi = torch.randn(12, 1, dtype=torch.float64), torch.randn(12, 1, dtype=torch.float64), drawn(12)
    weights = torch.rand(12, 1, dtype=torch.float64)

    def loss(V, log_alpha, solver):
        f = Schroedinger(L, torch.nn.Parameter(torch.exp(log_alpha)), torch.nn.Parameter(V))
        value = (weights * integrate(f, psi, [0.0, 0.3], solver).final.abs() ** 2).sum()
        return value, [f.V.value, f.alpha.value]

    start = torch.tensor(-0.5, dtype=torch.float64)
    for solver in (Exponential(), CrankNicolson(dt=0.05), RK4(dt=0.05)):
        value, parameters = loss(field, start, solver)
        slopes = torch.autograd.grad(value, parameters)
        h = 1e-5
        with torch.no_grad():
            along_V = (loss(field + h * along, start, solver)[0] - loss(field - h * along, start, solver)[0]) / (2 * h)
            along_alpha = (loss(field, start + h, solver)[0] - loss(field, start - h, solver)[0]) / (2 * h)
        assert float((slopes[0] * along).sum()) == pytest.approx(float(along_V), rel=1e-4, abs=1e-7), solver
        assert float(slopes[1] * torch.exp(start)) == pytest.approx(float(along_alpha), rel=1e-4, abs=1e-7), solver


def test_single_precision_another_domain_and_real_states():
    f = Schroedinger(robust_laplacian(icosphere(1)), learned(0.5))
    moved = f.on(icosphere(0))
    assert moved.alpha.log_value is f.alpha.log_value
    assert moved(NOW, drawn(12)).shape == (12, 1)
    with pytest.raises(TypeError, match="complex"):
        f(NOW, torch.ones(42, 1, dtype=torch.float64))
    expected = integrate(f, drawn(42), [0.0, 0.5], Exponential()).final
    single = f.to(torch.float32)
    found = integrate(single, drawn(42).to(torch.complex64), [0.0, 0.5], Exponential()).final
    assert found.dtype == torch.complex64
    torch.testing.assert_close(found.to(torch.complex128), expected, rtol=1e-4, atol=1e-4)


def test_the_kit_finds_no_fault():
    few = Search(examples=4, folder=None)
    states = lambda f, domain, generator: torch.randn(domain.num_nodes, 2, dtype=torch.complex128, generator=generator)  # noqa: E731
    assert_right_hand_side(
        lambda mesh: Schroedinger(robust_laplacian(mesh), 0.5, -0.3), meshes(slivers=False), states=states, search=few
    )
