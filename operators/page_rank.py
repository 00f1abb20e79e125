"""Personalised PageRank: where a walker that keeps going home is found, exactly or by pushing what still walks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.checks import DomainError, is_integer
from operators.domains import Graph
from operators.laplacian import adjacency_of, combinatorial_laplacian
from operators.pattern import SparsityPattern
from operators.progress import shown
from operators.sparse import SparseOperator

Array = NDArray[Any]
# The matrix in float64, its factor and its inverse.
BYTES_PER_ENTRY = 24
# Values and the index tensors of a SparseOperator, and what sorting them takes.
BYTES_PER_STORED = 120
# Entries of the two dense blocks in which sources are pushed; 8 MB each stay near the processor.
BLOCK_ENTRIES = 1_000_000


def page_rank(graph: Graph, restart: float = 0.05, *, max_bytes: int = 2 * 2**30) -> Tensor:
    """Personalised PageRank S = α (I − (1 − α) T)⁻¹ with T = D^-½ (W + I) D^-½, exactly, by a dense solve.

    S_ij = √(d_i / d_j) π_i(j), where π_i is the stationary law of a walk that returns to i with probability α at each
    step, and d_i = 1 + Σ_j w_ij. Computed in float64; differentiable in the edge weights.

    Args:
        graph: undirected, weights ≥ 0. Its own self-loops drop out; every node gets one of weight 1, so that an isolated
            node has the row e_i.
        restart: α in [1e-6, 1]. Good values: 0.05 for positions, 0.15 for rewiring.
        max_bytes: what the solve may occupy; it needs 24 n² bytes, so the default allows 9,400 nodes.

    Returns:
        (n, n), in the graph's precision: symmetric positive definite, every entry ≥ 0, S √d = √d.

    Raises:
        DomainError: a directed graph, negative weights, a restart outside [1e-6, 1], or a graph too large for n × n.

    Source: J. Gasteiger, S. Weißenberger, S. Günnemann, Diffusion improves graph learning, NeurIPS 2019, eq. 1 and § 2;
    L. Page et al., The PageRank citation ranking, 1999.
    """
    _check_restart(restart)
    n = graph.nodes
    if BYTES_PER_ENTRY * n * n > max_bytes:
        raise DomainError(
            f"the exact PageRank of {n:,} nodes is a dense {n:,} × {n:,} matrix, whose solve needs "
            f"{BYTES_PER_ENTRY * n * n / 2**30:.1f} GiB of the {max_bytes / 2**30:.1f} GiB allowed: use "
            "sparse_page_rank(graph, restart, tolerance), which stores only what matters, or raise max_bytes"
        )
    transition, _ = _transition(graph)
    row, col = transition.pattern.row, transition.pattern.col
    # (I − (1 − α) T) / α, whose spectrum lies in [1, 2/α]: Cholesky's factor always exists. In one expression, so that what was
    # used is freed: these matrices may be as large as memory allows.
    values = ((row == col).double() - (1 - restart) * transition.values) / restart
    result: Tensor = torch.cholesky_inverse(torch.linalg.cholesky(values.new_zeros(n, n).index_put((row, col), values)))
    # Round-off leaves some −1e-19 where no path leads.
    return result.clamp_min(0).to(graph.edge_weight.dtype)


def sparse_page_rank(
    graph: Graph,
    restart: float = 0.05,
    tolerance: float = 1e-4,
    *,
    keep: int | None = None,
    max_bytes: int = 8 * 2**30,
    progress: bool = True,
) -> SparseOperator:
    """Personalised PageRank with only the entries that matter: P ≤ S, from pushing residuals above a threshold.

    From the source i the pair (p, r) = (0, e_i) keeps S e_i = p + α (I − (1 − α) T)⁻¹ r while nodes with r_j > ε √d_j hand
    on what they hold: p_j grows by α r_j, and (1 − α) r_j goes to T's neighbours. Since T √d = √d, what remains is worth

        0 ≤ S_ij − P_ij ≤ ε √min(d_i, d_j),

    the smaller of the two degrees because P is the entrywise larger of what both ends found. A source touches at most
    √d_i / (α ε) edges, if they have unit weight, whatever n. Where the weights are large, so are the bounds: choose ε ≪ 1/√d.

    Args:
        graph: as for `page_rank`.
        restart: α in [1e-6, 1].
        tolerance: ε > 0. Good values: 1e-4 for positions, 1e-3 for rewiring.
        keep: if given, each row holds only its own `keep` largest entries. The bound then holds for the entries kept, with
            √d_j in place of the minimum, and P need not be symmetric.
        max_bytes: what the result may occupy.
        progress: whether a bar shows on standard error.

    Returns:
        An (n, n) operator in the graph's precision, symmetric unless `keep` is given, every entry > 0. It carries no gradient.

    Raises:
        DomainError: as `page_rank`, a tolerance that is not positive or leaves nothing, or a result larger than max_bytes.

    Source: R. Andersen, F. Chung, K. Lang, Local graph partitioning using PageRank vectors, FOCS 2006, § 3, here for the
    symmetric T and for many sources at once.
    """
    _check_restart(restart)
    if not 0 < tolerance < math.inf:
        raise DomainError(f"the tolerance must be positive and finite, not {tolerance!r}: 1e-4 is usual")
    if keep is not None and (not is_integer(keep) or keep < 1):
        raise DomainError(f"keep must be a positive number of entries a row, or None for all, not {keep!r}")
    n = graph.nodes
    transition, degree = _transition(graph)
    push = _Push(transition.to_scipy(), np.sqrt(degree.detach().cpu().numpy()), restart, tolerance)
    if bool((push.threshold >= 1).all()):
        raise DomainError(
            f"with a tolerance of {tolerance:g} nothing is found: for weighted degrees of {float(degree.min()):.3g} and more it "
            f"must lie below {1 / float(degree.min()) ** 0.5:.1e}, better far below; or divide the weights by their mean"
        )
    size = max(1, min(n, BLOCK_ENTRIES // n))
    starts = range(0, n, size)
    blocks, stored = [], 0
    for place in shown(len(starts), "PageRank", progress and len(starts) > 1):
        block = push(np.arange(starts[place], min(starts[place] + size, n)))
        blocks.append(block if keep is None else _largest(block, int(keep)))
        stored += blocks[-1].nnz * (1 if keep is not None else 2)
        if stored * BYTES_PER_STORED > max_bytes:
            done = (place + 1) / len(starts)
            raise DomainError(
                f"after {done:.0%} of the sources the sparse PageRank holds {stored:,} entries, more than max_bytes = "
                f"{max_bytes:,} allows: raise the tolerance ({tolerance:g}) or the restart ({restart:g}), keep only the "
                "largest of each row with keep=64, or raise max_bytes"
            )
    found: Any = sp.vstack(blocks, format="csr")
    if keep is None:
        found = found.maximum(found.T)
    coo = sp.coo_array(found)
    row, col = (torch.from_numpy(np.asarray(index, dtype=np.int64)) for index in coo.coords)
    pattern = SparsityPattern(row, col, (n, n))
    values = torch.from_numpy(np.ascontiguousarray(coo.data))[pattern.order]
    return SparseOperator(pattern, values.to(graph.edge_weight.dtype)).to(graph.device)


class _Push:
    """The sources of one block, pushed together: every node above its threshold, round after round."""

    def __init__(self, transition: Any, root: Array, restart: float, tolerance: float) -> None:
        # T is symmetric, so its rows are what a node hands on; scaled once instead of at every push.
        self.spread = (1 - restart) * transition
        self.threshold, self.restart = tolerance * root, restart

    def __call__(self, sources: Array) -> Any:
        """P e_i as the rows of a CSR array, for the sources i."""
        count, n = len(sources), len(self.threshold)
        rank, rest = np.zeros(count * n), np.zeros(count * n)
        rows = np.arange(count)
        flat, value = rows * n + sources, np.ones(count)
        pushed = value > self.threshold[sources]
        if not pushed.all():
            # A source whose own e_i lies below the threshold is left at zero, within the bound.
            rows, flat, value = rows[pushed], flat[pushed], value[pushed]
        touched = []
        while len(flat):
            touched.append(flat[rank[flat] == 0])
            rank[flat] += self.restart * value
            rest[flat] = 0
            pointers = np.concatenate([[0], np.bincount(rows, minlength=count).cumsum()])
            given = sp.csr_array((value, flat - rows * n, pointers), shape=(count, n)) @ self.spread
            rows = np.repeat(np.arange(count), np.diff(given.indptr))
            flat = rows * n + given.indices
            value = rest[flat] + given.data
            rest[flat] = value
            above = value > self.threshold[given.indices]
            rows, flat, value = rows[above], flat[above], value[above]
        place = np.sort(np.concatenate(touched)) if touched else np.zeros(0, dtype=np.int64)
        pointers = np.searchsorted(place, n * np.arange(count + 1))
        return sp.csr_array((rank[place], place % n, pointers), shape=(count, n))


def _largest(rows: Any, keep: int) -> Any:
    """The `keep` largest entries of each row; of equal ones those with the smaller column."""
    owner = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    order = np.lexsort((rows.indices, -rows.data, owner))
    rank = np.arange(len(order)) - rows.indptr[owner]
    kept = np.sort(order[rank < keep])
    pointers = np.concatenate([[0], np.bincount(owner[kept], minlength=rows.shape[0]).cumsum()])
    return sp.csr_array((rows.data[kept], rows.indices[kept], pointers), shape=rows.shape)


def _transition(graph: Graph) -> tuple[SparseOperator, Tensor]:
    """T = D^-½ (W + I) D^-½ and d, in float64."""
    adjacency = adjacency_of(combinatorial_laplacian(graph.to(torch.float64)))
    n, pattern = graph.nodes, adjacency.pattern
    nodes = torch.arange(n, device=graph.device)
    values = torch.cat([adjacency.values, adjacency.values.new_ones(n)])
    rows, columns = torch.cat([pattern.row, nodes]), torch.cat([pattern.col, nodes])
    looped = SparseOperator.from_entries(rows, columns, values, (n, n))
    degree = looped.row_sums()
    root = degree.rsqrt()
    return looped.scaled(root, root), degree


def _check_restart(restart: float) -> None:
    # Below, all rows are √d alike, to 1e-10 / α of rounding; and a push would take forever.
    if not 1e-6 <= restart <= 1:
        raise DomainError(f"the restart probability must lie in [1e-6, 1], not {restart!r}: 0.05 and 0.15 are usual")
