"""An invariant measures what it says, and sees a law broken."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde import (
    Check,
    DirichletEnergy,
    Entropy,
    Heat,
    Invariant,
    Law,
    Mass,
    MaximumPrinciple,
    Norm,
    Part,
    Positivity,
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
    assert not DirichletEnergy(L).same_quantity(DirichletEnergy(robust_laplacian(icosphere(0))))
    turned = Norm(L).under(Law.NON_INCREASING)
    assert (turned.law, turned.laplacian) == (Law.NON_INCREASING, L)


SELDOM = (Entropy, Positivity)


def state_of(quantity, x):
    """A field that the quantity is defined on."""
    return x.abs() if quantity is Entropy else x


@pytest.mark.parametrize("quantity", SELDOM)
@given(x=fields(12, 2).filter(lambda x: bool(x.abs().sum() > 0)))
def test_entropy_and_positivity_stand_still_with_the_field(quantity, x):
    for law in Law:
        assert quantity(L, law).violation(state_of(quantity, x).expand(3, *x.shape)) == 0
    invariant = quantity(L)
    x = state_of(quantity, x.double())
    assert bool((invariant.measure(x).abs() <= invariant.scale(x) * (1 + 1e-12)).all())


def test_entropy_against_its_formula_and_at_zero():
    x = torch.rand(4, 12, 2, dtype=torch.float64)
    x[0, 3] = 0
    expected = -(L.mass[:, None] * torch.where(x > 0, x * x.clamp(min=1e-300).log(), 0.0)).sum(-2)
    torch.testing.assert_close(Entropy(L).measure(x), expected)
    # What is below zero counts as zero, and no NaN comes of it.
    torch.testing.assert_close(Entropy(L).measure(torch.where(x > 0.5, x, -x)), Entropy(L).measure(x * (x > 0.5)))
    # Mixing raises it.
    mixed = x.mean(dim=-2, keepdim=True).expand_as(x)
    assert bool((Entropy(L).measure(mixed) >= -(L.mass.sum() * mixed[:, 0] * mixed[:, 0].log()) - 1e-12).all())


def test_positivity_measures_how_far_below_zero():
    x = torch.tensor([[1.0, -0.25], [2.0, 0.5]], dtype=torch.float64)
    assert Positivity(L).measure(x).tolist() == [0.0, 0.25]
    fine = torch.stack([x.abs(), x.abs() - 0.1 * x.abs()])
    assert Positivity(L, Law.NON_INCREASING).violation(fine) == 0
    assert Positivity(L, Law.NON_INCREASING).violation(torch.stack([x.abs(), x])) == pytest.approx(0.25 / 0.5)


def test_laws_of_one_side_and_their_reversal():
    x = torch.rand(12, 1, dtype=torch.float64) + 0.5
    path = torch.stack([x, 2 * x, 1.5 * x])
    norm = Norm(L, Law.NON_DECREASING)
    assert norm.violation(path) == pytest.approx(0.5)
    # Of the other end's scale.
    assert norm.under(norm.law.reversed).violation(path.flip(0)) == pytest.approx(0.5 / 1.5)
    for law in Law:
        assert law.reversed.reversed is law
    assert Law.CONSERVED.reversed is Law.CONSERVED


@given(factors=st.lists(st.floats(0.1, 10), min_size=2, max_size=6))
def test_a_law_of_one_side_holds_exactly_where_the_sequence_does(factors):
    x = torch.ones(12, 1, dtype=torch.float64)
    path = torch.stack([factor * x for factor in factors])
    falls = all(b <= a for a, b in itertools.pairwise(factors))
    rises = all(b >= a for a, b in itertools.pairwise(factors))
    assert (Norm(L, Law.NON_INCREASING).violation(path) <= 1e-14) == (falls or max_rise(factors) <= 1e-14)
    assert (Norm(L, Law.NON_DECREASING).violation(path) <= 1e-14) == (rises or max_rise([-f for f in factors]) <= 1e-14)
    largest = max(abs(f - factors[0]) for f in factors) / factors[0]
    assert Norm(L).violation(path) == pytest.approx(largest, abs=1e-13)


def max_rise(factors):
    return max(b - min(factors[: k + 1]) for k, b in enumerate(factors)) / abs(factors[0])


def test_a_part_is_measured_and_named_by_itself():
    u, v = (torch.rand(3, 12, 2, dtype=torch.float64) for _ in range(2))
    mass = Part(1, Mass(L, Law.NON_INCREASING), "v")
    assert (mass.name, mass.law, mass.index) == ("mass of v", Law.NON_INCREASING, 1)
    assert Part(1, Mass(L)).name == "mass of part 1"
    torch.testing.assert_close(mass.measure((u, v)), Mass(L).measure(v))
    torch.testing.assert_close(mass.scale((u, v)), Mass(L).scale(v))
    assert mass.under(Law.CONSERVED).law is Law.CONSERVED
    assert mass.under(Law.CONSERVED).label == "v"
    assert mass.violation((u, torch.stack([v[0], v[0] / 2, v[0] / 4]))) == 0
    assert mass.under(Law.CONSERVED).violation((u, torch.stack([v[0], v[0] / 2]))) > 0.1
    # The label is a name, not a quantity.
    assert mass.same_quantity(Part(1, Mass(L), "w"))
    assert not mass.same_quantity(Part(0, Mass(L), "v"))
    assert not mass.same_quantity(Part(1, Norm(L), "v"))
    assert not mass.same_quantity(Mass(L))
    assert not Mass(L).same_quantity(mass)


def test_what_a_quantity_depends_on_decides_whether_two_are_the_same():
    other, scaled = robust_laplacian(icosphere(0)), robust_laplacian(icosphere(0, 2.0))
    larger = robust_laplacian(icosphere(1))
    for quantity in (Norm, Mass, Entropy):
        assert quantity(L).same_quantity(quantity(other))
        assert not quantity(L).same_quantity(quantity(scaled))
    for quantity in (MaximumPrinciple, Positivity):
        assert quantity(L).same_quantity(quantity(scaled))
        assert not quantity(L).same_quantity(quantity(larger))
    for quantity in (DirichletEnergy, Rayleigh):
        assert quantity(L).same_quantity(quantity(L, Law.NON_INCREASING))
        assert not quantity(L).same_quantity(quantity(other))


@dataclass(frozen=True, eq=False)
class Charge(Invariant):
    """A user's own quantity: Σ q_i x_i."""

    charges: torch.Tensor
    law: Law = Law.CONSERVED

    def measure(self, x):
        return (self.charges.to(x.dtype)[:, None] * x).sum((-2, -1))

    def scale(self, x):
        return (self.charges.to(x.dtype)[:, None] * x).abs().sum((-2, -1))


