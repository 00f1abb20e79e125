"""exp(t (A ⊗ W + α A + β)) is SciPy's matrix exponential, keeps norms, and has the gradients of the function."""

import math
import pickle
from copy import deepcopy

import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import fields, graphs
from operators.checks import ConvergenceError, DomainError, FieldError
from operators.domains import Graph
from operators.laplacian import Laplacian, normalized_adjacency, symmetric_laplacian
from operators.magnetic import magnetic_laplacian
from operators.shapes import icosphere, torus
from operators.sparse import SparseOperator
from operators.surface import robust_laplacian
from operators.unitary_exponential import UnitaryExponential

TRIANGLE = Graph(torch.tensor([[0, 1, 2], [1, 2, 0]]), 3, torch.ones(3, dtype=torch.float64))
GENERATORS = {
    "mesh": lambda: robust_laplacian(icosphere(0)),
    "complement": lambda: robust_laplacian(icosphere(0)).complement(),
    "graph": lambda: symmetric_laplacian(torus(4, 3).graph()),
    "adjacency": lambda: normalized_adjacency(symmetric_laplacian(torus(4, 3).graph())),
    "magnetic": lambda: magnetic_laplacian(TRIANGLE),
}
generators = pytest.mark.parametrize("make", GENERATORS.values(), ids=GENERATORS.keys())


def skew(d, dtype=torch.float64, size=1.0):
    V = torch.randn(d, d, dtype=dtype)
    return size * (V - V.mH) / torch.linalg.matrix_norm(V - V.mH, 2) if d > 1 or dtype.is_complex else torch.zeros(1, 1)


def dense(A, W, t, damping, x):
    """SciPy's expm of the whole Kronecker product."""
    n, d = x.shape
    A, W, x = (part.to(torch.complex128) for part in (A.matrix(), W, x))
    damped = damping[0] * A + damping[1] * torch.eye(n, dtype=A.dtype)
    G = torch.kron(A, W.T.contiguous()) + torch.kron(damped, torch.eye(d, dtype=A.dtype))
    return torch.from_numpy(scipy.linalg.expm(t * G.numpy()) @ x.reshape(-1).numpy()).reshape(n, d)


@generators
@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
@pytest.mark.parametrize(("t", "damping"), [(0.7, (0.0, 0.0)), (-0.7, (0.0, 0.0)), (0.5, (-0.3, 0.1)), (0.0, (0.0, 0.0))])
def test_it_is_the_matrix_exponential(make, width, kind, t, damping):
    A, W = make(), skew(width, kind, 2.0)
    flow = UnitaryExponential(A, W, t, damping=damping)
    for state in (torch.float64, torch.complex128):
        x = torch.randn(A.shape[0], width, dtype=state)
        if flow.real or state.is_complex:
            y = flow @ x
            assert y.dtype == state
            assert float((y - dense(A, W, t, damping, x)).abs().max()) <= 1e-11 * float(x.norm())


@pytest.mark.parametrize("kind", [torch.float32, torch.complex64])
def test_single_precision_reaches_its_own(kind):
    A, W = robust_laplacian(icosphere(0)), skew(4, kind)
    x = torch.randn(12, 4, dtype=kind)
    y = UnitaryExponential(deepcopy(A).to(torch.float32), W, 0.5) @ x
    assert y.dtype == kind
    expected = dense(A, W, 0.5, (0.0, 0.0), x)
    assert float((y - expected).norm()) <= 1e-6 * float(x.norm())
    assert float((y - expected).abs().max()) <= 2e-7 * float(x.norm())


@pytest.mark.parametrize(("angle", "products"), [(1, 7), (4, 13), (16, 31), (64, 98)])
def test_products_at_a_millionth(angle, products):
    """The figures of the design, with the spectrum in [−1, 1]."""
    A = symmetric_laplacian(torus(8, 6).graph()).complement()
    flow = UnitaryExponential(A, skew(4), float(angle), tolerance=1e-6, interval=(-1.0, 1.0))
    assert flow.degree <= products
    calls = 0

    def count(*_):
        nonlocal calls
        calls += 1

    A.register_forward_hook(count)
    flow @ torch.randn(48, 4, dtype=torch.float64)
    assert calls == flow.degree


@settings(max_examples=15, deadline=None)
@given(data=st.data(), angle=st.sampled_from([0.1, 1.0, 10.0, 60.0]), tolerance=st.sampled_from([1e-3, 1e-7, 1e-12]))
def test_the_tolerance_is_kept(data, angle, tolerance):
    A = symmetric_laplacian(data.draw(graphs(min_nodes=2)))
    W = skew(2, size=angle / 2)
    x = data.draw(fields(A.shape[0], 2))
    y = UnitaryExponential(A, W, 1.0, tolerance=tolerance) @ x
    size = float(x.norm())
    # expm itself errs by about u times the angle.
    assert float((y - dense(A, W, 1.0, (0.0, 0.0), x)).norm()) <= (tolerance + 1e-14 * (10 + angle) * A.shape[0]) * size


