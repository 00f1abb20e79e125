"""Squared distances along edges: to full precision where |g|² + |x|² − 2 g·x has none, with every derivative."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import assert_gradients, assert_within, fields, roundoff
from operators import FieldError, SparsityPattern
from operators.sampled_distance import squared_distance

PATTERN = SparsityPattern(torch.tensor([0, 0, 1, 3, 3]), torch.tensor([0, 2, 1, 0, 2]), (4, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=20)
@given(data=st.data())
def test_it_is_the_square_of_the_difference(dtype, data):
    batch, c = data.draw(st.sampled_from([(), (2,), (2, 1), (0,)])), data.draw(st.integers(0, 4))
    g, x = (data.draw(fields(n, 4, batch=batch, dtype=dtype))[..., :c] for n in (4, 3))
    wide = g.double()[..., PATTERN.row, :] - x.double()[..., PATTERN.col, :]
    expected = wide.square().sum(-1)
    found = squared_distance(g, x, PATTERN)
    assert found.shape == (*batch, 5)
    assert found.dtype == dtype
    assert_within(found.double(), expected, (4 + c) * roundoff(dtype) * expected + 1e-300)


def test_a_short_distance_far_from_the_origin_keeps_its_digits():
    g = torch.full((4, 2), 4096.0)
    x = g[:3] + 2.0**-8
    squares = squared_distance(g, x, PATTERN)
    assert torch.equal(squares, torch.full((5,), 2.0**-15))
    by_products = 2 * g.square().sum(-1)[0] - 2 * (g[0] * x[0]).sum() + 2 * (x - g[:3]).square().sum(-1)[0]
    assert abs(float(by_products) / 2.0**-15 - 1) > 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_adds_up_in_float32(dtype):
    g, x = torch.zeros(4, 4096, dtype=dtype), torch.full((3, 4096), 0.5, dtype=dtype)
    assert torch.equal(squared_distance(g, x, PATTERN).double(), torch.full((5,), 1024.0, dtype=torch.float64))


def test_derivatives_of_every_order_and_mode():
    for batch in ((), (2,)):
        g, x = (torch.randn(*batch, n, 2, dtype=torch.float64, requires_grad=True) for n in (4, 3))
        assert torch.autograd.gradcheck(lambda g, x: squared_distance(g, x, PATTERN), (g, x), check_forward_ad=True)
        assert torch.autograd.gradgradcheck(lambda g, x: squared_distance(g, x, PATTERN), (g, x))
    assert_gradients(lambda z: squared_distance(z, z[:3], PATTERN), torch.randn(4, 2, dtype=torch.float64))


def test_coincident_ends_have_no_slope():
    z = torch.ones(4, 2, requires_grad=True)
    (slope,) = torch.autograd.grad(squared_distance(z, z[:3], PATTERN).sum(), z)
    assert torch.equal(slope, torch.zeros(4, 2))


def test_backward_keeps_no_differences():
    """What autograd stores does not grow with the channels of the edges."""
    row = torch.arange(20).repeat_interleave(20)
    pattern = SparsityPattern(row, row.reshape(20, 20).T.flatten(), (20, 20))
    z, stored = torch.randn(20, 8, requires_grad=True), []

    def keep(tensor):
        stored.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        squared_distance(z, z, pattern)
    assert max(stored) == z.numel() < pattern.nnz


def test_vmap_over_either_is_the_batch():
    g, x = torch.randn(5, 4, 2), torch.randn(5, 3, 2)
    for dims in ((0, 0), (None, 0), (0, None)):
        one, other = (f if at == 0 else f[0] for f, at in zip((g, x), dims, strict=True))
        found = torch.func.vmap(lambda g, x: squared_distance(g, x, PATTERN), dims)(one, other)
        for k in range(5):
            expected = squared_distance(g[k] if dims[0] == 0 else g[0], x[k] if dims[1] == 0 else x[0], PATTERN)
            torch.testing.assert_close(found[k], expected)


def test_what_the_compiler_sees(monkeypatch):
    g, x = torch.randn(2, 4, 3, dtype=torch.float64), torch.randn(2, 3, 3, dtype=torch.float64)
    expected = squared_distance(g, x, PATTERN)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(squared_distance(g, x, PATTERN), expected)


def test_fields_that_do_not_fit_are_refused():
    g, x = torch.zeros(4, 2), torch.zeros(3, 2)
    with pytest.raises(FieldError, match="left field must have shape"):
        squared_distance(x, x, PATTERN)
    with pytest.raises(FieldError, match="right field must have shape"):
        squared_distance(g, g, PATTERN)
    for other in (x.double(), x[:, :1], x[None], x.to(torch.complex64)):
        with pytest.raises(FieldError, match="two real fields of one precision, batch and width"):
            squared_distance(g, other, PATTERN)
