"""Conjugate gradients agree with the direct solver, differentiate to the second order, and fail in words."""

import pickle
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import operators.cg
from neuralpde.testing import assert_within, fields, graphs, meshes
from operators.cg import AMG, ConjugateGradient, Constants, Jacobi
from operators.checks import ConvergenceError, DomainError, FieldError
from operators.domains import Graph
from operators.laplacian import Laplacian, combinatorial_laplacian, symmetric_laplacian
from operators.operator import Operator
from operators.shapes import grid, icosphere
from operators.sparse import SparseOperator
from operators.surface import cotangent_laplacian, robust_laplacian

TIGHT = 1e-12
F64 = torch.float64


@pytest.fixture(scope="module", autouse=True)
def _pyamg():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("pyamg")


class Screened(Operator):
    """x ↦ x + s L x, matrix-free, self-adjoint in L's inner product."""

    def __init__(self, laplacian, shift):
        super().__init__()
        self.laplacian, self.shape = laplacian, laplacian.shape
        self.register_buffer("shift", torch.as_tensor(shift, dtype=laplacian.mass.dtype), persistent=False)

    def forward(self, x):
        return x + self.shift * self.laplacian(x)

    def inner(self, x, y):
        return self.laplacian.inner(x, y)

    def diagonal(self):
        return 1 + self.shift * self.laplacian.diagonal()


@pytest.mark.parametrize("preconditioner", [None, Jacobi(), AMG()], ids=["plain", "Jacobi", "AMG"])
@pytest.mark.parametrize("dtype", [F64, torch.complex128])
@given(data=st.data())
def test_agrees_with_the_direct_solver(dtype, preconditioner, data):
    build = st.one_of(
        graphs(weights=["ones", "dyadic"]).map(combinatorial_laplacian), meshes(slivers=False).map(robust_laplacian)
    )
    L = data.draw(build)
    shift = data.draw(st.floats(0, 10)) / max(1.0, L.norm_bound())
    b = data.draw(fields(L.shape[0], batch=data.draw(st.sampled_from([(), (2,), (0,)])), dtype=dtype))
    y = L.solve(shift, b, by=ConjugateGradient(TIGHT, preconditioner=preconditioner))
    assert y.shape == b.shape
    # Condition of I + s L is at most 11 here, in the norm of M.
    spread = float((L.mass.max() / L.mass.min()).sqrt()) * L.shape[0]
    bound = 8 * TIGHT * 11 * spread * (float(b.abs().max()) if b.numel() else 0.0)
    assert_within(y, L.solve(shift, b), bound)


@pytest.mark.parametrize("preconditioner", [None, Jacobi()])
def test_matrix_free_in_a_weighted_inner_product(preconditioner):
    L = robust_laplacian(icosphere(2))
    b = torch.randn(2, 162, 3, dtype=F64)
    x = ConjugateGradient(TIGHT, preconditioner=preconditioner).solve(Screened(L, 0.3), b)
    assert_within(x, L.solve(0.3, b), 1e-10)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_every_column_converges_at_its_own_scale(scale):
    L = robust_laplacian(icosphere(1))
    b = torch.randn(42, 3, dtype=F64) * torch.tensor([scale, 0.0, 1e-3], dtype=F64)
    x = ConjugateGradient(TIGHT).solve(Screened(L, 0.3), b)
    expected = L.solve(0.3, b)
    assert_within(x, expected, 1e-10 * b.abs().amax(0))
    assert (x[:, 1] == 0).all()


def test_a_good_guess_saves_the_iterations():
    L = robust_laplacian(icosphere(2))
    b = torch.randn(162, 1, dtype=F64)
    x = L.solve(0.3, b)
    quick = ConjugateGradient(1e-8, max_iterations=1)
    assert_within(quick.solve(Screened(L, 0.3), b, guess=x), x, 1e-12)
    with pytest.raises(ConvergenceError):
        quick.solve(Screened(L, 0.3), b)


def test_multigrid_takes_few_iterations_on_a_large_step_and_leaves_the_generator_alone():
    L = robust_laplacian(icosphere(4))
    b = torch.randn(2562, 1, dtype=F64)
    before = np.random.get_state()[1].copy()
    y = L.solve(100.0, b, by=ConjugateGradient(1e-10, max_iterations=25, preconditioner=AMG()))
    assert (np.random.get_state()[1] == before).all()
    assert_within(y, L.solve(100.0, b), 1e-7)
    with pytest.raises(ConvergenceError, match=r"in 25 iterations: use a preconditioner"):
        L.solve(100.0, b, by=ConjugateGradient(1e-10, max_iterations=25))


