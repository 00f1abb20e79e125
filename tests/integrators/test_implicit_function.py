"""The gradient of y = g(y) is that of the implicit function, to second order, by LU and by GMRES."""

import gc
import weakref

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from integrators.implicit_function import implicit_function
from integrators.solution import SolveError, Statistics, Status
from integrators.state import parts_of, state_map

generator = torch.Generator().manual_seed(3)
W = torch.randn(4, 4, generator=generator, dtype=torch.float64)
X = torch.randn(4, 1, generator=generator, dtype=torch.float64)
Z = torch.randn(3, generator=generator, dtype=torch.complex128)


def solved(g, start, **settings):
    """The root of a contraction, by iteration."""
    y = start
    with torch.no_grad():
        for _ in range(300):
            y = g(y)
    stats = settings.pop("stats", Statistics())
    return implicit_function(g, y, stats, **settings)


def real(dense):
    def root(b, W, s):
        return solved(lambda y: b + s * torch.tanh(W @ y), b.detach(), dense=dense)

    return root, (X, W, torch.tensor(0.2, dtype=torch.float64))


def complex_and_real(dense):
    def root(b, z, k):
        start = (b.detach(), z.detach())
        return solved(lambda y: (b + k * y[1].abs().sum() * y[0], z + 1j * k * y[1] * y[1].abs() ** 2), start, dense=dense)

    return root, (X[:3], 0.5 * Z, torch.tensor(0.1, dtype=torch.float64))


@pytest.mark.parametrize("dense", [0, 64], ids=["GMRES", "LU"])
@pytest.mark.parametrize("make", [real, complex_and_real])
def test_first_and_second_derivatives_are_those_of_differences(make, dense):
    root, inputs = make(dense)
    inputs = tuple(part.clone().requires_grad_() for part in inputs)
    assert gradcheck(root, inputs, atol=1e-7, rtol=1e-6, fast_mode=True)
    assert gradgradcheck(root, inputs, atol=1e-6, rtol=1e-5, fast_mode=True)


@pytest.mark.parametrize("dense", [0, 64], ids=["GMRES", "LU"])
def test_the_gradient_is_the_closed_form_of_a_linear_equation(dense):
    """y = b + A y: dy/db = (I − A)⁻¹ and ∂⟨u, y⟩/∂A = (I − A)⁻ᵀ u yᵀ."""
    A = (0.3 * W / W.norm()).requires_grad_()
    b = X.clone().requires_grad_()
    u = torch.linspace(1, 2, 4, dtype=torch.float64)[:, None]
    y = solved(lambda y: b + A @ y, X, dense=dense)
    grad_b, grad_A = torch.autograd.grad((u * y).sum(), (b, A))
    w = torch.linalg.solve((torch.eye(4, dtype=torch.float64) - A.detach()).T, u)
    assert torch.allclose(grad_b, w, rtol=1e-12, atol=0)
    assert torch.allclose(grad_A, w @ y.detach().T, rtol=1e-12, atol=1e-14)


def test_third_derivatives_are_refused():
    b = X.clone().requires_grad_()
    y = solved(lambda y: b + 0.1 * y**3, X)
    (first,) = torch.autograd.grad(y.sum(), b, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), b, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivatives"):
        torch.autograd.grad(second.sum(), b)


def test_hessians_row_by_row():
    """Two gradients of one graph, each recorded, are no third derivative."""
    b = X.clone().requires_grad_()
    y = solved(lambda y: b + 0.1 * (W @ y) ** 3, X)
    for k in range(4):
        (row,) = torch.autograd.grad(y[k].sum(), b, create_graph=True)
        (second,) = torch.autograd.grad(row.sum(), b, retain_graph=True)
        assert bool(torch.isfinite(second).all())


def test_the_value_is_the_root_itself():
    b = X.clone().requires_grad_()
    root = torch.zeros_like(X)  # Not even a root.
    assert torch.equal(implicit_function(lambda y: b + 0.1 * y, root, Statistics()), root)


@pytest.mark.parametrize("needs", [True, False])
def test_no_graph_where_none_is_wanted(needs):
    b = X.clone().requires_grad_(not needs)
    calls = 0

    def g(y):
        nonlocal calls
        calls += 1
        return b + 0.1 * y

    with torch.set_grad_enabled(not needs):
        y = implicit_function(g, X, Statistics())
    assert y.requires_grad != needs
    assert calls == (0 if needs else 2)


