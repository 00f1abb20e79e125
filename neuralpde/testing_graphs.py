"""Hypothesis strategies for graphs: tiny ones that shrink to the edge that matters, and larger ones shaped like data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from operators.domains import Graph

__all__ = ["graphs", "large_graphs"]

Pairs = list[tuple[int, int]]

_WEIGHTS = {
    "ones": st.just(1.0),
    "dyadic": st.integers(0, 32).map(lambda k: k / 8),
    "wide": st.floats(-6, 6).map(lambda e: 10.0**e),
}


@st.composite
def graphs(
    draw: st.DrawFn,
    *,
    min_nodes: int = 1,
    max_nodes: int = 12,
    weights: Sequence[str] = ("ones", "dyadic", "wide"),
    simple: bool = False,
    directed: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Graph:
    """Undirected graphs: isolated nodes, several components, and (unless `simple`) self-loops and repeated edges.

    Edges are drawn as a list of pairs, so shrinking removes edges; paths, stars, complete and bipartite graphs, and unions
    of two, come besides. A failing example shrinks to the fewest nodes and edges, of weight 1 or 0.

    Args:
        weights: which of "ones", "dyadic" (multiples of ⅛, zero included, whose sums are exact) and "wide" (1e-6 to 1e6).
        simple: no self-loops and no repeated edges.
        directed: each edge in one direction only, unless it is drawn in both.
    """
    n = draw(st.integers(min_nodes, max_nodes), label="nodes")
    ends = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))
    pairs = draw(st.one_of(st.lists(ends, max_size=2 * n), st.sampled_from(_named_graphs(n))), label="edges")
    if simple:
        pairs = sorted({p if directed else (min(p), max(p)) for p in pairs if p[0] != p[1]})
    weight = draw(st.sampled_from(list(weights)).flatmap(lambda kind: _lists(_WEIGHTS[kind], len(pairs))), label="weights")
    both = [(i, j, w) for (i, j), w in zip(pairs, weight, strict=True)]
    if not directed:
        both += [(j, i, w) for i, j, w in both if i != j]
    # One choice for graphs of any size, or a small one would count as harder than a large one, and shrinking would stop there.
    order = np.random.default_rng(seed).permutation(len(both)) if (seed := draw(st.integers(0, 99), label="order")) else None
    both = both if order is None else [both[k] for k in order]
    index = torch.tensor([[i for i, _, _ in both], [j for _, j, _ in both]], dtype=torch.int64)
    return Graph(index.reshape(2, -1), n, torch.tensor([w for _, _, w in both], dtype=dtype))


@st.composite
def large_graphs(draw: st.DrawFn, *, min_nodes: int = 50, max_nodes: int = 300, dtype: torch.dtype = torch.float64) -> Graph:
    """Undirected simple graphs shaped like data: a ring, a tree, citations with hubs, communities, neighbours in the plane.

    One number seeds all edges, so an example costs a millisecond, and shrinks to the ring of the fewest nodes with weights 1;
    draw from `graphs` to see which edge matters. Hubs reach a quarter of the nodes; communities are seldom joined, so the
    graph may fall into pieces; weights are ones, or from 1e-3 to 1e3.
    """
    n = draw(st.integers(min_nodes, max_nodes), label="nodes")
    shape = draw(st.sampled_from([_ring, _tree, _citations, _communities, _neighbours]), label="shape")
    random = np.random.default_rng(draw(st.integers(0, 999), label="seed"))
    pairs = shape(n, random)
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
    wide = draw(st.booleans(), label="wide weights")
    weight = torch.from_numpy(10 ** random.uniform(-3, 3, len(pairs)) if wide else np.ones(len(pairs))).to(dtype)
    index = torch.from_numpy(pairs.T.copy())
    return Graph(torch.cat([index, index.flip(0)], dim=1), n, torch.cat([weight, weight]))


def _lists(elements: st.SearchStrategy[float], size: int) -> st.SearchStrategy[list[float]]:
    return st.lists(elements, min_size=size, max_size=size)


def _named_graphs(n: int) -> list[Pairs]:
    half = n // 2
    halves = zip(_connected(half), _connected(n - half), strict=True)
    unions = [one + [(i + half, j + half) for i, j in other] for one, other in halves]
    return [[], *_connected(n), *unions]


def _connected(n: int) -> list[Pairs]:
    star, path = [(0, i) for i in range(1, n)], [(i, i + 1) for i in range(n - 1)]
    complete = [(i, j) for i in range(n) for j in range(i)]
    bipartite = [(i, j) for i in range(0, n, 2) for j in range(1, n, 2)]
    return [path, star, complete, bipartite]


def _ring(n: int, random: np.random.Generator) -> NDArray[np.int64]:
    node = np.arange(n)
    return np.stack([node, (node + 1) % n], axis=1)


def _tree(n: int, random: np.random.Generator) -> NDArray[np.int64]:
    child = np.arange(1, n)
    return np.stack([child, random.integers(0, child)], axis=1)


def _citations(n: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Three edges from every node to earlier ones, mostly to the first few."""
    later = np.repeat(np.arange(1, n), 3)
    return np.stack([later, (later * random.random(len(later)) ** 3).astype(np.int64)], axis=1)


def _communities(n: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Edges within groups of ten, and one from every tenth node to anywhere."""
    node = np.repeat(np.arange(n), 3)
    within = np.minimum(node - node % 10 + random.integers(0, 10, len(node)), n - 1)
    between = np.stack([np.arange(0, n, 10), random.integers(0, n, (n + 9) // 10)], axis=1)
    return np.concatenate([np.stack([node, within], axis=1), between])


def _neighbours(n: int, random: np.random.Generator) -> NDArray[np.int64]:
    """The five nearest others of every point of a random cloud."""
    k = min(5, n - 1)
    found = np.asarray(cKDTree(points := random.random((n, 2))).query(points, k=k + 1)[1]).reshape(n, k + 1)
    return np.stack([np.repeat(np.arange(n), k), found[:, 1:].reshape(-1)], axis=1).astype(np.int64)
