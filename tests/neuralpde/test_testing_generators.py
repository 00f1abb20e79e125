"""Generators are skew, stochastic and positive to the last bit where promised; every kind occurs, and they shrink to nothing."""

import pytest
import torch
from drawing import drawn, least

from neuralpde.testing_bounds import assert_within
from neuralpde.testing_generators import positive_operators, skew_hermitian_matrices, skew_operators, stochastic_operators

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


@pytest.mark.parametrize("dtype", DTYPES)
def test_skew_matrices_and_operators_are_skew_to_the_last_bit(dtype):
    dense = drawn(skew_hermitian_matrices(4, dtype=dtype), 30)
    sparse = [G.matrix() for G in drawn(skew_operators(5, dtype=dtype), 30)]
    for W in (*dense, *sparse):
        assert W.dtype == dtype
        assert torch.equal(W.mH, -W)
    for family in (dense, sparse):
        assert any(bool((W == 0).all()) for W in family)
        assert any(bool((W != 0).any()) for W in family)
        assert not dtype.is_complex or any(bool((W.diagonal().imag != 0).any()) for W in family)


def test_exact_skew_matrices_are_dyadic():
    for W in drawn(skew_hermitian_matrices(3, exact=True), 30):
        assert torch.equal(W * 16, (W * 16).round())


def test_stochastic_rows_sum_to_one():
    seen = [A.matrix() for A in drawn(stochastic_operators(5), 50)]
    for A in seen:
        assert bool((A >= 0).all())
        assert_within(A.sum(dim=1), 1.0, 8 * 2.0**-53)
    assert any(torch.equal(A, torch.eye(5, dtype=A.dtype)) for A in seen)
    assert sum(bool((A.diagonal() == 0).any()) for A in seen) >= 5, "nodes without a share of their own"
    assert sum(bool((A != 0).sum(0).min() == 0) for A in seen) >= 1, "nodes that nobody listens to"
    assert sum(not torch.equal(A, A.T) for A in seen) >= 25


def test_doubly_stochastic_columns_sum_to_one_exactly():
    for A in drawn(stochastic_operators(5, doubly=True, dtype=torch.float32), 30):
        assert torch.equal(A.matrix().sum(dim=0), torch.ones(5))
        assert torch.equal(A.matrix().sum(dim=1), torch.ones(5))


def test_positive_operators_are_symmetric_and_semi_definite():
    seen = [S.matrix() for S in drawn(positive_operators(5), 50)]
    for S in seen:
        assert torch.equal(S, S.T)
        assert torch.equal(S * 8, (S * 8).round())
        assert float(torch.linalg.eigvalsh(S)[0]) >= -64 * 2.0**-53 * float(S.abs().sum())
    ranks = {int(torch.linalg.matrix_rank(S)) for S in seen}
    assert {0, 2, 5} <= ranks
    off_diagonal = [S - torch.diag(S.diagonal()) for S in seen]
    assert any(bool((S > 0).any()) for S in off_diagonal)
    assert any(bool((S < 0).any()) for S in off_diagonal)
    for S in drawn(positive_operators(4, definite=True), 30):
        assert float(torch.linalg.eigvalsh(S.matrix())[0]) >= 1 - 1e-12


def test_shrinking_leaves_nothing_or_one_pair():
    assert not least(skew_hermitian_matrices(3), lambda W: True).any()
    W = least(skew_hermitian_matrices(3), lambda W: bool(W.any()))
    assert sorted(W[W != 0].tolist()) == [-1 / 2, -1 / 2, 1 / 2, 1 / 2]
    G = least(skew_operators(4), lambda G: bool(G.matrix().any())).matrix()
    assert sorted(G[G != 0].tolist()) == [-1 / 8, 1 / 8]
    assert torch.equal(least(stochastic_operators(3), lambda A: True).matrix(), torch.eye(3, dtype=torch.float64))
    A = least(stochastic_operators(3), lambda A: int((A.matrix() != 0).sum()) > 3).matrix()
    assert int((A != 0).sum()) == 4
    S = least(positive_operators(3), lambda S: bool((S.matrix() < 0).any())).matrix()
    assert sorted(S[S != 0].tolist()) == [-1 / 8, -1 / 8, 1 / 8, 1 / 8]
