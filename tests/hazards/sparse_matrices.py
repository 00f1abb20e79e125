"""Sparse matrices that torch multiplies wrongly, dies of or cannot differentiate, and PyG's graphs: what ours do."""

import copy
import io
import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import scipy.sparse as sp
import torch
from cases import Cases, check, main
from torch_geometric.data import Data

import neuralpde as npde

cases = Cases()
refuses, answers = cases.refuses, cases.answers
double = torch.float64
ROWS, COLUMNS = torch.tensor([2, 0, 1, 0]), torch.tensor([2, 1, 0, 0])  # unsorted
VALUES = torch.tensor([4.0, 2.0, 3.0, 1.0], dtype=double)
DENSE = torch.tensor([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 4.0]], dtype=double)
x = torch.tensor([[1.0, -1.0], [2.0, 0.5], [3.0, 0.25]], dtype=double)


def operator(rows=ROWS, columns=COLUMNS, values=VALUES, shape=(3, 3)):
    return npde.SparseOperator.from_entries(rows, columns, values, shape)


def close(a, b, scale=1.0):
    check(a.shape == b.shape, f"shape {tuple(a.shape)}, not {tuple(b.shape)}")
    check(torch.allclose(a, b, rtol=0, atol=1e-13 * scale), f"error {float((a - b).abs().max()):.1e}")


def csr(data=(1.0, 2.0, 3.0), indices=(0, 1, 2), pointers=(0, 1, 2, 3)):
    """A SciPy matrix that is damaged behind its constructor's back."""
    matrix = sp.csr_array(np.eye(3))
    matrix.data, matrix.indices, matrix.indptr = np.array(data), np.array(indices), np.array(pointers)
    return matrix


def from_scipy(**damage):
    return lambda: npde.SparseOperator.from_scipy(csr(**damage)) @ x


def broken(name, pattern, **damage):
    refuses(name, npde.DomainError, pattern, from_scipy(**damage))


broken("crow_last_exceeds_nnz", "damaged|index", pointers=(0, 1, 2, 10**9))
broken("crow_not_monotone_matvec", "damaged|index", pointers=(0, 3, 1, 3))
broken("crow_first_nonzero", "damaged|index", pointers=(1, 1, 2, 3))
broken("crow_wrong_length", "damaged|index", pointers=(0, 1, 3))
broken("crow_float", "damaged|index", pointers=(0.0, 1.5, 2.0, 3.0))
broken("col_oob_huge_matvec", "damaged|index", indices=(0, 10**9, 2))
broken("col_neg_matvec", "damaged|index", indices=(0, -1, 2))
for names, index in (("col_oob_matmat", 10**12), ("col_oob_matvec col_oob_checked col_oob_todense coo_oob", 5)):
    pattern = f"hold the index {index}, but there are only 3"
    refuses(names, npde.DomainError, pattern, lambda i=index: operator(ROWS, torch.tensor([2, 1, 0, i])) @ x)
refuses("dup_cols_checked", npde.DomainError, "twice", lambda: npde.SparsityPattern(ROWS * 0, COLUMNS * 0, (3, 3)))
refuses("inf_values", npde.DomainError, "non-finite", lambda: operator(values=VALUES / 0))
refuses("nan_values_zero_mult", npde.DomainError, "non-finite", lambda: operator(values=VALUES * float("nan")))
refuses("dtype_mismatch_matvec", npde.FieldError, "nothing is converted silently", lambda: operator() @ x.float())
refuses("int_values", npde.DomainError, "floating point or complex", lambda: operator(values=VALUES.long()))


def repeated_entries():
    index = torch.tensor([0, 0, 1])
    close(operator(index, index, VALUES[:3], (2, 2)) @ x[:2], torch.diag(torch.tensor([6.0, 3.0], dtype=double)) @ x[:2])


def repeated_and_unsorted_scipy():
    matrix = sp.csr_array((np.array([1.0, 2.0, 3.0]), np.array([2, 0, 2]), np.array([0, 3, 3, 3])), shape=(3, 3))
    close((npde.SparseOperator.from_scipy(matrix) @ x)[0], 4 * x[2] + 2 * x[0])
    close(npde.SparseOperator.from_scipy(matrix).row_sums(), torch.tensor([6.0, 0.0, 0.0], dtype=double))