def test_a_quantity_of_the_users_own():
    q = torch.linspace(-1, 1, 12, dtype=torch.float64)
    x = torch.rand(12, 2, dtype=torch.float64)
    assert Charge(q).name == "Charge"
    assert Charge(q).violation(torch.stack([x, x.flip(0)])) > 0.01
    assert Charge(q).violation(torch.stack([x, x])) == 0
    assert Charge(q).same_quantity(Charge(q.clone(), Law.NON_INCREASING))
    assert not Charge(q).same_quantity(Charge(2 * q))
    assert not Charge(q).same_quantity(Charge(q.float()))


@pytest.mark.parametrize("quantity", QUANTITIES + SELDOM)
def test_a_scale_of_zero_divides_by_nothing(quantity):
    """A field of zeros has every law, and what grows out of it breaks those it breaks by infinitely much."""
    zero = torch.zeros(12, 1, dtype=torch.float64)
    assert quantity(L, Law.NON_INCREASING).violation(torch.stack([zero, zero])) == 0
    grown = quantity(L, Law.CONSERVED).violation(torch.stack([zero, torch.linspace(-0.5, 2.0, 12).double()[:, None]]))
    assert grown > 1 or quantity is Rayleigh


SPHERE = robust_laplacian(icosphere(1))


def test_one_channel_that_died_out_leaves_the_quotient_of_the_others():
    x = torch.randn(42, 2, dtype=torch.float64)
    x[:, 1] = 0
    torch.testing.assert_close(Rayleigh(SPHERE).measure(x), Rayleigh(SPHERE).measure(x[:, :1]))


def test_the_scale_of_the_energy_is_its_largest_value_at_this_norm():
    x = 3 * torch.randn(42, 2, dtype=torch.float64)
    expected = SPHERE.norm_bound() * Norm(SPHERE).measure(x) ** 2 / 2
    torch.testing.assert_close(DirichletEnergy(SPHERE).scale(x), expected)


@pytest.mark.parametrize("build", [Rayleigh, DirichletEnergy, Norm])
def test_the_scale_has_the_precision_of_the_field(build):
    assert build(SPHERE).scale(torch.ones(42, 1, dtype=torch.float64)).dtype == torch.float64


def test_entropy_has_a_scale_for_each_channel():
    x = torch.rand(42, 3, dtype=torch.float64)
    each = torch.cat([Entropy(SPHERE).scale(x[:, k : k + 1]) for k in range(3)])
    torch.testing.assert_close(Entropy(SPHERE).scale(x), each)


def test_parts_of_the_same_quantity_are_the_same():
    again = robust_laplacian(icosphere(1))
    assert Part(0, Norm(SPHERE)).same_quantity(Part(0, Norm(again)))
    assert not Part(0, Norm(SPHERE)).same_quantity(Part(0, Rayleigh(SPHERE)))


def test_the_imaginary_part_of_a_path_counts():
    x = 1j * torch.ones(42, 1, dtype=torch.complex64)
    assert Norm(SPHERE).violation(torch.stack([x, 3 * x])) == pytest.approx(2.0)


@dataclass(frozen=True, eq=False)
class Doubled(Invariant):
    of: Invariant
    law: Law = Law.CONSERVED

    def measure(self, x):
        return 2 * self.of.measure(x)

    def scale(self, x):
        return 2 * self.of.scale(x)


def test_a_quantity_of_a_quantity_is_the_same_where_that_is():
    again = robust_laplacian(icosphere(1))
    assert Doubled(Norm(SPHERE)).same_quantity(Doubled(Norm(again)))
    assert not Doubled(Norm(SPHERE)).same_quantity(Doubled(Rayleigh(SPHERE)))
    assert not Doubled(Norm(SPHERE)).same_quantity(Doubled(1.0))