@generators
def test_norm_and_energy_are_kept_over_many_steps(make):
    A = make()
    W = skew(4, size=3.0)
    flow = UnitaryExponential(A, W, 1.0)
    x = torch.randn(A.shape[0], 4, dtype=torch.complex128)
    y = x
    for _ in range(100):
        y = flow @ y
    assert abs(float(A.inner(y, y).real / A.inner(x, x).real) - 1) <= 1e-11
    assert abs(float((A.inner(y, A @ y) - A.inner(x, A @ x)).real / A.inner(x, x).real)) <= 1e-11 * A.norm_bound()


def test_semigroup_and_time_reversal():
    A, W = robust_laplacian(icosphere(0)), skew(4, size=2.0)
    x = torch.randn(12, 4, dtype=torch.float64)
    one, two, back = (UnitaryExponential(A, W, t) for t in (0.7, 1.4, -1.4))
    assert float((one @ (one @ x) - two @ x).norm()) <= 1e-12 * float(x.norm())
    assert float((back @ (two @ x) - x).norm()) <= 1e-12 * float(x.norm())


def test_batches_and_other_layouts_are_fields_one_by_one():
    A, W = robust_laplacian(icosphere(0)), skew(4)
    flow = UnitaryExponential(A, W, 0.5)
    x = torch.randn(4, 3, 12, dtype=torch.float64).transpose(0, 2).movedim(0, 1)
    for i in range(3):
        assert torch.allclose((flow @ x)[i], flow @ x[i].contiguous(), atol=1e-13)
    assert torch.allclose(flow @ (x + 2j * x), (1 + 2j) * (flow @ x), atol=1e-12)


# Gradients ------------------------------------------------------------------------------------------------------------


def inputs(kind, width, repeated):
    V = torch.randn(width, width, dtype=kind)
    if repeated:  # λ = ±1, each twice, and so every divided difference between them is 0/0.
        V = torch.zeros_like(V)
        V[0, 1] = V[2, 3] = 2
    x = torch.randn(12, width, dtype=kind)
    scalars = [torch.tensor(s, dtype=torch.float64) for s in (0.03, -0.2, 0.1)]
    return [tensor.requires_grad_() for tensor in (V, x, *scalars)]


@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
@pytest.mark.parametrize("repeated", [False, True])
def test_gradients_in_everything_to_second_order(kind, repeated):
    fixed = robust_laplacian(icosphere(0))
    order = fixed.stiffness.pattern.transposed_order
    values = fixed.stiffness.values.clone().requires_grad_()

    def flow(V, x, t, alpha, beta, values):
        L = Laplacian(SparseOperator(fixed.stiffness.pattern, (values + values[order]) / 2), fixed.mass)
        return UnitaryExponential(L, (V - V.mH) / 2, t, damping=(alpha, beta), interval=(0.0, 20.0)) @ x

    given = (*inputs(kind, 4, repeated), values)
    assert torch.autograd.gradcheck(flow, given, fast_mode=True)
    assert torch.autograd.gradgradcheck(flow, given, fast_mode=True)


@generators
@pytest.mark.parametrize("width", [2, 3])
def test_gradients_on_every_kind_of_operator(make, width):
    A = make()
    kind = torch.complex128
    V, _, t, alpha, beta = inputs(torch.float64, width, False)
    x = torch.randn(A.shape[0], width, dtype=kind, requires_grad=True)
    flow = lambda V, x, t, a, b: UnitaryExponential(A, V - V.T, t, damping=(a, b)) @ x  # noqa: E731
    assert torch.autograd.gradcheck(flow, (V, x, t, alpha, beta), fast_mode=True)


@pytest.mark.parametrize("gap", [0.0, 1e-9, 1e-7, 1e-6, 1e-5, 1e-3])
def test_the_gradient_in_W_is_right_however_close_two_angles_are(gap):
    """By divided differences where they are apart, by the trapezoid rule where they are not: nine digits in either case."""
    A = symmetric_laplacian(torus(4, 3).graph())
    V = torch.zeros(4, 4, dtype=torch.float64)
    V[0, 1], V[2, 3] = 1.0, 1.0 + gap
    mixed = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    V = (mixed @ V @ mixed.T).requires_grad_()
    x, g = torch.randn(2, 12, 4, dtype=torch.float64)
    (ours,) = torch.autograd.grad(UnitaryExponential(A, V - V.T) @ x, V, g)
    G = torch.kron(A.matrix(), (V - V.T).T.contiguous())
    (theirs,) = torch.autograd.grad(torch.linalg.matrix_exp(G) @ x.reshape(-1), V, g.reshape(-1))
    assert float((ours - theirs).norm()) <= 1e-9 * float(theirs.norm())


