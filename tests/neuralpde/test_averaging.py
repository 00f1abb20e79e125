"""Diffusion by frozen attention: its exponential, its solves, and the bounds it keeps."""

import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from integrators import Exponential, integrate
from neuralpde.averaging import Averaging
from operators import DomainError, Graph, ScaledDotProduct, SparseOperator, random_walk_laplacian


def average(seed: int = 0, n: int = 12) -> SparseOperator:
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randint(n, (2, 4 * n), generator=generator)
    edges = torch.cat([pairs, pairs.flip(0), torch.stack([torch.arange(n), (torch.arange(n) + 1) % n])], dim=1)
    edges = torch.cat([edges, edges.flip(0)], dim=1)
    attention = ScaledDotProduct(random_walk_laplacian(Graph(edges, n)).double(), 3)
    with torch.no_grad():
        attention.query.weight.copy_(torch.randn(attention.query.weight.shape, generator=generator, dtype=torch.float64))
        return attention(torch.randn(n, 3, generator=generator, dtype=torch.float64))


def dense(f: Averaging) -> torch.Tensor:
    A = f.average.matrix()
    return f.log_rate.exp() * (A - torch.eye(len(A), dtype=A.dtype))


@pytest.mark.parametrize("h", [0.0, 0.01, 1.0, 30.0, 900.0])
def test_the_exponential_is_that_of_the_dense_matrix(h):
    f = Averaging(average(), rate=1.5)
    z = torch.randn(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    exact = torch.from_numpy(scipy.linalg.expm(h * dense(f).detach().numpy())) @ z
    # Every term is an average, so round-off adds up to the number of terms at most.
    assert float((f.linear.exponential(h, z) - exact).abs().max()) <= 32 * 2.3e-16 * (1 + h) ** 0.5 * float(z.abs().max()) * 10
    for tolerance in (1e-1, 1e-2, 1e-6, 1e-10):
        rough = f.linear.exponential(h, z, tolerance)
        assert float((rough - exact).abs().max()) <= (tolerance + 1e-13) * float(z.abs().max())


@given(st.integers(0, 20), st.floats(0.0, 50.0))
def test_channels_stay_in_their_hull(seed, h):
    z = torch.randn(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    end = integrate(Averaging(average(seed)), z, [0.0, h + 1e-3], Exponential()).final
    assert bool((end <= z.max(0).values + 1e-13).all())
    assert bool((end >= z.min(0).values - 1e-13).all())


@pytest.mark.parametrize("s", [0.0, 0.3, 40.0])
def test_the_implicit_equation_is_solved(s):
    f = Averaging(average())
    b = torch.randn(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y = f.linear.solve(torch.tensor(s, dtype=torch.float64), b)
    assert float((y - s * (f.linear @ y) - b).abs().max()) <= 1e-13 * (1 + s)


def test_gradients_in_the_time_the_field_and_the_rate():
    f = Averaging(average())
    f.log_rate.requires_grad_()
    z = torch.randn(12, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    h = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def flow(h, z, log_rate):
        return f.linear.exponential(h, z)

    assert torch.autograd.gradcheck(flow, (h, z, f.log_rate))


def test_what_is_no_average_is_refused():
    A = average()
    with pytest.raises(DomainError, match="rows that sum to one"):
        Averaging(2 * A)
    with pytest.raises(ValueError, match="rate must be positive"):
        Averaging(A, rate=-1.0)
    with pytest.raises(ValueError, match="cannot be solved backwards"):
        Averaging(A).linear.exponential(-1.0, torch.ones(12, 1, dtype=torch.float64))


def test_a_tolerance_saves_products():
    """On a symmetric random walk the Chebyshev series takes about √(2τ log(1/tolerance)) products, not τ."""
    f, z = Averaging(average()), torch.randn(12, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    taken = []

    class Counting:
        def __matmul__(self, x):
            taken.append(1)
            return f.average @ x

    part = f.linear
    part.average = Counting()
    part.exponential(200.0, z, 1e-3)
    assert len(taken) <= 100  # Uniformisation takes 246.
    # The gradient in time is that of the series.
    h = torch.tensor(20.0, dtype=torch.float64, requires_grad=True)
    final = f.linear.exponential(h, z, 1e-6)
    (slope,) = torch.autograd.grad(final.sum(), h)
    assert float((slope - (f.linear @ final.detach()).sum()).abs().detach()) <= 1e-5
