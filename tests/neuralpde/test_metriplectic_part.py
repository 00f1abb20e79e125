"""Matrices of functions of one Laplacian: flows and solves by one recurrence, against dense matrices."""

import math
from copy import deepcopy

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from integrators import Exponential, integrate
from neuralpde.metriplectic import MetriplecticFlow, MetriplecticWave
from neuralpde.metriplectic_part import turned
from neuralpde.testing import fields, graphs
from operators import icosphere, robust_laplacian, symmetric_laplacian, torus
from operators.checks import ConvergenceError
from operators.unitary_exponential import UnitaryExponential

L = robust_laplacian(icosphere(1))
N = L.shape[0]


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def flow(width=3, tau=0.1):
    torch.manual_seed(3)
    return MetriplecticFlow(L, tau, (0.4, 0.0, 0.02), width=width, rotation=2 if width > 1 else 0, scale=0.5)


def wave(tau=0.2):
    return MetriplecticWave(L, tau, (1.0, 0.2), (0.3,))


def dense(f, like):
    """G as a matrix on flattened states, column by column."""
    parts = like if isinstance(like, tuple) else (like,)
    size = sum(part.numel() for part in parts)
    columns = []
    for e in torch.eye(size, dtype=torch.float64):
        pieces = [piece.reshape(part.shape) for piece, part in zip(e.split([p.numel() for p in parts]), parts, strict=True)]
        with torch.no_grad():
            columns.append(flat(f.linear @ (tuple(pieces) if isinstance(like, tuple) else pieces[0])))
    return torch.stack(columns, dim=1)


def flat(state):
    return torch.cat([part.reshape(-1) for part in (state if isinstance(state, tuple) else (state,))])


CASES = pytest.mark.parametrize(
    ("f", "x"),
    [(flow(), noise(N, 3)), (flow(1), noise(N, 1)), (wave(), (noise(N, 1), noise(N, 1, seed=1)))],
    ids=["three channels", "one channel", "wave"],
)


@CASES
@pytest.mark.parametrize("h", [0.07, 0.5, -0.05])
def test_the_exponential_is_that_of_the_dense_matrix(f, x, h):
    expected = torch.from_numpy(scipy.linalg.expm(h * dense(f, x).numpy())) @ flat(x)
    with torch.no_grad():
        found = flat(f.linear.exponential(h, x))
    assert float((found - expected).norm()) <= 1e-10 * float(expected.norm())


@CASES
@pytest.mark.parametrize("shift", [0.3, 0.05 + 0.2j])
def test_the_solve_inverts(f, x, shift):
    s = torch.tensor(shift, dtype=torch.complex128 if isinstance(shift, complex) else torch.float64)
    b = flat(x).to(torch.complex128) if s.is_complex() else flat(x)
    matrix = torch.eye(len(b), dtype=b.dtype) - s.to(b.dtype) * dense(f, x)
    if s.is_complex():
        x = tuple(part.to(b.dtype) for part in x) if isinstance(x, tuple) else x.to(b.dtype)
    found = flat(f.linear.solve(s, x)).detach()
    assert float((found - torch.linalg.solve(matrix, b)).norm()) <= 1e-11 * float(b.norm())


@settings(max_examples=8, deadline=None)
@given(data=st.data(), h=st.sampled_from([0.1, 1.0, 8.0]))
def test_any_graph_and_any_step(data, h):
    laplacian = symmetric_laplacian(data.draw(graphs(min_nodes=2)))
    x = data.draw(fields(laplacian.shape[0], 1))
    f = MetriplecticFlow(laplacian, 0.5, (1.0, 0.25))
    matrix = np.asarray(laplacian.stiffness.to_scipy().toarray())
    expected = scipy.linalg.expm(-h * (matrix + 0.125 * matrix @ matrix)) @ x.numpy()
    with torch.no_grad():
        assert float((f.linear.exponential(h, x) - torch.from_numpy(expected)).norm()) <= 1e-11 * float(x.norm())


def test_products_are_counted():
    """As many evaluations as the solution says, and fewer where less is asked."""
    f, x, t = flow(), noise(N, 3), torch.tensor([0.0, 0.1], dtype=torch.float64)
    with torch.no_grad():
        loose, tight = (integrate(f, x, t, Exponential(tol=tol)).stats.nfe for tol in (1e-3, None))
        assert tight == f.linear.exponential_products(0.1)
    assert loose < tight < 60


