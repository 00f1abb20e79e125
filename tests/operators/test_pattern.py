"""A pattern is canonical however it was given, and its transpose is a relabelling."""

import gc
import pickle
import weakref
from copy import deepcopy

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from operators import DomainError, SparsityPattern


@st.composite
def pairs(draw):
    m, n = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    entries = st.tuples(st.integers(0, m - 1), st.integers(0, n - 1))
    return (m, n), draw(st.lists(entries, max_size=m * n, unique=True))


def build(shape, entries):
    rows, columns = torch.tensor(entries, dtype=torch.int64).reshape(-1, 2).T
    return SparsityPattern(rows, columns, shape)


@given(pairs())
def test_entries_agree_with_scipy_by_rows_and_by_columns(given_pairs):
    shape, entries = given_pairs
    pattern = build(shape, entries)
    stored = list(zip(pattern.row.tolist(), pattern.col.tolist(), strict=True))
    assert stored == sorted(entries) == [entries[e] for e in pattern.order.tolist()]
    rows, columns = [i for i, _ in stored], [j for _, j in stored]
    matrix = sp.csr_array((np.arange(len(stored)), (rows, columns)), shape=shape)
    assert pattern.crow.tolist() == matrix.indptr.tolist()
    by_columns = matrix.tocsc()
    at = pattern.entries
    assert at.transposed_crow.tolist() == by_columns.indptr.tolist()
    assert at.transposed_col.tolist() == by_columns.indices.tolist()
    assert at.transposed_order.tolist() == by_columns.data.tolist()
    assert at.transposed_order[at.inverse_order].tolist() == list(range(pattern.nnz))


@given(pairs())
def test_transposing_twice_gives_the_pattern_itself(given_pairs):
    pattern = build(*given_pairs)
    turned = pattern.transpose()
    assert turned.transpose() is pattern
    assert turned.shape == pattern.shape[::-1]
    built = build(turned.shape, [(j, i) for i, j in given_pairs[1]])
    for name, ours, theirs in zip(turned.entries._fields, turned.entries, built.entries, strict=True):
        assert torch.equal(ours, theirs), name
    for ours, original in zip(turned.entries.transpose(), pattern.entries, strict=True):
        assert torch.equal(ours, original)


@given(pairs(), st.integers(1, 3))
def test_tiles_are_block_diagonal(given_pairs, copies):
    (m, n), entries = given_pairs
    tiled = build((m, n), entries).tile(copies)
    expected = sorted((i + b * m, j + b * n) for b in range(copies) for i, j in entries)
    assert list(zip(tiled.row.tolist(), tiled.col.tolist(), strict=True)) == expected
    assert tiled.shape == (copies * m, copies * n)


@pytest.mark.parametrize(("rows", "columns", "cause"), [
    ([0, 0], [1, 1], "same entry twice: sum repeated"),
    ([-1], [0], "rows hold the negative index -1"),
    ([2], [0], "rows hold the index 2"),
    ([0], [2], "columns hold the index 2"),
])  # fmt: skip
def test_bad_indices_are_refused_before_any_kernel(rows, columns, cause):
    with pytest.raises(DomainError, match=cause):
        SparsityPattern(torch.tensor(rows), torch.tensor(columns), (2, 2))


@pytest.mark.parametrize("index", [torch.tensor([0.0]), torch.tensor([True])])
def test_indices_are_never_rounded(index):
    with pytest.raises(DomainError, match="must hold integers"):
        SparsityPattern(index, torch.tensor([0]), (1, 1))


def test_copies_pickles_and_moves_forget_what_can_be_derived():
    pattern = build((3, 3), [(2, 0), (0, 1)])
    pattern.tile(2), pattern.transpose(), pattern.with_diagonal()
    for copy in (deepcopy(pattern), pickle.loads(pickle.dumps(pattern))):
        assert copy.transpose() is not pattern.transpose()
        for ours, original in zip(copy.entries, pattern.entries, strict=True):
            assert torch.equal(ours, original)
        assert torch.equal(copy.order, pattern.order)
    before = pattern.transpose()
    assert pattern.to("cpu").transpose() is not before
    assert pattern.state_dict() == {}


def test_the_pair_is_freed_without_the_cycle_collector():
    gc.disable()
    try:
        pattern = build((2, 2), [(0, 1)])
        seen = weakref.ref(pattern.transpose())
        del pattern
        assert seen() is None
    finally:
        gc.enable()


def test_what_is_kept_in_inference_mode_still_serves_gradients():
    pattern = SparsityPattern(torch.tensor([0, 1]), torch.tensor([1, 0]), (2, 2))
    with torch.inference_mode():
        kept = [pattern.with_diagonal(), pattern.tile(2), pattern.transpose()]
    for one in kept:
        values = torch.ones(one.nnz, requires_grad=True)
        values[one.order].sum().backward()  # torch saves the index, and refuses one of inference mode
        assert torch.equal(values.grad, torch.ones(one.nnz))
