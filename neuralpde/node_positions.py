"""Positions that `operators.encodings` does not have: sparse PageRank, and what DeepWalk tends to, without walking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor

from neuralpde.node_data import Features
from operators import DomainError, Graph
from operators.encodings import Cached
from operators.page_rank import sparse_page_rank

Positions = Callable[[Graph], Features]
"""How nodes get positions: a graph ↦ (n, d)."""


@dataclass(frozen=True)
class SparsePageRank:
    """Rows of personalised PageRank by push, (n, n), kept sparse."""

    restart: float = 0.05
    tolerance: float = 1e-4

    def __call__(self, graph: Graph) -> Features:
        return sparse_page_rank(graph, self.restart, self.tolerance, progress=False)


@dataclass(frozen=True)
class DeepWalkLimit:
    """The embedding that DeepWalk's tends to as walks become many and long, without walking (Qiu et al. 2018, WSDM, eq. 3).

    A factor U of rank d, M ≈ ± U Uᵀ, of M = log max(1, (vol / T) Σ_{r ≤ T} (D⁻¹ W)ʳ D⁻¹), by the leading eigenpairs of
    D^-½ W D^-½ (their alg. 4) and subspace iteration on M, whose zeros are not stored.

    Args:
        dimensions: d.
        window: T.
        rank: the eigenpairs that the powers of the walk are made of.
        seed: of the iteration.

    `DeepWalkLimit(128)(graph)` gives (n, d) in float32. Isolated nodes are at zero. Good values: the defaults, some seconds for
    10,000 nodes; M has up to n² entries, so beyond 30,000 nodes walk instead, with `DeepWalk`.

    Raises:
        DomainError: a graph of fewer than d + 2 nodes, without edges, directed or with negative weights.
    """

    dimensions: int = 128
    window: int = 10
    rank: int = 128
    seed: int = 0

    def __call__(self, graph: Graph) -> Tensor:
        n, d = graph.nodes, self.dimensions
        if n < d + 2:
            raise DomainError(f"{n} nodes have no {d} dimensions: take at most {n - 2}")
        source, target = graph.edge_index.cpu().numpy()
        weight = graph.edge_weight.detach().cpu().numpy().astype(np.float64)
        edges = sp.csr_array((weight, (source, target)), shape=(n, n))
        if not edges.nnz or weight.min() < 0 or abs(edges - edges.T).max() > 1e-6 * weight.max():
            raise DomainError("DeepWalk's limit needs an undirected graph with weights ≥ 0, and an edge: see graph.undirected()")
        degree = edges.sum(axis=1)
        root = np.where(degree > 0, np.maximum(degree, 1e-300) ** -0.5, 0.0)
        walk: Any = sp.diags_array(root) @ edges @ sp.diags_array(root)
        # Started at the leading eigenvector, so that the result is the same in every run.
        values, vectors = eigsh(walk, min(self.rank, n - 2), which="LA", v0=np.sqrt(degree) + 1e-9)
        powers = sum(np.clip(values, 0, 1) ** r for r in range(1, self.window + 1)) / self.window
        factor = (root[:, None] * vectors * np.sqrt(powers)).astype(np.float32)
        slices = (factor[first : first + 1000] @ factor.T for first in range(0, n, 1000))
        rows = [sp.csr_array(np.log(np.maximum(degree.sum() * block, 1))) for block in slices]
        return torch.from_numpy(self._factor(sp.vstack(rows, format="csr")))

    def _factor(self, matrix: Any) -> Any:
        """U (n, d) from the eigenvalues of largest magnitude."""
        n = matrix.shape[0]
        basis = np.random.RandomState(self.seed).randn(n, min(n, self.dimensions + 20)).astype(np.float32)
        for _ in range(3):
            basis = np.linalg.qr(matrix @ basis)[0]
        inner = basis.T @ (matrix @ basis)
        values, vectors = np.linalg.eigh((inner + inner.T) / 2)
        largest = np.argsort(-np.abs(values))[: self.dimensions]
        return np.ascontiguousarray((basis @ vectors[:, largest]) * np.sqrt(np.abs(values[largest])), dtype=np.float32)


def positions_of(encoding: Positions, graph: Graph, cache: Path | None) -> Features:
    """The positions; dense ones from the cache, if there is one."""
    if cache is None or isinstance(encoding, SparsePageRank):
        return encoding(graph)
    return Cached(encoding, cache)(graph)  # type: ignore[arg-type]
