"""Sums of Chebyshev polynomials of an operator: T_k by their definition, and both ways of computing them agree."""

import numpy as np
import pytest
import torch

from operators.chebyshev import chebyshev_filter
from operators.checks import DomainError
from operators.domains import Graph
from operators.laplacian import Laplacian, combinatorial_laplacian, symmetric_laplacian
from operators.magnetic import magnetic_laplacian
from operators.recurrence import PlainAdjoint, _Columns, _Fields, _march, chebyshev_sums
from operators.shapes import icosphere, torus
from operators.sparse import SparseOperator
from operators.surface import robust_laplacian

TRIANGLE = Graph(torch.tensor([[0, 1, 2], [1, 2, 0]]), 3, torch.ones(3, dtype=torch.float64))
HALF = SparseOperator.from_scipy(np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
PAIR = Graph(torch.tensor([[0, 1], [1, 0]]), 3, torch.ones(2, dtype=torch.float64))
OPERATORS = {
    "mesh": lambda: robust_laplacian(icosphere(0)),
    "complement": lambda: symmetric_laplacian(torus(4, 3).graph()).complement(),
    "magnetic": lambda: magnetic_laplacian(TRIANGLE),
    "isolated node": lambda: combinatorial_laplacian(PAIR),
    "no entry on the diagonal": lambda: Laplacian(HALF, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)),
}
operators = pytest.mark.parametrize("make", OPERATORS.values(), ids=OPERATORS.keys())


def dense(A, x, c, interval):
    """The same, by NumPy's Chebyshev polynomials of the matrix."""
    (a, b), kind = interval, torch.promote_types(A.matrix().dtype, x.dtype)
    eye = torch.eye(A.shape[0], dtype=kind)
    S = (2 * A.matrix().to(kind) - (a + b) * eye) / (b - a)
    T = [eye, S]
    while len(T) < len(c):
        T.append(2 * S @ T[-1] - T[-2])
    weights = (c * torch.ones(x.shape[-1])).to(kind)
    return sum(torch.einsum("pqc,q...nc->p...nc", w, t @ x.to(kind)) for w, t in zip(weights, T, strict=True))


@operators
@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_sums_are_those_of_the_matrix(make, kind, channels, batch):
    A = make()
    x = torch.randn(2, *batch, A.shape[0], 3, dtype=kind)
    c = torch.randn(6, 3, 2, channels, dtype=torch.float64)
    low, high = (-3.0, 40.0) if A.norm_bound() > 5 else (-1.5, 5.0)
    got = chebyshev_sums(A, x, c, (low, high))
    expected = dense(A, x, c, (low, high))
    assert got.shape == (3, *batch, A.shape[0], 3)
    assert float((got - expected).abs().max()) <= 1e-12 * float(expected.abs().max() + 1)


@operators
def test_the_first_polynomial_is_one(make):
    x = torch.randn(1, make().shape[0], 2, dtype=torch.float64)
    one = chebyshev_sums(make(), x, torch.full((1, 1, 1, 1), 3.0, dtype=torch.float64), (-3.0, 40.0))
    torch.testing.assert_close(one, (3 * x).to(one.dtype), rtol=1e-14, atol=0)


@pytest.mark.parametrize("dims", [(0, None), (None, 0), (0, 0), (1, 2)])
def test_vmap_over_fields_and_over_coefficients_is_the_loop(dims):
    A, x, c = OPERATORS["mesh"](), torch.randn(3, 2, 12, 2).double(), torch.randn(3, 4, 5, 2, 1).double()
    members = [(x[k if dims[0] is not None else 0], c[k if dims[1] is not None else 0]) for k in range(3)]
    stacked = (part[0] if dim is None else part.movedim(0, dim) for part, dim in zip((x, c), dims, strict=True))
    mapped = torch.func.vmap(lambda x, c: chebyshev_sums(A, x, c, (0.0, 40.0)), dims)(*stacked)
    torch.testing.assert_close(mapped, torch.stack([chebyshev_sums(A, *member, (0.0, 40.0)) for member in members]))


def test_coefficients_are_numpys():
    x = np.linspace(-1, 1, 7)
    A = SparseOperator.from_entries(torch.arange(7), torch.arange(7), torch.from_numpy(x), (7, 7))
    c = torch.randn(9, dtype=torch.float64)
    got = chebyshev_sums(A, torch.ones(1, 7, 1, dtype=torch.float64), c[:, None, None, None], (-1.0, 1.0))
    assert np.allclose(got[0, :, 0].numpy(), np.polynomial.chebyshev.chebval(x, c.numpy()), atol=1e-13)


def test_a_real_laplacian_takes_the_quick_way_and_agrees_with_the_other():
    A = robust_laplacian(icosphere(1))
    x = torch.randn(2, 42, 3, dtype=torch.complex128)
    interval = (0.0, 1.1 * A.norm_bound())
    assert isinstance(_march(A, x, interval, False), _Columns)
    assert isinstance(_march(OPERATORS["magnetic"](), x[:, :3], interval, False), _Fields)
    for adjoint in (False, True):
        quick, plain = _Columns(A, x, interval, adjoint), _Fields(A, x, interval, adjoint)
        for one, two in zip(quick.terms(12), plain.terms(12), strict=True):
            assert float((quick.back(one) - two).abs().max()) <= 1e-12


def test_the_plain_adjoint_is_the_transpose():
    A = robust_laplacian(icosphere(0))  # Not its own, because the masses differ.
    g = torch.randn(12, 2, dtype=torch.float64)
    assert torch.allclose(PlainAdjoint(A, g)(g), A.matrix().T @ g, atol=1e-12)


@operators
def test_gradients_in_field_and_coefficients_to_second_order(make):
    A = make()
    kind = A.dtype if A.dtype.is_complex else torch.float64
    x = torch.randn(2, A.shape[0], 2, dtype=kind, requires_grad=True)
    c = torch.randn(4, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    interval = (-3.0, 40.0)
    assert torch.autograd.gradcheck(lambda x, c: chebyshev_sums(A, x, c, interval), (x, c))
    assert torch.autograd.gradgradcheck(lambda x, c: chebyshev_sums(A, x, c, interval), (x, c), fast_mode=True)


def test_a_learned_operator_takes_autograd_with_the_same_result():
    fixed = robust_laplacian(icosphere(0))
    learned = Laplacian(SparseOperator(fixed.stiffness.pattern, fixed.stiffness.values.clone().requires_grad_()), fixed.mass)
    x, c = torch.randn(2, 12, 2, dtype=torch.float64), torch.randn(5, 2, 2, 1, dtype=torch.float64)
    one, two = (chebyshev_sums(A, x, c, (0.0, 20.0)) for A in (fixed, learned))
    assert two.requires_grad
    assert not one.requires_grad
    assert torch.allclose(one, two, atol=1e-12)


def test_an_interval_that_misses_the_spectrum_is_refused():
    A = robust_laplacian(icosphere(1))
    p = chebyshev_filter(A, torch.exp, degree=60, interval=(0.0, 0.3 * A.largest_eigenvalue()))
    with pytest.raises(DomainError, match="reaches beyond the interval"):
        p @ torch.randn(42, 1, dtype=torch.float64)


def test_nothing_given_is_changed():
    A = robust_laplacian(icosphere(1))
    x = torch.randn(1, 42, 1, dtype=torch.float64)
    kept = x.clone()
    chebyshev_sums(A, x, torch.ones(9, 1, 1, 1, dtype=torch.float64), (0.0, A.norm_bound()))
    assert torch.equal(x, kept)