def test_a_first_derivative_walks_one_of_the_two_graphs():
    walked = []

    class Seen(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y, k):
            ctx.save_for_backward(y, k)
            return 0.1 * k * y

        @staticmethod
        def backward(ctx, g):
            y, k = ctx.saved_tensors
            walked.append(float(g.abs().max()))
            return 0.1 * k * g, 0.1 * (y * g).sum()

    k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    y = solved(lambda y: X + Seen.apply(y, k), X, dense=0)
    walked.clear()
    products = 3  # A = 0.9 I: one product, one to look, one for the gradient itself.
    y.sum().backward()
    assert sum(size > 0 for size in walked) <= products


@pytest.mark.parametrize("transposed", [False, True])
def test_a_preconditioner_saves_products(transposed):
    """A bad scale takes many products, and two where the preconditioner is the inverse."""
    d = -torch.logspace(0, 4, 100, dtype=torch.float64)
    n = torch.linspace(0, 0.1, 100, dtype=torch.float64)
    counts = []
    for precondition in (None, lambda v, transposed: v / (1 - d)):
        stats = Statistics()
        b = torch.ones(100, dtype=torch.float64, requires_grad=True)
        root = (b / (1 - d - n)).detach()
        y = implicit_function(lambda y, b=b: b + d * y + n * y, root, stats, precondition=precondition, dense=0)
        (g,) = torch.autograd.grad(y.sum(), b, create_graph=transposed)
        assert torch.allclose(g, 1 / (1 - d - n), rtol=1e-8, atol=1e-12)
        counts.append(stats.nvp)
    assert counts[1] <= 12 < counts[0]


def test_a_singular_system_is_a_solve_error_that_names_the_cure():
    b = torch.ones(100, dtype=torch.float64, requires_grad=True)
    scale = torch.linspace(0, 1, 100, dtype=torch.float64)  # I − ∂g/∂y has a zero eigenvalue.
    y = implicit_function(lambda y: b + scale * y, b.detach(), Statistics(), dense=0)
    with pytest.raises(SolveError, match=r"(?s)gradient of an implicit step.*`linear` part") as caught:
        y.sum().backward()
    assert caught.value.status is Status.DIVERGED


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_single_precision_is_kept(dtype):
    b = torch.ones(100, dtype=dtype, requires_grad=True)
    y = solved(lambda y: b + 0.2 * y, b.detach())
    (g,) = torch.autograd.grad(y.real.sum(), b)
    assert y.dtype == g.dtype == dtype
    assert float((g - 1.25).abs().max()) <= 1e-5


@pytest.mark.parametrize("dense", [0, 64], ids=["GMRES", "LU"])
@pytest.mark.parametrize("order", [1, 2])
def test_nothing_is_kept_once_the_result_is_gone(dense, order):
    """The graph is free of circles: they would hold every state of a training run."""
    held = torch.ones(1000, dtype=torch.float64, requires_grad=True)
    alive = []

    def g(y):
        value = X * (1 + 0 * held.sum()) + 0.1 * y**3
        alive.append(weakref.ref(value))
        return value

    gc.collect()
    gc.disable()
    try:
        y = solved(g, X, dense=dense)
        (first,) = torch.autograd.grad(y.sum(), held, create_graph=order == 2)
        if order == 2:
            torch.autograd.grad(first.sum(), held)
        del y, first
        assert not [value for value in alive if value() is not None]
    finally:
        gc.enable()


def test_backward_twice_over_a_kept_graph():
    b = X.clone().requires_grad_()
    y = solved(lambda y: b + 0.1 * y**3, X)
    first, second = (torch.autograd.grad(y.sum(), b, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_a_tuple_with_a_part_that_has_no_gradient():
    b = X.clone().requires_grad_()
    y = solved(lambda y: (b + 0.1 * y[0] * y[1], 0.5 * torch.ones_like(y[1])), state_map(torch.clone, (X, X)))
    (g,) = torch.autograd.grad(sum(part.sum() for part in parts_of(y)), b)
    assert torch.allclose(g, torch.full_like(g, 1 / 0.95))
