"""Polynomials of an operator keep their error bound, and their gradients are those of the function."""

import math
import pickle
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import assert_within, fields, graphs, roundoff
from operators.chebyshev import MAX_DEGREE, ChebyshevFilter, chebyshev_filter
from operators.checks import ConvergenceError, DomainError, FieldError
from operators.domains import Graph
from operators.functions import cosine, exponential, resolvent, sine
from operators.laplacian import Laplacian, combinatorial_laplacian, symmetric_laplacian
from operators.magnetic import magnetic_laplacian
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


def triangle(**kinds):
    index = torch.tensor([[0, 1, 2], [1, 2, 0]])
    return Graph(index, 3, torch.ones(3, dtype=torch.float64))


# General functions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f", [lambda w: w * torch.exp(-w), lambda w: 1 / (1 + (w - 3) ** 2), lambda w: torch.exp(-1j * w), lambda w: w**3 - w]
)
@pytest.mark.parametrize("chosen_by", [{"degree": 25}, {"tolerance": 1e-8}])
def test_estimate_for_a_general_function_holds(f, chosen_by):
    L = robust_laplacian(icosphere(1))
    p = chebyshev_filter(L, f, **chosen_by)
    target = exact(L, f)
    assert distance(L, p.matrix(), target) <= p.error_bound + round_off(p, L.shape[0])


def test_a_series_of_degree_zero_is_a_multiple():
    L, x = robust_laplacian(icosphere(0)), torch.randn(12, 2, dtype=torch.float64)
    assert_within(chebyshev_filter(L, lambda w: 0 * w + 3, degree=0) @ x, 3 * x, 1e-14)


def test_polynomial_needs_its_own_degree_only():
    L = robust_laplacian(icosphere(1))
    assert chebyshev_filter(L, lambda w: w**3 - w, tolerance=1e-10).degree == 3
    assert chebyshev_filter(L, torch.ones_like, tolerance=1e-10).degree == 0


def test_hermitian_operator_and_complex_fields():
    L = magnetic_laplacian(triangle())
    S = L.matrix()
    x = torch.randn(3, 2, dtype=torch.complex128)
    assert_within(exponential(L, 0.7) @ x, torch.linalg.matrix_exp(-0.7 * S) @ x, 1e-13 * float(x.abs().sum()))
    # Of a real field, the image is complex.
    assert_within(
        exponential(L, 0.7) @ x.real, torch.linalg.matrix_exp(-0.7 * S) @ x.real.to(x.dtype), 1e-13 * float(x.abs().sum())
    )


# The operator ---------------------------------------------------------------------------------------------------------


@functions
@settings(max_examples=10)
@given(data=st.data())
def test_self_adjoint_linear_and_batched(build, data):
    L = combinatorial_laplacian(data.draw(graphs(weights=["ones", "dyadic"])))
    p = build(L, 0.5)
    x, y = (data.draw(fields(L.shape[0], 2, batch=(3,))) for _ in range(2))
    size = float((x.abs().sum() + 1) * (y.abs().sum() + 1))
    assert p.adjoint() is p
    assert_within(p.inner(y, p @ x), p.inner(p @ y, x), round_off(p, L.shape[0]) * size)
    for i in range(3):
        assert_within((p @ x)[i], p @ x[i], round_off(p, L.shape[0]) * size)
    assert_within(p @ (2 * x + y), 2 * (p @ x) + p @ y, round_off(p, L.shape[0]) * 4 * size)


def test_adjoint_of_a_complex_function_is_its_conjugate():
    L = robust_laplacian(icosphere(0))
    p = chebyshev_filter(L, lambda w: torch.exp(-1j * w))
    x, y = torch.randn(2, 12, 1, dtype=torch.complex128)
    assert_within(p.inner(y, p @ x), p.inner(p.adjoint() @ y, x), 1e-12)
    assert_within(p.inner(p @ x, p @ x), p.inner(x, x), 1e-12)


def test_one_time_a_channel():
    L = robust_laplacian(icosphere(1))
    t, x = torch.tensor([0.0, 0.1, 2.0]), torch.randn(4, L.shape[0], 3, dtype=torch.float64)
    together = exponential(L, t) @ x
    for c in range(3):
        assert_within(together[..., c : c + 1], exponential(L, float(t[c])) @ x[..., c : c + 1], 1e-13)
    with pytest.raises(FieldError, match="3 channels"):
        exponential(L, t) @ x[..., :2]