@pytest.mark.parametrize(("angle", "products"), [(1, 8), (4, 14), (16, 32)])
def test_unitary_products_at_single_precision(angle, products):
    """The figures of the unitary exponential: 2e-7 in float32, spectrum in [−1, 1]; metriplectic flows take as many."""
    laplacian = symmetric_laplacian(torus(8, 6).graph())
    single = deepcopy(laplacian).to(torch.float32)
    A = single.complement()
    W = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    propagator = UnitaryExponential(A, W, float(angle), tolerance=2e-7, interval=(-1.0, 1.0))
    x = noise(48, 2)
    with torch.no_grad():
        wide = UnitaryExponential(laplacian.complement(), W.double(), float(angle))
        error = float((propagator(x.float()) - wide(x)).norm() / x.norm())
        f = MetriplecticFlow(single, 1.0, (), width=2, rotation=1)
        f.V.copy_(W[None])
        found = f.linear.exponential_products(float(angle), 2e-7)
    print(f"θ = {angle}: {propagator.degree} products, error {error:.1e}; metriplectic {found}")
    assert propagator.degree <= products
    assert error <= 5e-7
    assert found <= products


@CASES
def test_constants_keep_to_round_off_however_loose(f, x):
    """At λ = 0 the series is exact: what is cut off moves no mean."""
    one = (
        torch.ones(N, f.width, dtype=torch.float64) if isinstance(f, MetriplecticFlow) else torch.ones(N, 1, dtype=torch.float64)
    )
    state = (one, torch.zeros_like(one)) if isinstance(x, tuple) else one
    with torch.no_grad():
        moved = f.linear.exponential(0.3, state, 1e-2)
    assert float((flat(moved) - flat(state)).abs().max()) <= 1e-13


def test_what_is_kept_follows_what_is_learned():
    f, x = flow(), noise(N, 3)
    part = f.linear
    with torch.no_grad():
        before = part.exponential(0.3, x)
        assert torch.equal(part.exponential(0.3, x), before)
        f.root.mul_(1.5)
        after = part.exponential(0.3, x)
        expected = f.linear.exponential(0.3, x)
    assert torch.equal(after, expected)
    assert not torch.equal(after, before)
    for k in range(20):
        with torch.no_grad():
            part.exponential(0.01 * (k + 1), x)
    assert len(part._kept) <= 8


@pytest.mark.parametrize("make", [flow, wave])
def test_gradients_in_time_state_and_every_coefficient(make):
    f = make()
    with torch.no_grad():
        # None at zero, where a square has no slope.
        for p in f.parameters():
            p.add_(0.1)
    learned = list(f.parameters())
    x = (noise(N, 1), noise(N, 1, seed=2)) if make is wave else (noise(N, 3),)

    def of(h, *tensors):
        fields, values = tensors[: len(x)], tensors[len(x) :]
        g = make()
        for (name, _), value in zip(list(g.named_parameters()), values, strict=True):
            del g._parameters[name]
            setattr(g, name, value)
        return flat(g.linear.exponential(h, fields if make is wave else fields[0]))[::17]

    h = torch.tensor(0.11, dtype=torch.float64, requires_grad=True)
    inputs = [part[:, :1] * 1.0 if make is wave else part for part in x]
    leaves = [v.detach().clone().requires_grad_() for v in (*inputs, *learned)]
    assert torch.autograd.gradcheck(of, (h, *leaves), eps=1e-6, atol=1e-6, fast_mode=True)


@settings(max_examples=10, deadline=None)
@given(size=st.sampled_from([0.0, 1e-8, 0.3, 5.0, 60.0]), seed=st.integers(0, 99))
def test_turned_is_the_matrix_exponential(size, seed):
    A = size * noise(3, 4, 4, seed=seed)
    A = A - A.mT
    expected = np.stack([scipy.linalg.expm(a.numpy()) for a in A])
    assert np.abs(turned(A).numpy() - expected).max() <= 1e-14 * (10 + 20 * size)


def test_too_long_a_time_says_what_to_do():
    with pytest.raises(ConvergenceError, match="shorter steps"), torch.no_grad():
        MetriplecticWave(L, 0.2).linear.exponential(1e5, (noise(N, 1), noise(N, 1)))


def test_without_stiffness_all_drift_freely():
    """Ω = 0: nothing is divided by zero."""
    f = MetriplecticWave(L, 1.0, (0.0,))
    q, p = noise(N, 1), noise(N, 1, seed=4)
    with torch.no_grad():
        moved = f.linear.exponential(2.0, (q, p))
    assert torch.allclose(moved[0], q + 2.0 * p, rtol=0, atol=1e-12)
    assert torch.allclose(moved[1], p, rtol=0, atol=1e-12)
    assert math.isfinite(f.linear.norm_bound())