def gradient_of_values():
    for rows, columns in ((ROWS, COLUMNS), (ROWS * 0, COLUMNS * 0 + 1)):
        values = VALUES.clone().requires_grad_()
        (operator(rows, columns, values) @ x).square().sum().backward()
        again = VALUES.clone().requires_grad_()
        dense = torch.zeros(3, 3, dtype=double).index_put((rows, columns), again, accumulate=True)
        (dense @ x).square().sum().backward()
        close(values.grad, again.grad, 100)


def batches():
    field = torch.stack([x, 2 * x])
    close(operator() @ field, DENSE @ field)


def matrix_functions():
    close(operator().diagonal(), DENSE.diagonal())
    close(operator().row_sums(), DENSE.sum(1))
    left, right = torch.tensor([2.0, 3.0, 4.0], dtype=double), torch.ones(3, dtype=double)
    close(operator().scaled(left, right) @ x, torch.diag(left) @ DENSE @ x)
    close(torch.from_numpy(operator().to_scipy().toarray()), DENSE)


def solves():
    laplacian = npde.combinatorial_laplacian(npde.grid(3, 3).to(double).graph())
    b = torch.arange(laplacian.shape[0], dtype=double)[:, None]
    y = laplacian.solve(0.5, b)
    close(y + 0.5 * (laplacian @ y), b, 100)


def copies():
    whole = pickle.loads(pickle.dumps(operator()))
    close(whole @ x, DENSE @ x)
    close(copy.deepcopy(operator()) @ x, DENSE @ x)
    # What a queue between processes sends.
    close(pickle.loads(ForkingPickler.dumps(operator())) @ x, DENSE @ x)


def derivatives():
    product = lambda values, field: operator(values=values) @ field  # noqa: E731
    real = VALUES.clone().requires_grad_(), x.clone().requires_grad_()
    check(torch.autograd.gradcheck(product, real))
    check(torch.autograd.gradgradcheck(product, real))
    field = (x + 1j * x.flip(0)).requires_grad_()
    check(torch.autograd.gradcheck(product, (VALUES.clone().requires_grad_(), field)))
    check(torch.autograd.gradcheck(product, ((VALUES * (1 + 2j)).requires_grad_(), field)))


def complex_fields():
    close(operator() @ (x + 2j * x), DENSE @ x + 2j * (DENSE @ x))


def forward_mode():
    fixed = operator()
    _, tangent = torch.func.jvp(lambda field: fixed @ field, (x,), (x.flip(0),))
    close(tangent, DENSE @ x.flip(0))


def half_precision():
    """Right to the precision's round-off, or refused."""
    for dtype in (torch.bfloat16, torch.float16):
        try:
            y = operator(values=VALUES.to(dtype)) @ x.to(dtype)
        except (npde.DomainError, npde.FieldError, NotImplementedError):
            continue
        check(y.dtype == dtype and torch.allclose(y.double(), DENSE @ x, rtol=0.02, atol=0.02), f"{dtype}: {y.tolist()}")


def checkpoint():
    stored = io.BytesIO()
    learned = npde.SparseOperator(operator().pattern, torch.nn.Parameter(VALUES.clone()))
    torch.save(learned.state_dict(), stored)
    stored.seek(0)
    check(list(torch.load(stored, weights_only=True)) == ["values"], "a checkpoint carries indices")


answers("coo_uncoalesced_values_op", repeated_entries)
answers("to_sparse_coo_of_unsorted_is_flagged_coalesced", repeated_and_unsorted_scipy)
answers("grad_wrt_unsorted_values_mm grad_wrt_dup_values_mm", gradient_of_values)
answers("batched_rhs_3d", batches)
answers("csr_abs_trace_diag csr_mul_rowscale csr_sum_axis unsorted_checked", matrix_functions)
answers("csr_solve", solves)
answers("deepcopy_module pickle_multiprocess_spawn_share", copies)
answers("gradcheck_matvec_complex gradcheck_mm_complex gradgrad_mm", derivatives)
answers("real_A_complex_x real_A_complex_x_coo", complex_fields)
answers("jvp_forward_ad", forward_mode)
answers("bf16_values half_values", half_precision)
answers("corrupted_csr_load_weights_only", checkpoint)