@pytest.mark.parametrize("preconditioner", [None, AMG()], ids=["plain", "AMG"])
@given(data=st.data())
def test_a_semi_definite_system_is_solved_beside_its_kernel(preconditioner, data):
    L = data.draw(graphs(weights=["ones"]).map(combinatorial_laplacian))
    b = data.draw(fields(L.shape[0], 2, exact=True))
    kernel = Constants.of(L)
    x = ConjugateGradient(1e-10, preconditioner=preconditioner, kernel=kernel).solve(L, b)
    # The pseudo-inverse of a graph of at most nine nodes has a norm below 9.
    assert_within(x, torch.linalg.pinv(L.matrix(), rtol=1e-10) @ b, 1e-8 * (1 + float(b.abs().max())))


def test_derivatives_of_both_orders_in_everything():
    L = cotangent_laplacian(grid(3, 2))
    cg = ConjugateGradient(1e-14, preconditioner=Jacobi())
    half = L.stiffness.pattern.row <= L.stiffness.pattern.col
    mirror = (L.stiffness.pattern.col * 6 + L.stiffness.pattern.row).argsort()
    values = L.stiffness.values.detach()[half].requires_grad_()
    shift = torch.tensor(0.3, dtype=F64, requires_grad=True)
    mass = L.mass.clone().requires_grad_()
    b = torch.randn(6, 2, dtype=F64, requires_grad=True)

    def solve(shift, b, values, mass):
        # Symmetric however the entries are varied: conjugate gradients promise nothing else.
        upper = torch.zeros(len(half), dtype=F64).masked_scatter(half, values)
        full = torch.where(half, upper, upper[mirror])
        laplacian = Laplacian(SparseOperator(L.stiffness.pattern, full), mass)
        return laplacian.solve(shift, b, by=cg) + cg.solve(Screened(laplacian, shift), b)

    assert torch.autograd.gradcheck(solve, (shift, b, values, mass))
    assert torch.autograd.gradgradcheck(solve, (shift, b, values, mass))


def test_gradient_beside_a_kernel_in_the_mass():
    L = robust_laplacian(icosphere(0))
    mass = L.mass.clone().requires_grad_()
    b = torch.randn(12, 1, dtype=F64, requires_grad=True)

    def solve(mass, b):
        laplacian = Laplacian(L.stiffness, mass)
        return ConjugateGradient(1e-13, kernel=Constants.of(laplacian)).solve(laplacian, b)

    assert torch.autograd.gradcheck(solve, (mass, b))


def test_a_learned_parameter_gets_its_gradient_and_a_captured_tensor_is_refused():
    L = symmetric_laplacian(Graph(torch.tensor([[0, 1], [1, 0]]), 2, torch.ones(2, dtype=F64)))
    b = torch.tensor([[1.0], [0.0]], dtype=F64)
    operator = Screened(L, 0.5)
    del operator.shift
    operator.shift = nn.Parameter(torch.tensor(0.5, dtype=F64))
    ConjugateGradient(TIGHT).solve(operator, b)[0].sum().backward()
    # x₀ = (1 + s) / (1 + 2 s), of derivative −1 / (1 + 2 s)².
    assert float(operator.shift.grad) == pytest.approx(-0.25, rel=1e-9)

    class Careless(Screened):
        def forward(self, x):
            return x + self.hidden[0] * self.laplacian(x)

    careless = Careless(L, 0.5)
    careless.__dict__["hidden"] = [torch.tensor(0.5, dtype=F64, requires_grad=True)]
    with pytest.raises(DomainError, match=r"neither its parameter nor its buffer.*register it"):
        ConjugateGradient().solve(careless, b)


def test_an_indefinite_operator_is_refused_with_its_cure():
    L, b = robust_laplacian(icosphere(1)), torch.randn(42, 1, dtype=F64)
    with pytest.raises(ConvergenceError, match=r"not positive definite: ⟨p, A p⟩ = -.*negative time step.*DirectSolver"):
        ConjugateGradient().solve(Screened(L, -10.0), b)
    with pytest.raises(ConvergenceError, match="42 diagonal entries are not positive"):
        ConjugateGradient(preconditioner=Jacobi()).solve(Screened(L, -10.0), b)


