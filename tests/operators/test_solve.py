"""Solves agree with SciPy, differentiate to the second order in everything, and never use a stale factor."""

import math
import pickle
import warnings
from copy import deepcopy

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import operators.solve
from neuralpde.testing import assert_within, fields, graphs, meshes, roundoff
from operators.checks import FieldError
from operators.domains import Graph, TriangleMesh
from operators.laplacian import Laplacian, combinatorial_laplacian, random_walk_laplacian
from operators.shapes import grid, icosphere
from operators.solve import BACKWARD_ERROR, FACTORS_KEPT, DirectSolver, SingularMatrixError
from operators.sparse import SparseOperator
from operators.surface import cotangent_laplacian, robust_laplacian

with warnings.catch_warnings():
    # Forward mode compiles with torch.jit.script when it is first used, which torch 2.13 deprecates: not ours to mend.
    warnings.simplefilter("ignore", DeprecationWarning)
    with torch.autograd.forward_ad.dual_level():
        torch.autograd.forward_ad.make_dual(torch.ones(1), torch.ones(1))

U = roundoff(torch.float64)
LAPLACIANS = st.one_of(
    graphs(weights=["ones", "dyadic"]).map(combinatorial_laplacian),
    graphs().map(random_walk_laplacian),
    meshes(slivers=False).map(robust_laplacian),
)


EITHER_ORDER = pytest.mark.parametrize("dissect_from", [0, 20_000], ids=["dissection", "minimum degree"])
REAL_OR_COMPLEX = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])


@st.composite
def matrices(draw, dtype=torch.float64, batch=()):
    """Invertible sparse matrices, not symmetric, of condition at most 8: the identity plus a half of row and column sums."""
    graph = draw(graphs(weights=["dyadic"], simple=True))
    n, E = graph.nodes, graph.edge_index.shape[1]
    keep = torch.tensor(draw(st.lists(st.booleans(), min_size=E, max_size=E)), dtype=torch.bool)
    rows, columns = graph.edge_index[:, keep]
    nodes = torch.arange(n)
    # The diagonal goes to a drawn permutation, so that elimination without pivots fails on some.
    place = torch.tensor(draw(st.sampled_from([list(range(n)), list(range(n))[::-1]])))
    pattern = SparseOperator.from_entries(
        torch.cat([place[rows], place]), torch.cat([columns, nodes]), torch.ones(len(rows) + n, dtype=dtype), (n, n)
    ).pattern
    values = draw(fields(pattern.nnz, 1, batch=batch, dtype=dtype, exact=True)).squeeze(-1)
    values = values / (16 * (1 + values.abs().sum(-1, keepdim=True)))
    return SparseOperator(pattern, values + (place[pattern.col] == pattern.row).to(dtype))


def dense(A):
    """(..., n, n) as stored."""
    full = torch.zeros(*A.values.shape[:-1], *A.shape, dtype=A.values.dtype)
    full[..., A.pattern.row, A.pattern.col] = A.values.detach()
    return full


@pytest.fixture
def factored(monkeypatch):
    """The list of matrices that were factored."""
    seen, splu = [], scipy.sparse.linalg.splu
    monkeypatch.setattr(scipy.sparse.linalg, "splu", lambda matrix, **options: seen.append(matrix) or splu(matrix, **options))
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


# Any matrix -----------------------------------------------------------------------------------------------------------


@REAL_OR_COMPLEX
@pytest.mark.parametrize("field", [torch.float64, torch.complex128])
@EITHER_ORDER
@given(data=st.data())
def test_solution_of_any_matrix_and_any_batch_is_the_dense_one(dissect_from, field, dtype, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operators.solve, "DISSECT_FROM", dissect_from)
        A = data.draw(matrices(dtype, data.draw(st.sampled_from([(), (2,)]))))
        b = data.draw(fields(A.shape[0], 2, batch=data.draw(st.sampled_from([(), (2,), (3, 2), (0, 2)])), dtype=field))
        solver = DirectSolver()
        for operator in (A, A.adjoint()):
            y = solver.solve(operator, b)
            wide = torch.promote_types(field, dtype)
            expected = torch.linalg.inv(dense(operator).to(wide)) @ b.to(wide)
            assert y.dtype == expected.dtype
            # An unpivoted factor is kept up to this backward error; the condition is below 8.
            assert_within(y, expected, 8 * BACKWARD_ERROR * A.shape[0] * (float(b.abs().max()) if b.numel() else 0.0))


