"""Bad input is refused where it enters, with the cause and the cure in one sentence."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from operators import DomainError, DomainWarning, FieldError
from operators.checks import as_index, as_points, check_field, check_finite, check_no_gradient, is_integer, real_dtype


def test_errors_are_value_errors_and_the_warning_a_user_warning():
    assert issubclass(DomainError, ValueError)
    assert issubclass(FieldError, ValueError)
    assert issubclass(DomainWarning, UserWarning)


@pytest.mark.parametrize("real", [torch.float32, torch.float64])
def test_real_dtype_keeps_the_precision(real):
    assert real_dtype(real) == real
    assert real_dtype(real.to_complex()) == real


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@given(data=st.data())
def test_one_non_finite_coordinate_anywhere_is_found(bad, data):
    points = torch.zeros(data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3)), dtype=torch.float64)
    i, j = data.draw(st.integers(0, len(points) - 1)), data.draw(st.integers(0, points.shape[1] - 1))
    points[i, j] = bad
    with pytest.raises(
        DomainError, match=rf"points hold 1 non-finite value, the first \({bad}\) at index \[{i}, {j}\]: remove"
    ):
        as_points(points, "points")


def test_several_non_finite_values_are_counted():
    with pytest.raises(DomainError, match=r"2 non-finite values, the first \(inf\) at index \[0\]: remove or repair"):
        check_finite(torch.tensor([math.inf, math.nan]), "x")


@pytest.mark.parametrize(
    ("points", "match"),
    [
        (torch.zeros(2, 3, dtype=torch.int64), r"float32 or float64, not torch\.int64: convert"),
        (torch.zeros(2, 3, dtype=torch.float16), r"float32 or float64, not torch\.float16: convert"),
        (torch.zeros(2, 3, dtype=torch.complex64), r"float32 or float64, not torch\.complex64: take the real part"),
        (torch.zeros(3), r"shape \(n, 2 or 3\), not \(3,\)"),
        (torch.zeros(2, 4), r"shape \(n, 2 or 3\), not \(2, 4\)"),
        (torch.zeros(1, 2, 3), r"shape \(n, 2 or 3\), not \(1, 2, 3\)"),
        (torch.zeros(0, 3), "empty: a domain needs at least one point"),
    ],
)
def test_points_of_the_wrong_kind_are_refused(points, match):
    with pytest.raises(DomainError, match=match):
        as_points(points, "points", (2, 3))


@pytest.mark.parametrize(
    ("dtype", "size", "ok"),
    [
        (torch.float64, 1e9, True),
        (torch.float64, 1e-9, True),
        (torch.float64, 1e59, True),
        (torch.float64, 1e-59, True),
        (torch.float64, 1e61, False),
        (torch.float64, 1e-61, False),
        (torch.float64, 1e150, False),
        (torch.float64, 1e-150, False),
        (torch.float32, 1e14, True),
        (torch.float32, 1e16, False),
        (torch.float32, 1e-16, False),
        (torch.float32, 0.0, True),
    ],
)
def test_scale_must_fit_the_precision(dtype, size, ok):
    points = torch.full((1, 3), size, dtype=dtype)
    if ok:
        assert torch.equal(as_points(points, "points"), points)
    else:
        with pytest.raises(DomainError, match=rf"{dtype} geometry can hold \(1e-\d+ to 1e\+\d+\): change the unit of length"):
            as_points(points, "points")


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8, np.uint16, np.uint32])
def test_integers_of_every_width_become_int64(dtype):
    index = as_index(np.array([[0, 1, 2]], dtype=dtype), "faces", None, 3, 3)
    assert index.dtype == torch.int64
    assert index.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("index", "match"),
    [
        ([[0.0, 1.0, 2.0]], r"integers, not torch\.float32: indices are never rounded"),
        ([[False, True, True]], r"integers, not torch\.bool"),
        ([[0, 1, 2, 3]], r"shape \(n, 3\), not \(1, 4\) \(triangulate polygons first\)"),
        ([[0, 1], [1, 2], [2, 3], [3, 0]], r"shape \(n, 3\), not \(4, 2\) \(triangulate"),
        ([[0], [1], [2]], r"shape \(n, 3\), not \(3, 1\): pass its transpose, \.T"),
        ([0, 1, 2], r"shape \(n, 3\), not \(3,\)"),
        ([[0, 1, 4]], "index 4, but there are only 4 points, numbered 0 to 3"),
        ([[-1, 1, 2]], r"negative index -1: indices count from 0 \(files often count from 1\)"),
    ],
)
def test_indices_of_the_wrong_kind_are_refused(index, match):
    with pytest.raises(DomainError, match=match):
        as_index(torch.tensor(index), "faces", None, 3, 4)


@given(n=st.integers(1, 4), index=st.lists(st.integers(-3, 6), min_size=1))
def test_an_index_passes_exactly_if_it_is_in_range(n, index):
    if all(0 <= i < n for i in index):
        assert as_index(torch.tensor([index]), "rows", 1, None, n).tolist() == [index]
    else:
        with pytest.raises(DomainError, match=r"rows hold the (negative )?index"):
            as_index(torch.tensor([index]), "rows", 1, None, n)


@pytest.mark.parametrize(
    ("field", "match"),
    [
        ([[1.0]], r"must be a torch\.Tensor of shape \(\.\.\., 3, c\), not list"),
        (np.ones((3, 1)), r"must be a torch\.Tensor of shape \(\.\.\., 3, c\), not ndarray"),
        (torch.ones(3), r"shape \(\.\.\., 3, c\), not \(3,\): add a channel axis with x\[\.\.\., None\]"),
        (torch.ones(2, 3), r"not \(2, 3\): add a channel axis"),
        (torch.ones(4, 2), r"shape \(\.\.\., 3, c\), not \(4, 2\)$"),
        (torch.tensor(1.0), r"shape \(\.\.\., 3, c\), not \(\)$"),
        (
            torch.ones(3, 1, dtype=torch.float64),
            r"float64 but the operator torch\.float32: nothing is converted silently",
        ),
        (torch.ones(3, 1, dtype=torch.int64), r"dtype torch\.int64 but the operator torch\.float32"),
        (torch.ones(3, 1, dtype=torch.complex128), r"complex128 but the operator torch\.float32"),
        (torch.ones(3, 1, device="meta"), r"on meta but the operator on cpu: move one with \.to\(device\)"),
    ],
)
def test_fields_that_do_not_fit_are_refused(field, match):
    with pytest.raises(FieldError, match=match):
        check_field(field, 3, torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("shape", [(3, 1), (3, 0), (5, 3, 2), (0, 3, 2), (2, 4, 3, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_fields_that_fit_pass(shape, dtype):
    check_field(torch.ones(shape, dtype=dtype), 3, torch.float32, torch.device("cpu"))


@pytest.mark.parametrize(
    ("value", "expected"), [(3, True), (np.int8(3), True), (True, False), (np.True_, False), (3.0, False), ("3", False)]
)
def test_integers_are_those_of_python_and_numpy(value, expected):
    assert is_integer(value) is expected


def test_points_with_a_gradient_are_refused_only_where_it_would_be_recorded():
    points = torch.zeros(2, 2, requires_grad=True)
    with pytest.raises(DomainError, match=r"smooth.*no_grad"):
        check_no_gradient(points, "smooth")
    check_no_gradient(points.detach(), "smooth")
    with torch.no_grad():
        check_no_gradient(points, "smooth")