def test_an_operator_that_is_not_self_adjoint_is_refused():
    i = torch.arange(8)
    skewed = SparseOperator.from_entries(
        torch.cat([i, i]), torch.cat([i, (i + 1) % 8]), torch.tensor([4.0] * 8 + [1.0] * 8, dtype=F64), (8, 8)
    )
    with pytest.raises(ConvergenceError, match=r"not self-adjoint.*use DirectSolver\(\)"):
        ConjugateGradient().solve(skewed, torch.randn(8, 1, dtype=F64))


def test_an_inconsistent_system_and_a_tolerance_below_the_precision_end_in_words():
    L = robust_laplacian(icosphere(1))
    with pytest.raises(ConvergenceError, match=r"kernel="):
        ConjugateGradient().solve(L, torch.ones(42, 1, dtype=F64))
    with pytest.raises(ConvergenceError, match=r"torch\.float32 holds no more digits"):
        ConjugateGradient(1e-14).solve(Screened(L.to(torch.float32), 10.0), torch.randn(42, 1))


def test_what_does_not_fit_is_refused():
    L = robust_laplacian(icosphere(0))
    bad = torch.ones(12, 1, dtype=F64)
    bad[5] = torch.nan
    with pytest.raises(FieldError, match="not finite at 1 nodes, the first is node 5"):
        ConjugateGradient().solve(Screened(L, 1.0), bad)
    with pytest.raises(DomainError, match=r"needs the entries of one matrix"):
        ConjugateGradient(preconditioner=AMG()).solve(Screened(L, 1.0), torch.ones(12, 1, dtype=F64))
    with pytest.raises(DomainError, match="constants are not in the kernel"):
        Constants.of(robust_laplacian(grid(4, 4)).symmetrized())
    for arguments in [(0.0,), (1e-8, 0)]:
        with pytest.raises(ValueError, match="must"):
            ConjugateGradient(*arguments)


def test_a_hierarchy_is_kept_until_the_values_change(monkeypatch):
    built, build = [], operators.cg._hierarchy
    monkeypatch.setattr(operators.cg, "_hierarchy", lambda A: built.append(A) or build(A))
    A, amg = robust_laplacian(icosphere(1))._shifted(torch.tensor(0.3)), AMG()
    for matrix in (A, SparseOperator(A.pattern, A.values.clone()), 2 * A, 2 * A, (2 * A).to(torch.float32)):
        b = torch.ones(42, 1, dtype=matrix.dtype)
        assert_within(amg.of(matrix)(b), AMG().of(matrix)(b), 1e-6)
    assert len(built) == 5 + 3


def test_a_cycle_of_several_levels_takes_complex_fields():
    L = robust_laplacian(icosphere(3))
    A, b = L._shifted(torch.tensor(0.3)), torch.randn(2, L.shape[0], 3, dtype=torch.complex128)
    cycle = AMG().of(A)
    assert_within(cycle(b), torch.complex(cycle(b.real), cycle(b.imag)), 1e-12)


def test_a_copy_of_a_preconditioner_carries_no_hierarchy():
    L, amg = robust_laplacian(icosphere(2)), AMG()
    b = torch.randn(L.shape[0], 1, dtype=F64)
    expected = amg.of(L)(b)
    copy = pickle.loads(pickle.dumps(amg))
    assert len(pickle.dumps(copy)) < 200
    assert torch.equal(copy.of(L)(b), expected)


def test_without_pyamg_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyamg", None)
    with pytest.raises(ImportError, match=r"neuralpde-toolkit\[amg\]"):
        robust_laplacian(icosphere(0)).solve(1.0, torch.ones(12, 1, dtype=F64), by=ConjugateGradient(preconditioner=AMG()))


def test_a_guess_that_does_not_fit_is_refused():
    L = combinatorial_laplacian(icosphere(0).graph())
    b = torch.randn(12, 1, dtype=torch.float64)
    for guess in (b[:3], b.float()):
        with pytest.raises(FieldError, match="guess"):
            ConjugateGradient(kernel=Constants.of(L)).solve(L, b, guess)