@REAL_OR_COMPLEX
@pytest.mark.parametrize("batch", [(), (2,)])
def test_derivatives_in_the_values_of_any_matrix(dtype, batch):
    ring = torch.arange(4)
    A = SparseOperator.from_entries(
        torch.cat([ring, ring]), torch.cat([ring, (ring + 1) % 4]), torch.ones(8, dtype=dtype), (4, 4)
    )
    values = torch.where(A.pattern.row == A.pattern.col, 2.0, 0.5 + 0.3 * torch.randn(*batch, 8)).to(dtype).requires_grad_()
    b = torch.randn(*batch, 4, 2, dtype=dtype, requires_grad=True)
    solver = DirectSolver()

    def solve(values, b):
        return solver.solve(SparseOperator(A.pattern, values), b)

    assert torch.autograd.gradcheck(solve, (values, b), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(solve, (values, b), check_fwd_over_rev=True)


def test_a_batch_of_two_dimensions_is_the_loop():
    K = robust_laplacian(icosphere(0))._shifted(torch.tensor(0.3))
    values, b = K.values * torch.rand(3, 2, 1, dtype=torch.float64), torch.randn(12, 1, dtype=torch.float64)
    loop = [[DirectSolver().solve(SparseOperator(K.pattern, one), b) for one in row] for row in values]
    assert_within(DirectSolver().solve(SparseOperator(K.pattern, values), b), torch.stack([*map(torch.stack, loop)]), 1e-12)


def test_vmap_over_fields_and_over_values_is_the_loop():
    L = robust_laplacian(icosphere(0))
    K = L._shifted(torch.tensor(0.3))
    solver = DirectSolver()
    b = torch.randn(3, 12, 2, dtype=torch.float64)
    values = K.values * torch.rand(3, 1, dtype=torch.float64)

    def solve(values, b):
        return solver.solve(SparseOperator(K.pattern, values), b)

    for dims in [(None, 0), (0, None), (0, 0)]:
        arguments = [values if dims[0] == 0 else K.values, b if dims[1] == 0 else b[0]]
        loop = [solve(*(a[k] if d == 0 else a for a, d in zip(arguments, dims, strict=True))) for k in range(3)]
        assert_within(torch.func.vmap(solve, dims)(*arguments), torch.stack(loop), 1e-12)
    shifts = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)
    by_shift = torch.stack([L.solve(shift, b[0]) for shift in shifts])
    assert_within(torch.func.vmap(lambda shift: L.solve(shift, b[0]))(shifts), by_shift, 1e-12)
    jacobian = torch.func.jacrev(lambda x: L.solve(0.3, x))(b[0, :, :1]).squeeze()
    assert_within(jacobian, L.solve(0.3, torch.eye(12, dtype=torch.float64)), 1e-12)


def test_a_solve_that_needs_pivots_gets_them():
    swap = SparseOperator.from_entries(
        torch.tensor([0, 1, 0]), torch.tensor([1, 0, 0]), torch.tensor([1.0, 2.0, 1e-30], dtype=torch.float64), (2, 2)
    )
    b = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    assert_within(DirectSolver().solve(swap, b), torch.tensor([[1.0], [1.0]], dtype=torch.float64), 8 * U)


@pytest.mark.parametrize(
    ("entries", "cause"),
    [([1.0, 1.0, 1.0, 1.0], "singular"), ([1.0, 1.0, 1.0, 1.0 + 4 * U], "condition number is about"), ([0.0] * 4, "exactly")],
)
def test_a_singular_matrix_is_a_typed_error(entries, cause):
    A = SparseOperator.from_entries(
        torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]), torch.tensor(entries, dtype=torch.float64), (2, 2)
    )
    with pytest.raises(SingularMatrixError, match=rf"singular \(.*{cause}"):
        DirectSolver().solve(A, torch.ones(2, 1, dtype=torch.float64))


def test_masses_of_very_different_size_are_not_taken_for_a_singular_matrix():
    mass = torch.tensor([1e-18, 1.0, 1e18], dtype=torch.float64)
    A = SparseOperator.from_entries(torch.arange(3), torch.arange(3), mass, (3, 3))
    assert_within(DirectSolver().solve(A, mass[:, None]), 1.0, 4 * U)


