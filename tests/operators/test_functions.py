"""Heat, waves and implicit steps as Chebyshev series: the error bound holds, and energy and semigroup with it."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import assert_within, graphs, meshes, roundoff
from operators.checks import ConvergenceError, DomainError, FieldError
from operators.functions import cosine, exponential, resolvent, sine, wave_degree, wave_propagator
from operators.laplacian import Laplacian, combinatorial_laplacian, symmetric_laplacian
from operators.shapes import icosphere, torus
from operators.sparse import SparseOperator
from operators.surface import robust_laplacian

FUNCTIONS = {
    exponential: lambda w, t: torch.exp(-t * w),
    cosine: lambda w, t: torch.cos(t * w.sqrt()),
    sine: lambda w, t: t * torch.sinc(t * w.sqrt() / math.pi),
    resolvent: lambda w, t: 1 / (1 + t * w),
}
functions = pytest.mark.parametrize("build", FUNCTIONS, ids=lambda build: build.__name__)
U = roundoff(torch.float64)


def exact(L, f):
    """f(L) through the dense spectrum, in float64."""
    S = torch.from_numpy(L.symmetrized().stiffness.to_scipy().toarray())
    root = L.mass.double().sqrt()
    w, Q = torch.linalg.eigh(S)
    values = f(w.clamp(min=0))
    Q = Q.to(torch.promote_types(Q.dtype, values.dtype))
    return (Q * values) @ Q.mH / root[:, None] * root


def distance(L, A, B):
    """‖A − B‖ in the M inner product."""
    root = L.mass.double().sqrt()
    return float(torch.linalg.matrix_norm(root[:, None] * (A - B) / root, 2))


def round_off(p, n):
    """A product errs by n u ‖|L|‖ at most, a recurrence of K steps by K products, each term weighed by |c_k|."""
    u = roundoff(p.dtype)
    return 32 * n * u * (1 + p.degree) * p.norm_bound()


# The error bound ------------------------------------------------------------------------------------------------------


@functions
@given(data=st.data())
def test_error_is_within_the_bound_on_any_domain(build, data):
    L = data.draw(st.one_of(graphs().map(combinatorial_laplacian), meshes(slivers=False).map(robust_laplacian)))
    # A time in units of the fastest mode: else a drawn mesh of size 2^-20 needs 10^12 of them.
    fastest = L.norm_bound() or 1.0
    wave = build in (cosine, sine)
    t = data.draw(st.sampled_from([0.0, 0.01, 1.0, 30.0])) / (math.sqrt(fastest) if wave else fastest)
    tolerance = data.draw(st.sampled_from([1e-2, 1e-6, 1e-10]))
    p = build(L, t, tolerance=tolerance)
    error = distance(L, p.matrix(), exact(L, lambda w: FUNCTIONS[build](w, t)))
    scale = t if build is sine else 1.0
    assert p.error_bound <= tolerance * scale
    # eigh of the reference errs by n u ‖L‖ in each eigenvalue, which f magnifies by |f′| ≤ t, or t² for a wave.
    reference = 32 * L.shape[0] * U * (1 + (t * t if wave else t) * fastest) * max(scale, p.norm_bound())
    assert error <= p.error_bound + round_off(p, L.shape[0]) + reference


@functions
@pytest.mark.parametrize("t", [0.1, 1.0, 10.0])
def test_bound_is_honoured_and_not_wasteful(build, t):
    L = robust_laplacian(icosphere(1))
    for tolerance in (1e-2, 1e-5, 1e-9):
        p = build(L, t, tolerance=tolerance)
        error = distance(L, p.matrix(), exact(L, lambda w: FUNCTIONS[build](w, t)))
        assert error <= p.error_bound
        assert p.error_bound <= tolerance * (t if build is sine else 1.0)
        # Two digits to spare at the most, four where the coefficients fall by more than a factor of ten each.
        assert error >= 1e-4 * p.error_bound


@functions
def test_float32_reaches_its_own_precision(build):
    wide = robust_laplacian(icosphere(1))
    L = deepcopy(wide).to(torch.float32)
    p = build(L, 1.0)
    error = distance(L, p.matrix().double(), exact(L, lambda w: FUNCTIONS[build](w, 1.0)))
    assert p.matrix().dtype == torch.float32
    assert error <= p.error_bound + round_off(p, L.shape[0])
    assert error <= 1e-4


def test_error_vanishes_in_norm_on_every_real_mesh(real_mesh):
    """e^(−tL) keeps the constants, loses no mass, and agrees with two half times."""
    L = robust_laplacian(real_mesh)
    t = 100 / L.norm_bound()
    x = torch.randn(L.shape[0], 1, dtype=torch.float64)
    whole, half = exponential(L, t, tolerance=1e-10), exponential(L, t / 2, tolerance=1e-10)
    ones = torch.ones(L.shape[0], 1, dtype=torch.float64)
    size = float(L.inner(x, x).sqrt())
    assert float(L.inner(half @ (half @ x) - whole @ x, half @ (half @ x) - whole @ x).sqrt()) <= 3e-10 * size
    kept = whole @ ones - ones
    assert float(L.inner(kept, kept).sqrt()) <= 1e-9 * float(L.inner(ones, ones).sqrt())


def test_backward_heat_and_an_indefinite_operator_are_bounded_too():
    L = symmetric_laplacian(torus(6, 5).graph())
    assert distance(L, exponential(L, -2.0, tolerance=1e-8).matrix(), exact(L, lambda w: torch.exp(2 * w))) <= 1e-8 * math.exp(4)
    p = exponential(L.complement(), 1.5, tolerance=1e-8)
    assert distance(L, p.matrix(), exact(L, lambda w: torch.exp(-1.5 * (1 - w)))) <= p.error_bound


@functions
@pytest.mark.parametrize("size", [1.0, 10.0, 100.0])
def test_the_bound_is_close_to_the_error_of_the_series(build, size):
    """A bound that is too careful costs products. Kapteyn's, of cosine and sine, is the rougher one."""
    L, wave = robust_laplacian(icosphere(1)), build in (cosine, sine)
    t = size / (math.sqrt(L.norm_bound()) if wave else L.norm_bound())
    p = build(L, t, tolerance=1e-6)
    a, b = p.interval
    x = torch.linspace(a, b, 20001, dtype=torch.float64)
    series = np.polynomial.chebyshev.chebval(((2 * x - a - b) / (b - a)).numpy(), p.coefficients.reshape(-1).numpy())
    error = float((torch.from_numpy(series) - FUNCTIONS[build](x, t)).abs().max())
    assert error <= p.error_bound <= (50 if wave else 2) * error


