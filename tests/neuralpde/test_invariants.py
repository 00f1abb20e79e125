"""An invariant measures what it says, and sees a law broken."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde import (
    Check,
    DirichletEnergy,
    Heat,
    Law,
    Mass,
    MaximumPrinciple,
    Norm,
    Rayleigh,
    check_invariants,
    icosphere,
    robust_laplacian,
)
from neuralpde.testing import fields

L = robust_laplacian(icosphere(0))
QUANTITIES = (Norm, Rayleigh, DirichletEnergy, Mass, MaximumPrinciple)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_quantities_against_dense_matrices(dtype):
    x = torch.randn(4, 12, 2, dtype=dtype)
    m = L.mass[:, None]
    square = (m * x.abs() ** 2).sum(dim=(-2, -1))
    energy = (x.conj() * (L.stiffness.matrix().to(dtype) @ x)).sum(dim=(-2, -1)).real
    torch.testing.assert_close(Norm(L).measure(x), square.sqrt())
    torch.testing.assert_close(DirichletEnergy(L).measure(x), energy / 2)
    torch.testing.assert_close(Rayleigh(L).measure(x), energy / square)
    torch.testing.assert_close(Mass(L).measure(x), (m * x).sum(dim=-2))


def test_maximum_principle_measures_both_ends():
    x = torch.randn(4, 12, 2, dtype=torch.float64)
    measured = MaximumPrinciple(L).measure(x)
    torch.testing.assert_close(measured, torch.cat([x.amax(dim=1), (-x).amax(dim=1)], dim=-1))


@pytest.mark.parametrize("quantity", QUANTITIES)
@given(x=fields(12, 2).filter(lambda x: bool(x.abs().sum() > 0)), steps=st.integers(1, 4))
def test_a_path_that_stands_still_breaks_nothing(quantity, x, steps):
    for law in Law:
        assert quantity(L, law).violation(x.expand(steps, *x.shape)) == 0


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_magnitude_is_an_upper_bound_of_the_quantity(quantity):
    x = torch.randn(50, 12, 2, dtype=torch.float64)
    invariant = quantity(L)
    assert bool((invariant.measure(x).abs() <= invariant.scale(x) * (1 + 1e-12)).all())


def test_violation_sees_growth_and_decay():
    x = torch.rand(12, 1, dtype=torch.float64) + 0.5
    falling, rising = torch.stack([x, x / 2]), torch.stack([x, 1.1 * x])
    for quantity in (Norm, Mass, MaximumPrinciple):
        assert quantity(L, Law.CONSERVED).violation(falling) > 0.3
        assert quantity(L, Law.CONSERVED).violation(rising) >= 0.1 - 1e-12
    for quantity in (Norm, DirichletEnergy, MaximumPrinciple):
        assert quantity(L, Law.NON_INCREASING).violation(rising) > 1e-4
    assert Norm(L, Law.NON_INCREASING).violation(falling) == 0
    # A rise after a fall counts, though the start was higher still.
    dip = torch.stack([x, x / 2, 0.9 * x])
    assert Norm(L, Law.NON_INCREASING).violation(dip) == pytest.approx(0.4)


def test_violation_of_a_batch_is_its_worst_member():
    x = torch.rand(3, 12, 1, dtype=torch.float64) + 0.5
    path = torch.stack([x, x.clone()])
    path[1, 2] *= 1.25
    assert Norm(L).violation(path) == pytest.approx(0.25)


def test_float32_paths_are_measured_in_float64():
    x = torch.rand(12, 1) + 0.5
    small = robust_laplacian(icosphere(0)).to(torch.float32)
    path = torch.stack([x, x * (1 + 1e-6)])
    assert Norm(small).violation(path) == pytest.approx(1e-6, rel=0.2)


def test_a_diverged_path_is_a_violation():
    x = torch.rand(12, 1, dtype=torch.float64)
    for bad in (math.nan, math.inf):
        path = torch.stack([x, torch.full_like(x, bad)])
        assert not check_invariants((Norm(L),), path, 1e-3)[0].holds


def test_check_and_names():
    x = torch.rand(12, 1, dtype=torch.float64) + 0.5
    checks = check_invariants(Heat(L).invariants, torch.stack([x, 2 * x]), 1e-6)
    assert [(c.invariant, c.law, c.holds) for c in checks] == [
        ("norm", "never increases", False),
        ("Rayleigh quotient", "never increases", True),
        ("Dirichlet energy", "never increases", False),
        ("mass", "conserved", False),
    ]
    assert Check("norm", "conserved", 1e-7, 1e-6).holds


def test_same_quantity():
    assert Norm(L).same_quantity(Norm(L, Law.NON_INCREASING))
    assert not Norm(L).same_quantity(Mass(L))
    assert not Norm(L).same_quantity(Norm(robust_laplacian(icosphere(0))))
    turned = Norm(L).under(Law.NON_INCREASING)
    assert (turned.law, turned.laplacian) == (Law.NON_INCREASING, L)