def test_what_does_not_fit_is_refused():
    wide = SparseOperator.from_entries(torch.tensor([0]), torch.tensor([1]), torch.ones(1), (1, 2))
    with pytest.raises(FieldError, match="only a square system"):
        DirectSolver().solve(wide, torch.ones(2, 1))
    L = robust_laplacian(icosphere(0))
    with pytest.raises(FieldError, match=r"the shift must be one number, not of shape \(2,\)"):
        L.solve(torch.ones(2), torch.ones(12, 1, dtype=torch.float64))
    with pytest.raises(ValueError, match="factors_kept must be a positive integer, not 0"):
        DirectSolver(0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, complex(0, math.nan)])
def test_a_right_hand_side_that_is_not_finite_is_refused_by_node(bad, factored):
    b = torch.ones(12, 2, dtype=torch.complex128 if isinstance(bad, complex) else torch.float64)
    b[7, 1] = bad
    with pytest.raises(FieldError, match=r"not finite at 1 of 12 nodes, the first is node 7: a diverged step\?"):
        robust_laplacian(icosphere(0)).solve(1.0, b)
    assert factored == []


def test_a_gradient_that_is_not_finite_passes_through_as_nan():
    """A gradient scaler looks for it; an error inside backward would end the training instead."""
    b = torch.ones(12, 1, dtype=torch.float64, requires_grad=True)
    robust_laplacian(icosphere(0)).solve(1.0, b).backward(torch.full((12, 1), math.nan, dtype=torch.float64))
    assert b.grad.isnan().all()


# Laplacians -----------------------------------------------------------------------------------------------------------


