"""GMRES: what it promises of the residual, and that it ends on every matrix."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from integrators.gmres import gmres


def system(n, seed, dtype=torch.float64, shift=3.0):
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(n, n, generator=generator, dtype=dtype) / math.sqrt(n) + shift * torch.eye(n, dtype=dtype)
    return A, torch.randn(n, generator=generator, dtype=dtype)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 60), seed=st.integers(0, 99), restart=st.integers(5, 60), tol=st.sampled_from([1e-2, 1e-6, 1e-11]))
def test_the_residual_that_it_states_is_the_true_one_and_meets_the_tolerance(n, seed, restart, tol):
    A, b = system(n, seed)
    found = gmres(lambda v: A @ v, b, tol * float(b.norm()), restart=restart)
    residual = float((b - A @ found.x).norm())
    assert residual <= tol * float(b.norm())
    assert abs(residual - found.residual) <= 32 * torch.finfo(b.dtype).eps * float(A.norm() * found.x.norm() + b.norm())


def test_as_many_products_as_there_are_distinct_eigenvalues_and_one_to_look():
    d = torch.tensor([1.0, 2.0, 5.0] * 40, dtype=torch.float64)
    found = gmres(lambda v: d * v, torch.ones(120, dtype=torch.float64), 1e-12)
    assert found.products == 4
    assert found.residual <= 1e-12


def test_the_basis_stays_orthogonal_where_the_matrix_is_bad():
    """Condition number 1e10: the residual falls to round-off in n products, which a basis that is not orthogonal misses."""
    Q, _ = torch.linalg.qr(system(40, 0)[0])
    A = Q @ torch.diag(torch.logspace(0, -10, 40, dtype=torch.float64)) @ Q.T
    found = gmres(lambda v: A @ v, A @ torch.ones(40, dtype=torch.float64), 1e-14, restart=40)
    assert found.residual <= 1e-14


def test_single_precision_is_kept():
    A, b = system(30, 1, torch.float32)
    found = gmres(lambda v: A @ v, b, 1e-5 * float(b.norm()))
    assert found.x.dtype == torch.float32
    assert float((b - A @ found.x).norm()) <= 2e-5 * float(b.norm())


def test_zero_needs_no_product():
    found = gmres(lambda v: pytest.fail("a product"), torch.zeros(4), 0.0)
    assert (found.products, found.residual, float(found.x.norm())) == (0, 0.0, 0.0)


@pytest.mark.parametrize(
    "A",
    [torch.zeros(5, 5), torch.diag(torch.arange(5.0)), torch.eye(5).roll(1, 0), torch.full((5, 5), math.nan)],
    ids=["zero", "singular", "cyclic", "NaN"],
)
@pytest.mark.parametrize("restart", [2, 30])
def test_it_ends_on_every_matrix_with_nothing_worse_than_zero(A, restart):
    b = torch.ones(5)
    b[0] = 3.0
    found = gmres(lambda v: A @ v, b, 0.0, restart=restart, budget=100)
    assert found.products <= 101
    assert bool(torch.isfinite(found.x).all())
    assert found.residual <= float(b.norm()) * (1 + 1e-6)


def test_a_shift_register_is_no_trouble_without_restarts():
    """No residual falls before the last product (Saad, Iterative Methods for Sparse Linear Systems, 6.5.9)."""
    A = torch.eye(6, dtype=torch.float64).roll(1, 0)
    b = torch.zeros(6, dtype=torch.float64)
    b[0] = 1.0
    assert gmres(lambda v: A @ v, b, 1e-12).residual <= 1e-12


def test_the_budget_is_kept():
    A, b = system(200, 2, shift=0.0)
    count = 0

    def product(v):
        nonlocal count
        count += 1
        return A @ v

    found = gmres(product, b, 1e-14, restart=7, budget=20)
    assert found.products == count <= 24
    assert found.residual < float(b.norm())