def test_copies_pickles_and_moves():
    L = robust_laplacian(icosphere(1))
    p = exponential(L, 0.3)
    x = torch.randn(42, 2, dtype=torch.float64)
    assert p.state_dict() == {}
    for copy in (deepcopy(p), pickle.loads(pickle.dumps(p))):
        assert torch.equal(copy @ x, p @ x)
    moved = p.on(torus(8, 6))
    again = exponential(robust_laplacian(torus(8, 6)), 0.3)
    assert moved.interval == again.interval
    assert torch.equal(moved.matrix(), again.matrix())
    narrow = deepcopy(p).to(torch.float32)
    assert (narrow @ x.float()).dtype == torch.float32
    with pytest.raises(NotImplementedError, match="built from tensors"):
        ChebyshevFilter(L, p.coefficients, p.interval, 0.0).on(torus(8, 6))


def test_zero_operator_and_zero_time():
    L = combinatorial_laplacian(Graph(torch.zeros(2, 0, dtype=torch.int64), 3, torch.zeros(0, dtype=torch.float64)))
    for build, value in ((exponential, 1.0), (cosine, 1.0), (sine, 2.0), (resolvent, 1.0)):
        assert_within(build(L, 2.0).matrix(), value * torch.eye(3), 1e-14)
        assert_within(build(L, 0.0).matrix(), (build is not sine) * torch.eye(3), 1e-15)


# Gradients ------------------------------------------------------------------------------------------------------------


@functions
def test_gradients_in_field_and_time_to_second_order(build):
    # Unequal masses, so that L is not its own plain transpose.
    L = robust_laplacian(torus(4, 3))
    x = torch.randn(12, 1, dtype=torch.float64, requires_grad=True)
    t = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, t: build(L, t, tolerance=1e-12) @ x, (x, t), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x, t: build(L, t, tolerance=1e-12) @ x, (x, t), fast_mode=True)