# Graphs, and attention on them.
PATH = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
KINDS = (npde.combinatorial_laplacian, npde.random_walk_laplacian, npde.symmetric_laplacian)


def graph(index=PATH, nodes=3, weight=None):
    return npde.Graph(index, nodes) if weight is None else npde.Graph(index, nodes, torch.tensor(weight, dtype=double))


def refused_by_all(names, pattern, build):
    refuses(names, npde.DomainError, pattern, lambda: [kind(build()) for kind in KINDS])


ONE_WAY, NEGATIVE, NAN = PATH[:, ::2], [-1.0, -1.0, 2.0, 2.0], [1.0, float("nan"), 1.0, 1.0]
refused_by_all("lap_directed lap_directed_sym", "directed.*undirected", lambda: graph(ONE_WAY))
refused_by_all("lap_negative_weight lap_negative_weight_sym", "negative weight", lambda: graph(weight=NEGATIVE))
refused_by_all("lap_nan_weight", "non-finite", lambda: graph(weight=NAN))
refused_by_all("lap_int_weight", "must be float32 or float64", lambda: npde.Graph(PATH, 3, torch.ones(4, dtype=torch.int64)))
refused_by_all("lap_neg_index", "negative index -1", lambda: graph(PATH - 1))
refused_by_all("lap_oob scatter_oob", "index 7", lambda: graph(PATH + 5))
GUESSED = (npde.DomainError, UserWarning)  # PyG warns, and warnings are errors here
refuses("lap_isolated_no_num_nodes", GUESSED, "num_nodes", lambda: npde.Graph.from_pyg(Data(edge_index=PATH)))


def isolated():
    for kind in KINDS:
        dense = kind(graph(nodes=4)).stiffness.to_scipy().toarray()
        check(not dense[3].any() and not dense[:, 3].any(), "an isolated node has entries")
        check(np.array_equal(dense, dense.T))
    check(not (npde.random_walk_laplacian(graph(nodes=4)) @ torch.ones(4, 1)).any())
    diffusivity = npde.ScaledDotProduct(npde.combinatorial_laplacian(graph(nodes=4)), channels=2)
    rows = diffusivity(torch.randn(4, 2)).row_sums()
    check(torch.allclose(rows, torch.ones(4), atol=1e-6), f"row sums {rows.tolist()}")


def attention_at(value):
    diffusivity = npde.ScaledDotProduct(npde.combinatorial_laplacian(graph()), channels=2)
    with torch.no_grad():
        diffusivity.query.weight.fill_(value)
        diffusivity.key.weight.fill_(1.0)
    return diffusivity(torch.ones(3, 2)).row_sums()


def huge_scores():
    rows = attention_at(1e30)
    check(torch.allclose(rows, torch.ones(3), atol=1e-6), f"row sums {rows.tolist()}")


answers("lap_isolated_rw lap_isolated_sym softmax_isolated", isolated)
refuses("softmax_posinf", (npde.FieldError, npde.DomainError), "finite", lambda: attention_at(float("inf")))
refuses("softmax_neginf_row", (npde.FieldError, npde.DomainError), "finite", lambda: attention_at(float("-inf")))
answers("softmax_large_scores", huge_scores)


def half_attention():
    """A node of degree 1e5, beyond half's 65504: row sums to half's round-off, or refused."""
    leaves = torch.arange(1, 100_001)
    star = torch.stack([torch.cat([leaves, leaves * 0]), torch.cat([leaves * 0, leaves])])
    diffusivity = npde.ScaledDotProduct(npde.combinatorial_laplacian(npde.Graph(star, 100_001)), channels=1)
    try:
        rows = diffusivity.half()(torch.ones(100_001, 1, dtype=torch.float16)).row_sums()
    except (npde.DomainError, npde.FieldError, NotImplementedError):
        return
    check(bool((rows.float() - 1).abs().max() < 0.05), f"row sums {rows[:2].tolist()}")


answers("softmax_half_deg_1e5", half_attention)

if __name__ == "__main__":
    main(cases)
