"""Bad measurements are refused with their cause and cure, good ones are not."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.station_checks import MARKERS, StationError, StationWarning, as_texts, check_times, check_values, markers_among
from neuralpde.weather_record import Variable

RNG = np.random.default_rng(0)
CELSIUS = Variable("t", units="degC")


def check(values: Any, variable: Variable = CELSIUS) -> None:
    array = np.asarray(values, np.float64).reshape(-1, 2, 1)
    check_values("here", array, ~np.isnan(array), [variable])


@pytest.mark.parametrize("marker", MARKERS, ids=str)
def test_markers_are_found(marker: float) -> None:
    values = 10 + 3 * RNG.standard_normal(400)
    check(values)
    values[[3, 50]] = marker
    assert markers_among(values) == [marker]
    with pytest.raises(StationError, match=r"in 2 places.*missing="):
        check(values)


@settings(max_examples=40, deadline=None)
@given(low=st.floats(-200, 200), spread=st.floats(0.01, 50), seed=st.integers(0, 99))
def test_values_among_others_are_no_markers(low: float, spread: float, seed: int) -> None:
    values = low + spread * np.random.default_rng(seed).random(300)
    values[0] = low + spread / 2
    assert markers_among(values) == []


def test_what_is_a_marker_elsewhere_may_be_a_value() -> None:
    # 999 hPa and 99.9 % occur.
    check(995 + 3 * RNG.standard_normal(400).round(), Variable("p", units="hPa"))
    check(np.r_[99.9, RNG.uniform(20, 100, 399)], Variable("u", units="%"))
    # Rain: mostly nothing.
    check(np.r_[np.zeros(380), RNG.exponential(2, 20)], Variable("rain", units="mm"))


@pytest.mark.parametrize(
    ("values", "units", "told"),
    [
        (285 + RNG.standard_normal(100), "degC", "look like K"),
        (12 + RNG.standard_normal(100), "K", "look like degC or degF"),
        (101300 + RNG.standard_normal(100), "hPa", "look like Pa"),
        (-1230 + RNG.standard_normal(100), "degC", "scaled"),
    ],
    ids=["kelvin", "celsius", "pascal", "tenths"],
)
def test_wrong_units(values: Any, units: str, told: str) -> None:
    with pytest.raises(StationError, match=told):
        check(values, Variable("x", units=units))


def test_a_spike_is_a_warning() -> None:
    values = 10 + RNG.standard_normal(400)
    values[7] = 88.0
    with pytest.warns(StationWarning, match="1 values of t"):
        check(values)


def test_infinity_and_nothing() -> None:
    with pytest.raises(StationError, match="infinite"):
        check([1.0, math.inf])
    with pytest.raises(StationError, match="never measured"):
        check([math.nan, math.nan])


@pytest.mark.parametrize(
    ("days", "told"),
    [(["01", "03", "02"], "sort"), (["01", "02", "02", "03"], "twice"), (["01", "NaT", "03"], "NaT")],
    ids=["order", "twice", "missing"],
)
def test_times(days: list[str], told: str) -> None:
    times = np.array([day if day == "NaT" else f"2020-01-{day}" for day in days], "datetime64[ns]")
    with pytest.raises(StationError, match=told):
        check_times("here", times)


def test_names() -> None:
    assert as_texts([3804.0, 12, "EGLL", np.int64(7)]) == ("3804", "12", "EGLL", "7")
