"""The spectral radius from values of f: a bound, the right side of the plane, and few evaluations."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from integrators.spectral_radius import spectral_radius


def rotation(n, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=dtype))[0]


def path_laplacian(n):
    L = 2 * torch.eye(n, dtype=torch.float64)
    L -= torch.diag(torch.ones(n - 1, dtype=torch.float64), 1) + torch.diag(torch.ones(n - 1, dtype=torch.float64), -1)
    return L


X = torch.linspace(0.2, 1.0, 30, dtype=torch.float64)[:, None]


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=20), st.integers(0, 50), st.sampled_from([1e-6, 1.0, 1e6]))
def test_a_bound_for_symmetric_matrices_of_any_spectrum(below, seed, scale):
    eigenvalues = -scale * torch.tensor([1.0, *below], dtype=torch.float64)
    Q = rotation(len(eigenvalues), seed)
    J = Q @ torch.diag(eigenvalues) @ Q.T
    found = spectral_radius(lambda t, x: J @ x, 0.0, torch.ones(len(J), 1, dtype=torch.float64))
    assert scale <= found.value <= 1.21 * scale
    assert found.dissipates
    assert not found.oscillates
    assert found.turn >= 0


@given(st.lists(st.floats(0.0, 1.0), min_size=0, max_size=8), st.integers(0, 50))
def test_a_bound_for_skew_matrices(below, seed):
    blocks = [torch.tensor([[0.0, -w], [w, 0.0]], dtype=torch.float64) for w in [7.0, *(7 * w for w in below)]]
    Q = rotation(2 * len(blocks), seed)
    J = Q @ torch.block_diag(*blocks) @ Q.T
    found = spectral_radius(lambda t, x: J @ x, 0.0, torch.ones(len(J), 1, dtype=torch.float64))
    assert 7.0 <= found.value <= 1.21 * 7.0
    assert found.oscillates
    assert not found.dissipates


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_diffusion(dtype):
    L = 100 * path_laplacian(200).to(dtype)
    found = spectral_radius(lambda t, x: -(L @ x), 0.0, torch.ones(200, 1, dtype=dtype))
    assert 400 <= found.value <= 480
    assert found.dissipates
    assert found.evaluations <= 40


def test_growth_neither_oscillates_nor_dissipates():
    found = spectral_radius(lambda t, x: path_laplacian(30) @ x, 0.0, X)
    assert not found.oscillates
    assert not found.dissipates
    assert found.quotient.real > 0


def test_a_wave_does_not_settle_early():
    """Positions and velocities converge apart, so that two estimates may agree by accident."""
    L = path_laplacian(30)
    found = spectral_radius(lambda t, x: (x[1], -(L @ x[0])), 0.0, (torch.ones(30, 1, dtype=torch.float64),) * 2)
    assert 1.1 <= found.value / math.sqrt(float(torch.linalg.eigvalsh(L)[-1])) <= 1.21


def test_a_wave_on_a_tuple_of_very_different_scales():
    """J = [[0, 1], [−L, 0]] is far from normal: ‖Jv‖/‖v‖ swings between 1 and 4·10⁴, and ρ is 200."""
    L = 1e4 * path_laplacian(50)
    found = spectral_radius(lambda t, x: (x[1], -(L @ x[0])), 0.0, (torch.ones(50, 1, dtype=torch.float64),) * 2)
    assert 190 <= found.value <= 242
    assert found.oscillates


def test_schroedinger():
    L = path_laplacian(50).to(torch.complex128)
    found = spectral_radius(lambda t, x: -1j * (L @ x), 0.0, torch.ones(50, 1, dtype=torch.complex128))
    assert 4 <= found.value <= 4.84
    assert found.oscillates
    assert found.quotient.imag < -3.5


def test_the_linearisation_of_a_nonlinear_equation():
    found = spectral_radius(lambda t, x: -100 * x**3, 0.0, X)
    assert 300 <= found.value <= 361


def test_a_batch_gives_the_largest_of_its_samples():
    L = path_laplacian(30)
    x = torch.ones(3, 30, 1, dtype=torch.float64)
    k = torch.tensor([1.0, 50.0, 2.0], dtype=torch.float64)[:, None, None]
    found = spectral_radius(lambda t, x: -k * (L @ x), 0.0, x)
    assert 195 <= found.value <= 241


def test_every_evaluation_is_told_and_a_good_start_saves_most():
    calls = 0

    def f(t, x):
        nonlocal calls
        calls += 1
        return -(path_laplacian(30) @ x)

    cold = spectral_radius(f, 0.0, X)
    assert cold.evaluations == calls > 6
    warm = spectral_radius(f, 0.0, X, start=cold)
    assert warm.evaluations == calls - cold.evaluations <= 3
    assert warm.value >= 0.99 * cold.value
    known = spectral_radius(f, 0.0, X, start=cold, slope=f(0.0, X))
    assert known.evaluations == warm.evaluations - 1
    bare = spectral_radius(f, 0.0, X, start=cold.vector)
    assert bare.evaluations <= cold.evaluations


def test_the_same_every_time_whatever_the_generator():
    f = lambda t, x: -(path_laplacian(30) @ x)  # noqa: E731
    torch.manual_seed(1)
    one, after = spectral_radius(f, 0.0, X), torch.rand(1)
    torch.manual_seed(2)
    two = spectral_radius(f, 0.0, X)
    assert one.value == two.value
    assert torch.equal(one.vector, two.vector)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1))


@pytest.mark.parametrize("x", [X, torch.zeros_like(X), 1e-30 * X, 1e30 * X], ids=["one", "zero", "tiny", "huge"])
def test_states_of_any_size(x):
    found = spectral_radius(lambda t, x: -(path_laplacian(30) @ x), 0.0, x)
    assert 3.9 <= found.value <= 4.84


@pytest.mark.parametrize("f", [lambda t, x: 0 * x, lambda t, x: 0 * x + 1e8, lambda t, x: torch.cos(t) + 0 * x])
def test_nothing_to_be_stiff(f):
    found = spectral_radius(lambda t, x: f(torch.tensor(t), x), 0.0, X)
    assert found.value <= 1e-6
    assert not found.oscillates
    assert not found.dissipates


def test_an_old_direction_that_leads_nowhere_is_dropped():
    """At t = 0 only the first node moves, at t = 1 only the others."""
    mask = torch.zeros_like(X)
    mask[0] = 1
    f = lambda t, x: -5 * x * (mask if t == 0 else 1 - mask)  # noqa: E731
    first = spectral_radius(f, 0.0, X)
    assert 5 <= first.value <= 6.01
    assert 5 <= spectral_radius(f, 1.0, X, start=first).value <= 6.01


def test_not_finite_around_the_state():
    found = spectral_radius(lambda t, x: torch.where(x == X, 0.0, float("nan")), 0.0, X)
    assert math.isnan(found.value)
    assert not found.oscillates
    assert not found.dissipates


def test_no_gradient_is_recorded():
    a = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    found = spectral_radius(lambda t, x: -a * x, 0.0, X.clone().requires_grad_())
    assert not found.vector.requires_grad
    assert found.value == pytest.approx(3.6)
