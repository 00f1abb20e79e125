"""GroupSort keeps the norm at every node, and not the Rayleigh quotient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import fields
from operators import FieldError, Graph, rayleigh_quotient, symmetric_laplacian
from operators.group_sort import GroupSort

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@DTYPES
@settings(max_examples=30)
@given(data=st.data(), nodes=st.integers(1, 6), half=st.integers(1, 4))
def test_every_node_keeps_its_values(dtype, data, nodes, half):
    x = data.draw(fields(nodes, 2 * half, dtype=dtype))
    y = GroupSort()(x)
    assert y.dtype == dtype
    assert torch.equal(y.sort(-1).values, x.sort(-1).values)
    assert bool((y[..., :half] >= y[..., half:]).all())


@settings(max_examples=30)
@given(data=st.data(), half=st.integers(1, 4))
def test_it_does_not_stretch(data, half):
    x, y = (data.draw(fields(3, 2 * half, dtype=torch.float64)) for _ in range(2))
    difference = (GroupSort()(x) - GroupSort()(y)).norm()
    assert float(difference) <= float((x - y).norm()) * (1 + 1e-12)


def test_it_does_not_keep_the_rayleigh_quotient():
    # Two neighbours, (1, 0) and (0, 1): sorted, both are (1, 0), a constant field, whose quotient is zero.
    laplacian = symmetric_laplacian(Graph(torch.tensor([[0, 1], [1, 0]]), 2, torch.ones(2, dtype=torch.float64)))
    x = torch.eye(2, dtype=torch.float64)
    y = GroupSort()(x)
    assert torch.equal(y, torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64))
    assert float(rayleigh_quotient(laplacian, x)) == pytest.approx(1.0)
    assert float(rayleigh_quotient(laplacian, y)) == pytest.approx(0.0, abs=1e-15)


def test_gradcheck():
    # No two halves alike: there the sort has no derivative.
    x = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 4.0, 2.0, -1.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(GroupSort(), x)


def test_what_cannot_be_sorted_is_said():
    with pytest.raises(FieldError, match=r"3 channels, which have no two halves: pad with pad_channels\(x, 4\)"):
        GroupSort()(torch.zeros(2, 3))
    with pytest.raises(FieldError, match="complex numbers have no order: use ModulusSort"):
        GroupSort()(torch.zeros(2, 4, dtype=torch.complex64))
