"""States are checked, combined part by part in their own precision, and packed and unpacked bit for bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from integrators.state import (
    Packing,
    add,
    check_state,
    combine,
    first_bad,
    largest,
    number,
    parts_of,
    scaled,
    state_map,
    subtract,
    weighted,
)

shapes = st.lists(st.integers(1, 3), max_size=3).map(tuple)


@st.composite
def states(draw):
    real, wide = draw(st.sampled_from([(torch.float32, torch.complex64), (torch.float64, torch.complex128)]))
    parts = tuple(
        torch.randn(shape, dtype=wide if is_complex else real, generator=torch.Generator().manual_seed(k))
        for k, (shape, is_complex) in enumerate(
            draw(st.lists(st.tuples(shapes, st.booleans()), min_size=1, max_size=4))
        )
    )
    return parts if draw(st.booleans()) or len(parts) > 1 else parts[0]


def same(x, y):
    return isinstance(x, tuple) == isinstance(y, tuple) and all(
        a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(parts_of(x), parts_of(y), strict=True)
    )


@settings(max_examples=80, deadline=None, derandomize=True)
@given(states())
def test_unpack_undoes_pack(x):
    packing = Packing(x)
    flat = packing.pack(x)
    assert not flat.is_complex()
    assert flat.numel() == sum(part.numel() * (2 if part.is_complex() else 1) for part in parts_of(x))
    assert same(packing.unpack(flat), x)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(states(), st.integers(1, 4))
def test_a_path_is_unpacked_with_time_in_front(x, length):
    packing = Packing(x)
    path = packing.unpack(torch.stack([packing.pack(x)] * length))
    for part, row in zip(parts_of(path), parts_of(x), strict=True):
        assert part.shape == (length, *row.shape)
        assert all(torch.equal(part[k], row) for k in range(length))


def test_packing_keeps_the_norm():
    x = (torch.ones(2, 1), torch.tensor([3 + 4j, 1j], dtype=torch.complex64))
    assert float(Packing(x).pack(x).norm() ** 2) == pytest.approx(2 + 25 + 1)


def test_conjugate_and_strided_views_are_packed_by_value():
    x = torch.arange(6, dtype=torch.float64).reshape(2, 3) * (1 + 2j)
    for view in (x.conj(), x.T, x[:, ::2], x.mH):
        packing = Packing(view)
        assert torch.equal(packing.unpack(packing.pack(view)), view)


def test_gradients_pass_through():
    x = torch.tensor([1 + 2j, 3 - 1j], dtype=torch.complex128, requires_grad=True)
    packing = Packing((x,))
    assert torch.autograd.gradcheck(lambda z: packing.unpack(packing.pack((z,)))[0], (x,))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(states())
def test_states_pass_the_check_and_are_left_alone(x):
    before = [part.clone() for part in parts_of(x)]
    check_state(x, "x")
    assert all(torch.equal(a, b) for a, b in zip(before, parts_of(x), strict=True))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            torch.tensor([0.0, float("nan")]),
            ValueError,
            r"field holds a NaN or infinite value, the first at index \[1\]",
        ),
        (torch.tensor(complex(0, float("inf"))), ValueError, r"field holds a NaN or infinite value"),
        (torch.zeros(3, 0), ValueError, r"field is empty \(shape \(3, 0\)\)"),
        (torch.ones(2, dtype=torch.bool), TypeError, r"field has dtype torch.bool: integrate in float32, float64"),
        ((torch.ones(2), torch.ones(2, dtype=torch.int32)), TypeError, r"field\[1\] has dtype torch.int32"),
        (
            (torch.ones(2), torch.ones(2, dtype=torch.complex128)),
            TypeError,
            r"parts of field differ in device or precision",
        ),
        ({"u": torch.ones(2)}, TypeError, r"field must be a torch.Tensor, not dict"),
        (None, TypeError, r"field must be a torch.Tensor, not NoneType"),
    ],
)
def test_what_is_no_state_is_refused_by_name(x, error, message):
    with pytest.raises(error, match=message):
        check_state(x, "field")


# -- Arithmetic

X = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
PAIR = (X.float(), X.to(torch.complex64))
OTHER = (2 * X.float(), 1j * X.to(torch.complex64))
lengths = pytest.mark.parametrize("h", [0.5, torch.tensor(0.5, dtype=torch.float64)], ids=["number", "tensor"])


@lengths
def test_states_combine_part_by_part_in_their_own_precision(h):
    for found, expected in (
        (add(PAIR, OTHER), (3 * PAIR[0], (1 + 1j) * PAIR[1])),
        (subtract(PAIR, OTHER), (-PAIR[0], (1 - 1j) * PAIR[1])),
        (scaled(PAIR, h), (0.5 * PAIR[0], 0.5 * PAIR[1])),
        (combine(PAIR, h, [2.0, -1.0], [OTHER, PAIR]), (2.5 * PAIR[0], (0.5 + 1j) * PAIR[1])),
        (weighted(h, [0.0, 2.0, -1.0], [PAIR, OTHER, PAIR]), (1.5 * PAIR[0], (-0.5 + 1j) * PAIR[1])),
        (state_map(torch.neg, PAIR), (-PAIR[0], -PAIR[1])),
    ):
        assert [part.dtype for part in found] == [torch.float32, torch.complex64]
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.equal(add(X, X), 2 * X)


@lengths
@pytest.mark.parametrize("recorded", [False, True])
def test_combine_changes_none_of_its_arguments(h, recorded):
    x, k1, k2 = X.clone(), X + 1, X + 2
    with torch.set_grad_enabled(recorded):
        y = combine(x, h, [0.0, 1.0, 3.0], [x, k1, k2])
        combine(x, h, [1.0, 1.0, 1.0], [x, k1, k2])
    assert torch.equal(y, X + 0.5 * (X + 1) + 1.5 * (X + 2))
    for part, value in ((x, X), (k1, X + 1), (k2, X + 2)):
        assert torch.equal(part, value)


@lengths
def test_a_weight_of_zero_costs_nothing_and_hides_what_it_weighs(h):
    assert torch.equal(combine(X, h, [0.0, 1.0], [X * float("nan"), X]), 1.5 * X)
    assert combine(X, h, [0.0], [X]) is X


@settings(max_examples=40, deadline=None, derandomize=True)
@given(states(), st.lists(st.floats(-3, 3), min_size=1, max_size=4), st.floats(-2, 2))
def test_combine_is_the_sum_it_says(x, weights, h):
    slopes = [scaled(x, 0.1 * (k + 1)) for k in range(len(weights))]
    for step in (h, torch.tensor(h, dtype=torch.float64)):
        found = parts_of(combine(x, step, weights, slopes))
        for k, part in enumerate(parts_of(x)):
            expected = part * (1 + h * sum(w * 0.1 * (i + 1) for i, w in enumerate(weights)))
            size = float(part.abs().max()) * (1 + abs(h) * sum(map(abs, weights)))
            assert found[k].dtype == part.dtype
            assert float((found[k] - expected).abs().max()) <= 20 * torch.finfo(part.dtype).eps * size


def test_gradients_reach_a_tensor_length():
    h = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(combine(X, h, [2.0, 1.0], [X, X]).sum() + scaled(X, h).sum(), h)
    assert float(slope) == pytest.approx(4 * 3.0)


def test_the_largest_entry_and_the_first_bad_one():
    assert largest((X, torch.tensor([3 + 4j], dtype=torch.complex128))) == 5
    assert largest(-X) == 2
    bad = X.clone()
    bad[1, 0] = float("inf")
    assert largest(bad) == float("inf")
    assert largest((X, X * float("nan"))) != largest((X, X * float("nan")))
    assert first_bad((X, X)) == ""
    assert first_bad(bad) == "inf at index [1, 0], and 1 of 2 entries are not finite"
    assert first_bad((X, bad)).startswith("inf at part 1, index [1, 0]")


def test_a_number_is_had_without_a_warning_where_a_gradient_is_wanted():
    assert number(torch.tensor(0.5, requires_grad=True) * 2) == 1.0
    assert number(3) == 3.0
