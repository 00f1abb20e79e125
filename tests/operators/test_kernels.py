"""The kernels are their dense formulas, in every precision and under every transform of torch."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import assert_within, fields, roundoff
from operators import SparseOperator, SparsityPattern, cotangent_laplacian, icosphere, sampled_product, sparse_product
from operators.kernels import gather, product, row_softmax, sampled, segment_sum

U = roundoff(torch.float64)
# A row without entries, a full one, and a column without.
PATTERN = SparsityPattern(torch.tensor([2, 0, 0, 1, 0]), torch.tensor([1, 1, 0, 0, 3]), (4, 5))
AT = PATTERN.entries


def random(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


def arguments_of(make):
    torch.manual_seed(1)
    return make()


MAPS = {
    "product": (lambda v, x: product(v, x, AT), lambda: (random(5), random(5, 2))),
    "sampled": (lambda g, x: sampled(g, x, AT), lambda: (random(4, 2), random(5, 2))),
    "gather rows": (PATTERN.gather_rows, lambda: (random(4, 2),)),
    "gather columns": (PATTERN.gather_columns, lambda: (random(5, 2),)),
    "sum rows": (PATTERN.sum_rows, lambda: (random(5, 2),)),
    "row softmax": (lambda v: row_softmax(v, AT), lambda: (random(5),)),
}
maps = pytest.mark.parametrize(("function", "arguments"), MAPS.values(), ids=MAPS)


def dense(values):
    matrix = values.new_zeros(*values.shape[:-1], 4, 5)
    matrix[..., PATTERN.row, PATTERN.col] = values
    return matrix


@maps
def test_derivatives_of_first_and_second_order_forward_and_reverse(function, arguments):
    inputs = arguments()
    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True, nondet_tol=0.0)
    assert torch.autograd.gradgradcheck(function, inputs, check_fwd_over_rev=True, nondet_tol=0.0)


@maps
def test_vmap_is_a_loop_whichever_arguments_are_batched(function, arguments):
    inputs = [x.detach() for x in arguments()]
    for which in range(1, 2 ** len(inputs)):
        dims = tuple((k % 2) * -1 if which >> k & 1 else None for k in range(len(inputs)))
        members = [x if d is None else torch.stack([x, 2 * x, -x], d) for x, d in zip(inputs, dims, strict=True)]
        batched = torch.func.vmap(function, in_dims=dims)(*members)
        looped = [function(*(x if d is None else x.select(d, b) for x, d in zip(members, dims, strict=True))) for b in range(3)]
        assert_within(batched, torch.stack(looped), 32 * U * (1 + torch.stack(looped).abs()))


@maps
def test_jacobians_and_hessians_of_torch_func_agree_in_every_mode(function, arguments):
    inputs = tuple(x.detach() for x in arguments())
    which = tuple(range(len(inputs)))
    forward, reverse = torch.func.jacfwd(function, which)(*inputs), torch.func.jacrev(function, which)(*inputs)
    for there, here in zip(forward, reverse, strict=True):
        assert_within(there, here, 64 * U * (1 + here.abs()))

    def loss(*args):
        return function(*args).pow(3).sum()

    one, other = torch.func.hessian(loss)(*inputs), torch.func.jacrev(torch.func.jacrev(loss))(*inputs)
    assert_within(one, other, 1024 * U * (1 + other.abs()))


def test_nothing_kept_by_a_transform_outlives_it():
    """Index tensors first needed inside torch.func.grad must not be wrappers of that level."""
    pattern = SparsityPattern(torch.tensor([0, 1]), torch.tensor([1, 0]), (2, 2))
    values, x = torch.randn(2, 2, dtype=torch.float64), torch.randn(2, 1, dtype=torch.float64)

    def energy(v):
        return sparse_product(v * pattern.with_diagonal().nnz, x, pattern).pow(2).sum()

    torch.func.hessian(energy)(values)
    for kept in (*pattern._tiles.values(), pattern.with_diagonal(), pattern.transpose()):
        for index in kept.entries:
            assert not torch._C._functorch.is_functorch_wrapped_tensor(index)
    copy.deepcopy(pattern)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 5, 64])
def test_half_precision_accumulates_in_float32(dtype, channels):
    """4096 terms of 1/4: a running sum in bfloat16 stalls at 64, in float16 it loses one bit in twelve."""
    row, many = torch.zeros(4096, dtype=torch.int64), torch.arange(4096)
    wide = SparsityPattern(row, many, (1, 4096))
    values = torch.full((4096,), 0.25, dtype=dtype, requires_grad=True)
    x = torch.ones(4096, channels, dtype=dtype, requires_grad=True)
    y = sparse_product(values, x, wide)
    assert y.dtype == dtype
    assert torch.equal(y, torch.full((1, channels), 1024.0, dtype=dtype))
    y.sum().backward()
    assert torch.equal(values.grad, torch.full((4096,), float(channels), dtype=dtype))
    assert torch.equal(x.grad, torch.full_like(x, 0.25))
    long = torch.full((1, 4096), 0.25, dtype=dtype)
    assert sampled_product(long, torch.ones(3, 4096, dtype=dtype), SparsityPattern(row[:3], many[:3], (1, 3)))[0] == 1024
    total = row_softmax(torch.zeros(4096, dtype=dtype), wide.entries).float().sum()
    assert_within(total, 1.0, roundoff(dtype))


def test_float16_softmax_of_a_hundred_thousand_neighbours_is_not_zero():
    """The denominator leaves float16's range: hazard softmax_half_deg_1e5."""
    n = 100_000
    hub = SparsityPattern(torch.zeros(n, dtype=torch.int64), torch.arange(n), (1, n))
    share = row_softmax(torch.zeros(n, dtype=torch.float16), hub.entries)
    # 1e-5 is subnormal in float16, whose spacing there is 6e-8.
    assert_within(share.double(), 1 / n, 6e-8)


