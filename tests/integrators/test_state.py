"""Packing is a bijection, on one state and on a path of them, and keeps values bit for bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from integrators.state import Packing, check_state, parts_of

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