@functions
@pytest.mark.parametrize("t", [0.0, 0.5])
def test_gradient_in_time_is_that_of_the_function(build, t):
    """Even at t = 0, where the function itself needs no product but its derivative −λ does."""
    L = robust_laplacian(icosphere(1))
    time = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    x, g = torch.randn(2, 42, 1, dtype=torch.float64)
    (build(L, time, tolerance=1e-10) @ x * g).sum().backward()
    other = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    (exact(L, lambda w: FUNCTIONS[build](w + 1e-300, other)) @ x * g).sum().backward()
    # The derivative has the size λ̂ of the operator.
    assert_within(time.grad, other.grad, 1e-8 * L.norm_bound() * float(x.norm() * g.norm()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_learned_stiffness_takes_plain_autograd_with_the_same_result(dtype):
    graph = triangle()
    L = magnetic_laplacian(graph) if dtype.is_complex else combinatorial_laplacian(graph.undirected())
    learned = Laplacian(SparseOperator(L.stiffness.pattern, torch.nn.Parameter(L.stiffness.values.clone())), L.mass)
    x = torch.randn(2, 3, 2, dtype=dtype, requires_grad=True)
    g = torch.randn(2, 3, 2, dtype=dtype)
    for build in FUNCTIONS:
        fixed = torch.autograd.grad(build(L, 0.5) @ x, x, g)[0]
        y = build(learned, 0.5) @ x
        from_autograd, in_values = torch.autograd.grad(y, (x, learned.stiffness.values), g)
        assert_within(fixed, from_autograd, 1e-12)
        assert torch.isfinite(in_values).all()
        assert_within(y, build(L, 0.5) @ x, 1e-12)


def test_gradient_in_the_stiffness_is_that_of_the_matrix_exponential():
    L = combinatorial_laplacian(torus(4, 3).graph().to(torch.float64))
    values = L.stiffness.values.clone().requires_grad_()
    learned = Laplacian(SparseOperator(L.stiffness.pattern, values), L.mass)
    x, g = torch.randn(2, 12, 2, dtype=torch.float64)
    (ours,) = torch.autograd.grad(exponential(learned, 0.3, interval=(0, 20)) @ x, values, g)
    dense = L.matrix().requires_grad_()
    (theirs,) = torch.autograd.grad(torch.linalg.matrix_exp(-0.3 * dense) @ x, dense, g)
    assert_within(ours, theirs[L.stiffness.pattern.row, L.stiffness.pattern.col], 1e-11)


def test_learned_filter_gets_gradients():
    L = robust_laplacian(icosphere(1))
    a = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    x = torch.randn(42, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a: chebyshev_filter(L, lambda w: torch.exp(-w[:, None] * a), degree=30) @ x, (a,))


def test_backward_keeps_nothing_but_the_field():
    """Of the hundred products in between, none is saved."""
    L = robust_laplacian(icosphere(2))
    p = cosine(L, 10.0)
    assert p.degree > 50
    x = torch.randn(L.shape[0], 4, dtype=torch.float64, requires_grad=True)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        p @ x
    assert sum(sizes) <= 2 * x.numel()


# What is refused ------------------------------------------------------------------------------------------------------


@functions
@pytest.mark.parametrize("t", [math.nan, math.inf, 1j, torch.zeros(2, 2), torch.zeros(0)])
def test_bad_times_are_refused(build, t):
    with pytest.raises((DomainError, FieldError), match="time or shift"):
        build(robust_laplacian(icosphere(0)), t)


@functions
@pytest.mark.parametrize("tolerance", [0.0, -1.0, 1.0, math.nan])
def test_bad_tolerances_are_refused(build, tolerance):
    with pytest.raises(DomainError, match="tolerance must lie"):
        build(robust_laplacian(icosphere(0)), 1.0, tolerance=tolerance)


@functions
def test_too_long_a_time_names_the_alternatives(build):
    with pytest.raises(ConvergenceError, match=rf"more than {MAX_DEGREE} products.*solve.*eigenpairs"):
        build(robust_laplacian(icosphere(0)), 1e15)


def test_other_refusals_name_cause_and_cure():
    L = symmetric_laplacian(torus(6, 5).graph())
    with pytest.raises(DomainError, match="positive semi-definite"):
        cosine(L.complement(), 1.0)
    with pytest.raises(DomainError, match="needs s ≥ 0"):
        resolvent(L, -1.0)
    with pytest.raises(DomainError, match="finite and ascending"):
        exponential(L, 1.0, interval=(2.0, 1.0))
    with pytest.raises(DomainError, match="not finite on the interval"):
        chebyshev_filter(L, lambda w: torch.log(w - 1))
    with pytest.raises(DomainError, match=r"must map eigenvalues"):
        chebyshev_filter(L, lambda w: w.sum())
    with pytest.raises(DomainError, match="degree must be"):
        chebyshev_filter(L, torch.exp, degree=-1)
    with pytest.raises(ConvergenceError, match="not smooth enough"):
        chebyshev_filter(L, lambda w: (w > 1).double(), tolerance=1e-6)
    with pytest.raises(FieldError, match="shape"):
        exponential(L, 1.0) @ torch.ones(30)


# An interval that misses part of the spectrum -------------------------------------------------------------------------


@functions
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_an_interval_that_misses_eigenvalues_is_refused_or_does_no_harm(build, dtype, share):
    wide = robust_laplacian(icosphere(2))
    L = deepcopy(wide).to(dtype)
    x = torch.randn(L.shape[0], 2, dtype=dtype)
    for t in (0.01, 1.0):
        p = build(L, t, interval=(0.0, share * wide.largest_eigenvalue()), tolerance=1e-6)
        try:
            y = p @ x
        except DomainError:
            continue
        gap = y.double() - exact(wide, lambda w, t=t: FUNCTIONS[build](w, t)) @ x.double()
        assert float(wide.inner(gap, gap).sqrt()) <= 1e-4 * max(1.0, t) * float(wide.inner(x.double(), x.double()).sqrt())


def test_a_filter_of_an_operator_that_grew_since_is_refused_forward_and_in_training():
    fixed = robust_laplacian(icosphere(1))
    x = torch.randn(42, 1, dtype=torch.float64)
    learned = Laplacian(SparseOperator(fixed.stiffness.pattern, torch.nn.Parameter(fixed.stiffness.values)), fixed.mass)
    p = exponential(learned, 1.0)
    p @ x
    with torch.no_grad():
        learned.stiffness.values.mul_(10)
    with pytest.raises(DomainError, match="if Laplacian has changed since, build the filter anew"):
        p @ x


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e25, float("nan")])
def test_the_size_of_the_field_is_no_alarm(scale):
    L = deepcopy(robust_laplacian(icosphere(1))).to(torch.float32)
    y = exponential(L, 0.1) @ (scale * torch.randn(42, 2))
    assert bool(torch.isfinite(y).all()) == math.isfinite(scale)


def test_a_filter_takes_the_transforms_of_torch_func():
    L = robust_laplacian(icosphere(1))
    x, g = torch.randn(2, 42, 2, dtype=torch.float64)
    p = exponential(L, 0.1)
    assert_within(torch.func.jvp(p, (x,), (g,))[1], p @ g, 1e-12)
    assert_within(torch.func.vmap(p)(torch.stack([x, g])), p @ torch.stack([x, g]), 1e-12)
    slope = torch.func.grad(lambda y: (p(y) * g).sum())
    y = x.clone().requires_grad_()
    assert_within(slope(x), torch.autograd.grad((p(y) * g).sum(), y)[0], 1e-12)
    assert_within(torch.func.vmap(slope)(torch.stack([x, g]))[1], slope(g), 1e-12)
