"""Laplacian.solve gives (I + s L)⁻¹ b and its derivatives of both orders, factoring once for each shift."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import assert_within, fields, graphs, meshes, roundoff
from operators import Graph, combinatorial_laplacian, icosphere, random_walk_laplacian, robust_laplacian
from operators.solve import FACTORS_KEPT, ShiftedSolver

U = roundoff(torch.float64)
LAPLACIANS = st.one_of(
    graphs(weights=["ones", "dyadic"]).map(combinatorial_laplacian),
    graphs().map(random_walk_laplacian),
    meshes(slivers=False).map(robust_laplacian),
)


@pytest.fixture
def factored(monkeypatch):
    """The list of matrices that were factored."""
    seen, splu = [], scipy.sparse.linalg.splu
    monkeypatch.setattr(
        scipy.sparse.linalg, "splu", lambda matrix, **options: seen.append(matrix) or splu(matrix, **options)
    )
    return seen


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@given(data=st.data())
def test_solution_is_that_of_scipy_and_satisfies_the_equation(dtype, data):
    L, shift = data.draw(LAPLACIANS), data.draw(st.floats(0, 10))
    b = data.draw(fields(L.shape[0], batch=data.draw(st.sampled_from([(), (2,), (0,)])), dtype=dtype))
    y = L.solve(shift, b)
    assert y.shape == b.shape
    assert y.dtype == b.dtype
    M = np.diag(L.mass.numpy())
    system = sp.csc_array(M + shift * L.stiffness.to_scipy().toarray())
    columns = np.moveaxis(b.numpy(), -2, 0).reshape(L.shape[0], -1)
    # The matrix is M-symmetric with eigenvalues from 1 to 1 + s λ_max: that ratio is its condition.
    spread = float((L.mass.max() / L.mass.min()).sqrt())
    bound = 256 * U * L.shape[0] * (1 + shift * L.norm_bound()) * spread * (float(b.abs().max()) if b.numel() else 0.0)
    if columns.size:
        expected = np.column_stack([scipy.sparse.linalg.spsolve(system, M @ column) for column in columns.T])
        expected = torch.from_numpy(np.moveaxis(expected.reshape(L.shape[0], *b.shape[:-2], b.shape[-1]), 0, -2).copy())
        assert_within(y, expected, bound)
    assert_within(y + shift * (L @ y), b, bound)


@given(data=st.data())
def test_solve_keeps_the_mean_and_the_bounds(data):
    """What backward Euler promises: mass is conserved and no new extreme appears."""
    L = data.draw(meshes(slivers=False).map(robust_laplacian))
    b, shift = data.draw(fields(L.shape[0], 1)), data.draw(st.floats(0, 10)) * float(L.mass.sum())
    y = L.solve(shift, b)
    condition = (1 + shift * L.norm_bound()) * float(L.mass.max() / L.mass.min())
    slack = 32 * U * L.shape[0] * condition * float(b.abs().max())
    assert y.max() <= b.max() + slack
    assert y.min() >= b.min() - slack
    assert_within((L.mass[:, None] * y).sum(), (L.mass[:, None] * b).sum(), slack * float(L.mass.sum()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_derivatives_of_both_orders_in_shift_and_right_hand_side(dtype):
    L = robust_laplacian(icosphere(0))
    shift = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, 12, 1, dtype=dtype, requires_grad=True)
    assert torch.autograd.gradcheck(L.solve, (shift, b))
    assert torch.autograd.gradgradcheck(L.solve, (shift, b))


def test_gradient_in_a_float32_shift_comes_back_in_float32():
    L = robust_laplacian(icosphere(0)).to(torch.float32)
    shift = torch.tensor(0.3, requires_grad=True)
    y = L.solve(shift, torch.randn(12, 1))
    y.square().sum().backward()
    assert y.dtype == torch.float32
    assert shift.grad.dtype == torch.float32
    assert shift.grad < 0


def test_float32_solution_is_the_float64_one_rounded():
    L = robust_laplacian(icosphere(1))
    b = torch.randn(42, 2)
    assert_within(L.to(torch.float32).solve(0.5, b), robust_laplacian(icosphere(1)).solve(0.5, b.double()), 1e-5)


def test_each_shift_is_factored_once_forward_and_backward(factored):
    L = robust_laplacian(icosphere(0))
    b = torch.randn(12, 1, dtype=torch.float64, requires_grad=True)
    for _ in range(3):
        L.solve(0.1, L.solve(0.2, b)).sum().backward()
    assert len(factored) == 2


def test_only_the_latest_factors_are_kept(factored):
    L = robust_laplacian(icosphere(0))
    b = torch.ones(12, 1, dtype=torch.float64)
    for k in range(FACTORS_KEPT + 1):
        L.solve(1.0 + k, b)
    L.solve(1.0 + FACTORS_KEPT, b)
    assert len(factored) == FACTORS_KEPT + 1
    L.solve(1.0, b)
    assert len(factored) == FACTORS_KEPT + 2


def test_moving_to_another_precision_forgets_the_factors(factored):
    L = robust_laplacian(icosphere(0))
    L.solve(1.0, torch.ones(12, 1, dtype=torch.float64))
    L.to(torch.float32).solve(1.0, torch.ones(12, 1))
    assert len(factored) == 2


@pytest.mark.parametrize("shift", [math.nan, math.inf, -math.inf])
def test_a_shift_that_is_not_finite_reaches_no_native_code(shift, factored):
    with pytest.raises(ValueError, match=r"shift s .* must be finite, not .*: a diverged coefficient"):
        robust_laplacian(icosphere(0)).solve(shift, torch.ones(12, 1, dtype=torch.float64))
    assert factored == []


def test_a_singular_system_is_an_error_that_names_the_shift():
    pair = combinatorial_laplacian(Graph(torch.tensor([[0, 1], [1, 0]]), 2, torch.ones(2, dtype=torch.float64)))
    with pytest.raises(ValueError, match=r"singular at s = -0\.5 .*: a negative time step or coefficient\?"):
        pair.solve(-0.5, torch.ones(2, 1, dtype=torch.float64))


@given(data=st.data())
def test_product_is_the_stiffness(data):
    L = data.draw(LAPLACIANS)
    x = data.draw(fields(L.shape[0], 2))
    solver = ShiftedSolver(L.stiffness.to_scipy(), L.mass.numpy())
    assert_within(solver.product(x), torch.from_numpy(L.stiffness.to_scipy().toarray() @ x.numpy()), 1e-9 + 0 * x)