@given(data=st.data())
def test_softmax_of_any_finite_logits_sums_to_one_and_ignores_a_shift(data):
    logits = data.draw(fields(5, 1, batch=(2,))).squeeze(-1)
    share = row_softmax(logits, AT)
    total = segment_sum(share[..., None], AT.row, AT.crow, None).squeeze(-1)
    degree = (AT.crow[1:] - AT.crow[:-1]).double()
    assert_within(total, (degree > 0).double(), 16 * U)
    reference = torch.full((2, 4, 5), -torch.inf, dtype=torch.float64)
    reference[:, AT.row, AT.col] = logits
    expected = torch.softmax(reference[:, :3], -1)[:, AT.row, AT.col]
    assert_within(share, expected, 16 * U)


@given(data=st.data())
def test_sampled_is_the_dense_product_at_the_entries(data):
    dtype = data.draw(st.sampled_from([torch.float64, torch.complex128]))
    batch = data.draw(st.sampled_from([(), (2,), (0,), (2, 1)]))
    g = data.draw(fields(4, 3, batch=batch, dtype=dtype))
    x = data.draw(fields(5, 3, dtype=data.draw(st.sampled_from([torch.float64, torch.complex128]))))
    result = sampled_product(g, x, PATTERN)
    wide = torch.promote_types(g.dtype, x.dtype)
    assert result.dtype == wide
    expected = (g.to(wide) @ x.to(wide).mT)[..., PATTERN.row, PATTERN.col]
    assert_within(result, expected, 16 * U * (g.abs() @ x.abs().mT)[..., PATTERN.row, PATTERN.col])


