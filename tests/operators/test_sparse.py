"""A sparse operator is its dense matrix: product, adjoint, derivatives of both orders, batches, complex numbers."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import assert_within, fields, roundoff
from operators import DomainError, FieldError, SparseOperator, SparsityPattern, sampled_product, sparse_product

U = roundoff(torch.float64)
REAL, COMPLEX = torch.float64, torch.complex128
kinds = pytest.mark.parametrize(("of_values", "of_x"), [(a, b) for a in (REAL, COMPLEX) for b in (REAL, COMPLEX)])


@st.composite
def patterns(draw):
    """Rectangular patterns with their entries in any order, from empty to full."""
    m, n = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    pairs = draw(st.lists(st.tuples(st.integers(0, m - 1), st.integers(0, n - 1)), max_size=m * n, unique=True))
    rows, columns = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    return SparsityPattern(rows, columns, (m, n))


def to_dense(pattern, values):
    """(..., E) → (..., m, n), entry by entry."""
    matrix = values.new_zeros(*values.shape[:-1], *pattern.shape)
    for e, (i, j) in enumerate(zip(pattern.row.tolist(), pattern.col.tolist(), strict=True)):
        matrix[..., i, j] = values[..., e]
    return matrix


def values_of(data, pattern, dtype, batch=()):
    return data.draw(fields(pattern.nnz, 1, batch=batch, dtype=dtype)).squeeze(-1)


# The batch of the values and that of the field.
BATCHES = [
    ((), ()),
    ((), (2,)),
    ((), (2, 3)),
    ((), (0,)),
    ((2,), ()),
    ((2,), (2,)),
    ((1,), (2,)),
    ((3, 1), (2,)),
    ((0,), (0,)),
]


@kinds
@settings(max_examples=60)
@given(data=st.data())
def test_product_is_the_dense_product_for_every_batch(of_values, of_x, data):
    pattern, (of_batch, x_batch) = data.draw(patterns()), data.draw(st.sampled_from(BATCHES))
    values = values_of(data, pattern, of_values, of_batch)
    x = data.draw(fields(pattern.shape[1], batch=x_batch, dtype=of_x))
    dense = to_dense(pattern, values)
    y = SparseOperator(pattern, values) @ x
    assert y.dtype == torch.promote_types(of_values, of_x)
    assert_within(y, dense.to(y.dtype) @ x.to(y.dtype), 16 * U * (dense.abs() @ x.abs()))
    assert torch.equal(sparse_product(values, x, pattern), y)


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
@given(data=st.data())
def test_gathers_and_row_sums_are_indexing(dtype, data):
    pattern, batch = data.draw(patterns()), data.draw(st.sampled_from([(), (2,), (0,), (2, 3)]))
    x = data.draw(fields(pattern.shape[1], batch=batch, dtype=dtype))
    z = data.draw(fields(pattern.shape[0], batch=batch, dtype=dtype))
    y = data.draw(fields(pattern.nnz, batch=batch, dtype=dtype))
    assert torch.equal(pattern.gather_columns(x), x[..., pattern.col, :])
    assert torch.equal(pattern.gather_rows(z), z[..., pattern.row, :])
    ones = to_dense(pattern, torch.ones(pattern.nnz, dtype=REAL))
    by_row = torch.zeros(pattern.shape[0], pattern.nnz, dtype=REAL)
    by_row[pattern.row, torch.arange(pattern.nnz)] = 1
    assert_within(pattern.sum_rows(y), by_row.to(dtype) @ y, 16 * U * (by_row @ y.abs()))
    assert_within(pattern.sum_rows(pattern.gather_columns(x)), ones.to(dtype) @ x, 16 * U * (ones @ x.abs()))


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
def test_derivatives_of_both_orders_of_gathers_and_row_sums(dtype):
    pattern = SparsityPattern(torch.tensor([2, 0, 0, 1]), torch.tensor([1, 1, 0, 0]), (4, 3))
    for name, n in (("gather_rows", 4), ("gather_columns", 3), ("sum_rows", 4)):
        x = torch.randn(2, n, 2, dtype=dtype, requires_grad=True)
        assert torch.autograd.gradcheck(getattr(pattern, name), x), name
        assert torch.autograd.gradgradcheck(getattr(pattern, name), x), name


@pytest.mark.parametrize("channels", [0, 1, 3])
def test_an_empty_pattern_gives_zero(channels):
    none = torch.zeros(0, dtype=torch.int64)
    A = SparseOperator.from_entries(none, none, torch.zeros(0), (3, 2))
    assert torch.equal(A @ torch.ones(2, channels), torch.zeros(3, channels))
    assert A.norm_bound() == 0
    assert torch.equal(A.adjoint() @ torch.ones(3, channels), torch.zeros(2, channels))


@given(data=st.data())
def test_product_does_not_depend_on_how_x_lies_in_memory(data):
    pattern = data.draw(patterns())
    A = SparseOperator(pattern, values_of(data, pattern, REAL))
    x = data.draw(fields(pattern.shape[1], 2))
    strided = torch.stack([x, x], dim=-1)[..., 0]
    transposed = x.T.contiguous().T
    expanded = x[:, :1].expand(-1, 4)
    assert torch.equal(A @ strided, A @ x)
    assert torch.equal(A @ transposed, A @ x)
    assert_within(
        A @ expanded, (A @ x[:, :1]).expand(-1, 4), 8 * U * (to_dense(pattern, A.values).abs() @ x.abs()[:, :1])
    )


@kinds
@given(data=st.data())
def test_adjoint_identity(of_values, of_x, data):
    pattern = data.draw(patterns())
    A = SparseOperator(pattern, values_of(data, pattern, of_values))
    x, y = data.draw(fields(pattern.shape[1], 2, dtype=of_x)), data.draw(fields(pattern.shape[0], 2, dtype=of_x))
    magnitude = (y.abs() * (to_dense(pattern, A.values).abs() @ x.abs())).sum()
    assert_within(A.inner(y, A @ x), A.inner(A.adjoint() @ y, x), 32 * U * magnitude)
    assert torch.equal(A.adjoint().matrix(), A.matrix().mH)
    assert torch.equal(A.adjoint().adjoint().values, A.values)


@kinds
@pytest.mark.parametrize("batch", [(), (2,)])
def test_derivatives_of_both_orders_in_values_and_field(of_values, of_x, batch):
    pattern = SparsityPattern(torch.tensor([2, 0, 0, 1]), torch.tensor([1, 1, 0, 0]), (4, 2))
    values = torch.randn(*batch, 4, dtype=of_values, requires_grad=True)
    x = torch.randn(2, 2, 2, dtype=of_x, requires_grad=True)

    def product(values, x):
        return sparse_product(values, x, pattern)

    assert torch.autograd.gradcheck(product, (values, x))
    assert torch.autograd.gradgradcheck(product, (values, x))


@given(data=st.data())
def test_gradients_are_those_of_the_dense_product(data):
    pattern = data.draw(patterns())
    values = values_of(data, pattern, REAL).requires_grad_()
    x, g = data.draw(fields(pattern.shape[1], 2)).requires_grad_(), data.draw(fields(pattern.shape[0], 2))
    by_values, by_x = torch.autograd.grad((sparse_product(values, x, pattern) * g).sum(), (values, x))
    dense = to_dense(pattern, values.detach())
    assert_within(by_x, dense.T @ g, 8 * U * (dense.abs().T @ g.abs()))
    expected, magnitude = g @ x.detach().T, g.abs() @ x.detach().abs().T
    assert_within(by_values, expected[pattern.row, pattern.col], 8 * U * magnitude[pattern.row, pattern.col])


@given(data=st.data())
def test_from_entries_sums_repeated_entries_in_any_order(data):
    m, n = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    entry = st.tuples(st.integers(0, m - 1), st.integers(0, n - 1), st.integers(-8, 8))
    entries = data.draw(st.lists(entry, max_size=12))
    dense = torch.zeros(m, n, dtype=REAL)
    for i, j, v in entries:
        dense[i, j] += v
    i, j, v = torch.tensor(entries, dtype=torch.int64).reshape(-1, 3).T
    A = SparseOperator.from_entries(i, j, v.to(REAL), (m, n))
    assert torch.equal(A.matrix(), dense)
    assert A.pattern.nnz == len({(i, j) for i, j, _ in entries})
    assert torch.equal(SparseOperator.from_scipy(A.to_scipy()).matrix(), dense)
    assert torch.equal(torch.from_numpy(A.to_scipy().toarray()), dense)


def test_from_entries_is_differentiable_in_repeated_values():
    values = torch.randn(3, dtype=REAL, requires_grad=True)
    i, j = torch.tensor([0, 1, 0]), torch.tensor([1, 0, 1])

    def matrix(values):
        return SparseOperator.from_entries(i, j, values, (2, 2)).matrix()

    assert torch.autograd.gradcheck(matrix, values)


def test_narrow_indices_do_not_overflow():
    n = 100_000
    index = torch.tensor([n - 1, 0], dtype=torch.int32)
    A = SparseOperator.from_entries(index, index, torch.tensor([2.0, 3.0]), (n, n))
    y = A @ torch.ones(n, 1)
    assert (y[0].item(), y[-1].item(), y.sum().item()) == (3.0, 2.0, 5.0)


@given(data=st.data())
def test_pattern_is_canonical_and_order_leads_there(data):
    pairs = data.draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), unique=True))
    rows, columns = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    pattern = SparsityPattern(rows, columns, (5, 4))
    stored = list(zip(pattern.row.tolist(), pattern.col.tolist(), strict=True))
    assert stored == sorted(pairs)
    assert stored == [pairs[e] for e in pattern.order.tolist()]
    reference = sp.csr_array((np.ones(len(pairs)), (rows.numpy(), columns.numpy())), shape=(5, 4))
    assert pattern.crow.tolist() == reference.indptr.tolist()
    turned = pattern.transpose()
    assert list(zip(turned.col.tolist(), turned.row.tolist(), strict=True)) == [
        stored[e] for e in pattern.transposed_order.tolist()
    ]
    assert turned.transpose() is pattern


@given(data=st.data())
def test_row_sums_diagonal_scaling_and_norm_bound_are_those_of_the_matrix(data):
    pattern = data.draw(patterns())
    A = SparseOperator(pattern, values_of(data, pattern, COMPLEX))
    dense, (m, n) = to_dense(pattern, A.values), pattern.shape
    assert_within(A.row_sums(), dense.sum(1), 8 * U * dense.abs().sum(1))
    if m == n:
        assert torch.equal(A.diagonal(), dense.diagonal())
    left, right = data.draw(fields(m, 1)).squeeze(1), data.draw(fields(n, 1)).squeeze(1)
    scaled = left[:, None] * dense * right
    assert_within(A.scaled(left, right).matrix(), scaled, 8 * U * scaled.abs())
    assert torch.linalg.matrix_norm(dense, 2) <= A.norm_bound() * (1 + 32 * U)


@given(data=st.data())
def test_a_symmetric_matrix_scaled_alike_on_both_sides_stays_symmetric_to_the_last_bit(data):
    half = torch.from_numpy(np.tril(data.draw(fields(4, 4)).numpy()))
    A = SparseOperator.from_scipy(sp.coo_array((half + half.T).numpy()))
    scale = data.draw(fields(4, 1)).squeeze(1) / 3
    scaled = A.scaled(scale, scale).matrix()
    assert torch.equal(scaled, scaled.T)


@given(data=st.data())
def test_with_diagonal_adds_the_diagonal_and_says_where(data):
    pairs = data.draw(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)).filter(lambda p: p[0] != p[1]), unique=True)
    )
    rows, columns = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    pattern = SparsityPattern(rows, columns, (4, 4))
    values = torch.arange(1.0, pattern.nnz + 5)
    joined = pattern.with_diagonal()
    expected = to_dense(pattern, values[:-4]) + torch.diag(values[-4:])
    assert torch.equal(SparseOperator(joined, values[joined.order]).matrix(), expected)
    assert pattern.with_diagonal() is joined


@pytest.mark.parametrize("learned", [False, True])
@given(data=st.data())
def test_copies_and_pickles_are_equal_and_independent(learned, data):
    pattern = data.draw(patterns())
    values = values_of(data, pattern, REAL)
    A = SparseOperator(pattern, torch.nn.Parameter(values) if learned else values)
    x = data.draw(fields(pattern.shape[1], 2))
    y = (A @ x).detach()
    A.adjoint()
    for copy in (deepcopy(A), pickle.loads(pickle.dumps(A))):
        assert torch.equal(copy @ x, y)
        assert torch.equal(copy.pattern.order, pattern.order)
        assert len(list(copy.parameters())) == learned
        with torch.no_grad():
            copy.values.fill_(7)
        assert torch.equal(A @ x, y)


def test_learned_values_are_saved_and_fixed_ones_are_not():
    pattern = SparsityPattern(torch.tensor([0]), torch.tensor([0]), (1, 1))
    assert SparseOperator(pattern, torch.ones(1)).state_dict() == {}
    assert list(SparseOperator(pattern, torch.nn.Parameter(torch.ones(1))).state_dict()) == ["values"]


@given(data=st.data())
def test_in_float32_the_product_stays_in_float32(data):
    pattern = data.draw(patterns())
    wide = SparseOperator(pattern, values_of(data, pattern, REAL))
    x = data.draw(fields(pattern.shape[1], 2, dtype=torch.float32))
    dense = to_dense(pattern, wide.values)
    narrow = deepcopy(wide).to(torch.float32)
    assert narrow.pattern.row.dtype == torch.int64
    y = narrow @ x
    assert y.dtype == torch.float32
    assert_within(y, dense @ x.double(), 16 * roundoff(torch.float32) * (dense.abs() @ x.double().abs()))


def test_the_transpose_of_a_pattern_is_freed_without_the_cycle_collector():
    import gc
    import weakref

    gc.disable()
    try:
        pattern = SparsityPattern(torch.tensor([0]), torch.tensor([1]), (2, 2))
        seen = weakref.ref(pattern.transpose())
        del pattern
        assert seen() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_entries_are_refused_with_their_place(bad):
    index = torch.tensor([0, 1])
    with pytest.raises(DomainError, match=r"values hold 1 non-finite value, the first \(.*\) at index \[1\]: remove"):
        SparseOperator.from_entries(index, index, torch.tensor([1.0, bad]), (2, 2))


@pytest.mark.parametrize(
    "make", [SparsityPattern, lambda i, j, s: SparseOperator.from_entries(i, j, torch.ones(len(i)), s)]
)
@pytest.mark.parametrize(
    ("rows", "columns", "match"),
    [
        ([2], [0], "rows hold the index 2, but there are only 2 points, numbered 0 to 1"),
        ([0], [3], "columns hold the index 3, but there are only 3 points"),
        ([-1], [0], "rows hold the negative index -1: indices count from 0"),
        ([0.0], [0], r"rows must hold integers, not torch\.float32"),
        ([0], [True], r"columns must hold integers, not torch\.bool"),
    ],
)
def test_bad_indices_never_reach_a_kernel(make, rows, columns, match):
    with pytest.raises(DomainError, match=match):
        make(torch.tensor(rows), torch.tensor(columns), (2, 3))


def test_a_pattern_that_repeats_an_entry_is_refused():
    with pytest.raises(DomainError, match="same entry twice: sum repeated entries first"):
        SparsityPattern(torch.tensor([0, 0]), torch.tensor([1, 1]), (2, 2))


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (torch.ones(3), r"shape \(\.\.\., 2\), not \(3,\)"),
        (torch.tensor(1.0), r"shape \(\.\.\., 2\), not \(\)"),
        (torch.ones(2, dtype=torch.int64), r"floating point or complex, not torch\.int64"),
        (torch.ones(2, dtype=torch.bool), r"floating point or complex, not torch\.bool"),
    ],
)
def test_values_that_do_not_fit_the_pattern_are_refused(values, match):
    pattern = SparsityPattern(torch.tensor([0, 1]), torch.tensor([1, 0]), (2, 2))
    with pytest.raises(DomainError, match=match):
        SparseOperator(pattern, values)


def test_to_scipy_is_a_copy():
    A = SparseOperator.from_entries(torch.tensor([0, 1]), torch.tensor([1, 0]), torch.ones(2, dtype=REAL), (2, 2))
    copy = A.to_scipy()
    copy.data[:], copy.indices[:], copy.indptr[:] = 7, 0, 0
    assert torch.equal(A.matrix(), torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=REAL))


def test_changing_the_precision_of_a_complex_operator_keeps_its_imaginary_part():
    values = torch.tensor([1 + 2j], dtype=COMPLEX)
    A = SparseOperator.from_entries(torch.tensor([0]), torch.tensor([0]), values, (1, 1))
    narrow = A.to(torch.float32)
    assert narrow.values.dtype == torch.complex64
    assert narrow.values.item() == 1 + 2j
    assert narrow.to(torch.float64).values.dtype == COMPLEX


@given(data=st.data())
def test_sums_multiples_and_compositions_are_those_of_the_matrices(data):
    of_values, of_x = (data.draw(st.sampled_from([REAL, COMPLEX])) for _ in range(2))
    batch = data.draw(st.sampled_from([(), (2,)]))
    A, C = (SparseOperator(p, values_of(data, p, of_values)) for p in (data.draw(patterns()), data.draw(patterns())))
    m, n = A.shape
    other = SparsityPattern(torch.arange(min(m, n)), torch.arange(min(m, n)), (m, n))
    B = SparseOperator(other, values_of(data, other, of_x, batch))
    for factor in (-2.5, np.float64(0.5), torch.tensor(3.0, dtype=REAL), 2j):
        assert torch.equal((factor * A).matrix(), factor * A.matrix())
        assert torch.equal((A * factor).matrix(), factor * A.matrix())
    assert torch.equal((A + B).matrix(), A.matrix() + B.matrix())
    assert torch.equal((A - B).matrix(), A.matrix() - B.matrix())
    assert (A + A).pattern is A.pattern
    x = data.draw(fields(n, 2, dtype=of_x))
    D = A.adjoint() @ A
    assert torch.equal(D @ x, A.adjoint() @ (A @ x))
    assert torch.equal(D.adjoint() @ x, D @ x)
    assert torch.equal((D @ D) @ x, D @ (D @ x))
    assert torch.linalg.matrix_norm(D.matrix(), 2) <= D.norm_bound() * (1 + 32 * U)
    if C.shape != A.shape:
        with pytest.raises(DomainError, match="have no sum"):
            A + C
    if C.shape[0] != n:
        with pytest.raises(DomainError, match="have no product"):
            A @ C


def test_sums_and_multiples_are_differentiable():
    one, other = (SparsityPattern(torch.tensor(i), torch.tensor(j), (2, 2)) for i, j in (([0, 1], [0, 1]), ([0, 1], [1, 1])))
    v, w, s = torch.randn(2, dtype=REAL), torch.randn(3, 2, dtype=REAL), torch.tensor(2.0, dtype=REAL)

    def matrix(v, w, s):
        return (SparseOperator(one, v) + s * SparseOperator(other, w)).matrix()

    assert torch.autograd.gradcheck(matrix, tuple(t.requires_grad_() for t in (v, w, s)))


def test_precisions_are_never_mixed_silently():
    pattern = SparsityPattern(torch.tensor([0, 1]), torch.tensor([1, 0]), (2, 2))
    A, half = SparseOperator(pattern, torch.ones(2, dtype=REAL)), torch.ones(2, 1, dtype=torch.float16)
    with pytest.raises(DomainError, match="have no sum"):
        A + SparseOperator(pattern, torch.ones(2))
    with pytest.raises(DomainError, match="a factor must be one number"):
        torch.ones(2, dtype=REAL) * A
    with pytest.raises(TypeError):
        A + 1
    mixed = [(A.values.float(), A.values[:, None]), (A.values.to(COMPLEX), half), (A.values, half.int())]
    for values, x in [(A.values, half), *mixed]:
        with pytest.raises(FieldError, match="nothing is converted silently"):
            sparse_product(values, x, pattern)
        with pytest.raises(FieldError, match="nothing is converted silently"):
            sampled_product(values[:, None], x, pattern)


def test_fields_that_do_not_fit_never_reach_a_kernel():
    """A longer field would be read in part, and silently."""
    pattern = SparsityPattern(torch.tensor([0, 1]), torch.tensor([1, 0]), (2, 2))
    good = torch.ones(2, 1, dtype=REAL)
    for bad in (torch.ones(3, 1, dtype=REAL), torch.ones(1, 1, dtype=REAL), torch.ones(2, dtype=REAL)):
        for values in (good[:, 0], good[:, 0].to(COMPLEX), good[:, 0].expand(3, 2)):
            with pytest.raises(FieldError, match="field must have shape"):
                sparse_product(values, bad, pattern)
        with pytest.raises(FieldError, match="left field must have shape"):
            sampled_product(bad, good, pattern)
        with pytest.raises(FieldError, match="right field must have shape"):
            sampled_product(good, bad, pattern)
