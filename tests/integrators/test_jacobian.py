"""Products with a Jacobian: the same by every way, and the way that an f can go is found."""

import pytest
import torch
from torch.autograd.function import once_differentiable

from integrators.jacobian import Differentiation, Flat, differences, double_backward, forward_mode, pulled, wanting_gradients
from integrators.solution import Statistics
from integrators.state import parts_of

torch.manual_seed(0)
W = torch.randn(3, 3, dtype=torch.float64)
T = torch.tensor(0.3, dtype=torch.float64)
X = torch.randn(3, 2, dtype=torch.float64)
Z = torch.randn(2, dtype=torch.complex128)

CASES = {
    "real": (lambda t, x: torch.tanh(W @ x) + t * x**2, X),
    "complex": (lambda t, z: 1j * z * z.abs() ** 2 + z.conj(), Z),
    "tuple": (lambda t, x: (x[0] * x[1].abs().sum(), x[1] * x[0].sum() + x[1].conj()), (X, Z)),
    "odd start": (lambda t, x: (x[0] ** 2, x[1] * x[0].sum()), (X[:, 0], Z)),
    "one part constant": (lambda t, x: (torch.ones_like(x[0]), x[1] ** 2 + x[0].sum()), (X, Z)),
}
cases = pytest.mark.parametrize(("f", "x"), CASES.values(), ids=CASES.keys())


def jacobian(f, x, ways=None):
    by = Differentiation(f, x, Statistics())
    if ways:
        by.ways = list(ways)
    return by.at(T, x, f(T, x))


def reference(f, x):
    """Central differences, whose error is O(1e-10)."""
    flat = Flat(x)
    v = flat.flat(x)
    columns = []
    for e in 1e-5 * torch.eye(flat.size, dtype=torch.float64):
        ahead, behind = (flat.flat(f(T, flat.state(v + s * e))) for s in (1, -1))
        columns.append((ahead - behind) / 2e-5)
    return torch.stack(columns, 1)


@cases
@pytest.mark.parametrize("way", [forward_mode, double_backward, differences])
def test_every_way_gives_the_jacobian(f, x, way):
    J, expected = jacobian(f, x, [way]), reference(f, x)
    v = torch.linspace(-1, 1, len(expected), dtype=torch.float64)
    assert torch.allclose(J @ v, expected @ v, rtol=0, atol=1e-6 if way is differences else 1e-8)
    assert J.by.stats.nvp == 1
    assert torch.allclose(J.matrix(), expected, rtol=0, atol=1e-6 if way is differences else 1e-8)


@cases
def test_products_and_transposed_products_are_dual(f, x):
    """⟨u, J v⟩ = ⟨Jᵀ u, v⟩ in the real inner product."""
    J = jacobian(f, x)
    flat = J.by.flat
    leaves = wanting_gradients(x)
    u, v = torch.randn(2, flat.size, dtype=torch.float64)
    left, right = u @ (J @ v), pulled(f(T, leaves), leaves, u, flat) @ v
    assert abs(float(left - right)) <= 1e-13 * float(u.norm() * v.norm() * J.matrix().norm())


@cases
def test_flat_is_a_bijection_that_keeps_the_norm(f, x):
    flat = Flat(x)
    v = flat.flat(x)
    back = flat.state(v)
    assert all(torch.equal(a, b) for a, b in zip(parts_of(back), parts_of(x), strict=True))
    assert v.shape == (flat.size,)
    assert float(v.norm()) == pytest.approx(float(sum(part.abs().square().sum() for part in parts_of(x))) ** 0.5)


class NoForward(torch.autograd.Function):
    """x³ without a jvp."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g


class Once(NoForward):
    """x³ whose backward cannot be differentiated."""

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g


OPAQUE = {
    "forward": (lambda t, x: x**3, forward_mode),
    "no jvp": (lambda t, x: NoForward.apply(x), double_backward),
    "once differentiable": (lambda t, x: Once.apply(x), differences),
    "NumPy": (lambda t, x: torch.from_numpy(x.detach().numpy() ** 3), differences),
    "detached": (lambda t, x: x.detach() ** 3, differences),
}


@pytest.mark.parametrize(("f", "way"), OPAQUE.values(), ids=OPAQUE.keys())
def test_an_f_that_cannot_go_one_way_goes_the_next(f, way):
    J = jacobian(f, X)
    v = torch.linspace(-1, 1, 6, dtype=torch.float64)
    for _ in range(2):
        assert torch.allclose(J @ v, 3 * X.reshape(-1) ** 2 * v, rtol=0, atol=1e-6 if way is differences else 1e-14)
    assert J.by.ways[0] is way
    assert J.by.exact == (way is not differences)


@pytest.mark.parametrize(("f", "way"), OPAQUE.values(), ids=OPAQUE.keys())
def test_the_matrix_of_every_f(f, way):
    assert torch.allclose(jacobian(f, X).matrix(), torch.diag(3 * X.reshape(-1) ** 2), rtol=0, atol=1e-6)


def test_a_constant_f_has_a_zero_jacobian():
    J = jacobian(lambda t, x: torch.ones_like(x), X)
    assert float((J @ torch.ones(6, dtype=torch.float64)).abs().max()) == 0
    assert float(J.matrix().abs().max()) == 0


def test_an_error_in_f_itself_is_not_hidden():
    def f(t, x):
        if (x != X).any():
            raise ZeroDivisionError("broken")
        return x.detach()

    with pytest.raises(ZeroDivisionError, match="broken"):
        jacobian(f, X) @ torch.ones(6, dtype=torch.float64)


def test_parameters_get_no_graph_from_a_product():
    k = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    for way in (forward_mode, double_backward, differences):
        J = jacobian(lambda t, x: k * x**2, X, [way])
        assert not (J @ torch.ones(6, dtype=torch.float64)).requires_grad
    assert not jacobian(lambda t, x: k * x**2, X).matrix().requires_grad
