"""Shares of scores: what softmax and squareplus give, and that no finite score breaks them."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import assert_gradients, assert_within, roundoff
from operators import DomainError, FieldError, SparsityPattern
from operators.normalisation import Normalisation, Over, Softmax, Squareplus, row_softmax

PATTERN = SparsityPattern(torch.tensor([0, 0, 0, 1, 1, 3]), torch.tensor([0, 1, 2, 0, 2, 1]), (4, 3))
ONES = torch.ones(6, dtype=torch.float64)
finite = st.floats(-1e300, 1e300)


def grouped(over):
    """The entries of each row (column)."""
    index = PATTERN.row if over is Over.ROWS else PATTERN.col
    return [(index == k).nonzero().squeeze(1).tolist() for k in range(4) if (index == k).any()]


@pytest.mark.parametrize("over", Over)
@given(scores=st.lists(st.floats(-20, 20), min_size=6, max_size=6), weight=st.lists(st.floats(1e-3, 1e3), min_size=6, max_size=6))
def test_shares_are_the_formulas(over, scores, weight):
    s, w = torch.tensor(scores, dtype=torch.float64), torch.tensor(weight, dtype=torch.float64)
    formulas = {
        Softmax: math.exp,
        Squareplus: lambda s: (s + math.sqrt(s * s + 4)) / 2 if s > 0 else 2 / (math.sqrt(s * s + 4) - s),
    }
    for kind, g in formulas.items():
        shares = kind(over)(s, w, PATTERN)
        for group in grouped(over):
            known = [Fraction(weight[e]) * Fraction(g(scores[e])) for e in group]
            expected = torch.tensor([float(part / sum(known)) for part in known], dtype=torch.float64)
            # A logit errs by its own size in u, so its exponential by as much, relatively.
            assert_within(shares[group], expected, 4 * 64 * roundoff(torch.float64) * expected)


@pytest.mark.parametrize("kind", [Softmax, Squareplus])
@pytest.mark.parametrize("over", Over)
@given(scores=st.lists(finite, min_size=6, max_size=6))
def test_any_finite_scores_give_shares_that_sum_to_one(kind, over, scores):
    shares = kind(over)(torch.tensor(scores, dtype=torch.float64), ONES, PATTERN)
    assert (shares >= 0).all()
    for group in grouped(over):
        assert_within(shares[group].sum(), 1.0, 16 * roundoff(torch.float64))


@given(scores=st.lists(st.integers(-64, 64), min_size=6, max_size=6), shift=st.integers(-(2**20), 2**20))
def test_softmax_does_not_see_a_constant_in_a_row_and_squareplus_does(scores, shift):
    s = torch.tensor(scores, dtype=torch.float64) / 8
    assert_within(Softmax()(s + shift, ONES, PATTERN), Softmax()(s, ONES, PATTERN), 8 * roundoff(torch.float64))
    if abs(shift) > 1 and len(set(scores[:3])) > 1:
        assert not torch.allclose(Squareplus()(s + shift, ONES, PATTERN), Squareplus()(s, ONES, PATTERN), atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_squareplus_of_hugely_negative_scores_is_as_one_over_their_size(dtype):
    """g(s) = 1/|s| + O(1/|s|³): where s + √(s² + 4) cancels to nothing, and s² overflows."""
    size = {torch.float16: 2.0**14}.get(dtype, 2.0**100)
    s = torch.tensor([-size, -size / 2, -size / 4, -size, -size, -size], dtype=dtype)
    shares = Squareplus()(s, ONES.to(dtype), PATTERN)
    expected = torch.tensor([1 / 7, 2 / 7, 4 / 7, 0.5, 0.5, 1.0], dtype=torch.float64)
    assert_within(
        shares.double(), expected, 256 * roundoff(torch.float32) if dtype == torch.float32 else 4 * roundoff(dtype) + 1e-5
    )


def test_softmax_lets_one_edge_take_all_and_squareplus_does_not():
    s = torch.tensor([0.0, 1000, 2000, 0, 0, 0], dtype=torch.float64)
    assert Softmax()(s, ONES, PATTERN)[:3].tolist() == [0, 0, 1]
    torch.testing.assert_close(
        Squareplus()(s, ONES, PATTERN)[:3], torch.tensor([1.0, 1000, 2000]).double() / 3001, rtol=1e-5, atol=0
    )


def test_equal_scores_share_by_weight():
    weight = torch.tensor([1.0, 2, 1, 3, 1, 5]).double()
    for kind in (Softmax, Squareplus):
        shares = kind()(torch.full((2, 6), 0.7, dtype=torch.float64), weight, PATTERN)
        torch.testing.assert_close(shares, torch.tensor([0.25, 0.5, 0.25, 0.75, 0.25, 1]).double().expand(2, 6))


@pytest.mark.parametrize("kind", [Softmax, Squareplus])
@pytest.mark.parametrize("over", Over)
def test_derivatives_in_scores_and_weights_also_at_zero(kind, over):
    weight = torch.rand(6, dtype=torch.float64) + 0.5
    for scores in (torch.zeros(2, 6, dtype=torch.float64), 3 * torch.randn(2, 6, dtype=torch.float64)):
        assert_gradients(lambda s, w: kind(over)(s, w, PATTERN), scores, weight)


def test_the_slope_of_squareplus_at_zero_is_one_half():
    s = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(Squareplus().log_g(s).sum(), s)
    assert torch.equal(slope, torch.full((6,), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("kind", [Softmax, Squareplus])
@pytest.mark.parametrize("over", Over)
def test_vmap_is_the_batch(kind, over):
    s = torch.randn(3, 6, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(lambda s: kind(over)(s, ONES, PATTERN))(s), kind(over)(s, ONES, PATTERN))


@pytest.mark.parametrize("kind", [Softmax, Squareplus])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(kind, bad):
    with pytest.raises(DomainError, match=r"not finite.*diverged"):
        kind()(torch.tensor([bad, 0, 0, 0, 0, 0]), ONES.float(), PATTERN)


def test_other_shapes_and_kinds_are_refused():
    for wrong in (torch.ones(5), torch.ones(()), torch.ones(6).long()):
        with pytest.raises(FieldError, match=r"scores must be floating point of shape \(\.\.\., 6\)"):
            Softmax()(wrong, ONES, PATTERN)
        with pytest.raises(FieldError, match=r"logits must be floating point of shape \(\.\.\., 6\)"):
            row_softmax(wrong, PATTERN)
    with pytest.raises(DomainError, match=r"Over\.ROWS or Over\.COLUMNS, not 'rows'"):
        Softmax("rows")


@settings(max_examples=5)
@given(power=st.integers(2, 4))
def test_a_custom_normalisation_is_one_method(power):
    class Power(Normalisation):
        def log_g(self, scores):
            return power * scores.log()

    shares = Power()(torch.tensor([1.0, 2, 3, 1, 1, 9]).double(), ONES, PATTERN)
    known = torch.tensor([1.0, 2, 3]).double() ** power
    torch.testing.assert_close(shares[:3], known / known.sum())