@REAL_OR_COMPLEX
def test_derivatives_of_both_orders_in_everything(dtype):
    L = cotangent_laplacian(grid(3, 2))
    shift = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, 6, 1, dtype=dtype, requires_grad=True)
    # Complex Hermitian where the field is complex: the phases are a gauge transformation.
    gauge = torch.exp(1j * torch.arange(6.0, dtype=torch.float64)) if dtype.is_complex else torch.ones(6, dtype=dtype)
    values = L.stiffness.scaled(gauge, gauge.conj()).values.detach().requires_grad_()
    mass = L.mass.clone().requires_grad_()

    def solve(shift, b, values, mass):
        return Laplacian(SparseOperator(L.stiffness.pattern, values), mass).solve(shift, b)

    assert torch.autograd.gradcheck(solve, (shift, b, values, mass), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(solve, (shift, b[:1].detach().requires_grad_(), values, mass))


def test_derivatives_of_an_implicit_step_in_the_vertices():
    mesh = icosphere(0)
    b = torch.randn(12, 1, dtype=torch.float64)
    vertices = mesh.vertices.clone().requires_grad_()

    def step(vertices):
        return cotangent_laplacian(TriangleMesh(vertices, mesh.faces)).solve(0.2, b)

    assert torch.autograd.gradcheck(step, vertices)
    assert torch.autograd.gradgradcheck(step, vertices, torch.randn(12, 1, dtype=torch.float64))


@given(data=st.data())
def test_a_hermitian_stiffness_and_a_complex_shift(data):
    L = data.draw(graphs(weights=["ones", "dyadic"]).map(combinatorial_laplacian))
    phase = torch.exp(1j * torch.arange(L.shape[0], dtype=torch.float64))
    magnetic = Laplacian(L.stiffness.scaled(phase, phase.conj()), L.mass)
    b = data.draw(fields(L.shape[0], 2, dtype=torch.complex128))
    bound = 256 * U * L.shape[0] * (1 + L.norm_bound()) * float(b.abs().max())
    # A gauge transformation: L_θ = Φ L Φᴴ.
    assert_within(magnetic.solve(0.5, b), phase[:, None] * L.solve(0.5, phase.conj()[:, None] * b), bound)
    y = L.solve(0.5 + 2j, b.real)
    assert_within(y + (0.5 + 2j) * (L @ y), b.real, 4 * bound)


def test_the_diagonal_of_a_stiffness_need_not_be_stored():
    antidiagonal = SparseOperator.from_entries(
        torch.tensor([0, 1, 2]), torch.tensor([1, 0, 2]), torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64), (3, 3)
    )
    L = Laplacian(antidiagonal, torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    b = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    y = L.solve(0.5, b)
    assert_within(y + 0.5 * (L @ y), b, 32 * U)


def test_gradient_in_a_float32_shift_comes_back_in_float32():
    L = robust_laplacian(icosphere(0)).to(torch.float32)
    shift = torch.tensor(0.3, requires_grad=True)
    y = L.solve(shift, torch.randn(12, 1))
    y.square().sum().backward()
    assert y.dtype == torch.float32
    assert shift.grad.dtype == torch.float32
    assert shift.grad < 0


def test_float32_solution_is_the_float64_one_rounded():
    L = robust_laplacian(icosphere(1)).to(torch.float32)
    b = torch.randn(42, 2)
    assert torch.equal(L.solve(0.5, b), deepcopy(L).to(torch.float64).solve(0.5, b.double()).float())


# Factors --------------------------------------------------------------------------------------------------------------


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


def test_a_solver_that_keeps_one_factor_has_the_last(factored):
    L, solver = robust_laplacian(icosphere(0)), DirectSolver(1)
    for shift in (1.0, 1.0, 2.0, 2.0, 1.0):
        L.solve(shift, torch.ones(12, 1, dtype=torch.float64), by=solver)
    assert len(factored) == 3


def test_a_method_that_goes_round_many_shifts_can_keep_them_all(factored):
    L = robust_laplacian(icosphere(0))
    for count in (FACTORS_KEPT + 2, 1):
        L.keep_factors(count)
        for k in range(FACTORS_KEPT + 2):
            L.solve(1.0 + k, torch.ones(12, 1, dtype=torch.float64))
    assert len(factored) == FACTORS_KEPT + 2


def test_moving_to_another_precision_forgets_the_factors(factored):
    L = robust_laplacian(icosphere(0))
    L.solve(1.0, torch.ones(12, 1, dtype=torch.float64))
    L.to(torch.float32).solve(1.0, torch.ones(12, 1))
    assert len(factored) == 2


def by_optimiser(values, mass):
    values.grad = values.detach().clone()
    torch.optim.SGD([values], lr=0.5).step()


def through_data(values, mass):
    values.data.mul_(0.5)


def through_numpy(values, mass):
    values.detach().numpy()[:] *= 0.5


def in_the_mass(values, mass):
    mass.mul_(2)


@pytest.mark.parametrize("change", [by_optimiser, through_data, through_numpy, in_the_mass])
def test_a_factor_is_never_used_for_changed_values(change, factored):
    L = robust_laplacian(icosphere(0))
    values, mass = torch.nn.Parameter(L.stiffness.values.clone()), L.mass.clone()
    learned = Laplacian(SparseOperator(L.stiffness.pattern, values), mass)
    b = torch.randn(12, 1, dtype=torch.float64)
    learned.solve(1.0, b)
    change(values, mass)
    # Halving C, or doubling M, is halving the step.
    assert_within(learned.solve(1.0, b), L.solve(0.5, b), 64 * U)
    learned.solve(1.0, b)
    assert len(factored) == 3


def test_a_roll_out_that_learns_its_stiffness_takes_the_factor_of_each_step():
    L = robust_laplacian(icosphere(0))
    values = L.stiffness.values.clone().requires_grad_()
    scales = torch.linspace(0.5, 2.0, 2 * FACTORS_KEPT, dtype=torch.float64)
    b = torch.randn(12, 1, dtype=torch.float64)

    def roll(values):
        x = b
        for scale in scales:
            x = Laplacian(SparseOperator(L.stiffness.pattern, scale * values), L.mass).solve(0.1, x)
        return x

    solver = DirectSolver()

    def shared(values):
        x = b
        for scale in scales:
            x = Laplacian(SparseOperator(L.stiffness.pattern, scale * values), L.mass).solve(0.1, x, by=solver)
        return x

    (one,) = torch.autograd.grad(roll(values).square().sum(), values)
    (other,) = torch.autograd.grad(shared(values).square().sum(), values)
    assert torch.equal(one, other)


def test_a_copy_and_a_pickle_of_a_solver_carry_no_factors():
    L, solver = robust_laplacian(icosphere(0)), DirectSolver(2)
    b = torch.ones(12, 1, dtype=torch.float64)
    L.solve(1.0, b, by=solver)
    for copy in (deepcopy(solver), pickle.loads(pickle.dumps(solver))):
        assert copy.factors_kept == 2
        assert copy._factors == []
        assert torch.equal(L.solve(1.0, b, by=copy), L.solve(1.0, b))


@pytest.mark.parametrize("shift", [math.nan, math.inf, -math.inf])
def test_a_shift_that_is_not_finite_reaches_no_native_code(shift, factored):
    with pytest.raises(ValueError, match=r"shift s .* must be finite, not .*: a diverged coefficient"):
        robust_laplacian(icosphere(0)).solve(shift, torch.ones(12, 1, dtype=torch.float64))
    assert factored == []


def test_a_diverged_coefficient_reaches_no_native_code(factored):
    L = robust_laplacian(icosphere(0))
    diverged = Laplacian(SparseOperator(L.stiffness.pattern, L.stiffness.values * math.inf), L.mass)
    with pytest.raises(ValueError, match=r"non-finite values: a diverged coefficient\?"):
        diverged.solve(1.0, torch.ones(12, 1, dtype=torch.float64))
    assert factored == []


def test_a_singular_system_is_an_error_that_names_the_shift():
    pair = combinatorial_laplacian(Graph(torch.tensor([[0, 1], [1, 0]]), 2, torch.ones(2, dtype=torch.float64)))
    with pytest.raises(ValueError, match=r"singular at s = -0\.5 .*: a negative or far too long time step, or coefficient\?"):
        pair.solve(-0.5, torch.ones(2, 1, dtype=torch.float64))


def test_a_negative_shift_is_solved_where_it_can_be_and_refused_at_an_eigenvalue():
    L = robust_laplacian(icosphere(1))
    values = torch.linalg.eigvalsh(L.symmetrized().matrix())
    b = torch.randn(42, 1, dtype=torch.float64)
    between = -2 / float(values[4] + values[9])
    y = L.solve(between, b)
    assert_within(y + between * (L @ y), b, 64 * BACKWARD_ERROR * L.norm_bound() * abs(between) * float(y.abs().max()))
    pair = combinatorial_laplacian(Graph(torch.tensor([[0, 1], [1, 0]]), 2, torch.ones(2, dtype=torch.float64)))
    with pytest.raises(SingularMatrixError, match="condition number is about"):
        pair.solve(-0.5 * (1 + 4 * U), b[:2])


@settings(max_examples=5)
@given(data=st.data())
def test_dissection_and_minimum_degree_give_the_same_solution(data):
    L = robust_laplacian(icosphere(3))
    b, shift = data.draw(fields(642, 1)), data.draw(st.floats(0, 10))
    with pytest.MonkeyPatch.context() as patch:
        expected = L.solve(shift, b)
        patch.setattr(operators.solve, "DISSECT_FROM", 0)
        y = L.solve(shift, b, by=DirectSolver())
    assert_within(y, expected, 32 * U * (1 + shift * L.norm_bound()) * float(b.abs().max()))


def test_the_older_vmap_of_torch_autograd_is_refused_with_the_cure():
    L = cotangent_laplacian(icosphere(0))
    b = torch.randn(12, 1, dtype=torch.float64)
    with pytest.raises(NotImplementedError, match=r"use torch\.func\.jacrev"):
        torch.autograd.functional.jacobian(lambda b: L.solve(0.1, b), b, vectorize=True)
    jacobian = torch.func.jacrev(lambda b: L.solve(0.1, b))(b).squeeze()
    assert_within(jacobian @ b, L.solve(0.1, b), 64 * U * b.abs().sum())


def test_a_factor_that_another_thread_drops_during_the_search_still_serves(monkeypatch):
    L = robust_laplacian(icosphere(1))
    b = torch.randn(42, 1, dtype=torch.float64)
    expected, equal = L.solve(0.1, b), torch.equal

    def meanwhile(one, other):
        L._direct.clear()
        return equal(one, other)

    with monkeypatch.context() as patched:
        patched.setattr(operators.solve.torch, "equal", meanwhile)
        actual = L.solve(0.1, b)
    assert torch.equal(actual, expected)
