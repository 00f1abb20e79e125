"""Metriplectic flows: what they keep, how fast they may lose it, and that one flow holds on every surface."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from integrators import Dopri5, Exponential, StoermerVerlet, integrate
from neuralpde.heat import Heat
from neuralpde.invariants import DirichletEnergy, Law, Mass, Norm, Rayleigh
from neuralpde.metriplectic import MetriplecticFlow, MetriplecticWave, OscillationEnergy
from neuralpde.testing import assert_conserved, assert_dissipated, fields, graphs, meshes
from neuralpde.testing_right_hand_side import assert_right_hand_side
from neuralpde.testing_search import Search
from operators import (
    FieldError,
    Laplacian,
    bumpy,
    cotangent_laplacian,
    icosphere,
    normalized_laplacian,
    rayleigh_quotient,
    robust_laplacian,
    symmetric_laplacian,
    torus,
)

NOW = torch.zeros((), dtype=torch.float64)
L = robust_laplacian(bumpy(icosphere(1), 0.2))
N = L.shape[0]
LAPLACIANS = st.one_of(
    graphs(min_nodes=2).map(symmetric_laplacian),
    meshes(slivers=False).map(lambda mesh: normalized_laplacian(robust_laplacian(mesh))),
)
COEFFICIENTS = st.lists(st.floats(0.0, 2.0), min_size=0, max_size=3)
FEW = Search(examples=5, folder=None)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def path(f, x, steps=6, h=0.4):
    with torch.no_grad():
        return integrate(f, x, h * torch.arange(steps + 1, dtype=torch.float64), Exponential()).x


def heat_like(laplacian: Laplacian):
    return MetriplecticFlow(laplacian, 0.1, (1.0, 0.3))


def turning(laplacian: Laplacian):
    return MetriplecticFlow(laplacian, 0.1, (0.5,), width=3, rotation=2, scale=0.5)


def wave(laplacian: Laplacian):
    return MetriplecticWave(laplacian, 0.2, (1.0, 0.1))


def damped_wave(laplacian: Laplacian):
    return MetriplecticWave(laplacian, 0.2, (1.0,), (0.2, 0.1))


@pytest.mark.parametrize("make", [heat_like, turning, wave, damped_wave])
def test_the_laws_of_right_hand_sides(make):
    """What is declared holds at once and along a path, the linear part solves, and other domains share the parameters."""
    assert_right_hand_side(make, search=FEW)


@settings(max_examples=12, deadline=None)
@given(data=st.data(), dissipation=COEFFICIENTS, seed=st.integers(0, 9))
def test_every_learned_flow_keeps_its_promises(data, dissipation, seed):
    """Whatever ρ ≥ 0 and W are, norm, Rayleigh quotient and energy never rise; without ρ all three stay."""
    laplacian = data.draw(LAPLACIANS)
    torch.manual_seed(seed)
    f = MetriplecticFlow(laplacian, 0.7, dissipation, width=2, rotation=2, scale=1.0)
    x = data.draw(fields(laplacian.shape[0], 2))
    x = path(f, x)
    declared = {type(i): i.law for i in f.invariants}
    kept = not any(dissipation)
    assert all(declared[q] is (Law.CONSERVED if kept else Law.NON_INCREASING) for q in (Norm, Rayleigh, DirichletEnergy))
    for invariant in f.invariants:
        assert invariant.violation(x) <= 1e-10, invariant.name


@settings(max_examples=12, deadline=None)
@given(data=st.data(), dissipation=st.lists(st.floats(0.0, 2.0), min_size=1, max_size=3))
def test_the_rayleigh_quotient_falls_at_its_rate(data, dissipation):
    """dR_q/dt = −2 Cov(λ, r(λ)) is the derivative along f, and lies in [−2 Var(λ) max r′, 0]."""
    laplacian = data.draw(LAPLACIANS)
    f = MetriplecticFlow(laplacian, 0.7, dissipation, width=2, rotation=1)
    x = noise(laplacian.shape[0], 2, seed=len(dissipation))
    rate = f.rayleigh_rate(x).detach()
    _, along = torch.func.jvp(lambda y: rayleigh_quotient(laplacian, y), (x,), (f(NOW, x).detach(),))
    top = laplacian.norm_bound()
    steepest = sum(k * rho * (0.7 * top) ** (k - 1) for k, rho in enumerate(dissipation, start=1))
    Lx, size = laplacian(x), laplacian.inner(x, x)
    variance = laplacian.inner(Lx, Lx) / size - rayleigh_quotient(laplacian, x) ** 2
    slack = 1e-12 * (1 + top**2) * (1 + steepest)
    assert float((rate - along).abs()) <= slack
    assert -float(2 * variance.clamp(min=0) * steepest) - slack <= float(rate) <= slack


@settings(max_examples=12, deadline=None)
@given(data=st.data(), stiffness=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=3), damping=COEFFICIENTS)
def test_the_energy_of_waves_falls_no_faster_than_it_may(data, stiffness, damping):
    """−2 d(λ_max) H ≤ dH/dt ≤ 0 whatever is learned, so e^(−2dt) H₀ ≤ H(t) ≤ H₀, equal without damping."""
    laplacian = data.draw(LAPLACIANS)
    f = MetriplecticWave(laplacian, 0.5, stiffness, damping)
    x = (noise(laplacian.shape[0], 1), noise(laplacian.shape[0], 1, seed=1))
    (energy,) = f.invariants
    assert isinstance(energy, OscillationEnergy)
    H = energy.measure(path(f, x))
    most = sum(delta * (0.25 * laplacian.norm_bound()) ** k for k, delta in enumerate(damping, start=1)) / 0.5
    times = 0.4 * torch.arange(len(H), dtype=torch.float64)
    slack = 1e-10 * float(energy.scale(x))
    least = H[0] * torch.exp(-2 * most * times)
    assert float((H - H[0]).max()) <= slack
    assert float((least - H).max()) <= slack
    assert energy.law is (Law.NON_INCREASING if any(damping) else Law.CONSERVED)
    if not any(damping):
        assert float((H - H[0]).abs().max()) <= slack


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_hundreds_of_steps(dtype, tolerance):
    """Rotation keeps norm and Rayleigh quotient, oscillation its energy, over hundreds of steps."""
    laplacian = copy.deepcopy(L).to(dtype)
    torch.manual_seed(0)
    f = MetriplecticFlow(laplacian, 0.05, (), width=2, rotation=1, scale=1.0)
    w = MetriplecticWave(laplacian, 0.05)
    states = ((f, noise(N, 2).to(dtype)), (w, (noise(N, 1).to(dtype), noise(N, 1, seed=1).to(dtype))))
    for flow, x in states:
        with torch.no_grad():
            times = 0.05 * torch.arange(201, dtype=torch.float64)
            x = integrate(flow, x, times, Exponential()).x
        for invariant in flow.invariants:
            assert_conserved(invariant, x, tolerance=tolerance)


def test_the_kit_sees_a_flow_that_gains_energy():
    """The negative control: dissipation of the wrong sign."""
    with pytest.raises(AssertionError, match="never increases"):
        assert_dissipated(Norm(L), -1.0 * MetriplecticFlow(L, 0.1), noise(N, 1), solver=Dopri5())


def test_heat_is_a_member():
    x = noise(N, 1)
    assert torch.allclose(heat := Heat(L)(NOW, x), MetriplecticFlow(L, 0.3, (1.0,))(NOW, x), rtol=1e-12, atol=1e-12), heat


def test_steps_of_known_schemes_are_members():
    """Explicit Euler's factor 1 − σ, and leapfrog's two-step map: their series, to the term left out."""
    tau = 0.1 / L.norm_bound()
    x = noise(N, 1)
    f = MetriplecticFlow(L, tau, [1 / k for k in range(1, 9)])
    with torch.no_grad():
        assert float((f.linear.exponential(tau, x) - (x - tau * L(x))).norm()) <= 0.1**9 * float(x.norm())
        root = tau**0.5
        w = MetriplecticWave(L, root, (1.0, 1 / 12, 1 / 90, 1 / 560, 1 / 3150))
        q0, q1 = x, noise(N, 1, seed=5)
        p = noise(N, 1, seed=2)
        q1, back = (w.linear.exponential(h, (q0, p))[0] for h in (root, -root))
        assert float((q1 - 2 * q0 + back + tau * L(q0)).norm()) <= 1e-9 * float(x.norm())


def test_one_flow_on_every_surface_and_in_every_unit():
    """Ten times the size with a hundred times the time step is the same; a moved flow shares what it learned."""
    small, large = icosphere(1), icosphere(1, radius=10.0)
    f = MetriplecticFlow(robust_laplacian(small), 0.02, (0.9, 0.4))
    g = f.over(robust_laplacian(large), 2.0)
    w = MetriplecticWave(robust_laplacian(small), 0.1, (1.0, 0.2), (0.1,))
    v = w.over(robust_laplacian(large), 1.0)
    x = noise(42, 1)
    with torch.no_grad():
        assert torch.allclose(f.linear.exponential(0.02, x), g.linear.exponential(2.0, x), rtol=0, atol=1e-12)
        mine, its = w.linear.exponential(0.1, (x, x)), v.linear.exponential(1.0, (x, x / 10))
    assert torch.allclose(mine[0], its[0], rtol=0, atol=1e-12)
    assert torch.allclose(mine[1], 10 * its[1], rtol=0, atol=1e-12)
    assert g.root is f.root
    assert v.root_stiffness is w.root_stiffness
    moved = f.on(torus(8, 6))
    assert moved.root is f.root
    assert (moved.time_step, moved.laplacian.shape) == (0.02, (48, 48))


def test_the_coefficients_are_found_again_and_hold_elsewhere():
    """Trained on a sphere, right on a torus of another size: the unit of the coefficients is none."""
    start, target = (0.4, 0.2), (1.0, 0.5)
    surfaces = [(robust_laplacian(icosphere(1)), 0.03), (robust_laplacian(torus(12, 8, radius=5.0, tube=2.0)), 0.4)]
    f, truth = (MetriplecticFlow(*surfaces[0], rho) for rho in (start, target))
    x = noise(42, 1)
    with torch.no_grad():
        y = truth.linear.exponential(0.03, x)
    optimizer = torch.optim.LBFGS(f.parameters(), max_iter=60, line_search_fn="strong_wolfe", tolerance_grad=1e-14)

    def closure():
        optimizer.zero_grad()
        loss = (f.linear.exponential(0.03, x) - y).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.allclose(f.dissipation.detach(), truth.dissipation.detach(), rtol=1e-3)
    z = noise(96, 1)
    with torch.no_grad():
        a, b = (g.over(*surfaces[1]).linear.exponential(0.4, z) for g in (f, truth))
    assert float((a - b).norm()) <= 1e-4 * float((b - z).norm())


def test_leapfrog_takes_the_two_halves():
    w, x = MetriplecticWave(L, 0.1, (1.0, 0.05)), (noise(N, 1), noise(N, 1, seed=3))
    t = torch.linspace(0, 0.2, 3, dtype=torch.float64)
    with torch.no_grad():
        near, exact = (integrate(w, x, t, solver).x for solver in (StoermerVerlet(dt=1e-3), Exponential()))
    assert float((near[0] - exact[0]).abs().max()) <= 1e-3
    with pytest.raises(ValueError, match="friction"):
        integrate(damped_wave(L), x, t, StoermerVerlet(dt=1e-2))


def test_mass_is_declared_where_it_is_kept():
    assert any(isinstance(i, Mass) for i in heat_like(L).invariants)
    assert not any(isinstance(i, Mass) for i in heat_like(cotangent_laplacian(bumpy(icosphere(1), 0.2)).symmetrized()).invariants)


def test_copies_pickles_and_checkpoints():
    f = turning(L)
    x = noise(N, 3)
    for twin in (copy.deepcopy(f), pickle.loads(pickle.dumps(f))):
        assert torch.equal(twin(NOW, x), f(NOW, x))
        assert twin.root is not f.root
    assert sorted(f.state_dict()) == ["V", "root"]
    assert [tuple(p.shape) for p in f.learned] == [(1,), (2, 3, 3)]


def test_batches():
    f, x = turning(L), noise(2, 4, N, 3)
    with torch.no_grad():
        y = f.linear.exponential(0.2, x)
        assert torch.allclose(y[1, 2], f.linear.exponential(0.2, x[1, 2]), rtol=0, atol=1e-13)
        w = wave(L)
        q, _ = w.linear.exponential(0.2, (x, x))
        assert torch.allclose(q[1, 2], w.linear.exponential(0.2, (x[1, 2], x[1, 2]))[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: MetriplecticFlow(L, 0.0), "time step"),
        (lambda: MetriplecticFlow(L, 0.1, (-1.0,)), "not negative"),
        (lambda: MetriplecticFlow(L, 0.1, (float("nan"),)), "finite"),
        (lambda: MetriplecticFlow(L, 0.1, rotation=1), "one channel cannot turn"),
        (lambda: MetriplecticFlow(L, 0.1, width=0), "at least 1"),
        (lambda: MetriplecticWave(L, float("inf")), "time step"),
        (lambda: MetriplecticWave(L, 0.1, damping=(-1.0,)), "damping"),
        (lambda: heat_like(L).over(L, -1.0), "time step"),
    ],
)
def test_bad_input(wrong, text):
    with pytest.raises(ValueError, match=text):
        wrong()


def test_wrong_states():
    with pytest.raises(FieldError, match="3"):
        turning(L)(NOW, noise(N, 2))
    with pytest.raises(FieldError, match="q, p"):
        wave(L)(NOW, noise(N, 2))
