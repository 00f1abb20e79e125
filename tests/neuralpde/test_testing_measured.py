"""What a check gives, and what its error says."""

import math

import pytest
import torch

from neuralpde.testing_measured import LawBrokenError, Measured, compared, fact, require, worst_of


def test_the_number_is_the_error_in_units_of_the_tolerance():
    measured = compared("law", torch.tensor([1.0, 2.5]), 1.0, torch.tensor([1.0, 2.0]), "rule")
    assert float(measured) == 0.75
    assert measured.where == "at index (1)"
    assert measured.holds
    assert "law: error 1.50e+00, tolerance 2.00e+00" in str(measured)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_breaks_any_law(bad):
    assert not compared("law", torch.tensor([bad]), 0.0, 1.0, "rule").holds


def test_nothing_and_zero_against_zero_hold():
    assert compared("law", torch.zeros(0, 2), 0.0, 0.0, "rule").holds
    assert compared("law", torch.zeros(3), 0.0, 0.0, "rule").ratio == 0.0
    assert Measured("law", 1e-30, 0.0, "rule").ratio == math.inf


def test_a_broken_law_tells_law_error_tolerance_rule_and_place():
    with pytest.raises(LawBrokenError, match=r"thing breaks a law: even\n  error     2.000e\+00 at index \(0\)\n.*= u of x"):
        require(compared("even", torch.tensor([2.0]), 0.0, 1.0, "u of x"), "thing")
    assert issubclass(LawBrokenError, AssertionError)


def test_the_worst_is_the_largest_ratio_and_laws_that_do_not_apply_do_not_count():
    near, far = Measured("a", 1.0, 2.0, ""), Measured("b", 1e-9, 1e-9, "")
    assert worst_of([near, None, far]) is far
    assert worst_of([None]) is None
    assert not fact("c", False, "why").holds
