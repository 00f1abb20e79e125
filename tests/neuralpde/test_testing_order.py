"""Observed orders in time and space."""

import pytest

from integrators import RK4, Dopri5, Euler, Exponential, TruncatedTaylor
from neuralpde.testing_measured import LawBrokenError
from neuralpde.testing_order import assert_order


@pytest.mark.parametrize(("method", "p"), [(Euler, 1), (RK4, 4), (lambda dt: TruncatedTaylor(dt, order=3), 3)])
def test_methods_have_their_orders_and_no_more(method, p):
    measured = assert_order(method, p)
    assert f"observed {p}." in measured.where or f"observed {p - 1}.9" in measured.where
    with pytest.raises(LawBrokenError, match=f"converges with order {p + 1}"):
        assert_order(method, p + 1)


def test_errors_of_ones_own_with_round_off_at_the_end():
    steps = [1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5]
    assert assert_order(lambda h: max(h**4, 3e-16), 4, steps).error == pytest.approx(0, abs=1e-12)


def test_no_order_in_round_off_nor_in_nan():
    with pytest.raises(ValueError, match="fewer than two are above"):
        assert_order(lambda h: 1e-16, 2)
    with pytest.raises(LawBrokenError, match="nan"):
        assert_order(lambda h: float("nan"), 2)


def test_a_method_without_steps_has_no_order():
    with pytest.raises(ValueError, match=r"fewer than two are above|no order"):
        assert_order(lambda dt: Exponential(), 2)
    with pytest.raises(LawBrokenError):
        assert_order(lambda dt: Dopri5(rtol=1e-6), 5)