def test_a_generator_of_zero_still_has_a_gradient():
    A = robust_laplacian(icosphere(0))
    V = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    x, g = torch.randn(2, 12, 2, dtype=torch.float64)
    y = UnitaryExponential(A, V - V.T, 0.5) @ x
    assert torch.equal(y, x)
    (y * g).sum().backward()
    # dy = t A x dW.
    expected = 0.5 * (A @ x).T @ g
    assert torch.allclose(V.grad, expected - expected.T, atol=1e-12)


def test_the_gradient_keeps_only_the_field_and_the_result():
    A, sizes = robust_laplacian(icosphere(2)), []
    x = torch.randn(A.shape[0], 4, dtype=torch.float64, requires_grad=True)
    flow = UnitaryExponential(A, skew(4), 1.0)
    assert flow.degree > 40
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        flow @ x
    assert sum(sizes) <= 3 * x.numel()


@pytest.mark.parametrize("damping", [(0.0, 0.0), (-0.3, 0.1), (-3.0, 0.1)])
def test_transforms_of_torch_func(damping):
    A, W = robust_laplacian(icosphere(0)), skew(4)
    x, g = torch.randn(2, 12, 4, dtype=torch.float64)
    flow = UnitaryExponential(A, W, 0.5, damping=damping)
    assert torch.allclose(torch.func.jvp(flow, (x,), (g,))[1], flow @ g, atol=1e-12)
    assert torch.allclose(torch.func.vmap(flow)(torch.stack([x, g]))[1], flow @ g, atol=1e-12)
    back = UnitaryExponential(A, -W, 0.5, damping=damping)
    slope = torch.func.grad(lambda x: flow.inner(flow(x), g))(x)
    assert torch.allclose(slope / A.mass[:, None], back @ g, atol=1e-12)


# The rest -------------------------------------------------------------------------------------------------------------


def test_copies_and_pickles():
    A, x = robust_laplacian(icosphere(0)), torch.randn(12, 2, dtype=torch.float64)
    flow = UnitaryExponential(A, skew(2), 0.5)
    for copy in (deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert torch.equal(copy @ x, flow @ x)
    assert flow.norm_bound() == 1.0


def test_refusals_name_cause_and_cure():
    A, W = robust_laplacian(icosphere(0)), skew(2)
    with pytest.raises(DomainError, match="skew-Hermitian"):
        UnitaryExponential(A, torch.eye(2, dtype=torch.float64))
    with pytest.raises(DomainError, match="skew-Hermitian"):
        UnitaryExponential(A, math.nan * W)
    with pytest.raises(DomainError, match="square matrix"):
        UnitaryExponential(A, torch.ones(2, 3))
    with pytest.raises(DomainError, match="look for NaN"):
        UnitaryExponential(A, W, math.inf)
    with pytest.raises(DomainError, match="tolerance must lie"):
        UnitaryExponential(A, W, tolerance=0.0)
    with pytest.raises(ConvergenceError, match="shorter time"):
        UnitaryExponential(A, W, 1e6)
    with pytest.raises(FieldError, match="pad_channels"):
        UnitaryExponential(A, W) @ torch.ones(12, 3, dtype=torch.float64)
    with pytest.raises(FieldError, match="complex"):
        UnitaryExponential(A, skew(2, torch.complex128)) @ torch.ones(12, 2, dtype=torch.float64)


@pytest.mark.parametrize("width", [2, 3])
def test_a_quarter_ulp_keeps_norm_and_energy_over_a_thousand_steps_in_single_precision(width):
    """At this angle the tail that the default tolerance cuts would add up to more than ten times as much."""
    A = symmetric_laplacian(torus(8, 6).graph()).complement().to(torch.float32)
    flow = UnitaryExponential(A, skew(width, torch.float32, 0.1), tolerance=torch.finfo(torch.float32).eps / 4)
    x, wide = torch.randn(48, width), A.matrix().double()

    def measured(y):
        y = y.double()
        return float(y.norm()), float((y * (wide @ y)).sum())

    before = measured(x)
    for _ in range(1000):
        x = flow(x)
    norm, energy = measured(x)
    assert abs(norm / before[0] - 1) <= 2e-6
    assert abs(energy - before[1]) <= 4e-6 * before[0] ** 2


def test_no_channels_are_refused():
    with pytest.raises(DomainError, match="square"):
        UnitaryExponential(symmetric_laplacian(torus(8, 6).graph()), torch.zeros(0, 0))