@pytest.mark.parametrize("channels", [1, 31, 32, 40])
def test_a_batch_of_any_width_is_the_batch_of_products(channels):
    A = cotangent_laplacian(icosphere(1)).stiffness
    x = torch.randn(2, 3, 42, channels, dtype=torch.float64)
    y = A @ x
    size = torch.from_numpy(abs(A.to_scipy()).toarray())
    for i, j in np.ndindex(2, 3):
        assert_within(y[i, j], A @ x[i, j], 8 * U * (size @ x[i, j].abs()))


def test_the_same_result_every_time():
    A = cotangent_laplacian(icosphere(2)).stiffness
    x = torch.randn(162, 7, dtype=torch.float64)
    assert all(torch.equal(A @ x, A @ x) for _ in range(5))


def test_nan_stays_in_the_rows_that_read_it():
    x = torch.ones(5, 1, dtype=torch.float64)
    x[3] = torch.nan
    y = product(torch.ones(5, dtype=torch.float64), x, AT)
    assert y.isnan().squeeze(1).tolist() == [True, False, False, False]


def test_empty_fields_and_empty_patterns():
    none = SparsityPattern(torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64), (3, 2)).entries
    assert torch.equal(product(torch.zeros(0), torch.ones(2, 4), none), torch.zeros(3, 4))
    assert sampled(torch.ones(3, 4), torch.ones(2, 4), none).shape == (0,)
    assert product(torch.ones(5), torch.ones(5, 0), AT).shape == (4, 0)
    assert torch.equal(sampled(torch.ones(4, 0), torch.ones(5, 0), AT), torch.zeros(5))
    assert row_softmax(torch.zeros(0), none).shape == (0,)
    assert gather(torch.ones(3, 4), none.row, none.crow, None).shape == (0, 4)


@pytest.mark.parametrize("batch", [(), (2,)])
def test_a_compiled_product_is_the_eager_one_in_one_graph(batch):
    pattern = cotangent_laplacian(icosphere(1)).stiffness.pattern
    A = SparseOperator(pattern, torch.randn(*batch, pattern.nnz, dtype=torch.float64, requires_grad=True))
    x = torch.randn(42, 3, dtype=torch.float64, requires_grad=True)

    def f(x):
        share = row_softmax(sampled_product(x, x, A.pattern), A.pattern.entries)
        return torch.tanh(A(x)).sum() + torch.tanh(A.pattern.gather_rows(x)).sum() + share.pow(2).sum()

    expected = torch.autograd.grad(f(x), (x, A.values))
    # aot_eager traces like the default backend but needs no C++ compiler.
    actual = torch.autograd.grad(torch.compile(f, fullgraph=True, backend="aot_eager")(x), (x, A.values))
    for one, other in zip(actual, expected, strict=True):
        assert_within(one, other, 256 * U * (1 + other.abs()))


@maps
def test_what_the_compiler_sees_is_the_eager_kernel(function, arguments, monkeypatch):
    expected = function(*arguments_of(arguments))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(function(*arguments_of(arguments)), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("batch", [(2,), (3, 2)])
def test_what_the_compiler_sees_of_a_batch_is_the_eager_product(batch, monkeypatch):
    values, g, x = (torch.randn(*batch, *size, dtype=torch.float64) for size in [(5,), (4, 2), (5, 2)])
    expected = sparse_product(values, x, PATTERN), sampled_product(g, x, PATTERN)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close((sparse_product(values, x, PATTERN), sampled_product(g, x, PATTERN)), expected)


@maps
def test_the_vectorised_jacobians_of_torch_autograd_are_the_plain_ones(function, arguments):
    """Its vmap is an older one than torch.func's, and knows nothing of `Function.vmap`."""
    inputs = tuple(x.detach() for x in arguments())
    plain = torch.autograd.functional.jacobian(function, inputs)
    for strategy in ("reverse-mode", "forward-mode"):
        quick = torch.autograd.functional.jacobian(function, inputs, vectorize=True, strategy=strategy)
        for one, other in zip(quick, plain, strict=True):
            assert_within(one, other, 64 * U * (1 + other.abs()))