@functions
def test_on_another_domain_it_is_the_same_function_there(build):
    first, other = robust_laplacian(icosphere(1)), robust_laplacian(torus(6, 5))
    p, expected = build(first, 0.7, tolerance=1e-3), build(other, 0.7, tolerance=1e-3)
    moved = p.on(torus(6, 5))
    assert moved.degree == expected.degree
    assert torch.equal(moved.matrix(), expected.matrix())


def test_tighter_interval_saves_products():
    L = robust_laplacian(icosphere(2))
    tight = cosine(L, 5.0, tolerance=1e-8, interval=(0, 1.00001 * L.largest_eigenvalue()))
    assert tight.degree < cosine(L, 5.0, tolerance=1e-8).degree
    assert distance(L, tight.matrix(), exact(L, lambda w: torch.cos(5 * w.sqrt()))) <= tight.error_bound


# Waves ----------------------------------------------------------------------------------------------------------------


def state(L, batch=(), channels=2):
    return tuple(torch.randn(2, *batch, L.shape[0], channels, dtype=torch.float64))


def energy(L, u, v):
    return L.inner(v, v) + L.inner(u, L @ u)


@pytest.mark.parametrize("angle", [0.0, 1.0, 30.0, -30.0, 1000.0])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-10])
def test_the_propagator_is_the_four_functions(angle, tolerance):
    L = robust_laplacian(icosphere(1))
    b = L.norm_bound()
    t = angle / math.sqrt(b)
    u, v = state(L)
    new_u, new_v = wave_propagator(L, t, u, v, tolerance=tolerance)
    C, S = exact(L, lambda w: torch.cos(t * w.sqrt())), exact(L, lambda w: t * torch.sinc(t * w.sqrt() / math.pi))
    D = exact(L, lambda w: -w.sqrt() * torch.sin(t * w.sqrt()))
    gap_u, gap_v = C @ u + S @ v - new_u, D @ u + C @ v - new_v
    norm = lambda x: float(L.inner(x, x).sqrt())  # noqa: E731
    # The reference errs by n u λ in each eigenvalue, and so by t √λ n u.
    allowed = tolerance + 32 * L.shape[0] * U * (1 + abs(angle))
    assert norm(gap_u) <= allowed * (norm(u) + norm(v) / math.sqrt(b) * max(1, abs(angle)))
    assert norm(gap_v) <= allowed * (math.sqrt(b) * norm(u) + norm(v))


def test_a_long_wave_keeps_its_energy_and_comes_back():
    L = robust_laplacian(icosphere(2))
    t = 1000 / math.sqrt(L.norm_bound())
    u, v = state(L)
    there = wave_propagator(L, t, u, v, tolerance=1e-12)
    assert abs(float(energy(L, *there) / energy(L, u, v)) - 1) <= 1e-11
    again = wave_propagator(L, -t, *there, tolerance=1e-12)
    assert_within(again[0], u, 1e-9)
    half = wave_propagator(L, t / 2, *wave_propagator(L, t / 2, u, v, tolerance=1e-12), tolerance=1e-12)
    assert_within(half[1], there[1], 1e-9 * math.sqrt(L.norm_bound()))
    assert wave_degree(L, t, tolerance=1e-12) <= 0.5 * 1000 + 80


def test_the_propagator_takes_batches_complex_fields_and_float32():
    L = robust_laplacian(icosphere(1))
    u, v = state(L, batch=(3,))
    both = wave_propagator(L, 0.5, u, v)
    for i in range(3):
        assert_within(both[0][i], wave_propagator(L, 0.5, u[i], v[i])[0], 1e-12)
    turned = wave_propagator(L, 0.5, 1j * u, 1j * v)
    assert_within(turned[1], 1j * both[1], 1e-12)
    narrow = wave_propagator(deepcopy(L).to(torch.float32), 0.5, u.float(), v.float())
    assert narrow[0].dtype == torch.float32
    assert_within(narrow[0].double(), both[0], 1e-4)


@pytest.mark.parametrize("learned", [False, True])
def test_gradients_of_the_propagator_to_second_order(learned):
    fixed = robust_laplacian(torus(4, 3))
    values, order = fixed.stiffness.values.clone(), fixed.stiffness.pattern.transposed_order
    u, v = (part[:, :1].clone().requires_grad_() for part in state(fixed))
    t = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)

    def flow(u, v, t, values):
        values = (values + values[order]) / 2
        L = Laplacian(SparseOperator(fixed.stiffness.pattern, values), fixed.mass) if learned else fixed
        return wave_propagator(L, t, u, v, tolerance=1e-13, interval=(0.0, 1.1 * fixed.norm_bound()))

    inputs = (u, v, t, values.requires_grad_(learned))
    assert torch.autograd.gradcheck(flow, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(flow, inputs, fast_mode=True)


def test_refusals_of_the_propagator_name_the_cause():
    L = robust_laplacian(icosphere(0))
    u, v = state(L)
    with pytest.raises(FieldError, match="one state"):
        wave_propagator(L, 1.0, u, v[:, :1])
    with pytest.raises(DomainError, match="one time"):
        wave_propagator(L, torch.tensor([0.1, 0.2]), u, v)
    with pytest.raises(DomainError, match="time or shift"):
        wave_propagator(L, math.nan, u, v)
    with pytest.raises(ConvergenceError, match="products"):
        wave_propagator(L, 1e9, u, v)


@pytest.mark.parametrize("angle", [1e4, 1e5])
def test_heat_over_a_long_time_to_ten_digits(angle):
    L = robust_laplacian(icosphere(1))
    t = angle / L.norm_bound()
    p = exponential(L, t, tolerance=1e-10)
    u = state(L)[0]
    assert_within(p @ u, exact(L, lambda w: torch.exp(-t * w)) @ u, 1e-10 * float(u.norm()))
